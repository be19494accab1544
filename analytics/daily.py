"""Sums of packets by flow and day: what most questions about many packets are asked of instead of the packets.

Rule: sums are exact and only added, each time for all packets that were stored since the last time (`upto`), once
there are enough of them to be worth it. A question takes the sums of whole days up to a mark, and single packets for
the rest: the ends of its time, and what was stored after the mark. A small store has no sums and needs none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING

import duckdb

from analytics.attribution import COLUMNS, JUDGED, attribute_sums, mentioned, needs
from analytics.filters import Where
from analytics.holders import ENDS, RESTLESS, local
from analytics.intervals import VERDICT_KEY
from analytics.schema import TABLE, transaction

if TYPE_CHECKING:
    from analytics.reader import Reader

SUMS = "flow_days"
"""The table of sums."""
KEYS = (
    "node", "direction", "in_interface", "out_interface", "source_ip", "destination_ip", "protocol", "destination_port",
    "policy_tier", "policy_kind", "policy_namespace", "policy_name", "prefix",
)  # fmt: skip
"""The columns of packets that sums are kept by, beside the day: a question about any other is asked of the packets."""

# So many packets are counted in a hundredth of a second, and their sums made in less than 20 MB.
ENOUGH = 100_000
_PACKETS = frozenset(column.name for column in TABLE["packets"].columns)

# The newest packet of the next sums. They end with the day (of `stored_at`), since old packets go by the day.
_NEXT = """
WITH waiting AS (
    SELECT stored_at, count(*) AS packets FROM packets WHERE stored_at > $upto GROUP BY stored_at
), ordered AS (
    SELECT stored_at, sum(packets) OVER (ORDER BY stored_at) AS so_far, sum(packets) OVER () AS total,
        stored_at::DATE AS day, min(stored_at::DATE) OVER () AS first_day
    FROM waiting
)
SELECT coalesce(max(stored_at) FILTER (so_far <= $most), min(stored_at)), any_value(total)
FROM ordered WHERE day = first_day
"""
# Sorted, so that the packets of one source are near each other.
_ADD = f"""
INSERT INTO flow_days BY NAME
SELECT day, {", ".join(KEYS)}, sum(greatest(repeat_count, 1))::BIGINT AS packets, min(time) AS first,
    max(time) AS last, $upto::TIMESTAMPTZ AS upto
