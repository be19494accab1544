"""Commits and maintenance: each row once whatever happens, rejects capped, old days gone, readers undisturbed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import analytics.writer
from analytics import Commit, LossRow, Position, Reader, RejectRow, StoreError, Writer, maintenance, rejects

ROOT = Path(__file__).parents[2]
NOW = datetime.now(UTC)
Frame = Callable[[Iterable[dict[str, Any]]], pl.DataFrame]
Make = Callable[..., Commit]
Ask = Callable[..., list[tuple[Any, ...]]]


def _reject(number: int, reason: str = "malformed", **changes: Any) -> RejectRow:
    known = {"time": NOW, "node": "n", "source_file": "f00d", "source_offset": number, "reason": reason}
    return RejectRow(**{**known, "position": 3, "detail": "expected IN=", "line": f"line {number}", **changes})


def _parquet(folder: str, table: str = "packets") -> list[Path]:
    return sorted((Path(folder) / "data" / "main" / table).rglob("*.parquet"))


def test_everything_of_a_commit_is_read_back(folder: str, frame: Frame, position: Callable[..., Position]) -> None:
    """Packets, rejects, losses and positions come back as they were given, times and long numbers included."""
    packet = {
        "tcp_flags": ["SYN", "ACK"],
        "inner": '{"source_ip":"10.9.9.9"}',
        "fragment_id": 2**32 - 1,
        "uptime_s": 9.25,
    }
    loss = LossRow(NOW, "n", "f00d", 5, "kernel", 12, "callbacks suppressed")
    place = position(1, inode=2**64 - 1, closed=True, cursor="s=1", time=NOW)
    with Writer(folder) as writer:
        writer.commit(Commit((frame([packet]), frame([])), (_reject(1),), (loss,), (place,)))
        assert writer.positions() == [place]
    with Reader(folder) as reader:
        assert reader.positions() == [place]
        (row,) = reader.rows("SELECT * FROM packets").dicts()
        assert {name: row[name] for name in packet} == packet
        assert row["time"] == datetime(2026, 11, 20, 12, tzinfo=UTC)
        assert row["source_mac"] is None
        (row,) = reader.rows("SELECT * EXCLUDE stored_at FROM losses").rows
        assert row == (NOW, "n", "f00d", 5, "kernel", 12, "callbacks suppressed")
        (row,) = reader.rows("SELECT * EXCLUDE stored_at FROM rejects").rows
        assert row == (NOW, "n", "f00d", 1, "malformed", 3, "expected IN=", "line 1")


def test_lines_without_a_time_are_kept(folder: str, frame: Frame, ask: Ask) -> None:
    """A packet without a time (dmesg) is a row like others, in a partition of its own, also after merging."""
    with Writer(folder) as writer:
        for _ in range(2):
            writer.commit(Commit((frame([{"time": None}] * 150),)))
        writer.maintain()
    assert ask("SELECT count(*), count(time) FROM packets") == [(300, 0)]


def test_commit_times_grow(folder: str, commit: Make, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """`stored_at` grows with each commit, also when the clock stands still or goes back, and over a restart."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime(2001, 1, 1, tzinfo=UTC)

    with Writer(folder) as writer:
        writer.commit(commit([{}]))
    monkeypatch.setattr(analytics.writer, "datetime", Clock)
    with Writer(folder) as writer:
        writer.commit(commit([{}]))
        writer.commit(commit([{}]))
    stamps = [row[0] for row in ask("SELECT stored_at FROM positions ORDER BY sequence")]
    assert stamps == sorted(set(stamps))
    assert len(stamps) == 3


def test_newest_position_of_each_file(folder: str, position: Callable[..., Position]) -> None:
    """The position of a file is that of the last commit, whatever the clock said, before and after maintenance."""
    last = {}
    with Writer(folder) as writer:
        for number in range(30):
            file = f"file{number % 3}"
            last[file] = position(number, file=file, time=NOW - timedelta(hours=number))
            writer.commit(Commit(positions=(last[file],)))
        assert writer.positions() == list(last.values())
        writer.maintain()
        assert writer.positions() == list(last.values())
    with Writer(folder) as writer:
        writer.maintain()
        assert writer.positions() == list(last.values())
        assert writer._live().execute("SELECT count(*) FROM positions").fetchone() == (3,)


