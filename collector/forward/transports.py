"""How messages get to a server: datagrams, a stream of frames, or RELP; what each of them knows about their arrival.

Rule: `deliver` returns when all messages have arrived as far as the transport can know; else it raises Broken, which
says how many have, from the first on. UDP knows that nobody refused them, TCP and TLS that the server's kernel has
them, RELP that the server has taken them over.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from collector.forward.relp import RelpSession
from collector.forward.target import RELP, Target
from collector.forward.wire import Broken, Wire, reason

# RFC 5426, 3.3: a refusal (ICMP port unreachable) may come back after a datagram was sent.
_REFUSAL_S = 0.05
# So many datagrams at once, then a breath: 6 400 messages a second at most. Linux gives a socket room for some 200 KB
# by default, and what does not fit is dropped there without a word.
_BURST, _BREATH_S = 64, 0.01
_FINISH_S = 5.0


class Transport(Protocol):
    """An open way to a server."""

    def deliver(self, messages: Sequence[bytes]) -> None:
        """Bring all messages there; raises Broken."""

    def idle(self) -> None:
        """Notice an end of the connection while nothing is sent; raises Broken."""

    def close(self) -> None:
        """Let go of it, in order where that is possible."""


def open_transport(target: Target, context: ssl.SSLContext | None, stop: threading.Event) -> Transport:
    """A connection to the target; raises Broken."""
    if target.scheme == "udp":
        return Datagrams(target)
    wire = Wire(target, context, stop)
    try:
        return RelpSession(wire, target.window) if target.scheme in RELP else Stream(wire, target.framing)
    except BaseException:
        wire.close()
        raise


class Stream:
    """TCP or TLS: each message with its length before it (RFC 6587, 3.4.1; RFC 5425, 4.3), or a line feed after it."""

    def __init__(self, wire: Wire, framing: str) -> None:
        self._wire = wire
        self._octets = framing == "octets"

    def deliver(self, messages: Sequence[bytes]) -> None:
        """Send all messages and wait until the server's kernel has them."""
        left = memoryview(b"".join(map(self._frame, messages)))
        while left:
            left = left[self._wire.send(left) :]
            self._wire.receive()
            if left:
                self._wire.wait(writing=True)
        self._wire.drain()

    def idle(self) -> None:
        """Notice that the server has closed the connection."""
        self._wire.receive()

    def close(self) -> None:
        """Let the server read to the end."""
        self._wire.finish(_FINISH_S)

    def _frame(self, message: bytes) -> bytes:
        return b"%d %s" % (len(message), message) if self._octets else message + b"\n"


class Datagrams:
    """UDP: one message a datagram (RFC 5426); what is lost on the way nobody knows."""

    def __init__(self, target: Target) -> None:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_DGRAM)[0]
            self._socket = socket.socket(family, kind, protocol)
            self._socket.connect(address)
            self._socket.settimeout(_FINISH_S)
        except OSError as error:
            raise Broken(reason(error)) from error

    def deliver(self, messages: Sequence[bytes]) -> None:
        """Send all messages; Broken where somebody refuses them."""
        try:
            for number, message in enumerate(messages):
                self._socket.send(message)
                if number % _BURST == _BURST - 1:
                    time.sleep(_BREATH_S)
                    self._look()
            time.sleep(_REFUSAL_S)
            self._look()
        except OSError as error:
            raise Broken(reason(error)) from error

    def idle(self) -> None:
        """Nothing ends here."""

    def close(self) -> None:
        """Close the socket."""
        with suppress(OSError):
            self._socket.close()

    def _look(self) -> None:
        if code := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(code, os.strerror(code))
