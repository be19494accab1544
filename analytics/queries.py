"""The questions that denylog asks by itself: who is denied most, when, which packets, and how the store is doing.

Rule: counts are sums of `packet_count` (a line may stand for several packets), answers are ordered by their full key,
and an answer that was cut says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import gcd

from analytics.attribution import COLUMNS, JUDGED, mentioned
from analytics.daily import counted
from analytics.filters import Where, duration
from analytics.reader import Reader, Rows
from analytics.schema import TABLE


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows, and whether there are more of them than were asked for."""

    rows: Rows
    cut: bool


@dataclass(frozen=True, slots=True)
class Grouping:
    """What packets are counted by: the columns of the key, and what is counted beside the packets."""

    keys: tuple[str, ...]
    counts: tuple[tuple[str, str], ...]


_SOURCES = ("sources", "count(DISTINCT source_ip)")
_DESTINATIONS = ("destinations", "count(DISTINCT destination_ip)")
_PORTS = ("ports", "count(DISTINCT (protocol, destination_port)) FILTER (destination_port IS NOT NULL)")
_NODES = ("nodes", "count(DISTINCT node)")

GROUPINGS = {
    "source": Grouping(("source_ip",), (_DESTINATIONS, _PORTS, _NODES)),
    "destination": Grouping(("destination_ip",), (_SOURCES, _PORTS, _NODES)),
    "port": Grouping(("protocol", "destination_port"), (_SOURCES, _DESTINATIONS, _NODES)),
    "pair": Grouping(("source_ip", "destination_ip", "protocol", "destination_port"), (_NODES,)),
    "interface": Grouping(("node", "in_interface", "out_interface"), (_SOURCES, _DESTINATIONS, _PORTS)),
    "node": Grouping(("node",), (_SOURCES, _DESTINATIONS, _PORTS)),
    # The prefix tells what there is to know of packets that nobody has attributed.
    "policy": Grouping(("denied_by", "decided_by", "prefix"), (_SOURCES, _DESTINATIONS, _PORTS)),
    "log-policy": Grouping(
        ("policy_tier", "policy_kind", "policy_namespace", "policy_name", "prefix"), (_SOURCES, _DESTINATIONS, _PORTS)
    ),
    "namespace": Grouping(("namespace",), (_SOURCES, _DESTINATIONS, _PORTS)),
    "pod": Grouping(("namespace", "pod"), (_SOURCES, _DESTINATIONS, _PORTS)),
    "workload": Grouping(("namespace", "workload"), (_SOURCES, _DESTINATIONS, _PORTS)),
    **{
        f"{side}-{what}": Grouping(tuple(f"{side}_{key}" for key in keys), (others, _PORTS, _NODES))
        for side, others in (("source", _DESTINATIONS), ("destination", _SOURCES))
        for what, keys in (
            ("namespace", ("namespace",)),
            ("pod", ("namespace", "pod")),
            ("workload", ("namespace", "workload_kind", "workload")),
            ("service", ("namespace", "service")),
            ("class", ("class",)),
            ("node", ("node",)),
        )
    },
    "workload-pair": Grouping(
        (
            "source_namespace", "source_workload", "destination_namespace", "destination_workload", "protocol",
            "destination_port",
        ),
        (_SOURCES, _DESTINATIONS),
    ),
}  # fmt: skip

# First the keys with the most packets, then the costly counts of different things, for the rows of these keys only.
_TOP = """
WITH most AS MATERIALIZED (
    SELECT {keys}, sum(packet_count)::BIGINT AS packets, min(first) AS first, max(last) AS last
    FROM {denied} GROUP BY ALL ORDER BY packets DESC, {order} LIMIT $wanted
), counted AS (
    SELECT {own_keys}, {counts} FROM {denied} AS d SEMI JOIN most ON {same} GROUP BY ALL
)
SELECT {most_keys}, packets, first, last, {names} FROM most JOIN counted AS d ON {same}
ORDER BY packets DESC, {order}
"""


def top(reader: Reader, by: str, where: Where, limit: int) -> Answer:
    """The `limit` keys with the most denied packets; `by` is a name in GROUPINGS."""
    grouping = GROUPINGS[by]
    keys = grouping.keys
    counts = ", ".join(f"{expression} AS {name}" for name, expression in grouping.counts)
    sql = _TOP.format(
        keys=", ".join(keys),
        own_keys=", ".join(f"d.{key}" for key in keys),
        most_keys=", ".join(f"most.{key}" for key in keys),
        same=" AND ".join(f"d.{key} IS NOT DISTINCT FROM most.{key}" for key in keys),
        counts=counts,
        names=", ".join(name for name, _ in grouping.counts),
        denied=counted(reader, where, f"{keys} {counts}"),
        order=", ".join(f"{key} NULLS LAST" for key in keys),
    )
    return _limited(reader, sql, where.parameters, limit)


