"""The Reliable Event Logging Protocol, the client's side: each message is a transaction that the server acknowledges.

Rule: a message counts as delivered when its response with code 200 has come, and all before it have; nothing else says
so. Grammar: the RELP specification of librelp, version 0 of the protocol (doc/relp.html, "DATA ENCODING").
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version

from collector.forward.wire import PATIENCE_S, Broken, Wire

# "TXNR: 1 to 999,999,999, monotonically increasing"; 0 is for hints of the server.
LAST_NUMBER = 999_999_999
# A response says "200 OK" or an error in one line; `open` a few lines more. What is longer is no RELP server.
_LONGEST_RESPONSE = 65_536
_HEADER = re.compile(rb"(\d{1,9}) ([a-z]{1,32}) (\d{1,9})([ \n])")
_HEADER_BEGUN = re.compile(rb"\d{0,9}(?:(?<=\d) [a-z]{0,32}(?:(?<=[a-z]) \d{0,9})?)?\Z")
_CODE = re.compile(rb"(\d{3})(?: |$)")
_GOODBYE_S = 2.0
# Octets that are put together before the next send: large enough that its cost does not count.
_ENOUGH = 65_536


@dataclass(frozen=True, slots=True)
class Frame:
    """One transaction, or the response to it."""

    number: int
    command: str
    data: bytes = b""

    def encode(self) -> bytes:
        """`TXNR SP COMMAND SP DATALEN [SP DATA] LF`; without data there is no second blank either."""
        body = b" " + self.data if self.data else b""
        return b"%d %s %d%s\n" % (self.number, self.command.encode(), len(self.data), body)


class Frames:
    """Cuts what comes from a server into frames, however it is torn."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete now; raises Broken for what is no RELP."""
        self._data += data
        while (found := _HEADER.match(self._data)) is not None:
            length = int(found[3])
            if length > _LONGEST_RESPONSE:
                raise Broken(f"no RELP server: it announces {length} octets")
            # "DATALEN 0" may be followed by a blank or not (librelp sends none).
            end = found.end() + length + 1 if found[4] == b" " else found.end()
            if len(self._data) < end:
                return
            if self._data[end - 1 : end] != b"\n" or (length and found[4] == b"\n"):
                raise Broken("no RELP server: a frame does not end where it says")
            payload, self._data = self._data[found.end() : end - 1], self._data[end:]
            yield Frame(int(found[1]), found[2].decode(), payload if length else b"")
        if not _HEADER_BEGUN.match(self._data):
            raise Broken(f"no RELP server: it says {self._data[:40]!r}")


class RelpSession:
    """An open session; `window` messages may be on their way at once."""

    def __init__(self, wire: Wire, window: int) -> None:
        """Offer what we can; raises Broken where the server cannot take syslog messages."""
        self._wire = wire
        self._window = window
        self._frames = Frames()
        self._number = 0
        offer = f"relp_version=0\nrelp_software=denylog,{version('denylog')}\ncommands=syslog"
        answer = self._ask(Frame(self._next(), "open", offer.encode()))
        _check(answer)
        offers = dict(line.partition(b"=")[::2] for line in answer.data.splitlines()[1:])
        if b"syslog" not in offers.get(b"commands", b"").split(b","):
            raise Broken("the RELP server takes no syslog messages")

    def deliver(self, messages: Sequence[bytes]) -> None:
        """Send messages and wait until each is acknowledged; Broken tells how many were, from the first on."""
        waiting: deque[int] = deque()
        unsent, pending, done = deque(messages), b"", 0
        try:
            while done < len(messages):
                while unsent and len(waiting) < self._window and len(pending) < _ENOUGH:
                    frame = Frame(self._next(), "syslog", unsent.popleft())
                    waiting.append(frame.number)
                    pending += frame.encode()
                pending = pending[self._wire.send(pending) :]
                self._wire.wait(writing=bool(pending))
                for frame in self._frames.feed(self._wire.receive()):
                    done += _acknowledged(frame, waiting)
        except Broken as error:
            error.acknowledged = done
            raise

    def idle(self) -> None:
        """Look whether the server has something to say while there is nothing to send."""
        for frame in self._frames.feed(self._wire.receive()):
            _acknowledged(frame, deque())

    def close(self) -> None:
        """End the session in order, if the server answers; whatever it says, the connection is closed."""
        with suppress(Broken):
            self._ask(Frame(self._next(), "close"), _GOODBYE_S)
        self._wire.close()

    def _ask(self, request: Frame, patience_s: float = PATIENCE_S) -> Frame:
        pending = request.encode()
        while True:
            pending = pending[self._wire.send(pending) :] if pending else pending
            self._wire.wait(writing=bool(pending), patience_s=patience_s)
            for frame in self._frames.feed(self._wire.receive()):
                if frame.number == request.number:
                    return frame
                _hint(frame)

    def _next(self) -> int:
        self._number = self._number % LAST_NUMBER + 1
        return self._number


def _acknowledged(frame: Frame, waiting: deque[int]) -> int:
    """How many messages a response acknowledges: one, or none where it was a hint."""
    if frame.number == 0:
        _hint(frame)
        return 0
    if not waiting or frame.number != waiting[0]:
        raise Broken(f"the RELP server answers transaction {frame.number}, which is not the next one")
    _check(frame)
    waiting.popleft()
    return 1


def _check(frame: Frame) -> None:
    found = _CODE.match(frame.data)
    if frame.command != "rsp" or found is None:
        raise Broken(f"no RELP server: it answers {frame.command} {frame.data[:40]!r}")
    if found[1] != b"200":
        raise Broken(f"the RELP server refuses: {frame.data[:80].decode('ascii', 'replace')!r}")


def _hint(frame: Frame) -> None:
    """What a server says without being asked: only that it closes the session means something."""
    if frame.command == "serverclose":
        raise Broken("closed by the server")
