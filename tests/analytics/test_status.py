"""How far behind a store is, seen from outside the collector."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from analytics import Commit, Position, Reader, Writer
from analytics.report import report, summary
from analytics.status import Status, status


def _status(tmp_path: Path, *, closed: bool = False) -> Status:
    """The state of a store that has read ten bytes of a file, an hour ago; the file has twelve by now."""
    log, store = tmp_path / "syslog", str(tmp_path / "store")
    log.write_bytes(b"0123456789ab")
    found = log.stat()
    position = Position(
        source=str(log), file="f1", path=str(log), device=found.st_dev, inode=found.st_ino, offset=10, size=10,
        lines=3, packets=1, others=1, rejects=1, closed=closed, time=datetime.now(UTC) - timedelta(hours=1),
    )  # fmt: skip
    with Writer(store) as writer:
        writer.commit(Commit(positions=(position,)))
    with Reader(store) as reader:
        return status(reader)


def test_growth_shows_without_a_collector(tmp_path: Path) -> None:
    """What was appended after the last commit is behind, in bytes and in seconds, in both forms."""
    found = _status(tmp_path)
    assert (found.sources[0].lag_bytes, found.balanced) == (2, True)
    assert 3600 <= found.sources[0].lag_s < 3700
    assert json.loads(summary(found, UTC))["sources"][0]["lag_bytes"] == 2
    shown = io.StringIO()
    report(found, shown, UTC)
    assert "2 for 1h" in shown.getvalue()
    assert "1h ago" in shown.getvalue()


def test_a_closed_file_is_not_behind(tmp_path: Path) -> None:
    """A file that was rotated away and read to its end has nothing more to give, whatever stands at its path now."""
    found = _status(tmp_path, closed=True).sources[0]
    assert (found.lag_bytes, found.lag_s) == (0, 0.0)