# DuckDB takes LIMIT as BIGINT.
_MOST_ROWS = 2**63 - 1

# More buckets than this cannot be told apart on any screen.
_MOST_BUCKETS = 10_000
# A quarter of an hour, in microseconds: every zone is so many of them from UTC, so what divides a quarter and a bucket
# divides the bucket's place too.
_QUARTER_US = 900_000_000

# Times are counted in small stretches first, which is a division, and only these are put into buckets of the zone.
_TIMELINE = """
WITH stretches AS MATERIALIZED (
    SELECT epoch_us(time) // {stretch} AS stretch, {by} AS series, sum(packet_count)::BIGINT AS packets
    FROM denied WHERE {where} AND time IS NOT NULL GROUP BY ALL
), buckets AS MATERIALIZED (
    SELECT time_bucket($width::INTERVAL, make_timestamptz(stretch * {stretch}), $zone) AS start, series,
        sum(packets)::BIGINT AS packets
    FROM stretches GROUP BY ALL
), every AS (
    SELECT unnest(range(min(start), max(start) + $width::INTERVAL, $width::INTERVAL)) AS start FROM buckets
)
SELECT start, {series}coalesce(packets, 0) AS packets
FROM every FULL JOIN buckets USING (start) ORDER BY ALL LIMIT $wanted
"""


def timeline(reader: Reader, bucket: str, where: Where, by: str = "") -> Answer:
    """Denied packets in each stretch of time from the first to the last packet, also the empty ones.

    `bucket`: length of a stretch ('1m', '1h', '1d'); those of days begin at midnight in the reader's zone. `by`: a
    column of `denied`; then there is a row for each of its values in a stretch (`series`; null in an empty stretch).
    Raises ValueError for what is no length of time, or no column.
    """
    seconds = duration(bucket).total_seconds()
    if seconds <= 0 or (by and not by.isidentifier()):
        raise ValueError(bucket if seconds <= 0 else by)
    days, rest = divmod(seconds, 86400)
    width = f"{int(days)} days" if not rest else f"{seconds} seconds"
    stretch = gcd(round(seconds * 1_000_000), _QUARTER_US)
    parameters = {**where.parameters, "width": width, "zone": reader.zone}
    sql = _TIMELINE.format(where=where.sql, by=by or "NULL", stretch=stretch, series="series, " if by else "")
    return _limited(reader, sql, parameters, _MOST_BUCKETS)


_OVERVIEW = """
SELECT grouping({keys}) AS key, {keys}, sum(packet_count)::BIGINT AS packets, min(first) AS first, max(last) AS last
FROM {denied} GROUP BY GROUPING SETS ({sets})
QUALIFY row_number() OVER (PARTITION BY key ORDER BY packets DESC, {keys}) <= $limit
ORDER BY packets DESC, {keys}
"""


def overview(reader: Reader, where: Where, groupings: Sequence[tuple[str, ...]], limit: int) -> list[Rows]:
    """The `limit` most denied keys of each of several groupings (tuples of columns of `denied`), in one scan.

    For each grouping rows of its columns, `packets`, `first`, `last`; the grouping `()` gives the totals. What only
    verdicts tell is asked apart, since it takes longer.
    """
    found: dict[tuple[str, ...], Rows] = {}
    for judged in (False, True):
        some = [grouping for grouping in groupings if JUDGED.isdisjoint(grouping) != judged]
        found |= _overview(reader, where, some, limit) if some else {}
    return [found[grouping] for grouping in groupings]


def _overview(
    reader: Reader, where: Where, groupings: Sequence[tuple[str, ...]], limit: int
) -> dict[tuple[str, ...], Rows]:
    keys = list(dict.fromkeys(key for grouping in groupings for key in grouping)) or ["node"]
    sets = ", ".join(f"({', '.join(grouping)})" for grouping in groupings)
    sql = _OVERVIEW.format(keys=", ".join(keys), sets=sets, denied=counted(reader, where, f"{keys}"))
    found = reader.rows(sql, {**where.parameters, "limit": limit})
    return {grouping: _of_grouping(found, keys, grouping) for grouping in groupings}


def _of_grouping(found: Rows, keys: Sequence[str], grouping: tuple[str, ...]) -> Rows:
    """GROUPING has a bit for each key, the last key's the lowest, that is set where the key is not grouped by."""
    mark = sum(1 << place for place, key in enumerate(reversed(keys)) if key not in grouping)
    names = (*grouping, "packets", "first", "last")
    places = [found.columns.index(name) for name in names]
    rows = [tuple(row[place] for place in places) for row in found.rows if row[0] == mark]
    return Rows(names, tuple(found.types[place] for place in places), rows)


