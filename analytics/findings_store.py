"""Which findings are new: those in the table `findings` are known, for as long as they go on and their cooldown after.

Rule: a known finding keeps the id under which it was recorded; it is recorded again only when it went on for longer
than its cooldown since.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, tzinfo

from analytics.additions import Additions, Deposited, FindingRow
from analytics.findings import Finding
from analytics.findings_rules import Settings
from analytics.inbox import deposit
from analytics.reader import Reader
from analytics.values import plain

_KNOWN = """
SELECT rule, subject->>'name' AS name, body->>'about' AS about, id, min("first") AS first, max("last") AS last
FROM findings GROUP BY ALL
"""


@dataclass(frozen=True, slots=True)
class _Recorded:
    id: str
    first: datetime
    last: datetime


@dataclass(frozen=True, slots=True)
class Compared:
    """Findings beside what is recorded: `all` of them (known ones under their recorded id), the `new` ones, and those
    that are to be `recorded`: the new ones, and known ones that went on for longer than their cooldown."""

    all: list[Finding]
    new: list[Finding]
    recorded: list[Finding]


def compare(reader: Reader, found: Sequence[Finding], settings: Settings) -> Compared:
    """What is new among the findings; raises StoreError."""
    known: dict[tuple[str, str, str], list[_Recorded]] = {}
    for rule, name, about, *rest in reader.rows(_KNOWN).rows:
        known.setdefault((rule, name, about), []).append(_Recorded(*rest))
    compared = Compared([], [], [])
    for finding in found:
        cooldown = settings.values[finding.rule]["cooldown"]
        assert isinstance(cooldown, timedelta)
        earlier = _same(finding, known.get((finding.rule, finding.subject.name, finding.about), ()), cooldown)
        finding = replace(finding, id=earlier.id) if earlier else finding
        compared.all.append(finding)
        if not earlier:
            compared.new.append(finding)
        if not earlier or finding.last > earlier.last + cooldown:
            compared.recorded.append(finding)
    return compared


def _same(finding: Finding, known: Iterable[_Recorded], cooldown: timedelta) -> _Recorded | None:
    return next(
        (one for one in known if finding.first <= one.last + cooldown and one.first <= finding.last + cooldown), None
    )


def record(store: str, found: Sequence[Finding], zone: tzinfo) -> Deposited:
    """Put findings into the table `findings` of a store, also while a collector holds it; raises StoreError."""
    return deposit(store, Additions(findings=tuple(_row(finding, zone) for finding in found)))


def _row(finding: Finding, zone: tzinfo) -> FindingRow:
    body = plain(finding.record(), zone)
    return FindingRow(
        id=finding.id,
        rule=finding.rule,
        severity=finding.severity,
        subject=json.dumps(body["subject"]),
        first=finding.first,
        last=finding.last,
        title=finding.title,
        body=json.dumps(body),
    )
