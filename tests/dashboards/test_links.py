"""Links: every view is one, every one is read back, and nothing in one can raise."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dashboards.charts import ticks, wall
from dashboards.links import FLAGS, NEWEST, Span, View, bar_seconds, condition, read, span

NOW = datetime(2026, 11, 22, 12, 0, 7, tzinfo=UTC)
NEWEST_PACKET = datetime(2026, 11, 20, 23, 56, 37, tzinfo=UTC)


def parameters(view: View) -> dict[str, list[str]]:
    """A view's query as a browser hands it back."""
    return {name: [value] if isinstance(value, str) else value for name, value in view.query().items()}


def test_view_survives_its_link() -> None:
    """What a link was made of is what is read from it, without a complaint."""
    view = View(since="2026-11-20T09:00:00+01:00", until="30m", zone="Europe/Berlin", refresh="off")
    view = view.filtered("to-port", ["22", "8000-8999"]).also("protocol", "tcp").at(packet="ab12:400", split="protocol")
    assert read(parameters(view)) == (view, ())


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("to-port", "abc", "to-port 'abc' was left out: expected a port"),
        ("zone", "Mars", "zone 'Mars' was left out: expected a time zone"),
        ("zone", "../../etc/passwd", "expected a time zone"),
        ("since", "yesterday", "since 'yesterday' was left out"),
        ("refresh", "1ms", "expected one of live, 5s, 30s, off"),
        ("packet", "x'; DROP TABLE packets", "expected a packet's place"),
        ("nonsense", "1", "'nonsense' is no filter of this page"),
        ("node", "\ud800", "expected text in UTF-8"),
    ],
)
def test_unusable_part_is_left_out_and_told(name: str, value: str, said: str) -> None:
    """One sentence for what cannot be used, and the rest of the link holds."""
    view, problems = read({name: [value], "protocol": ["udp"]})
    assert view == View().also("protocol", "udp")
    assert [said in problem for problem in problems] == [True]


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*FLAGS, "since", "until", "zone", "packet", "x"]), st.lists(st.text(), max_size=3), max_size=4
    )
)
def test_no_link_raises(found: dict[str, list[str]]) -> None:
    """Whatever a link holds, it is a view, and its condition can be made."""
    view, _ = read(found)
    condition(view, span(view, now=NOW, newest=NEWEST_PACKET, zone=UTC), UTC)
    assert read(parameters(view)) == (view, ())


def test_default_time_is_the_newest_day() -> None:
    """Without a time the newest 24 hours in the store are shown, however old they are."""
    assert span(View(), now=NOW, newest=NEWEST_PACKET, zone=UTC) == Span(NEWEST_PACKET - NEWEST, None)
    assert span(View(since="all"), now=NOW, newest=NEWEST_PACKET, zone=UTC) == Span(None, None)


def test_relative_time_is_steady_for_a_while() -> None:
    """The same question a second later is the same question, so that its answer can be kept."""
    view = View(since="24h")
    first, second = (span(view, now=NOW + timedelta(seconds=s), newest=None, zone=UTC) for s in (0, 1))
    assert first == second
    assert first.since
    assert timedelta(hours=24) <= NOW - first.since < timedelta(hours=24, minutes=3)


def test_too_many_values_are_cut_and_told() -> None:
    """A link with thousands of values does not make a condition of them all."""
    view, problems = read({"to-port": [str(port) for port in range(1, 2000)]})
    assert len(view.values("to-port")) == 50
    assert "the first 50 are used" in problems[0]


@pytest.mark.parametrize("seconds", [1, 59, 3600, 86_400, 7 * 86_400, 400 * 86_400])
def test_timeline_has_bars_and_ticks_that_can_be_told_apart(seconds: int) -> None:
    """For every length of time there are at most a hundred bars and nine ticks, and at least one tick."""
    assert seconds / bar_seconds(timedelta(seconds=seconds)) <= 100
    first = wall(datetime(2026, 11, 20, 9, 0, tzinfo=ZoneInfo("Europe/Berlin")))
    assert 1 <= len(ticks(first, first + seconds * 1000)) <= 10
