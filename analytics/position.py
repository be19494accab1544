"""How far each source was read and what came of it, and what one transaction of the collector holds.

Rule: a position is committed together with the rows that it accounts for, or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from analytics.additions import ForwardedRow

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far one file (or journal, or kernel ring buffer) was read: `lines == packets + others + rejects`.

    `source`: what the user named. `file`: identity, fixed when the first bytes are read; the machine id for the
    journal, the boot id for /dev/kmsg. `path`: where it was last seen. `head`: blake2b (hex) of the first
    `head_length` bytes. `tail`: the same of the `tail_length` bytes just before `offset`. `offset`: bytes of text
    consumed (records for the journal and kmsg). `cursor`: journal cursor, or "<boot id>:<sequence>". `size`: bytes in
    the file when last seen. `bytes_lost`: truncated, deleted or rotated away before they were read. `closed`: rotated
    away and read to its end.
    """

    source: str
    file: str
    path: str
    device: int = 0
    inode: int = 0
    head_length: int = 0
    head: str = ""
    offset: int = 0
    tail_length: int = 0
    tail: str = ""
    cursor: str = ""
    size: int = 0
    lines: int = 0
    packets: int = 0
    others: int = 0
    rejects: int = 0
    bytes_lost: int = 0
    closed: bool = False
    time: datetime


@dataclass(frozen=True, slots=True)
class RejectRow:
    """A rejected line with its place; `time` is the time on the line where it has one, else when it was read."""

    time: datetime
    node: str | None
    source_file: str
    source_offset: int
    reason: str
    position: int
    detail: str
    line: str


@dataclass(frozen=True, slots=True)
class LossRow:
    """A report that log lines are missing: who says so (`source`), how many (`count`, None if not said), the line."""

    time: datetime
    node: str | None
    source_file: str
    source_offset: int
    source: str
    count: int | None
    line: str


@dataclass(frozen=True, slots=True)
class Commit:
    """All that one transaction holds; `packets` are frames with the columns of `parser.FIELDS`, then
    `source_file` (String) and `source_offset` (Int64); `forwarded` says how far targets are."""

    packets: tuple[pl.DataFrame, ...] = ()
    rejects: tuple[RejectRow, ...] = ()
    losses: tuple[LossRow, ...] = ()
    positions: tuple[Position, ...] = ()
    forwarded: tuple[ForwardedRow, ...] = ()
