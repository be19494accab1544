"""The first page: how much is denied, when, by whom, where to, and what is new since yesterday.

Rule: every bar leads to the packets behind it: a click on one filters by it, a click on a time shows that time.
"""

from __future__ import annotations

from functools import partial

import streamlit as st

from dashboards import questions
from dashboards.empty import nothing
from dashboards.links import NEWEST
from dashboards.look import Look
from dashboards.markup import heading, notice, tiles
from dashboards.panels import (
    DESTINATIONS,
    PAIR_TITLES,
    PORTS,
    SOURCES,
    WORKLOADS,
    many,
    open_pair,
    over_time,
    ranking,
)
from dashboards.questions import Fresh, Totals
from dashboards.tables import Download, ago, downloads, table

_NEW_SHOWN = 100
_NEW_NOTE = {True: "who, where to and port", False: "no earlier day to compare"}
_RANKINGS = (SOURCES, DESTINATIONS, PORTS, WORKLOADS)


def show(look: Look) -> None:
    """Draw the page."""
    total = look.ask("totals", questions.totals)
    if not total.packets:
        nothing(look)
        return
    edge = (look.moment.newest or look.now) - NEWEST
    fresh = look.ask("new", partial(questions.new_pairs, edge=edge, limit=_NEW_SHOWN))
    _figures(look, total, fresh)
    entries = [over_time(look, total)]
    for pair in (_RANKINGS[:2], _RANKINGS[2:]):
        for column, entry in zip(st.columns(2, gap="large"), pair, strict=True):
            with column:
                entries.append(ranking(look, entry))
    _new(look, fresh)
    downloads([*entries, *([Download("new", lambda: fresh.rows)] if fresh else [])], look.zone)


def _figures(look: Look, total: Totals, fresh: Fresh | None) -> None:
    last = total.last
    tiles((
        ("Denied packets", f"{total.packets:,}", _trend(look, total.packets)),
        ("Sources", f"{total.sources:,}", f"seen by {many(total.nodes, 'node')}"),
        ("Destinations", f"{total.destinations:,}", many(total.ports, "port")),
        ("New since yesterday", f"{fresh.pairs:,}" if fresh else "–", _NEW_NOTE[bool(fresh)]),
        ("Last denied", ago(last, look.now) if last else "–", f"{look.local(last):%d %b %Y %H:%M:%S}" if last else ""),
    ))  # fmt: skip


def _trend(look: Look, packets: int) -> str:
    """How this compares with as long a time before."""
    if look.span.since is None:
        return ""
    until = look.span.until or look.moment.newest or look.now
    before = look.span.since - (until - look.span.since)
    view = look.view.during(before.isoformat(), look.span.since.isoformat())
    earlier = look.shown(view).ask("count", questions.count)
    if not earlier:
        return "none in the time before"
    ratio = packets / earlier
    return f"{ratio:,.1f} times the time before" if ratio >= 2 else f"{ratio - 1:+.0%} against the time before"


def _new(look: Look, fresh: Fresh | None) -> None:
    heading("New since yesterday", "denied in the newest 24 hours, and not in the 30 days before")
    if fresh is None:
        notice("There is no earlier day in the store to compare with.", kind="empty")
    elif not fresh.pairs:
        notice("Nothing new: everything denied here was denied before.", kind="empty")
    else:
        rows = fresh.rows.dicts()
        table(
            fresh.rows, look.zone, key="new", titles=PAIR_TITLES, on_pick=lambda number: open_pair(look, rows[number])
        )
