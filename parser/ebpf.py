"""The line that Calico's eBPF data plane leaves in the kernel's trace pipe for a rule with action Log.

Rule: only a denial is a packet; an allowed one is somebody else's line. There is no prefix, and no more than the
5-tuple. Source: felix/bpf-gpl/skb.h (skb_log): "<interface>-I|E|X: policy ALLOWED|DENIED  proto n src A:p dest B:q",
I at a workload's ingress, E at its egress, X at the host's XDP hook.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Any

PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 50: "esp", 51: "ah", 58: "icmpv6", 136: "udplite"}
PORTS = {"tcp", "udp", "udplite", "132", "33"}
"""Protocols whose ports mean something here: for the others Felix prints what lies at the same place."""

_LINE = re.compile(
    r"(?P<interface>[^\s/:]{1,15})-(?P<hook>[IEX]): policy (?P<verdict>ALLOWED|DENIED) +proto (?P<protocol>\d{1,3}) "
    r"src \[?(?P<source>[0-9a-fA-F.:]+)\]?:(?P<from>\d{1,5}) "
    r"dest \[?(?P<destination>[0-9a-fA-F.:]+)\]?:(?P<to>\d{1,5})\s*\Z"
)


def trace_fields(message: str) -> dict[str, Any] | None:
    """The fields of a trace line under the names of `Packet`; empty for an allowed packet, None for any other line."""
    match = _LINE.match(message)
    if match is None:
        return None
    try:
        source, destination = ip_address(match["source"]), ip_address(match["destination"])
    except ValueError:
        return None
    number, first, second = int(match["protocol"]), int(match["from"]), int(match["to"])
    if max(first, second) > 0xFFFF or number > 0xFF or source.version != destination.version:
        return None
    if match["verdict"] == "ALLOWED":
        return {}
    protocol = PROTOCOLS.get(number, str(number))
    return {
        "in_interface": match["interface"] if match["hook"] != "I" else None,
        "out_interface": match["interface"] if match["hook"] == "I" else None,
        "ip_version": source.version,
        "source_ip": source.compressed,
        "destination_ip": destination.compressed,
        "protocol": protocol,
        **_transport(protocol, first, second),
    }


def _transport(protocol: str, first: int, second: int) -> dict[str, int]:
    if protocol in ("icmp", "icmpv6"):
        return {"icmp_type": second}
    return {"source_port": first, "destination_port": second} if protocol in PORTS else {}
