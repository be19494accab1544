"""Is the collector alive, is it ready, has the log gone silent? And the small server that answers for it over HTTP.

Rule: alive means that the reading thread goes round, or waits for the store, which a restart would not help. Ready
means that every source can be read and that what was read is committed in time. The server listens where it was told,
answers GET and HEAD of four paths, and holds a bounded number of connections for a bounded time.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, ClassVar

from analytics import Position, StoreError
from collector.address import Address
from collector.rows import Piece
from collector.settings import CollectorError
from collector.silence import Silence, Verdict
from collector.watch import Lookup, Watch

if TYPE_CHECKING:
    from collector.metrics import Metrics

_LOG = logging.getLogger(__name__)
STUCK_S = 120.0
"""The reading thread goes round every five seconds; a network file system may hold it up for a while."""
UNCOMMITTED_S = 30.0
"""What was read waits about a second for its commit."""
_TIMEOUT_S = 5.0
_CONNECTIONS = 16
_TEXT = "text/plain; charset=utf-8"
_EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"


class Health(Watch):
    """Hears what a run does and judges it; warns when the log goes silent and when packets return."""

    def __init__(self, metrics: Metrics | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._clock = clock
        self._silence = Silence()
        self._silent = False
        self._open = False
        self._beaten = clock()
        self._waiting: list[float] = []
        self._failed: Sequence[tuple[str, str]] = ()
        self._refused = ""
        self._lock = threading.Lock()

    def alive(self) -> str:
        """Why the collector is to be restarted, "" where it is not."""
        quiet = self._clock() - self._beaten
        return f"the reading thread has not moved for {quiet:.0f} s" if quiet > STUCK_S else ""

    def ready(self) -> str:
        """Why the collector does not do its work now, "" where it does."""
        return next(self._reasons(), "")

    def _reasons(self) -> Iterator[str]:
        if not self._open:
            yield "the store is not open yet"
        with self._lock:
            waited = self._clock() - self._waiting[0] if self._waiting else 0.0
            refused, failed = self._refused, self._failed
        if refused:
            yield f"the store takes no rows: {refused}"
        if waited > UNCOMMITTED_S:
            yield f"what was read has waited for its commit for {waited:.0f} s"
        for path, reason in failed:
            yield f"{path}: {reason}"
        if stuck := self.alive():
            yield stuck

    def opened(self, positions: Sequence[Position], seconds: float, namespaces: Lookup) -> None:
        self._open = True
        self.beat()

    def beat(self) -> None:
        self._beaten = self._clock()

    def handed_over(self) -> None:
        self.beat()
        with self._lock:
            self._waiting.append(self._clock())

    def looked(self, failed: Sequence[tuple[str, str]]) -> None:
        self.beat()
        with self._lock:
            self._failed = failed
            verdict = self._silence.verdict(self._clock())
        self._tell(verdict)

    def refused(self, error: StoreError) -> None:
        with self._lock:
            self._refused = str(error)

    def committed(self, pieces: Sequence[Piece], seconds: float) -> None:
        now = self._clock()
        stamps = [
            stamp.timestamp()
            for piece in pieces
            for frame in piece.packets
            for stamp in frame["time"].drop_nulls().dt.truncate("1s").unique().to_list()
        ]
        with self._lock:
            self._refused = ""
            self._waiting = self._waiting[1:]
            if any(piece.packets for piece in pieces):
                self._silence.packets(stamps, now)
            elif any(piece.lines for piece in pieces):
                self._silence.grew(now)

    def _tell(self, verdict: Verdict) -> None:
        if self._metrics is not None:
            self._metrics.silent.set(verdict.silent)
            self._metrics.usual.set(verdict.limit)
        if verdict.silent and not self._silent:
            _LOG.warning(
                "no denied packet for %s although the log grows; until now the longest silence was half of %s; "
                "`denylog doctor` looks for the cause", _length(verdict.seconds), _length(verdict.limit)
            )  # fmt: skip
        elif self._silent and not verdict.silent:
            _LOG.warning("denied packets are logged again")
        self._silent = verdict.silent


def _length(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


Answer = tuple[HTTPStatus, str, bytes]


class Server(ThreadingMixIn, HTTPServer):
    """Answers /metrics, /healthz and /readyz in threads of its own."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = _CONNECTIONS

    def __init__(self, where: Address, metrics: Metrics, health: Health) -> None:
        """Raises CollectorError where nobody can listen there."""
        self.metrics, self.health = metrics, health
        self._room = threading.BoundedSemaphore(_CONNECTIONS)
        try:
            found = socket.getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            self.address_family = found[0][0]
            super().__init__(found[0][4], _Handler)  # type: ignore[arg-type]
        except OSError as error:
            do = "name another port, or stop what listens there" if error.errno == 98 else "name another address"
            raise CollectorError(str(where), f"cannot listen ({error.strerror or error})", do) from error

    def server_bind(self) -> None:
        """Bind, without looking up the machine's name as http.server would."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection, unless too many are being served: then it is closed at once."""
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection and make room for the next."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no business of ours."""
        _LOG.debug("a client of the metrics went away", exc_info=True)

    def answer(self, path: str) -> Answer:
        """Status, content type and body for a path."""
        if path == "/metrics":
            return self._scrape()
        if path in ("/healthz", "/readyz"):
            reason = self.health.alive() if path == "/healthz" else self.health.ready()
            status = HTTPStatus.SERVICE_UNAVAILABLE if reason else HTTPStatus.OK
            return status, _TEXT, (reason or "ok").encode() + b"\n"
        if path == "/":
            return HTTPStatus.OK, _TEXT, b"denylog: /metrics /healthz /readyz\n"
        return HTTPStatus.NOT_FOUND, _TEXT, b"there are /metrics, /healthz and /readyz\n"

    def _scrape(self) -> Answer:
        self.metrics.ready.set(not self.health.ready())
        return HTTPStatus.OK, _EXPOSITION, self.metrics.text()


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    timeout: ClassVar[float] = _TIMEOUT_S

    def version_string(self) -> str:
        """Who answers; the version is nobody's business who may not read the metrics."""
        return "denylog"

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base class
        """Scrapes come every few seconds: nobody wants a line for each."""

    def _answer(self, *, body: bool) -> None:
        status, kind, text = self.server.answer(self.path.partition("?")[0])
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if body:
            self.wfile.write(text)


@contextmanager
def serving(where: Address, metrics: Metrics, health: Health) -> Iterator[Address]:
    """The server runs for as long as this lasts; gives the address, with the port where 0 was asked for."""
    with Server(where, metrics, health) as server:
        thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
        thread.start()
        try:
            yield Address(where.host, int(server.server_address[1]))
        finally:
            server.shutdown()
            thread.join()
