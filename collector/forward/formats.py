"""One stored packet as one syslog message, in each of the formats that a target can ask for.

Rule: nothing that came out of a log can end a message, a field or a header early: what could act on a receiver is
written as an escape. A message longer than the target takes is shortened so that what is left is still well-formed.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any

from analytics.ecs import event
from analytics.values import harmless, plain
from collector.forward.cef import extension, header
from collector.forward.kernel import kernel_stamp, kernel_text
from collector.forward.target import Target

Record = Mapping[str, Any]

APP_NAME = "denylog"
# Calico's Log action writes at level notice (felix/rules: LogAction, --log-level 5); the level is not stored.
NOTICE = 5
# RFC 5424, 6.2.4 and 6.3.3.
_LONGEST_HOST = 255
_BOM = "\ufeff"
# Columns that say where a row is stored, not what was denied. `source_file` and `source_offset` stay: together they
# name the log line, so a receiver knows a message that it was sent twice.
_OURS = frozenset({"stored_at", "day"})
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True, slots=True)
class Message:
    """What goes over the wire, without framing; `cut` where something of it had to be left out."""

    data: bytes
    cut: bool = False


Encode = Callable[[Record], Message]


def encoder(target: Target, zone: tzinfo) -> Encode:
    """The format of a target; `zone` is that of the time stamps of RFC 3164, which name none."""
    priority = target.facility * 8 + NOTICE
    rfc3164 = _rfc3164_header(priority, zone)
    forms: dict[str, Encode] = {
        "rfc5424": lambda record: _structured(record, priority, target.sd_id, target.size),
        "ecs": lambda record: _ecs(record, priority, target.size),
        "rfc3164": lambda record: _shortened(rfc3164(record) + _kernel_line(record), target.size),
        "cef": lambda record: _shortened(rfc3164(record) + _cef(record), target.size),
    }
    return forms[target.format]


def _rfc5424_header(record: Record, priority: int) -> str:
    time = record.get("time")
    stamp = time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ") if time else "-"
    kind = "reply" if record.get("follow_up") else "denied"
    return f"<{priority}>1 {stamp} {_host(record)} {APP_NAME} - {kind} "


def _host(record: Record) -> str:
    """HOSTNAME: 1 to 255 printable ASCII characters, so others become `?`; a node that is not known is nil."""
    node = record.get("node") or ""
    return "".join(letter if "!" <= letter <= "~" else "?" for letter in node)[:_LONGEST_HOST] or "-"


def _structured(record: Record, priority: int, sd_id: str, size: int) -> Message:
    """RFC 5424: every field that is set as a parameter, and the kernel's text as the message."""
    head = _rfc5424_header(record, priority) + f"[{sd_id}"
    parameters = [f' {name}="{_parameter(value)}"' for name, value in _set_fields(record)]
    text = harmless(kernel_text(record))
    # MSG is either octets of which nothing is known, or UTF-8 behind a byte order mark; plain ASCII is both.
    message = f"] {'' if text.isascii() else _BOM}{text}".rstrip()
    whole = (head + "".join(parameters) + message).encode()
    if len(whole) <= size:
        return Message(whole)
    return Message(_fitted(head, parameters, message, size), cut=True)


def _fitted(head: str, parameters: list[str], message: str, size: int) -> bytes:
    """The message gives way first, then the last parameters: the structured data stays closed."""
    room = size - len(head.encode()) - 1
    kept: list[str] = []
    for parameter in parameters:
        if (room := room - len(parameter.encode())) < 0:
            break
        kept.append(parameter)
    start = (head + "".join(kept)).encode()
    return _cut_text(start + message.encode(), size) if len(kept) == len(parameters) else start + b"]"


def _set_fields(record: Record) -> Iterable[tuple[str, Any]]:
    return ((name, value) for name, value in record.items() if value is not None and name not in _OURS)


def _parameter(value: Any) -> str:
    """A PARAM-VALUE: `"`, `\\` and `]` are escaped (RFC 5424, 6.3.3)."""
    return field_text(value).replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")


def field_text(value: Any) -> str:
    """One value as text without control characters: lists with commas, truth as true and false, times in UTC."""
    match value:
        case str():
            return harmless(value)
        case bool():
            return "true" if value else "false"
        case datetime():
            return value.astimezone(UTC).isoformat()
        case list() | tuple() if all(isinstance(entry, str) for entry in value):
            return harmless(",".join(value))
        case list() | tuple() | Mapping():
            return json.dumps(plain(value, UTC), separators=(",", ":"))
        case _:
            return str(value)


def _rfc3164_header(priority: int, zone: tzinfo) -> Callable[[Record], str]:
    """`Mmm dd hh:mm:ss host `, as a daemon on the node would write it; RFC 3164 knows no year and no zone."""
    here = socket.gethostname().partition(".")[0]

    def text(record: Record) -> str:
        time = (record.get("time") or datetime.now(UTC)).astimezone(zone)
        host = _host(record)
        stamp = f"{_MONTHS[time.month - 1]} {time.day:2d} {time:%H:%M:%S}"
        return f"<{priority}>{stamp} {here if host == '-' else host} "

    return text


def _kernel_line(record: Record) -> str:
    return "kernel: " + harmless(kernel_stamp(record) + kernel_text(record)).rstrip()


def _cef(record: Record) -> str:
    return header(record) + extension(record, harmless(kernel_text(record)).rstrip())


def _ecs(record: Record, priority: int, size: int) -> Message:
    """The document in ASCII on one line: JSON's own escapes leave no control character. Too long, it loses its longest
    fields, since half a document is none."""
    fields = dict(_set_fields(record))
    cut = False
    while True:
        document = event({name: plain(value, UTC) for name, value in fields.items()})
        whole = f"{_rfc5424_header(record, priority)}- {json.dumps(document, separators=(',', ':'))}".encode()
        if len(whole) <= size or not fields:
            return Message(whole[:size], cut)
        del fields[max(fields, key=lambda name: len(str(fields[name])))]
        cut = True


def _shortened(text: str, size: int) -> Message:
    whole = text.encode()
    return Message(whole) if len(whole) <= size else Message(_cut_text(whole, size), cut=True)


def _cut_text(text: bytes, size: int) -> bytes:
    """At most `size` octets, no character of UTF-8 and no escape torn (RFC 5424, 6.1)."""
    kept = text[:size].decode("utf-8", "ignore")
    return (kept[:-1] if (len(kept) - len(kept.rstrip("\\"))) % 2 else kept).encode()
