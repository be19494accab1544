"""The one writer of a store: packets, rejects, losses and reading positions, all in one transaction or not at all.

Rule: when `commit` returns, its rows and positions are stored once; when it raises, none of them is, and the same
commit may be tried again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import duckdb
import polars as pl

from analytics import engine, envelope, intake, schema
from analytics.additions import ROWS, Additions, ForwardedRow
from analytics.capacity import Dropped, shrink
from analytics.daily import add_up
from analytics.maintenance import Clock, maintain
from analytics.position import Commit, Position
from analytics.positions import read_forwarded, read_positions
from analytics.rejects import RejectCap
from analytics.store import StoreError, WriterLock, prepare, private_files, resolve

_LOG = logging.getLogger(__name__)
# A reader's shell, a backup or a virus scanner may hold the catalog for a moment; a collector would rather wait than
# fail, and still has to notice a stop signal within seconds.
_RETRY_FOR_S = 15.0
_RETRY_EVERY_S = 0.2
# Positions, and how far was forwarded, are numbered in one row: a commit may hold only one of the two.
_LAST = """SELECT max(sequence), max(stored_at) FROM (
SELECT sequence, stored_at FROM positions UNION ALL SELECT sequence, stored_at FROM forwarded)"""
# Sums of so many packets can be made at once for each megabyte of memory.
_SUMMED_PER_MB = 8_000
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
        with private_files(), engine.translated(self._store, writing=True):
            return read_positions(self._live())

    def forwarded(self) -> dict[str, ForwardedRow]:
        """How far packets were forwarded to each target."""
        with private_files(), engine.translated(self._store, writing=True):
            return read_forwarded(self._live())

    def namespaces(self, interfaces: Collection[str]) -> dict[str, str]:
        """The namespaces of the pods that own these interfaces, as far as the inventory knows; raises StoreError.

        The name of an interface is made of its pod's (a hash), so it never changes hands. May be asked beside a commit.
        """
        with engine.translated(self._store, writing=True):
            cursor = self._live().cursor()
            found = cursor.execute(
                f"SELECT interface, any_value(namespace) FROM {engine.NAME}.objects "
                "WHERE interface IN (SELECT unnest($names)) AND namespace IS NOT NULL GROUP BY interface",
                {"names": list(interfaces)},
            )
            return dict(found.fetchall())

    def commit(self, commit: Commit) -> None:
        """Store everything in `commit`, or nothing; raises StoreError, `retryable` where trying again can help."""
        stamp = self._next_stamp()
        sequence = self._sequence + 1
        kept, beyond = self._cap.split(commit.rejects, stamp)
        frames = {
            "packets": _packets(commit.packets),
            "rejects": _table_frame("rejects", kept),
            "rejects_beyond": pl.DataFrame(beyond, schema=_own("rejects_beyond"), orient="row"),
            "losses": _table_frame("losses", commit.losses),
            "positions": _numbered(_table_frame("positions", commit.positions), sequence),
            "forwarded": _numbered(_table_frame("forwarded", commit.forwarded), sequence),
        }
        self._persist(frames, stamp, lambda: bool(commit.positions) and self._holds("positions", "sequence", sequence))
        self._sequence = sequence
        self._cap.keep(kept, stamp)

    def add(self, additions: Additions, name: str) -> int:
        """Store what is new in `additions`, all or nothing, and how many rows that is; `name` is the deposit's own.

        Raises StoreError, `retryable` where trying again (under the same name) can help.
        """
        with private_files(), engine.translated(self._store, writing=True):
            if self._holds("taken", "name", name):
                return 0
            objects = intake.fresh(self._live(), additions.objects, additions.listings)
            rows = {table: getattr(additions, table) for table in ROWS if table != "listings"}
            frames = {table: _table_frame(table, found) for table, found in {**rows, "objects": objects}.items()}
            frames["forwarded"] = _numbered(frames["forwarded"], self._sequence + 1)
        count = sum(frame.height for frame in frames.values())
        frames["taken"] = pl.DataFrame({"name": [name]})
        self._persist(frames, self._next_stamp(), lambda: self._holds("taken", "name", name))
        self._sequence += 1
        return count

    def take_in(self) -> int:
        """Store what waits in the inbox, each deposit once, and how many rows that is. Raises StoreError."""
        with engine.translated(self._store, writing=True):
            return sum(self._taken_in(path) for path in envelope.waiting(self._store))

    def _taken_in(self, path: Path) -> int:
        try:
            count = self.add(envelope.open_envelope(path), path.name)
        except envelope.DamagedError as error:
            _LOG.error("%s; it is kept as %s%s", error, path.name, envelope.DAMAGED)
            envelope.set_aside(path)
            return 0
        path.unlink(missing_ok=True)
        return count

    def shrink(self, limit: int) -> Dropped:
        """Drop the oldest whole UTC days of packets where the store holds more than `limit` bytes; never today's, and
        none within an hour of the clock's having gone ahead. Raises StoreError; days that went stay gone."""
        with private_files(), engine.translated(self._store, writing=True):
            return shrink(self._live(), self._store, limit) if self._clock.steady() else Dropped((), 0, 0)

    def maintain(self, keep: timedelta | None = None) -> None:
        """Merge small files, trim superseded positions, drop what nobody needs; with `keep`, also days older than it
        (not within an hour of the clock's having gone ahead, see `maintenance.Clock`).

        Raises StoreError; what was done so far stays done, and the next call goes on.
        """
        with private_files(), engine.translated(self._store, writing=True):
            maintain(self._live(), self._store, keep if self._clock.steady() else None)

    def add_up(self) -> None:
        """Make the sums of all packets that have none yet, where they are many.

        Questions are answered without them, so what keeps it from happening is only told.
        """
        try:
            with private_files(), engine.translated(self._store, writing=True):
                while add_up(self._live(), self._limits.memory_mb * _SUMMED_PER_MB):
                    pass
        except StoreError as error:
            _LOG.warning("no sums were made, and questions take longer: %s", error)

    def _open(self) -> None:
        connection = self._live()
        with engine.translated(self._store, writing=True):
            schema.migrate(connection, self._store.folder, row_group=self._limits.row_group)
            self._cap = RejectCap.load(connection)
            found = connection.execute(_LAST).fetchone()
        sequence, stamp = found or (None, None)
        self._sequence = sequence or 0
        self._stamp = (stamp or self._stamp).astimezone(UTC)
        self._clock = Clock(self._stamp if stamp else datetime.now(UTC))

    def _next_stamp(self) -> datetime:
        return max(datetime.now(UTC), self._stamp + timedelta(microseconds=1))

    def _persist(self, frames: Mapping[str, pl.DataFrame], stamp: datetime, landed: Callable[[], bool]) -> None:
        """Store the frames in one transaction, `stored_at` being `stamp`; `landed` tells whether they are stored."""
        stored_at = pl.lit(stamp).cast(pl.Datetime("us", "UTC")).alias("stored_at")
        rows = {name: frame.with_columns(stored_at) for name, frame in frames.items() if frame.height}
        if rows:
            self._insist(rows, landed)
        self._stamp = stamp

    def _insist(self, rows: dict[str, pl.DataFrame], landed: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _RETRY_FOR_S
        while True:
            try:
                with private_files():
                    self._transaction(rows)
                return
            except duckdb.Error as error:
                if self._did(landed):
                    return
                if not engine.transient(error) or time.monotonic() >= deadline:
                    raise engine.as_store_error(self._store, error, writing=True) from error
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

    def _holds(self, table: str, column: str, value: object) -> bool:
        found = self._live().execute(f"SELECT count(*) FROM {table} WHERE {column} = ?", [value]).fetchone()
        return found is not None and found[0] > 0

    def _did(self, landed: Callable[[], bool]) -> bool:
        """True where the transaction that reported an error is in the store all the same."""
        try:
            return landed()
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


def _numbered(frame: pl.DataFrame, sequence: int) -> pl.DataFrame:
    return frame.with_columns(sequence=pl.lit(sequence, pl.Int64))


def _table_frame(table: str, rows: Iterable[object]) -> pl.DataFrame:
    rows = list(rows)
    columns = {name: [_storable(getattr(row, name), name) for row in rows] for name in _own(table)}
    return pl.DataFrame(columns, schema=_own(table))


def _storable(value: object, column: str) -> object:
    """Text in whole characters, a line of bounded length; everything else as it is."""
    if isinstance(value, tuple):
        return [_storable(entry, column) for entry in value]
    if not isinstance(value, str):
        return value
    text = value[:LINE_LIMIT] if column == "line" else value
    return text.encode("utf-8", "replace").decode("utf-8", "replace")
