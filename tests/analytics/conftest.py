"""What the tests of the store share: packets made from a few words, commits that hold them, and a store on disk.

Rule: the store is always a real DuckLake; nothing of it is faked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from analytics import Commit, Position, Reader, Writer
from analytics.schema import TABLE

START = datetime(2026, 11, 20, 12, tzinfo=UTC)
PLAIN: dict[str, Any] = {
    "time": START,
    "uptime_s": 1.0,
    "node": "node-1",
    "direction": "ingress",
    "in_interface": "eth0",
    "out_interface": "cali0123456789a",
    "ip_version": 4,
    "source_ip": "10.0.0.1",
    "destination_ip": "10.1.0.1",
    "length": 60,
    "ip_id": 7,
    "protocol": "tcp",
    "source_port": 40000,
    "destination_port": 443,
    "tcp_flags": ["SYN"],
    "prefix": "calico-packet",
    "repeat_count": 0,
    "truncated": False,
    "source_file": "f00d",
}


def make_frame(rows: Iterable[dict[str, Any]]) -> pl.DataFrame:
    """Packets as the collector hands them over; what a row does not say is as in PLAIN, `source_offset` counts on."""
    schema = {name: kind for name, kind in TABLE["packets"].frame_schema().items() if name not in ("stored_at", "day")}
    filled = [{"source_offset": number * 100, **PLAIN, **row} for number, row in enumerate(rows)]
    return pl.DataFrame([{name: row.get(name) for name in schema} for row in filled], schema=schema)


def make_position(lines: int = 0, **changes: Any) -> Position:
    """A position of one file after so many lines, all of them packets."""
    known: dict[str, Any] = {
        "source": "/var/log/syslog",
        "file": "f00d",
        "path": "/var/log/syslog",
        "offset": lines * 100,
        "size": lines * 100,
        "lines": lines,
        "packets": lines,
        "time": START + timedelta(seconds=lines),
    }
    return Position(**{**known, **changes})


def make_commit(rows: Iterable[dict[str, Any]], **position: Any) -> Commit:
    """Packets and the position after them."""
    frame = make_frame(rows)
    return Commit(packets=(frame,), positions=(make_position(**{"lines": frame.height, **position}),))


@pytest.fixture(scope="session")
def frame() -> Callable[[Iterable[dict[str, Any]]], pl.DataFrame]:
    """`make_frame`."""
    return make_frame


@pytest.fixture(scope="session")
def position() -> Callable[..., Position]:
    """`make_position`."""
    return make_position


@pytest.fixture(scope="session")
def commit() -> Callable[..., Commit]:
    """`make_commit`."""
    return make_commit


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """The address of a store that is not there yet."""
    return str(tmp_path / "store")


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a store with one plain packet, which no test changes."""
    store = str(tmp_path_factory.mktemp("shared") / "store")
    with Writer(store) as writer:
        writer.commit(make_commit([{}]))
    return store


@pytest.fixture
def filled(folder: str) -> Callable[[Iterable[dict[str, Any]]], str]:
    """Make a store that holds these packets, and give its address."""

    def fill(rows: Iterable[dict[str, Any]]) -> str:
        with Writer(folder) as writer:
            writer.commit(make_commit(rows))
        return folder

    return fill


@pytest.fixture
def ask(folder: str) -> Callable[..., list[tuple[Any, ...]]]:
    """The rows that a fresh reader gets."""

    def rows(sql: str, **parameters: object) -> list[tuple[Any, ...]]:
        with Reader(folder) as reader:
            return reader.rows(sql, parameters).rows

    return rows
