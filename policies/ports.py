"""Ports and protocols as Calico reads, joins and writes them.

Rule: the same text is accepted, and the same refused, as by Calico (api/pkg/lib/numorstring/port.go, protocol.go and
uint8orstring.go; joining: SimplifyPorts in libcalico-go/lib/backend/k8s/conversion/conversion.go).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from policies.model import PROTOCOL_NUMBERS, NamedPort, Port, PortRange, Protocol

MAX_PORT = 65535
_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,128}")
_RANGE = re.compile(r"([0-9]+):([0-9]+)")
_DIGITS = re.compile(r"[0-9]+")
_CANONICAL = {name.lower(): name for name in (*PROTOCOL_NUMBERS, "any")}
_WITH_PORTS = frozenset({"TCP", "UDP", "SCTP", "tcp", "udp", "sctp", 6, 17, 132})


def parse_port(value: object) -> Port:
    """A port of a Calico rule: a number, `"80"`, `"80:90"` or a name. Raises ValueError with Calico's reason."""
    if isinstance(value, str):
        return _port_from_text(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_PORT:
        return PortRange(value, value)
    raise ValueError(f"{value!r} is no port: write a number up to {MAX_PORT}, a range 'first:last' or a port's name")


def _port_from_text(text: str) -> Port:
    if _DIGITS.fullmatch(text):
        return PortRange(number := _number(text, f"invalid port format ({text})"), number)
    if found := _RANGE.fullmatch(text):
        first = _number(found[1], f"invalid minimum port number in range ({text})")
        return port_range(first, _number(found[2], f"invalid maximum port number in range ({text})"))
    if not _NAME.fullmatch(text):
        raise ValueError(f"invalid name for named port ({text})")
    return NamedPort(text)


def _number(digits: str, complaint: str) -> int:
    if len(digits.lstrip("0")) > 5 or int(digits) > MAX_PORT:
        raise ValueError(complaint)
    return int(digits)


def port_range(first: int, last: int) -> PortRange:
    """Both ends included. Raises ValueError where the range runs backwards."""
    if first > last:
        raise ValueError(f"minimum port number ({first}) is greater than maximum port number ({last}) in port range")
    return PortRange(first, last)


def port_value(port: Port) -> int | str:
    """How a port is written: 80, `"80:90"` or its name."""
    if isinstance(port, NamedPort):
        return port.name
    return port.first if port.first == port.last else f"{port.first}:{port.last}"


def joined(ports: Sequence[Port]) -> tuple[Port, ...]:
    """The fewest ranges that cover the ports, names first; with fewer than two numbers, the ports as they are."""
    ranges = sorted(port for port in ports if isinstance(port, PortRange))
    if len(ports) <= 1 or sum(port.last - port.first + 1 for port in ranges) <= 1:
        return tuple(ports)
    merged: list[PortRange] = []
    for port in ranges:
        if merged and port.first <= merged[-1].last + 1:
            merged[-1] = PortRange(merged[-1].first, max(merged[-1].last, port.last))
        else:
            merged.append(port)
    return (*(port for port in ports if isinstance(port, NamedPort)), *merged)


def parse_protocol(value: object) -> Protocol:
    """A protocol of a Calico rule: a name kept as it is, or a number up to 255. Raises ValueError."""
    if isinstance(value, str):
        return int(value) if _DIGITS.fullmatch(value) and len(value) <= 20 and int(value) <= 255 else value
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255:
        return value
    raise ValueError(f"{value!r} is no protocol: write TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number from 1 to 255")


def canonical_protocol(name: str) -> str:
    """Calico's spelling of a protocol's name, whatever its case; unknown names stay."""
    return _CANONICAL.get(name.lower(), name)


def has_ports(protocol: Protocol | None) -> bool:
    """Whether rules about this protocol may name ports (numorstring.Protocol.SupportsPorts)."""
    return protocol in _WITH_PORTS


def all_named(ports: Iterable[Port]) -> bool:
    """True where every port is a name, which needs no protocol."""
    return all(isinstance(port, NamedPort) for port in ports)
