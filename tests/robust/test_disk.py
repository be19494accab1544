"""Disks that are full, fail, or are read-only: said in a sentence, and nothing is lost or stored twice."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from analytics.options import Exit
from tests.collector.live import line, lines, stored, wait_until
from tests.robust.box import collector, one_sentence

pytestmark = [pytest.mark.system, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
_STOPS = "reading stops until the store takes rows again, nothing is lost"
_COUNT = 3000


@contextlib.contextmanager
def mounted(folder: Path, *arguments: str) -> Iterator[Path]:
    """Something mounted at a folder, or a skip."""
    folder.mkdir(exist_ok=True)
    if subprocess.run(["mount", *arguments, str(folder)], check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def writing(log: Path, first: int, last: int) -> Iterator[threading.Thread]:
    """A daemon that appends numbered lines; where the disk is full it tries again with the rest, as rsyslog does."""
    end = threading.Event()

    def work() -> None:
        with log.open("ab", buffering=0) as file:
            for number in range(first, last):
                left = line(number).encode()
                while left and not end.is_set():
                    try:
                        left = left[file.write(left) :]
                    except OSError:
                        time.sleep(0.05)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        end.set()
        thread.join()


def fill(path: Path) -> None:
    """Write until there is no space left, to the last byte."""
    for size in (65536, 512, 1):
        with contextlib.suppress(OSError), path.open("ab", buffering=0) as full:
            while full.write(b"x" * size) == size:
                pass


def test_full_disk_under_log_and_store(tmp_path: Path) -> None:
    """The disk that holds both fills up, the collector is killed and starts again; once there is space all lines are
    there, each once."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=6m", "disk") as disk:
        log, store, ballast = disk / "syslog", disk / "store", disk / "ballast"
        log.write_text(lines(range(10)))
        with collector(store, log, errors=tmp_path / "errors") as first:
            assert wait_until(store, 10) == list(range(10))
            fill(ballast)
            with writing(log, 10, _COUNT) as daemon:
                time.sleep(1)
                first.process.send_signal(signal.SIGKILL)
                first.process.wait()
                with collector(store, log, errors=tmp_path / "errors") as second:
                    assert second.hears("No space left"), second.said()
                    assert second.stop() == Exit.TRY_AGAIN
                    assert one_sentence(second.said()), second.said()
                ballast.unlink()
                with collector(store, log, errors=tmp_path / "errors") as third:
                    daemon.join(timeout=60)
                    assert wait_until(store, _COUNT, seconds=60) == list(range(_COUNT))
                    assert third.stop() == Exit.OK
        assert stored(store) == list(range(_COUNT))


def test_full_disk_is_named(tmp_path: Path) -> None:
    """While its disk is full the collector names it, waits, and goes on by itself when there is space."""
    log = tmp_path / "syslog"
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=4m", "disk") as disk:
        store, ballast = disk / "store", disk / "ballast"
        log.write_text(lines(range(10)))
        with collector(store, log) as running:
            wait_until(store, 10)
            fill(ballast)
            with log.open("a") as file:
                file.write(lines(range(10, _COUNT)))
            assert running.hears(_STOPS), running.said()
            assert "No space left on device; free some space there, or keep fewer days (--keep)" in running.said()
            ballast.unlink()
            assert wait_until(store, _COUNT, seconds=90) == list(range(_COUNT))
            assert running.hears("the store takes rows again")
            assert running.stop() == Exit.OK
        assert stored(store) == list(range(_COUNT))


def test_failing_disk(tmp_path: Path) -> None:
    """A file system that the kernel makes read-only after an error is named; told to stop, the collector ends with
    'try again', and once the disk is mounted anew nothing is lost or double."""
    image, log = tmp_path / "image", tmp_path / "syslog"
    with image.open("wb") as file:
        file.truncate(48 << 20)
    if shutil.which("mkfs.ext4") is None or subprocess.run(["mkfs.ext4", "-q", str(image)], check=False).returncode:
        pytest.skip("needs mkfs.ext4")
    log.write_text(lines(range(10)))
    with mounted(tmp_path / "disk", "-o", "loop,errors=remount-ro", str(image)) as disk:
        store = disk / "store"
        found = subprocess.run(["findmnt", "-no", "SOURCE", str(disk)], capture_output=True, text=True, check=True)
        trigger = Path("/sys/fs/ext4") / Path(found.stdout.strip()).name / "trigger_fs_error"
        if not trigger.exists():
            pytest.skip("needs ext4's trigger_fs_error")
        with collector(store, log) as running:
            wait_until(store, 10)
            trigger.write_text("1")
            with log.open("a") as file:
                file.write(lines(range(10, _COUNT)))
            assert running.hears(_STOPS), running.said()
            assert "Read-only file system; check its owner, mode and mount" in running.said()
            assert running.stop() == Exit.TRY_AGAIN
            assert one_sentence(running.said())
    subprocess.run(["fsck.ext4", "-p", str(image)], check=False, capture_output=True)
    with mounted(tmp_path / "disk", "-o", "loop", str(image)) as disk:
        with collector(disk / "store", log) as running:
            assert wait_until(disk / "store", _COUNT, seconds=60) == list(range(_COUNT))
            assert running.stop() == Exit.OK
        assert stored(disk / "store") == list(range(_COUNT))


def test_folder_made_read_only(tmp_path: Path) -> None:
    """A store whose folders are closed to its user is named, and served again when they are opened."""
    log, store = tmp_path / "syslog", tmp_path / "state" / "store"
    tmp_path.chmod(0o755)
    for parent in (tmp_path.parent, tmp_path.parent.parent):
        parent.chmod(0o755)
    store.parent.mkdir()
    os.chown(store.parent, 10001, 10001)
    log.write_text(lines(range(10)))
    groups = f"--groups={os.stat(__file__).st_gid}"
    prefix = ("setpriv", "--reuid=10001", "--regid=10001", groups, "--bounding-set=-all")
    if subprocess.run([*prefix, "test", "-r", __file__], check=False).returncode:
        pytest.skip("another user cannot read this repository")
    with collector(store, log, prefix=prefix) as running:
        if not wait_until(store, 10, seconds=60):
            pytest.skip(f"another user cannot run this Python: {running.said()[-200:]}")
        folders = [store, *(path for path in store.rglob("*") if path.is_dir())]
        for folder in folders:
            folder.chmod(0o550)
        with log.open("a") as file:
            file.write(lines(range(10, _COUNT)))
        assert running.hears(_STOPS), running.said()
        assert "Permission denied; check its owner, mode and mount" in running.said()
        for folder in folders:
            folder.chmod(0o750)
        assert wait_until(store, _COUNT, seconds=90) == list(range(_COUNT))
        assert running.stop() == Exit.OK
    assert stored(store) == list(range(_COUNT))


def test_start_on_read_only_mount(tmp_path: Path) -> None:
    """A collector that starts on a read-only mount ends with 'try again' and a sentence."""
    log, store = tmp_path / "syslog", tmp_path / "store"
    log.write_text(lines(range(10)))
    store.mkdir()
    with mounted(store, "--bind", "-o", "ro", str(store)), collector(store, log) as running:
        assert running.process.wait(timeout=60) == Exit.TRY_AGAIN
        assert running.said() == f"denylog: {store}: Read-only file system; check its owner, mode and mount\n"
    with collector(store, log, options=("--once",)) as running:
        assert running.process.wait(timeout=60) == Exit.OK
    assert stored(store) == list(range(10))
