"""Which file is this really? A file is known by what it holds: its first bytes, and the bytes before the place reached.

Rule: device and inode are hints. An inode is given to the next file as soon as the last one is gone, and a compressed
copy has another one; the content tells both cases apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from analytics import Position
from collector.settings import LINE_LIMIT, Beginning, Checkpoint, ReadFrom
from collector.texts import Text

PROOF = 1024
"""Bytes at the beginning, and before the offset, that prove a file to be the one that was read: several time stamps."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a text and what proves it: the first bytes (at most PROOF), and the bytes just before `offset`."""

    offset: int = 0
    head: bytes = b""
    tail: bytes = b""

    def advance(self, data: bytes) -> Mark:
        """The mark after `data`, the bytes that follow this one."""
        head = self.head if len(self.head) >= PROOF else (self.head + data[:PROOF])[:PROOF]
        return Mark(self.offset + len(data), head, (self.tail + data[-PROOF:])[-PROOF:])

    def holds(self, text: Text) -> bool:
        """True where the bytes before the mark are still what they were."""
        return text.read(self.offset - len(self.tail), len(self.tail)) == self.tail


def digest(data: bytes) -> str:
    """blake2b of `data`, 32 hex digits; "" of nothing."""
    return blake2b(data, digest_size=16).hexdigest() if data else ""


def mark_at(text: Text, offset: int) -> Mark:
    """The mark at `offset`, as the text is now."""
    size = min(PROOF, offset)
    return Mark(offset, text.read(0, size), text.read(offset - size, size))


def first_mark(text: Text, start: ReadFrom) -> Mark:
    """Where to begin in a text that nobody has read."""
    if isinstance(start, Beginning):
        return Mark()
    if isinstance(start, Checkpoint):
        return mark_at(text, start.offset)
    size = text.facts().size or 0
    last = text.read(max(0, size - LINE_LIMIT), min(size, LINE_LIMIT))
    return mark_at(text, size - len(last) + last.rfind(b"\n") + 1 if b"\n" in last or size <= LINE_LIMIT else size)


def ends_at(position: Position, text: Text) -> bool:
    """True where the text ends where the position stands."""
    return match(position, text) is not None and not text.read(position.offset, 1)


def match(position: Position, text: Text) -> Mark | None:
    """The mark of `position` in `text`, if `text` is the file that was read so far, or a copy of it that goes on."""
    if position.offset == 0:  # nothing was read, so nothing proves anything
        return None
    head = text.read(0, position.head_length)
    if digest(head) != position.head:
        return None
    tail = text.read(position.offset - position.tail_length, position.tail_length)
    return Mark(position.offset, head, tail) if digest(tail) == position.tail else None
