"""What goes wrong around a forwarder: servers that accept and say nothing, a store that is taken away, many files."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import ssl
import threading
import time
from contextlib import closing
from datetime import UTC
from pathlib import Path

import pytest

from collector.forward import outage, wire
from collector.forward.marks import StateFile
from collector.forward.runner import Forwarder, Order
from collector.forward.target import parse_target
from collector.forward.wire import Wire
from tests.collector.live import lines
from tests.forward.conftest import Forward, make_store


def test_once_gives_up_a_server_that_says_nothing(
    store: str, forward: Forward, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that accepts and never answers is tried once where that alone took longer than --once waits."""
    monkeypatch.setattr(wire, "CONNECT_S", 1.0)
    monkeypatch.setattr(outage, "ONCE_PATIENCE_S", 0.8)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(outage.Unreachable, match="no answer for 1 s"):
            forward(f"tls://127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - began >= 1.0
        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()


def test_a_store_that_is_made_anew_is_followed(tmp_path: Path) -> None:
    """A store that is moved away while it is followed is waited for; what is in the new one is sent."""
    folder = make_store(tmp_path, lines(range(3)))
    (tmp_path / "new").mkdir()
    other = make_store(tmp_path / "new", lines(range(3, 5)))
    errors: list[BaseException] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(30)
        target = parse_target(f"udp://127.0.0.1:{server.getsockname()[1]}")
        stop = threading.Event()
        with StateFile(tmp_path / "s.json", folder, target.name) as marks:
            forwarder = Forwarder(folder, Order(target=target, zone=UTC), marks)

            def work() -> None:
                try:
                    forwarder.run(stop)
                except BaseException as error:
                    errors.append(error)

            thread = threading.Thread(target=work)
            thread.start()
            try:
                assert [b"DPT=" in server.recv(65536) for _ in range(3)] == [True] * 3
                shutil.move(folder, tmp_path / "gone")
                time.sleep(1.5)
                shutil.move(other, folder)
                assert [b"DPT=" in server.recv(65536) for _ in range(2)] == [True] * 2
            finally:
                stop.set()
                thread.join(20)
    assert errors == []


def test_what_tls_says_is_one_clause() -> None:
    """A server that hangs up in the handshake, and a certificate for another address, are told without OpenSSL's
    places and full stops."""
    hung_up = ssl.SSLEOFError(8, "EOF occurred in violation of protocol (_ssl.c:1)")
    assert wire.reason(hung_up) == "TLS: closed by the server"
    refused = ssl.SSLCertVerificationError(1, "x")
    refused.verify_message = "certificate is not valid for '127.0.0.1'."
    assert wire.reason(refused).endswith("certificate is not valid for '127.0.0.1'")


def test_descriptors_beyond_those_of_select() -> None:
    """A connection whose descriptor is above 1 023 works like any other: a collector may follow many files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1200:
        pytest.skip("needs 1 200 descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    held = [os.dup(0) for _ in range(1030)]
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            url = f"tcp://127.0.0.1:{server.getsockname()[1]}"
            with closing(Wire(parse_target(url), None, threading.Event())) as connection:
                accepted = server.accept()[0]
                with accepted:
                    accepted.send(b"hello")
                    connection.wait(writing=False, patience_s=5)
                    assert connection.receive() == b"hello"
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
