"""`collect --once` and `ingest`: contents are read once ever, odd bytes do no harm, the accounts add up."""

from __future__ import annotations

import gzip
import io
import sys
import threading
from pathlib import Path

import pytest
import zstandard

from analytics import Position, Reader, Writer
from collector import End, Settings, Summary
from collector.follow import follow
from collector.ingest import ingest
from collector.settings import LINE_LIMIT
from tests.collector.live import lines, stored

ONCE = Settings(once=True)


def once(log: Path, store: Path, settings: Settings = ONCE) -> Summary:
    return follow([str(log)], str(store), settings, threading.Event())


def take(store: Path, *files: Path) -> Summary:
    return ingest([str(path) for path in files], str(store), Settings())


def positions(store: Path) -> list[Position]:
    with Writer(str(store)) as writer:
        return writer.positions()


def test_half_a_line_waits(tmp_path: Path) -> None:
    """A last line without newline is not read before its end is there, also not across restarts."""
    log, store = tmp_path / "syslog", tmp_path / "store"
    text = lines(range(3))
    log.write_text(text[:-20])
    first = once(log, store)
    assert (first.lines, first.waiting) == (2, [str(log)])
    assert once(log, store).lines == 0
    log.write_text(text)
    assert once(log, store).lines == 1
    assert stored(store) == [0, 1, 2]


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    """`once` tells of a path that leads to nothing or to no file, and reads the others."""
    log, absent = tmp_path / "syslog", tmp_path / "absent"
    log.write_text(lines(range(3)))
    paths = [str(absent), str(tmp_path), str(log)]
    summary = follow(paths, str(tmp_path / "store"), ONCE, threading.Event())
    assert summary.failed == [(str(absent), "No such file or directory"), (str(tmp_path), "is not a regular file")]
    assert stored(tmp_path / "store") == [0, 1, 2]


def test_followed_then_ingested(tmp_path: Path) -> None:
    """A file that was followed and is given again as an archive yields only what is new in it."""
    log, store, archive = tmp_path / "syslog", tmp_path / "store", tmp_path / "syslog.2.gz"
    log.write_text(lines(range(20)))
    once(log, store)
    archive.write_bytes(gzip.compress(lines(range(25)).encode()))
    assert take(store, archive).lines == 5
    again = take(store, archive)
    assert (again.lines, again.skipped) == (0, [str(archive)])
    assert stored(store) == list(range(25))


def test_archives_in_any_order(tmp_path: Path) -> None:
    """Rotated siblings, plain, gzip and zstd, are each read once, whatever their order; a final line counts."""
    store = tmp_path / "store"
    parts = [lines(range(start, start + 10)) for start in (0, 10, 20, 30)]
    (tmp_path / "syslog.3.gz").write_bytes(gzip.compress(parts[0].encode()))
    (tmp_path / "syslog.2.zst").write_bytes(zstandard.compress(parts[1].rstrip("\n").encode()))
    (tmp_path / "syslog.1").write_text(parts[2])
    (tmp_path / "syslog").write_text(parts[3])
    names = ["syslog", "syslog.2.zst", "syslog.1", "syslog.3.gz", "syslog.2.zst"]
    summary = take(store, *(tmp_path / name for name in names))
    assert (summary.lines, summary.packets, summary.failed) == (40, 40, [])
    assert stored(store) == list(range(40))
    assert [Path(position.source).name for position in positions(store)] == [
        "syslog.3.gz", "syslog.2.zst", "syslog.1", "syslog",
    ]  # fmt: skip


def test_ingested_then_followed(tmp_path: Path) -> None:
    """A file that was ingested and is followed later goes on where it was."""
    log, store = tmp_path / "syslog", tmp_path / "store"
    log.write_text(lines(range(20)))
    take(store, log)
    with log.open("a") as writer:
        writer.write(lines(range(20, 23)))
    assert once(log, store).lines == 3
    assert stored(store) == list(range(23))


