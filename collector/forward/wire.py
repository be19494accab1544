"""A connected stream, plain or with TLS, on which nothing waits longer than it was told to.

Rule: every wait ends at once when the forwarder is to stop, and after `PATIENCE_S` without any progress: an end that
does not answer is an end that is gone.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import ssl
import struct
import termios
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from collector.forward.target import Target
from collector.forward.tls import peer_problem

CONNECT_S = 10.0
"""A connection, handshake included, is made within this time or not at all."""
PATIENCE_S = 30.0
"""So long nothing may move on a connection that something is waited for."""
SETTLE_S = 1.0
"""With TLS 1.3 a server may refuse our certificate after the handshake (RFC 8446, 4.4.2.4): its alert is waited for."""
GRACE_S = 1.5
"""Told to stop, acknowledgements that are on their way are waited for so long."""
_TICK_S = 0.25
_DRAIN_STEP_S = 0.002
_CHUNK = 65536
_USER_TIMEOUT_MS = int(PATIENCE_S * 1000)


class Broken(Exception):
    """A connection that is of no use any more: `reason`, and how many messages of the last batch were acknowledged."""

    def __init__(self, reason: str, acknowledged: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.acknowledged = acknowledged


class Stopped(Broken):
    """The forwarder is to stop; nothing is wrong with the connection."""

    def __init__(self, acknowledged: int = 0) -> None:
        super().__init__("stopped", acknowledged)


class Wire:
    """One connection. Raises Broken in every method."""

    def __init__(self, target: Target, context: ssl.SSLContext | None, stop: threading.Event) -> None:
        self._stop = stop
        self._stop_by = 0.0
        until = time.monotonic() + CONNECT_S
        try:
            self._socket = _connected(target, until, stop)
            if context is not None:
                self._socket = self._secured(self._socket, target, context, until)
        except OSError as error:
            raise Broken(reason(error)) from error

    def send(self, data: bytes | memoryview) -> int:
        """Hand over what fits now; how many octets that was."""
        try:
            return self._socket.send(data)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0
        except OSError as error:
            raise Broken(reason(error)) from error

    def receive(self) -> bytes:
        """What has come, without waiting; nothing if nothing has. An end of the stream is Broken."""
        try:
            data = self._socket.recv(_CHUNK)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return b""
        except OSError as error:
            raise Broken(reason(error)) from error
        if not data:
            raise Broken("closed by the server")
        return data

    def wait(self, *, writing: bool, patience_s: float = PATIENCE_S) -> None:
        """Until something can be read (or written); Broken when nothing happens, Stopped when it is time to stop."""
        until = time.monotonic() + patience_s
        while not (self._pending() or self._ready(writing, min(_TICK_S, max(0.0, until - time.monotonic())))):
            self._heed_stop()
            if time.monotonic() >= until:
                raise Broken(f"no answer for {patience_s:.0f} s")

    def drain(self) -> None:
        """Until the server's kernel has acknowledged every octet (SIOCOUTQ, tcp(7)); what comes in is ignored."""
        until, before = time.monotonic() + PATIENCE_S, -1
        while left := self._unacknowledged():
            if left != before:
                until, before = time.monotonic() + PATIENCE_S, left
            if time.monotonic() >= until:
                raise Broken(f"no answer for {PATIENCE_S:.0f} s")
            self.receive()
            self._heed_stop()
            time.sleep(_DRAIN_STEP_S)
        self.receive()

    def finish(self, wait_s: float) -> None:
        """Say that no more comes, and let the server read to the end: closing at once could throw away what it has not
        read (RFC 2525, 2.17)."""
        with suppress(OSError, ValueError, Broken):
            self._close_notify()
            self._socket.shutdown(socket.SHUT_WR)
            until = time.monotonic() + wait_s
            while self._ready(False, max(0.0, until - time.monotonic())):
                self.receive()
        self.close()

    def close(self) -> None:
        """Let go of the connection."""
        self._socket.close()

    def _heed_stop(self) -> None:
        """Told to stop, wait a little for what is on its way: each acknowledgement is a message not sent twice."""
        if self._stop.is_set():
            self._stop_by = self._stop_by or time.monotonic() + GRACE_S
            if time.monotonic() >= self._stop_by:
                raise Stopped

    def _close_notify(self) -> None:
        with suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
            if isinstance(self._socket, ssl.SSLSocket):
                self._socket.unwrap()

    def _pending(self) -> bool:
        return isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0

    def _ready(self, writing: bool, timeout_s: float) -> bool:
        return _polled(self._socket, select.POLLIN | (select.POLLOUT if writing else 0), timeout_s)

    def _unacknowledged(self) -> int:
        packed = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
        return int(struct.unpack("i", packed)[0])

    def _secured(self, plain: socket.socket, target: Target, context: ssl.SSLContext, until: float) -> ssl.SSLSocket:
        assert target.tls is not None
        name = target.tls.server_name or target.host
        secure = context.wrap_socket(plain, server_hostname=name, do_handshake_on_connect=False)
        self._socket = secure
        try:
            while not self._step(secure.do_handshake):
                self.wait(writing=False, patience_s=max(0.0, until - time.monotonic()))
            if problem := peer_problem(secure, target.tls):
                raise Broken(problem)
            self._settle(secure)
        except BaseException:
            secure.close()
            raise
        return secure

    def _step(self, act: Callable[[], None]) -> bool:
        try:
            act()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLWantWriteError:
            self._ready(True, _TICK_S)
            return False
        return True

    def _settle(self, secure: ssl.SSLSocket) -> None:
        """Wait for what a TLS 1.3 server says of our certificate: session tickets, or an alert."""
        if secure.version() == "TLSv1.3" and self._ready(False, SETTLE_S):
            self.receive()


def _connected(target: Target, until: float, stop: threading.Event) -> socket.socket:
    """A connection to the first address of the host that answers."""
    failure: OSError = OSError("the name has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM):
        made = socket.socket(family, kind, protocol)
        try:
            _configure(made)
            _connect(made, address, until, stop)
        except OSError as error:
            made.close()
            failure = error
        except BaseException:
            made.close()
            raise
        else:
            return made
    raise failure


def _configure(made: socket.socket) -> None:
    """A server that is gone without a word is noticed within half a minute, also when nothing is sent (tcp(7))."""
    made.setblocking(False)
    for level, option, value in (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 20),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS),
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    ):
        made.setsockopt(level, option, value)


def _polled(made: socket.socket, events: int, timeout_s: float) -> bool:
    """Has one of the events come, or an end? poll(2), since select(2) knows no descriptor above 1 023."""
    poll = select.poll()
    poll.register(made, events)
    return bool(poll.poll(timeout_s * 1000))


def _connect(made: socket.socket, address: object, until: float, stop: threading.Event) -> None:
    with suppress(BlockingIOError):
        made.connect(address)  # type: ignore[arg-type]
    while not _polled(made, select.POLLOUT, _TICK_S):
        if stop.is_set():
            raise Stopped
        if time.monotonic() >= until:
            raise TimeoutError(None, f"no answer for {CONNECT_S:.0f} s")
    if code := made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(code, os.strerror(code))


def reason(error: OSError) -> str:
    """One clause about what the system, the resolver or the TLS library said."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"the server's certificate is refused: {error.verify_message.rstrip('.')}"
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError():
            return "TLS: closed by the server"
        case ssl.SSLError():
            return f"TLS: {(error.reason or str(error)).replace('_', ' ').lower()}"
        case socket.gaierror():
            return f"the name cannot be resolved: {error.strerror}"
    return error.strerror or str(error) or type(error).__name__
