"""How far did we get? One file that is being read: its mark, what came of it so far, and the next chunk of whole lines.

Rule: the mark stays at the start of a line. What lies behind it is accounted for; what lies ahead is read again after
a restart. Every chunk is proved, after it was read, to follow what was read before it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from analytics import LossRow, Position
from collector.identity import Mark, digest
from collector.idle import Idle
from collector.lines import nuls, whole
from collector.rows import Piece, losses_of, overlong, packets_of, rejects_of
from collector.settings import LINE_LIMIT, Settings
from collector.texts import Facts, PlainText, Text
from parser.bulk import Batch, read

_LOG = logging.getLogger(__name__)
TICK_S = 1.0  # time stamps of files move in steps: 4 ms on ext4, a second or two on some network file systems
_LINE_START = 512  # bytes of an over-long line that are kept to show what it was


Name = Callable[[bytes], str]
"""Gives a file its identity from its first bytes."""


class Rewritten(Exception):
    """The file no longer holds what was read from it: it was truncated, or written anew."""


class Tail:
    """Reads one text from a mark on.

    `position` is None until something of the text is accounted for: a file has no identity before its first line.
    """

    def __init__(
        self,
        text: Text,
        source: str,
        settings: Settings,
        name: Name,
        *,
        mark: Mark | None = None,
        known: Position | None = None,
    ) -> None:
        self.text = text
        self.key = text.facts().key
        self.position = known
        self.mark = self._ahead = mark or Mark()
        self.size = known.size if known else 0
        self._idle = Idle(text.facts())
        self._source = source
        self.settings = settings
        self._name = name
        self._long = b""  # how the over-long line starts whose end is looked for
        self._seen: Facts | None = None
        self.behind = True

    def unchanged(self) -> bool:
        """True where the file system says that nothing happened since the last read came to the end."""
        return not self.behind and self._seen is not None and self._seen == self.text.facts()

    def idle_s(self) -> float:
        """Seconds since something happened to the file; raises OSError."""
        return self._idle.note(self.text.facts())

    def intact(self) -> bool:
        """True where the bytes just before the place reached are what they were; raises OSError."""
        return not isinstance(self.text, PlainText) or self._ahead.holds(self.text)

    def read(self, *, final: bool = False) -> Piece | None:
        """The next lines, or None where there is no whole line; `final`: what is left at the end is a line too.

        Raises Rewritten, and OSError from the file system.
        """
        facts = self.text.facts()
        at = self._ahead
        if facts.size is not None and facts.size < at.offset:
            raise Rewritten(self.text.path)
        data = self.text.read(at.offset, self.settings.chunk_bytes)
        if not self.intact():
            raise Rewritten(self.text.path)
        self._note(facts, at.offset + len(data))
        self.behind = len(data) == self.settings.chunk_bytes
        final = final and not self.behind and not self.text.damage  # the rest of a damaged line may come one day
        if self._long:
            return self._find_end(data, final=final)
        if hole := nuls(data):  # the mark waits for text: NULs would not prove anything
            self._ahead, self.behind = at.advance(data[:hole]), True
            return None
        return self._lines(data, facts, final=final)

    def begin(self) -> Piece:
        """The position at the mark before anything is read, so that a later start goes on from there."""
        self.position = self._stand()
        return Piece(self.position)

    def lose(self, reason: str) -> Piece:
        """Give up what was not read, which is the rest up to the size last seen."""
        piece = give_up(replace(self._stand(), size=max(self.size, self.mark.offset)), self.settings.node, reason)
        self.position = piece.position
        return piece

    def close_position(self) -> Piece:
        """Declare the file read to its end; a damaged archive is a loss. The time stays that of the last line read:
        should this file be gone one day, its successors are those written to since."""
        position = self._stand()
        losses: tuple[LossRow, ...] = ()
        if self.text.damage:
            losses = (loss_row(position, self.settings.node, f"{self.text.path}: damaged: {self.text.damage}"),)
        before = self.position or position
        self.position = replace(position, size=position.offset, closed=True, time=before.time)
        return Piece(self.position, losses=losses)

    def _lines(self, data: bytes, facts: Facts, *, final: bool) -> Piece | None:
        good = whole(data)
        if len(data) - good > LINE_LIMIT and not good:
            self._long = data[:_LINE_START]
            return self._find_end(data, final=final)
        if final and len(data) - good <= LINE_LIMIT:
            good = len(data)
        if not good:
            return None
        lines = data if good == len(data) else data[:good]
        batch = self._parse(lines, facts, final=final)
        if not batch.consumed:
            if len(data) < self.settings.chunk_bytes:
                return None
            batch = self._parse(lines, facts, final=True)  # a record without end: its lines have to do
        return self._take(batch, lines[: batch.consumed])

    def _parse(self, lines: bytes, facts: Facts, *, final: bool) -> Batch:
        options = self.settings.options
        return read(lines, options, anchor=facts.modified, final=final, before=self.mark.tail)

    def _take(self, batch: Batch, lines: bytes) -> Piece:
        base, node, now = self._ahead.offset, self.settings.node, datetime.now(UTC)
        before, self.mark = self.mark.offset, self._ahead.advance(lines)
        self._ahead = self.mark
        position = self._stand()
        self.position = replace(
            position,
            lines=position.lines + batch.lines,
            packets=position.packets + batch.packets.height,
            others=position.others + batch.others,
            rejects=position.rejects + len(batch.rejects),
        )
        return Piece(
            self.position,
            packets_of(batch, position.file, base, node),
            rejects_of(batch, position.file, base.__add__, node, lambda _: now),
            losses_of(batch, position.file, base.__add__, node, lambda _: now),
            lines=batch.lines,
            bytes=self.mark.offset - before,
        )

    def _find_end(self, data: bytes, *, final: bool) -> Piece | None:
        """Look for the newline that ends an over-long line; the mark waits at the line's start."""
        newline = data.find(b"\n")
        self._ahead = self._ahead.advance(data if newline < 0 else data[: newline + 1])
        if newline < 0 and not final:
            return None
        base, self.mark, start = self.mark.offset, self._ahead, self._long
        self._long, self._seen, self.behind = b"", None, True
        position = self._stand()
        self.position = replace(position, lines=position.lines + 1, rejects=position.rejects + 1)
        length = self.mark.offset - base
        row = overlong(start, length, position.file, base, self.settings.node)
        return Piece(self.position, rejects=(row,), lines=1, bytes=length)

    @property
    def unread(self) -> bool:
        """True where the file holds bytes that are not accounted for: a line without its newline."""
        return self.size > self.mark.offset

    def _note(self, facts: Facts, end: int) -> None:
        """Remember the size, and what the file looked like, unless it may change again within a tick of its clock."""
        self.size = max(facts.size or 0, end)
        settled = facts.size is None or time.time() - facts.changed > TICK_S
        self._seen = facts if settled else None
        self._idle.note(facts)

    def _stand(self) -> Position:
        """The position at the mark, with the totals as they were before."""
        facts = self.text.facts()
        known = self.position or Position(source=self._source, file=self._name(self.mark.head), path="", time=_now())
        return replace(
            known,
            path=self.text.path,
            device=facts.device,
            inode=facts.inode,
            head_length=len(self.mark.head),
            head=digest(self.mark.head),
            offset=self.mark.offset,
            tail_length=len(self.mark.tail),
            tail=digest(self.mark.tail),
            size=max(self.size, self.mark.offset),
            closed=False,
            time=_now(),
        )


def give_up(position: Position, node: str | None, reason: str) -> Piece:
    """Declare what lies between the position and the size last seen to be lost, and the file closed."""
    missing = max(0, position.size - position.offset)
    closed = replace(position, size=position.offset, bytes_lost=position.bytes_lost + missing, closed=True, time=_now())
    known = f"{missing} bytes that were seen were not read" if missing else "all that was seen of it was read"
    return Piece(closed, losses=(loss_row(closed, node, f"{reason}; {known}"),), bytes_lost=missing)


def gone(position: Position, node: str | None, *, youngest: bool) -> Piece:
    """Give up a file that is nowhere. Was it the youngest, then more may have been written to it than was seen."""
    if youngest or position.size > position.offset:
        reason = f"{position.path}: gone before it was read to its end"
        _LOG.warning("%s", reason)
        return give_up(position, node, reason)
    return Piece(replace(position, closed=True))


def loss_row(position: Position, node: str | None, text: str) -> LossRow:
    """A loss that the collector itself noticed, at the place where it stands."""
    return LossRow(_now(), node, position.file, position.offset, "denylog", None, text)


def _now() -> datetime:
    return datetime.now(UTC)
