"""The positions that a store holds, of what was read and of what was forwarded: the newest row of each.

Rule: the newest row is that of the highest commit number, not of the latest time: clocks go back.
"""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import duckdb

from analytics import schema
from analytics.additions import ForwardedRow
from analytics.position import Position

_POSITION_FIELDS = tuple(field.name for field in fields(Position))
_FORWARDED_FIELDS = tuple(field.name for field in fields(ForwardedRow))


def read_positions(connection: duckdb.DuckDBPyConnection) -> list[Position]:
    """The newest position of each file, in the order of their first appearance."""
    columns = ", ".join(schema.identifier(name) for name in _POSITION_FIELDS)
    rows = connection.execute(
        f"""SELECT {columns}, min(sequence) OVER (PARTITION BY file) AS first FROM positions
        QUALIFY row_number() OVER (PARTITION BY file ORDER BY sequence DESC) = 1 ORDER BY first, file"""
    ).fetchall()
    return [Position(**dict(zip(_POSITION_FIELDS, map(_in_utc, row[:-1]), strict=True))) for row in rows]


def read_forwarded(connection: duckdb.DuckDBPyConnection) -> dict[str, ForwardedRow]:
    """The newest row of each target that packets were forwarded to."""
    rows = connection.execute(
        f"SELECT {', '.join(_FORWARDED_FIELDS)} FROM forwarded "
        "QUALIFY row_number() OVER (PARTITION BY target ORDER BY sequence DESC) = 1 ORDER BY target"
    ).fetchall()
    found = (ForwardedRow(**dict(zip(_FORWARDED_FIELDS, map(_in_utc, row), strict=True))) for row in rows)
    return {row.target: row for row in found}


def _in_utc(value: Any) -> Any:
    return value.astimezone(UTC) if isinstance(value, datetime) else value
