"""Questions to a store: read-only, each in a short transaction of its own, so no question ever stops the collector.

Rule: a reader takes no lock and writes nothing, not even beside the store; SQL of a person passes the guard first.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from itertools import count
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import duckdb

from analytics import engine, guard, schema
from analytics.guard import QueryError
from analytics.holders import Holders
from analytics.position import Position
from analytics.positions import read_positions
from analytics.store import StoreError, require, resolve

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

T = TypeVar("T")

# A writer that recovers its log after a crash holds the catalog for a moment.
_RETRY_FOR_S = 10.0
_RETRY_EVERY_S = 0.1
_LONG_S = 10.0


@dataclass(frozen=True, slots=True)
class Rows:
    """An answer: names of the columns, their SQL types, and one tuple for each row."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: list[tuple[Any, ...]]

    def dicts(self) -> list[dict[str, Any]]:
        """One mapping for each row."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


class Reader:
    """An open store to ask; a context manager.

    `zone` is the time zone in which times without one are understood and days begin (IANA name). `files` are files
    and folders outside the store that SQL may read, an inventory for a join for instance; it may write to none.
    `frugal` is for a reader that lives on a node for months: little memory, one thread.
    """

    def __init__(self, store: str, *, zone: str = "UTC", files: Sequence[str] = (), frugal: bool = False) -> None:
        """Open the store; raises StoreError where there is none, or none that this program can read."""
        self.store = resolve(store)
        self.zone = zone
        require(self.store)
        self._kept: set[str] = set()
        self._stack = ExitStack()
        try:
            self._connection = self._open(files, engine.LIVE if frugal else engine.READ)
            self._holders = Holders(self._connection)
            self._beside = self._stack.enter_context(closing(self._connection.cursor()))
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the store."""
        self._stack.close()

    def rows(self, sql: str, parameters: Mapping[str, object] = {}) -> Rows:
        """The answer to one SELECT with named parameters (`$name`); raises QueryError, or StoreError."""
        cursor = self._run(sql, parameters)
        columns = _unlike(str(column[0]) for column in cursor.description or ())
        types = tuple(str(column[1]) for column in cursor.description or ())
        return Rows(columns, types, self._fetched(sql, cursor.fetchall))

    def pandas(self, sql: str, parameters: Mapping[str, object] = {}) -> pd.DataFrame:
        """The answer as a pandas frame; raises as `rows` does."""
        cursor = self._run(sql, parameters)
        with warnings.catch_warnings():
            # DuckDB 1.5 moves times to their zone with a keyword of pandas that pandas 3 deprecates.
            warnings.filterwarnings("ignore", message="The inplace keyword")
            return self._fetched(sql, cursor.df)

    def polars(self, sql: str, parameters: Mapping[str, object] = {}) -> pl.DataFrame:
        """The answer as a Polars frame, handed over through Arrow; raises as `rows` does."""
        import polars as pl  # noqa: PLC0415 - only who asks for a frame waits for Polars to load

        statement = self._checked(sql)
        return self._translate(sql, lambda: pl.DataFrame(self._connection.sql(statement, params=dict(parameters))))

    def positions(self) -> list[Position]:
        """The newest position of each file, in the order of their first appearance; raises StoreError."""
        return self._translate("positions", lambda: read_positions(self._connection))

    def restless(self, names: Collection[str], upto: datetime) -> list[date]:
        """Make what sums need to be attributed (see `Holders.restless`); raises StoreError."""
        return self._translate("sums", lambda: self._holders.restless(names, upto))

    def keep(self, name: str, sql: str, parameters: Mapping[str, object] = {}, *, more: bool = False) -> None:
        """Keep the answer to a SELECT of this program (never of a person: it passes no guard) as a temporary table, or
        add it to one (`more`), until `forget`. Such tables spill to a scratch folder. Raises as `rows` does."""
        self._kept.add(name)
        select = self._checked(sql) if any(view in sql for view in guard.ATTRIBUTED) else sql
        fresh = f"{name}_more" if more else name
        into = f"CREATE OR REPLACE TEMP TABLE {fresh} AS {select}"
        self._translate(sql, lambda: self._connection.execute(into, dict(parameters)))
        if more:
            self._connection.execute(f"INSERT INTO temp.main.{name} FROM {fresh}; DROP TABLE temp.main.{fresh}")

    def forget(self) -> None:
        """Drop all tables that were kept."""
        while self._kept:
            self._connection.execute(f"DROP TABLE IF EXISTS temp.main.{self._kept.pop()}")

    def interrupt(self) -> None:
        """End the question that another thread is asking, which raises QueryError there; nothing where none is."""
        self._connection.interrupt()

    def attach_statement(self) -> str:
        """The line that opens this store in any DuckDB shell with the ducklake and sqlite extensions."""
        return engine.attach_statement(self.store)

    def _open(self, files: Sequence[str], limits: engine.Limits) -> duckdb.DuckDBPyConnection:
        connection = self._stack.enter_context(engine.reading(self.store, limits))
        with engine.translated(self.store):
            schema.check_version(self.store.folder, schema.version(connection))
            connection.execute("SET TimeZone = $zone", {"zone": self.zone})
            engine.confine(connection, [str(self.store.folder), *files])
        return connection

    def _run(self, sql: str, parameters: Mapping[str, object]) -> duckdb.DuckDBPyConnection:
        statement = self._checked(sql)
        return self._translate(sql, lambda: self._connection.execute(statement, dict(parameters)))

    def _checked(self, sql: str) -> str:
        """The statement to run; `denied` is made ready for the columns that it names."""
        try:
            question = guard.check(self._connection, sql)
        except duckdb.Error as error:  # to serialise a statement, DuckDB looks for the catalog as well
            raise self._wrapped(sql, error) from error
        if question.tables & guard.ATTRIBUTED:
            columns = None if question.all else question.columns
            self._translate(sql, lambda: self._holders.prepare(columns))
        return question.text

    def _translate(self, sql: str, ask: Callable[[], T]) -> T:
        """The answer of `ask`, which asks the store; asked again where maintenance moved rows meanwhile.

        A question of many seconds is asked once: maintenance moves rows every half minute, and only what falls into
        the question's first milliseconds matters.
        """
        moves = partial(engine.moves, self._beside)
        while True:
            before, began = self._fetched(sql, moves), time.monotonic()
            answer = self._fetched(sql, ask)
            if self._fetched(sql, moves) == before or time.monotonic() - began > _LONG_S:
                return answer
            self._holders.forget()

    def _fetched(self, sql: str, ask: Callable[[], T]) -> T:
        """The answer of `ask`, asked again for a while where somebody holds the catalog."""
        deadline = time.monotonic() + _RETRY_FOR_S
        while True:
            try:
                return self._interruptible(ask)
            except duckdb.Error as error:
                if not engine.transient(error) or time.monotonic() >= deadline:
                    raise self._wrapped(sql, error) from error
            time.sleep(_RETRY_EVERY_S)

    def _interruptible(self, ask: Callable[[], T]) -> T:
        """The answer of `ask`, found by a thread: DuckDB itself heeds Ctrl-C only between tasks that may take hours."""
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(ask)
            try:
                # A wait with an end, since the signal may be given to another thread than this one.
                while not answer.done():
                    wait([answer], _RETRY_EVERY_S)
                return answer.result()
            except KeyboardInterrupt:
                while not answer.done():
                    self._connection.interrupt()
                    wait([answer], _RETRY_EVERY_S)
                raise

    def _wrapped(self, sql: str, error: duckdb.Error) -> QueryError | StoreError:
        if not self.store.catalog.exists():
            return StoreError(self.store.folder, "is gone", "was it moved or deleted?", retryable=True)
        if isinstance(error, duckdb.IOException | duckdb.OutOfMemoryException) or engine.transient(error):
            return engine.as_store_error(self.store, error)
        return QueryError(sql, engine.first_line(error))


def _unlike(names: Iterable[str]) -> tuple[str, ...]:
    """The names with `_1`, `_2` … after those that came before, as DuckDB's own frames have it: a JSON object would
    keep only the last of them."""
    seen: dict[str, None] = {}
    for name in names:
        numbered = (f"{name}_{number}" for number in count(1))
        seen[name if name not in seen else next(free for free in numbered if free not in seen)] = None
    return tuple(seen)
