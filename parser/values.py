"""How the kernel writes the values of its tokens: decimal, hexadecimal, addresses, names; with the range of each.

Rule: a value is exactly what the kernel's printf would print (no leading zeros, the right case), else it is no value.
Formats: lib/vsprintf.c (%pI4, %pI6, %pM), net/netfilter/nf_log_syslog.c for the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from parser.patterns import compressed

Pair = tuple[str, Any]
"""A field's name and its value; a parse yields a list of them."""


@dataclass(frozen=True, slots=True)
class Value:
    """What may stand in a token.

    `pattern` matches all of it, `part` a beginning; `convert` makes pairs of a match, and raises ValueError where a
    number is out of range.
    """

    pattern: str
    part: str
    convert: Callable[[re.Match[str]], Sequence[Pair]]


U8, U16, U32 = 0xFF, 0xFFFF, 0xFFFFFFFF
GSO_MAX_SIZE = 8 * 0xFFFF
"""The longest packet there is (BIG TCP, include/linux/netdevice.h); LEN= may pass 65535 because of it."""

_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
IPV4 = rf"{_OCTET}(?:\.{_OCTET}){{3}}"
IPV6 = r"(?:[0-9a-f]{4}:){7}[0-9a-f]{4}"
MAC = r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}"
INTERFACE = r"[^\s/:]{1,15}"
"""dev_valid_name (net/core/dev.c): at most 15 bytes, no blank, slash or colon."""

_ETHERNET_OCTETS = 14


def decimal(field: str, maximum: int, scale: int = 1) -> Value:
    """A decimal number up to `maximum`, stored times `scale`."""

    def convert(match: re.Match[str]) -> Sequence[Pair]:
        return [(field, _checked(match[1], 10, maximum) * scale)]

    return Value(r"(0|[1-9]\d{0,19})", r"\d*", convert)


def hexadecimal(field: str, maximum: int, pattern: str = r"(0|[1-9a-f][0-9a-f]{0,15})") -> Value:
    """A hexadecimal number; `pattern` says in which case and width the kernel prints it."""

    def convert(match: re.Match[str]) -> Sequence[Pair]:
        return [(field, _checked(match[1], 16, maximum))]

    return Value(pattern, "[0-9A-Fa-f]*", convert)


def _checked(digits: str, base: int, maximum: int) -> int:
    number = int(digits, base)
    if number > maximum:
        raise ValueError(f"a number up to {maximum}")
    return number


def text(field: str, pattern: str, part: str) -> Value:
    """Text as it is; an empty one is None (`IN=` where no interface is known)."""
    return Value(f"({pattern})", part, lambda match: [(field, match[1] or None)])


def address4(field: str) -> Value:
    """An IPv4 address."""
    return text(field, IPV4, r"[\d.]*")


def address6(field: str) -> Value:
    """An IPv6 address, printed in full, stored in canonical form."""
    return Value(f"({IPV6})", "[0-9a-f:]*", lambda match: [(field, compressed(match[1]))])


def mac(field: str) -> Value:
    """A MAC address in lower case."""
    return text(field, MAC, "[0-9a-f:]*")


def word(field: str, names: dict[str, str]) -> Value:
    """One of a few words, stored under another name."""
    pattern = "|".join(sorted(names, key=len, reverse=True))
    return Value(f"({pattern})", "[A-Za-z0-9]*", lambda match: [(field, names[match[1]])])


def number_word(field: str, pattern: str, names: dict[str, str], maximum: int = U8) -> Value:
    """A protocol that is printed as a number: its name where `names` has one, else the number as text."""

    def convert(match: re.Match[str]) -> Sequence[Pair]:
        return [(field, names.get(match[1], str(_checked(match[1], 10, maximum))))]

    return Value(f"({pattern})", r"\d*", convert)


def link_header(match: re.Match[str]) -> Sequence[Pair]:
    """The octets of `MAC=`: the kernel prints hard_header_len of them, 14 on Ethernet only (dump_mac_header)."""
    octets = match[1].split(":") if match[1] else []
    pairs: list[Pair] = []
    if len(octets) >= _ETHERNET_OCTETS:
        pairs = [
            ("destination_mac", ":".join(octets[:6])),
            ("source_mac", ":".join(octets[6:12])),
            ("ether_type", int(octets[12] + octets[13], 16)),
        ]
    if octets and len(octets) != _ETHERNET_OCTETS:
        pairs.append(("link_header", match[1]))
    return pairs
