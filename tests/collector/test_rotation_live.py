"""The follower in a process of its own, against real rotation: logrotate, renames, truncation, symbolic links."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from analytics import Reader
from tests.collector.live import LogWriter, collecting, following, lines, stored, wait_until

# Root without the capabilities that let it pass over the modes of files.
MORTAL = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
LOGROTATE = shutil.which("logrotate", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def configuration(folder: Path, log: Path, mode: str) -> Path:
    """A logrotate configuration that rotates `log` whenever it is run."""
    path = folder / "logrotate.conf"
    path.write_text(f"{log} {{\n  size 1\n  rotate 20\n  compress\n  delaycompress\n  {mode}\n}}\n")
    path.chmod(0o644)
    return path


def run_logrotate(path: Path, state: Path) -> None:
    """Rotate now."""
    assert LOGROTATE is not None
    subprocess.run([LOGROTATE, "--force", "--state", str(state), str(path)], check=True, timeout=60)


@pytest.mark.system
@pytest.mark.skipif(LOGROTATE is None, reason="needs logrotate")
def test_logrotate_create(tmp_path: Path) -> None:
    """logrotate renames, creates and compresses while a writer writes: each line is one row."""
    tmp_path.chmod(0o755)  # logrotate refuses folders that others may write to
    log, store = tmp_path / "syslog", tmp_path / "store"
    log.touch()
    path = configuration(tmp_path, log, "create")
    writer = LogWriter(log)
    writer.start()
    with collecting(store, log):
        wait_until(store, 1)  # at the very first start, rotated files are none of the collector's business
        for _ in range(6):
            time.sleep(0.7)
            run_logrotate(path, tmp_path / "state")
            time.sleep(0.2)  # lines that a writer who was not told yet writes to the renamed file
            writer.reopen()
        written = writer.finish()
        assert wait_until(store, written) == list(range(written))


@pytest.mark.system
@pytest.mark.skipif(LOGROTATE is None, reason="needs logrotate")
def test_logrotate_copytruncate(tmp_path: Path) -> None:
    """logrotate copies and truncates: each line is one row (written in bursts, for what is written between the copy
    and the truncation is lost by logrotate itself)."""
    tmp_path.chmod(0o755)
    log, store = tmp_path / "syslog", tmp_path / "store"
    log.touch()
    path = configuration(tmp_path, log, "copytruncate")
    written = 0
    with following(store, log), log.open("a") as writer:
        for burst in (30, 1, 400, 7, 60, 2000):
            writer.write(lines(range(written, written + burst)))
            writer.flush()
            written += burst
            wait_until(store, 30)  # at the very first start, rotated files are none of the collector's business
            time.sleep(0.05 * (burst % 3))
            run_logrotate(path, tmp_path / "state")
        assert wait_until(store, written) == list(range(written))


@pytest.mark.system
@pytest.mark.skipif(LOGROTATE is None, reason="needs logrotate")
def test_logrotate_while_down(tmp_path: Path) -> None:
    """Three rotations while nobody reads: the rest of the old file, then each younger one, then the live one."""
    tmp_path.chmod(0o755)
    log, store = tmp_path / "syslog", tmp_path / "store"
    log.write_text(lines(range(10)))
    path = configuration(tmp_path, log, "create")
    with following(store, log):
        wait_until(store, 10)
    for start in (10, 20, 30):
        with log.open("a") as writer:
            writer.write(lines(range(start, start + 10)))
        run_logrotate(path, tmp_path / "state")
    log.write_text(lines(range(40, 45)))
    with following(store, log):
        assert wait_until(store, 45) == list(range(45))


def test_symbolic_link_swap(tmp_path: Path) -> None:
    """A link that is turned to another file and back: both are read, each line once."""
    store, link = tmp_path / "store", tmp_path / "current"
    first, second = tmp_path / "a" / "x.log", tmp_path / "b" / "x.log"
    for number, path in enumerate((first, second)):
        path.parent.mkdir()
        path.write_text(lines(range(number * 100, number * 100 + 20)))
    link.symlink_to(first)
    with following(store, link):
        wait_until(store, 20)
        turn(link, second)
        wait_until(store, 40)
        with first.open("a") as writer:
            writer.write(lines(range(20, 25)))
        turn(link, first)
        assert wait_until(store, 45) == [*range(25), *range(100, 120)]


def turn(link: Path, target: Path) -> None:
    """Let a link lead elsewhere, in one step."""
    new = link.with_name("new")
    new.symlink_to(target)
    new.rename(link)


def test_absent_then_there(tmp_path: Path) -> None:
    """A file that appears later, in a folder that appears later, is read from its beginning."""
    log, store = tmp_path / "later" / "syslog", tmp_path / "store"
    with following(store, log):
        time.sleep(1.0)
        log.parent.mkdir()
        log.write_text(lines(range(5)))
        assert wait_until(store, 5) == list(range(5))


def test_globs(tmp_path: Path) -> None:
    """A pattern finds files that come later; rotated siblings are not files of their own."""
    store = tmp_path / "store"
    (tmp_path / "one.log").write_text(lines(range(5)))
    with following(store, f"{tmp_path}/*.log*"):
        wait_until(store, 5)
        (tmp_path / "one.log").rename(tmp_path / "one.log.1")
        (tmp_path / "one.log").write_text(lines(range(5, 10)))
        (tmp_path / "two.log").write_text(lines(range(10, 15)))
        assert wait_until(store, 15) == list(range(15))
        time.sleep(0.5)
    assert stored(store) == list(range(15))


def test_stale_writer_after_truncation(tmp_path: Path) -> None:
    """A writer that goes on at its old offset leaves a hole of NULs: it is passed over and is no line."""
    log, store = tmp_path / "syslog", tmp_path / "store"
    with log.open("w") as writer:
        writer.write(lines(range(10)))
        writer.flush()
        with following(store, log):
            wait_until(store, 10)
            shutil.copyfile(log, tmp_path / "syslog.1")
            os.truncate(log, 0)
            writer.write(lines(range(10, 13)))
            writer.flush()
            assert wait_until(store, 13) == list(range(13))
    with Reader(str(store)) as reader:
        assert reader.rows("SELECT * FROM rejects").rows == []


def test_truncated_away(tmp_path: Path) -> None:
    """Bytes that are nowhere any more are counted, and a row says so."""
    log, store = tmp_path / "syslog", tmp_path / "store"
    log.write_text(lines(range(10)))
    with following(store, log):
        wait_until(store, 10)
        with log.open("a") as writer:
            writer.write("half a line")
        time.sleep(1.0)
        log.write_text(lines(range(10, 13)))
        assert wait_until(store, 13) == list(range(13))
    with Reader(str(store)) as reader:
        assert reader.rows("SELECT sum(bytes_lost) FROM (FROM positions WHERE closed)").rows == [(11,)]
        assert reader.rows("SELECT source, count(*) FROM losses GROUP BY source").rows == [("denylog", 1)]


def test_rotated_before_anyone_was_told(tmp_path: Path) -> None:
    """Lines that arrive in the renamed file are read, and its unfinished last line once nothing comes any more."""
    log, store = tmp_path / "syslog", tmp_path / "store"
    with log.open("w") as writer:
        writer.write(lines(range(3)))
        writer.flush()
        with following(store, log, grace_s=2.0):
            wait_until(store, 3)
            log.rename(tmp_path / "syslog.1")
            log.write_text(lines([4]))
            time.sleep(0.5)
            writer.write(lines([3]).rstrip("\n"))
            writer.flush()
            assert wait_until(store, 5) == list(range(5))


def test_logs_are_read_by_a_writer_thread(tmp_path: Path) -> None:
    """A line waits no longer than about the batch age for its commit."""
    log, store = tmp_path / "syslog", tmp_path / "store"
    log.touch()
    writer = LogWriter(log, pause_s=0.01)
    with following(store, log):
        writer.start()
        wait_until(store, 1)
        time.sleep(2.0)
        assert len(stored(store)) > 0.5 * writer.written
        written = writer.finish()
        assert wait_until(store, written) == list(range(written))


@pytest.mark.system
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to drop capabilities")
def test_permission_denied_then_restored(tmp_path: Path) -> None:
    """A file that may not be read any more is read on from where it was as soon as it may be read again."""
    log, store = tmp_path / "syslog", tmp_path / "store"
    log.write_text(lines(range(3)))
    with collecting(store, log, prefix=MORTAL):
        wait_until(store, 3)
    with log.open("a") as writer:
        writer.write(lines(range(3, 6)))
    log.chmod(0)
    with collecting(store, log, prefix=MORTAL):
        time.sleep(3.0)
        assert stored(store) == list(range(3))
        log.chmod(0o644)
        assert wait_until(store, 6) == list(range(6))
    with Reader(str(store)) as reader:
        assert reader.rows("SELECT * FROM losses").rows == []
