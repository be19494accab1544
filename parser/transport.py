"""What the kernel prints of TCP, UDP, UDP-Lite, ICMP, ICMPv6, AH and ESP headers, and of protocols known by number.

Rule: `trailer` is what ends a packet's text in full (UID=, GID=, MARK=), `stop` what ends it where the kernel breaks
off and prints neither. Sources: net/netfilter/nf_log_syslog.c (nf_log_dump_tcp_header, nf_log_dump_udp_header,
dump_ipv4_packet, dump_ipv6_packet).
"""

from __future__ import annotations

from collections.abc import Sequence

from parser.patterns import beginning
from parser.rules import NOTHING, Rule, choice, fixed, optional, regex, remnant, sequence, token
from parser.values import U8, U16, U32, Value, address4, decimal, hexadecimal, number_word, text, word

TRUNCATED = fixed("TRUNCATED", ("truncated", True))
INCOMPLETE = token("INCOMPLETE [", decimal("incomplete_bytes", U32), " bytes] ")
HEX_OCTETS = "((?:[0-9A-F]{2}){0,40})"
TCP_FLAGS = ("AE", "CWR", "ECE", "URG", "ACK", "PSH", "RST", "SYN", "FIN")
_ICMP_CODE = token("CODE=", decimal("icmp_code", U8))
_MTU = token("MTU=", decimal("icmp_mtu", U16))
_ECHO = sequence(token("ID=", decimal("icmp_id", U16)), token("SEQ=", decimal("icmp_seq", U16)))


def flags(names: Sequence[str], follow: str) -> str:
    """Flags in the kernel's order, then the beginning of one of them or of what follows."""
    order = "".join(f"(?:{name} )?" for name in names)
    return order + "(?:" + "|".join(beginning(name) for name in (*names, follow)) + ")"


_TCP_FLAGS = Rule(
    regex(
        "(" + "".join(f"(?:{name} )?" for name in TCP_FLAGS) + ")(?=URGP)",
        "TCP flags",
        lambda match: [("tcp_flags", tuple(match[1].split()))],
    ),
    remnant(flags(TCP_FLAGS, "URGP"), "TCP flags"),
)


def tcp(trailer: Rule, stop: Rule) -> Rule:
    """nf_log_dump_tcp_header: a cut header ends the packet's text, so no UID= or MARK= follows."""
    options = token("OPT (", text("tcp_options", HEX_OCTETS, "[0-9A-F]*"), ") ")
    complete = sequence(
        token("SPT=", decimal("source_port", U16)),
        token("DPT=", decimal("destination_port", U16)),
        optional(sequence(token("SEQ=", decimal("tcp_seq", U32)), token("ACK=", decimal("tcp_ack", U32)))),
        token("WINDOW=", decimal("tcp_window", U16)),
        token("RES=0x", hexadecimal("tcp_reserved", 0x3C, "([0-9a-f]{2})")),
        _TCP_FLAGS,
        token("URGP=", decimal("tcp_urgent", U16)),
        choice(sequence(fixed("OPT (TRUNCATED)", ("truncated", True)), stop), sequence(optional(options), trailer)),
    )
    name = token("PROTO=", word("protocol", {"TCP": "tcp"}))
    return sequence(name, choice(sequence(INCOMPLETE, stop), complete))


def udp(trailer: Rule, stop: Rule) -> Rule:
    complete = sequence(
        token("SPT=", decimal("source_port", U16)),
        token("DPT=", decimal("destination_port", U16)),
        token("LEN=", decimal("udp_length", U16)),
        trailer,
    )
    name = token("PROTO=", word("protocol", {"UDP": "udp", "UDPLITE": "udplite"}))
    return sequence(name, choice(sequence(INCOMPLETE, stop), complete))


def icmp4(trailer: Rule, quoted: Rule) -> Rule:
    """Types by their number: what follows CODE= depends on it; every one may be cut after CODE= (required_len)."""

    def kind(types: str, tail: Rule, code: Rule = _ICMP_CODE) -> Rule:
        return sequence(
            token("TYPE=", Value(f"({types})", r"\d*", lambda match: [("icmp_type", int(match[1]))])),
            code,
            choice(sequence(INCOMPLETE, trailer), sequence(tail, trailer)),
        )

    needed = token("CODE=", Value("(4)", r"\d*", lambda match: [("icmp_code", 4)]))
    unneeded = token("CODE=", Value(r"(?!4 )(0|[1-9]\d*)", r"\d*", decimal("icmp_code", U8).convert))
    gateway = token("GATEWAY=", address4("icmp_gateway"))
    other = token("TYPE=", Value(r"(?!(?:0|3|4|5|8|11|12) )(0|[1-9]\d*)", r"\d*", decimal("icmp_type", U8).convert))
    return sequence(
        token("PROTO=", word("protocol", {"ICMP": "icmp"})),
        choice(
            sequence(INCOMPLETE, trailer),
            kind("0|8", _ECHO),
            kind("3", sequence(quoted, _MTU), needed),
            kind("3", quoted, unneeded),
            kind("4|11", quoted),
            kind("5", sequence(gateway, quoted)),
            kind("12", token("PARAMETER=", decimal("icmp_pointer", U8))),
            sequence(other, _ICMP_CODE, optional(INCOMPLETE), trailer),
        ),
    )


def security(trailer: Rule) -> Rule:
    """AH and ESP of IPv4."""
    spi = token("SPI=0x", hexadecimal("spi", U32))
    return sequence(token("PROTO=", word("protocol", {"AH": "ah", "ESP": "esp"})), choice(INCOMPLETE, spi), trailer)


NUMBERED = token("PROTO=", number_word("protocol", r"0|[1-9]\d{0,4}", {}))
BARE4 = token(
    "PROTO=", word("protocol", {"TCP": "tcp", "UDP": "udp", "UDPLITE": "udplite", "ICMP": "icmp", "ESP": "esp"})
)
BARE6 = token("PROTO=", word("protocol", {"TCP": "tcp", "UDP": "udp", "UDPLITE": "udplite", "ICMPv6": "icmpv6"}))


def icmp6(trailer: Rule, stop: Rule, quoted: Rule) -> Rule:
    def kind(types: str, tail: Rule) -> Rule:
        number = Value(types, r"\d*", decimal("icmp_type", U8).convert)
        return sequence(token("TYPE=", number), _ICMP_CODE, tail, trailer)

    pointer = token("POINTER=", hexadecimal("icmp_pointer", U32, "([0-9a-f]{8})"))
    return sequence(
        token("PROTO=", word("protocol", {"ICMPv6": "icmpv6"})),
        choice(
            sequence(INCOMPLETE, stop),
            kind("(128|129)", _ECHO),
            kind("(1|3)", quoted),
            kind("(2)", sequence(quoted, token("MTU=", decimal("icmp_mtu", U32)))),
            kind("(4)", sequence(pointer, quoted)),
            kind(r"(?!(?:1|2|3|4|128|129) )(0|[1-9]\d*)", NOTHING),
        ),
    )
