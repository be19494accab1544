"""The fast path: a chunk of whole lines becomes columns; what it does not fully recognise goes to the reference."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import polars as pl

from parser.outcome import Loss, Reject
from parser.packet import Packet


@dataclass(frozen=True, slots=True)
class Rejected:
    """A rejected line and where it starts, in bytes from the beginning of the chunk."""

    offset: int
    line: bytes
    reject: Reject
    time: datetime | None
    node: str | None


@dataclass(frozen=True, slots=True)
class Lost:
    """A line that reports a loss and where it starts, in bytes from the beginning of the chunk."""

    offset: int
    line: bytes
    loss: Loss
    time: datetime | None
    node: str | None


@dataclass(frozen=True, slots=True)
class Batch:
    """What a chunk held: `lines == packets.height + others + len(rejects)`.

    `consumed`: bytes that were whole records. `packets`: the columns of `FIELDS`, then `source_offset` (bytes from the
    beginning of the chunk). `last`: the packet of the last line, if it was one.
    """

    consumed: int
    lines: int
    packets: pl.DataFrame
    others: int
    rejects: tuple[Rejected, ...]
    losses: tuple[Lost, ...]
    last: Packet | None
