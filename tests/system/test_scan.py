"""A real scan: nmap in a network namespace, the kernel's own lines, a collector, and exactly one finding."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

from tests.system.kernel import CLIENT4, POD4, missing, network
from tests.system.test_kernel import DENYLOG, ROOT, now, process

pytestmark = pytest.mark.system
PORTS = 300


def stored(store: Path, since: float) -> int:
    """How many ports of the scanned host the store has packets of, since an uptime."""
    question = f"SELECT count(DISTINCT destination_port) AS ports FROM packets WHERE uptime_s >= {since}"
    question += f" AND source_ip = '{CLIENT4}' AND protocol = 'tcp'"
    command = (*DENYLOG, "sql", question, "--store", str(store), "-o", "json")
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=False)
    return int(json.loads(answer.stdout)[0]["ports"]) if answer.returncode == 0 else 0


@pytest.mark.skipif(bool(missing("iptables", "nmap")), reason=missing("iptables", "nmap") or "all is there")
def test_one_nmap_run_is_one_finding(tmp_path: Path) -> None:
    """nmap tries 300 denied ports, each more than once; there is one finding, and it is a vertical scan."""
    store, before = tmp_path / "store", now()
    began = time.time()
    with network("scan") as net:
        net.log_with_iptables()
        with process(*DENYLOG, "collect", "--store", str(store), "--kmsg"):
            net.inside(net.client, "nmap", "-sS", "-Pn", "-n", "-T4", "--max-retries", "1",
                       "-p", f"40000-{40_000 + PORTS - 1}", POD4)  # fmt: skip
            end = time.monotonic() + 60
            while stored(store, before) < PORTS and time.monotonic() < end:
                time.sleep(0.5)
    # The ring buffer still holds what earlier tests sent.
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began))
    command = (*DENYLOG, "findings", "--store", str(store), "-o", "json", "--since", since, "--from-ip", CLIENT4)
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 1, answer.stderr
    [finding] = json.loads(answer.stdout)
    assert (finding["rule"], finding["subject"]["name"], finding["target_count"]) == ("vertical_scan", CLIENT4, 1)
    assert finding["port_count"] >= PORTS
