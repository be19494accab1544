"""The script that Streamlit runs for every visit and every click: frame, filters, and the page that was asked for.

Rule: whatever goes wrong is a sentence on the page, with what to do. The part below the controls refreshes by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

import streamlit as st

from analytics.filters import FilterError
from analytics.guard import QueryError
from analytics.store import StoreError
from dashboards import controls, findings, health, overview, packets, policy, source
from dashboards.links import View
from dashboards.look import Look, departed, leave_fragment, look, view_of_link
from dashboards.markup import notice, show, style, tag
from dashboards.settings import current


@dataclass(frozen=True, slots=True)
class Page:
    """One page: its name in the URL, its title, what it is for, its icon, and whether filters mean anything on it."""

    name: str
    title: str
    purpose: str
    icon: str
    module: ModuleType
    filtered: bool = True
    refresh: str = "30s"


# From this folder: an icon by name would be fetched from a server of Google.
ICON = Path(__file__).with_name("icon.svg")

PAGES = (
    Page(
        "overview", "Overview", "Who is denied, when, and what is new", ":material/monitoring:", overview, refresh="5s"
    ),
    Page("sources", "Sources", "One address: what it tried, and who had it", ":material/lan:", source),
    Page("packets", "Packets", "Single denied packets as they come", ":material/list_alt:", packets, refresh="live"),
    Page("findings", "Findings", "What stands out, with its evidence", ":material/flag:", findings),
    Page("policies", "Policies", "Why it was denied, and what would allow it", ":material/policy:", policy),
    Page(
        "health", "Health", "Is every line accounted for?", ":material/ecg_heart:", health, filtered=False, refresh="5s"
    ),
)


def main() -> None:
    """Draw the page that the URL names."""
    st.set_page_config(page_title="denylog", page_icon=ICON, layout="wide")
    style()
    native = {
        page.name: st.Page(
            partial(draw, page), title=page.title, icon=page.icon, url_path=page.name, default=page is PAGES[0]
        )
        for page in PAGES
    }
    chosen = st.navigation(list(native.values()), position="hidden")
    going = departed()
    if going and going[0] and going[0] != (chosen.url_path or PAGES[0].name):
        st.switch_page(native[going[0]], query_params=going[1])
    if going:
        st.query_params.from_dict(going[1])
    view, _ = view_of_link()
    with st.sidebar:
        show(tag("div", "denylog", tag("small", "denied traffic"), css="dl-brand"))
        for page in PAGES:
            st.page_link(
                native[page.name], label=page.title, icon=page.icon, query_params=carried(view), width="stretch"
            )
    chosen.run()


def carried(view: View) -> dict[str, str | list[str]]:
    """What goes along to another page: all but the places on this one, and its refresh."""
    return View(filters=view.filters, since=view.since, until=view.until, zone=view.zone).query()


def draw(page: Page) -> None:
    """One page: controls, then the part that refreshes."""
    view, problems = view_of_link()
    seen, trouble = looked(view)
    offered = controls.hints(seen) if seen else {}
    if page.filtered:
        controls.sidebar(offered, view)
    every = head(page, view, seen)
    if problems:
        notice("Not all of this link can be used", *problems, kind="warning")
    if said := st.session_state.pop("denylog-said", ""):
        notice(said, kind="warning")
    if trouble:
        tell(trouble)
        every = 5
    if page.filtered:
        controls.custom_times(view)
        controls.chips(view)
    part = partial(body, page, view, [(seen, trouble)])
    if every:
        st.fragment(part, run_every=every)()
    else:
        # Not even as a fragment without an interval: the browser goes on asking for one that had an interval before.
        part()
    if page.filtered and seen:
        offer(seen, offered)


def offer(seen: Look, offered: controls.Hints) -> None:
    """Let the filters offer what there is: last, since a page is looked at before it is filtered."""
    try:
        if controls.find_hints(seen, offered):
            st.rerun()
    except (StoreError, QueryError, FilterError):
        # The page has said it already, or its next look will.
        return


Looked = tuple[Look | None, Exception | None]


def looked(view: View) -> Looked:
    """A look at the store, or what kept us from it."""
    try:
        return look(view), None
    except (StoreError, QueryError, FilterError) as error:
        return None, error


def head(page: Page, view: View, seen: Look | None) -> float | None:
    """The title and the controls beside it; returns the seconds between two looks."""
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        show(tag("div", tag("h1", page.title), tag("p", page.purpose), css="dl-title"))
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="right", width="content"):
            if page.filtered:
                controls.time_control(view, seen)
            return controls.refresh_control(view, page.refresh)


def body(page: Page, view: View, first: list[Looked]) -> None:
    """What the page shows: at first of the look that its head is of, later of another."""
    leave_fragment()
    seen, trouble = first.pop() if first else looked(view)
    if trouble:
        st.session_state["denylog-trouble"] = True
        return
    if st.session_state.pop("denylog-trouble", False):
        st.rerun()
    try:
        page.module.show(seen)
    except (StoreError, QueryError, FilterError) as error:
        tell(error)


def tell(error: Exception) -> None:
    """An error as a sentence, and what to do."""
    if not isinstance(error, StoreError):
        notice("This question cannot be answered", str(error), kind="error")
        return
    store = current().store
    commands = {
        "there is no store": f"denylog collect --store {store} /var/log/syslog",
        "start `denylog collect`": f"denylog ingest --store {store} /dev/null",
    }
    command = next((command for sign, command in commands.items() if sign in f"{error.what}; {error.do}"), "")
    notice("The store cannot be shown", f"{error}.", kind="error", command=command)


if __name__ == "__main__":
    main()
