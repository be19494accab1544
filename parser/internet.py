"""What the kernel prints of an IPv4 or IPv6 packet, from SRC= on.

Rule: `trailer` ends a packet's text in full, `stop` ends it where the kernel breaks off, `quoted` is the packet between
brackets that an ICMP error carries. Sources: net/netfilter/nf_log_syslog.c (dump_ipv4_packet, dump_ipv6_packet).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from parser.patterns import compressed
from parser.rules import Rule, ahead, choice, fixed, optional, regex, remnant, repeated, sequence, token
from parser.transport import (
    BARE4,
    BARE6,
    HEX_OCTETS,
    NUMBERED,
    TRUNCATED,
    flags,
    icmp4,
    icmp6,
    security,
    tcp,
    udp,
)
from parser.values import GSO_MAX_SIZE, IPV4, IPV6, U8, U16, Pair, Value, address4, address6, decimal, hexadecimal, text


def _ip_flags(match: re.Match[str]) -> Sequence[Pair]:
    return [
        (name, match[i] is not None) for i, name in enumerate(("reserved_bit", "dont_fragment", "more_fragments"), 1)
    ]


# A flag that is absent is known to be off only when the token after the flags has begun.
_IP_FLAGS = Rule(
    regex(r"(CE )?(DF )?(MF )?(?=[FOPT])", "CE, DF or MF", _ip_flags),
    remnant(flags(("CE", "DF", "MF"), ""), "CE, DF or MF"),
)
_SOURCE4 = Value(f"({IPV4})", r"[\d.]*", lambda match: [("ip_version", 4), ("source_ip", match[1])])
_SOURCE6 = Value(f"({IPV6})", "[0-9a-f:]*", lambda match: [("ip_version", 6), ("source_ip", compressed(match[1]))])
_HEX2 = "([0-9A-F]{2})"


def ipv4(trailer: Rule, stop: Rule, quoted: Rule) -> Rule:
    """dump_ipv4_packet; `trailer` ends a packet in full, `stop` one that the kernel breaks off, `quoted` is `[...]`."""
    options = optional(token("OPT (", text("ip_options", HEX_OCTETS, "[0-9A-F]*"), ") "))
    broken = sequence(TRUNCATED, stop)
    transport = choice(
        tcp(trailer, stop), udp(trailer, stop), icmp4(trailer, quoted), security(trailer), sequence(NUMBERED, trailer)
    )
    # A later fragment has no transport header; AH prints not even its PROTO= then.
    fragment = sequence(
        token("FRAG:", Value(r"([1-9]\d*)", r"\d*", decimal("fragment_offset", 0x1FFF, scale=8).convert)),
        choice(broken, sequence(options, optional(choice(BARE4, NUMBERED)), trailer)),
    )
    return sequence(
        token("SRC=", _SOURCE4),
        token("DST=", address4("destination_ip")),
        token("LEN=", decimal("length", GSO_MAX_SIZE)),
        token("TOS=0x", hexadecimal("tos_bits", U8, _HEX2)),
        token("PREC=0x", hexadecimal("precedence_bits", U8, _HEX2)),
        token("TTL=", decimal("ttl", U8)),
        token("ID=", decimal("ip_id", U16)),
        _IP_FLAGS,
        choice(fragment, broken, sequence(options, transport)),
    )


def _fragment(match: re.Match[str]) -> Sequence[Pair]:
    offset = int(match["offset"])
    if offset > 0xFFF8 or offset % 8:
        raise ValueError("a fragment offset")
    return [
        ("fragment_offset", offset),
        ("more_fragments", match["more"] is not None),
        ("fragment_id", int(match["id"], 16)),
    ]


def _fragment_header(offset: str) -> Rule:
    """The only extension header that shows without --log-ip-options; the offset is in octets, unlike IPv4's."""
    pattern = f"(?P<offset>{offset}) (?P<more>INCOMPLETE )?ID:(?P<id>[0-9a-f]{{8}})"
    return token("FRAG:", Value(pattern, "[0-9A-Za-f: ]*", _fragment))


def _option(content: str, close: str = ") ") -> Rule:
    """An extension header with --log-ip-options: `OPT ( `, what is known of it, `)`."""

    def convert(match: re.Match[str]) -> Sequence[Pair]:
        pairs: list[Pair] = [("extension", match[1].strip())]
        found = match.groupdict()
        if "offset" in found:
            pairs += _fragment(match)
        if found.get("left"):
            pairs.append(("incomplete_bytes", int(found["left"])))
        return pairs

    return token("OPT ( ", Value(f"({content})", "[A-Za-z0-9:=\\[\\] ]*", convert), close)


def _fragment_option(offset: str) -> Rule:
    return _option(f"FRAG:(?P<offset>{offset}) (?P<more>INCOMPLETE )?ID:(?P<id>[0-9a-f]{{8}}) ")


_LATER = r"[1-9]\d*"
_LEFT = r"INCOMPLETE \[(?P<left>\d{1,10}) bytes\] "
_SPI = "SPI=0x(?:0|[1-9a-f][0-9a-f]{0,7}) "


def _extensions(trailer: Rule, stop: Rule, full: Rule) -> Rule:
    """The headers between the IPv6 header and the transport, with and without --log-ip-options."""
    bare = sequence(choice(BARE6, NUMBERED), trailer)
    shown = choice(_option(""), _fragment_option("0"), _option(f"AH {_SPI}"))
    broken = choice(_option(f"AH {_LEFT}", ")"), _option(f"ESP (?:{_LEFT}|{_SPI})", ")"), TRUNCATED)
    cut_fragment = fixed("OPT ( FRAG:TRUNCATED", ("truncated", True))
    later = sequence(
        _fragment_option(_LATER),
        repeated(_fragment_option(r"\d+")),
        choice(
            sequence(choice(*(_option(name, ")") for name in ("", "AH ", "ESP ")), cut_fragment, TRUNCATED), stop), bare
        ),
    )
    flagged = sequence(
        ahead("OPT ( "), repeated(shown), choice(later, sequence(broken, stop), sequence(cut_fragment, stop), full)
    )
    cut = choice(TRUNCATED, fixed("FRAG:TRUNCATED", ("truncated", True)))
    later_plain = sequence(
        _fragment_header(_LATER), repeated(_fragment_header(r"\d+")), choice(sequence(cut, stop), bare, stop)
    )
    # ESP, and any header but a fragment's in a later fragment, end the line without a word.
    plain = sequence(repeated(_fragment_header("0")), choice(later_plain, sequence(cut, stop), full, stop))
    return choice(flagged, plain)


def ipv6(trailer: Rule, stop: Rule, quoted: Rule) -> Rule:
    """dump_ipv6_packet; TC and FLOWLBL are decimal."""
    full = choice(tcp(trailer, stop), udp(trailer, stop), icmp6(trailer, stop, quoted), sequence(NUMBERED, trailer))
    return sequence(
        token("SRC=", _SOURCE6),
        token("DST=", address6("destination_ip")),
        token("LEN=", decimal("length", 40 + U16)),
        token("TC=", decimal("tos", U8)),
        token("HOPLIMIT=", decimal("ttl", U8)),
        token("FLOWLBL=", decimal("flow_label", 0xFFFFF)),
        _extensions(trailer, stop, full),
    )