def test_failed_commit_changes_nothing(folder: str, commit: Make, ask: Ask) -> None:
    """A commit that DuckDB refuses leaves no row and no position, and the writer goes on."""
    with Writer(folder) as writer:
        wrong = commit([{}])
        wrong = Commit((wrong.packets[0].with_columns(nonsense=pl.lit(1)),), (_reject(1),), (), wrong.positions)
        with pytest.raises(StoreError, match="nonsense") as caught:
            writer.commit(wrong)
        assert not caught.value.retryable
        writer.commit(commit([{}, {}]))
    assert ask("SELECT (SELECT count(*) FROM packets), (SELECT count(*) FROM positions), count(*) FROM rejects") == [
        (2, 1, 0)
    ]


FULL = """
import resource, signal, sys
sys.path.insert(0, "tests/analytics")
from conftest import make_commit
from analytics import StoreError, Writer
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
many = make_commit([{"source_offset": n, "node": f"node-{n}"} for n in range(20000)])
with Writer(sys.argv[1]) as writer:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        writer.commit(many)
    except StoreError as error:
        print(error.retryable, "\\n" in str(error))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    writer.commit(many)
"""


def test_commit_that_ran_out_of_space_can_be_repeated(folder: str, ask: Ask) -> None:
    """Where files cannot grow (as on a full disk) a commit fails with a retryable sentence and works later, once."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, folder], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.stderr) == ("True False\n", "")
    assert ask("SELECT count(*), count(DISTINCT source_offset), (SELECT count(*) FROM positions) FROM packets") == [
        (20000, 20000, 1)
    ]


def test_rejects_beyond_the_cap_are_counted(folder: str, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each reason only so many lines an hour are kept, also over a restart; the others are counted."""
    monkeypatch.setattr(rejects, "KEPT_PER_HOUR", 10)
    for start in (0, 8, 16):
        with Writer(folder) as writer:
            writer.commit(Commit(rejects=tuple(_reject(n) for n in range(start, start + 8))))
            writer.commit(Commit(rejects=(_reject(start, "spliced"),)))
    assert ask("SELECT reason, count(*), max(source_offset) FROM rejects GROUP BY reason ORDER BY reason") == [
        ("malformed", 10, 9),
        ("spliced", 3, 16),
    ]
    assert ask("SELECT reason, sum(count)::INT FROM rejects_beyond GROUP BY reason") == [("malformed", 14)]


def test_cap_goes_by_the_clock_of_the_store() -> None:
    """Forged times on the lines do not open the cap again; the next hour of the clock does."""
    cap = rejects.RejectCap(NOW.replace(minute=0, second=0, microsecond=0), rejects.Counter())
    rows = [_reject(n, time=NOW - timedelta(hours=n)) for n in range(rejects.KEPT_PER_HOUR + 5)]
    kept, beyond = cap.split(rows, NOW)
    assert (len(kept), [entry[1:] for entry in beyond]) == (rejects.KEPT_PER_HOUR, [("malformed", 5)])
    cap.keep(kept, NOW)
    assert cap.split(rows[:1], NOW)[0] == []
    assert cap.split(rows[:1], NOW + timedelta(hours=1))[0] == rows[:1]


def test_long_and_odd_lines_are_stored_whole_characters(folder: str, ask: Ask) -> None:
    """A rejected line is cut at the limit, keeps NUL, and loses only what is not text."""
    with Writer(folder) as writer:
        writer.commit(Commit(rejects=(_reject(1, line="ä" * 9000), _reject(2, line="a\x00\ud800b\x1b[31m"))))
    assert ask("SELECT line FROM rejects ORDER BY source_offset") == [("ä" * 4096,), ("a\x00?b\x1b[31m",)]


def test_size_drops_the_oldest_days(folder: str, frame: Frame, position: Callable[..., Position], ask: Ask) -> None:
    """Days go from the oldest on until the size is met, with their sums; today's packets and positions stay."""
    days = [NOW - timedelta(days=n) for n in range(5)]
    with Writer(folder) as writer:
        for day in days:
            rows = frame([{"time": day, "source_port": n * 7919 % 65536, "tcp_seq": n} for n in range(3000)])
            writer.commit(Commit((rows,), positions=(position(3000, file=str(day)),)))
        writer.commit(Commit((frame([{"time": None}, {"time": NOW + timedelta(days=900)}] * 200),)))
        whole = writer.shrink(10**12)
        assert (whole.days, whole.packets) == ((), 0)
        some = writer.shrink(whole.held - 1)
        assert (some.days, some.packets) == ((days[4].date(),), 3000)
        assert some.held < whole.held
        rest = writer.shrink(1)
        assert (rest.days, rest.packets) == (tuple(day.date() for day in days[3:0:-1]), 9000)
        assert rest.held > 1
        assert writer.shrink(1).days == ()
        assert len(writer.positions()) == 5
    assert ask("SELECT count(*), count(*) FILTER (day = current_date), count(*) FILTER (day IS NULL) FROM packets") == [
        (3400, 3000, 200)
    ]


