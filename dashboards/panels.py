"""Parts that several pages have: packets over time, and rankings that a click filters by.

Rule: a mark that is clicked leads somewhere, and does not stay marked afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import streamlit as st

from analytics.reader import Rows
from dashboards import charts, questions
from dashboards.charts import PICK, Bar, Slice
from dashboards.links import SPLITS, bar_seconds
from dashboards.look import Look, go
from dashboards.markup import heading, notice
from dashboards.questions import Totals
from dashboards.tables import Download
from dashboards.theme import Theme, named

_SHOWN = 8
# How many values a filter offers.
HINTS = 40
LISTS = ("source", "destination", "port", "workload", "node")
_SPLIT_NAMES = {"direction": "Direction", "protocol": "Protocol", "namespace": "Namespace", "none": "Total"}
# Each of these keeps its colour whatever else is there.
_ORDER = {"direction": ("ingress", "egress", "host", "pod to pod"), "protocol": ("tcp", "udp", "icmp", "icmpv6")}
_UNNAMED = {"direction": "pod to pod", "protocol": "none", "namespace": "no pod", "none": "denied packets"}


@dataclass(frozen=True, slots=True)
class Ranking:
    """A list of what is denied most: title, the grouping behind it, the flag that a click sets, the key's column."""

    title: str
    grouping: str
    flag: str
    column: str


SOURCES = Ranking("Top sources", "source", "from-ip", "source_ip")
DESTINATIONS = Ranking("Top destinations", "destination", "to-ip", "destination_ip")
PORTS = Ranking("Top ports", "port", "to-port", "destination_port")
NODES = Ranking("Top nodes", "node", "node", "node")
WORKLOADS = Ranking("Top denied workloads", "workload", "workload", "workload")


def many(number: int, what: str) -> str:
    """'1 node', '2,000 nodes'."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def clickable(chart: str, name: str, on_pick: Callable[[Mapping[str, Any]], None]) -> None:
    """A chart whose marks lead somewhere; it gets a new name when one was clicked, so that none stays marked."""
    key = f"{name}-{st.session_state.setdefault(f'{name}-turn', 0)}"

    def picked() -> None:
        points = st.session_state[key]["selection"][PICK]
        if points:
            st.session_state[f"{name}-turn"] += 1
            on_pick(points[0])

    st.vega_lite_chart(None, json.loads(chart), key=key, on_select=picked, selection_mode=PICK, width="stretch")


def over_time(look: Look, total: Totals) -> Download:
    """The timeline of a look's packets, and what to choose its colours by."""
    split, seconds = _split(look), _width(look, total)
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        heading("Denied packets over time", f"one bar is {_length(seconds)}")
        st.session_state["split"] = split
        st.segmented_control(
            "Colour by",
            list(SPLITS),
            key="split",
            format_func=lambda name: _SPLIT_NAMES[name],
            required=True,
            label_visibility="collapsed",
            on_change=lambda: go(look.view.at(split=st.session_state["split"] or "")),
        )
    rows = packets_by_time(look, total)
    slices = tuple(Slice(look.local(start), name or _UNNAMED[split], packets) for start, name, packets in rows.rows)
    title = "" if split == "none" else _SPLIT_NAMES[split]
    chart = charts.timeline(slices, seconds, _domain(look, total), _colours(slices, split), title)
    clickable(chart, "timeline", lambda point: go(look.view.during(point["start_iso"], point["end_iso"])))
    return Download("timeline", lambda: rows)


def packets_by_time(look: Look, total: Totals) -> Rows:
    """The bars of the timeline, whose width and colours the view decides."""
    split, seconds = _split(look), _width(look, total)
    return look.ask("by-time", partial(questions.by_time, seconds=seconds, split=split), seconds, split)


def _split(look: Look) -> str:
    return look.view.place("split") or "direction"


def _colours(slices: Sequence[Slice], split: str) -> tuple[tuple[str, str], ...]:
    """The series that are there, in their order, each with its colour; well-known ones keep theirs at all times."""
    there = {found.series for found in slices}
    known = _ORDER.get(split, ())
    names = [*known, *sorted(there.difference(known), key=lambda name: (name == questions.OTHERS, name))]
    series = theme_of_browser().series
    return tuple((name, series[place % len(series)]) for place, name in enumerate(names) if name in there)


def theme_of_browser() -> Theme:
    """The colours of the theme that the browser shows."""
    return named(st.context.theme.type)


def _length(seconds: int) -> str:
    for name, size in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds % size == 0:
            return many(seconds // size, name)
    return many(seconds, "second")


def _domain(look: Look, total: Totals) -> tuple[datetime, datetime]:
    """What the time axis covers: the view's time, or where that is open the packets'."""
    since = look.span.since or total.first or look.now
    latest = {"": look.moment.newest, "all": total.last}.get(look.view.since, look.now)
    until = look.span.until or latest or look.now
    return look.local(since), look.local(max(until, since + timedelta(seconds=1)))


def _width(look: Look, total: Totals) -> int:
    since, until = _domain(look, total)
    return bar_seconds(until - since)


def ranking(look: Look, entry: Ranking) -> Download:
    """One list of what is denied most; a click filters by it."""
    heading(entry.title)
    found = _top(look, entry)
    bars = tuple(_bar(look, entry, row) for row in found.dicts() if row[entry.column] is not None)
    if not bars:
        notice("None of these packets has one.", kind="empty")
    else:
        chart = charts.ranking(bars, entry.grouping.capitalize(), theme_of_browser())
        clickable(chart, f"top-{entry.grouping}", lambda point: go(look.view.also(entry.flag, str(point["key"]))))
    return Download(f"top-{entry.grouping}s", lambda: found)


def _top(look: Look, entry: Ranking) -> Rows:
    found = ranked_in(look, entry.grouping)
    return Rows(found.columns, found.types, found.rows[:_SHOWN])


def ranked_in(look: Look, by: str) -> Rows:
    """What is denied most, found for all lists of a page at once."""
    return ranked_together(look, LISTS if by in LISTS else (by,))[by]


def ranked_together(look: Look, names: tuple[str, ...]) -> dict[str, Rows]:
    """What is denied most, by each of these."""
    return look.ask("ranked", lambda reader, where: questions.ranked(reader, where, names, HINTS), names)


def _bar(look: Look, entry: Ranking, row: Mapping[str, Any]) -> Bar:
    keys = [str(row[name]) for name in questions.RANKED[entry.grouping] if row[name] is not None]
    label = ("/" if entry.grouping == "workload" else " ").join(keys)
    times = (look.local(row[name]).strftime("%d %b %H:%M:%S") for name in ("first", "last") if row[name])
    # Workloads of one name in two namespaces are two.
    key = label if entry.grouping == "workload" else str(row[entry.column])
    return Bar(key, label, row["packets"], " to ".join(times))


PAIR_TITLES = {
    "source_ip": "Source",
    "destination_ip": "Destination",
    "protocol": "Protocol",
    "destination_port": "Port",
    "packets": "Packets",
    "first": "First",
    "last": "Last",
}


def open_pair(look: Look, row: Mapping[str, Any]) -> None:
    """Go to the packets of one source, destination and port."""
    view = look.view
    for flag, column in (("from-ip", "source_ip"), ("to-ip", "destination_ip"), ("to-port", "destination_port")):
        if row[column] is not None:
            view = view.also(flag, str(row[column]))
    go(view, "packets")
