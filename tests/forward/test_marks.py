"""How far a target is: kept durably, moved only forward, and honest about what retention took."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from analytics import Reader, StoreError, Writer
from analytics.filters import Where, where
from analytics.queries import Cursor
from collector import CollectorError
from collector.forward.backlog import Backlog, chosen
from collector.forward.counters import Counters
from collector.forward.formats import Message
from collector.forward.marks import Mark, StateFile, default_state
from collector.forward.progress import Progress
from tests.analytics.conftest import START, make_commit

TARGET = "relp://h:2514"


def fill(folder: Path, *commits: Iterable[dict[str, Any]]) -> str:
    """A store with one commit for each list of packets, in one file whose position counts on."""
    lines = 0
    with Writer(str(folder / "store")) as writer:
        for rows in commits:
            rows = [{"source_offset": (lines + number) * 100, **row} for number, row in enumerate(rows)]
            lines += len(rows)
            writer.commit(make_commit(rows, lines=lines))
    return str(folder / "store")


def drain(progress: Progress, backlog: Backlog, limit: int = 3) -> list[int]:
    """Read all pages as if they were sent, and the ports of the packets in the order in which they came."""
    found: list[int] = []
    progress.account(backlog.look())
    while page := backlog.page(limit):
        found += [record["destination_port"] for record in page.records]
        progress.arrived([Message(b"x")] * len(page.records), page)
    progress.account(backlog.look())
    return found


def ports(*numbers: int) -> list[dict[str, Any]]:
    """Packets that are told apart by their ports."""
    return [{"destination_port": number} for number in numbers]


def test_each_packet_once_in_order(tmp_path: Path) -> None:
    """Pages smaller and larger than commits give each packet once, and the mark is behind the last."""
    store = fill(tmp_path, ports(1, 2, 3, 4, 5, 6, 7), ports(8), ports(9, 10))
    with Reader(store) as reader:
        for limit in (1, 3, 7, 100):
            with StateFile(tmp_path / f"{limit}.json", store, TARGET) as marks:
                progress = Progress(marks, Counters(TARGET), replay=False)
                assert drain(progress, Backlog(reader, where({}, now=START, zone=UTC)), limit) == list(range(1, 11))
                assert (marks.load().messages, marks.load().passed) == (10, 10)


def test_a_filter_passes_over_the_rest(tmp_path: Path) -> None:
    """With a filter only its packets come, and what it leaves out is passed, also where a whole commit is left out."""
    store = fill(tmp_path, ports(1, 2, 3), ports(4, 5), ports(6, 7, 8), ports(9))
    with Reader(store) as reader, StateFile(tmp_path / "s.json", store, TARGET) as marks:
        progress = Progress(marks, Counters(TARGET), replay=False)
        chosen = where({"to-port": ["2", "7-8"]}, now=START, zone=UTC)
        assert drain(progress, Backlog(reader, chosen), 1) == [2, 7, 8]
        assert marks.load().passed in (8, 9)
        assert marks.load().messages == 3


def test_a_new_start_goes_on_after_the_mark(tmp_path: Path) -> None:
    """What was acknowledged is not read again; what came since is."""
    store = fill(tmp_path, ports(1, 2))
    for expected in ([1, 2], [], [3]):
        with Reader(store) as reader, StateFile(tmp_path / "s.json", store, TARGET) as marks:
            progress = Progress(marks, Counters(TARGET), replay=False)
            backlog = Backlog(reader, where({}, now=START, zone=UTC))
            backlog.rewind(progress.at)
            assert drain(progress, backlog) == expected
        if not expected:
            with Writer(store) as writer:
                writer.commit(make_commit([{"destination_port": 3, "source_offset": 200}], lines=3))


def test_replay_moves_no_mark_back(tmp_path: Path) -> None:
    """Packets that are sent again leave the mark where it is, even if that is broken off."""
    store = fill(tmp_path, ports(1, 2, 3))
    with StateFile(tmp_path / "s.json", store, TARGET) as marks, Reader(store) as reader:
        everything = where({}, now=START, zone=UTC)
        drain(Progress(marks, Counters(TARGET), replay=False), Backlog(reader, everything))
        before = marks.load()
        progress = Progress(marks, Counters(TARGET), replay=True)
        backlog = Backlog(reader, everything)
        progress.account(backlog.look())
        page = backlog.page(2)
        assert page is not None
        progress.arrived([Message(b"x")] * 2, page)
        assert marks.load() == before
        assert [record["destination_port"] for record in page.records] == [1, 2]


def test_replay_passes_over_nothing_that_was_not_sent(tmp_path: Path) -> None:
    """With --since, packets behind the mark are sent however old they are; before it only those from then on. Where
    there is no mark yet, it begins at that time."""
    hours = [{"destination_port": age, "time": START - timedelta(hours=age)} for age in (9, 1, 8, 2)]
    store = fill(tmp_path, hours[:2], hours[2:])
    since = START - timedelta(hours=5)
    with Reader(store) as reader:
        places = [Cursor(*row) for row in reader.rows(
            "SELECT stored_at, source_file, source_offset FROM packets ORDER BY ALL").rows]  # fmt: skip
        for mark, expected in ((None, [1, 2]), (places[1], [1, 8, 2]), (places[3], [1, 2])):
            with StateFile(tmp_path / f"{len(expected)}-{mark is None}.json", store, TARGET) as marks:
                marks.save(Mark(mark, 0, None, 0))
                progress = Progress(marks, Counters(TARGET), replay=True)
                assert drain(progress, Backlog(reader, chosen(Where(), since, mark))) == expected
                assert marks.load().cursor == places[3]


def test_what_retention_took_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Packets that left the store before they were sent are counted and told, across a restart."""
    store = fill(tmp_path, ports(1, 2))
    now = datetime.now(UTC)
    with Reader(store) as reader, StateFile(tmp_path / "s.json", store, TARGET) as marks:
        drain(Progress(marks, Counters(TARGET), replay=False), Backlog(reader, where({}, now=START, zone=UTC)))
    with Writer(store) as writer:
        old = [{"destination_port": 3, "time": now - timedelta(days=40), "source_offset": 300 + i} for i in range(5)]
        writer.commit(make_commit(old, lines=7))
        writer.commit(make_commit([{"destination_port": 4, "time": now, "source_offset": 900}], lines=8))
        writer.maintain(timedelta(days=30))
    counters = Counters(TARGET)
    with Reader(store) as reader, StateFile(tmp_path / "s.json", store, TARGET) as marks:
        progress = Progress(marks, counters, replay=False)
        backlog = Backlog(reader, where({}, now=START, zone=UTC))
        backlog.rewind(progress.at)
        with caplog.at_level(logging.WARNING):
            assert drain(progress, backlog) == [4]
        assert marks.load().dropped == counters.dropped["retention"] == 5
    assert "5 packets were removed from the store before they were sent" in caplog.text


