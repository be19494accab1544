"""What the tests of forwarding share: certificates, stores with packets of many kinds, and a way to forward them.

Rule: the stores are real, filled by the collector from lines of the sample log.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

from analytics import Reader
from collector import Settings
from collector.forward.marks import StateFile
from collector.forward.runner import Forwarder, Order
from collector.forward.target import parse_target
from collector.ingest import ingest
from tests.forward.receivers import ROOT, Certificates

Forward = Callable[..., Forwarder]


def packet_lines() -> list[str]:
    """The sample log's lines about packets."""
    return [line for line in (ROOT / "samples" / "syslog").read_text().splitlines(True) if "calico-packet: IN=" in line]


def make_store(folder: Path, lines: Iterable[str]) -> str:
    """A store that holds these lines' packets."""
    log = folder / "syslog"
    log.write_text("".join(lines))
    summary = ingest([str(log)], str(folder / "store"), Settings())
    assert not summary.failed
    return str(folder / "store")


def stored(store: str) -> list[dict[str, Any]]:
    """All packets in the order in which they came in."""
    with Reader(store) as reader:
        return reader.rows("FROM packets ORDER BY stored_at, source_file, source_offset").dicts()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority, a server and a client."""
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with 2 000 packets of all kinds that the sample log has; no test writes to it."""
    lines = packet_lines()
    step = max(1, len(lines) // 2000)
    return make_store(tmp_path_factory.mktemp("forward"), lines[::step][:2000])


@pytest.fixture
def forward(store: str, tmp_path: Path) -> Forward:
    """Forward everything in a store to a URL, once, with a state file of the test's own."""

    def run(url: str, folder: str = store, **order: Any) -> Forwarder:
        target = parse_target(url)
        with StateFile(tmp_path / f"{target.scheme}.json", folder, target.name) as marks:
            forwarder = Forwarder(folder, Order(target=target, zone=UTC, once=True, **order), marks)
            forwarder.run(threading.Event())
        return forwarder

    return run
