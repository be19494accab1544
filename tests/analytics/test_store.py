"""Opening, locking and describing a store: what is created, who may write, and what is said when it will not do."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analytics import Reader, StoreError, Writer, schema
from analytics.describe import schema_markdown
from analytics.views import View
from parser import FIELDS

ROOT = Path(__file__).parents[2]
Ask = Callable[..., list[tuple[Any, ...]]]

HOLDER = """
import sys, time
from analytics import Writer
with Writer(sys.argv[1]):
    print("open", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(folder: str) -> Any:
    """Another process that has the store open for writing."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, folder], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    with process:
        yield process
        process.kill()


def test_second_writer_is_refused_by_name(folder: str, holder: subprocess.Popen[str]) -> None:
    """A second writer is told which process holds the store, and that trying again may help."""
    with pytest.raises(StoreError, match=rf"is being written to by process {holder.pid} on .* since 20") as caught:
        Writer(folder)
    assert caught.value.retryable


def test_lock_ends_with_its_holder(folder: str, holder: subprocess.Popen[str]) -> None:
    """After kill -9 of the writer the next one opens the store at once."""
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with Writer(folder) as writer:
        assert writer.positions() == []


def test_writer_waits_for_the_lock(folder: str, holder: subprocess.Popen[str]) -> None:
    """With a waiting time a writer gets the store when the first one ends."""
    threading.Timer(0.5, holder.kill).start()
    with Writer(folder, wait_s=20) as writer:
        assert writer.positions() == []


def test_files_are_private(folder: str, commit: Callable[..., Any]) -> None:
    """Folders of a new store are rwxr-x--- and its files rw-r-----, whatever the umask."""
    before = os.umask(0)
    try:
        with Writer(folder) as writer:
            writer.commit(commit({"ip_id": number} for number in range(200)))
            paths = [Path(folder), *Path(folder).rglob("*")]
            modes = {path: stat.S_IMODE(path.stat().st_mode) for path in paths}
        assert any(path.suffix == ".parquet" for path in paths)
    finally:
        os.umask(before)
    assert {path: mode for path, mode in modes.items() if mode & ~(0o750 if path.is_dir() else 0o640)} == {}


def _file(folder: Path) -> None:
    folder.write_text("x")


def _others(folder: Path) -> None:
    folder.mkdir()
    (folder / "thesis.tex").write_text("x")


def _garbage(folder: Path) -> None:
    folder.mkdir()
    (folder / "catalog.sqlite").write_bytes(b"not a database" * 100)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_file, "is a file, not a store's folder"),
        (_others, "is not a store and holds other files ('thesis.tex')"),
        (_garbage, "is damaged, or no catalog of a store"),
    ],
)
def test_writer_refuses_what_is_no_store(folder: str, make: Callable[[Path], None], says: str) -> None:
    """A file, a folder with other things in it and a broken catalog are each refused with one sentence."""
    make(Path(folder))
    with pytest.raises(StoreError) as caught:
        Writer(folder)
    assert says in str(caught.value)
    assert str(caught.value).startswith(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: None, "there is no store"),
        (lambda folder: folder.mkdir(), "is not a store: it has no catalog.sqlite"),
        (_file, "is a file, not a store's folder"),
        (_garbage, "is damaged, or no catalog of a store"),
    ],
)
def test_reader_refuses_what_is_no_store(folder: str, make: Callable[[Path], None], says: str) -> None:
    """A reader creates nothing and says in one sentence why there is nothing to read."""
    make(Path(folder))
    with pytest.raises(StoreError) as caught:
        Reader(folder)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("address", ["postgres:dbname=lake", "s3://bucket/lake", "https://example.org/x", ""])
def test_urls_are_refused(address: str) -> None:
    """An address that is not a local folder is refused with one sentence, by writers and readers."""
    for kind in (Writer, Reader):
        with pytest.raises(StoreError, match="give the path of a local folder"):
            kind(address)


def test_parent_that_is_a_file(tmp_path: Path) -> None:
    """A store below a file is refused with a sentence."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="is a file, not a store's folder"):
        Writer(str(tmp_path / "file" / "store"))


def test_newer_store_is_refused(folder: str) -> None:
    """A store of a later version is left alone, by writers and readers."""
    with Writer(folder) as writer:
        writer._live().execute("UPDATE meta SET value = '99' WHERE key = 'schema_version'")
    for kind in (Writer, Reader):
        with pytest.raises(StoreError, match=r"schema version 99, this denylog knows .*; update denylog"):
            kind(folder)


def test_older_store_is_brought_up_to_date(folder: str, commit: Callable[..., Any]) -> None:
    """A store of the version before keeps its rows and gets the new column; a reader asks for that first."""
    with Writer(folder) as writer:
        writer.commit(commit([{}]))
        store = writer._store
        wider = (*schema.STEPS, lambda: ["ALTER TABLE packets ADD COLUMN weight INTEGER"])
        with pytest.raises(StoreError, match=rf"needs {len(wider)}; start `denylog collect`"):
            schema.check_version(store.folder, schema.version(writer._live()), wider)
        schema.migrate(writer._live(), store.folder, wider)
        assert schema.version(writer._live()) == len(wider)
        found = writer._live().execute("SELECT weight, source_ip FROM packets").fetchall()
        assert found == [(None, "10.0.0.1")]
        assert writer._live().execute("SELECT weight FROM denied").fetchall() == [(None,)]


def test_views_follow_the_program(folder: str, monkeypatch: pytest.MonkeyPatch, ask: Ask) -> None:
    """A store whose views are of another program gets those of this one when it is opened for writing."""
    monkeypatch.setattr(schema, "VIEWS", [View(view.name, "old", "SELECT 1 AS x") for view in schema.VIEWS])
    Writer(folder).close()
    assert ask("DESCRIBE calico_packet")[0][0] == "x"
    monkeypatch.undo()
    Writer(folder).close()
    assert ask("DESCRIBE calico_packet")[0][0] == "time"


def test_failed_step_leaves_the_version_before(folder: str) -> None:
    """A migration that breaks in the middle of a step changes nothing."""
    broken = (*schema.STEPS, lambda: ["ALTER TABLE packets ADD COLUMN weight INTEGER", "SELECT nonsense"])
    with Writer(folder) as writer:
        with pytest.raises(Exception, match="nonsense"):
            schema.migrate(writer._live(), folder, broken)
        assert schema.version(writer._live()) == len(schema.STEPS)
        columns = {row[0] for row in writer._live().execute("DESCRIBE packets").fetchall()}
    assert "weight" not in columns


def test_tables_have_the_columns_of_the_vocabulary(folder: str, ask: Ask) -> None:
    """`packets` has the columns of FIELDS with their types, then the place; every table and column has a comment."""
    Writer(folder).close()
    described = [(row[0], row[1]) for row in ask("DESCRIBE packets")]
    assert described[: len(FIELDS)] == [
        (field.name, field.sql.replace("TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE")) for field in FIELDS
    ]
    assert [name for name, _ in described[len(FIELDS) :]] == ["source_file", "source_offset", "stored_at", "day"]
    for kind in ("tables", "views"):
        assert ask(f"SELECT count(*) FROM duckdb_{kind}() WHERE database_name = 'denylog' AND comment IS NULL") == [
            (0,)
        ]
    uncommented = "SELECT column_name FROM duckdb_columns() WHERE database_name = 'denylog' AND comment IS NULL AND {}"
    tables = "table_name IN (SELECT table_name FROM duckdb_tables() WHERE database_name = 'denylog')"
    assert ask(uncommented.format(tables)) == []


def test_schema_page_is_current() -> None:
    """docs/schema.md is what the code makes."""
    assert (ROOT / "docs" / "schema.md").read_text() == schema_markdown()


ALONE = """
import sys
for name in ("pandas", "pyarrow", "numpy"):
    sys.modules[name] = None
import os, socket
def refuse(*arguments, **named):
    raise AssertionError("no network")
socket.socket.connect = refuse
from datetime import UTC, datetime
from analytics import Commit, LossRow, Position, Reader, RejectRow, Writer
now = datetime.now(UTC)
with Writer(sys.argv[1]) as writer:
    writer.commit(Commit(
        rejects=(RejectRow(now, None, "f", 0, "malformed", 3, "", "a\\x00\\udcffb"),),
        losses=(LossRow(now, "n", "f", 9, "rsyslog", None, "lost"),),
        positions=(Position(source="s", file="f", path="p", inode=2**64 - 1, time=now),),
    ))
    writer.maintain()
    assert writer.positions()[0].inode == 2**64 - 1
with Reader(sys.argv[1]) as reader:
    print(reader.rows("SELECT line FROM rejects").rows)
    print(reader.rows("SELECT '10.1.2.3'::INET <<= '10.0.0.0/8'::INET").rows)
"""


def test_needs_no_home_no_network_and_no_pandas(tmp_path: Path) -> None:
    """With an empty environment, no home folder, and pandas, pyarrow and numpy out of reach, everything works."""
    done = subprocess.run(
        ["env", "-i", sys.executable, "-c", textwrap.dedent(ALONE), str(tmp_path / "store")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "[('a\\x00?b',)]\n[(True,)]\n"


def test_moved_store_opens(folder: str, commit: Callable[..., Any]) -> None:
    """A store that was moved to another folder is read and written there."""
    with Writer(folder) as writer:
        writer.commit(commit({"ip_id": number} for number in range(150)))
    moved = os.rename(folder, f"{folder}-moved") or f"{folder}-moved"
    with Reader(moved) as reader:
        assert reader.rows("SELECT count(*), sum(ip_id) FROM packets").rows == [(150, sum(range(150)))]
    with Writer(moved) as writer:
        writer.commit(commit([{}] * 150))
        writer.maintain()
    assert not Path(folder).exists()


def test_importing_the_package_loads_no_duckdb() -> None:
    """`import analytics` and its filters leave DuckDB, Polars and pandas unloaded, so that --help answers at once."""
    heavy = "[name for name in ('duckdb', 'polars', 'pandas') if name in sys.modules]"
    code = f"import sys, json, analytics.filters; print(json.dumps({heavy}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_catalog_is_in_wal_mode(folder: str) -> None:
    """The catalog keeps a write-ahead log: readers do not wait for the writer, and survive its kill."""
    Writer(folder).close()
    with sqlite3.connect(Path(folder) / "catalog.sqlite") as catalog:
        mode = catalog.execute("PRAGMA journal_mode").fetchone()
    catalog.close()
    assert mode == ("wal",)