def test_the_last_acknowledged_of_a_page(tmp_path: Path) -> None:
    """Where only the first packets of a page arrived, the next page begins behind them."""
    store = fill(tmp_path, ports(*range(1, 11)))
    with Reader(store) as reader, StateFile(tmp_path / "s.json", store, TARGET) as marks:
        progress = Progress(marks, Counters(TARGET), replay=False)
        backlog = Backlog(reader, where({}, now=START, zone=UTC))
        progress.account(backlog.look())
        page = backlog.page(6)
        assert page is not None
        progress.arrived([Message(b"x")] * 4, page.up_to(4))
        backlog.rewind(progress.at)
        assert drain(progress, backlog) == [5, 6, 7, 8, 9, 10]
        assert marks.load().passed == 10


def test_state_file_is_exclusive_and_belongs_to_one_target(tmp_path: Path) -> None:
    """A second forwarder, another target, another store, and a file that is none are refused in a sentence."""
    path = tmp_path / "s.json"
    mark = Mark(Cursor(START, "f00d", 7), 3, 4, 1)
    with StateFile(path, "/store", TARGET) as marks:
        marks.save(mark)
        with pytest.raises(CollectorError, match="another forwarder is using it"):
            StateFile(path, "/store", TARGET)
    with StateFile(path, "/store", TARGET) as marks:
        assert marks.load() == mark
    assert path.stat().st_mode & 0o777 == 0o640
    for store, target in (("/other", TARGET), ("/store", "tcp://h:514")):
        with pytest.raises(CollectorError, match="belongs to"):
            StateFile(path, store, target)
    whole = json.loads(path.read_text())
    wrong = {"stored_at": "soon"}, {"stored_at": "2026-11-22T15:00:00"}, {"source_offset": 10**30}, {"messages": -1}
    for text in ("", "{}", "[]", "[" * 100_000, *(json.dumps({**whole, **changed}) for changed in wrong)):
        path.write_text(text)
        with pytest.raises(CollectorError, match=r"is no state file|belongs to"):
            StateFile(path, "/store", TARGET)


def test_default_state_is_of_one_store_and_target(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each pair of a store and a target has a file of its own, under XDG_STATE_HOME where that is set."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    found = {default_state(store, url) for store in ("/a", "/b") for url in (TARGET, "tcp://[::1]:514")}
    assert len(found) == 4
    assert all(path.parent == tmp_path / "denylog-forward" for path in found)


def test_marks_survive_in_the_store(tmp_path: Path) -> None:
    """A mark that goes with a commit is there at the next start, and older ones go at maintenance."""
    from analytics import Commit
    from analytics.additions import ForwardedRow
    from collector.forward.marks import Ledger

    store = str(tmp_path / "store")
    with Writer(store) as writer:
        for number in (1, 2):
            ledger = Ledger(TARGET, writer.forwarded().get(TARGET))
            ledger.save(Mark(Cursor(START, "f00d", number), number, number, 0))
            row = ledger.take()
            assert isinstance(row, ForwardedRow)
            assert not ledger.waits
            writer.commit(Commit(forwarded=(row,)))
        writer.maintain()
    with Writer(store) as writer:
        assert Ledger(TARGET, writer.forwarded()[TARGET]).load() == Mark(Cursor(START, "f00d", 2), 2, 2, 0)
    with Reader(store) as reader:
        assert reader.rows("SELECT count(*) FROM forwarded").rows == [(1,)]


def test_a_mark_that_cannot_be_saved_now_is_saved_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk under the state file is a reason to try again; what arrived meanwhile is not sent again."""
    store = fill(tmp_path, ports(1, 2))
    with Reader(store) as reader, StateFile(tmp_path / "s.json", store, TARGET) as marks:
        progress = Progress(marks, Counters(TARGET), replay=False)
        backlog = Backlog(reader, where({}, now=START, zone=UTC))
        progress.account(backlog.look())
        page = backlog.page(5)
        assert page is not None
        with monkeypatch.context() as patched:
            patched.setattr("os.replace", full)
            with pytest.raises(StoreError, match="No space left") as caught:
                progress.arrived([Message(b"x")] * 2, page)
        assert caught.value.retryable
        assert marks.load().messages == 0
        backlog.rewind(progress.at)
        progress.account(backlog.look())
        assert backlog.page(5) is None
        assert marks.load().messages == 2


def full(*_: object) -> None:
    """What rename(2) says on a full disk."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
