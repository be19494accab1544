"""The filters, the time and the refresh: widgets that show what the link says, and make a new link when changed.

Rule: a widget's value is set from the view before it is drawn, so link and widgets cannot disagree. Values are shown by
widgets that take no markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any
from zoneinfo import available_timezones

import streamlit as st

from analytics.filters import FilterError, moment, where
from analytics.reader import Rows
from dashboards import links, questions
from dashboards.links import PRESETS, REFRESH, View
from dashboards.look import Look, go
from dashboards.panels import LISTS, ranked_together
from dashboards.settings import current

_CUSTOM = "custom"
_REFRESH_NAMES = {"live": "Live", "5s": "5 s", "30s": "30 s", "off": "Off"}
COMMON_ZONES = ("UTC", "Europe/London", "Europe/Berlin", "America/New_York", "America/Los_Angeles", "Asia/Tokyo")


@dataclass(frozen=True, slots=True)
class Field:
    """One filter of the sidebar: its flag, its title, what to type, and the question that finds its values."""

    flag: str
    title: str
    example: str = ""
    grouping: str = ""
    fixed: tuple[str, ...] = ()


# Of these, the ones that the store's filters have.
_FIELDS = (
    Field("namespace", "Namespace", "shop or shop-*", "namespace"),
    Field("workload", "Workload", "shop/web", "workload"),
    Field("from-workload", "Source workload", "shop/web", "source workload"),
    Field("to-workload", "Destination workload", "shop/db", "destination workload"),
    Field("from-pod", "Source pod", "shop/web-*", "source pod"),
    Field("to-pod", "Destination pod", "shop/db-*", "destination pod"),
    Field("to-service", "Destination service", "shop/db", "destination service"),
    Field("direction", "Direction", "", "", ("ingress", "egress", "host")),
    Field("protocol", "Protocol", "", "", ("tcp", "udp", "icmp", "icmpv6", "sctp")),
    Field("to-port", "Destination port", "443 or 8000-8999", "port"),
    Field("from-ip", "Source address", "10.0.0.7 or 10.1.0.0/16", "source"),
    Field("to-ip", "Destination address", "10.0.0.7 or 10.1.0.0/16", "destination"),
    Field("ip", "Either address", "10.0.0.7 or fd00::/8"),
    Field("class", "Class", "public, node, …", "class"),
    Field("node", "Node", "worker-*", "node"),
    Field("policy", "Denied or logged by policy", "shop/default-deny", "policy"),
)
FIELDS = tuple(field for field in _FIELDS if field.flag in links.FLAGS)
# Values that are written as NAMESPACE/NAME.
_PAIRED = ("workload", "pod", "service")
# What filters offer may be so many seconds old: it is a help for typing, and finding it takes longer than a page.
_HINTS_LAST_S = 60.0
_ASKED = tuple(dict.fromkeys(field.grouping for field in FIELDS if field.grouping))

Hints = dict[str, Rows]


def hints(seen: Look) -> Hints:
    """The values that exist in a view's time, as somebody found them last; filters offer what there is without them."""
    kept = _unfiltered(seen).kept("hints")
    return kept.value if kept else {}


def find_hints(seen: Look, offered: Hints) -> bool:
    """Ask which values exist; says whether the filters, which offer these now, are to be drawn anew.

    For after the page has been drawn.
    """
    free = _unfiltered(seen)
    kept = free.kept("hints")
    if kept and kept.age_s < _HINTS_LAST_S:
        found = kept.value
    else:
        rest = tuple(name for name in _ASKED if name not in LISTS)
        found = {**ranked_together(free, LISTS), **ranked_together(free, rest)}
        free.keep("hints", found)
    return bool(found != offered)


def _unfiltered(seen: Look) -> Look:
    return seen.shown(replace(seen.view, filters=()))


def sidebar(offered: Hints, view: View) -> None:
    """All filters; each offers the values that exist, and how often."""
    with st.sidebar:
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            st.markdown("**Filters**")
            if view.filters:
                st.button("Clear", type="tertiary", on_click=partial(go, replace(view, filters=())), key="clear")
        for field in FIELDS:
            _field(field, offered, view)
        _zone(view)


def _field(field: Field, offered: Hints, view: View) -> None:
    counts = _counts(field, offered)
    chosen = list(view.values(field.flag))
    options = list(dict.fromkeys([*chosen, *counts, *field.fixed]))
    key = f"filter-{field.flag}"
    st.session_state[key] = chosen
    st.multiselect(
        field.title,
        options,
        key=key,
        format_func=partial(_with_count, counts),
        accept_new_options=not field.fixed,
        placeholder=field.example or "Any",
        on_change=partial(_chosen, field.flag, view),
    )


def _with_count(counts: dict[str, int], value: str) -> str:
    return f"{value}  ({counts[value]:,})" if value in counts else value


