"""A limit of a store's size: the oldest whole UTC days of packets go where it takes more.

Rule: today's packets stay, whatever the size, and so do positions, so nothing that was dropped is read again. What
counts is what the store holds; files that were replaced or dropped stay on the disk for half an hour (see
`maintenance`), and dropping more days would not make them go sooner.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime

import duckdb

from analytics.engine import METADATA
from analytics.schema import transaction
from analytics.store import Store

_DATED = ("packets", "flow_days")
"""The tables whose files are kept apart by day."""
_HELD = (
    f"SELECT coalesce(sum(file_size_bytes), 0)::BIGINT FROM {METADATA}.ducklake_data_file WHERE end_snapshot IS NULL"
)
_DAYS = f"""
SELECT placed.partition_value::DATE AS day, sum(file.file_size_bytes)::BIGINT
FROM {METADATA}.ducklake_data_file AS file
JOIN {METADATA}.ducklake_file_partition_value AS placed USING (data_file_id)
JOIN {METADATA}.ducklake_table AS kind ON kind.table_id = file.table_id AND kind.end_snapshot IS NULL
WHERE file.end_snapshot IS NULL AND placed.partition_value::DATE < $today
    AND kind.table_name IN (SELECT unnest($tables))
GROUP BY day ORDER BY day
"""


@dataclass(frozen=True, slots=True)
class Dropped:
    """The days that went, how many packets they held, and the bytes that the store holds since."""

    days: tuple[date, ...]
    packets: int
    held: int


def shrink(connection: duckdb.DuckDBPyConnection, store: Store, limit: int) -> Dropped:
    """Drop days until the store holds no more than `limit` bytes, or nothing but today is left; each day at once."""
    held = _one(connection, _HELD) + sum(file.stat().st_size for file in store.folder.glob(f"{store.catalog.name}*"))
    days, packets = list[date](), 0
    if held <= limit:
        return Dropped((), 0, held)
    for day, size in _days(connection):
        if held <= limit:
            break
        packets += _drop(connection, day)
        days.append(day)
        held -= size
    return Dropped(tuple(days), packets, held)


def _days(connection: duckdb.DuckDBPyConnection) -> Iterable[tuple[date, int]]:
    return connection.execute(_DAYS, {"today": datetime.now(UTC).date(), "tables": list(_DATED)}).fetchall()


def _drop(connection: duckdb.DuckDBPyConnection, day: date) -> int:
    with transaction(connection):
        packets = _one(connection, "SELECT count(*) FROM packets WHERE day = $day", {"day": day})
        for table in _DATED:
            connection.execute(f"DELETE FROM {table} WHERE day = $day", {"day": day})
    return packets


def _one(connection: duckdb.DuckDBPyConnection, sql: str, parameters: dict[str, object] | None = None) -> int:
    found = connection.execute(sql, parameters or {}).fetchone()
    return int(found[0]) if found else 0
