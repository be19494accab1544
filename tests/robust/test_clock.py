"""A clock that jumps a day and back under the collector: no line is lost or stored twice, and nothing dropped for age.

Rule: the collector's own clock is moved by libfaketime, at run time; nobody may set the clock of a machine that others
use. The file system's time stamps stay those of the real clock, as those of files from before a jump would, and files
written after one are given the stamp that they would have. The monotonic clock never jumps, as on a real machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from analytics import Reader, Writer
from analytics.maintenance import Clock
from analytics.options import Exit
from tests.collector.live import lines, stored, wait_until
from tests.robust.box import collector

_LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
_DAY_S = 86400


class Jumping:
    """A clock for one process, set by a file."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.offset_s = 0
        self.set(0)

    def set(self, offset_s: int) -> None:
        """From now on the process sees the real time and so many seconds."""
        self.offset_s = offset_s
        new = self._file.with_suffix(".new")
        new.write_text(f"{offset_s:+d}\n")
        new.replace(self._file)

    @property
    def environment(self) -> Mapping[str, str]:
        """What makes a process see it."""
        return {
            "LD_PRELOAD": str(_LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def append(self, log: Path, first: int, last: int) -> None:
        """Write lines as a daemon with this clock would."""
        with log.open("a") as file:
            file.write(lines(range(first, last)))
        self.stamp(log)

    def stamp(self, path: Path) -> None:
        """Give a file that was just written to the time stamp of this clock."""
        now = time.time() + self.offset_s
        os.utime(path, (now, now))


@pytest.mark.system
@pytest.mark.skipif(not _LIBRARIES, reason="needs libfaketime")
@pytest.mark.parametrize("jumps", [(1, 0), (-1, 0)], ids=["ahead", "behind"])
def test_jumps(tmp_path: Path, jumps: tuple[int, int]) -> None:
    """Through two jumps, each right after a rotation whose writer is late, and a restart, each line is stored once."""
    log, store, clock = tmp_path / "syslog", tmp_path / "store", Jumping(tmp_path)
    clock.append(log, 0, 50)
    count = 50
    for days in jumps:
        with collector(store, log, environment=clock.environment, options=("--keep=2d",)) as running:
            assert wait_until(store, count) == list(range(count)), running.said()
            log.rename(tmp_path / "syslog.1")
            clock.set(days * _DAY_S)
            time.sleep(1.5)
            clock.append(tmp_path / "syslog.1", count, count + 20)  # the daemon has not been told yet
            clock.append(log, count + 20, count + 150)
            count += 150
            assert wait_until(store, count) == list(range(count)), running.said()
            assert running.stop() == Exit.OK, running.said()
        clock.append(log, count, count + 10)
        count += 10
        (tmp_path / "syslog.1").rename(tmp_path / f"syslog.{5 - days}")
    with collector(store, log, environment=clock.environment) as running:
        assert wait_until(store, count) == list(range(count)), running.said()
        assert running.stop() == Exit.OK
    assert stored(store) == list(range(count))
    with Reader(str(store)) as reader:
        assert jumped(reader) is (max(jumps) > 0)


def jumped(reader: Reader) -> bool:
    """Was a row stored by a clock that is ahead?"""
    return bool(reader.rows("SELECT max(stored_at) > now() + INTERVAL 12 HOURS FROM packets").rows[0][0])


def test_wrong_clock_drops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Retention waits an hour after the clock went ahead, and forgets the doubt once it was set back."""
    wall, ticks = datetime(2026, 11, 22, tzinfo=UTC).timestamp(), 1000.0
    monkeypatch.setattr("analytics.maintenance.time.time", lambda: wall)
    monkeypatch.setattr("analytics.maintenance.time.clock_gettime", lambda _: ticks)
    clock = Clock(datetime.fromtimestamp(wall, UTC))
    for moved_s, passed_s, steady in (
        (30, 30, True),
        (_DAY_S + 30, 30, False),
        (3000, 3000, False),
        (700, 700, True),
        (_DAY_S, 30, False),
        (-_DAY_S, 30, True),
        (-_DAY_S, 30, True),
    ):
        wall, ticks = wall + moved_s, ticks + passed_s
        assert clock.steady() is steady


def test_store_that_was_left_alone_keeps_its_rows_for_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that finds its store a year behind the clock drops nothing at first: the clock may be the wrong one."""
    log, store = tmp_path / "syslog", tmp_path / "store"
    log.write_text(lines(range(5)))
    with collector(store, log, options=("--once",)) as running:
        assert running.process.wait(timeout=60) == Exit.OK, running.said()
    now = time.time()
    with monkeypatch.context() as patched:
        patched.setattr("analytics.maintenance.time.time", lambda: now + 365 * _DAY_S)
        with Writer(str(store)) as writer:
            writer.maintain(keep=timedelta())
    assert stored(store) == list(range(5))
    with Writer(str(store)) as writer:
        writer.maintain(keep=timedelta())
    assert stored(store) == []
