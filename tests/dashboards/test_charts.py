"""The charts as data: they are what Vega-Lite's schema allows, and hostile labels in them are values."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import altair as alt
import pytest
from altair.utils import schemapi
from jsonschema import ValidationError

from dashboards import charts
from dashboards.charts import Bar, Slice
from dashboards.theme import DARK, LIGHT

HOSTILE = "</script>'\"`${1}datum.x"
MIDNIGHT = datetime(2026, 11, 20, tzinfo=UTC)


def timeline() -> str:
    """A day in which two series take turns, one of which has a hostile name."""
    slices = tuple(
        Slice(MIDNIGHT + timedelta(hours=hour), series, hour + 1) for hour in range(24) for series in ("tcp", HOSTILE)
    )
    colours = (("tcp", LIGHT.series[0]), (HOSTILE, LIGHT.series[1]))
    return charts.timeline(slices, 3600, (MIDNIGHT, MIDNIGHT + timedelta(days=1)), colours, "Protocol")


def ranking() -> str:
    """Three bars, one of them with a hostile label."""
    bars = (Bar("1", "10.0.0.7", 30), Bar("2", HOSTILE, 20, "now"), Bar("3", "fd00::1", 1))
    return charts.ranking(bars, "Source", DARK)


@pytest.mark.parametrize(("made", "kind"), [(timeline, alt.Chart), (ranking, alt.LayerChart)])
def test_chart_is_what_vega_lite_allows(made: Any, kind: type[alt.Chart | alt.LayerChart]) -> None:
    """The whole chart is valid by the schema of Vega-Lite, which would find out another, and all of it has one data."""
    spec = json.loads(made())
    assert "values" in spec["data"]
    assert not any("data" in layer for layer in spec.get("layer", ()))
    with schemapi.debug_mode(True):
        kind.from_dict(spec)
        with pytest.raises(ValidationError):
            kind.from_dict({**spec, "height": {"wrong": 1}})


@pytest.mark.parametrize("made", [timeline, ranking])
def test_label_is_data(made: Any) -> None:
    """What came out of a log is in the values, and where colours are named, and in no expression."""
    spec = json.loads(made())
    values = spec.pop("data")["values"]
    assert any(HOSTILE in value.values() for value in values)
    if "encoding" in spec:
        spec["encoding"]["color"]["scale"].pop("domain")
    assert HOSTILE not in json.dumps(spec, ensure_ascii=False).replace("\\", "")


def test_same_chart_is_made_once() -> None:
    """A second visitor of the same figures gets the chart that is there."""
    before = charts.timeline.cache_info().hits
    first = timeline()
    assert timeline() is first
    assert charts.timeline.cache_info().hits > before