def _counts(field: Field, offered: Hints) -> dict[str, int]:
    """The values that exist in the view's time, most frequent first, and the packets that have them."""
    if field.grouping not in offered:
        return {}
    found: dict[str, int] = {}
    names = questions.RANKED[field.grouping]
    for row in offered[field.grouping].dicts():
        for value in _values(field, [row[name] for name in names]):
            found[value] = found.get(value, 0) + row["packets"]
    return found


def _values(field: Field, keys: Sequence[Any]) -> list[str]:
    """What a filter would be given for a key; none where it is not known."""
    if keys[-1] is None:
        return []
    if field.grouping == "policy":
        # "KubernetesNetworkPolicy shop/db": the filter takes what follows the kind.
        return [name.partition(" ")[2] for name in keys[-1]]
    return ["/".join(map(str, filter(None, keys))) if field.grouping.endswith(_PAIRED) else str(keys[-1])]


def _chosen(flag: str, view: View) -> None:
    """A filter was changed; what cannot be used is said and not taken."""
    values = [str(value).strip() for value in st.session_state[f"filter-{flag}"]]
    usable = []
    for value in values:
        try:
            where({flag: [value]}, now=datetime.now(UTC), zone=UTC)
            usable.append(value)
        except FilterError as error:
            st.session_state["denylog-said"] = f"{value!r} cannot be used here: expected {error.expected}."
    go(view.filtered(flag, usable))


def _zone(view: View) -> None:
    name = view.zone or current().zone
    options = list(dict.fromkeys([name, current().zone, *COMMON_ZONES, *_zones()]))
    st.session_state["zone"] = name
    st.selectbox("Time zone", options, key="zone", on_change=lambda: go(_in_zone(view, st.session_state["zone"])))


@cache
def _zones() -> tuple[str, ...]:
    """All zones, for which Python opens hundreds of files."""
    return tuple(sorted(available_timezones()))


def _in_zone(view: View, zone: str) -> View:
    return replace(view, zone="" if zone == current().zone else zone)


def chips(view: View) -> None:
    """The filters in force, each of which can be taken away."""
    entries = {f"{flag}: {value}": (flag, value) for flag, values in view.filters for value in values}
    if not entries:
        return
    st.session_state["chips"] = list(entries)
    st.multiselect(
        "Filters in force",
        list(entries),
        key="chips",
        label_visibility="collapsed",
        on_change=lambda: go(_without(view, entries, st.session_state["chips"])),
    )


def _without(view: View, entries: dict[str, tuple[str, str]], kept: Sequence[str]) -> View:
    for label, (flag, value) in entries.items():
        if label not in kept:
            view = view.filtered(flag, [other for other in view.values(flag) if other != value])
    return view


def time_control(view: View, seen: Look | None) -> None:
    """Presets, and from and until for any other time."""
    preset = view.since if view.since in PRESETS and not view.until else _CUSTOM
    st.session_state["time"] = preset
    st.selectbox(
        "Time",
        [*PRESETS, _CUSTOM],
        key="time",
        format_func=lambda name: PRESETS.get(name, "Custom"),
        label_visibility="collapsed",
        on_change=lambda: _preset(view, seen),
        width=190,
    )


def _preset(view: View, seen: Look | None) -> None:
    chosen = st.session_state["time"]
    if chosen != _CUSTOM:
        go(view.during(chosen))
    elif seen and seen.moment.newest:
        since = seen.span.since or seen.moment.newest - links.NEWEST
        until = seen.span.until or seen.moment.newest
        go(view.during(_written(seen.local(since)), _written(seen.local(until))))


def _written(moment: datetime) -> str:
    """A time in a link: whole seconds, with its offset, so that it means the same to everybody."""
    return moment.isoformat(timespec="seconds")


def custom_times(view: View) -> None:
    """From and until, in the words of the command line; only where a time of one's own was chosen."""
    if view.since in PRESETS and not view.until:
        return
    with st.container(horizontal=True):
        for name, title in (("since", "From"), ("until", "Until")):
            st.session_state[f"custom-{name}"] = getattr(view, name)
            st.text_input(
                title,
                key=f"custom-{name}",
                placeholder="2026-11-20 09:00, or 90m ago as 90m",
                on_change=partial(_custom, view, name),
                width=260,
            )


def _custom(view: View, name: str) -> None:
    text = st.session_state[f"custom-{name}"].strip()
    try:
        if text and text not in PRESETS:
            moment(text, datetime.now(UTC), UTC)
        go(replace(view, **{name: text}))
    except (ValueError, OverflowError):
        st.session_state["denylog-said"] = f"{text!r} is no time: write 2026-11-20 09:00, or 90m for so long ago."


def refresh_control(view: View, default: str) -> float | None:
    """How often the page looks again; returns the seconds between two looks, None for never."""
    chosen = view.refresh or default
    st.session_state["refresh"] = chosen
    st.segmented_control(
        "Refresh",
        list(REFRESH),
        key="refresh",
        required=True,
        format_func=lambda name: _REFRESH_NAMES[name],
        label_visibility="collapsed",
        on_change=lambda: go(replace(view, refresh=st.session_state["refresh"] or "off")),
    )
    return REFRESH[chosen] or None
