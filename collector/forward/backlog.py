"""What is still to be sent, read from the store in the order in which it came in: the store is the queue.

Rule: a page ends where the next one begins, and says how many packets lie between, sent or filtered out; so packets
that retention removed unsent show as the difference to what the reading positions say was ever stored.
"""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from analytics import Reader, StoreError
from analytics.attribution import mentioned
from analytics.filters import Where
from analytics.queries import Answer, Cursor, with_holders
from analytics.schema import TABLE

_LOG = logging.getLogger(__name__)
# Commits that are looked up at once: enough for some hundred thousand packets, few enough to keep in memory.
_COMMITS = 2000
# Places that are looked up at once: sorting a large commit by three columns is cheap, but not for each page.
_PLACES = 8000

_PLACE = "stored_at, source_file, source_offset"
# Written out: DuckDB makes one BETWEEN of two comparisons of the same row of values, and then refuses it.
_AFTER = """stored_at >= $at
AND (stored_at > $at OR source_file > $file OR (source_file = $file AND source_offset > $offset))"""
_UPTO = """stored_at <= $upto
AND (stored_at < $upto OR source_file < $last_file OR (source_file = $last_file AND source_offset <= $last_offset))"""

_LOOK = f"""
WITH rest AS (SELECT stored_at, coalesce({{where}}, false) AS wanted FROM {{table}} WHERE {{after}}),
commits AS (SELECT stored_at, count(*) AS stored, count(*) FILTER (wanted) AS wanted FROM rest GROUP BY stored_at),
total AS (SELECT coalesce(sum(stored), 0)::BIGINT AS stored, coalesce(sum(wanted), 0)::BIGINT AS wanted FROM commits),
ever AS (SELECT coalesce(sum(packets), 0)::BIGINT AS stored FROM (
    SELECT packets FROM positions QUALIFY row_number() OVER (PARTITION BY file ORDER BY sequence DESC) = 1))
SELECT ever.stored, total.stored, total.wanted, commits.stored_at, commits.wanted
FROM ever CROSS JOIN total LEFT JOIN commits ON true ORDER BY commits.stored_at LIMIT {_COMMITS}
"""
_PLAN = f"""SELECT {_PLACE} FROM {{table}} WHERE ({{where}}) AND {{after}} AND stored_at <= $upto
ORDER BY {_PLACE} LIMIT {_PLACES}"""
# The ranges say nothing new, but let the row groups of other pages be skipped by their statistics.
_PAGE = f"""SELECT {{columns}} FROM {{table}} WHERE ({{where}}) AND {{after}} AND {_UPTO} AND stored_at >= $first_at
AND source_file BETWEEN $low_file AND $high_file AND source_offset BETWEEN $low_offset AND $high_offset
ORDER BY {_PLACE}"""
_BETWEEN = f"SELECT count(*) FROM packets WHERE {{after}} AND {_UPTO}"
_LAST = f"SELECT {_PLACE} FROM packets WHERE {{after}} AND stored_at <= $upto ORDER BY {{order}} LIMIT 1"
_DESCENDING = ", ".join(f"{column} DESC" for column in _PLACE.split(", "))
_COLUMNS = ", ".join(f'"{column.name}"' for column in TABLE["packets"].columns)
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


def chosen(where: Where, since: datetime, mark: Cursor | None) -> Where:
    """What a replay sends: what `where` holds for, from `since` on, and all of it that comes after the mark: an outage
    longer than the replay must lose nothing."""
    names: dict[str, object] = {"since": since}
    unsent = "false"
    if mark is not None:
        names |= {"mark_at": mark.stored_at, "mark_file": mark.source_file, "mark_offset": mark.source_offset}
        unsent = _AFTER.replace("$", "$mark_")
    return Where(f"({where.sql}) AND (coalesce(time >= $since, false) OR ({unsent}))", {**where.parameters, **names})


