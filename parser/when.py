"""Time stamps of log lines: which instant a stamp means, given the zone of its writer and the newest date it can have.

Rule: a zone or offset that is written counts; what is missing comes from the option (zone) and the anchor (year), never
from the clock. A date that does not exist is no time, and no error.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache

SLACK = timedelta(days=1)
"""How far a stamp may lie past the anchor: clocks differ, and the anchor is read in another zone."""

_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
MONTHS = {name: number for number, name in enumerate(_NAMES, 1)}
_YEARS_BACK = 8
"""29 February may be eight years away (1896-1904, 2096-2104)."""

_MONTH = rf"(?P<name>{'|'.join(_NAMES)})"
_WEEKDAY = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_CLOCK = r"(?P<hour>[01]\d|2[0-3]):(?P<minute>[0-5]\d):(?P<second>[0-5]\d|60)(?:[.,](?P<fraction>\d{1,9}))?(?![\d:.,])"
_ABBREVIATION = r"(?P<abbreviation>[A-Z]{3,5}|[+-]\d\d(?:\d\d)?)"
_DATE = r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)"

STAMPS = tuple(
    re.compile(pattern)
    for pattern in (
        # RFC 3164: day padded with a blank, a zero or not at all; some devices add the year.
        rf"{_MONTH} {{1,2}}(?P<day>\d{{1,2}}) (?:(?P<year>\d{{4}}) )?{_CLOCK}(?: (?P<year2>(?:19|20)\d\d)(?=[ :]))?:?",
        # ISO 8601 (RFC 3339, RFC 5424, journalctl short-iso, dmesg --time-format iso, tai64nlocal).
        rf"{_DATE}[T ]{_CLOCK}(?P<offset>Z|[+-]\d\d:?\d\d)?",
        # journalctl short-full
        rf"{_WEEKDAY} {_DATE} {_CLOCK}(?: {_ABBREVIATION}(?= |$))?",
        # ctime(3): dmesg -T in brackets, OpenWrt's logread without
        rf"\[{_WEEKDAY} {_MONTH} {{1,2}}(?P<day>\d{{1,2}}) {_CLOCK} (?:{_ABBREVIATION} )?(?P<year>\d{{4}})\]",
        rf"{_WEEKDAY} {_MONTH} {{1,2}}(?P<day>\d{{1,2}}) {_CLOCK} (?:{_ABBREVIATION} )?(?P<year>\d{{4}})",
        # dmesg -H: the minute that begins
        rf"\[{_MONTH}(?P<day>\d\d) (?P<hour>[01]\d|2[0-3]):(?P<minute>[0-5]\d)\]",
        # journalctl short-unix
        r"(?P<epoch>\d{9,10})\.(?P<fraction>\d{3,9})(?= )",
    )
)


def find_stamp(text: str, position: int) -> re.Match[str] | None:
    """The time stamp that begins at `position`."""
    for pattern in STAMPS:
        if match := pattern.match(text, position):
            return match
    return None


@lru_cache(maxsize=4096)
def instant(stamp: str, anchor: datetime, zone: tzinfo) -> datetime | None:
    """The instant that a stamp found by `find_stamp` means, as an aware datetime; None where there is no such date."""
    match = find_stamp(stamp + " ", 0)
    if match is None:
        return None
    parts = match.groupdict()
    try:
        return _epoch(parts) if "epoch" in parts else _calendar(parts, anchor, zone)
    except (ValueError, OverflowError):
        return None


def epoch_us(microseconds: int) -> datetime | None:
    """The instant so many microseconds after 1970."""
    try:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    except OverflowError:
        return None


def _epoch(parts: dict[str, str | None]) -> datetime | None:
    return epoch_us(int(parts["epoch"] or 0) * 1_000_000 + _microseconds(parts["fraction"]))


def _calendar(parts: dict[str, str | None], anchor: datetime, zone: tzinfo) -> datetime:
    month = MONTHS[parts["name"] or ""] if "name" in parts else int(parts["month"] or 0)
    second = int(parts.get("second") or 0)
    clock = (int(parts["hour"] or 0), int(parts["minute"] or 0), min(second, 59), _microseconds(parts.get("fraction")))
    year = parts.get("year") or parts.get("year2")
    day = int(parts["day"] or 0)
    if year:
        local = datetime(int(year), month, day, *clock)  # noqa: DTZ001 - the zone is the next question
        moment = _placed(local, parts, zone)
    else:
        moment = _latest(month, day, clock, anchor, zone)
    # Adding to a datetime forgets which of two equal hours is meant, so add only where there is something to add.
    return moment + timedelta(seconds=1) if second == 60 else moment


def _latest(month: int, day: int, clock: tuple[int, int, int, int], anchor: datetime, zone: tzinfo) -> datetime:
    """The latest such date that is not later than the anchor and a day."""
    limit = anchor + SLACK
    newest = limit.astimezone(zone).year
    for year in range(newest, newest - _YEARS_BACK - 1, -1):
        try:
            candidate = datetime(year, month, day, *clock, tzinfo=zone)
        except ValueError:
            continue
        if candidate <= limit:
            return candidate
    raise ValueError("no such day")


def _placed(local: datetime, parts: dict[str, str | None], zone: tzinfo) -> datetime:
    if offset := parts.get("offset"):
        return local.replace(tzinfo=_offset(offset))
    abbreviation = parts.get("abbreviation")
    if abbreviation in ("UTC", "GMT"):
        return local.replace(tzinfo=UTC)
    if abbreviation and abbreviation[0] in "+-":
        return local.replace(tzinfo=_offset(abbreviation))
    later = local.replace(tzinfo=zone, fold=1)
    # In the hour that summer time repeats, only the abbreviation tells which of the two is meant.
    return later if abbreviation and later.tzname() == abbreviation else local.replace(tzinfo=zone)


def _offset(text: str) -> tzinfo:
    if text == "Z":
        return UTC
    digits = text[1:].replace(":", "").ljust(4, "0")
    delta = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(-delta if text[0] == "-" else delta)


def _microseconds(fraction: str | None) -> int:
    return int((fraction or "0").ljust(6, "0")[:6])
