"""The pages' own questions, beside those in `analytics.queries`: totals, what is new, and one address.

Rule: SQL is constant; what it is about comes as `Where` and parameters. Counts are sums of `packet_count`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import gcd

from analytics.attribution import mentioned
from analytics.daily import counted
from analytics.filters import Where
from analytics.queries import overview
from analytics.reader import Reader, Rows

# The view `denied` joins each packet with who it was from and to. Where a question is not about that, it is asked of
# the same packets without: planning the joins alone takes longer than such a question.
_LEAN = "(SELECT *, greatest(repeat_count, 1) AS packet_count FROM packets WHERE follow_up IS NULL)"


def denied(where: Where, *columns: str) -> str:
    """What to select the denied packets from that `where` and these columns can be asked of."""
    return "denied" if mentioned(" ".join((where.sql, *columns))) else _LEAN


@dataclass(frozen=True, slots=True)
class Totals:
    """Of a view's packets: their number, the first and last time, and how many different ends there are."""

    packets: int
    sources: int
    destinations: int
    ports: int
    nodes: int
    first: datetime | None
    last: datetime | None


_TOTALS = """
SELECT coalesce(sum(packet_count), 0)::BIGINT, count(DISTINCT source_ip), count(DISTINCT destination_ip),
    count(DISTINCT (protocol, destination_port)) FILTER (destination_port IS NOT NULL), count(DISTINCT node),
    min(first), max(last)
FROM {denied}
"""


def totals(reader: Reader, where: Where) -> Totals:
    """The totals of the packets that `where` holds for."""
    return Totals(*reader.rows(_TOTALS.format(denied=counted(reader, where, _TOTALS)), where.parameters).rows[0])


_COUNT = "SELECT coalesce(sum(packet_count), 0)::BIGINT FROM {denied}"


def count(reader: Reader, where: Where) -> int:
    """How many packets there are."""
    return int(reader.rows(_COUNT.format(denied=counted(reader, where, "")), where.parameters).rows[0][0])


# What packets are ranked by, and what filters offer: the columns of each key.
RANKED: dict[str, tuple[str, ...]] = {
    "source": ("source_ip",),
    "destination": ("destination_ip",),
    "port": ("protocol", "destination_port"),
    "workload": ("namespace", "workload"),
    "node": ("node",),
    "namespace": ("namespace",),
    "source workload": ("source_namespace", "source_workload"),
    "destination workload": ("destination_namespace", "destination_workload"),
    "source pod": ("source_namespace", "source_pod"),
    "destination pod": ("destination_namespace", "destination_pod"),
    "destination service": ("destination_namespace", "destination_service"),
    "class": ("source_class",),
    "policy": ("denied_by",),
}


def ranked(reader: Reader, where: Where, names: Sequence[str], limit: int) -> dict[str, Rows]:
    """The `limit` keys of each of several kinds (of RANKED) with the most denied packets, in one scan."""
    return dict(zip(names, overview(reader, where, [RANKED[name] for name in names], limit), strict=True))


SERIES = {
    "direction": "direction",
    "protocol": "protocol",
    "namespace": "namespace",
    "none": "'denied packets'",
}
# The colours that can be told apart are one more: the last is for the rest.
_MOST_SERIES = 7
OTHERS = "all others"
# Of these is a quarter of an hour: the distance of every zone from UTC is so many of them.
_QUARTER_US = 900_000_000
# Times are counted in small stretches first, which is a division; only those are put into the bars of a zone.
_BY_TIME = """
WITH stretches AS MATERIALIZED (
    SELECT epoch_us(time) // {stretch} AS stretch, {series} AS series, sum(packet_count)::BIGINT AS packets
    FROM {denied} WHERE {where} AND time IS NOT NULL GROUP BY stretch, series
), most AS (
    SELECT series, row_number() OVER (ORDER BY sum(packets) DESC, series) AS place FROM stretches GROUP BY series
)
SELECT time_bucket($width::INTERVAL, make_timestamptz(stretch * {stretch}), $zone) AS start,
    CASE WHEN place <= {most} THEN most.series ELSE '{others}' END AS series, sum(packets)::BIGINT AS packets
FROM stretches JOIN most ON most.series IS NOT DISTINCT FROM stretches.series
GROUP BY 1, 2 ORDER BY 1, 2
"""


def by_time(reader: Reader, where: Where, seconds: int, split: str) -> Rows:
    """Denied packets in each stretch of so many seconds, apart by what `split` (a key of SERIES) names.

    Of many series the greatest are told apart, and the rest is one named OTHERS.
    """
    width = f"{seconds // 86_400} days" if seconds % 86_400 == 0 else f"{seconds} seconds"
    sql = _BY_TIME.format(
        stretch=gcd(seconds * 1_000_000, _QUARTER_US),
        series=SERIES[split],
        denied=denied(where, SERIES[split]),
        where=where.sql,
        most=_MOST_SERIES,
        others=OTHERS,
    )
    return reader.rows(sql, {**where.parameters, "width": width, "zone": reader.zone})


_NEW = """
WITH recent AS (
    SELECT source_ip, destination_ip, protocol, destination_port, sum(packet_count)::BIGINT AS packets,
        min(first) AS first, max(last) AS last
    FROM {denied} GROUP BY ALL
), earlier AS (
    SELECT e.source_ip, e.destination_ip, e.protocol, e.destination_port
    FROM {before} AS e SEMI JOIN recent AS r ON {same}
)
SELECT *, count(*) OVER () AS pairs FROM recent r WHERE NOT EXISTS (
    FROM earlier AS e WHERE {same}
) ORDER BY packets DESC, source_ip, destination_ip, protocol, destination_port LIMIT $wanted
"""
_SAME = " AND ".join(
    f"e.{key} IS NOT DISTINCT FROM r.{key}" for key in ("source_ip", "destination_ip", "protocol", "destination_port")
)
_HORIZON = timedelta(days=30)
_HISTORY = "SELECT count(*) > 0 FROM (SELECT 1 FROM {before} LIMIT 1)"


@dataclass(frozen=True, slots=True)
class Fresh:
    """Who was denied what for the first time: the first of them, and how many there are."""

    rows: Rows
    pairs: int


def new_pairs(reader: Reader, where: Where, edge: datetime, limit: int) -> Fresh | None:
    """Who was denied what since `edge` that was not denied in the thirty days before; None where nothing is known of
    the time before."""
    month = Where().during(edge - _HORIZON, edge)
    if not reader.rows(_HISTORY.format(before=counted(reader, month, ""))).rows[0][0]:
        return None
    recent = where.during(edge, None)
    sql = _NEW.format(denied=counted(reader, recent, _NEW), before=counted(reader, month, _NEW), same=_SAME)
    found = reader.rows(sql, {**where.parameters, "wanted": limit})
    shown = Rows(found.columns[:-1], found.types[:-1], [row[:-1] for row in found.rows])
    return Fresh(shown, found.rows[0][-1] if found.rows else 0)