def test_damaged_archive(tmp_path: Path) -> None:
    """What can be read of a cut archive is stored, the rest is a loss, and the other files are read."""
    store, cut, good = tmp_path / "store", tmp_path / "a.1.gz", tmp_path / "b.log"
    whole = gzip.compress(lines(range(5000)).encode())
    cut.write_bytes(whole[: len(whole) // 2])
    good.write_text(lines(range(6000, 6010)))
    summary = take(store, cut, good, tmp_path / "absent")
    assert [path for path, _ in summary.failed] == [str(cut), str(tmp_path / "absent")]
    assert (summary.losses, stored(store)[-10:]) == (1, list(range(6000, 6010)))
    cut.write_bytes(whole)
    take(store, cut)
    assert stored(store) == [*range(5000), *range(6000, 6010)], "the line that the damage cut is read when it is whole"


def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard input is read to its end, a last line without newline included."""
    piped = tmp_path / "piped"
    piped.write_text(lines(range(4)).rstrip("\n"))
    with piped.open("rb") as raw:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(raw))
        assert ingest(["-"], str(tmp_path / "store"), Settings()).packets == 4
    assert stored(tmp_path / "store") == list(range(4))


@pytest.mark.parametrize("length", [LINE_LIMIT + 1, 3 * 1024 * 1024])
def test_over_long_line(tmp_path: Path, length: int) -> None:
    """A line over the limit is one reject, whether it ends in the same chunk or after several, or after a restart."""
    log, store = tmp_path / "syslog", tmp_path / "store"
    log.write_text(lines([0]) + "x" * (length - 10))
    once(log, store)
    with log.open("a") as writer:
        writer.write("x" * 10 + "\n" + lines([1]))
    summary = once(log, store)
    assert (summary.rejects, summary.packets) == (1, 1)
    assert stored(store) == [0, 1]
    (position,) = positions(store)
    assert (position.lines, position.packets, position.others, position.rejects) == (3, 2, 0, 1)


def test_longest_line_is_a_line(tmp_path: Path) -> None:
    """A line of exactly the limit is read like any other."""
    log = tmp_path / "syslog"
    log.write_text(lines([0]) + "x" * LINE_LIMIT + "\n" + lines([1]))
    summary = once(log, tmp_path / "store")
    assert (summary.lines, summary.others, summary.rejects) == (3, 1, 0)


def test_odd_bytes(tmp_path: Path) -> None:
    """Bytes that are no text, and NULs, are other people's lines and stop nothing."""
    log = tmp_path / "syslog"
    log.write_bytes(
        b"\0" * 5000 + lines([0]).encode() + b"\xff\xfe\0\x80\n\0\0\n" + b"\0" * 200000 + lines([1]).encode()
    )
    once(log, tmp_path / "store")
    assert stored(tmp_path / "store") == [0, 1]


def test_read_from_end(tmp_path: Path) -> None:
    """`End` skips what is there, but not the line that is being written; a restart keeps the position."""
    log, store = tmp_path / "syslog", tmp_path / "store"
    log.write_text(lines(range(5)) + lines([5])[:-9])
    settings = Settings(once=True, read_from=End())
    assert once(log, store, settings).lines == 0
    log.write_text(lines(range(7)))
    once(log, store, Settings(once=True))
    assert stored(store) == [5, 6]


def test_read_from_end_skips_only_once(tmp_path: Path) -> None:
    """A file that came by rotation while nobody read is new from its first byte, also for a start with `End`."""
    log, store = tmp_path / "syslog", tmp_path / "store"
    settings = Settings(once=True, read_from=End())
    log.write_text(lines(range(5)))
    once(log, store, settings)
    with log.open("a") as writer:
        writer.write(lines(range(5, 7)))
    log.rename(tmp_path / "syslog.1")
    log.write_text(lines(range(7, 9)))
    once(log, store, settings)
    assert stored(store) == list(range(5, 9))


def test_reused_inode(tmp_path: Path) -> None:
    """A new file that got the old one's inode is another file."""
    log, store = tmp_path / "syslog", tmp_path / "store"
    log.write_text(lines(range(50)))
    once(log, store)
    inode = log.stat().st_ino
    log.unlink()
    log.write_text(lines(range(50, 120)))
    once(log, store)
    assert stored(store) == list(range(120)), f"inode {inode}, then {log.stat().st_ino}"


def test_small_chunks_equal_large_ones(tmp_path: Path) -> None:
    """How much is read at once changes nothing."""
    log = tmp_path / "syslog"
    log.write_text(lines(range(800)))
    for number, chunk in enumerate((LINE_LIMIT + 128, 100_000, 1024 * 1024)):
        store = tmp_path / f"store{number}"
        once(log, store, Settings(once=True, chunk_bytes=chunk, batch_bytes=chunk))
        assert stored(store) == list(range(800))


def test_node_of_the_collector(tmp_path: Path) -> None:
    """Rows whose line names no host get the collector's node; the others keep theirs."""
    log, store = tmp_path / "kern.log", tmp_path / "store"
    bare = lines([1]).split("kernel: ", 1)[1]
    log.write_text(lines([0]) + bare)
    once(log, store, Settings(once=True, node="node-9"))
    with Reader(str(store)) as reader:
        found = reader.rows("SELECT node FROM packets ORDER BY destination_port").rows
    assert found == [("node-1",), ("node-9",)]
