"""The first page: how much is denied, when, by whom, where to, and what is new since yesterday.

Rule: every bar leads to the packets behind it: a click on one filters by it, a click on a time shows that time.
"""

from __future__ import annotations

from collections.abc import Hashable

import streamlit as st

from analytics.reader import Reader
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
_NEW_LASTS_S = 60
_RANKINGS = (SOURCES, DESTINATIONS, PORTS, WORKLOADS)


def show(look: Look) -> None:
    """Draw the page."""
    total = look.ask("totals", questions.totals)
    if not total.packets:
        nothing(look)
        return
    figures = st.empty()
    compared = _new_question(look)
    if not look.desk.knows(0, look.zone_name, compared):
        with figures:
            _figures(look, total, None, "being compared")
    entries = [over_time(look, total)]
    for pair in (_RANKINGS[:2], _RANKINGS[2:]):
        for column, entry in zip(st.columns(2, gap="large"), pair, strict=True):
            with column:
                entries.append(ranking(look, entry))
    # Asked last, since it looks at a month, and not of this snapshot: packets come faster than that can be done.
    fresh = look.desk.ask(0, look.zone_name, compared, lambda reader: _ask_new(reader, look))
    with figures:
        _figures(look, total, fresh, "who, where to and port" if fresh else "no earlier day to compare")
    _new(look, fresh)
    downloads([*entries, *([Download("new", lambda: fresh.rows)] if fresh else [])], look.zone)


def _new_question(look: Look) -> Hashable:
    """What tells this question from others; the same for a minute."""
    view = look.view
    return (
        "new",
        view.filters,
        view.since,
        view.until,
        int(look.now.timestamp() // _NEW_LASTS_S),
        not look.moment.newest,
    )


def _ask_new(reader: Reader, look: Look) -> Fresh | None:
    edge = (look.moment.newest or look.now) - NEWEST
    return questions.new_pairs(reader, look.where, edge, _NEW_SHOWN)


def _figures(look: Look, total: Totals, fresh: Fresh | None, note: str) -> None:
    last = total.last
    tiles((
        ("Denied packets", f"{total.packets:,}", _trend(look, total.packets)),
        ("Sources", f"{total.sources:,}", f"seen by {many(total.nodes, 'node')}"),
        ("Destinations", f"{total.destinations:,}", many(total.ports, "port")),
        ("New since yesterday", f"{fresh.pairs:,}" if fresh else "–", note),
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
