"""Charts: packets over time, and rankings. Colours come from the theme, in the order of `theme.series`.

Rule: pure, data in and a chart out, as the JSON of Vega-Lite with its data. Each mark tells its figures when pointed
at, and can be clicked (`PICK`). Labels are data, never code: no expression is made from what came out of a log.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import altair as alt
from altair.utils import schemapi

from dashboards.theme import Theme

# Altair compares each part of a chart with the schema of Vega-Lite as soon as it is made, which takes longer than all
# else on a page. The tests compare whole charts.
schemapi.disable_debug_mode()

PICK = "pick"
# Stands for the data until it is put in: without any, Altair names one that Vega then misses.
_ROWS = alt.NamedData("rows")
# So many charts are kept: a page has five, and draws the same ones for everybody until there are new packets.
_KEPT = 128
_LABEL_PIXELS = 190
_ROW_PIXELS = 26
_EDGE_PIXELS = 22
_TIMELINE_PIXELS = 270


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a ranking: what a click on it hands over, what stands beside it, its length, and a remark."""

    key: str
    label: str
    packets: int
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Slice:
    """Packets of one series in one stretch of time, which begins at `start`."""

    start: datetime
    series: str
    packets: int


def wall(moment: datetime) -> int:
    """A time as the milliseconds of its own wall clock: Vega knows UTC and the browser's zone, and no other.

    Where clocks are set back, two hours have the same place on the axis; what a bar tells when pointed at has both.
    """
    return int(moment.replace(tzinfo=UTC).timestamp() * 1000)


# Ticks at midnight name the day. A constant: nothing that was logged is part of it.
_TICK = (
    "utcFormat(datum.value, utchours(datum.value) + utcminutes(datum.value) + utcseconds(datum.value) == 0 "
    "? '%a %d %b' : utcseconds(datum.value) == 0 ? '%H:%M' : '%H:%M:%S')"
)


@lru_cache(_KEPT)
def timeline(
    slices: tuple[Slice, ...],
    seconds: int,
    domain: tuple[datetime, datetime],
    colours: tuple[tuple[str, str], ...],
    title: str,
) -> str:
    """Stacked bars of packets over time; `domain` is what the axis covers, `colours` the series in their order."""
    names = [name for name, _ in colours]
    values, peak = _stacked(slices, seconds, names)
    pick = alt.selection_point(name=PICK, fields=["start_iso", "end_iso"], on="click", empty=False)
    edges = (wall(domain[0]), wall(domain[1]))
    x = alt.X(
        "start:Q",
        title=None,
        scale=alt.Scale(domain=list(edges), nice=False),
        axis=alt.Axis(grid=False, labelOverlap=True, labelFlush=True, labelExpr=_TICK, values=ticks(*edges)),
    )
    y = alt.Y(
        "below:Q",
        title=None,
        scale=alt.Scale(domain=[0, max(peak, 1)], nice=True),
        axis=alt.Axis(format="~s" if peak >= 100_000 else ",d", tickCount=4, tickMinStep=1, domain=False, ticks=False),
    )
    colour = alt.Color(
        "series:N",
        title=None,
        scale=alt.Scale(domain=names, range=[colour for _, colour in colours]),
        legend=alt.Legend(orient="top", direction="horizontal", labelLimit=160, columns=4) if title else None,
    )
    tooltip = [
        alt.Tooltip("when:N", title="From"),
        alt.Tooltip("series:N", title=title or "What"),
        alt.Tooltip("packets:Q", title="Denied packets", format=","),
    ]
    chart = alt.Chart(_ROWS).mark_rect(x2Offset=-1, cursor="pointer").add_params(pick)
    chart = chart.encode(x=x, x2="end", y=y, y2="above", color=colour, tooltip=tooltip)
    return _with_data(chart.properties(height=_TIMELINE_PIXELS), values)


def _with_data(chart: alt.Chart | alt.LayerChart, values: Sequence[Mapping[str, object]]) -> str:
    """The chart as JSON; Streamlit brings a theme of its own, and Altair's would change sizes."""
    spec = {name: part for name, part in chart.to_dict(validate=False).items() if name != "config"}
    return json.dumps({**spec, "data": {"values": values}})


# Seconds between two ticks of the time axis.
_TICKS = (1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)
_MOST_TICKS = 9


def ticks(first: int, last: int) -> list[int]:
    """Where a time axis of these wall-clock milliseconds has its ticks: at round times, nine at most."""
    seconds = max((last - first) / 1000, 1)
    days = 86_400 * -(-int(seconds) // (86_400 * _MOST_TICKS))
    step = next((step for step in _TICKS if seconds / step < _MOST_TICKS), days) * 1000
    return list(range(-(-first // step) * step, last + 1, step))


def _stacked(slices: Sequence[Slice], seconds: int, series: Sequence[str]) -> tuple[list[dict[str, Any]], int]:
    """One rectangle for each slice, those of one time on top of each other, and the height of the highest pile."""
    rank = {name: number for number, name in enumerate(series)}
    piles: dict[datetime, int] = {}
    values = []
    for found in sorted(slices, key=lambda found: (found.start, rank[found.series])):
        below = piles.get(found.start, 0)
        piles[found.start] = below + found.packets
        values.append({**_place(found, seconds), "below": below, "above": below + found.packets})
    return values, max(piles.values(), default=0)


def _place(found: Slice, seconds: int) -> dict[str, Any]:
    end = (found.start.astimezone(UTC) + timedelta(seconds=seconds)).astimezone(found.start.tzinfo)
    return {
        "start": wall(found.start),
        "end": wall(found.start) + seconds * 1000,
        "start_iso": found.start.isoformat(),
        "end_iso": end.isoformat(),
        "when": found.start.strftime("%a %d %b %Y %H:%M:%S %Z"),
        "series": found.series,
        "packets": found.packets,
    }


@lru_cache(_KEPT)
def ranking(bars: tuple[Bar, ...], what: str, theme: Theme) -> str:
    """Horizontal bars, longest first, each with its figure at its end; `what` names what they are."""
    values: list[Mapping[str, object]] = [
        {"key": bar.key, "label": bar.label, "packets": bar.packets, "remark": bar.remark} for bar in bars
    ]
    pick = alt.selection_point(name=PICK, fields=["key"], on="click", empty=False)
    # Room at the right for the figure at the end of the longest bar.
    room = max([1, *(bar.packets for bar in bars)]) * 1.22
    base = alt.Chart(_ROWS).encode(
        y=alt.Y(
            "label:N",
            title=None,
            sort=None,
            axis=alt.Axis(
                labelLimit=_LABEL_PIXELS,
                labelColor=theme.text,
                labelOverlap=False,
                domain=False,
                ticks=False,
                labelPadding=8,
            ),
        ),
        x=alt.X("packets:Q", title=None, axis=None, stack=None, scale=alt.Scale(domain=[0, room], nice=False)),
        tooltip=[
            alt.Tooltip("label:N", title=what),
            alt.Tooltip("packets:Q", title="Denied packets", format=","),
            alt.Tooltip("remark:N", title="When"),
        ],
    )
    marks = base.mark_bar(cornerRadiusEnd=3, height={"band": 0.72}, cursor="pointer").add_params(pick)
    figures = base.mark_text(align="left", dx=5, fontSize=12, color=theme.text).encode(
        text=alt.Text("packets:Q", format=",")
    )
    return _with_data((marks + figures).properties(height=max(len(bars), 1) * _ROW_PIXELS + _EDGE_PIXELS), values)