def test_size_takes_the_sums_of_a_day_along(folder: str, frame: Frame, ask: Ask) -> None:
    """Where a day's packets are gone, no question is answered from its sums."""
    with Writer(folder) as writer:
        for day in (NOW - timedelta(days=1), NOW):
            for _ in range(2):
                writer.commit(Commit((frame([{"time": day}] * 60_000),)))
        writer.maintain()
        assert writer.shrink(1).packets == 120_000
    assert ask("SELECT count(*) FROM packets WHERE day < current_date") == [(0,)]
    assert ask("SELECT count(*) FROM flow_days WHERE day < current_date") == [(0,)]
    assert ask("SELECT sum(packets)::BIGINT FROM flow_days") == [(60_000,)]  # the others are too few for sums yet


def test_retention_drops_old_days(folder: str, frame: Frame, position: Callable[..., Position], ask: Ask) -> None:
    """`keep` drops whole UTC days of packets, rejects and losses by their time, and no position."""
    days = [NOW - timedelta(days=n) for n in range(6)]
    with Writer(folder) as writer:
        for number, day in enumerate(days):
            loss = LossRow(day, None, "f00d", 1, "kernel", 1, "")
            rows = frame([{"time": day, "source_offset": number}] * 200)
            writer.commit(Commit((rows,), (_reject(1, time=day),), (loss,), (position(200, file=str(number)),)))
        writer.commit(Commit((frame([{"time": None}, {"time": NOW + timedelta(days=900)}]),)))
        writer.maintain(keep=timedelta(days=2))
        assert len(writer.positions()) == 6
    kept = "SELECT count(DISTINCT source_offset) FROM packets WHERE time < now() + INTERVAL 1 DAY"
    assert ask(kept) == [(3,)]
    assert ask("SELECT (SELECT count(*) FROM rejects), (SELECT count(*) FROM losses), count(*) FROM packets") == [
        (3, 3, 602)
    ]
    assert [path for path in _parquet(folder) if "delete" in path.name] == []


