"""How much of a file that was cut back to a part of itself (`truncate -s`, a power failure) is stored already?

Rule: the rows decide. A line is known where the store holds its packet at the same place of the same file; the first
one that it does not hold is new, and so is all that follows, since what was appended to the rest came later.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from analytics import Position, Reader, StoreError
from collector.identity import digest
from collector.lines import nuls, whole
from collector.settings import FOLLOW_CHUNK, LINE_LIMIT
from collector.texts import Text
from parser import Options
from parser.bulk import read

_LOG = logging.getLogger(__name__)
_TELLING = 64
"""Bytes that two lines do not have in common: time stamps, host, the kernel's own stamp."""
_COLUMNS = ("source_offset", "time", "uptime_s", "source_ip", "destination_ip", "source_port", "destination_port")
_STORED = f"""
SELECT {", ".join(_COLUMNS)} FROM packets
WHERE source_file IN (SELECT unnest($files)) AND source_offset >= $start AND source_offset < $end
"""


class Recall:
    """Asks a store, beside its writer, what it holds of a file."""

    def __init__(self, store: str) -> None:
        self._store = store

    def kept(self, text: Text, elders: Sequence[Position], options: Options) -> int | None:
        """The byte up to which `text` is stored as a part of what `elders` stand for, 0 where it is another content.

        None while something that was read of them waits for its commit, or while the store cannot be read.
        """
        try:
            with Reader(self._store, frugal=True) as reader:
                committed = {position.file: position.offset for position in reader.positions()}
                if any(committed.get(elder.file, -1) < elder.offset for elder in elders):
                    return None
                kept = _stored_upto(reader, text, [elder.file for elder in elders], options)
                _LOG.info("%s: was cut; its first %d bytes are stored already", text.path, kept)
                return kept
        except StoreError as error:
            _LOG.warning("%s: was cut; what of it is stored cannot be told yet (%s)", text.path, error)
            return None


def elders_of(text: Text, family: Sequence[Position], head: bytes) -> list[Position]:
    """The positions of what the very file (by inode) held before, as far as its first bytes may still be the same.

    `head`: what it began with where that is known; a short rest cannot be compared with the digest of more.
    """
    key, start = text.facts().key, text.read(0, max((position.head_length for position in family), default=0))
    if not start or (head and head[: len(start)] != start[: len(head)]):
        return []
    return [
        position
        for position in family
        if (position.device, position.inode) == key
        and position.offset
        and (len(start) < position.head_length or digest(start[: position.head_length]) == position.head)
    ]


def all_of(text: Text, head: bytes) -> int:
    """The length of a text that is no more than the beginning of `head`, bytes that were read; 0 for any other."""
    start = text.read(0, len(head) + 1)
    return len(start) if len(start) >= _TELLING and head.startswith(start) else 0


def _stored_upto(reader: Reader, text: Text, files: Sequence[str], options: Options) -> int:
    at = known = 0
    before = b""
    while True:
        data = text.read(at, FOLLOW_CHUNK)
        lines = data[: 0 if nuls(data) else whole(data)]
        batch = read(lines, options, anchor=text.facts().modified, before=before)
        parameters = {"files": list(files), "start": at, "end": at + len(data)}
        stored = set(reader.rows(_STORED, parameters).rows) if data else set()
        for offset, *row in batch.packets.select(_COLUMNS).iter_rows():
            if (at + offset, *row) not in stored:
                return known
            known = at + lines.index(b"\n", offset) + 1
        at, before = at + batch.consumed, lines[: batch.consumed]
        if not batch.consumed or len(data) < FOLLOW_CHUNK:
            rest = data[batch.consumed :]
            return _with_torn_line(at, rest, {row[0] for row in stored}) if known else 0


def _with_torn_line(at: int, rest: bytes, stored: set[int]) -> int:
    """Where to go on when all whole lines are stored: behind the line that the cut has torn, if it was one of them.

    A rest of another program's line is passed over, too: a line appended to it would be spoiled by it.
    """
    if len(rest) > LINE_LIMIT or b"\n" in rest or nuls(rest) or (at not in stored and b"IN=" in rest):
        return at
    return at + len(rest)
