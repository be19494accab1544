"""Limits of the kernel on the collector: open files and memory."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from analytics.options import Exit
from collector.descriptors import LEAST
from tests.collector.live import lines, stored, wait_until
from tests.robust.box import collector, one_sentence

pytestmark = [pytest.mark.system, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
_COUNT = 3000
_MEMORY = 256 << 20  # bytes, the limit in deploy/
_CGROUPS = ((Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"), (Path("/sys/fs/cgroup"), "memory.max"))


def limit(pid: int, files: int) -> None:
    """How many descriptors a process may have, from now on."""
    subprocess.run(["prlimit", f"--pid={pid}", f"--nofile={files}:4096"], check=True)


def test_descriptors_run_out(tmp_path: Path) -> None:
    """A collector that may open no more files says so and goes on; with more of them nothing is lost or double."""
    log, store = tmp_path / "syslog", tmp_path / "store"
    log.write_text(lines(range(10)))
    with collector(store, log) as running:
        wait_until(store, 10)
        limit(running.process.pid, len(os.listdir(f"/proc/{running.process.pid}/fd")))
        log.rename(tmp_path / "syslog.1")
        log.write_text(lines(range(10, 20)))
        with (tmp_path / "syslog.1").open("a") as file:
            file.write(lines(range(20, _COUNT)))
        assert running.hears("oo many open files"), running.said()
        time.sleep(2)
        assert running.process.poll() is None
        limit(running.process.pid, 1024)
        assert wait_until(store, _COUNT, seconds=60) == list(range(_COUNT))
        assert running.stop() == Exit.OK
        assert one_sentence(running.said().rpartition("\n3,000 lines: ")[0]), running.said()
    assert stored(store) == list(range(_COUNT))


def test_descriptors_lack_at_the_start(tmp_path: Path) -> None:
    """A collector that is started with too few descriptors ends with 'try again' and a sentence."""
    log, store = tmp_path / "syslog", tmp_path / "store"
    log.write_text(lines(range(10)))
    with collector(store, log, prefix=("prlimit", "--nofile=32")) as running:
        assert running.process.wait(timeout=60) == Exit.TRY_AGAIN, running.said()
        least = "no more than 32 files may be open; raise the limit to 64 or more (LimitNOFILE=)"
        assert running.said() == f"denylog: ulimit -n: {least}\n"


def test_least_descriptors_are_enough(tmp_path: Path) -> None:
    """With the least number of descriptors that is accepted a file is followed through a rotation."""
    log, store = tmp_path / "syslog", tmp_path / "store"
    log.write_text(lines(range(10)))
    with collector(store, log, prefix=("prlimit", f"--nofile={LEAST}")) as running:
        wait_until(store, 10)
        log.rename(tmp_path / "syslog.1")
        log.write_text(lines(range(10, _COUNT)))
        assert wait_until(store, _COUNT, seconds=60) == list(range(_COUNT)), running.said()
        assert running.stop() == Exit.OK
        assert "open files" not in running.said()


@contextlib.contextmanager
def memory_limited() -> Iterator[Path]:
    """A control group that may use 256 MiB; of either version of the kernel's interface."""
    for root, name in _CGROUPS:
        group = root / f"denylog-test-{os.getpid()}"
        with contextlib.suppress(OSError):
            group.mkdir()
            if (group / name).exists():
                (group / name).write_text(str(_MEMORY))
                break
            group.rmdir()
    else:
        pytest.skip("needs a control group for memory")
    try:
        yield group
    finally:
        group.rmdir()


def test_memory_limit(tmp_path: Path) -> None:
    """With 256 MiB, page cache included, the collector works off a backlog while more comes, and is not killed."""
    log, store = tmp_path / "syslog", tmp_path / "store"
    backlog = 150_000
    log.write_text(lines(range(backlog)))
    with memory_limited() as group:
        prefix = ("sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh")
        with collector(store, log, prefix=prefix) as running:
            assert len(wait_until(store, backlog, seconds=120)) == backlog, running.said()
            with log.open("a") as file:
                for first in range(backlog, backlog + 5000, 500):
                    file.write(lines(range(first, first + 500)))
                    file.flush()
                    time.sleep(0.1)
            found = wait_until(store, backlog + 5000, seconds=60)
            assert running.stop() == Exit.OK
            assert running.said().count("\n") == 1
        assert found == list(range(backlog + 5000))


def test_memory_is_asked_for_by_the_manifests() -> None:
    """The limit that is tested is the limit in deploy/, twice it where questions are asked in the same container."""
    deploy = Path(__file__).parents[2] / "deploy"
    assert f"memory: {_MEMORY >> 20}Mi}}" in (deploy / "daemonset" / "daemonset.yaml").read_text()
    assert f"memory: {2 * _MEMORY >> 20}Mi}}" in (deploy / "sidecar" / "container.yaml").read_text()
    assert f"MemoryMax={_MEMORY >> 20}M" in (deploy / "systemd" / "denylog.service").read_text()
