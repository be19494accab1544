"""Where records of several lines begin and end: journal entries (export, verbose) and container runtimes' long lines.

Rule: a record is recognised by its first line and ends where its format says; a line that fits no format is a record.
Format: systemd.io/JOURNAL_EXPORT_FORMATS, and the CRI log format of the kubelet.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

FIELD = re.compile(rb"[A-Z_][A-Z0-9_]{0,63}(?:=|\Z)")
JOURNAL_FIELD = re.compile(
    rb"(?:__?[A-Z][A-Z0-9_]*|MESSAGE|MESSAGE_ID|PRIORITY|SYSLOG_[A-Z_]+|CODE_[A-Z]+|UNIT|INVOCATION_ID)(?:=|\Z)"
)
VERBOSE_HEADER = re.compile(rb"(?:[A-Z][a-z]{2} )?\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[^\[]* \[s=[0-9a-f]+;")
_VERBOSE_FIELD = re.compile(rb"    +\S")
_CONTAINER = re.compile(rb"\d{4}-\d\d-\d\dT\S+ (?:stdout|stderr) (?P<kind>[PF])(?::\S*)?(?: |\Z)")
LENGTH_BYTES = 8

LONGEST_FIELD = 1 << 20
"""Journald keeps far less of a kernel message; a larger length is none, so that a stray line cannot swallow a file."""


def is_multiline(line: bytes) -> bool:
    """Does this line belong to a format whose records have several lines (journal entries, container runtimes)?"""
    patterns = (JOURNAL_FIELD, VERBOSE_HEADER, _CONTAINER)
    return any(pattern.match(line) for pattern in patterns) or _verbose_field(line)


def records(data: bytes, final: bool) -> Iterator[tuple[int, int]]:
    """Start and end of each whole record in `data`, which begins at a record; one starts where the one before ended.

    A record includes its newlines and the blank lines after it. Without `final` a last record is left out as long as
    more of it may come.
    """
    start = 0
    while start < len(data):
        end, whole = _record_end(data, start)
        if not (whole or final):
            return
        yield start, end
        start = end


def field_length(data: bytes, position: int) -> int:
    return int.from_bytes(data[position : position + LENGTH_BYTES], "little")


def line_end(data: bytes, position: int) -> int:
    """The end of a line with its newline."""
    newline = data.find(b"\n", position)
    return len(data) if newline < 0 else newline + 1


def _ends_line(data: bytes, end: int) -> bool:
    """Is the line before `end` complete?"""
    return data[end - 1 : end] == b"\n"


def _record_end(data: bytes, start: int) -> tuple[int, bool]:
    """The end of the record that begins at `start`, and whether all of it is there."""
    end = line_end(data, start)
    line = data[start:end].rstrip(b"\n")
    if _CONTAINER.match(line):
        return _run_end(data, start)
    if VERBOSE_HEADER.match(line):
        return _block_end(data, end, _verbose_field)
    if JOURNAL_FIELD.match(line):
        return _entry_end(data, start)
    return end, _ends_line(data, end)


def _verbose_field(line: bytes) -> bool:
    return _VERBOSE_FIELD.match(line) is not None and b"=" in line


def _blank_end(data: bytes, position: int) -> int:
    while data[position : position + 1] == b"\n":
        position += 1
    return position


def _block_end(data: bytes, position: int, belongs: Callable[[bytes], bool]) -> tuple[int, bool]:
    """The end of the lines that belong to a record; known only when another line follows."""
    while position < len(data):
        end = line_end(data, position)
        if not belongs(data[position:end].rstrip(b"\n")):
            return _blank_end(data, position), _ends_line(data, end)
        position = end
    return position, False


def _entry_end(data: bytes, position: int) -> tuple[int, bool]:
    """The end of an export entry: a blank line, or a line that is no field."""
    while position < len(data):
        end = line_end(data, position)
        line = data[position:end].rstrip(b"\n")
        if not FIELD.match(line):
            return _blank_end(data, position), _ends_line(data, end)
        if b"=" not in line and field_length(data, end) <= LONGEST_FIELD:
            end += LENGTH_BYTES + field_length(data, end) + 1
        position = end
    return len(data), False


def _run_end(data: bytes, start: int) -> tuple[int, bool]:
    """The end of a container's line: its parts are marked P, its last part F."""
    position = start
    while position < len(data):
        end = line_end(data, position)
        match = _CONTAINER.match(data[position:end].rstrip(b"\n"))
        if match is None:
            return position, _ends_line(data, end)
        if match["kind"] == b"F" or end - start > LONGEST_FIELD:
            return end, _ends_line(data, end)
        position = end
    return position, False