class Backlog:
    """The packets after a cursor, of those the ones that `where` holds for; raises StoreError and QueryError."""

    def __init__(self, reader: Reader, where: Where) -> None:
        self.cursor: Cursor | None = None
        self._reader = reader
        self._where = where
        self._commits: deque[tuple[datetime, int]] = deque()
        self._plan: deque[Cursor] = deque()
        self._named = self._told = False
        self._table = "attributed" if mentioned(where.sql) else "packets"
        self._seen: tuple[tuple[int, int], ...] = ()

    def rewind(self, cursor: Cursor | None) -> None:
        """Go on after this place; what waits there is looked up anew."""
        self.cursor = cursor
        self._commits.clear()
        self._plan.clear()

    def changed(self) -> bool:
        """Has anything been committed since this was asked last? SQLite's files tell without asking the store."""
        catalog = self._reader.store.catalog
        seen = tuple(_stamp(f"{catalog}{ending}") for ending in ("", "-wal"))
        before, self._seen = self._seen, seen
        return seen != before

    def look(self) -> Look:
        """Look up what came after the cursor."""
        self._named = self._reader.rows(_INVENTORY).rows[0][0]
        rows = self._ask(_LOOK)
        self._plan.clear()
        self._commits = deque((row[3], row[4]) for row in rows if row[3] is not None)
        ever, stored, wanted = rows[0][:3]
        return Look(wanted, ever - stored)

    def page(self, limit: int) -> Page | None:
        """At most `limit` packets after the cursor, which moves behind them; None where nothing is known to come."""
        if not self._plan and (upto := self._make_plan()) is not None and not self._plan:
            return self._pass_over(upto)
        if not self._plan:
            return None
        places = [self._plan.popleft() for _ in range(min(limit, len(self._plan)))]
        answer = Answer(self._reader.rows(*self._filled(_PAGE, {**_bounds(places), **_range(places)})), cut=False)
        named = self._with_names(answer) if self._named else answer
        records = tuple(_record(row) for row in named.rows.dicts())
        return self._moved(records, places[-1])

    def _with_names(self, answer: Answer) -> Answer:
        """The packets with pods and policies; without them where that takes more memory than a node can spare."""
        try:
            return with_holders(self._reader, answer)
        except StoreError as error:
            if not self._told:
                _LOG.warning("%s; packets are forwarded without the names of pods and policies", error)
            self._told = True
            return answer

    def _make_plan(self) -> datetime | None:
        """Look up the next places, up to the end of a commit; that commit, None where no more are known."""
        upto, expected = None, 0
        while self._commits and expected < _PLACES:
            upto, wanted = self._commits.popleft()
            expected += wanted
        if upto is not None and expected:
            self._plan.extend(Cursor(*row) for row in self._ask(_PLAN, {"upto": upto}))
            if len(self._plan) < expected:
                self._commits.appendleft((upto, expected - len(self._plan)))
        return upto

    def _pass_over(self, upto: datetime) -> Page | None:
        """A page without packets: none of those that were stored up to then is wanted."""
        rows = self._ask(_LAST, {"upto": upto}, order=_DESCENDING)
        return self._moved((), Cursor(*rows[0])) if rows else None

    def _moved(self, records: tuple[Mapping[str, Any], ...], end: Cursor) -> Page:
        passed = len(records)
        if self._where.sql != "true":
            passed = self._ask(_BETWEEN, _bounds([end]))[0][0]
        self.cursor = end
        return Page(records, end, passed)

    def _ask(self, sql: str, parameters: Mapping[str, object] = {}, **parts: str) -> list[tuple[Any, ...]]:
        return self._reader.rows(*self._filled(sql, parameters, **parts)).rows

    def _filled(self, sql: str, parameters: Mapping[str, object], **parts: str) -> tuple[str, dict[str, object]]:
        """The statement with the filter and the cursor in it, and the values of the names that it uses."""
        after, place = "true", dict[str, object]()
        if self.cursor is not None:
            after = _AFTER
            place = {"at": self.cursor.stored_at, "file": self.cursor.source_file, "offset": self.cursor.source_offset}
        values = {**place, **parameters}
        if "{where}" in sql:
            values |= self._where.parameters
        return sql.format(where=self._where.sql, table=self._table, columns=_COLUMNS, after=after, **parts), values


def _bounds(places: Sequence[Cursor]) -> dict[str, object]:
    last = places[-1]
    return {"upto": last.stored_at, "last_file": last.source_file, "last_offset": last.source_offset}


def _range(places: Sequence[Cursor]) -> dict[str, object]:
    files, offsets = [place.source_file for place in places], [place.source_offset for place in places]
    return {
        "first_at": places[0].stored_at,
        "low_file": min(files),
        "high_file": max(files),
        "low_offset": min(offsets),
        "high_offset": max(offsets),
    }


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
