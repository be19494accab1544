"""Reading a store: which SQL is run, what it can reach, and that a reader needs no right to write."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from analytics import QueryError, Reader, Writer, engine

ROOT = Path(__file__).parents[2]
Fill = Callable[[Iterable[dict[str, Any]]], str]


@pytest.fixture(scope="module")
def reader(shared: str) -> Iterator[Reader]:
    """An open store with one packet."""
    with Reader(shared) as opened:
        yield opened


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM packets;",
        "-- how many\nFROM denied",
        "WITH a AS (SELECT 1 AS x) SELECT * FROM a, range(3)",
        "DESCRIBE packets",
        "SHOW TABLES",
        "SUMMARIZE denied",
        "EXPLAIN SELECT * FROM packets",
        "explain analyze SELECT * FROM packets",
        'SELECT "IN", "SRC" FROM calico_packet',
        "SELECT * FROM distinct_packets",
        "SELECT source_ip::INET <<= '10.0.0.0/8'::INET FROM packets",
        "SELECT * FROM ducklake_snapshots('denylog')",
    ],
)
def test_questions_are_answered(reader: Reader, sql: str) -> None:
    """Whatever only asks is run."""
    assert reader.rows(sql).rows


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("", "there is no statement"),
        ("-- nothing", "there is no statement"),
        ("SELECT 1; DROP TABLE packets", "2 statements"),
        ("SELEC 1", 'syntax error at or near "SELEC"'),
        ("SELECT nope FROM packets", '"nope" not found'),
        ("SELECT * FROM nope", "Table with name nope does not exist"),
        ("DELETE FROM packets", "DELETE is refused"),
        ("INSERT INTO packets (node) VALUES ('x')", "INSERT is refused"),
        ("CREATE TABLE x AS SELECT 1", "CREATE is refused"),
        ("COPY packets TO '/tmp/x.csv'", "COPY is refused"),
        ("EXPLAIN ANALYZE COPY packets TO '/tmp/x.csv'", "EXPLAIN is refused"),
        ("ATTACH '/tmp/x.db'", "ATTACH is refused"),
        ("DETACH denylog", "DETACH is refused"),
        ("USE memory", "is refused"),
        ("SET memory_limit = '1TB'", "is refused"),
        ("LOAD httpfs", "LOAD is refused"),
        ("CHECKPOINT", "is refused"),
        ("CALL ducklake_cleanup_old_files('denylog', cleanup_all => true)", "CALL is refused"),
        ("SELECT * FROM ducklake_delete_orphaned_files('denylog', cleanup_all => true)", "is refused"),
        ("SELECT (SELECT count(*) FROM ducklake_expire_snapshots('denylog', versions => [1]))", "is refused"),
        ("SELECT * FROM query('DELETE FROM ' || 'packets')", "'query' is refused"),
        ("SELECT * FROM sqlite_scan('x', 'y')", "is refused"),
        ("SELECT * FROM read_text('/etc/hostname')", "file system operations are disabled"),
        ("SELECT * FROM '/etc/hostname.csv'", "file system operations are disabled"),
        ("SELECT * FROM read_csv('https://example.org/x.csv')", "disabled"),
    ],
)
def test_all_else_is_refused_in_one_sentence(reader: Reader, sql: str, says: str) -> None:
    """What writes, reaches outside or is wrong is refused with one sentence, and nothing has changed."""
    with pytest.raises(QueryError) as caught:
        reader.rows(sql)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert reader.rows("SELECT count(*) FROM packets").rows == [(1,)]


def test_files_that_were_named_can_be_read(filled: Fill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An inventory that the caller allows can be joined; its neighbours cannot be read, and it cannot be written."""
    (tmp_path / "inventory.csv").write_text("ip,owner\n10.0.0.1,payments\n")
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n")
    monkeypatch.chdir(tmp_path)
    with Reader(filled([{}]), files=["inventory.csv"]) as reader:
        joined = reader.rows("SELECT owner FROM packets JOIN 'inventory.csv' ON ip = source_ip")
        assert joined.rows == [("payments",)]
        for sql in ("FROM 'secret.csv'", "COPY packets TO 'inventory.csv'"):
            with pytest.raises(QueryError):
                reader.rows(sql)


def test_answers_as_frames(filled: Fill) -> None:
    """The same answer comes as tuples, as a Polars frame and as a pandas frame, with parameters by name."""
    sql = "SELECT source_ip, time, tcp_flags FROM packets WHERE destination_port = $port"
    with Reader(filled([{}, {"destination_port": 80}])) as reader:
        rows = reader.rows(sql, {"port": 80})
        assert reader.polars(sql, {"port": 80}).rows() == rows.rows
        assert list(reader.pandas(sql, {"port": 80}).columns) == list(rows.columns)
        assert rows.dicts()[0]["source_ip"] == "10.0.0.1"
        with pytest.raises(QueryError):
            reader.polars("DELETE FROM packets")


