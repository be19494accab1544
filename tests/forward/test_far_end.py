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
from tests.forward.receivers import ROOT, Certificates, Server, missing_rsyslog, rsyslog
from tests.system.kernel import CLIENT4, LOG_ALL, POD4, Network, missing, network

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
    both pods. Up to five are sent, since other tests turn the kernel's one switch off."""
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
            assert any(arrives(net, server, port, 15) for port in (40_001, 40_002)), "nothing arrives at all"
            in_time = next((port for port in range(40_003, 40_008) if arrives(net, server, port, WITHIN_S)), None)
        finally:
            for process in (collector, node):
                process.terminate()
                process.wait(20)
        found = [message["parsed"]["rfc5424-sd"]["denylog@32473"] for message in server.messages()]
    assert in_time, "nothing arrives in time"
    arrived = next(fields for fields in found if fields.get("destination_port") == str(in_time))
    names = ("source_namespace", "source_pod", "destination_namespace", "destination_pod")
    assert [arrived.get(name) for name in names] == ["shop", "web", "shop", "db"]
    assert (arrived["source_ip"], arrived["destination_ip"], arrived["protocol"]) == (CLIENT4, POD4, "udp")


def arrives(net: Network, server: Server, port: int, seconds: float) -> bool:
    """Is a packet to this port a message at the far end before the time is over?"""
    LOG_ALL.write_text("1")
    began = time.monotonic()
    net.send(packet(port))
    while time.monotonic() - began < seconds:
        if any(f" DPT={port} " in message["msg"] for message in server.messages()):
            return True
        time.sleep(0.05)
    return False


def packet(port: int) -> str:
    """A datagram to a denied port."""
    return f"""
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.sendto(b"denied", ("{POD4}", {port}))
"""