def test_retention_ends_for_rows_without_a_true_time(
    folder: str, frame: Frame, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row without a time, or with one in the future, goes when it was stored long enough ago."""

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return NOW + timedelta(days=10)

    with Writer(folder) as writer:
        writer.commit(Commit((frame([{"time": None}, {"time": NOW + timedelta(days=900)}]),)))
        monkeypatch.setattr(maintenance, "datetime", Later)
        writer.maintain(keep=timedelta(days=2))
    assert ask("SELECT count(*) FROM packets") == [(0,)]


def test_maintenance_merges_and_forgets(folder: str, commit: Make, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files become one, and what was replaced is deleted once no reader can want it, not before."""
    with Writer(folder) as writer:
        for number in range(12):
            writer.commit(commit([{"ip_id": number}] * 150))
        assert len(_parquet(folder)) == 12
        writer.maintain()
        assert len(_parquet(folder)) == 13
        stray = Path(folder) / "data" / "main" / "packets" / "stray.parquet"
        stray.write_bytes(b"left by a kill")
        writer.maintain()
        assert stray.exists()
        os.utime(stray, (0, 0))
        monkeypatch.setattr(maintenance, "READER_TIME", timedelta(0))
        monkeypatch.setattr(maintenance, "SNAPSHOT_TIME", timedelta(0))
        time.sleep(0.01)
        writer.maintain()
        writer.maintain()
        assert len(_parquet(folder)) == 1
    assert ask("SELECT count(*), count(DISTINCT ip_id) FROM packets") == [(1800, 12)]


def test_second_tier_fills_large_files(folder: str, frame: Frame, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files beyond the small size are left alone until there are enough of one day to fill a large one."""
    monkeypatch.setattr(maintenance, "SMALL_BYTES", 1)
    monkeypatch.setattr(maintenance, "_ENOUGH", 4)
    with Writer(folder) as writer:
        for number in range(4):
            writer.commit(Commit((frame([{"ip_id": number}] * 150),)))
            if number < 3:
                writer.maintain()
                live = "SELECT count(*) FROM ducklake_list_files('denylog', 'packets')"
                assert writer._live().execute(live).fetchone() == (number + 1,)
        writer.maintain()
        assert writer._live().execute(live).fetchone() == (1,)
    assert ask("SELECT count(*) FROM packets") == [(600,)]


CHILD = """
import sys
sys.path.insert(0, "tests/analytics")
from conftest import make_commit
from analytics import Writer
sizes = (150, 7)
with Writer(sys.argv[1], wait_s=5) as writer:
    at = writer.positions()[0].lines if writer.positions() else 0
    for round in range(100_000):
        size = sizes[round % 2]
        rows = [{"source_offset": at + n} for n in range(size)]
        at += size
        writer.commit(make_commit(rows, lines=at, packets=at, offset=at))
        if round == 0:
            print("going", flush=True)  # however slow the machine is, each run adds something
        if round % 5 == 4:
            writer.maintain()
"""


def _killed_run(folder: str, after_s: float) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, folder], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline() == "going\n", child.stderr.read()
        time.sleep(after_s)
        assert child.poll() is None, child.stderr.read()
        child.send_signal(signal.SIGKILL)


def _check_exactly_once(folder: str) -> int:
    with Reader(folder) as reader:
        counts = reader.rows(
            "SELECT count(*), count(DISTINCT source_offset), min(source_offset), max(source_offset) FROM packets"
        )
        (position,) = reader.positions()
    lines = position.lines
    assert counts.rows == [(lines, lines, 0, lines - 1)]
    return lines


@pytest.mark.parametrize("kills", [5, pytest.param(60, marks=pytest.mark.slow)])
def test_kill_at_any_moment_loses_and_doubles_nothing(folder: str, kills: int) -> None:
    """After each kill -9, during commits or maintenance, rows and position agree, for a reader and the next writer."""
    moments = random.Random(7)
    lines = 0
    for _ in range(kills):
        _killed_run(folder, moments.uniform(0.05, 0.9))
        now = _check_exactly_once(folder)
        assert now > lines
        lines = now


READER = """
import sys
from analytics import engine, store
with engine.reading(store.resolve(sys.argv[1]), engine.READ) as connection:
    connection.execute("BEGIN")
    ask = "SELECT count(*), sum(source_offset)::BIGINT, count(DISTINCT ip_id) FROM packets"
    first = connection.execute(ask).fetchall()
    print("open", flush=True)
    sys.stdin.readline()
    print(connection.execute(ask).fetchall() == first, flush=True)
    connection.execute("COMMIT")
    print(connection.execute(ask).fetchall()[0][0], flush=True)
"""


def test_reader_in_a_transaction_stops_nobody(folder: str, commit: Make) -> None:
    """While another process holds a transaction open, 60 commits and maintenance go on; it sees its snapshot."""
    with Writer(folder) as writer:
        writer.commit(commit({"source_offset": number, "ip_id": number} for number in range(150)))
        with subprocess.Popen(
            [sys.executable, "-c", READER, folder], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as reader:
            assert reader.stdin is not None
            assert reader.stdout is not None
            assert reader.stdout.readline() == "open\n"
            for number in range(60):
                writer.commit(commit([{"ip_id": number}] * (120 if number % 10 == 0 else 5)))
                if number % 20 == 19:
                    writer.maintain(keep=timedelta(days=9999))
            answer, _ = reader.communicate("go on\n", timeout=60)
    assert answer == f"True\n{150 + 6 * 120 + 54 * 5}\n"


HOLD = """
import sqlite3, sys, time
catalog = sqlite3.connect(sys.argv[1])
catalog.execute("BEGIN IMMEDIATE")
print("held", flush=True)
time.sleep(1)
"""


def test_catalog_held_by_somebody_else_is_waited_for(folder: str, commit: Make, ask: Ask) -> None:
    """A short exclusive lock on the catalog (a backup, say) delays a commit and does not fail it."""
    with (
        Writer(folder) as writer,
        subprocess.Popen(
            [sys.executable, "-c", HOLD, f"{folder}/catalog.sqlite"], stdout=subprocess.PIPE, text=True
        ) as other,
    ):
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        writer.commit(commit([{}]))
    assert ask("SELECT count(*) FROM packets") == [(1,)]