def test_zone_of_a_reader(shared: str) -> None:
    """Times without a zone are understood, and days begin, in the reader's zone (the packet is of 12:00 UTC)."""
    for zone, hour, day in (("UTC", 12, 20), ("Asia/Kathmandu", 17, 20), ("Pacific/Auckland", 1, 21)):
        with Reader(shared, zone=zone) as reader:
            assert reader.rows("SELECT hour(time), day(time) FROM packets").rows == [(hour, day)]
            assert reader.rows(f"SELECT count(*) FROM packets WHERE time >= '2026-11-{day} {hour}:00'").rows == [(1,)]


def test_unknown_zone_is_one_sentence(shared: str) -> None:
    """A zone that does not exist is refused by name."""
    with pytest.raises(Exception, match="Mars") as caught:
        Reader(shared, zone="Mars/Olympus")
    assert "\n" not in str(caught.value)


def test_attach_line_opens_the_store(reader: Reader) -> None:
    """The printed ATTACH line works in another DuckDB that has the extensions."""
    from analytics import engine

    line = reader.attach_statement()
    connection = engine.connect(engine.READ, Path("/nonexistent"))
    connection.execute(line)
    assert connection.execute("SELECT count(*) FROM denylog.denied").fetchall() == [(1,)]
    connection.close()


COUNT = """
import os, sys
import decimal, pytz, uuid
from analytics import Reader
if len(sys.argv) > 2:
    os.setgroups([])
    os.setgid(int(sys.argv[2]))
    os.setuid(65534)
with Reader(sys.argv[1]) as reader:
    print(reader.rows("SELECT count(*), sum(ip_id) FROM packets").rows)
"""


def _count(*command: str) -> str:
    done = subprocess.run(
        [*command], cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.stderr == ""
    return done.stdout


READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && exec "$2" -c "$3" "$1"'


@pytest.mark.system
@pytest.mark.parametrize("state", ["closed", "open", "killed"])
def test_read_only_mount(filled: Fill, state: str) -> None:
    """A store on a read-only mount is read: after the writer closed it, while one has it open, and after kill -9."""
    store = filled({"ip_id": number} for number in range(150))
    command = ("unshare", "-m", "sh", "-c", READ_ONLY, "sh", store, sys.executable, COUNT)
    expected = f"[(150, {sum(range(150))})]\n"
    if state == "open":
        with Writer(store):
            assert _count(*command) == expected
        return
    if state == "killed":
        kill = "import os, sys; from analytics import Writer; w = Writer(sys.argv[1]); os.kill(os.getpid(), 9)"
        subprocess.run([sys.executable, "-c", kill, store], cwd=ROOT, check=False)
        assert (Path(store) / "catalog.sqlite-wal").exists()
    assert _count(*command) == expected


@pytest.mark.system
@pytest.mark.parametrize("opened", [False, True])
def test_member_of_the_group_can_read(filled: Fill, tmp_path: Path, opened: bool) -> None:
    """Somebody who may only read the folder gets answers, whether a writer has the store open or not."""
    group = 54321
    store = Path("/var/tmp") / f"denylog-test-{os.getpid()}"
    shutil.copytree(filled({"ip_id": number} for number in range(150)), store)
    try:
        writer = Writer(str(store)) if opened else None
        for path in (store, *store.rglob("*")):
            os.chown(path, 0, group)
        assert _count(sys.executable, "-c", COUNT, str(store), str(group)) == f"[(150, {sum(range(150))})]\n"
        if writer:
            writer.close()
    finally:
        shutil.rmtree(store)


def test_reader_leaves_no_scratch_behind(filled: Fill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The private scratch folder of a reader is gone when it is closed, also after a failure."""
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    with Reader(filled([{}])) as reader:
        assert list(scratch.iterdir())
        with pytest.raises(QueryError):
            reader.rows("SELECT nope")
    assert list(scratch.iterdir()) == []


_MOVING = """
import sys, time
from analytics import Writer
from tests.analytics.conftest import make_commit
with Writer(sys.argv[1]) as writer:
    end = time.monotonic() + 8
    number = 0
    while time.monotonic() < end:
        number += 1
        writer.commit(make_commit([{} for _ in range(10)], lines=number))
        writer.maintain()
print(number * 10)
"""


def test_no_answer_misses_rows_that_are_moved(folder: str) -> None:
    """While a writer commits and merges all the time, the packets that one reader counts never become fewer."""
    with Writer(folder):
        pass
    command = [sys.executable, "-c", _MOVING, folder]
    with (
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writing,
        Reader(folder) as reader,
    ):
        seen = [0]
        while writing.poll() is None:
            seen.append(reader.rows("SELECT count(source_ip) FROM packets").rows[0][0])
        assert seen == sorted(seen)
        assert writing.communicate()[0].strip() == str(reader.rows("SELECT count(source_ip) FROM packets").rows[0][0])
        assert len(seen) > 10 < seen[-1]


def test_an_answer_that_was_disturbed_is_asked_again(filled: Fill, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where maintenance moved rows while a question was asked, it is asked once more."""
    moves = iter([1, 2, 2, 2])
    monkeypatch.setattr(engine, "moves", lambda connection: next(moves))
    with Reader(filled([{}])) as reader:
        assert reader.rows("SELECT count(*) FROM packets").rows == [(1,)]
    assert list(moves) == []
