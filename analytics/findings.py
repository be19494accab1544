"""What denied traffic amounts to: scans, sweeps, beacons, wrong policies, as findings that carry their evidence.

Rule: a finding is derived from one query over the store; it says how to look at its packets, and where its counts are
lower bounds because log lines are missing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import duckdb

from analytics.engine import quoted
from analytics.filters import Where
from analytics.findings_facts import PLACE, gather, question, used
from analytics.findings_rules import RULE, SEVERITIES, Settings
from analytics.findings_sql import flat, steps
from analytics.findings_summary import summary, tables
from analytics.reader import Reader
from analytics.store import StoreError

_SETTINGS = Settings()
_EVERYTHING = Where()
_TOO_MUCH = "holds more packets of this time than fit in the memory and the folder for temporary files of a reader"
_LESS = "ask for less with --since, --until, --rule or a filter, or give TMPDIR more space"


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a finding is about: `kind` is workload (NAMESPACE/NAME), address, interface or place (namespace or node)."""

    kind: str
    name: str
    addresses: tuple[str, ...]
    inside: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding; `first` and `last` are the times of its packets, `attempts` counts a retried packet once.

    `about` tells findings of one rule and subject apart; with them and `first` it makes the `id`. `measure` is the
    interval in seconds of a beacon, and how many times higher than before a spike is. `lower_bound` says why the counts
    are lower bounds, None where they are not. `evidence` is SQL for `denylog sql`.
    """

    id: str
    rule: str
    severity: str
    title: str
    subject: Subject
    about: str
    first: datetime
    last: datetime
    packets: int
    attempts: int
    targets: tuple[str, ...]
    target_count: int
    protocols: tuple[str, ...]
    ports: tuple[int, ...]
    port_count: int
    nodes: tuple[str, ...]
    measure: float | None
    technique: str | None
    lower_bound: str | None
    evidence: str

    def record(self) -> dict[str, Any]:
        """The finding as a mapping of plain values and times."""
        return asdict(self)


def findings(
    reader: Reader,
    where: Where = _EVERYTHING,
    settings: Settings = _SETTINGS,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    rules: Collection[str] = RULE,
) -> list[Finding]:
    """The findings in the packets that `where` names, by their first packet; raises StoreError or QueryError.

    `since` and `until` choose by the time of a finding's packets. Give times here and not in `where`, which would hide
    the earlier days that spikes and first-seen pairs are compared with. `rules` are those to look for; fewer take less.
    """
    chosen = dict.fromkeys(rules)
    found = [_finding(row, settings) for row in _found(reader, where, settings, since, until, chosen)]
    return list(_with_bounds(reader, found, settings))


def _found(
    reader: Reader,
    where: Where,
    settings: Settings,
    since: datetime | None,
    until: datetime | None,
    rules: Collection[str],
) -> list[dict[str, Any]]:
    """A row for each finding; the tables that it is made of are gone afterwards, whatever happens."""
    try:
        asked = question(reader, where, since, until)
        values = {**asked.parameters, **flat(settings)}
        gather(reader, asked, settings)
        for name, sql in (steps(settings, rules, asked.asked) | tables(rules)).items():
            reader.keep(name, sql, used(sql, values))
        return reader.rows(summary(since)).dicts()
    except StoreError as error:
        if isinstance(error.__cause__, duckdb.OutOfMemoryException):
            raise StoreError(reader.store.folder, _TOO_MUCH, _LESS, retryable=True) from error
        raise
    finally:
        reader.forget()


def at_least(found: Sequence[Finding], severity: str) -> list[Finding]:
    """The findings of this severity and above."""
    return [finding for finding in found if SEVERITIES.index(finding.severity) >= SEVERITIES.index(severity)]


def _finding(row: Mapping[str, Any], settings: Settings) -> Finding:
    rule, subject = RULE[row["rule"]], _subject(row)
    within = row["to_inside"] if rule.name == "first_seen" else subject.inside
    technique = rule.techniques[0 if within else 1]
    identity = "\n".join((rule.name, subject.name, row["about"], row["first"].isoformat()))
    found = Finding(
        id=hashlib.blake2b(identity.encode(), digest_size=8).hexdigest(),
        rule=rule.name,
        severity=settings.severities[rule.name],
        title="",
        subject=subject,
        about=row["about"],
        **{name: row[name] for name in ("first", "last", "packets", "attempts", "measure")},
        targets=tuple(row["targets"]),
        target_count=row["targets_count"],
        protocols=tuple(row["protocols"] or ()),
        ports=tuple(row["ports"] or ()),
        port_count=row["ports_count"] or 0,
        nodes=tuple(row["nodes"] or ()),
        technique=None if technique == "-" else technique,
        lower_bound=None,
        evidence="",
    )
    return replace(
        found, title=_TITLES[rule.name].format_map(_words(found, row["source_node"])), evidence=_evidence(found)
    )


def _subject(row: Mapping[str, Any]) -> Subject:
    name, kind = row["subject"], "workload" if row["known"] else "address"
    if row["rule"] == "spike":
        kind = "place"
    elif row["rule"] == "spoofed_source" and "/" not in name and not row["own_address"]:
        kind = "interface"
    return Subject(kind, name, tuple(row["sources"]), row["inside"])


# One sentence for each rule; the names are those of `_words`.
_TITLES = {
    "vertical_scan": "{subject} tried {ports} of {targets} within {length}",
    "horizontal_sweep": "{subject} tried {services} on {targets} within {length}",
    "spoofed_source": "{subject} sent {packets} from {addresses}, which is not its own",
    "beaconing": "{subject} calls {about} every {measure:.0f} s: {attempts} within {length}",
    "misconfigured_client": "{subject} is denied {about} on {targets}: {attempts} within {length}",
    "repeated_offender": "{subject} keeps trying {services} on {targets}: {attempts} within {length}",
    "spike": "{attempts} denied at {subject} within {length}, {times} on earlier days",
    "first_seen": "{subject} tried {targets} ({services}) for the first time",
}


def _words(found: Finding, node: str | None) -> dict[str, object]:
    services = ", ".join(map(str, found.ports[:3])) + (" …" if found.port_count > 3 else "")
    kind = "/".join(found.protocols)
    highest = f"{found.measure:.0f} times the most" if found.measure else "none at this time of the day"
    return {
        "subject": f"node {node} ({found.subject.name})" if node else found.subject.name,
        "about": found.about,
        "ports": counted(found.port_count, "port"),
        "services": f"{kind} {services}".strip(),
        "targets": found.targets[0] if found.target_count == 1 else counted(found.target_count, "target"),
        "addresses": ", ".join(found.subject.addresses[:3]),
        "packets": counted(found.packets, "packet"),
        "attempts": counted(found.attempts, "attempt"),
        "length": length(found.last - found.first),
        "measure": found.measure or 0,
        "times": highest,
    }


def counted(count: int, noun: str) -> str:
    """A number with its noun."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def length(span: timedelta) -> str:
    """A length of time as people say it, rounded up to one unit."""
    seconds = max(1, -int(-span.total_seconds() // 1))
    size, unit = next(entry for entry in _UNITS if seconds >= entry[0])
    return counted(-(-seconds // size), unit)


# What shows a finding: {packets} is the condition for its packets, {who} that for all of its subject, {days} the days
# with which a spike is compared.
_EVIDENCE = {
    **dict.fromkeys(
        ("vertical_scan", "horizontal_sweep"),
        "SELECT destination_ip, protocol, destination_port, min(time) AS first, "
        "sum(packet_count)::BIGINT AS packets FROM denied WHERE {packets} GROUP BY ALL ORDER BY first",
    ),
    "spoofed_source": "SELECT time, node, in_interface, source_pod, source_ip, destination_ip, destination_port "
    "FROM denied WHERE attribution_conflict AND {packets} ORDER BY time",
    "beaconing": "SELECT time, source_pod, source_ip, source_port, destination_ip, destination_port FROM denied "
    "WHERE {packets} ORDER BY time",
    "misconfigured_client": "SELECT time_bucket(INTERVAL 1 hour, time) AS hour, destination_ip, destination_workload, "
    "sum(packet_count)::BIGINT AS packets FROM denied WHERE {packets} GROUP BY ALL ORDER BY ALL",
    "repeated_offender": "SELECT time_bucket(INTERVAL 1 hour, time) AS hour, destination_ip, destination_port, "
    "sum(packet_count)::BIGINT AS packets FROM denied WHERE {packets} GROUP BY ALL ORDER BY ALL",
    "spike": "SELECT time_bucket(INTERVAL 15 minutes, time) AS quarter, count(DISTINCT source_ip) AS sources, "
    "sum(packet_count)::BIGINT AS packets FROM denied WHERE {who} AND {days} GROUP BY ALL ORDER BY ALL",
    "first_seen": "SELECT min(time) AS first, destination_ip, destination_workload, protocol, destination_port, "
    "sum(packet_count)::BIGINT AS packets FROM denied WHERE {who} GROUP BY ALL ORDER BY first DESC",
}
_TARGET = "coalesce(destination_namespace || '/' || destination_workload, destination_ip)"


def _evidence(found: Finding) -> str:
    namespace, _, name = found.subject.name.partition("/")
    who = {
        "workload": f"source_namespace = {quoted(namespace)} AND source_workload = {quoted(name)}",
        "address": f"source_ip = {quoted(found.subject.name)}",
        "interface": f"in_interface = {quoted(found.subject.name)}",
        "place": f"{PLACE} = {quoted(found.subject.name)}",
    }[found.subject.kind]
    first, last = (f"TIMESTAMPTZ {quoted(time.isoformat())}" for time in (found.first, found.last))
    return _EVIDENCE[found.rule].format(
        who=who,
        days=f"time BETWEEN {first} - INTERVAL 7 days AND {last}",
        packets=" AND ".join((who, *_reach(found), f"time BETWEEN {first} AND {last}")),
    )


def _reach(found: Finding) -> Iterator[str]:
    """Conditions for what a finding reached for, where it names all of that."""
    yield f"protocol IN ({_listed(found.protocols)})"
    # A ping has no port.
    if found.port_count == len(found.ports) > 0 and not {"icmp", "icmpv6"}.intersection(found.protocols):
        yield f"destination_port IN ({', '.join(map(str, found.ports))})"
    if found.target_count == len(found.targets):
        yield f"{'destination_ip' if found.rule == 'horizontal_sweep' else _TARGET} IN ({_listed(found.targets)})"


def _listed(texts: Sequence[str]) -> str:
    return ", ".join(map(quoted, texts))


# A report of lost lines stands beside the lines that were lost, or up to a minute later.
_LOSSES = """
SELECT number, source, sum(count)::BIGINT AS lines
FROM (SELECT unnest($numbers) AS number, unnest($firsts) AS first, unnest($lasts) AS last, unnest($nodes) AS nodes)
JOIN losses ON losses.time BETWEEN first - INTERVAL 1 minute AND last + INTERVAL 1 minute
    AND (losses.node IS NULL OR list_contains(nodes, losses.node))
GROUP BY number, source ORDER BY number, source
"""
# Felix limits each Log rule of a node; a node with so many lines in a unit of time may have reached it.
_LIMITED = """
WITH full_units AS (
    SELECT node, date_trunc($unit, time) AS start FROM packets WHERE time BETWEEN $begin AND $end
    GROUP BY ALL HAVING count(*) >= $limit
)
SELECT DISTINCT number
FROM (SELECT unnest($numbers) AS number, unnest($firsts) AS first, unnest($lasts) AS last, unnest($nodes) AS nodes)
JOIN full_units ON start BETWEEN date_trunc($unit, first) AND last AND list_contains(nodes, node)
"""


def _with_bounds(reader: Reader, found: Sequence[Finding], settings: Settings) -> Iterator[Finding]:
    """The findings, with the reason where their counts are lower bounds."""
    reasons: dict[int, list[str]] = {number: [] for number in range(len(found))}
    if found:
        spans: dict[str, object] = {
            "numbers": list(reasons),
            "firsts": [finding.first for finding in found],
            "lasts": [finding.last for finding in found],
            "nodes": [list(finding.nodes) for finding in found],
        }
        for number, source, lines in reader.rows(_LOSSES, spans).rows:
            reasons[number].append(f"{source} left out {counted(lines, 'line') if lines else 'lines'}")
        for number in _limited(reader, found, spans, settings):
            reasons[number].append(f"Calico's logActionRateLimit of {settings.rate_limit} was reached")
    for number, finding in enumerate(found):
        yield replace(finding, lower_bound="; ".join(reasons[number]) or None)


def _limited(
    reader: Reader, found: Sequence[Finding], spans: Mapping[str, object], settings: Settings
) -> Iterator[int]:
    if settings.rate_limit:
        limit, _, unit = settings.rate_limit.partition("/")
        begin, end = min(finding.first for finding in found), max(finding.last for finding in found)
        bounds = {"unit": unit, "limit": int(limit), "begin": begin - timedelta(days=1), "end": end}
        yield from (number for (number,) in reader.rows(_LIMITED, {**spans, **bounds}).rows)
