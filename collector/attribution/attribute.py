"""Which policies denied the stored packets: each flow is judged once by the objects of its time, and the verdict kept.

Rule: a verdict holds for the time in which nothing that matters for it changed, and not a moment longer than that is
known. What was learned since (a snapshot that came late) is applied to what was judged before. Where the log prefix
names the policy nothing is written, unless it is one of our own Log policies, which only log. What cannot be judged is
counted with the reason.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

from analytics.additions import Additions, VerdictRow
from analytics.inbox import deposit
from collector.attribution.archive import FLOW, RELEVANT, StoredArchive, open_archive
from policies.denial import Ruling, ruled
from policies.logged import Cause, Open
from policies.past import ALWAYS, Past, Span

Row: TypeAlias = dict[str, Any]
Key: TypeAlias = tuple[Any, ...]

_COUNTS = """
SELECT decided_by, sum(packet_count)::BIGINT AS packets, min(time) AS first, max(time) AS last
FROM denied WHERE {where} GROUP BY decided_by
"""
_OVERLAP_MINUTES = 15
"""What was stored so long before the newest verdict counts as new: while a run judges, others store objects and packets
that it does not see."""
# What was judged before is judged again where an object was stored since: any object but a pod matters to every packet
# from then on, a pod to its own. So are packets that came since, which an older verdict may not have been about.
_FLOWS = """
WITH judged AS (SELECT max(stored_at) - to_minutes({overlap}) AS at FROM verdicts),
news AS (SELECT * FROM objects, judged WHERE stored_at > judged.at AND list_contains($kinds, kind)),
moved AS (
    SELECT unnest(addresses) AS address, interface FROM objects
    WHERE kind = 'Pod' AND (namespace, name) IN (SELECT (namespace, name) FROM news WHERE kind = 'Pod')
), begun AS (SELECT DISTINCT {flow} AS flow, valid_from FROM verdicts),
cuts AS (SELECT unnest($cuts::TIMESTAMPTZ[]) AS cut UNION SELECT valid_from FROM begun), unsettled AS (
    SELECT {key}, source_port, {flow} AS flow, time, node, packet_count, denied_by, decided_by, why FROM denied
    WHERE ({where}) AND (decided_by IS NULL OR (decided_by = 'prefix' AND list_contains($log_policies,
        CASE WHEN policy_namespace IS NULL THEN policy_name ELSE policy_namespace || '/' || policy_name END)
    ) OR (decided_by = 'engine' AND (
        $again OR stored_at > (SELECT judged.at FROM judged)
        OR time >= (SELECT min(valid_from) FROM news WHERE kind <> 'Pod')
        OR source_ip IN (SELECT address FROM moved) OR destination_ip IN (SELECT address FROM moved)
        OR in_interface IN (SELECT interface FROM moved) OR out_interface IN (SELECT interface FROM moved))))
)
SELECT {key}, CASE WHEN $source_ports THEN source_port END AS source_port, denied_by, decided_by, why,
    min(time) AS time, max(valid_from) AS begun,
    arg_min(node, time) AS node, sum(packet_count)::BIGINT AS packets
FROM unsettled ASOF LEFT JOIN cuts ON unsettled.time >= cuts.cut
    ASOF LEFT JOIN begun ON unsettled.flow = begun.flow AND unsettled.time >= begun.valid_from
GROUP BY {key}, CASE WHEN $source_ports THEN source_port END, denied_by, decided_by, why, cut
ORDER BY time, {key}
"""


_FLOW = f"row({', '.join(FLOW[1:])})::VARCHAR"
"""The columns of a verdict's flow as one text, in which null equals null."""


@dataclass(slots=True)
class Left:
    """Packets without a verdict for one reason, the flows that they belong to, one in words, and the earliest time."""

    packets: int = 0
    flows: set[Key] = field(default_factory=set)
    example: str = ""
    first: datetime | None = None


@dataclass(slots=True)
class Account:
    """What came of it, in packets; `verdicts` are the rows that were written, `queued` where they wait in the inbox."""

    by_prefix: int = 0
    by_engine: int = 0
    left: dict[Cause, Left] = field(default_factory=lambda: defaultdict(Left))
    verdicts: int = 0
    queued: bool = False
    problems: tuple[str, ...] = ()

    @property
    def unattributed(self) -> int:
        """Packets of which nobody knows who denied them."""
        return sum(each.packets for each in self.left.values())