FROM packets WHERE stored_at > $since AND stored_at <= $upto AND follow_up IS NULL AND hash(source_ip) % $parts = $part
GROUP BY ALL ORDER BY day, source_ip, destination_ip
"""
# Whether such a packet was denied at its source or at its destination, only a verdict tells.
_UNTOLD = "(direction IS NULL OR direction NOT IN ('ingress', 'egress'))"
# `max` may be answered from statistics that are newer than the rows that the same reader sees next.
_MARK = "SELECT upto FROM flow_days ORDER BY upto DESC LIMIT 1"
_NEVER = datetime.fromtimestamp(0, UTC)


def add_up(connection: duckdb.DuckDBPyConnection, most: int, parts: int = 1) -> bool:
    """Add the sums of at most about so many packets; False where there is nothing worth it. Times are UTC here.

    Of several parts, each with some of the sources, only one is in memory; they are stored together.
    """
    row = connection.execute(_MARK).fetchone()
    since = row[0] if row and row[0] else _NEVER
    upto, waiting = connection.execute(_NEXT, {"upto": since, "most": most}).fetchone() or (None, 0)
    if upto is None or waiting < ENOUGH:
        return False
    with transaction(connection):
        for part in range(parts):
            connection.execute(_ADD, {"since": since, "upto": upto, "parts": parts, "part": part})
    return True


def counted(reader: Reader, where: Where, text: str) -> str:
    """A relation (in parentheses) of the denied packets that `where` holds for: the columns that `text` names, and for
    each row `packet_count`, `first` and `last`, the times of the first and the last of so many packets."""
    columns, named = _named(text), _named(f"{text} {where.timeless}")
    share = _share(reader, where, named)
    if mentioned(f"{text} {where.sql}"):
        if share is None:
            return f"(SELECT {_listed(columns)}packet_count, time AS first, time AS last FROM denied WHERE {where.sql})"
        return _attributed(reader, where, share, columns, named)
    if share is None:
        return f"({_single(columns, [where.sql])})"
    sums = _sums(columns, [f"({where.timeless})", *share.whole])
    return f"({' UNION ALL '.join([sums, *(_single(columns, [where.sql, *rest]) for rest in share.rest)])})"


@dataclass(frozen=True, slots=True)
class Share:
    """What of a time sums tell: the conditions on them, on the packets that are in them, and on the `rest`."""

    upto: datetime
    whole: tuple[str, ...]
    summed: tuple[str, ...]
    rest: tuple[tuple[str, ...], ...]


def _share(reader: Reader, where: Where, named: Iterable[str]) -> Share | None:
    """What sums can tell of these columns; None where that is nothing."""
    try:
        first, last = _whole_days(where)
    except OverflowError:
        return None
    asked = _PACKETS.intersection(named) | JUDGED.intersection(named)
    if not asked.issubset(KEYS) or (first and last and first >= last):
        return None
    found = reader.rows(_MARK).rows
    if not found:
        return None
    upto: datetime = found[0][0]
    stamp = f"TIMESTAMPTZ '{upto.isoformat()}'"
    ends = [(">=", "<", first)] * bool(first) + [("<", ">=", last)] * bool(last)
    days = [f"day {within} DATE '{day}'" for within, _, day in ends]
    rest = ((f"stored_at > {stamp}", *days), *((f"day {beyond} DATE '{day}'",) for _, beyond, day in ends))
    return Share(upto, (f"upto <= {stamp}", *days), (f"stored_at <= {stamp}", *days), rest)


def _whole_days(where: Where) -> tuple[date | None, date | None]:
    """The first of the whole UTC days, and the day after the last; None where that side is open.

    Raises OverflowError at the ends of the calendar.
    """
    since, until = (found.astimezone(UTC) if found else None for found in (where.since, where.until))
    began = timedelta(days=bool(since and since.time() != time()))
    return since.date() + began if since else None, until.date() if until else None


def _attributed(reader: Reader, where: Where, share: Share, columns: list[str], named: list[str]) -> str:
    """Sums where nobody changed places, packets for the rest and where only a verdict tells who denied them."""
    names = [name for name in named if name in COLUMNS]
    own = dict.fromkeys([*(name for name in named if name in KEYS), *ENDS, "direction"])
    judged = "verdict_intervals" in needs(names)
    told, untold = (["direction IN ('ingress', 'egress')"], [_UNTOLD]) if judged else ([], [])
    days = reader.restless(names, share.upto)
    sums = _sums(own, [*share.whole, *told], _joined("ANTI") if days else "")
    if judged:
        own |= dict.fromkeys([*VERDICT_KEY, "source_port"])
    packets = [_single(own, [*where.times, *rest]) for rest in share.rest]
    listed = ", ".join(f"DATE '{day}'" for day in days)
    if days:
        packets.append(_single(own, [*share.summed, *told, f"day IN ({listed})"], _joined("SEMI")))
    packets += [_single(own, [*share.summed, condition]) for condition in untold]
    parts = ((sums, False), (" UNION ALL ".join(packets), True))
    return f"({' UNION ALL '.join(_known(columns, where, names, rows, verdicts=v) for rows, v in parts)})"


def _known(columns: Iterable[str], where: Where, names: Iterable[str], rows: str, *, verdicts: bool) -> str:
    """Rows with who was at their ends, as far as the condition holds for them."""
    found = local(attribute_sums(names, f"(SELECT * RENAME (first AS time) FROM ({rows}))", verdicts=verdicts))
    return f"SELECT {_listed(columns)}packet_count, time AS first, last FROM ({found}) WHERE {where.timeless}"


def _joined(kind: str) -> str:
    same = " AND ".join(f"t.{end} IS NOT DISTINCT FROM r.{end}" for end in ENDS)
    return f"{kind} JOIN {RESTLESS} AS r ON t.day = r.day AND {same}"


def _sums(columns: Iterable[str], conditions: Iterable[str], join: str = "") -> str:
    return (
        f"SELECT {_listed(columns)}packets AS packet_count, first, last FROM flow_days AS t {join} "
        f"WHERE {' AND '.join(conditions)}"
    )


def _single(columns: Iterable[str], conditions: Iterable[str], join: str = "") -> str:
    return (
        f"SELECT {_listed(columns)}greatest(repeat_count, 1) AS packet_count, time AS first, time AS last "
        f"FROM packets AS t {join} WHERE {' AND '.join([*conditions, 'follow_up IS NULL'])}"
    )


def _named(text: str) -> list[str]:
    """The columns of `denied` that SQL names."""
    found = dict.fromkeys(re.findall(r"\w+", text))
    return [name for name in found if name in _PACKETS or name in COLUMNS]


def _listed(columns: Iterable[str]) -> str:
    return "".join(f"{name}, " for name in columns)
