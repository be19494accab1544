"""Who can read what denylog writes: the owner writes, the group reads, others see nothing, whatever the umask."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from analytics import StoreError, Writer
from tests.collector.live import REPOSITORY, lines

_DUMP = '{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "uid": "1"}}'


def denylog(umask: int, *arguments: str, code: int = 0) -> str:
    """What the command says, started by somebody with this umask; it has to end with this code."""
    command = [sys.executable, "-c", "from cli import main; main()", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, env=environment, umask=umask, capture_output=True, check=False, timeout=60)
    assert done.returncode == code, done.stderr.decode()
    return done.stderr.decode()


def modes(folder: Path) -> set[tuple[bool, int]]:
    """What is in a folder, and the folder: is it a folder, and its mode."""
    return {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in (folder, *folder.rglob("*"))}


def test_store_and_inbox(tmp_path: Path) -> None:
    """Store, lock and inbox are 0640 and 0750, even where the umask would let everybody write."""
    log, dump, store = tmp_path / "syslog", tmp_path / "dump.json", tmp_path / "store"
    log.write_text(lines(range(300)))
    dump.write_text(_DUMP)
    denylog(0, "ingest", "--store", str(store), str(log))
    with Writer(str(store)) as writer:  # somebody writes: what is imported waits in the inbox
        writer.maintain()
        denylog(0, "inventory", "import", "--store", str(store), str(dump))
        assert list((store / "inbox").iterdir())
        assert modes(store) == {(True, 0o750), (False, 0o640)}


@pytest.mark.parametrize("name", ["denied.csv", "denied.parquet", "denied.duckdb"])
def test_export(tmp_path: Path, name: str) -> None:
    """An export holds the same rows as the store, so others do not see it either."""
    log, store = tmp_path / "syslog", tmp_path / "store"
    log.write_text(lines(range(3)))
    denylog(0, "ingest", "--store", str(store), str(log))
    denylog(0, "export", "--store", str(store), str(tmp_path / name))
    assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o640


def test_lock_is_no_link(tmp_path: Path) -> None:
    """A link in the place of the lock is not followed: root would write to whatever the folder's owner names."""
    store, victim = tmp_path / "store", tmp_path / "victim"
    victim.write_text("precious\n")
    store.mkdir()
    (store / "writer.lock").symlink_to(victim)
    with pytest.raises(StoreError, match="symbolic link"):
        Writer(str(store))
    assert victim.read_text() == "precious\n"


def test_lock_of_a_reader_is_told(tmp_path: Path) -> None:
    """Who may only read the lock can hold it; a writer is refused in a sentence and starts when it is free."""
    store = tmp_path / "store"
    Writer(str(store)).close()
    descriptor = os.open(store / "writer.lock", os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="is being written to by another process"):
            Writer(str(store))
    finally:
        os.close(descriptor)
    Writer(str(store)).close()


def test_pipe_in_the_place_of_a_log(tmp_path: Path) -> None:
    """Nobody is made to wait by a pipe that has no writer: it is refused in a sentence."""
    os.mkfifo(tmp_path / "syslog")
    said = denylog(0, "collect", "--once", "--store", str(tmp_path / "store"), str(tmp_path / "syslog"), code=3)
    assert f"{tmp_path}/syslog: is not a regular file" in said


def test_link_in_the_place_of_a_log(tmp_path: Path) -> None:
    """Of a file that a link leads to, lines that are no denied packets are counted, and none of their text is kept."""
    (tmp_path / "secrets").write_text("user:hash\npassword=hunter2\n")
    (tmp_path / "syslog").symlink_to(tmp_path / "secrets")
    said = denylog(0, "collect", "--once", "--store", str(tmp_path / "store"), str(tmp_path / "syslog"))
    assert "2 lines: 0 packets stored, 2 not ours, 0 rejected" in said


def test_state_of_the_forwarder(tmp_path: Path) -> None:
    """The forwarder's own state is 0640 in a folder of 0750."""
    from collector.forward.marks import StateFile

    before = os.umask(0)
    try:
        with StateFile(tmp_path / "state" / "forward", str(tmp_path / "store"), "udp://127.0.0.1:514"):
            assert modes(tmp_path / "state") == {(True, 0o750), (False, 0o640)}
    finally:
        os.umask(before)
