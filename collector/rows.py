"""What one read of a source brings: rows with their place, and the position that accounts for them.

Rule: a piece is whole by itself; committed in order, pieces add up to exactly what was read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from analytics import Commit, LossRow, Position, RejectRow
from parser import REASONS
from parser.bulk import Batch

Place = Callable[[int], int]
"""From the offset of a line in its chunk to its place in the source: bytes for files, records for the journal."""

When = Callable[[int], datetime]
"""The time of the line at this offset, for one that shows none."""

TOO_LONG = "line too long"
assert TOO_LONG in REASONS


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows and the position after them; `lines` and `bytes` of text were accounted for, `bytes_lost` never will be."""

    position: Position
    packets: tuple[pl.DataFrame, ...] = ()
    rejects: tuple[RejectRow, ...] = ()
    losses: tuple[LossRow, ...] = ()
    lines: int = 0
    bytes: int = 0
    bytes_lost: int = 0


def packets_of(batch: Batch, file: str, base: int, node: str | None) -> tuple[pl.DataFrame, ...]:
    """The packets of a batch that starts at byte `base` of `file`, with the collector's node where they name none."""
    if not batch.packets.height:
        return ()
    columns = [pl.lit(file).alias("source_file"), pl.col("source_offset") + base]
    if node is not None:
        columns.append(pl.col("node").fill_null(node))
    frame = batch.packets.with_columns(columns)
    names = [name for name in frame.columns if name not in ("source_file", "source_offset")]
    return (frame.select(*names, "source_file", "source_offset"),)


def rejects_of(batch: Batch, file: str, place: Place, node: str | None, when: When) -> tuple[RejectRow, ...]:
    """The rejects of a batch; one without a time on it gets that of `when`."""
    return tuple(
        RejectRow(
            time=found.time or when(found.offset),
            node=found.node or node,
            source_file=file,
            source_offset=place(found.offset),
            reason=found.reject.reason,
            position=found.reject.position,
            detail=found.reject.detail,
            line=_text(found.line),
        )
        for found in batch.rejects
    )


def losses_of(batch: Batch, file: str, place: Place, node: str | None, when: When) -> tuple[LossRow, ...]:
    """The reports of loss in a batch; one without a time on it gets that of `when`."""
    return tuple(
        LossRow(
            time=found.time or when(found.offset),
            node=found.node or node,
            source_file=file,
            source_offset=place(found.offset),
            source=found.loss.source,
            count=found.loss.count,
            line=_text(found.line),
        )
        for found in batch.losses
    )


def overlong(start: bytes, length: int, file: str, offset: int, node: str | None) -> RejectRow:
    """The reject for a line of `length` bytes that begins with `start`."""
    detail = f"{length} bytes"
    return RejectRow(datetime.now(UTC), node, file, offset, TOO_LONG, 0, detail, _text(start))


def commit_of(pieces: Iterable[Piece]) -> Commit:
    """One commit of all pieces, with the last position of each file."""
    pieces = list(pieces)
    return Commit(
        packets=tuple(frame for piece in pieces for frame in piece.packets),
        rejects=tuple(row for piece in pieces for row in piece.rejects),
        losses=tuple(row for piece in pieces for row in piece.losses),
        positions=tuple({piece.position.file: piece.position for piece in pieces}.values()),
    )


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")
