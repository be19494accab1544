"""A copy of a store for those who want one file: a native DuckDB database, Parquet, CSV or JSON lines.

Rule: the file appears whole under its name, or not at all; nothing is overwritten unless that was asked for.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import duckdb

from analytics import engine, schema
from analytics.attribution import mentioned
from analytics.daily import SUMS
from analytics.filters import Where
from analytics.store import Store, StoreError, private_files, require, resolve

_COPY = {
    "parquet": "FORMAT parquet, COMPRESSION zstd",
    "csv": "FORMAT csv, HEADER",
    "jsonl": "FORMAT json",
}
_TRIES = 5
FORMATS = ("duckdb", *_COPY)
_SUFFIXES = {
    ".duckdb": "duckdb",
    ".db": "duckdb",
    ".parquet": "parquet",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}


def format_of(target: str) -> str:
    """The format that the name of a file asks for; raises StoreError where it asks for none."""
    suffix = Path(target).suffix.lower()
    if suffix not in _SUFFIXES:
        raise StoreError(
            target, f"{suffix!r} names no format", f"end the name in one of {' '.join(_SUFFIXES)}, or name one"
        )
    return _SUFFIXES[suffix]


def export(store: str, target: str, form: str | None = None, where: Where | None = None, *, force: bool = False) -> int:
    """Write the packets that `where` holds for to the file `target` and return how many they are.

    The DuckDB format also holds the other tables (whole, but for sums of packets that are not all there), the views
    and the comments. Raises StoreError.
    """
    source, path, form = resolve(store), Path(target), form or format_of(target)
    require(source)
    _check(source, path, force)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        with private_files():
            count = _write(source, unfinished, form, where or Where())
        _publish(unfinished, path, force)
    except OSError as error:
        raise StoreError(
            path, error.strerror or str(error), "check the folder, its mode and the space in it"
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)
        unfinished.with_name(f"{unfinished.name}.wal").unlink(missing_ok=True)
    return count


def _check(source: Store, path: Path, force: bool) -> None:
    """Raise StoreError where `path` cannot be the target."""
    if not os.path.isdir(path.parent):
        raise StoreError(path.parent, "there is no such folder", "create it first")
    if os.path.isdir(path):
        raise StoreError(path, "is a folder", "name a file")
    if path.resolve().is_relative_to(source.folder.resolve()):
        raise StoreError(path, "is inside the store", "name a file elsewhere")
    if os.path.lexists(path) and not force:
        raise _exists(path)


def _exists(path: Path) -> StoreError:
    return StoreError(path, "exists already", "name another file, or overwrite it (--force)")


def _write(source: Store, unfinished: Path, form: str, where: Where) -> int:
    with engine.reading(source, engine.READ) as connection, engine.translated(source):
        schema.check_version(source.folder, schema.version(connection))
        # The collector goes on meanwhile.
        newest = connection.execute("SELECT max(stored_at) FROM packets").fetchone()
        upto = f"TIMESTAMPTZ '{newest[0].isoformat() if newest and newest[0] else 'infinity'}'"
        known = replace(where, sql=f"({where.sql}) AND stored_at <= {upto}")
        if form == "duckdb":
            return _database(connection, unfinished, known, f"upto <= {upto}" if where.sql == "true" else "false")
        return _file(connection, unfinished, known, _COPY[form])


def _packets(connection: duckdb.DuckDBPyConnection, where: Where, statement: str) -> int:
    """Run a statement that copies the packets, until it has all of them, and return how many they are."""
    count = f"SELECT count(source_file) FROM ({_chosen(where)})"
    for _ in range(_TRIES):
        before = engine.moves(connection)
        copied = _first(connection, statement, where)
        if engine.moves(connection) == before or copied == _first(connection, count, where):
            return copied
    raise StoreError(
        "the export", f"maintenance came between {_TRIES} times", "try again, or export less", retryable=True
    )


def _first(connection: duckdb.DuckDBPyConnection, statement: str, where: Where) -> int:
    row = connection.execute(statement, where.parameters).fetchone()
    return int(row[0]) if row else 0


def _chosen(where: Where) -> str:
    """The rows of `packets` that the condition holds for, which may ask who had an address."""
    columns = ", ".join(schema.identifier(column.name) for column in schema.TABLE["packets"].columns)
    return f"SELECT {columns} FROM {'attributed' if mentioned(where.sql) else 'packets'} WHERE {where.sql}"


def _file(connection: duckdb.DuckDBPyConnection, path: Path, where: Where, options: str) -> int:
    question = f"{_chosen(where)} ORDER BY time, uptime_s, source_file, source_offset"
    return _packets(connection, where, f"COPY ({question}) TO {engine.quoted(str(path))} ({options})")


def _database(connection: duckdb.DuckDBPyConnection, path: Path, where: Where, summed: str) -> int:
    connection.execute(f"ATTACH {engine.quoted(str(path))} AS copy")
    count = _packets(connection, where, f"CREATE OR REPLACE TABLE copy.packets AS {_chosen(where)}")
    for table in schema.TABLES[1:]:
        rows = f"FROM denylog.{table.name}" + f" WHERE {summed}" * (table.name == SUMS)
        _settled(connection, f"CREATE OR REPLACE TABLE copy.{table.name} AS {rows}")
    connection.execute("USE copy")
    for statement in schema.descriptions():
        connection.execute(statement)
    connection.execute("USE denylog")
    return count


def _settled(connection: duckdb.DuckDBPyConnection, statement: str) -> None:
    """Run a statement until maintenance did not come between."""
    before: object = None
    while engine.moves(connection) != before or before is None:
        before = engine.moves(connection)
        connection.execute(statement)


def _publish(unfinished: Path, path: Path, force: bool) -> None:
    with open(unfinished, "rb") as file:
        os.fsync(file.fileno())
    if force:
        os.replace(unfinished, path)
        return
    try:
        os.link(unfinished, path)
    except FileExistsError as error:
        raise _exists(path) from error
