"""The reference grammar: everything the kernel's netfilter loggers print from `IN=` on, in pyparsing.

Rule: the order of tokens is the kernel's, every token has its base and range, and nothing is skipped; a text that
leaves the grammar is an error with its place. One that ends too early gives what is certain, and `truncated`.
Sources: net/netfilter/nf_log_syslog.c (nf_log_dump_packet_common, dump_mac_header, dump_ipv4_packet, dump_ipv6_packet,
dump_arp_packet, nf_log_dump_tcp_header, nf_log_dump_udp_header), its forerunners ipt_LOG.c and ip6t_LOG.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import pyparsing as pp

from parser.ebtables import EBTABLES, EBTABLES_WORDS
from parser.internet import ipv4, ipv6
from parser.rules import END, NOTHING, Rule, choice, collected, fixed, optional, sequence, token
from parser.transport import TRUNCATED
from parser.values import INTERFACE, U16, U32, Pair, Value, address4, decimal, hexadecimal, link_header, mac, text

QUOTING_TYPES = (3, 4, 5, 11)
IP_TYPES = (0x0800, 0x86DD, 0x0806, 0x8035)


class GrammarError(ValueError):
    """A text that is no netfilter record: `position` is where reading stopped, `expected` what should stand there."""

    def __init__(self, position: int, expected: str) -> None:
        super().__init__(position, expected)
        self.position = position
        self.expected = expected

    def __str__(self) -> str:
        return f"expected {self.expected} at character {self.position}"


def read(body: str) -> dict[str, Any]:
    """The fields of `body`, the text from `IN=` on, under the names of `Packet`; `inner` is such a dict, too.

    Raises GrammarError where the text is neither a record nor the beginning of one.
    """
    errors: list[pp.ParseBaseException] = []
    try:
        fields = _fields(_whole().parse_string(body if body.endswith(" ") else body + " "))
        if EBTABLES_WORDS in body or not _breaks_off(fields):
            return fields
    except pp.ParseBaseException as error:
        errors.append(error)
    try:
        return {**_fields(_cut().parse_string(body)), "truncated": True}
    except pp.ParseBaseException as error:
        errors.append(error)
    furthest = max(errors, key=lambda error: error.loc)
    raise GrammarError(min(furthest.loc, len(body)), _expectation(furthest))


def _expectation(error: pp.ParseBaseException) -> str:
    """The token that was expected; pyparsing names a choice by all its branches, which nobody wants to read."""
    name = error.msg.removeprefix("Expected ")
    return "the next token of the record" if "{" in name or " | " in name else name


@cache
def _whole() -> pp.ParserElement:
    return RECORD.whole.copy().parse_with_tabs()


@cache
def _cut() -> pp.ParserElement:
    return RECORD.cut.copy().parse_with_tabs()


def _fields(pairs: Iterable[Pair]) -> dict[str, Any]:
    """The pairs as a dict, with what two tokens say together."""
    fields: dict[str, Any] = {}
    extensions: list[str] = []
    for name, value in pairs:
        if name == "extension":
            extensions.append(value)
        else:
            fields[name] = value
    if extensions:
        fields["extension_headers"] = tuple(extensions)
    _join(fields)
    return fields


def _join(fields: dict[str, Any]) -> None:
    """TOS= and PREC= are one octet; the MAC= of a SIT device holds no Ethernet header."""
    low, high = fields.pop("tos_bits", None), fields.pop("precedence_bits", None)
    if low is not None and high is not None:
        fields["tos"] = low | high
    octets = fields.pop("octets", None)
    if "tunnel_source_ip" in fields and octets:
        fields["link_header"] = octets
        for name in ("source_mac", "destination_mac", "ether_type"):
            fields.pop(name, None)


def _breaks_off(fields: dict[str, Any]) -> bool:
    """A text that could end here, but that the kernel would have continued.

    Nothing after a link header that names no other protocol than IP or ARP; an ICMP error without its quotation, which
    only the netdev egress hook leaves out (there skb_network_offset is not 0, and no IN= is known).
    """
    if fields.get("truncated"):
        return False
    if fields.keys() & {"ip_version", "arp_operation"}:
        error = fields.get("ip_version") == 4 and fields.get("icmp_type") in QUOTING_TYPES
        return bool(error and fields.get("in_interface")) and not fields.keys() & {"inner", "incomplete_bytes"}
    return fields.get("ether_type") in (None, *IP_TYPES)


def _bracketed(rule: Rule) -> Rule:
    """A quoted packet: one level only, without UID= and MARK=, which belong to the packet around it."""
    return collected(sequence(fixed("["), rule, fixed("] ")), _quotation)


def _quotation(pairs: Sequence[Pair]) -> Sequence[Pair]:
    """The packet quoted between brackets is a record of its own."""
    return [("inner", _fields(pairs))] if pairs else []


_IN = token("IN=", text("in_interface", f"(?:{INTERFACE})?", r"\S*"))
_OUT = token("OUT=", text("out_interface", f"(?:{INTERFACE})?", r"\S*"))
_PHYSIN = optional(token("PHYSIN=", text("physical_in_interface", INTERFACE, r"\S*")))
_PHYSOUT = optional(token("PHYSOUT=", text("physical_out_interface", INTERFACE, r"\S*")))
# Linux 2.4 put PHYSIN between IN and OUT.
_INTERFACES = sequence(_IN, _PHYSIN, _OUT, _PHYSIN, _PHYSOUT)

_OCTETS = Value(
    "((?:[0-9a-f]{2}(?::[0-9a-f]{2})*)?)",
    "[0-9a-f:]*",
    lambda match: [*link_header(match), ("octets", match[1])],
)
_TUNNEL = sequence(
    token("TUNNEL=", address4("tunnel_source_ip"), "->"),
    token("", address4("tunnel_destination_ip")),
)
_RAW_HEADER = sequence(token("MAC=", _OCTETS), optional(_TUNNEL))


def _vlan(match: re.Match[str]) -> Sequence[Pair]:
    tci = int(match[1])
    if tci > U16:
        raise ValueError("a 16-bit tag")
    return [("vlan_tci", tci), ("vlan_id", tci & 0xFFF)]


_HEX4 = "([0-9a-f]{4})"
# The kernel prints the whole tag control information under the name VID (nf_log_dump_vlan).
_TAG = sequence(
    token("VPROTO=", hexadecimal("vlan_protocol", U16, _HEX4)),
    token("VID=", Value(r"(0|[1-9]\d{0,9})", r"\d*", _vlan)),
)
_DECODED_HEADER = sequence(
    token("MACSRC=", mac("source_mac")),
    token("MACDST=", mac("destination_mac")),
    optional(_TAG),
    token("MACPROTO=", hexadecimal("ether_type", U16, _HEX4)),
)
_LINK = choice(_DECODED_HEADER, _RAW_HEADER)


_OWNER = sequence(token("UID=", decimal("uid", U32)), optional(token("GID=", decimal("gid", U32))))
_MARK = token("MARK=0x", hexadecimal("mark", U32, "([1-9a-f][0-9a-f]{0,15})"))
_TRAILER = sequence(optional(_OWNER), optional(_MARK), END)

_EGRESS_QUOTE4 = optional(_bracketed(choice(TRUNCATED, ipv4(NOTHING, NOTHING, NOTHING))))
_QUOTE6 = _bracketed(choice(TRUNCATED, ipv6(NOTHING, NOTHING, NOTHING)))

# ARP and RARP (dump_arp_packet); a packet whose addresses are not Ethernet and IPv4 ends after OPCODE.
_ARP_ADDRESSES = sequence(
    token("MACSRC=", mac("arp_source_mac")),
    token("IPSRC=", address4("arp_source_ip")),
    token("MACDST=", mac("arp_destination_mac")),
    token("IPDST=", address4("arp_destination_ip")),
)
_ARP = sequence(
    token("ARP HTYPE=", decimal("arp_hardware_type", U16)),
    token("PTYPE=0x", hexadecimal("arp_protocol_type", U16, _HEX4)),
    token("OPCODE=", decimal("arp_operation", U16)),
    optional(choice(token("INCOMPLETE [", decimal("incomplete_bytes", U32), " bytes] "), _ARP_ADDRESSES)),
    END,
)
_IP = choice(
    ipv4(_TRAILER, END, _EGRESS_QUOTE4),
    ipv6(_TRAILER, END, _QUOTE6),
    sequence(TRUNCATED, END),
)
# An EtherType that has no logger of its own leaves the link header only (nf_log_unknown_packet).
_NETFILTER = sequence(
    _INTERFACES,
    choice(sequence(optional(_DECODED_HEADER), _ARP), sequence(optional(_LINK), _IP), sequence(_LINK, END)),
)
RECORD = choice(_NETFILTER, sequence(_IN, _OUT, EBTABLES))
