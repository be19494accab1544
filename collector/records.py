"""Records of a source that counts records, not bytes: the journal and /dev/kmsg.

Rule: the same accounting as for files. A record is one line; its place is its number since the source was first read.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import accumulate

import polars as pl

from analytics import LossRow, Position
from collector.rows import Piece, losses_of, packets_of, rejects_of
from collector.settings import Settings
from parser.bulk import read

When = Callable[[int], datetime]
"""The time of the record with this index, for rows that show none."""


def start(source: str, file: str, path: str) -> Position:
    """The position before the first record."""
    return Position(source=source, file=file, path=path, time=datetime.now(UTC))


def piece_of(
    records: Sequence[bytes],
    position: Position,
    cursor: str,
    settings: Settings,
    *,
    when: When | None = None,
    gaps: Sequence[LossRow] = (),
) -> Piece:
    """What `records` (lines without newline) say, and the position after them; `gaps` are losses that were noticed."""
    now = datetime.now(UTC)
    data = b"".join(record + b"\n" for record in records)
    starts = [0, *accumulate(len(record) + 1 for record in records)]
    batch = read(data, settings.options, anchor=now, final=True)

    def index(offset: int) -> int:
        return bisect_right(starts, offset) - 1

    def place(offset: int) -> int:
        return position.offset + index(offset)

    def time(offset: int) -> datetime:
        return when(index(offset)) if when else now

    batch = replace(batch, packets=_numbered(batch.packets, starts))
    after = replace(
        position,
        cursor=cursor,
        offset=position.offset + len(records),
        size=position.offset + len(records),
        lines=position.lines + batch.lines,
        packets=position.packets + batch.packets.height,
        others=position.others + batch.others,
        rejects=position.rejects + len(batch.rejects),
        time=now,
    )
    node = settings.node
    return Piece(
        after,
        packets_of(batch, position.file, position.offset, node),
        rejects_of(batch, position.file, place, node, time),
        (*gaps, *losses_of(batch, position.file, place, node, time)),
        lines=batch.lines,
        bytes=len(data),
    )


def _numbered(packets: pl.DataFrame, starts: Sequence[int]) -> pl.DataFrame:
    """Offsets become numbers of records."""
    if not packets.height:
        return packets
    numbers = pl.Series(starts).search_sorted(packets["source_offset"], side="right").cast(pl.Int64) - 1
    return packets.with_columns(numbers.alias("source_offset"))
