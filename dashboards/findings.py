"""What stands out: scans, sweeps, beacons, wrong policies, each once, with the packets that show it.

Rule: a finding leads to its packets; where counts are lower bounds, that is said beside them.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import streamlit as st

from analytics.filters import Where, where
from analytics.findings import Finding, findings
from analytics.reader import Reader, Rows
from dashboards.empty import nothing
from dashboards.look import Look, go
from dashboards.markup import facts, heading, literal, notice, tiles
from dashboards.tables import Download, downloads, table

_COLUMNS = ("severity", "title", "rule", "subject", "first", "last", "attempts", "packets")
_TYPES = ("VARCHAR", "VARCHAR", "VARCHAR", "VARCHAR", *["TIMESTAMP WITH TIME ZONE"] * 2, "BIGINT", "BIGINT")
TITLES = {
    "severity": "Severity",
    "title": "Finding",
    "subject": "Subject",
    "first": "First",
    "last": "Last",
    "attempts": "Attempts",
    "packets": "Packets",
}
_GRAVEST = ("critical", "high", "medium", "low", "info")


def show(look: Look) -> None:
    """Draw the page."""
    if look.moment.newest is None:
        nothing(look)
        return
    found = gravest_first(look)
    if look.view.place("finding"):
        _opened(look, found)
    if not found:
        notice(
            "Nothing stands out",
            "No scan, sweep, beacon, spike or wrong policy in this time and with these filters.",
            kind="empty",
        )
        return
    counts = {severity: sum(entry.severity == severity for entry in found) for severity in _GRAVEST}
    tiles((severity.capitalize(), f"{count:,}", "") for severity, count in counts.items() if count)
    heading("Findings", "the gravest first; choose one for its evidence")
    rows = rows_of(found)
    table(rows, look.zone, key="findings", titles=TITLES, on_pick=lambda number: _open(look, found[number]))
    downloads([Download("findings", lambda: rows)], look.zone)


def gravest_first(look: Look) -> list[Finding]:
    """What stands out of a look's packets."""
    found = look.ask("findings", partial(_ask, look=look))
    return sorted(found, key=lambda entry: (_GRAVEST.index(entry.severity), -entry.packets, entry.id))


def rows_of(found: list[Finding]) -> Rows:
    """Findings as rows of a table."""
    return Rows(_COLUMNS, _TYPES, [_row(entry) for entry in found])


def _ask(reader: Reader, _: Where, look: Look) -> list[Finding]:
    """Times are given apart: earlier days are what spikes and first-seen pairs are compared with."""
    chosen = where(dict(look.view.filters), now=look.now, zone=look.zone)
    return findings(reader, chosen, since=look.span.since, until=look.span.until)


def _row(entry: Finding) -> tuple[Any, ...]:
    return (
        entry.severity,
        entry.title,
        entry.rule.replace("_", " "),
        entry.subject.name,
        entry.first,
        entry.last,
        entry.attempts,
        entry.packets,
    )


def _open(look: Look, entry: Finding) -> None:
    go(look.view.at(finding=entry.id))


def _opened(look: Look, found: list[Finding]) -> None:
    entry = next((entry for entry in found if entry.id == look.view.place("finding")), None)
    with st.container(border=True, key="finding"):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            heading(entry.title if entry else "Finding")
            st.button("Close", type="tertiary", on_click=lambda: go(look.view.at(finding="")), key="close")
        if entry is None:
            notice("This finding is not among those of this time and these filters", kind="empty")
            return
        _details(look, entry)


def _details(look: Look, entry: Finding) -> None:
    if entry.lower_bound:
        notice("The counts are lower bounds", entry.lower_bound, kind="warning")
    facts((
        ("rule", entry.rule.replace("_", " ")),
        ("severity", entry.severity),
        ("subject", f"{entry.subject.name} ({entry.subject.kind})"),
        ("first", f"{look.local(entry.first):%d %b %Y %H:%M:%S}"),
        ("last", f"{look.local(entry.last):%d %b %Y %H:%M:%S}"),
        ("attempts", f"{entry.attempts:,}"),
        ("packets", f"{entry.packets:,}"),
        ("addresses", ", ".join(entry.subject.addresses)),
        ("targets", _some(entry.targets, entry.target_count)),
        ("ports", _some(tuple(map(str, entry.ports)), entry.port_count)),
        ("protocols", ", ".join(entry.protocols)),
        ("nodes", ", ".join(entry.nodes)),
        ("ATT&CK", entry.technique or "–"),
    ))  # fmt: skip
    st.button("Show its packets", on_click=lambda: _packets(look, entry), key="evidence")
    heading("Its packets in SQL", "for denylog sql, or any DuckDB shell")
    literal(entry.evidence)


def _some(shown: tuple[str, ...], count: int) -> str:
    rest = count - len(shown)
    return ", ".join(shown) + (f" and {rest:,} more" if rest > 0 else "")


def _packets(look: Look, entry: Finding) -> None:
    """The packets of a finding: its addresses, in its time."""
    view = replace(look.view, filters=()).during(_second(look, entry.first, 0), _second(look, entry.last, 1))
    if entry.subject.addresses:
        view = view.filtered("from-ip", entry.subject.addresses)
    go(view, "packets")


def _second(look: Look, moment: datetime, later: int) -> str:
    return look.local(moment + timedelta(seconds=later)).isoformat(timespec="seconds")
