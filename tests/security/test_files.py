"""Who can read what denylog writes: the owner writes, the group reads, others see nothing, whatever the umask."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

from analytics import Writer
from tests.collector.live import REPOSITORY, lines

_DUMP = '{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "uid": "1"}}'


def denylog(umask: int, *arguments: str) -> None:
    """The command, started by somebody with this umask."""
    command = [sys.executable, "-c", "from cli import main; main()", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, env=environment, umask=umask, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()


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


def test_state_of_the_forwarder(tmp_path: Path) -> None:
    """The forwarder's own state is 0640 in a folder of 0750."""
    from collector.forward.marks import StateFile

    before = os.umask(0)
    try:
        with StateFile(tmp_path / "state" / "forward", str(tmp_path / "store"), "udp://127.0.0.1:514"):
            assert modes(tmp_path / "state") == {(True, 0o750), (False, 0o640)}
    finally:
        os.umask(before)
