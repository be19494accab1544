"""The only door to DuckDB: one private in-memory engine with a store attached, and its errors turned into ours.

Rule: nothing outside the store is touched. Extensions come from the installed packages, with their signatures checked;
no home folder and no network is needed, and nothing is fetched behind anybody's back.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from analytics.store import Store, StoreError, obstacle, unusable

if TYPE_CHECKING:
    import polars as pl

# Where pyarrow is installed (Streamlit wants it) DuckDB reads Arrow streams through it, and it warns on standard error
# of Polars' buffers, which begin at any byte. It may copy those instead.
os.environ.setdefault("ACERO_ALIGNMENT_HANDLING", "reallocate")

NAME = "denylog"
METADATA = f"__ducklake_metadata_{NAME}"
"""Where DuckLake attaches the catalog of the store."""
WRITER_EXTENSIONS = ("sqlite_scanner", "ducklake")
EXTENSIONS = (*WRITER_EXTENSIONS, "inet")
# One commit of a writer takes milliseconds; a reader or an analyst's shell never holds the catalog for seconds.
_BUSY_TIMEOUT_MS = 10_000
# Up to this many rows go into the catalog instead of a Parquet file of their own (0.14 ms a row; a file costs 20 ms).
_INLINE_ROWS = 100


@dataclass(frozen=True, slots=True)
class Limits:
    """What the engine may use: `memory_mb` for its buffers (not the whole process), and `threads`.

    `frugal` gives freed memory back to the system at once, which costs some page faults in each commit. `row_group` is
    how many rows a writer puts into a row group of Parquet: questions are the faster the larger it is (65 536 beside
    8 192: two to three times), but merging files holds one of them in memory.
    """

    memory_mb: int
    threads: int
    frugal: bool = False
    row_group: int = 16_384


# A follower shares its node with the pods. Merging twenty files of 5 000 rows takes less than 40 MB; 64 leaves room.
FOLLOW = Limits(memory_mb=64, threads=1, frugal=True)
# An archive is read in by somebody who waits for it.
BULK = Limits(memory_mb=1024, threads=1, row_group=65_536)
# A reader that lives beside the follower: attributing a thousand packets of a store of 100 000 takes 70 MB.
LIVE = Limits(memory_mb=128, threads=1, frugal=True)
# Questions are asked on an analyst's machine, or beside the collector on the node: sorts spill to disk beyond this.
READ = Limits(memory_mb=1024, threads=2)

_FRUGAL = (
    "SET allocator_flush_threshold = '128KB'",
    "SET allocator_bulk_deallocation_flush_threshold = '128KB'",
)


def connect(limits: Limits, scratch: Path, extensions: Iterable[str] = EXTENSIONS) -> duckdb.DuckDBPyConnection:
    """A fresh engine in memory with the extensions loaded; times are UTC unless a reader asks otherwise."""
    config: dict[str, Any] = {
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "extension_directory": str(scratch / "extensions"),
        "home_directory": str(scratch),
        "temp_directory": str(scratch),
        "memory_limit": f"{limits.memory_mb}MB",
        "threads": limits.threads,
    }
    connection = duckdb.connect(":memory:", config=config)
    for name in extensions:
        _load(connection, name)
    for statement in ("SET TimeZone = 'UTC'", "SET enable_progress_bar = false", *(_FRUGAL if limits.frugal else ())):
        connection.execute(statement)
    return connection


def _load(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    found = importlib.util.find_spec(f"duckdb_extension_{name}")
    files = sorted(Path(os.path.dirname(found.origin)).glob("**/*.duckdb_extension")) if found and found.origin else []
    try:
        if files:
            connection.execute(f"LOAD {quoted(str(files[0]))}")
        else:
            connection.execute(f"RESET extension_directory; RESET home_directory; INSTALL {name}; LOAD {name}")
    except duckdb.Error as error:
        do = f"install the Python package duckdb-extension-{name.replace('_', '-')} {duckdb.__version__}"
        raise StoreError(f"DuckDB extension {name}", first_line(error), do) from error


def attach_options(store: Store, *, read_only: bool) -> str:
    """The options of the ATTACH statement; the data path is given each time, so that a store can be moved."""
    options = [f"DATA_PATH {quoted(str(store.data))}", "OVERRIDE_DATA_PATH true"]
    if read_only:
        return ", ".join(["READ_ONLY", *options])
    # Without the write-ahead log readers wait for writers, and a kill -9 leaves a catalog that only a writer can open.
    journal = ["META_JOURNAL_MODE 'WAL'", f"META_BUSY_TIMEOUT {_BUSY_TIMEOUT_MS}"]
    return ", ".join([*options, *journal, f"DATA_INLINING_ROW_LIMIT {_INLINE_ROWS}"])


def attach_statement(store: Store, *, read_only: bool = True, catalog: Path | None = None) -> str:
    """The line with which any DuckDB shell that has the extensions opens the store under the name `denylog`."""
    address = quoted(f"ducklake:sqlite:{catalog or store.catalog}")
    return f"ATTACH {address} AS {NAME} ({attach_options(store, read_only=read_only)})"


def open_writer(store: Store, limits: Limits) -> duckdb.DuckDBPyConnection:
    """The store attached for writing; the caller holds its lock."""
    shutil.rmtree(store.scratch, ignore_errors=True)
    connection = connect(limits, store.scratch, WRITER_EXTENSIONS)
    # The cache of file contents would fill up to the memory limit with files that were just merged away.
    connection.execute("SET enable_external_file_cache = false")
    with translated(store, writing=True):
        connection.execute(attach_statement(store, read_only=False))
        connection.execute(f"USE {NAME}")
    return connection


# The newest snapshot that moved rows to other files without changing them.
_MOVES = f"""
SELECT max(snapshot_id) FROM {METADATA}.ducklake_snapshot_changes
WHERE regexp_matches(changes_made, 'inline_flush|merge_adjacent|rewrite_delete')
"""


def moves(connection: duckdb.DuckDBPyConnection) -> object:
    """What changes where maintenance moves rows to other files.

    DuckLake looks up the newest snapshot first and the files of it after that: in the moment when rows are moved in
    between, a question finds them in neither place.
    """
    return connection.execute(_MOVES).fetchone()


@contextmanager
def reading(store: Store, limits: Limits) -> Iterator[duckdb.DuckDBPyConnection]:
    """The store attached read-only, and a private scratch folder, for as long as this lasts."""
    with tempfile.TemporaryDirectory(prefix="denylog-") as scratch:
        connection = connect(limits, Path(scratch))
        try:
            with translated(store):
                connection.execute(attach_statement(store, catalog=_readable(store, Path(scratch))))
                connection.execute(f"USE {NAME}")
            yield connection
        finally:
            connection.close()


def confine(connection: duckdb.DuckDBPyConnection, paths: Iterable[str]) -> None:
    """From now on nothing but `paths` (files, and folders with all that is in them) can be opened, for good."""
    absolute = [os.path.abspath(path) for path in paths]
    folders = [path for path in absolute if os.path.isdir(path)]
    files = [path for path in absolute if not os.path.isdir(path)]
    connection.execute("SET allowed_directories = $folders", {"folders": folders})
    connection.execute("SET allowed_paths = $files", {"files": files})
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _readable(store: Store, scratch: Path) -> Path:
    """The store's catalog, or a copy of it where SQLite could not open it.

    A catalog in WAL mode needs its shared-memory file, and a reader that may not write to the folder cannot create
    it (sqlite.org/wal.html, "Read-Only Databases"). No such file means that no process has the catalog open, so a
    copy of it is whole.
    """
    shared = store.catalog.with_name(store.catalog.name + "-shm")
    if shared.exists() or os.access(store.folder, os.W_OK):
        return store.catalog
    for name in (store.catalog.name, f"{store.catalog.name}-wal"):
        if (store.folder / name).exists():
            shutil.copyfile(store.folder / name, scratch / name)
    return scratch / store.catalog.name


class ArrowStream:
    """A frame that shows DuckDB nothing but the Arrow stream interface, so that it looks for no pandas or pyarrow."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self._frame = frame

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self._frame.__arrow_c_stream__(requested_schema)


