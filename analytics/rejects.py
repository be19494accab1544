"""How many rejected lines are kept: so many for each reason and hour, the rest are counted.

Rule: anybody who can write to the log can forge lines, so the hour is that of the store's clock, not that of the line.
The count of kept lines is read from the store, so a restart does not open the cap again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Self

import duckdb

from analytics.position import RejectRow

# Enough to see what is wrong and who does it; at 4 KiB a line a flood with nine reasons stays under 40 MB an hour
# before compression.
KEPT_PER_HOUR = 1000


class RejectCap:
    """What was kept in the current hour, by reason."""

    def __init__(self, hour: datetime, kept: Counter[str]) -> None:
        self._hour = hour
        self._kept = kept

    @classmethod
    def load(cls, connection: duckdb.DuckDBPyConnection) -> Self:
        """The state as the store has it now."""
        hour = _hour(datetime.now(UTC))
        rows = connection.execute(
            "SELECT reason, count(*) FROM rejects WHERE stored_at >= $hour GROUP BY reason", {"hour": hour}
        ).fetchall()
        return cls(hour, Counter(dict(rows)))

    def split(
        self, rows: Iterable[RejectRow], now: datetime
    ) -> tuple[list[RejectRow], list[tuple[datetime, str, int]]]:
        """The rows to keep, and (hour, reason, count) of the rest; nothing is counted as kept yet."""
        hour = _hour(now)
        room = Counter(self._kept) if hour == self._hour else Counter[str]()
        kept: list[RejectRow] = []
        beyond: Counter[str] = Counter()
        for row in rows:
            if room[row.reason] < KEPT_PER_HOUR:
                room[row.reason] += 1
                kept.append(row)
            else:
                beyond[row.reason] += 1
        return kept, [(hour, reason, count) for reason, count in sorted(beyond.items())]

    def keep(self, rows: Iterable[RejectRow], now: datetime) -> None:
        """Count `rows` as kept, after they were committed."""
        hour = _hour(now)
        if hour != self._hour:
            self._hour, self._kept = hour, Counter()
        self._kept.update(row.reason for row in rows)


def _hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)
