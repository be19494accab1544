"""What the commands share: exit codes, problems in one sentence, and the options that several of them have.

Rule: nothing heavy is imported here; a command imports what it needs when it runs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from enum import IntEnum
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import click

from analytics.filters import FILTERS, duration

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULT_STORE = "/var/lib/denylog"
FORMATS = ("table", "json", "jsonl", "csv", "dict")


class Exit(IntEnum):
    """What the exit code says."""

    OK = 0
    FINDINGS = 1
    USAGE = 2
    TRY_AGAIN = 3
    DEFECT = 70
    INTERRUPTED = 130


class Zone(click.ParamType[tzinfo]):
    """A time zone: an IANA name, `utc` or `local`."""

    name = "zone"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tzinfo:
        """The zone that a text names."""
        if isinstance(value, tzinfo):
            return value
        if value.lower() == "utc":
            return UTC
        try:
            return local_zone() if value.lower() == "local" else ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            self.fail(f"{value!r} is no time zone; expected utc, local or a name such as Europe/Berlin", param, ctx)


class Length(click.ParamType[timedelta]):
    """A length of time: 30s, 5m, 1h30m, 7d."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """The length that a text names."""
        if isinstance(value, timedelta):
            return value
        try:
            return duration(value)
        except ValueError:
            self.fail(f"{value!r} is no length of time; expected 30s, 5m, 1h30m or 7d", param, ctx)


class Size(click.ParamType[int]):
    """A number of bytes: 500MB, 5GiB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The bytes that a text names."""
        if isinstance(value, int):
            return value
        found = _SIZE.fullmatch(value.strip())
        if found is None or not (size := int(float(found[1]) * _BYTES[found[2].upper()])):
            self.fail(f"{value!r} is no size; expected 500MB or 5GiB", param, ctx)
        return size


_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT]i?)B?", re.IGNORECASE)
_BYTES = {
    letter + mark: base**power for power, letter in enumerate("KMGT", 1) for mark, base in (("", 1000), ("I", 1024))
}


def local_zone() -> tzinfo:
    """The zone of this machine, with its rules for summer time: TZ, else what /etc/localtime points to."""
    name = os.environ.get("TZ", "").removeprefix(":") or os.path.realpath("/etc/localtime").rpartition("zoneinfo/")[2]
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return datetime.now().astimezone().tzinfo or UTC


def store_option(command: Command) -> Command:
    """`--store`, which every command that reads or writes rows has."""
    return click.option(
        "--store", metavar="FOLDER", envvar="DENYLOG_STORE", default=DEFAULT_STORE, show_default=True, show_envvar=True,
        help="The folder that holds the rows.",
    )(command)  # fmt: skip


def output_options(*formats: str) -> Callable[[Command], Command]:
    """`-o` and the zone in which times are shown; a table unless said otherwise."""

    def decorate(command: Command) -> Command:
        command = click.option("--utc", is_flag=True, help="Show times in UTC, not in the zone of this machine.")(
            command
        )
        kind = click.Choice(formats)
        return click.option("-o", "--output", type=kind, default="table", show_default=True, help="Form.")(command)

    return decorate


def geoip_option(command: Command) -> Command:
    """`--geoip`, for commands that show addresses."""
    return click.option(
        "--geoip", multiple=True, metavar="FILE", envvar="DENYLOG_GEOIP", show_envvar=True,
        help="Add country and network of addresses from a MaxMind file (.mmdb); may be given again.",
    )(command)  # fmt: skip


def filter_options(command: Command) -> Command:
    """Which packets are meant: one option for each filter of the store; `!` before a value turns it round."""
    for entry in reversed(FILTERS):
        flag = f"--{entry.flag}"
        command = click.option(flag, entry.name, metavar=entry.metavar, multiple=entry.repeats, help=entry.help)(
            command
        )
    return command
