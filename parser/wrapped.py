"""Lines inside other lines: JSON objects of log shippers and of the journal, and the lines of container runtimes.

Rule: where the wrapper names the program, it must be the kernel, and the line inside must not say otherwise; where it
names none, the line inside decides. The time inside is the better one, the wrapper's is when it was read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from parser.journal import journal_frame
from parser.options import Options
from parser.plain import KERNEL_TAGS, Frame, text_frame
from parser.when import instant

_MESSAGES = ("message", "log", "msg", "line", "short_message", "_msg", "content", "text")
_NODES = ("host", "hostname", "node", "node_name", "nodename")
_TAGS = ("appname", "app_name", "ident", "program", "programname", "syslog_identifier", "process", "app-name")
_PROCESSES = ("procid", "pid", "syslog_pid")
_TIMES = ("timestamp", "@timestamp", "time", "ts", "date", "_time")

# CRI: "<time> stdout|stderr P|F <text>"; a long line comes in several records, all but the last marked P.
_CONTAINER = re.compile(r"(?P<time>\d{4}-\d\d-\d\dT\S+) (?:stdout|stderr) [PF](?::\S*)? ?")


def json_frame(text: str, options: Options, anchor: datetime) -> Frame | None:
    """The frame of a JSON object: an entry of `journalctl -o json`, or a shipper's; None for anything else."""
    if not text.startswith("{"):
        return None
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    if "MESSAGE" in fields or "__REALTIME_TIMESTAMP" in fields:
        values = {name: _text(value) for name, value in fields.items()}
        return journal_frame(values, _place(text, "MESSAGE"))
    return _shipped(text, {name.lower(): value for name, value in fields.items()}, options, anchor)


def container_frame(text: str, options: Options, anchor: datetime) -> Frame | None:
    """The frame of a container runtime's line, or of the several records of one long line."""
    match = _CONTAINER.match(text)
    if match is None:
        return None
    parts = [_CONTAINER.sub("", line, count=1) for line in text.split("\n")]
    inside = text_frame("".join(parts), options, anchor)
    time = inside.time or instant(match["time"], anchor, options.zone)
    return replace(inside, time=time, message_offset=match.end() + inside.message_offset)


def _shipped(text: str, fields: Mapping[str, Any], options: Options, anchor: datetime) -> Frame | None:
    key = next((name for name in _MESSAGES if isinstance(fields.get(name), str | list)), None)
    if key is None:
        return None
    inside = text_frame(_text(fields[key]).rstrip("\r\n"), options, anchor)
    stamp, node, tag = (_first(fields, names) for names in (_TIMES, _NODES, _TAGS))
    trusted = inside.trusted
    if tag is not None:
        trusted = (
            tag in KERNEL_TAGS and inside.trusted is not False and _first(fields, _PROCESSES) in (None, "", "-", "0")
        )
    return replace(
        inside,
        time=inside.time or (instant(stamp, anchor, options.zone) if stamp else None),
        node=inside.node or node,
        tag=tag or inside.tag,
        trusted=trusted,
        message_offset=_place(text, key) + inside.message_offset,
    )


def _first(fields: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    """The first of the names that holds a text; Elastic's `host` is an object with a `name`."""
    for name in names:
        value = fields.get(name)
        value = value.get("name") if isinstance(value, dict) else value
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            return str(value)
    return None


def _text(value: Any) -> str:
    """A journal value: text; a list of bytes where it is not UTF-8; a list of values where the field was repeated."""
    match value:
        case str():
            return value
        case [int(), *_]:
            octets = [number for number in value if isinstance(number, int) and 0 <= number <= 0xFF]
            return bytes(octets).decode("utf-8", "replace")
        case [str() as first, *_]:
            return first
        case _:
            return ""


def _place(text: str, key: str) -> int:
    """Where the value of `key` begins in the object's text."""
    match = re.search(rf'"{re.escape(key)}"\s*:\s*"', text, re.IGNORECASE)
    return match.end() if match else 0
