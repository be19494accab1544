"""The small HTTP server that answers for a collector: /metrics, /healthz and /readyz.

Rule: it listens where it was told, answers GET and HEAD of four paths, and holds a bounded number of connections for a
bounded time. Nobody keeps a probe out: who has asked nothing yet makes room for who comes, and scrapes have a number of
their own. It loads only where it is asked for.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from typing import Any, ClassVar

from collector.address import Address
from collector.health import Health
from collector.metrics import Metrics
from collector.settings import CollectorError

_LOG = logging.getLogger(__name__)
_TIMEOUT_S = 5.0
_CONNECTIONS = 16
_SCRAPES = 4
"""A scrape may have to wait for the disk; probes need none of it, so the other connections are left to them."""
_BACKLOG = 128
_ALTOGETHER_S = 10.0
"""A connection is closed after so long, also where its request trickles in byte by byte."""
_LEAVING_S = 1.0
"""A connection that was told to make room is gone within milliseconds."""
_TEXT = "text/plain; charset=utf-8"
_EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"

Answer = tuple[HTTPStatus, str, bytes]


class Server(ThreadingMixIn, HTTPServer):
    """Answers /metrics, /healthz and /readyz in threads of its own."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = _BACKLOG

    def __init__(self, where: Address, metrics: Metrics, health: Health) -> None:
        """Raises CollectorError where nobody can listen there."""
        self.metrics, self.health = metrics, health
        self._begun: dict[Any, float] = {}
        self._silent: dict[Any, None] = {}
        self._room = threading.BoundedSemaphore(_CONNECTIONS)
        self._scrapes = threading.BoundedSemaphore(_SCRAPES)
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
        """Serve a connection. Where too many are open, the one that has been silent for longest makes room for it."""
        if not self._room.acquire(blocking=False):
            self._end(next(iter(list(self._silent)), None))
            if not self._room.acquire(timeout=_LEAVING_S):
                self.shutdown_request(request)
                return
        self._begun[request] = time.monotonic()
        self._silent[request] = None
        super().process_request(request, client_address)

    def heard(self, request: Any) -> None:
        """The connection has said what it wants: it is answered, whoever comes."""
        self._silent.pop(request, None)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection and make room for the next."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._begun.pop(request, None)
            self._silent.pop(request, None)
            self._room.release()

    def service_actions(self) -> None:
        """Between connections: end those that have lasted too long."""
        late = time.monotonic() - _ALTOGETHER_S
        for request, begun in list(self._begun.items()):
            if begun < late:
                self._end(request)

    @staticmethod
    def _end(request: Any) -> None:
        """Let the thread that reads from the connection find its end."""
        if request is not None:
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

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
        if not self._scrapes.acquire(blocking=False):
            return HTTPStatus.SERVICE_UNAVAILABLE, _TEXT, b"too many scrapes at once\n"
        try:
            self.metrics.ready.set(not self.health.ready())
            return HTTPStatus.OK, _EXPOSITION, self.metrics.text()
        finally:
            self._scrapes.release()


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
        self.server.heard(self.connection)
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
