"""What is still to be sent, read from the store in the order in which it came in: the store is the queue.

Rule: a page ends where the next one begins, and says how many packets lie between, sent or filtered out; so packets
that retention removed unsent show as the difference to what the reading positions say was ever stored.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from analytics import Reader
from analytics.filters import Where
from analytics.queries import Cursor

# Commits that are looked up at once: enough for some hundred thousand packets, few enough to keep in memory.
_COMMITS = 2000

_PLACE = "stored_at, source_file, source_offset"
_AFTER = f"stored_at >= $at AND ({_PLACE}) > ($at, $file, $offset)"
_WINDOW = "stored_at <= $upto"
# The view leaves out the replies that Calico logs after a denial; they are packets, too.
_NAMED = "(FROM denied UNION ALL BY NAME SELECT * FROM packets WHERE follow_up IS NOT NULL)"

_LOOK = f"""
WITH rest AS (SELECT stored_at, coalesce({{where}}, false) AS wanted FROM packets WHERE {{after}}),
commits AS (SELECT stored_at, count(*) AS stored, count(*) FILTER (wanted) AS wanted FROM rest GROUP BY stored_at),
total AS (SELECT coalesce(sum(stored), 0)::BIGINT AS stored, coalesce(sum(wanted), 0)::BIGINT AS wanted FROM commits),
ever AS (SELECT coalesce(sum(packets), 0)::BIGINT AS stored FROM (
    SELECT packets FROM positions QUALIFY row_number() OVER (PARTITION BY file ORDER BY sequence DESC) = 1))
SELECT ever.stored, total.stored, total.wanted, commits.stored_at, commits.stored, commits.wanted
FROM ever CROSS JOIN total LEFT JOIN commits ON true ORDER BY commits.stored_at LIMIT {_COMMITS}
"""
_PAGE = f"SELECT * FROM {{table}} WHERE {{where}} AND {{after}} AND {_WINDOW} ORDER BY {_PLACE} LIMIT $wanted"
_EXTENT = f"SELECT {_PLACE}, count(*) OVER () FROM packets WHERE {{after}} AND {{upto}} ORDER BY {{order}} LIMIT 1"
_INVENTORY = "SELECT EXISTS (FROM objects) OR EXISTS (FROM verdicts)"


@dataclass(frozen=True, slots=True)
class Look:
    """How much waits: packets that are `wanted`, and `passed`: packets ever stored up to the cursor, gone ones too."""

    wanted: int
    passed: int


@dataclass(frozen=True, slots=True)
class Page:
    """Packets to send, the place at which the page ends, and the packets up to there; None where that is not known."""

    records: tuple[Mapping[str, Any], ...]
    end: Cursor
    passed: int | None

    def up_to(self, count: int) -> Page:
        """The first `count` packets of the page, at least one."""
        kept = self.records[:count]
        return Page(kept, _place(kept[-1]), count if self.passed == len(self.records) else None)


@dataclass(frozen=True, slots=True)
class _Batch:
    """What one commit holds after the cursor."""

    at: Any
    stored: int
    wanted: int


class Backlog:
    """The packets after a cursor, of those the ones that `where` holds for; raises StoreError and QueryError."""

    def __init__(self, reader: Reader, where: Where) -> None:
        self.cursor: Cursor | None = None
        self._reader = reader
        self._where = where
        self._batches: deque[_Batch] = deque()
        self._table = "packets"
        self._seen: tuple[tuple[int, int], ...] = ()

    def rewind(self, cursor: Cursor | None) -> None:
        """Go on after this place; what waits there is looked up anew."""
        self.cursor = cursor
        self._batches.clear()

    def changed(self) -> bool:
        """Has anything been committed since this was asked last? SQLite's files tell without asking the store."""
        catalog = self._reader.store.catalog
        seen = tuple(_stamp(f"{catalog}{ending}") for ending in ("", "-wal"))
        before, self._seen = self._seen, seen
        return seen != before

    def look(self) -> Look:
        """Look up what came after the cursor."""
        self._table = _NAMED if self._reader.rows(_INVENTORY).rows[0][0] else "packets"
        after, place = self._after()
        sql = _LOOK.format(where=self._where.sql, after=after)
        rows = self._reader.rows(sql, {**self._where.parameters, **place}).rows
        self._batches = deque(_Batch(*row[3:]) for row in rows if row[3] is not None)
        ever, stored, wanted = rows[0][:3]
        return Look(wanted, ever - stored)

    def page(self, limit: int) -> Page | None:
        """At most `limit` packets after the cursor, which moves behind them; None where nothing is known to come."""
        chosen: list[_Batch] = []
        while self._batches and sum(batch.wanted for batch in chosen) < limit:
            chosen.append(self._batches.popleft())
        if not chosen:
            return None
        after, place = self._after()
        sql = _PAGE.format(where=f"({self._where.sql})", table=self._table, after=after)
        found = self._reader.rows(sql, {**self._where.parameters, **place, "upto": chosen[-1].at, "wanted": limit + 1})
        records = tuple(_record(row) for row in found.dicts()[:limit])
        cut = len(found.rows) > limit
        end, passed = self._extent(records, chosen[-1].at, cut=cut)
        if cut:
            last, over = chosen[-1], sum(batch.wanted for batch in chosen) - limit
            self._batches.appendleft(_Batch(last.at, sum(batch.stored for batch in chosen) - passed, over))
        self.cursor = end
        return Page(records, end, passed)

    def _extent(self, records: tuple[Mapping[str, Any], ...], upto: Any, *, cut: bool) -> tuple[Cursor, int]:
        """Where a page ends, and how many packets lie before that end: those that were filtered out count, too."""
        if records and self._where.sql == "true":
            return _place(records[-1]), len(records)
        after, place = self._after()
        bounds: dict[str, object] = {"upto": upto}
        until = _WINDOW
        if cut:
            last = _place(records[-1])
            until = f"({_PLACE}) <= ($upto, $last_file, $last_offset)"
            bounds = {"upto": last.stored_at, "last_file": last.source_file, "last_offset": last.source_offset}
        order = ", ".join(f"{column} DESC" for column in _PLACE.split(", "))
        rows = self._reader.rows(_EXTENT.format(after=after, upto=until, order=order), {**place, **bounds}).rows
        if rows:
            return Cursor(*rows[0][:3]), rows[0][3]
        # Retention was faster: whatever lay there is gone, and the next look counts it.
        return self.cursor or Cursor(upto, "", 0), 0

    def _after(self) -> tuple[str, dict[str, object]]:
        if self.cursor is None:
            return "true", {}
        place = {"at": self.cursor.stored_at, "file": self.cursor.source_file, "offset": self.cursor.source_offset}
        return _AFTER, place


def _place(record: Mapping[str, Any]) -> Cursor:
    return Cursor(record["stored_at"], record["source_file"], record["source_offset"])


def _record(row: dict[str, Any]) -> Mapping[str, Any]:
    """A row with the quoted packet as what it is."""
    inner = row.get("inner")
    if isinstance(inner, str):
        row["inner"] = json.loads(inner)
    return row


def _stamp(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size
