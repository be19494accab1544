"""A collector in a process of its own, a writer of log lines, and what the store says afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from analytics import Reader, StoreError
from collector import Settings
from collector.follow import follow

REPOSITORY = Path(__file__).parents[2]
_PROGRAM = """
import signal, sys, threading
from collector import Settings
from collector.follow import follow
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
settings = Settings(batch_age_s=0.1, poll_s=0.3, grace_s=float(sys.argv[2]), maintain_s=float(sys.argv[3]))
follow(sys.argv[4:], sys.argv[1], settings, stop)
"""


def line(number: int) -> str:
    """A kernel line that carries its number in the ports."""
    return (
        f"2026-11-22T15:{number // 60 % 60:02d}:{number % 60:02d}.000000+00:00 node-1 kernel: [{number}.000000] "
        "calico-packet: IN=cali0123456789a OUT=eth0 MAC=ee:ee:ee:ee:ee:ee:aa:bb:cc:dd:ee:ff:08:00 SRC=10.0.0.1 "
        f"DST=10.0.0.2 LEN=60 TOS=0x00 PREC=0x00 TTL=63 ID=7 DF PROTO=TCP SPT={number // 60000 + 1} "
        f"DPT={number % 60000 + 1} WINDOW=64240 RES=0x00 SYN URGP=0 \n"
    )


def lines(numbers: Iterable[int]) -> str:
    """Several of them."""
    return "".join(map(line, numbers))


def stored(store: Path) -> list[int]:
    """The numbers of the lines that the store holds, sorted, doubles included."""
    with Reader(str(store)) as reader:
        return numbers(reader)


def numbers(reader: Reader) -> list[int]:
    """The same, of an open store."""
    found = reader.rows("SELECT source_port, destination_port FROM packets")
    return sorted((high - 1) * 60000 + low - 1 for high, low in found.rows)


def spawn(
    store: Path, *paths: Path | str, grace_s: float = 1.0, maintain_s: float = 600.0, prefix: tuple[str, ...] = ()
) -> subprocess.Popen[bytes]:
    """Start a collector that follows `paths`."""
    command = [*prefix, sys.executable, "-c", _PROGRAM, str(store), str(grace_s), str(maintain_s), *map(str, paths)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "POLARS_MAX_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)


@contextmanager
def collecting(
    store: Path, *paths: Path | str, grace_s: float = 1.0, prefix: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """A collector that is told to stop at the end, and has to end well."""
    process = spawn(store, *paths, grace_s=grace_s, prefix=prefix)
    try:
        yield process
        process.terminate()
        _, said = process.communicate(timeout=30)
        assert process.returncode == 0, said.decode()
    finally:
        process.kill()
        process.wait()
        if process.stderr:
            process.stderr.close()


@contextmanager
def following(store: Path, *paths: Path | str, grace_s: float = 1.0) -> Iterator[None]:
    """A collector in a thread of this process, for tests that neither kill nor confine it: no start to wait for."""
    stop, errors = threading.Event(), list[BaseException]()
    settings = Settings(batch_age_s=0.1, poll_s=0.3, grace_s=grace_s, maintain_s=600.0)

    def run() -> None:
        try:
            follow([str(path) for path in paths], str(store), settings, stop)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=30)
    assert not thread.is_alive()
    assert errors == []


def wait_until(store: Path, count: int, seconds: float = 20.0) -> list[int]:
    """Wait until the store holds `count` rows (or the time is over) and return their numbers."""
    deadline = time.monotonic() + seconds
    found: list[int] = []
    while len(found) < count and time.monotonic() < deadline:
        with suppress(StoreError), Reader(str(store)) as reader:
            while len(found := numbers(reader)) < count and time.monotonic() < deadline:
                time.sleep(0.1)
        time.sleep(0.1 * (len(found) < count))
    return found


class LogWriter(threading.Thread):
    """Writes numbered lines as a daemon does: through one descriptor, opened anew when told (`reopen`)."""

    def __init__(self, path: Path, *, pause_s: float = 0.002) -> None:
        super().__init__(daemon=True)
        self.written = 0
        self._path, self._pause = path, pause_s
        self._reopen, self._end = threading.Event(), threading.Event()
        self._log = path.open("a")

    def run(self) -> None:
        """Write until `finish`."""
        while not self._end.is_set():
            if self._reopen.is_set():
                self._log.close()
                self._log = self._path.open("a")
                self._reopen.clear()
            self._log.write(line(self.written))
            self._log.flush()
            self.written += 1
            time.sleep(self._pause)

    def reopen(self) -> None:
        """Tell the writer that its file was rotated, and wait until it noticed."""
        self._reopen.set()
        while self._reopen.is_set() and self.is_alive():
            time.sleep(0.001)

    def finish(self) -> int:
        """Stop writing; how many lines were written."""
        self._end.set()
        self.join()
        self._log.close()
        return self.written
