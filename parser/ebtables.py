"""What ebtables' log watcher and target print after `IN= OUT=`: a format of its own, with commas and `name = value`.

Rule: as in the main grammar; protocol numbers get the names that the main grammar gives them.
Source: net/bridge/netfilter/ebt_log.c (ebt_log_packet, print_ports).
"""

from __future__ import annotations

from parser.patterns import compressed
from parser.rules import END, choice, fixed, optional, sequence, token
from parser.values import IPV4, IPV6, U8, U16, Value, address4, address6, decimal, hexadecimal, mac, number_word

EBTABLES_WORDS = "MAC source = "
"""What every such line has and no other; it may end after the link layer (--log without --log-ip and --log-arp)."""

PROTOCOLS = {"1": "icmp", "6": "tcp", "17": "udp", "50": "esp", "51": "ah", "58": "icmpv6", "136": "udplite"}

_SOURCE4 = Value(f"({IPV4})", r"[\d.]*", lambda match: [("ip_version", 4), ("source_ip", match[1])])
_SOURCE6 = Value(f"({IPV6})", "[0-9a-f:]*", lambda match: [("ip_version", 6), ("source_ip", compressed(match[1]))])
_CUT = ("truncated", True)
_PORTS = choice(
    sequence(token("SPT=", decimal("source_port", U16)), token("DPT=", decimal("destination_port", U16))),
    fixed("INCOMPLETE TCP/UDP header ", _CUT),
)


_WITH_PORTS = Value("(6|17)", r"\d*", number_word("protocol", "", PROTOCOLS).convert)
_WITHOUT = number_word("protocol", r"(?!(?:6|17) )(?:0|[1-9]\d{0,3})", PROTOCOLS)


_IPV4 = sequence(
    token("IP SRC=", _SOURCE4),
    token("IP DST=", address4("destination_ip"), ", "),
    token("IP tos=0x", hexadecimal("tos", U8, "([0-9A-F]{2})"), ", "),
    choice(
        sequence(token("IP proto=", _WITH_PORTS), _PORTS),
        sequence(token("IP proto=", _WITHOUT), optional(_PORTS)),
    ),
)
# The priority is four bits of the traffic class, so `tos` stays unknown; ports may follow extension headers.
_IPV6 = sequence(
    token("IPv6 SRC=", _SOURCE6),
    token("IPv6 DST=", address6("destination_ip"), ", "),
    token("IPv6 priority=0x", Value("[0-9A-F]", "[0-9A-F]?", lambda match: ()), ", "),
    choice(
        sequence(token("Next Header=", _WITH_PORTS), _PORTS),
        sequence(token("Next Header=", _WITHOUT), optional(_PORTS)),
    ),
)
_BLANK = optional(fixed(" "))  # before 2.6.36 print_MAC put a blank after the address, too
_ARP_ADDRESSES = sequence(
    token("ARP MAC SRC=", mac("arp_source_mac")),
    _BLANK,
    token("ARP IP SRC=", address4("arp_source_ip")),
    token("ARP MAC DST=", mac("arp_destination_mac")),
    _BLANK,
    token("ARP IP DST=", address4("arp_destination_ip")),
)
_ARP = sequence(
    token("ARP HTYPE=", decimal("arp_hardware_type", U16), ", "),
    token("PTYPE=0x", hexadecimal("arp_protocol_type", U16, "([0-9a-f]{4})"), ", "),
    token("OPCODE=", decimal("arp_operation", U16)),
    optional(choice(_ARP_ADDRESSES, fixed("INCOMPLETE ARP payload ", _CUT))),
)
_BROKEN = choice(*(fixed(f"INCOMPLETE {name} header ", _CUT) for name in ("IP", "IPv6", "ARP")))

EBTABLES = sequence(
    token(EBTABLES_WORDS, mac("source_mac")),
    token("MAC dest = ", mac("destination_mac")),
    token("proto = 0x", hexadecimal("ether_type", U16, "([0-9a-f]{4})")),
    optional(choice(_IPV4, _IPV6, _ARP, _BROKEN)),
    END,
)
