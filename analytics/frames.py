"""The Polars type of each SQL type in the store's tables: what a frame has to look like to be stored.

Rule: its own module, so that only who writes loads Polars.
"""

from __future__ import annotations

import polars as pl

POLARS: dict[str, pl.DataType | type[pl.DataType]] = {
    "BIGINT": pl.Int64(),
    "BOOLEAN": pl.Boolean(),
    "DATE": pl.Date(),
    "DOUBLE": pl.Float64(),
    "INTEGER": pl.Int32(),
    "JSON": pl.String(),
    "SMALLINT": pl.Int16(),
    "TIMESTAMPTZ": pl.Datetime("us", "UTC"),
    "UBIGINT": pl.UInt64(),
    "VARCHAR": pl.String(),
    "VARCHAR[]": pl.List(pl.String()),
}
