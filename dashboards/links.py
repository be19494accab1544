"""What a page shows, as a link: the filters, the time, the zone and the place on the page, to and from URL parameters.

Rule: pure. Every view can be written as a URL and read back; what a URL holds that cannot be used is left out and told
in one sentence, never an exception. Filters have the names that the command line gives them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from analytics.filters import FILTERS, FilterError, Where, duration, moment, where
from analytics.values import harmless

# Times that a link can name by a word; any other is what --since and --until take.
PRESETS = {
    "": "Newest 24 hours",
    "15m": "Last 15 minutes",
    "1h": "Last hour",
    "6h": "Last 6 hours",
    "24h": "Last 24 hours",
    "7d": "Last 7 days",
    "30d": "Last 30 days",
    "all": "Everything",
}
NEWEST = timedelta(hours=24)
# Seconds between two looks at the store; 0 is never.
REFRESH = {"live": 1, "5s": 5, "30s": 30, "off": 0}
# More values of one filter than this are nobody's intention.
MOST_VALUES = 50
_LONGEST_SHOWN = 60
_TIMES = ("since", "until")
FLAGS = tuple(entry.flag for entry in FILTERS if entry.flag not in _TIMES)


@dataclass(frozen=True, slots=True)
class View:
    """What is shown. `since` is a key of PRESETS or a time, `places` are the page's own parameters, such as the packet
    that is opened. An empty text stands for what the page does if nothing is said."""

    filters: tuple[tuple[str, tuple[str, ...]], ...] = ()
    since: str = ""
    until: str = ""
    zone: str = ""
    refresh: str = ""
    places: tuple[tuple[str, str], ...] = ()

    def values(self, flag: str) -> tuple[str, ...]:
        """The values of one filter."""
        return dict(self.filters).get(flag, ())

    def place(self, name: str) -> str:
        """The page's own parameter of this name, or an empty text."""
        return dict(self.places).get(name, "")

    def filtered(self, flag: str, values: Sequence[str]) -> View:
        """The same with these values of one filter; none take it away."""
        chosen = {**dict(self.filters), flag: tuple(dict.fromkeys(values))}
        return replace(self, filters=tuple((name, chosen[name]) for name in FLAGS if chosen.get(name)))

    def also(self, flag: str, value: str) -> View:
        """The same with one more filter; where it has values, this one takes their place."""
        return self.filtered(flag, [value])

    def at(self, **places: str) -> View:
        """The same with other parameters of the page; an empty text takes one away."""
        chosen = {**dict(self.places), **places}
        return replace(self, places=tuple(sorted((name, value) for name, value in chosen.items() if value)))

    def during(self, since: str, until: str = "") -> View:
        """The same at another time."""
        return replace(self, since=since, until=until)

    def query(self) -> dict[str, str | list[str]]:
        """The parameters of the link, in one order, without what is empty."""
        named = {name: list(values) if len(values) > 1 else values[0] for name, values in self.filters}
        rest = {"since": self.since, "until": self.until, "zone": self.zone, "refresh": self.refresh}
        return {**named, **{name: value for name, value in (*rest.items(), *self.places) if value}}


def read(parameters: Mapping[str, Sequence[str]]) -> tuple[View, tuple[str, ...]]:
    """The view that a link means, and a sentence for each part of it that was left out."""
    problems: list[str] = []
    filters = []
    for flag in FLAGS:
        values = _usable(flag, parameters.get(flag, ()), problems)
        if values:
            filters.append((flag, values))
    single = {name: _single(name, parameters, problems) for name in (*_SINGLE, *_PLACES)}
    view = View(
        filters=tuple(filters),
        **{name: single[name] for name in _SINGLE},
        places=tuple(sorted((name, single[name]) for name in _PLACES if single[name])),
    )
    problems += [
        f"The link's {_shown(name)} is no filter of this page and was left out." for name in _strangers(parameters)
    ]
    return view, tuple(problems)


def _strangers(parameters: Mapping[str, Sequence[str]]) -> list[str]:
    return [name for name in parameters if name not in {*FLAGS, *_SINGLE, *_PLACES}]


def _shown(text: str) -> str:
    """A value of a stranger's, short and without anything that acts."""
    clean = harmless(text)
    return repr(clean if len(clean) <= _LONGEST_SHOWN else f"{clean[:_LONGEST_SHOWN]}…")


