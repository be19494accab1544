"""The first page: how much is denied, when, by whom, where to, and what is new since yesterday.

Rule: every bar leads to the packets behind it: a click on one filters by it, a click on a time shows that time.
"""

from __future__ import annotations

from dataclasses import dataclass
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
    packets_by_time,
    ranked_in,
    ranking,
)
from dashboards.questions import Fresh, Totals
from dashboards.tables import Download, ago, downloads, table

_NEW_SHOWN = 100
_NEW_LASTS_S = 60
_RANKINGS = (SOURCES, DESTINATIONS, PORTS, WORKLOADS)


@dataclass(frozen=True, slots=True)
class Beside:
    """What stands beside the figures and takes longer to find: the trend, what is new, and a remark on that."""

    trend: str
    fresh: Fresh | None
    remark: str


_UNKNOWN = Beside("", None, "being compared")


def show(look: Look) -> None:
    """Draw the page: figures and timeline first, what looks further back last."""
    total = look.ask("totals", questions.totals)
    if not total.packets:
        nothing(look)
        return
    kept = look.kept("beside")
    early = kept.value if kept else _UNKNOWN
    figures = st.empty()
    with figures:
        _figures(look, total, early)
    entries = [over_time(look, total)]
    for pair in (_RANKINGS[:2], _RANKINGS[2:]):
        for column, entry in zip(st.columns(2, gap="large"), pair, strict=True):
            with column:
                entries.append(ranking(look, entry))
    beside = _beside(look, total)
    if beside != early:
        with figures:
            _figures(look, total, beside)
    _new(look, beside.fresh)
    downloads([*entries, *_download(beside.fresh)], look.zone)


def ahead(look: Look) -> None:
    """Ask what `show` will ask, in its order."""
    total = look.ask("totals", questions.totals)
    if total.packets:
        packets_by_time(look, total)
        ranked_in(look, SOURCES.grouping)
        _beside(look, total)


def _beside(look: Look, total: Totals) -> Beside:
    trend = _trend(look, total.packets)
    fresh = _fresh(look)
    found = Beside(trend, fresh, "who, where to and port" if fresh else "no earlier day to compare")
    look.keep("beside", found)
    return found


def _fresh(look: Look) -> Fresh | None:
    """What is new, asked once a minute: it looks at a month, and packets come faster than that can be done."""
    kept = look.kept("new")
    if kept and kept.age_s < _NEW_LASTS_S:
        known: Fresh | None = kept.value
        return known
    edge = (look.moment.newest or look.now) - NEWEST
    found = look.ask("new", partial(questions.new_pairs, edge=edge, limit=_NEW_SHOWN), edge)
    look.keep("new", found)
    return found


def _figures(look: Look, total: Totals, beside: Beside) -> None:
    last = total.last
    tiles((
        ("Denied packets", f"{total.packets:,}", beside.trend),
        ("Sources", f"{total.sources:,}", f"seen by {many(total.nodes, 'node')}"),
        ("Destinations", f"{total.destinations:,}", many(total.ports, "port")),
        ("New since yesterday", f"{beside.fresh.pairs:,}" if beside.fresh else "–", beside.remark),
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


def _download(fresh: Fresh | None) -> list[Download]:
    return [Download("new", lambda: fresh.rows)] if fresh else []