_VALUES = """
SELECT {column} AS value, sum(packet_count)::BIGINT AS packets FROM {denied}
WHERE {column} IS NOT NULL GROUP BY ALL ORDER BY packets DESC, value LIMIT $wanted
"""


def values(reader: Reader, column: str, where: Where, limit: int) -> Answer:
    """The values that a column of `denied` has, with how many packets each: hints for a filter."""
    if not column.isidentifier():
        raise ValueError(column)
    sql = _VALUES.format(column=column, denied=counted(reader, where, column))
    return _limited(reader, sql, where.parameters, limit)


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the order in which rows came into the store; what comes after it is new."""

    stored_at: datetime
    source_file: str
    source_offset: int


_PACKETS = "SELECT {columns} FROM {table} AS t WHERE {where} ORDER BY {order} LIMIT $wanted"
_NEWEST = "time DESC NULLS LAST, uptime_s DESC NULLS LAST, source_file DESC, source_offset DESC"
_OLDEST = "time NULLS FIRST, uptime_s NULLS FIRST, source_file, source_offset"
_STORED = "stored_at, source_file, source_offset"


def packets(
    reader: Reader, where: Where, limit: int, *, oldest_first: bool = False, upto: Cursor | None = None
) -> Answer:
    """Single packets with all columns of `attributed`, by time; with `upto` those that were stored up to there."""
    parts, parameters = _placed(where, "<=", upto)
    sql = _packets(parts, _OLDEST if oldest_first else _NEWEST)
    return with_holders(reader, _limited(reader, sql, parameters, limit))


def _packets(where: str, order: str) -> str:
    """The rows of `packets` alone: attributing the few that are wanted afterwards spares attributing all."""
    columns = ", ".join(f'"{column.name}"' for column in TABLE["packets"].columns)
    table = "attributed" if mentioned(where) else "packets"
    return _PACKETS.format(columns=columns, table=table, where=where, order=order)


_HOLDERS = """
SELECT source_file, source_offset, {columns} FROM attributed
WHERE stored_at >= $low AND stored_at <= $high AND source_offset IN (SELECT unnest($offsets::BIGINT[]))
"""


def with_holders(reader: Reader, answer: Answer) -> Answer:
    """The packets with who they were from and to, found by their place."""
    rows = answer.rows
    file, offset, stored = (rows.columns.index(name) for name in ("source_file", "source_offset", "stored_at"))
    stamps, offsets = [row[stored] for row in rows.rows], [row[offset] for row in rows.rows]
    parameters = {"low": min(stamps, default=None), "high": max(stamps, default=None), "offsets": offsets}
    found = reader.rows(_HOLDERS.format(columns=", ".join(COLUMNS)), parameters)
    known = {row[:2]: row[2:] for row in found.rows}
    nobody = (None,) * len(COLUMNS)
    whole = [(*row, *known.get((row[file], row[offset]), nobody)) for row in rows.rows]
    return Answer(Rows((*rows.columns, *found.columns[2:]), (*rows.types, *found.types[2:]), whole), answer.cut)


def packets_after(reader: Reader, where: Where, limit: int, after: Cursor | None) -> tuple[Answer, Cursor | None]:
    """The packets that came into the store after a place, in the order in which they came, and the place to go on from.

    Call it again at once while the answer is cut, else after a while: each packet comes exactly once.
    """
    parts, parameters = _placed(where, ">", after)
    answer = with_holders(reader, _limited(reader, _packets(parts, _STORED), parameters, limit))
    if not answer.rows.rows:
        return answer, after
    last = answer.rows.dicts()[-1]
    return answer, Cursor(last["stored_at"], last["source_file"], last["source_offset"])


def newest(reader: Reader) -> Cursor | None:
    """The place of the row that came last; None in an empty store."""
    rows = reader.rows(
        f"SELECT {_STORED} FROM packets WHERE stored_at >= (SELECT max(stored_at) FROM packets) "
        "ORDER BY stored_at DESC, source_file DESC, source_offset DESC LIMIT 1"
    ).rows
    return Cursor(*rows[0]) if rows else None


def _placed(where: Where, operator: str, cursor: Cursor | None) -> tuple[str, dict[str, object]]:
    if cursor is None:
        return where.sql, dict(where.parameters)
    place = {"at": cursor.stored_at, "file": cursor.source_file, "offset": cursor.source_offset}
    # The first comparison says nothing new, but lets whole files be skipped by their statistics.
    coarse = f"stored_at {operator[0]}= $at"
    return f"{where.sql} AND {coarse} AND ({_STORED}) {operator} ($at, $file, $offset)", {**where.parameters, **place}


def _limited(reader: Reader, sql: str, parameters: dict[str, object], limit: int) -> Answer:
    found = reader.rows(sql, {**parameters, "wanted": min(limit + 1, _MOST_ROWS)})
    return Answer(Rows(found.columns, found.types, found.rows[:limit]), len(found.rows) > limit)
