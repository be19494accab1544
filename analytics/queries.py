"""The questions that denylog asks by itself: who is denied most, when, which packets, and how the store is doing.

Rule: counts are sums of `packet_count` (a line may stand for several packets), answers are ordered by their full key,
and an answer that was cut says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from analytics.filters import Where, duration
from analytics.reader import Reader, Rows


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
    "policy": Grouping(
        ("policy_tier", "policy_kind", "policy_namespace", "policy_name", "prefix"), (_SOURCES, _DESTINATIONS, _PORTS)
    ),
}

_TOP = """
SELECT {keys}, sum(packet_count)::BIGINT AS packets, min(time) AS first, max(time) AS last, {counts}
FROM denied WHERE {where} GROUP BY {keys} ORDER BY packets DESC, {order} LIMIT $wanted
"""


def top(reader: Reader, by: str, where: Where, limit: int) -> Answer:
    """The `limit` keys with the most denied packets; `by` is a name in GROUPINGS."""
    grouping = GROUPINGS[by]
    sql = _TOP.format(
        keys=", ".join(grouping.keys),
        counts=", ".join(f"{expression} AS {name}" for name, expression in grouping.counts),
        where=where.sql,
        order=", ".join(f"{key} NULLS LAST" for key in grouping.keys),
    )
    return _limited(reader, sql, where.parameters, limit)


# DuckDB takes LIMIT as BIGINT.
_MOST_ROWS = 2**63 - 1

# More buckets than this cannot be told apart on any screen.
_MOST_BUCKETS = 10_000

_TIMELINE = """
SELECT time_bucket($width::INTERVAL, time, $zone) AS start, sum(packet_count)::BIGINT AS packets,
    count(DISTINCT source_ip) AS sources, count(DISTINCT destination_ip) AS destinations
FROM denied WHERE {where} AND time IS NOT NULL GROUP BY start ORDER BY start LIMIT $wanted
"""


def timeline(reader: Reader, bucket: str, where: Where) -> Answer:
    """Denied packets in each stretch of time that has any; `bucket` is its length ('1m', '1h', '1d').

    Stretches of days begin at midnight in the reader's zone. Raises ValueError for what is no length of time.
    """
    seconds = duration(bucket).total_seconds()
    if seconds <= 0:
        raise ValueError(bucket)
    days, rest = divmod(seconds, 86400)
    width = f"{int(days)} days" if not rest else f"{seconds} seconds"
    parameters = {**where.parameters, "width": width, "zone": reader.zone}
    return _limited(reader, _TIMELINE.format(where=where.sql), parameters, _MOST_BUCKETS)


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the order in which rows came into the store; what comes after it is new."""

    stored_at: datetime
    source_file: str
    source_offset: int


_PACKETS = "SELECT * FROM packets WHERE {where} ORDER BY {order} LIMIT $wanted"
_NEWEST = "time DESC NULLS LAST, uptime_s DESC NULLS LAST, source_file DESC, source_offset DESC"
_OLDEST = "time NULLS FIRST, uptime_s NULLS FIRST, source_file, source_offset"
_STORED = "stored_at, source_file, source_offset"


def packets(
    reader: Reader, where: Where, limit: int, *, oldest_first: bool = False, upto: Cursor | None = None
) -> Answer:
    """Single packets with all their columns, by their time; with `upto` only those that were stored up to there."""
    parts, parameters = _placed(where, "<=", upto)
    sql = _PACKETS.format(where=parts, order=_OLDEST if oldest_first else _NEWEST)
    return _limited(reader, sql, parameters, limit)


def packets_after(reader: Reader, where: Where, limit: int, after: Cursor | None) -> tuple[Answer, Cursor | None]:
    """The packets that came into the store after a place, in the order in which they came, and the place to go on from.

    Call it again at once while the answer is cut, else after a while: each packet comes exactly once.
    """
    parts, parameters = _placed(where, ">", after)
    answer = _limited(reader, _PACKETS.format(where=parts, order=_STORED), parameters, limit)
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