def _left_out(name: str, value: str, expected: str) -> str:
    return f"The link's {name} {_shown(value)} was left out: expected {expected}."


def _usable(flag: str, values: Sequence[str], problems: list[str]) -> tuple[str, ...]:
    usable = []
    for value in values[:MOST_VALUES]:
        try:
            where({flag: [value]}, now=datetime.now(UTC), zone=UTC)
            usable.append(value)
        except FilterError as error:
            problems.append(_left_out(flag, value, error.expected))
    if len(values) > MOST_VALUES:
        problems.append(f"Of the link's {len(values)} values of {flag} the first {MOST_VALUES} are used.")
    return tuple(dict.fromkeys(usable))


def _single(name: str, parameters: Mapping[str, Sequence[str]], problems: list[str]) -> str:
    value = (list(parameters.get(name, ())) or [""])[-1]
    usable, expected = {**_SINGLE, **_PLACES}[name]
    if not value or usable(value):
        return value
    problems.append(_left_out(name, value, expected))
    return ""


def _is_time(text: str) -> bool:
    try:
        moment(text, datetime.now(UTC), UTC)
    except (ValueError, OverflowError):
        return False
    return True


def is_zone(name: str) -> bool:
    """Is this the IANA name of a time zone that this machine knows?"""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return False
    return True


_Check = tuple[Callable[[str], bool], str]
_TIME = "a time such as 2026-11-22T10:00+00:00, or a time ago such as 90m or 7d"
_SINGLE: dict[str, _Check] = {
    "since": (lambda text: text in PRESETS or _is_time(text), f"'all' or {_TIME}"),
    "until": (_is_time, _TIME),
    "zone": (is_zone, "a time zone such as UTC or Europe/Berlin"),
    "refresh": (lambda text: text in REFRESH, f"one of {', '.join(REFRESH)}"),
}
SPLITS = ("direction", "protocol", "namespace", "none")
_PLACES: dict[str, _Check] = {
    "address": (lambda text: bool(re.fullmatch(r"[0-9a-fA-F:.]{2,45}", text)), "an address such as 10.0.0.7"),
    "finding": (lambda text: len(text) <= 200, "the name of a finding"),
    "packet": (lambda text: bool(re.fullmatch(r"[\w:.-]{1,128}:\d{1,18}", text)), "a packet's place, FILE:OFFSET"),
    "split": (lambda text: text in SPLITS, f"one of {', '.join(SPLITS)}"),
}


@dataclass(frozen=True, slots=True)
class Span:
    """From when to when; None where that side is open."""

    since: datetime | None
    until: datetime | None


def span(view: View, *, now: datetime, newest: datetime | None, zone: tzinfo) -> Span:
    """The time that a view is about. `newest` is the time of the newest packet, None in an empty store.

    Times ago are rounded down to a five-hundredth of their length, so that the same question is asked for a while and
    its answer can be kept.
    """
    until = moment(view.until, now, zone) if view.until else None
    if view.since == "all":
        return Span(None, until)
    if not view.since:
        return Span((newest or now) - NEWEST, until)
    since = moment(view.since, now, zone)
    try:
        step = duration(view.since).total_seconds() / 500
    except ValueError:
        return Span(since, until)
    return Span(datetime.fromtimestamp(since.timestamp() // step * step, UTC) if step >= 1 else since, until)


def condition(view: View, spent: Span, zone: tzinfo) -> Where:
    """The condition on packets for a view and its time."""
    times = {"since": spent.since, "until": spent.until}
    chosen: dict[str, str | Sequence[str] | None] = {name: found.isoformat() for name, found in times.items() if found}
    return where({**chosen, **dict(view.filters)}, now=datetime.now(UTC), zone=zone)


# Lengths of a bar of the timeline, so that a screen holds between 40 and 150 of them.
_WIDTHS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)
_MOST_BARS = 100


def bar_seconds(length: timedelta) -> int:
    """How many seconds one bar of a timeline stands for, where the whole of it has this length."""
    seconds = max(length.total_seconds(), 1)
    fitting = next((width for width in _WIDTHS if seconds / width <= _MOST_BARS), None)
    days = -(-seconds // (86_400 * _MOST_BARS))
    return fitting or int(days) * 86_400
