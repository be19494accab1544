"""The state of a store for people (a few tables) and for programs (one JSON object).

Rule: both say the same; what is wrong stands where it cannot be missed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime, tzinfo
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from analytics.output import UNBOUNDED, short
from analytics.status import Source, Status
from analytics.values import cell, plain

_SOURCE_COLUMNS = ("file", "read", "behind", "lines", "packets", "not ours", "rejected", "lost", "last commit")


def summary(status: Status, zone: tzinfo) -> str:
    """The state as a JSON object; `sources` has one entry for each file, with its position, lag and accounts."""
    sources = [
        {**asdict(source.position), "lag_bytes": source.lag_bytes, "lag_s": source.lag_s, "balanced": source.balanced}
        for source in status.sources
    ]
    document = {**asdict(status), "sources": sources, "balanced": status.balanced}
    return json.dumps(_plain(document, zone), indent=2)


def _plain(value: Any, zone: tzinfo) -> Any:
    match value:
        case dict():
            return {name: _plain(entry, zone) for name, entry in value.items()}
        case list() | tuple():
            return [_plain(entry, zone) for entry in value]
        case _:
            return plain(value, zone)


def report(status: Status, stream: TextIO, zone: tzinfo) -> None:
    """The state as tables: files, then what was rejected and lost, then the store itself."""
    console = Console(file=stream, highlight=False, width=None if stream.isatty() else UNBOUNDED)
    if status.sources:
        console.print(_table(_SOURCE_COLUMNS, (_source(source, zone) for source in status.sources), left=1))
    if status.rejects:
        rows = ((found.reason, f"{found.kept:,}", f"{found.beyond:,}") for found in status.rejects)
        console.print(_table(("rejected because", "kept", "only counted"), rows, left=1))
    if status.losses:
        found = ((loss.source, f"{loss.reports:,}", f"{loss.lines:,}") for loss in status.losses)
        console.print(_table(("lines missing, says", "reports", "lines"), found, left=1))
    console.print(Text(_sentence(status, zone)))


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]], *, left: int) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for place, name in enumerate(columns):
        table.add_column(name, justify="left" if place < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _source(source: Source, zone: tzinfo) -> tuple[str, ...]:
    position = source.position
    numbers = (position.lines, position.packets, position.others, position.rejects)
    wrong = "" if source.balanced else " (does not balance)"
    return (
        cell(position.path, zone),
        f"{position.offset:,}",
        f"{source.lag_bytes:,}" + (f" for {_span(source.lag_s)}" if source.lag_bytes else ""),
        *(f"{number:,}" for number in numbers),
        f"{position.bytes_lost:,}{wrong}",
        f"{short(position.time, zone)} ({_ago(position.time)})",
    )


def _ago(moment: datetime) -> str:
    return f"{_span((datetime.now(UTC) - moment).total_seconds())} ago"


def _span(seconds: float) -> str:
    whole = max(int(seconds), 0)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if whole >= size:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def _sentence(status: Status, zone: tzinfo) -> str:
    size = (status.catalog_bytes + status.data_bytes) / 1e6
    if not status.rows:
        return f"No packets yet, {size:.1f} MB on disk. Fill it: denylog ingest FILE, or denylog collect FILE."
    first, last = (short(moment, zone) for moment in (status.first_time, status.last_time))
    balance = "The accounts balance." if status.balanced else "THE ACCOUNTS DO NOT BALANCE: please report this."
    return f"{status.rows:,} packets from {first} to {last}, {size:.1f} MB on disk. {balance}"
