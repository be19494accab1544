"""A log that is cut back to a part of itself (`truncate -s`, pages lost in a power failure): no row is stored twice."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from analytics import Reader
from tests.collector.live import following, line, lines, stored, wait_until

OTHER = "2026-11-22T15:00:00.000000+00:00 node-1 cron[7]: (root) CMD (run-parts /etc/cron.hourly)\n"
LENGTH = len(line(10))
CUTS = {
    "at a line": 40 * LENGTH,
    "short of its newline": 41 * LENGTH - 1,
    "to less than what proves a file": 2 * LENGTH + 30,
}


@pytest.mark.parametrize("cut", [*CUTS.values(), 100], ids=[*CUTS, "within its first line"])
def test_cut_while_followed(tmp_path: Path, cut: int) -> None:
    """What is left is known, what is appended is new, whether it comes after a while or at once."""
    log, store = tmp_path / "syslog", tmp_path / "store"
    log.write_text(lines(range(10, 60)))
    with following(store, log):
        wait_until(store, 50)
        os.truncate(log, cut)
        noticed(store, cut)
        with log.open("a") as writer:
            writer.write(lines(range(60, 70)))
        assert wait_until(store, 60) == list(range(10, 70))
        time.sleep(1.0)
    assert stored(store) == list(range(10, 70))
    assert balanced(store)


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_cut_while_nobody_looked(tmp_path: Path, cut: int) -> None:
    """The same for a collector that was stopped meanwhile, twice in a row."""
    log, store = tmp_path / "syslog", tmp_path / "store"
    log.write_text(lines(range(10, 60)))
    for first in (60, 70):
        with following(store, log):
            wait_until(store, first - 10)
        os.truncate(log, cut)
        with following(store, log):
            noticed(store, cut, times=1 + (first > 60))
            with log.open("a") as writer:
                writer.write(lines(range(first, first + 10)))
            assert wait_until(store, first) == list(range(10, first + 10))
    assert stored(store) == list(range(10, 80))
    assert balanced(store)


def test_cut_and_appended_to_at_once(tmp_path: Path) -> None:
    """New lines that are there before anybody looks are told from the old ones before them."""
    log, store = tmp_path / "syslog", tmp_path / "store"
    log.write_text(lines(range(10, 60)))
    with following(store, log):
        wait_until(store, 50)
        with log.open("a") as writer:
            os.truncate(log, 30 * LENGTH)
            writer.write(lines(range(60, 70)))
        assert wait_until(store, 60) == list(range(10, 70))
        time.sleep(1.0)
    assert stored(store) == list(range(10, 70))


def test_cut_at_another_programs_line(tmp_path: Path) -> None:
    """A torn line of another program does not spoil the packet that is appended to it."""
    log, store = tmp_path / "syslog", tmp_path / "store"
    log.write_text((line(10) + OTHER * 20 + line(11)) * 10)
    with following(store, log):
        wait_until(store, 20)
        os.truncate(log, cut := LENGTH + len(OTHER) * 7 + 20)
        noticed(store, cut)
        with log.open("a") as writer:
            writer.write(lines([12, 13]))
        assert wait_until(store, 22) == [10] * 10 + [11] * 10 + [12, 13]


def test_copytruncate_is_not_taken_for_it(tmp_path: Path) -> None:
    """After a truncation to nothing the content is new, also where it is short and begins alike up to the stamps."""
    log, store = tmp_path / "syslog", tmp_path / "store"
    log.write_text(lines(range(10, 60)))
    with following(store, log):
        wait_until(store, 50)
        log.write_text(lines([70]))
        assert wait_until(store, 51)[-1] == 70
        log.write_text(lines([71, 72]))
        assert wait_until(store, 53)[-2:] == [71, 72]


def noticed(store: Path, offset: int, times: int = 1) -> None:
    """Wait until as many files were begun behind the cut."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with Reader(str(store)) as reader:
            found = reader.rows("SELECT count(DISTINCT file) FROM positions WHERE \"offset\" = $offset AND lines = 0",
                                {"offset": offset}).rows[0][0]  # fmt: skip
        if found >= times:
            return
        time.sleep(0.1)
    raise AssertionError("the cut was not noticed")


def balanced(store: Path) -> bool:
    """Lines of each file = packets + others + rejects, and a row for each packet that the positions count."""
    with Reader(str(store)) as reader:
        positions = reader.positions()
        rows = reader.rows("SELECT count(*) FROM packets").rows[0][0]
    assert sum(position.packets for position in positions) == rows
    return all(each.lines == each.packets + each.others + each.rejects for each in positions)
