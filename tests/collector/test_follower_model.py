"""The follower against a model of everything that happens to a log file: whatever the order, each line exactly once.

The files are real; the store is one in memory (`MemoryStore`), since a run restarts the follower dozens of times. Time
is moved on by a shim, because nobody can set a file's ctime.
"""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from analytics import LossRow
from collector import idle as idle_module
from collector import path as path_module
from collector import tail as tail_module
from collector.book import Book
from collector.follow import Files
from collector.rows import commit_of
from collector.settings import Settings
from parser import Options
from tests.collector.memory import MemoryStore
from tests.collector.reference import read

GRACE_S = 3600.0
LINE = "Nov 22 15:00:00 node-1 kernel: calico-packet: %s\n"
HEADER = LINE % "a header that every file begins with"
OPTIONS = Options()
NOW = datetime(2026, 11, 22, 15, tzinfo=UTC)


class Instance:
    """The content that one file had between its creation and its end, by truncation or for ever."""

    def __init__(self) -> None:
        self.content = b""

    def lines(self, *, live: bool) -> list[bytes]:
        """The lines a reader has to find; in a live file the unfinished last one is not yet a line."""
        lines = self.content.lstrip(b"\0").split(b"\n")
        last = lines.pop()
        return lines if live or not last else [*lines, last]


