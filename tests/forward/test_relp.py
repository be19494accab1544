"""The RELP client: frames however they are torn, acknowledgements in order, and servers that misbehave.

Rule: rsyslog never refuses a message or answers out of order, so those answers come from a scripted peer; all that a
real server does is tested in test_receivers and test_outage.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import pytest

from collector.forward.relp import LAST_NUMBER, Frame, Frames, RelpSession
from collector.forward.target import parse_target
from collector.forward.wire import Broken, Stopped, Wire


def frame(number: int, text: bytes, command: bytes = b"rsp") -> bytes:
    """What a server sends."""
    return b"%d %s %d %s\n" % (number, command, len(text), text)


GREETING = frame(1, b"200 OK\nrelp_version=0\ncommands=syslog,other")


@contextmanager
def peer(answers: Sequence[bytes]) -> Iterator[int]:
    """A server that reads a little, says the next of its answers, and hangs up after the last."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            for answer in answers:
                connection.recv(65536)
                connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        thread.join(5)
        listener.close()


@contextmanager
def session(port: int, stop: threading.Event | None = None) -> Iterator[RelpSession]:
    """An open session with it."""
    with closing(Wire(parse_target(f"relp://127.0.0.1:{port}"), None, stop or threading.Event())) as wire:
        yield RelpSession(wire, 10)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_torn_frames(size: int) -> None:
    """Frames come out whole, whatever the pieces they come in; both forms of a frame without data are read."""
    data = GREETING + b"2 rsp 6 200 OK\n" + b"0 serverclose 0\n" + b"3 rsp 0 \n"
    frames = Frames()
    found = [one for start in range(0, len(data), size) for one in frames.feed(data[start : start + size])]
    assert [(one.number, one.command) for one in found] == [(1, "rsp"), (2, "rsp"), (0, "serverclose"), (3, "rsp")]
    assert found[1].data == b"200 OK"


@pytest.mark.parametrize(
    "data", [b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", b"1 rsp 99999999 x", b"1 rsp 2 abc\n", b"1 rsp 3\nabc"]
)
def test_what_is_no_relp(data: bytes) -> None:
    """A server that speaks something else is told apart at once."""
    with pytest.raises(Broken, match="no RELP server"):
        list(Frames().feed(data))


def test_frames_are_written_as_specified() -> None:
    """Number, command, length, data and a line feed; no second blank without data."""
    assert Frame(7, "syslog", b"a b").encode() == b"7 syslog 3 a b\n"
    assert Frame(8, "close").encode() == b"8 close 0\n"


@pytest.mark.parametrize(
    ("answers", "acknowledged", "reason"),
    [
        ([GREETING, frame(2, b"200 OK") + frame(3, b"500 no")], 1, "refuses: '500 no'"),
        ([GREETING, frame(3, b"200 OK")], 0, "answers transaction 3"),
        ([GREETING, frame(2, b"200 OK") + frame(2, b"200 OK")], 1, "answers transaction 2"),
        ([GREETING, frame(2, b"200 OK") + b"0 serverclose 0\n"], 1, "closed by the server"),
        ([GREETING, frame(2, b"200 OK")], 1, "closed by the server"),
        ([GREETING, frame(2, b"hello")], 0, "no RELP server"),
    ],
)
def test_only_acknowledged_messages_count(answers: list[bytes], acknowledged: int, reason: str) -> None:
    """A refusal, a wrong number or the end of the session leaves exactly the acknowledged ones as delivered."""
    with peer(answers) as port, pytest.raises(Broken) as caught, session(port) as opened:
        opened.deliver([b"one", b"two", b"three"])
    assert caught.value.acknowledged == acknowledged
    assert reason in caught.value.reason


@pytest.mark.parametrize(
    ("greeting", "reason"),
    [
        (frame(1, b"500 unsupported"), "refuses"),
        (frame(1, b"200 OK\nrelp_version=0\ncommands=other"), "takes no syslog messages"),
        (b"220 smtp.example.org ESMTP\r\n", "no RELP server"),
    ],
)
def test_servers_that_will_not_do(greeting: bytes, reason: str) -> None:
    """A server that takes no syslog messages is refused when the session is opened."""
    with peer([greeting]) as port, pytest.raises(Broken, match=reason), session(port):
        pass


def test_numbers_begin_again() -> None:
    """After the last transaction number comes 1."""
    answers = [GREETING, frame(LAST_NUMBER, b"200 OK") + frame(1, b"200 OK")]
    with peer(answers) as port, session(port) as opened:
        opened._number = LAST_NUMBER - 1
        opened.deliver([b"last", b"first"])


def test_stop_ends_a_wait() -> None:
    """Told to stop, a session that waits for an answer ends within seconds and says what was acknowledged."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        threading.Timer(0.2, stop.set).start()
        with pytest.raises(Stopped), session(silent.getsockname()[1], stop):
            pass