def quoted(text: str) -> str:
    """`text` as an SQL string; for names of files, which ATTACH and LOAD do not take as parameters."""
    return "'" + text.replace("'", "''") + "'"


def first_line(error: BaseException) -> str:
    """DuckDB's message without its kind, its second line on, and the final stop."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return text.split(" Error: ", 1)[-1].rstrip(".")


# What DuckDB and SQLite say while somebody else holds the catalog.
_TRANSIENT = ("database is locked", "database table is locked", "conflict")
# The statement itself is wrong: trying it again cannot help. All else (space, mounts, modes, locks) can change.
_HOPELESS = (
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.ConversionException,
    duckdb.NotImplementedException,
    duckdb.OutOfRangeException,
    duckdb.ParserException,
    duckdb.TypeMismatchException,
)


def transient(error: BaseException) -> bool:
    """True where the same statement may succeed within moments."""
    return any(sign in str(error) for sign in _TRANSIENT)


# What DuckDB, DuckLake and SQLite say of a catalog that is damaged, or is none of DuckLake's.
_NO_CATALOG = ("file is not a database", "database disk image is malformed", "creating a new DuckLake is explicitly")


def as_store_error(store: Store, error: duckdb.Error, *, writing: bool = False) -> StoreError:
    """DuckDB's error in one sentence; retryable where the world has to change, not the statement.

    `writing`: say what stands in the way of a writer where something does, rather than where DuckDB noticed it.
    """
    if any(sign in str(error) for sign in _NO_CATALOG):
        return StoreError(store.catalog, "is damaged, or no catalog of a store", "restore it, or name another store")
    hopeless = isinstance(error, _HOPELESS)
    found = obstacle(store) if writing and not hopeless else None
    return found or StoreError(store.folder, first_line(error), retryable=not hopeless)


@contextmanager
def translated(store: Store, *, writing: bool = False) -> Iterator[None]:
    """Errors of DuckDB and of the store's folder come out as StoreError."""
    try:
        yield
    except duckdb.Error as error:
        raise as_store_error(store, error, writing=writing) from error
    except OSError as error:
        raise unusable(store.folder, error) from error
