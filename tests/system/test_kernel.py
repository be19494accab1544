"""From a packet that the kernel denies to a committed row, with nothing in between that is not the real thing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.kernel import SENDER, Network, expected, missing, network

pytestmark = pytest.mark.system
COUNT = 5
DENYLOG = (sys.executable, "-m", "cli")
ROOT = Path(__file__).parents[2]
RSYSLOG = """
module(load="imklog" permitnonkernelfacility="off")
kern.* action(type="omfile" file="{folder}/iso.log" template="RSYSLOG_FileFormat")
kern.* action(type="omfile" file="{folder}/old.log" template="RSYSLOG_TraditionalFileFormat")
"""
QUESTION = """SELECT protocol, source_ip, destination_ip, source_port, destination_port, icmp_type, icmp_seq,
in_interface, direction, prefix, source_file, node, uptime_s FROM packets
WHERE source_ip IN ('198.51.100.1', '2001:db8::1')"""


@contextmanager
def process(*command: str, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs while the block does, and is asked to end after it."""
    started = subprocess.Popen(command, cwd=ROOT, **options)  # type: ignore[call-overload]
    try:
        yield started
    finally:
        started.send_signal(signal.SIGTERM)
        try:
            started.wait(timeout=20)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def rows(store: Path, since: float) -> list[dict[str, object]]:
    """The rows about packets logged since an uptime: the ring buffer still holds what earlier tests sent."""
    question = f"{QUESTION} AND uptime_s >= {since}"
    answer = subprocess.run(
        (*DENYLOG, "sql", question, "--store", str(store), "-o", "json"), cwd=ROOT, capture_output=True, timeout=60
    )
    return json.loads(answer.stdout) if answer.returncode == 0 else []


def wait_for_rows(store: Path, count: int, since: float, seconds: float = 30) -> list[dict[str, object]]:
    """The rows, once there are as many; what there is when time is up."""
    end = time.monotonic() + seconds
    while len(found := rows(store, since)) < count and time.monotonic() < end:
        time.sleep(0.5)
    return found


def now() -> float:
    """Seconds since boot, as the kernel stamps its lines."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def check(found: list[dict[str, object]], files: int) -> None:
    """Each packet sent is one row in each file, with the right addresses, ports and interface."""
    keys = [tuple(row.values())[:7] for row in found]
    assert sorted(map(repr, keys)) == sorted(map(repr, list(expected(COUNT)) * files))
    assert {row["in_interface"] for row in found} == {"cali0123456789a"}
    assert {row["direction"] for row in found} == {"egress"}
    assert {row["prefix"] for row in found} == {"calico-packet"}


@pytest.fixture(params=["iptables", "nftables"])
def net(request: pytest.FixtureRequest) -> Iterator[Network]:
    """The test's network, with the rules of either of Calico's data planes."""
    tool = {"iptables": "iptables", "nftables": "nft"}[request.param]
    if reason := missing(tool):
        pytest.skip(reason)
    with network(request.param[:3]) as made:
        getattr(made, f"log_with_{request.param}")()
        yield made


@pytest.mark.skipif(not shutil.which("rsyslogd"), reason="needs rsyslog")
def test_denied_packets_reach_the_store_through_rsyslog(net: Network, tmp_path: Path) -> None:
    """A packet denied by the kernel is one row for each syslog file that rsyslog writes, in either format."""
    config, store = tmp_path / "rsyslog.conf", tmp_path / "store"
    config.write_text(RSYSLOG.format(folder=tmp_path))
    files = [str(tmp_path / name) for name in ("iso.log", "old.log")]
    with (
        process("rsyslogd", "-n", "-f", str(config), "-i", str(tmp_path / "pid")),
        process(*DENYLOG, "collect", "--store", str(store), *files),
    ):
        time.sleep(2)
        before = now()
        net.send(SENDER.replace("COUNT", str(COUNT)))
        found = wait_for_rows(store, 2 * len(expected(COUNT)), before)
    check(found, files=2)


def test_denied_packets_reach_the_store_through_kmsg(net: Network, tmp_path: Path) -> None:
    """The same without a syslog daemon, from /dev/kmsg, with the kernel's own time stamps."""
    store = tmp_path / "store"
    before = now()
    with process(*DENYLOG, "collect", "--store", str(store), "--kmsg"):
        net.send(SENDER.replace("COUNT", str(COUNT)))
        found = wait_for_rows(store, len(expected(COUNT)), before)
    check(found, files=1)


JOURNALD = Path("/lib/systemd/systemd-journald")


@pytest.mark.skipif(not JOURNALD.exists() or not shutil.which("journalctl"), reason="needs systemd")
def test_denied_packets_reach_the_store_through_a_journal(net: Network, tmp_path: Path) -> None:
    """The same through systemd's journal, whose transport field says that the kernel wrote the line."""
    store, run = tmp_path / "store", tmp_path / "run"
    (run / "log" / "journal").mkdir(parents=True)
    (run / "systemd" / "journal").mkdir(parents=True)
    script = f"mount --bind {run} /run && exec {JOURNALD}"
    before = now()
    with (
        process(
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            script,
            env={**os.environ, "SYSTEMD_LOG_TARGET": "null"},
        ),
        process(*DENYLOG, "collect", "--store", str(store), "--journal", str(run / "log" / "journal")),
    ):
        time.sleep(3)
        net.send(SENDER.replace("COUNT", str(COUNT)))
        found = wait_for_rows(store, len(expected(COUNT)), before)
    check(found, files=1)
