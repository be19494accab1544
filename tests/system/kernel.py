"""A small network of the test's own: two namespaces, a veth pair, and rules by which the kernel logs what it drops.

Rule: everything made here has names of its own and is removed again; traffic stays between the two namespaces.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PREFIX = "calico-packet: "
CLIENT4, POD4 = "198.51.100.1", "198.51.100.2"
CLIENT6, POD6 = "2001:db8::1", "2001:db8::2"
POD_INTERFACE = "cali0123456789a"
LOG_ALL = Path("/proc/sys/net/netfilter/nf_log_all_netns")
DENIED_PORTS = range(40_000, 60_000)


def missing(*programs: str) -> str:
    """Why these tests cannot run here, or an empty text."""
    if os.geteuid() != 0:
        return "needs root"
    absent = [program for program in ("ip", *programs) if not shutil.which(program)]
    return f"needs {', '.join(absent)}" if absent else ""


def run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """A command that must succeed."""
    return subprocess.run(command, check=check, capture_output=True, text=True, timeout=60)


@dataclass(frozen=True)
class Network:
    """`client` sends to `pod`, where the rules log and drop."""

    client: str
    pod: str

    def inside(self, namespace: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in one of the namespaces."""
        return run("ip", "netns", "exec", namespace, *command)

    def send(self, script: str) -> None:
        """Run Python in the client's namespace, as the sender of packets."""
        self.inside(self.client, sys.executable, "-c", script)

    def log_with_iptables(self) -> None:
        """Log and drop what comes to the denied ports, and pings, for both families."""
        for program, icmp in (("iptables", "icmp"), ("ip6tables", "icmpv6")):
            echo = ("--icmp-type", "8") if icmp == "icmp" else ("--icmpv6-type", "128")
            for match in (
                ("-p", "tcp", "--dport", "40000:59999"),
                ("-p", "udp", "--dport", "40000:59999"),
                ("-p", icmp, *echo),
            ):
                self.inside(
                    self.pod, program, "-A", "INPUT", *match, "-j", "LOG", "--log-prefix", PREFIX, "--log-level", "5"
                )
                self.inside(self.pod, program, "-A", "INPUT", *match, "-j", "DROP")

    def log_with_nftables(self) -> None:
        """The same with the rule that Calico's nftables mode writes."""
        rules = f"""table inet denied {{ chain input {{ type filter hook input priority 0;
            tcp dport 40000-59999 log prefix "{PREFIX}" level info drop
            udp dport 40000-59999 log prefix "{PREFIX}" level info drop
            icmp type echo-request log prefix "{PREFIX}" level info drop
            icmpv6 type echo-request log prefix "{PREFIX}" level info drop
            }}
        }}"""
        subprocess.run(
            ("ip", "netns", "exec", self.pod, "nft", "-f", "-"), input=rules, check=True, text=True, timeout=60
        )


@contextmanager
def network(tag: str) -> Iterator[Network]:
    """Two namespaces joined by a veth pair, with addresses of both families, logging into the kernel's ring buffer."""
    net = Network(f"dl-{tag}-client-{os.getpid()}", f"dl-{tag}-pod-{os.getpid()}")
    before = LOG_ALL.read_text()
    try:
        for namespace in (net.client, net.pod):
            run("ip", "netns", "add", namespace)
        run("ip", "-n", net.client, "link", "add", "eth0", "type", "veth", "peer", POD_INTERFACE, "netns", net.pod)
        for namespace, device, four, six in (
            (net.client, "eth0", CLIENT4, CLIENT6),
            (net.pod, POD_INTERFACE, POD4, POD6),
        ):
            run("ip", "-n", namespace, "address", "add", f"{four}/24", "dev", device)
            run("ip", "-n", namespace, "address", "add", f"{six}/64", "dev", device, "nodad")
            run("ip", "-n", namespace, "link", "set", device, "up")
            run("ip", "-n", namespace, "link", "set", "lo", "up")
        LOG_ALL.write_text("1")
        yield net
    finally:
        LOG_ALL.write_text(before)
        for namespace in (net.client, net.pod):
            run("ip", "netns", "delete", namespace, check=False)


SENDER = f"""
import socket
def tcp(family, address, port, source):
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, 1)
        sock.bind(("", source)); sock.settimeout(0.2)
        try: sock.connect((address, port))
        except OSError: pass
def udp(family, address, port, source):
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind(("", source)); sock.sendto(b"denied", (address, port))
def ping(family, protocol, kind, address, number):
    with socket.socket(family, socket.SOCK_RAW, protocol) as sock:
        head = bytes([kind, 0, 0, 0]) + (4711).to_bytes(2, "big") + number.to_bytes(2, "big")
        if protocol == socket.IPPROTO_ICMP:
            total = sum(int.from_bytes(head[i : i + 2], "big") for i in range(0, 8, 2))
            total = (total & 0xFFFF) + (total >> 16)
            head = head[:2] + (~total & 0xFFFF).to_bytes(2, "big") + head[4:]
        sock.sendto(head, (address, 0))
FOUR, SIX = (socket.AF_INET, "{POD4}"), (socket.AF_INET6, "{POD6}")
for number in range(COUNT):
    for family, address in (FOUR, SIX):
        tcp(family, address, 40000 + number, 20000 + number)
        udp(family, address, 50000 + number, 30000 + number)
    ping(socket.AF_INET, socket.IPPROTO_ICMP, 8, "{POD4}", number)
    ping(socket.AF_INET6, socket.IPPROTO_ICMPV6, 128, "{POD6}", number)
"""
"""Sends COUNT packets of each kind; the source port tells the destination port, so that a mix-up shows."""


def expected(count: int) -> set[tuple[object, ...]]:
    """What `SENDER` sends: protocol, source, destination, source port, destination port, ICMP type, ICMP sequence."""
    rows: set[tuple[object, ...]] = set()
    for number in range(count):
        for source, destination in ((CLIENT4, POD4), (CLIENT6, POD6)):
            rows.add(("tcp", source, destination, 20_000 + number, 40_000 + number, None, None))
            rows.add(("udp", source, destination, 30_000 + number, 50_000 + number, None, None))
        rows.add(("icmp", CLIENT4, POD4, None, None, 8, number))
        rows.add(("icmpv6", CLIENT6, POD6, None, None, 128, number))
    return rows


def hostname() -> str:
    """The name that syslog daemons write."""
    return socket.gethostname().partition(".")[0]
