"""`kill -9` at random moments, while lines are written, files rotated, and a reader asks: rows equal lines written."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest

from analytics import Reader, StoreError
from tests.collector.live import LogWriter, collecting, spawn, stored, wait_until


def rotate(log: Path, writer: LogWriter) -> None:
    """What logrotate does with `create`: shift, rename, create, tell the writer. Nothing is removed: on a loaded
    machine several collectors may be killed before they have begun to read."""
    for number in range(40, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        if older.exists():
            older.rename(log.with_name(f"{log.name}.{number + 1}"))
    log.rename(log.with_name(f"{log.name}.1"))
    log.touch()
    writer.reopen()


def ask(store: Path, end: threading.Event, errors: list[str]) -> None:
    """Query the store again and again; it may not be there yet, but it is never broken."""
    seen = 0
    while not end.is_set():
        try:
            with Reader(str(store)) as reader:
                (count,) = reader.rows("SELECT count(*) FROM (SELECT source_port FROM packets)").rows[0]
        except StoreError as error:
            if seen:
                errors.append(str(error))
        else:
            if count < seen:
                errors.append(f"{count} rows after {seen}")
            seen = max(seen, count)
        time.sleep(0.2)


def kill_often(folder: Path, kills: int) -> None:
    """Kill a collector so many times; then let one finish, and compare."""
    chance = random.Random(kills)
    log, store = folder / "syslog", folder / "store"
    log.touch()
    writer, end, errors = LogWriter(log), threading.Event(), list[str]()
    writer.start()
    reader = threading.Thread(target=ask, args=(store, end, errors), daemon=True)
    reader.start()
    with collecting(store, log):
        wait_until(store, 1)  # at the very first start, rotated files are none of the collector's business
    for number in range(kills):
        process = spawn(store, log, maintain_s=1.5)
        time.sleep(chance.uniform(0.6, 2.2))
        if number % 3 == 1:
            rotate(log, writer)
        time.sleep(chance.uniform(0.0, 0.4))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        if number % 7 == 3:
            rotate(log, writer)
    written = writer.finish()
    with collecting(store, log):
        found = wait_until(store, written)
    end.set()
    reader.join()
    assert found == list(range(written))
    assert stored(store) == list(range(written))
    assert errors == []


def test_few_kills(tmp_path: Path) -> None:
    """After 5 kills at random moments each line is one row."""
    kill_often(tmp_path, int(os.environ.get("KILLS", "5")))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_fifty_kills(tmp_path: Path) -> None:
    """After 50 kills at random moments each line is one row."""
    kill_often(tmp_path, 50)
