"""What a page has to work with: the view that its link means, the store at this moment, and the ways to somewhere else.

Rule: the URL is the only memory. A click makes a new view and goes there; nothing else decides what is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import streamlit as st

from analytics.filters import Where
from analytics.reader import Reader
from dashboards import links
from dashboards.desk import Desk, Kept, Moment, desk_of, key_of
from dashboards.links import Span, View
from dashboards.settings import current

T = TypeVar("T")
_GO = "denylog-go"


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the store: every question of it is about the same snapshot, time and condition."""

    view: View
    desk: Desk
    moment: Moment
    span: Span
    where: Where
    zone: tzinfo
    now: datetime
    heed: Callable[[], object] | None

    @property
    def zone_name(self) -> str:
        """The IANA name of the zone."""
        return self.view.zone or current().zone

    def ask(self, name: str, question: Callable[[Reader, Where], T], *more: Hashable) -> T:
        """The answer to a question about the view's packets; `name` and `more` tell it from others."""
        key = (name, *more, key_of(self.where))
        snapshot = self.moment.snapshot
        return self.desk.ask(snapshot, self.zone_name, key, lambda reader: question(reader, self.where), self.heed)

    def keep(self, name: str, value: object) -> None:
        """Keep what was found for this view, for all who look at it, although there may be newer packets by then."""
        self.desk.keep(self._kept_as(name), value)

    def kept(self, name: str) -> Kept | None:
        """What was kept under this name for this view."""
        return self.desk.kept(self._kept_as(name))

    def _kept_as(self, name: str) -> Hashable:
        return name, self.zone_name, self.view.filters, self.view.since, self.view.until

    def shown(self, view: View) -> Look:
        """The same look, at what another view shows."""
        span = links.span(view, now=self.now, newest=self.moment.newest, zone=self.zone)
        return replace(self, view=view, span=span, where=links.condition(view, span, self.zone))

    def local(self, moment: datetime) -> datetime:
        """A time in the view's zone."""
        return moment.astimezone(self.zone)


def view_of_link() -> tuple[View, tuple[str, ...]]:
    """The view that the browser's address means, and what of it was left out."""
    return links.read({name: st.query_params.get_all(name) for name in st.query_params})


def look(view: View) -> Look:
    """Look at the store now; raises StoreError where that cannot be."""
    desk = desk_of(current().store)
    name = view.zone or current().zone
    zone = ZoneInfo(name)
    now = datetime.now(UTC)
    moment = desk.moment(name, now)
    span = links.span(view, now=now, newest=moment.newest, zone=zone)
    return Look(view, desk, moment, span, links.condition(view, span, zone), zone, now, heed_browser)


def heed_browser() -> None:
    """End this run of the script where the browser wants something else by now: Streamlit looks for that whenever the
    session is asked for something."""
    _ = _GO in st.session_state


def go(view: View, page: str = "") -> None:
    """Show this view, on this page (else on the same one), as soon as the script runs again; for callbacks."""
    st.session_state[_GO] = (page, view.query())


def departed() -> tuple[str, dict[str, Any]] | None:
    """Where a callback wants to go; asked once."""
    found: tuple[str, dict[str, Any]] | None = st.session_state.pop(_GO, None)
    return found


def leave_fragment() -> None:
    """In a part that refreshes by itself: run the whole page where a callback wants to go somewhere."""
    if _GO in st.session_state:
        st.rerun()
