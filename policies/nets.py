"""Addresses and networks as Go reads them, since that is what Calico does.

Rule: a network needs its `/length`; a plain address, a dotted mask or a zone is not one (Go, net.ParseCIDR).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from ipaddress import ip_address, ip_network

from policies.model import Address, Network

_CIDR = re.compile(r"([0-9a-fA-F:.]+)/([0-9]+)")
_MAPPED = 96
"""Length of ::ffff:0:0/96: Go takes an IPv6 address in it for the IPv4 address that it holds (net.IP.To4)."""


def parse_address(text: str) -> Address:
    """An IPv4 or IPv6 address. Raises ValueError."""
    try:
        return ip_address("" if "%" in text else text)
    except ValueError:
        raise ValueError(f"invalid IP address: {text}") from None


def parse_cidr(text: str) -> tuple[Address, Network]:
    """The address as written and its network with the host bits cleared. Raises ValueError."""
    found = _CIDR.fullmatch(text)
    if not found:
        raise ValueError(f"invalid CIDR address: {text}")
    try:
        written, length = ip_address(found[1]), int(found[2])
        address = _unmapped(written) if length >= _MAPPED else written
        length -= _MAPPED if address.version != written.version else 0
        return address, ip_network(f"{address}/{length}", strict=False)
    except ValueError:
        raise ValueError(f"invalid CIDR address: {text}") from None


def _unmapped(address: Address) -> Address:
    mapped = address.ipv4_mapped if address.version == 6 else None
    return mapped or address


def parse_net(text: str) -> Network:
    """A network with its host bits cleared. Raises ValueError."""
    return parse_cidr(text)[1]


def parse_net_or_address(text: str) -> tuple[Address, Network]:
    """Like `parse_cidr`, but a plain address counts as a network of one."""
    if "/" in text:
        return parse_cidr(text)
    address = _unmapped(parse_address(text))
    return address, ip_network(address)


class NetTable:
    """Many networks, of which it is asked whether one holds an address: one look for each length, however many."""

    def __init__(self, nets: Iterable[Network]) -> None:
        self._starts: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
        for net in nets:
            host_bits = net.max_prefixlen - net.prefixlen
            self._starts[net.version, host_bits].add(int(net.network_address) >> host_bits)

    def __contains__(self, address: Address) -> bool:
        number, own = int(address), address.version
        return any(version == own and number >> bits in starts for (version, bits), starts in self._starts.items())
