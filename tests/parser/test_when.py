"""Time stamps: the year and zone that a line leaves out, and the dates that do not exist."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from parser.when import epoch_us, instant

PRAGUE = ZoneInfo("Europe/Prague")
NEW_YEAR = datetime(2027, 1, 1, 0, 30, tzinfo=UTC)

YEARS = (
    ("Nov 22 13:05:43", datetime(2026, 11, 22, 22, tzinfo=UTC), 2026),
    ("Dec 31 23:59:59", NEW_YEAR, 2026),  # roll-over: the line is older than the file's end
    ("Jan  1 00:10:00", NEW_YEAR, 2027),
    ("Jan  1 23:00:00", NEW_YEAR, 2027),  # within a day of the anchor: clocks differ
    ("Jan  3 00:00:00", NEW_YEAR, 2026),  # a date in the future is last year's (crmsh PR 1295)
    ("Feb 29 12:00:00", NEW_YEAR, 2024),  # plaso #1142, toolong #12: no crash, no 1900
    ("Feb 29 12:00:00", datetime(2103, 5, 1, tzinfo=UTC), 2096),  # 2100 is no leap year
)


@pytest.mark.parametrize(("stamp", "anchor", "year"), YEARS)
def test_the_year_is_the_latest_that_fits(stamp: str, anchor: datetime, year: int) -> None:
    """RFC 3164 has no year: it is the latest that gives an existing date, at most a day past the anchor."""
    found = instant(stamp, anchor, UTC)
    assert found is not None
    assert found.year == year
    assert found <= anchor + timedelta(days=1)


def test_the_anchor_may_be_in_another_zone() -> None:
    """The anchor is an instant: in which zone it is written does not matter."""
    east = NEW_YEAR.astimezone(timezone(timedelta(hours=14)))
    assert instant("Dec 31 23:59:59", east, UTC) == datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)


ZONES = (
    ("Jul  1 12:00:00", "2026-07-01T10:00:00+00:00"),
    ("Nov  1 12:00:00", "2026-11-01T11:00:00+00:00"),
    ("Oct 25 02:30:00", "2026-10-25T00:30:00+00:00"),  # the hour comes twice: the first one is taken
    ("Sun 2026-10-25 02:30:00 CEST", "2026-10-25T00:30:00+00:00"),
    ("Sun 2026-10-25 02:30:00 CET", "2026-10-25T01:30:00+00:00"),  # the abbreviation tells which
    ("Sun 2026-10-25 02:30:00 UTC", "2026-10-25T02:30:00+00:00"),
    ("Sun 2026-10-25 02:30:00 +03", "2026-10-24T23:30:00+00:00"),
    ("Sun 2026-11-22 02:30:00 XYZT", "2026-11-22T01:30:00+00:00"),  # an unknown one: the option's zone
    ("2026-11-22T14:07:40-0330", "2026-11-22T17:37:40+00:00"),
    ("2026-11-22T14:07:40.123456789Z", "2026-11-22T14:07:40.123456+00:00"),
    ("2026-11-22 14:07:40", "2026-11-22T13:07:40+00:00"),
    ("[Sun Nov 22 14:07:40 2026]", "2026-11-22T13:07:40+00:00"),
    ("Sun Nov 22 14:07:40 GMT 2026", "2026-11-22T14:07:40+00:00"),
    ("1795352860.325509", "2026-11-22T13:07:40.325509+00:00"),
)


@pytest.mark.parametrize(("stamp", "expected"), ZONES)
def test_the_zone_is_the_writers(stamp: str, expected: str) -> None:
    """An offset or abbreviation that is written counts; without one the option does."""
    found = instant(stamp, datetime(2026, 11, 22, 22, tzinfo=UTC), PRAGUE)
    assert found is not None
    assert found.astimezone(UTC) == datetime.fromisoformat(expected)


@pytest.mark.parametrize(
    "stamp", ["Feb 30 12:00:00", "Apr 31 12:00:00", "2026-02-29T12:00:00Z", "2026-13-01T12:00:00Z"]
)
def test_a_date_that_does_not_exist_is_no_time(stamp: str) -> None:
    """No such day: no time, and no error."""
    assert instant(stamp, NEW_YEAR, UTC) is None


@pytest.mark.parametrize("anchor", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
def test_an_anchor_at_the_end_of_time_is_no_error(anchor: datetime) -> None:
    """A file may have any date."""
    assert instant("Nov 22 13:05:43", anchor, PRAGUE) is None or anchor.year > 1
    assert epoch_us(10**19) is None
