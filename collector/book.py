"""Everything that was ever read: the positions by file, and the files that are open now.

Rule: a content is read by one reader at a time, and known content is never read again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from analytics import Position
from collector.identity import PROOF, Mark, digest, match
from collector.recall import Recall, all_of, elders_of
from collector.tail import Tail
from collector.texts import Facts, Text
from collector.watch import NOBODY, Watch
from parser import Options

_ID_DIGITS = 16


class Book:
    """Positions in the order in which their files were first read, and the open tails."""

    def __init__(self, positions: Iterable[Position] = (), watch: Watch = NOBODY, recall: Recall | None = None) -> None:
        """`recall` tells what the store holds of a file that was cut; without it such a file is a new one."""
        self.watch = watch
        self._recall = recall
        self.positions = {position.file: position for position in positions}
        self.tails: list[Tail] = []
        self._stamp = 0

    def name(self, head: bytes) -> str:
        """A new identity: the time in nanoseconds and a digest of the first bytes, in hex; later ones sort higher."""
        self._stamp = max(self._stamp + 1, time.time_ns())
        return f"{self._stamp:016x}{digest(head)[:_ID_DIGITS]}"

    def note(self, position: Position) -> None:
        """Keep the newest position of a file."""
        self.positions[position.file] = position

    def family(self, source: str) -> list[Position]:
        """The positions of what the user named `source`, oldest file first."""
        return [position for position in self.positions.values() if position.source == source]

    def kept(self, text: Text, source: str, head: bytes, options: Options) -> int | None:
        """How much of a file that was cut is stored already, None where that is not known yet (see `Recall`)."""
        if self._recall is None:
            return 0
        elders = elders_of(text, self.family(source), head)
        return (all_of(text, head) or self._recall.kept(text, elders, options)) if elders else 0

    def reader(self, key: tuple[int, int]) -> Tail | None:
        """The open tail of the file with this device and inode."""
        return next((tail for tail in self.tails if tail.key == key), None)

    def busy(self, file: str) -> bool:
        """True where a file with this identity is open."""
        return any(tail.position is not None and tail.position.file == file for tail in self.tails)

    def find(self, text: Text, *, strictly: bool) -> tuple[Position, Mark] | None:
        """The position that `text` goes on from, the furthest where there are several; None for a new content.

        `strictly`: a few bytes prove nothing, unless device and inode are the same as well, and the file was not
        closed before it was last written to (an inode is soon used again).
        """
        found = [(position, mark) for position in self._alike(text) if (mark := match(position, text)) is not None]
        if strictly:
            facts = text.facts()
            found = [(known, mark) for known, mark in found if known.offset >= PROOF or _same(known, facts)]
        return max(found, key=lambda pair: pair[0].offset, default=None)

    def _alike(self, text: Text) -> Iterator[Position]:
        """Positions that are not open and whose head the text has; each length of head is read once."""
        heads: dict[int, str] = {}
        start = text.read(0, PROOF)
        for position in list(self.positions.values()):
            size = position.head_length
            if position.offset and size <= len(start):
                if size not in heads:
                    heads[size] = digest(start[:size])
                if heads[size] == position.head and not self.busy(position.file):
                    yield position


def _same(position: Position, facts: Facts) -> bool:
    untouched = not position.closed or facts.modified <= position.time
    return untouched and facts.key == (position.device, position.inode)
