"""Entries of the systemd journal: the export format, journalctl's verbose form, and the fields of its JSON.

Rule: only an entry whose transport is the kernel's is trusted, for anybody may call himself `kernel` in
SYSLOG_IDENTIFIER. Format: systemd.io/JOURNAL_EXPORT_FORMATS; transports: systemd.journal-fields(7).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime

from parser.options import Options
from parser.plain import Frame, stamped
from parser.records import FIELD, JOURNAL_FIELD, LENGTH_BYTES, VERBOSE_HEADER, field_length, line_end
from parser.when import epoch_us, find_stamp, instant


def entry_frame(line: bytes | str, options: Options, anchor: datetime) -> Frame | None:
    """The frame of an export or verbose entry; None for anything else."""
    data = line if isinstance(line, bytes) else line.encode("utf-8", "replace")
    if VERBOSE_HEADER.match(data):
        return _verbose(data, options, anchor)
    if not (JOURNAL_FIELD.match(data) or (b"\n" in data and JOURNAL_FIELD.match(data[: data.index(b"\n")]))):
        return None
    fields: dict[str, str] = {}
    places: dict[str, int] = {}
    for name, begin, end in _fields(data):
        fields.setdefault(name, data[begin:end].decode("utf-8", "replace"))
        places.setdefault(name, begin)
    return journal_frame(fields, len(data[: places.get("MESSAGE", 0)].decode("utf-8", "replace")))


def journal_frame(fields: Mapping[str, str], message_offset: int) -> Frame:
    """The frame that the fields of a journal entry make; `time` is when journald read the message."""
    realtime, monotonic = (
        _number(fields.get(name)) for name in ("__REALTIME_TIMESTAMP", "_SOURCE_MONOTONIC_TIMESTAMP")
    )
    transport = fields.get("_TRANSPORT")
    # A program may write to /dev/kmsg, too; the facility is then not the kernel's.
    kernel = transport == "kernel" and fields.get("SYSLOG_FACILITY", "0") == "0"
    found = stamped(
        fields.get("MESSAGE", "").rstrip("\n"),
        0,
        epoch_us(realtime) if realtime is not None else None,
        fields.get("_HOSTNAME"),
        fields.get("SYSLOG_IDENTIFIER"),
        trusted=None if transport is None else kernel,
    )
    uptime = found.uptime_s if monotonic is None else monotonic / 1e6
    return replace(found, uptime_s=uptime, message_offset=message_offset + found.message_offset)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 20 else None


def _verbose(data: bytes, options: Options, anchor: datetime) -> Frame:
    """A verbose entry: a line with the time, then indented fields; a long value goes on in deeper lines."""
    text = data.decode("utf-8", "replace")
    stamp = find_stamp(text, 0)
    fields: dict[str, str] = {}
    for line in text.split("\n")[1:]:
        name, equals, value = line.strip(" ").partition("=")
        if equals:
            fields.setdefault(name, value)
    found = journal_frame(fields, max(text.find(" MESSAGE=") + len(" MESSAGE="), 0))
    time = instant(stamp[0], anchor, options.zone) if stamp else None
    return replace(found, time=time)


def _fields(data: bytes) -> Iterator[tuple[str, int, int]]:
    """Name, begin and end of the value of each field of an export entry."""
    position = 0
    while position < len(data):
        end = line_end(data, position)
        line = data[position:end].rstrip(b"\n")
        name, equals, _ = line.partition(b"=")
        if equals:
            yield name.decode("ascii", "replace"), position + len(name) + 1, position + len(line)
        elif FIELD.match(line):
            begin = end + LENGTH_BYTES
            end = begin + field_length(data, end)
            yield name.decode("ascii", "replace"), begin, end
            end += 1
        position = end