def attribute(store: str, filters: Mapping[str, Any], *, again: bool = False) -> Account:
    """Judge the stored packets that the filters choose and have no verdict; with `again` also those that have one.

    Raises StoreError, FilterError.
    """
    with open_archive(store, filters) as archive:
        past = Past(archive.versions())
        account = Account(problems=tuple(map(str, past.problems)))
        period = _counted(archive, account)
        rows = _unsettled(archive, past, period, again) if period else []
    verdicts = _Judge(past, account).verdicts(rows)
    if verdicts:
        deposited = deposit(store, Additions(verdicts=verdicts))
        account.verdicts, account.queued = len(verdicts), deposited.queued
    return account


def _counted(archive: StoredArchive, account: Account) -> Span | None:
    """Count what was settled before; the time that the packets span."""
    sql = _COUNTS.format(where=archive.chosen.sql)
    rows = archive.reader.rows(sql, archive.chosen.parameters).dicts()
    counts = Counter({row["decided_by"]: row["packets"] for row in rows})
    account.by_prefix, account.by_engine = counts["prefix"], counts["engine"]
    times = [row[name] for row in rows for name in ("first", "last") if row[name]]
    return Span(min(times), max(times)) if times else ALWAYS if rows else None


def _unsettled(archive: StoredArchive, past: Past, period: Span, again: bool) -> list[Row]:
    parameters = {
        **archive.chosen.parameters,
        "kinds": list(RELEVANT),
        "cuts": past.cuts(period),
        "log_policies": past.log_policies,
        "source_ports": past.by_source_port,
        "again": again,
    }
    sql = _FLOWS.format(key=", ".join(FLOW), flow=_FLOW, overlap=_OVERLAP_MINUTES, where=archive.chosen.sql)
    return archive.reader.rows(sql, parameters).dicts()


class _Judge:
    """Judges rows, each a flow in a time in which nothing changed, and accounts for them."""

    def __init__(self, past: Past, account: Account) -> None:
        self._past = past
        self._account = account
        self._known: defaultdict[Key, list[Ruling | Open]] = defaultdict(list)

    def verdicts(self, rows: Iterable[Row]) -> tuple[VerdictRow, ...]:
        """The rows to write: verdicts that the store does not have, and ends of those that no longer hold."""
        found = {(key, each.valid_from): each for row in rows for key, each in self._written(row)}
        return tuple(found.values())

    def _written(self, row: Row) -> Iterator[tuple[Key, VerdictRow]]:
        key = tuple(row[name] for name in (*FLOW, "source_port"))
        ruling, decided = self._ruling(key, row), row["decided_by"]
        if isinstance(ruling, Open):
            if decided == "prefix":
                return
            self._leave(key, row, ruling)
            if decided:
                self._account.by_engine -= row["packets"]
                yield key, _verdict(row, _ended(row, ruling))
            return
        self._account.by_prefix -= row["packets"] * (decided == "prefix")
        self._account.by_engine += row["packets"] * (decided != "engine")
        if decided != "engine" or (tuple(row["denied_by"]), row["why"]) != (ruling.denied_by, ruling.why):
            yield key, _verdict(row, ruling)

    def _ruling(self, key: Key, row: Row) -> Ruling | Open:
        """The ruling of this time; each flow is asked about once for as long as the answer holds."""
        time = row["time"]
        known = next((each for each in self._known[key] if time and time in each.span), None)
        if known is None:
            known = ruled(row, self._past)
            self._known[key].append(known)
        return known

    def _leave(self, key: Key, row: Row, why: Open) -> None:
        left = self._account.left[why.cause]
        left.packets += row["packets"]
        left.flows.add(key)
        left.example = left.example or _example(row, why)
        left.first = min(filter(None, (left.first, row["time"])), default=None)


def _example(row: Row, why: Open) -> str:
    port = f" port {row['destination_port']}" if row["destination_port"] is not None else ""
    return f"{row['source_ip']} to {row['destination_ip']} {row['protocol']}{port}: {why.why}"


def _ended(row: Row, why: Open) -> Ruling:
    """A verdict that holds for no time: it ends the one before it."""
    begin = _begin(row, why.span)
    return Ruling((), why.why, "", Span(begin, begin))


def _begin(row: Row, span: Span) -> datetime:
    """From when on a new verdict holds: no earlier than the one that it corrects.

    Of two verdicts the one that begins later counts. Where the boundary at which that one begins is known no longer,
    the new one would begin before it, and never count.
    """
    return max(span.since, row["begun"] or span.since)


def _verdict(row: Row, ruling: Ruling) -> VerdictRow:
    until = ruling.span.until
    return VerdictRow(
        direction=ruling.direction or None,
        **{name: row[name] for name in (*FLOW[1:], "source_port")},
        valid_from=_begin(row, ruling.span),
        valid_until=None if until == ALWAYS.until else until,
        denied_by=ruling.denied_by,
        why=ruling.why,
    )
