"""What keeps a store small and quick: merge small files, trim positions, drop old days and files that nobody needs.

Rule: maintenance never takes away what a reader's transaction of some minutes may still want, and each part is a
transaction of its own, so it can be stopped at any moment.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import duckdb

# Rows that grow old, by the columns that tell their age. `time` is what the line says (null where it says nothing, and
# forged or wrong clocks may say anything), `stored_at` is what this machine knows: a row goes when either is too old.
_AGING = {
    "packets": ("time", "stored_at"),
    "rejects": ("time", "stored_at"),
    "losses": ("time", "stored_at"),
    "rejects_beyond": ("hour",),
}

_SUPERSEDED = """
DELETE FROM positions WHERE (file, sequence) NOT IN (SELECT (file, max(sequence)) FROM positions GROUP BY file)
"""


def maintain(connection: duckdb.DuckDBPyConnection, keep: timedelta | None) -> None:
    """One round; `keep` is how long rows stay (None: for ever), applied in whole UTC days."""
    if keep is not None:
        _retire(connection, datetime.now(UTC) - keep)
    connection.execute(_SUPERSEDED)
    connection.execute("CHECKPOINT denylog")


def _retire(connection: duckdb.DuckDBPyConnection, moment: datetime) -> None:
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    for table, columns in _AGING.items():
        for column in columns:
            connection.execute(f"DELETE FROM {table} WHERE {column} < $day", {"day": day})
