"""Addresses and networks as Go reads them, since that is what Calico does.

Rule: a network needs its `/length`; a plain address, a dotted mask or a zone is not one (Go, net.ParseCIDR).
"""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network

from policies.model import Address, Network

_CIDR = re.compile(r"([0-9a-fA-F:.]+)/([0-9]{1,6})")


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
        return ip_address(found[1]), ip_network(f"{found[1]}/{int(found[2])}", strict=False)
    except ValueError:
        raise ValueError(f"invalid CIDR address: {text}") from None


def parse_net(text: str) -> Network:
    """A network with its host bits cleared. Raises ValueError."""
    return parse_cidr(text)[1]


def parse_net_or_address(text: str) -> tuple[Address, Network]:
    """Like `parse_cidr`, but a plain address counts as a network of one."""
    if "/" in text:
        return parse_cidr(text)
    address = parse_address(text)
    return address, ip_network(address)