class Follower(RuleBasedStateMachine):
    """The actions of writers, of logrotate, and of whoever starts and kills the follower."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="model"))
        self.log = self.folder / "syslog"
        self.store = MemoryStore()
        self.files: Files | None = None
        self.instances: list[Instance] = []
        self.number = 0
        self.pending = b""
        self.skew = self.passed = 0.0
        self.opened = self.deleted = False

    @initialize(append=st.booleans(), header=st.booleans(), chunk=st.sampled_from([65536 + 128, 1024 * 1024]))
    def begin(self, append: bool, header: bool, chunk: int) -> None:
        self.append, self.header = append, header
        self.settings = Settings(grace_s=GRACE_S, chunk_bytes=chunk, batch_bytes=chunk)
        path_module.time = SimpleNamespace(time=lambda: time.time() + self.skew)  # type: ignore[assignment]
        clock = SimpleNamespace(time=lambda: time.time() + self.skew, monotonic=lambda: time.monotonic() + self.passed)
        idle_module.time = clock  # type: ignore[assignment]
        self.create()
        self.write(1)
        self.poll()

    def create(self) -> None:
        self.instance = Instance()
        self.instances.append(self.instance)
        self.log.write_bytes(b"")
        self.opened = False
        self.open_writer()

    def open_writer(self) -> None:
        if hasattr(self, "writer"):
            os.close(self.writer)
        flags = os.O_WRONLY | (os.O_APPEND if self.append else 0)
        self.writer = os.open(self.log, flags)
        self.written = self.instance
        self.pending = b""
        os.lseek(self.writer, 0, os.SEEK_END)
        if self.header and not self.instance.content:
            self.emit(HEADER.encode() + self.line())  # never alone: two files of only headers are the same content

    def emit(self, data: bytes) -> None:
        if not self.append and not self.written.content:  # a stale writer goes on where it was: a hole comes before
            self.written.content = b"\0" * os.lseek(self.writer, 0, os.SEEK_CUR)
        os.write(self.writer, data)
        self.written.content += data

    def line(self) -> bytes:
        self.number += 1
        return (LINE % f"{self.number:04d} of many lines").encode()  # half of it differs, too: same bytes, same content

    @rule(count=st.sampled_from([1, 2, 40]))
    def write(self, count: int) -> None:
        self.emit(self.pending + b"".join(self.line() for _ in range(count)))
        self.pending = b""

    @rule(cut=st.integers(50, 60))
    def half_write(self, cut: int) -> None:
        line = self.line()
        self.emit(self.pending + line[:cut])
        self.pending = line[cut:]

    def shift(self) -> None:
        """Rename syslog.1 to syslog.2 and so on, oldest first, compressed or not."""
        for path in self.rotated():
            stem, number, *rest = path.name.split(".")
            path.rename(self.folder / ".".join([stem, str(int(number) + 1), *rest]))

    def rotated(self) -> list[Path]:
        return sorted(self.folder.glob("syslog.*"), key=lambda path: -int(path.name.split(".")[1]))

    @rule(stale=st.booleans())
    def rotate(self, stale: bool) -> None:
        self.shift()
        self.log.rename(self.folder / "syslog.1")
        before = self.written
        self.create() if not stale else self.create_unnoticed()
        assert stale or before is not self.written

    def create_unnoticed(self) -> None:
        """A new file is there, and the writer has not been told."""
        self.instance = Instance()
        self.instances.append(self.instance)
        self.log.write_bytes(b"")
        self.opened = False

    @precondition(lambda self: self.written is not self.instance)
    @rule()
    def tell_writer(self) -> None:
        self.open_writer()

    @precondition(lambda self: self.written is self.instance)
    @rule()
    def copy_and_truncate(self) -> None:
        self.shift()
        shutil.copyfile(self.log, self.folder / "syslog.1")
        os.truncate(self.log, 0)
        self.instance = self.written = Instance()
        self.instances.append(self.instance)

    @precondition(lambda self: self.written is self.instance)
    @rule(which=st.integers(1, 3))
    def compress(self, which: int) -> None:
        path = self.folder / f"syslog.{which}"
        if path.exists():
            found = path.stat()
            with gzip.open(f"{path}.gz", "wb") as archive:
                archive.write(path.read_bytes())
            os.utime(f"{path}.gz", ns=(found.st_atime_ns, found.st_mtime_ns))
            path.unlink()

    @precondition(lambda self: self.files is not None and self.opened)
    @rule()
    def delete_and_recreate(self) -> None:
        if self.pending:  # a deleted file is found by nobody once its reader stops, and so is an unfinished line in it
            self.write(1)
        self.log.unlink()
        self.create()
        self.deleted = True
        self.read_all()

    @rule()
    def poll(self) -> None:
        if self.files is None:
            self.files = Files([str(self.log)], Book(self.store.positions()), self.settings)
        pieces = list(self.files.read(self.settings.batch_bytes))
        if pieces:
            self.store.commit(commit_of(pieces))
        self.opened = self.written is self.instance

    @rule()
    def stop(self) -> None:
        if self.files is not None:
            self.files.close()
            self.files = None

    @rule(kept=st.integers(0, 3))
    def kill(self, kept: int) -> None:
        """The follower reads and dies after some of its commits."""
        if self.files is None:
            self.files = Files([str(self.log)], Book(self.store.positions()), self.settings)
        for piece in list(self.files.read(self.settings.batch_bytes))[:kept]:
            self.store.commit(commit_of([piece]))
        self.stop()

    @rule()
    def time_passes(self) -> None:
        """More than the grace time; by now every writer has been told."""
        if self.written is not self.instance:
            self.open_writer()
        self.skew = GRACE_S + 1
        self.passed += self.skew
        self.read_all()
        self.skew = 0.0

    @rule()
    def forget_oldest(self) -> None:
        """logrotate removes the oldest rotation, which was read to its end long ago."""
        self.time_passes()
        for path in self.rotated()[:1]:
            path.unlink()

    def read_all(self) -> None:
        self.poll()
        while self.files is not None and self.files.behind:
            self.poll()

    def teardown(self) -> None:
        if hasattr(self, "append"):
            self.time_passes()
            self.time_passes()
            self.stop()
            self.check()
            os.close(self.writer)
        path_module.time = idle_module.time = time
        shutil.rmtree(self.folder)

    def check(self) -> None:
        lines = [line for one in self.instances for line in one.lines(live=one is self.instance)]
        batch = read(b"".join(line + b"\n" for line in lines), OPTIONS, anchor=NOW)
        assert sorted(row.line for row in self.store.rejects) == sorted(row.line.decode() for row in batch.rejects)
        assert self.store.lines == len(lines)
        assert self.deleted or loss_texts(self.store.losses) == []
        for position in self.store.positions():
            assert position.lines == position.packets + position.others + position.rejects
            assert position.bytes_lost == 0


def loss_texts(losses: list[LossRow]) -> list[str]:
    return [loss.line for loss in losses]


@pytest.mark.timeout(600)
def test_each_line_exactly_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever happens to the file and to the follower, in whatever order, each line is accounted for exactly once."""
    monkeypatch.setattr(tail_module, "read", read)
    count = int(os.environ.get("MODEL_EXAMPLES", "60"))
    run_state_machine_as_test(
        Follower,
        settings=settings(
            max_examples=count, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
