"""How a store is doing: how far each file was read, whether the accounts balance, what was rejected or lost.

Rule: what was stored is counted by the positions, which are committed with the rows, not by counting rows: retention
deletes rows, but what was read stays read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from analytics.position import Position
from analytics.reader import Reader
from analytics.store import Store


@dataclass(frozen=True, slots=True)
class Source:
    """One file: its position, what is not read yet, and whether lines == packets + others + rejects.

    `lag_bytes`: bytes in the file beyond the position, now where the file is still there, else when it was last seen.
    `lag_s`: how long ago the last commit was, if there is anything to read since; else 0.
    """

    position: Position
    lag_bytes: int
    lag_s: float
    balanced: bool


@dataclass(frozen=True, slots=True)
class Rejects:
    """Rejected lines of one reason: how many are kept in the store, how many were only counted."""

    reason: str
    kept: int
    beyond: int


@dataclass(frozen=True, slots=True)
class Losses:
    """Reports of one kind that lines are missing, and how many lines they admit to."""

    source: str
    reports: int
    lines: int


@dataclass(frozen=True, slots=True)
class Status:
    """The state of a store at one moment; times are None where there is no row."""

    sources: tuple[Source, ...]
    rows: int
    first_time: datetime | None
    last_time: datetime | None
    last_commit: datetime | None
    rejects: tuple[Rejects, ...]
    losses: tuple[Losses, ...]
    catalog_bytes: int
    data_bytes: int

    @property
    def balanced(self) -> bool:
        """True where every line that was read is accounted for."""
        return all(source.balanced for source in self.sources)


_PACKETS = "SELECT count(*), min(time), max(time) FROM packets"
_COMMIT = "SELECT max(stored_at) FROM positions"
_REJECTS = """
SELECT reason, sum(kept)::BIGINT AS kept, sum(beyond)::BIGINT AS beyond FROM (
    SELECT reason, count(*) AS kept, 0 AS beyond FROM rejects GROUP BY reason
    UNION ALL SELECT reason, 0, sum(count) FROM rejects_beyond GROUP BY reason
) GROUP BY reason ORDER BY reason
"""
_LOSSES = "SELECT source, count(*), coalesce(sum(count), 0)::BIGINT FROM losses GROUP BY source ORDER BY source"


def status(reader: Reader) -> Status:
    """The state of the reader's store; raises StoreError."""
    rows, first, last = reader.rows(_PACKETS).rows[0]
    return Status(
        sources=tuple(_source(position) for position in reader.positions()),
        rows=rows,
        first_time=first,
        last_time=last,
        last_commit=reader.rows(_COMMIT).rows[0][0],
        rejects=tuple(Rejects(*row) for row in reader.rows(_REJECTS).rows),
        losses=tuple(Losses(*row) for row in reader.rows(_LOSSES).rows),
        catalog_bytes=catalog_bytes(reader.store),
        data_bytes=data_bytes(reader.store),
    )


def catalog_bytes(store: Store) -> int:
    """Bytes of the catalog, its log included."""
    return sum(_sizes(store.folder.glob(f"{store.catalog.name}*")))


def data_bytes(store: Store) -> int:
    """Bytes of the Parquet files."""
    return sum(_sizes(store.data.rglob("*.parquet")))


def _source(position: Position) -> Source:
    lag = max(_size(position) - position.offset, 0)
    waiting = (datetime.now(UTC) - position.time).total_seconds() if lag else 0.0
    balanced = position.lines == position.packets + position.others + position.rejects
    return Source(position, lag, round(max(waiting, 0.0), 3), balanced)


def _size(position: Position) -> int:
    """Bytes in the file: a collector that does not run sees no growth, so look; a closed or compressed one stays."""
    try:
        found = os.stat(position.path)
    except OSError:
        return position.size
    same = (found.st_dev, found.st_ino) == (position.device, position.inode)
    return found.st_size if same and not position.closed else position.size


def _sizes(paths: Iterator[Path]) -> Iterator[int]:
    for path in paths:
        try:
            yield os.stat(path).st_size
        except FileNotFoundError:
            continue  # a writer's maintenance removed it meanwhile
