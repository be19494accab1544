"""From the kernel to the far end: a packet that the kernel denies is a message at a second rsyslog within seconds."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from analytics.inbox import deposit
from analytics.inventory import observe
from tests.forward.receivers import ROOT, Certificates, missing_rsyslog, rsyslog
from tests.system.kernel import CLIENT4, LOG_ALL, POD4, missing, network

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(bool(missing("iptables")), reason=missing("iptables")),
    pytest.mark.skipif(bool(missing_rsyslog()), reason=missing_rsyslog()),
    pytest.mark.skipif(not shutil.which("rsyslogd"), reason="needs rsyslog"),
]
NODE = """module(load="imklog" permitnonkernelfacility="off")
kern.* action(type="omfile" file="{folder}/kern.log" template="RSYSLOG_FileFormat")
"""
WITHIN_S = 5.0


def pod(name: str, address: str) -> dict[str, Any]:
    """A pod as the API server has it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": "shop", "name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"nodeName": "node-1"},
        "status": {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "startTime": "2026-01-01T00:00:00Z",
        },
    }


def test_from_the_kernel_to_the_far_end(tmp_path: Path, certificates: Certificates) -> None:
    """A packet denied in a namespace here arrives at a server over TLS within five seconds, with the names of
    both pods."""
    store = str(tmp_path / "store")
    deposit(store, observe([pod("web", CLIENT4), pod("db", POD4)], at=datetime.now(UTC)))
    (tmp_path / "node.conf").write_text(NODE.format(folder=tmp_path))
    ours = {"ca": "ca.pem", "cert": "client.pem", "key": "client.key"}
    settings = "&".join(f"{name}={certificates.path(file)}" for name, file in ours.items())
    with network("far") as net, rsyslog(tmp_path, "tls", certificates) as server:
        net.log_with_iptables()
        collect = (sys.executable, str(ROOT / "cli.py"), "collect", "--store", store)
        forward = ("--forward", f"tls://localhost:{server.port}?{settings}")
        node = subprocess.Popen(["rsyslogd", "-n", "-f", str(tmp_path / "node.conf"), "-i", str(tmp_path / "pid")])
        collector = subprocess.Popen([*collect, *forward, str(tmp_path / "kern.log")], cwd=ROOT)
        try:
            net.send(packet(40_001))
            assert server.wait_for(1, 30), "nothing arrives at all"
            before = server.count()
            LOG_ALL.write_text("1")  # one switch for the whole machine: another test may have turned it off meanwhile
            began = time.monotonic()
            net.send(packet(40_002))
            while server.count() == before and time.monotonic() - began < 2 * WITHIN_S:
                time.sleep(0.05)
            took = time.monotonic() - began
        finally:
            for process in (collector, node):
                process.terminate()
                process.wait(20)
        found = [message["parsed"]["rfc5424-sd"]["denylog@32473"] for message in server.messages()]
    arrived = next(fields for fields in found if fields["destination_port"] == "40002")
    names = ("source_namespace", "source_pod", "destination_namespace", "destination_pod")
    assert [arrived.get(name) for name in names] == ["shop", "web", "shop", "db"]
    assert (arrived["source_ip"], arrived["destination_ip"], arrived["protocol"]) == (CLIENT4, POD4, "udp")
    assert took < WITHIN_S


def packet(port: int) -> str:
    """A datagram to a denied port."""
    return f"""
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.sendto(b"denied", ("{POD4}", {port}))
"""
