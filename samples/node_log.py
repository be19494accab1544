"""The syslog of the sample cluster's nodes, as a log server keeps it: one file, in the order of time.

Rule: a denied packet is written as the kernel writes it (net/netfilter/nf_log_syslog.c) behind rsyslog's file format;
dice come from one seed, so the same script gives the same bytes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from samples.cluster import DAY, PODS, Pod

BOOTED = {f"worker-{number}": DAY - timedelta(days=9 * number, seconds=4711.204118) for number in (1, 2, 3)}
SYN_RETRIES = (0.0, 1.024, 3.072, 7.168)
"""When Linux sends the same SYN again (net/ipv4/tcp_timer.c doubles one second); most clients give up after 10 s."""


@dataclass(frozen=True, slots=True)
class Side:
    """One end of a packet: its address, and the pod whose interface it passes on the node, if any."""

    address: str
    pod: Pod | None = None


def pod_side(name: str, *, version: int = 4) -> Side:
    """A pod of the cluster as an end of a packet."""
    pod = PODS[name]
    return Side(pod.address if version == 4 else pod.address_v6, pod)


@dataclass(slots=True)
class NodeLog:
    """Collects messages with their time, and gives the lines of a file."""

    dice: random.Random
    events: list[tuple[datetime, str, str, bool]] = field(default_factory=list)

    def say(self, time: datetime, node: str, text: str, *, kernel: bool = True) -> None:
        """One message of a node."""
        self.events.append((time, node, text, kernel))

    def packet(self, time: datetime, node: str, source: Side, destination: Side, rest: str) -> None:
        """One denied packet; `rest` is its length, a space, and the transport part."""
        ways = f"IN={_interface(source, node)} OUT={_interface(destination, node)}"
        length, transport = rest.split(" ", 1)
        if ":" in source.address:
            link, size = "86:dd", f"LEN={length} TC=0 HOPLIMIT=63 FLOWLBL={self.dice.randrange(2**20)}"
        else:
            link, size = "08:00", f"LEN={length} TOS=0x00 PREC=0x00 TTL=63 ID={self.dice.randrange(1, 65536)} DF"
        mac = f"MAC=ee:ee:ee:ee:ee:ee:02:00:5e:10:00:0{node[-1]}:{link}"
        ends = f"SRC={_printed(source.address)} DST={_printed(destination.address)}"
        self.say(time, node, f"calico-packet: {ways} {mac} {ends} {size} {transport} ")

    def connect(
        self, time: datetime, node: str, source: Side, destination: Side, port: int, *, retries: int = 4
    ) -> None:
        """One attempt to open a TCP connection: a SYN and so many repetitions of it less one."""
        size = 80 if ":" in source.address else 60
        sender = self.dice.randrange(32768, 60999)
        rest = f"{size} PROTO=TCP SPT={sender} DPT={port} WINDOW=64860 RES=0x00 SYN URGP=0"
        for later in SYN_RETRIES[:retries]:
            self.packet(time + timedelta(seconds=later), node, source, destination, rest)

    def datagram(self, time: datetime, node: str, source: Side, destination: Side, port: int) -> None:
        """One UDP datagram."""
        sender = self.dice.randrange(32768, 60999)
        self.packet(time, node, source, destination, f"71 PROTO=UDP SPT={sender} DPT={port} LEN=51")

    def lines(self) -> Iterator[str]:
        """The lines of the file."""
        for time, node, text, kernel in sorted(self.events):
            stamp = f"[{(time - BOOTED[node]).total_seconds():13.6f}] "
            yield f"{time.isoformat(timespec='microseconds')} {node} {'kernel: ' + stamp if kernel else ''}{text}\n"


def _interface(side: Side, node: str) -> str:
    """A pod's interface on its own node; the network card for everything else."""
    return side.pod.interface if side.pod and side.pod.node == node else "eth0"


def _printed(address: str) -> str:
    """IPv6 addresses as the kernel's %pI6 has them: eight groups of four digits."""
    if ":" not in address:
        return address
    head, _, tail = address.partition("::")
    front, back = head.split(":"), tail.split(":")
    groups = [*front, *["0"] * (8 - len(front) - len(back)), *back]
    return ":".join(group.zfill(4) for group in groups)
