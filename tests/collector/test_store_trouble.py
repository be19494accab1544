"""The collector when its store is in trouble: another writer, a long reader, a full disk."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from analytics import Reader, StoreError, Writer
from collector import Settings
from collector.follow import follow
from collector.health import Health
from collector.watch import Watch
from tests.collector.live import REPOSITORY, collecting, lines, stored, wait_until

_HOLD = """
import sys, time
from analytics import engine, store
with engine.reading(store.resolve(sys.argv[1]), engine.READ) as connection:
    connection.execute("BEGIN")
    for pause in (float(sys.argv[2]), 0):
        print(connection.execute("SELECT count(*) FROM (SELECT source_port FROM packets)").fetchone()[0], flush=True)
        time.sleep(pause)
"""


def test_second_writer(tmp_path: Path) -> None:
    """A second collector is refused with a sentence that names the first."""
    log, store = tmp_path / "syslog", tmp_path / "store"
    log.write_text(lines(range(3)))
    with collecting(store, log) as first:
        wait_until(store, 3)
        with pytest.raises(StoreError, match=f"is being written to by process {first.pid} "):
            follow([str(log)], str(store), Settings(once=True), threading.Event())


def test_waits_for_the_writer_before(tmp_path: Path) -> None:
    """While the process before has the store, the next one is alive, not ready and says why; then it goes on."""
    log, store = tmp_path / "syslog", tmp_path / "store"
    log.write_text(lines(range(3)))
    health, stop, said = Health(), threading.Event(), list[str]()
    settings = Settings(wait_s=60.0, batch_age_s=0.1, poll_s=0.3)
    with Writer(str(store)):
        thread = threading.Thread(target=lambda: follow([str(log)], str(store), settings, stop, watch=health))
        thread.start()
        deadline = time.monotonic() + 20
        while "is being written to by process" not in health.ready() and time.monotonic() < deadline:
            time.sleep(0.1)
        said.append(health.ready())
        assert health.alive() == ""
    assert wait_until(store, 3) == [0, 1, 2]
    assert health.ready() == ""
    stop.set()
    thread.join(30)
    assert said[0].startswith("the store is not open yet: ")


def test_waits_no_longer_than_it_was_told(tmp_path: Path) -> None:
    """`--wait` is how long; told to stop meanwhile it does so. Both times the holder is named, and the code is 3."""
    log, store = tmp_path / "syslog", tmp_path / "store"
    log.write_text(lines(range(3)))
    command = [sys.executable, str(REPOSITORY / "cli.py"), "collect", "--store", str(store), str(log), "--wait"]
    with Writer(str(store)):
        began = time.monotonic()
        short = subprocess.run([*command, "5s"], capture_output=True, text=True, check=False, timeout=60)
        assert time.monotonic() - began > 5.0
        with subprocess.Popen([*command, "1h"], stderr=subprocess.PIPE, text=True) as long:
            assert long.stderr is not None
            assert "waiting for it, at most 3600 s" in long.stderr.readline()
            long.terminate()
            said = long.stderr.read()
    for code, text in ((short.returncode, short.stderr), (long.returncode, said)):
        assert code == 3
        assert f"is being written to by process {os.getpid()} " in text.splitlines()[-1]
    assert len(short.stderr.splitlines()) == 2


class Losses(Watch):
    """Hears how many packets were dropped."""

    packets = 0

    def dropped(self, packets: int) -> None:
        self.packets += packets


def test_keep_size(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Beyond --keep-size days of packets go, which is told with their number, and so is that today's alone are more."""
    log, store, watch, stop = tmp_path / "syslog", tmp_path / "store", Losses(), threading.Event()
    today = f"{datetime.now(UTC):%Y-%m-%d}T"
    log.write_text(lines(range(300)) + lines(range(300, 350)).replace("2026-11-22T", today))
    settings = Settings(keep_bytes=1000, maintain_s=0.3, batch_age_s=0.1, poll_s=0.3)
    thread = threading.Thread(target=lambda: follow([str(log)], str(store), settings, stop, watch=watch))
    thread.start()
    deadline = time.monotonic() + 30
    while "nothing but today" not in caplog.text and time.monotonic() < deadline:
        time.sleep(0.1)
    stop.set()
    thread.join(30)
    assert watch.packets == 300
    assert "dropped 300 packets of 2026-11-22, since the store took more than 0 MB" in caplog.text
    assert caplog.text.count("nothing but today") == 1
    assert stored(store) == list(range(300, 350))


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tiny", str(folder)], check=False).returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.system
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_disk_full(tmp_path: Path, tiny: Path) -> None:
    """With a full disk reading stops; once there is space it goes on by itself, and nothing is lost."""
    log, store, ballast = tmp_path / "syslog", tiny / "store", tiny / "ballast"
    log.write_text(lines(range(10)))
    with collecting(store, log):
        wait_until(store, 10)
        fill(ballast)
        with log.open("a") as writer:
            writer.write(lines(range(10, 3000)))
        time.sleep(3.0)
        ballast.unlink()
        assert wait_until(store, 3000, seconds=60) == list(range(3000))
    assert stored(store) == list(range(3000))


def fill(path: Path) -> None:
    """Write until there is no space left."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as full:
        while True:
            full.write(b"x" * 4096)


def hold_open(tmp_path: Path, seconds: float) -> None:
    """A reader keeps a transaction open for so long, while the collector goes on."""
    log, store = tmp_path / "syslog", tmp_path / "store"
    log.write_text(lines(range(10)))
    with collecting(store, log):
        wait_until(store, 10)
        command = [sys.executable, "-c", _HOLD, str(store), str(seconds)]
        reader = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, stdout=subprocess.PIPE)
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"10\n"
        end, number = time.monotonic() + seconds, 10
        while time.monotonic() < end - 1:
            with log.open("a") as writer:
                writer.write(lines([number]))
            number += 1
            time.sleep(0.3)
        assert wait_until(store, number, seconds=10) == list(range(number))
        said, _ = reader.communicate()
        assert said == b"10\n", "the reader's own transaction sees what it saw at its start"


def test_reader_holds_a_transaction(tmp_path: Path) -> None:
    """A reader with an open transaction never stops the collector."""
    hold_open(tmp_path, 4.0)


@pytest.mark.slow
def test_reader_holds_a_transaction_for_a_minute(tmp_path: Path) -> None:
    """Nor does one that holds it for a minute."""
    hold_open(tmp_path, 60.0)


def test_stop_commits(tmp_path: Path) -> None:
    """What was read when SIGTERM came is committed."""
    log, store = tmp_path / "syslog", tmp_path / "store"
    log.write_text(lines(range(5)))
    with collecting(store, log):
        wait_until(store, 5)
        with log.open("a") as writer:
            writer.write(lines(range(5, 8)))
        time.sleep(1.5)
    with Reader(str(store)) as reader:
        assert reader.rows("SELECT count(*) FROM packets").rows == [(8,)]
