"""The one writer of a store: packets, rejects, losses and reading positions, all in one transaction or not at all.

Rule: when `commit` returns, its rows and positions are stored once; when it raises, none of them is, and the same
commit may be tried again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self

import duckdb
import polars as pl

from analytics import engine, schema
from analytics.maintenance import maintain
from analytics.position import Commit, Position
from analytics.positions import read_positions
from analytics.rejects import RejectCap
from analytics.store import WriterLock, prepare, private_files, resolve

# A reader's shell, a backup or a virus scanner may hold the catalog for a moment; a collector would rather wait than
# fail, and still has to notice a stop signal within seconds.
_RETRY_FOR_S = 15.0
_RETRY_EVERY_S = 0.2
# A log line of the kernel has at most about 1 KiB; forged ones are not worth more of the disk than this.
LINE_LIMIT = 4096


class Writer:
    """The open store, held exclusively; a context manager. `bulk` allows more memory and a second thread."""

    def __init__(self, store: str, *, wait_s: float = 0, bulk: bool = False) -> None:
        """Create or open the store; raises StoreError (locked by whom, not a store, unwritable, newer schema, …)."""
        self._store = resolve(store)
        self._limits = engine.BULK if bulk else engine.FOLLOW
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._sequence = 0
        self._stamp = datetime.fromtimestamp(0, UTC)
        with private_files():
            prepare(self._store)
            self._lock = WriterLock(self._store, wait_s)
            try:
                self._open()
            except BaseException:
                self._lock.release()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Detach the store and let the next writer in."""
        with private_files():
            if self._connection is not None:
                self._connection.close()
        self._lock.release()

    def positions(self) -> list[Position]:
        """The newest position of each file, in the order of their first appearance."""
        with private_files(), engine.translated(self._store):
            return read_positions(self._live())

    def commit(self, commit: Commit) -> None:
        """Store everything in `commit`, or nothing; raises StoreError, `retryable` where trying again can help."""
        stamp = max(datetime.now(UTC), self._stamp + timedelta(microseconds=1))
        sequence = self._sequence + 1
        kept, beyond = self._cap.split(commit.rejects, stamp)
        frames = {
            "packets": _packets(commit.packets),
            "rejects": _table_frame("rejects", kept),
            "rejects_beyond": pl.DataFrame(beyond, schema=_own("rejects_beyond"), orient="row"),
            "losses": _table_frame("losses", commit.losses),
            "positions": _table_frame("positions", commit.positions).with_columns(sequence=pl.lit(sequence, pl.Int64)),
        }
        stored_at = pl.lit(stamp).cast(pl.Datetime("us", "UTC")).alias("stored_at")
        rows = {name: frame.with_columns(stored_at) for name, frame in frames.items() if frame.height}
        if rows:
            self._persist(rows, sequence if commit.positions else None)
        self._stamp, self._sequence = stamp, sequence
        self._cap.keep(kept, stamp)

    def maintain(self, keep: timedelta | None = None) -> None:
        """Merge small files, trim superseded positions, drop what nobody needs; with `keep`, also days older than it.

        Raises StoreError; what was done so far stays done, and the next call goes on.
        """
        with private_files(), engine.translated(self._store):
            maintain(self._live(), self._store, keep)

    def _open(self) -> None:
        connection = self._live()
        with engine.translated(self._store):
            schema.migrate(connection, self._store.folder)
            self._cap = RejectCap.load(connection)
            found = connection.execute("SELECT max(sequence), max(stored_at) FROM positions").fetchone()
        sequence, stamp = found or (None, None)
        self._sequence = sequence or 0
        self._stamp = (stamp or self._stamp).astimezone(UTC)

    def _persist(self, rows: dict[str, pl.DataFrame], sequence: int | None) -> None:
        deadline = time.monotonic() + _RETRY_FOR_S
        while True:
            try:
                with private_files():
                    self._transaction(rows)
                return
            except duckdb.Error as error:
                if self._landed(sequence):
                    return
                if not engine.transient(error) or time.monotonic() >= deadline:
                    raise engine.as_store_error(self._store, error) from error
            time.sleep(_RETRY_EVERY_S)

    def _transaction(self, rows: dict[str, pl.DataFrame]) -> None:
        try:
            self._live().execute("BEGIN")
            for table, frame in rows.items():
                self._insert(table, frame)
            self._live().execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise

    def _insert(self, table: str, frame: pl.DataFrame) -> None:
        self._live().register("incoming", engine.ArrowStream(frame))
        try:
            self._live().execute(f"INSERT INTO {table} BY NAME SELECT * FROM incoming")
        finally:
            self._live().unregister("incoming")

    def _roll_back(self) -> None:
        """End the failed transaction; where DuckDB has given itself up, let the next statement open it anew."""
        try:
            self._live().execute("ROLLBACK")
        except duckdb.TransactionException:
            return  # a failed COMMIT has already rolled back
        except duckdb.Error:
            self._live().close()
            self._connection = None

    def _live(self) -> duckdb.DuckDBPyConnection:
        if self._connection is None:
            self._connection = engine.open_writer(self._store, self._limits)
        return self._connection

    def _landed(self, sequence: int | None) -> bool:
        """True where the commit that reported an error is in the store all the same."""
        if sequence is None:
            return False
        try:
            found = self._live().execute("SELECT max(sequence) FROM positions WHERE sequence >= ?", [sequence])
            return found.fetchone() == (sequence,)
        except duckdb.Error:
            return False


def _packets(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    filled = [frame for frame in frames if frame.height]
    if not filled:
        return pl.DataFrame()
    whole = pl.concat(filled, rechunk=False)
    # Partitioning by year(time), month(time), day(time) would ask a calendar for each row: a third of a commit's time.
    return whole.with_columns(day=pl.col("time").dt.date())


def _own(table: str) -> dict[str, pl.DataType | type[pl.DataType]]:
    """The columns of a table that a commit brings; the writer adds when and in which order."""
    found = schema.TABLE[table].frame_schema()
    return {name: kind for name, kind in found.items() if name not in ("stored_at", "sequence")}


def _table_frame(table: str, rows: Iterable[object]) -> pl.DataFrame:
    rows = list(rows)
    columns = {name: [_storable(getattr(row, name)) for row in rows] for name in _own(table)}
    return pl.DataFrame(columns, schema=_own(table))


def _storable(value: object) -> object:
    """Text in whole characters and of bounded length; everything else as it is."""
    if not isinstance(value, str):
        return value
    return value[:LINE_LIMIT].encode("utf-8", "replace").decode("utf-8", "replace")
