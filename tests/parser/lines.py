"""Legal kernel lines made from known values: Hypothesis strategies that render nf_log_syslog.c's own printf order.

Rule: a strategy yields a text together with the fields that a reader must find in it; nothing here uses the parser.
`bodies()` is the text from IN= on, `messages()` has a prefix before it, `syslog_lines()` a frame around that.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from hypothesis import strategies as st

from parser import Packet

FLAGS = ("AE", "CWR", "ECE", "URG", "ACK", "PSH", "RST", "SYN", "FIN")
NAMED = {"tcp": "TCP", "udp": "UDP", "udplite": "UDPLITE", "icmp": "ICMP", "ah": "AH", "esp": "ESP", "icmpv6": "ICMPv6"}


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of a line and the fields that it shows."""

    text: str
    fields: dict[str, Any]

    def __add__(self, other: Text) -> Text:
        return Text(self.text + other.text, self.fields | other.fields)


NOTHING = Text("", {})


def numbers(token: str, field: str, maximum: int, form: str = "d", minimum: int = 0) -> st.SearchStrategy[Text]:
    """`TOKEN=number `, printed with a format."""
    return st.integers(minimum, maximum).map(lambda n: Text(f"{token}{n:{form}} ", {field: n}))


def maybe(part: st.SearchStrategy[Text]) -> st.SearchStrategy[Text]:
    """The part, or nothing."""
    return st.just(NOTHING) | part


def joined(*parts: st.SearchStrategy[Text]) -> st.SearchStrategy[Text]:
    """One part after the other."""
    return st.tuples(*parts).map(lambda texts: sum(texts, NOTHING))


def octets(count: int) -> st.SearchStrategy[str]:
    """A MAC address, or what the kernel prints as one."""
    return st.binary(min_size=count, max_size=count).map(lambda raw: raw.hex(":"))


# Names that the kernel allows; a name with IN= or OUT= in it cannot be told from the record's own words.
interfaces = st.one_of(
    st.sampled_from(
        ["eth0", "lo", "tunl0", "vxlan.calico", "cali0123456789a", "eth0.100", "a=b", "x[1]", "wireguard.cali"]
    ),
    st.text("0123456789abcdef", min_size=11, max_size=11).map(lambda digits: "cali" + digits),
)
addresses4 = st.integers(0, 0xFFFFFFFF).map(IPv4Address)
addresses6 = st.one_of(
    st.integers(0, (1 << 128) - 1),
    st.integers(0, 0xFFFF).map(lambda low: (0x20010DB8 << 96) + low),
    st.sampled_from([0, 1, 0xFFFF00000000 + 0x01020304]),
).map(IPv6Address)


def canonical6(address: IPv6Address) -> str:
    """RFC 5952 without the dotted quad, which newer Pythons print for mapped addresses."""
    groups = [int(group, 16) for group in address.exploded.split(":")]
    runs = [(start, end) for start in range(8) for end in range(start + 2, 9) if not any(groups[start:end])]
    shown = [f"{group:x}" for group in groups]
    if not runs:
        return ":".join(shown)
    start, end = max(runs, key=lambda run: (run[1] - run[0], -run[0]))
    return ":".join(shown[:start]) + "::" + ":".join(shown[end:])


@st.composite
def heads(draw: st.DrawFn) -> Text:
    """IN=, OUT= and the bridge ports; never both without a name."""
    inside, outside = draw(st.tuples(interfaces | st.none(), interfaces | st.none()).filter(any))
    head = Text(f"IN={inside or ''} OUT={outside or ''} ", {"in_interface": inside, "out_interface": outside})
    ports = (
        interfaces.map(lambda name: Text(f"PHYSIN={name} ", {"physical_in_interface": name})),
        interfaces.map(lambda name: Text(f"PHYSOUT={name} ", {"physical_out_interface": name})),
    )
    return head + draw(maybe(ports[0])) + draw(maybe(ports[1]))


@st.composite
def link_headers(draw: st.DrawFn, ether_type: int) -> Text:
    """MAC= with the octets of an Ethernet header, decoded or raw, or with none."""
    target, source = draw(octets(6)), draw(octets(6))
    fields = {"destination_mac": target, "source_mac": source, "ether_type": ether_type}
    raw = f"{target}:{source}:{ether_type >> 8:02x}:{ether_type & 0xFF:02x}"
    tci = draw(st.integers(0, 0xFFFF))
    tag = Text(f"VPROTO=8100 VID={tci} ", {"vlan_protocol": 0x8100, "vlan_tci": tci, "vlan_id": tci & 0xFFF})
    decoded = Text(f"MACSRC={source} MACDST={target} ", {}) + draw(maybe(st.just(tag)))
    longer = draw(octets(4))
    return draw(
        st.sampled_from(
            [
                Text(f"MAC={raw} ", fields),
                decoded + Text(f"MACPROTO={ether_type:04x} ", fields),
                Text("MAC= ", {}),
                Text(f"MAC={raw}:{longer} ", fields | {"link_header": f"{raw}:{longer}"}),
                Text(f"MAC={longer} ", {"link_header": longer}),
            ]
        )
    )


def incomplete(maximum: int = 0xFFFFFFFF) -> st.SearchStrategy[Text]:
    """A header cut short, with the kernel's 32-bit count, which may have wrapped."""
    return st.integers(0, maximum).map(lambda n: Text(f"INCOMPLETE [{n} bytes] ", {"incomplete_bytes": n}))


def proto(name: str) -> Text:
    """`PROTO=` with a name, or a number as text."""
    return Text(f"PROTO={NAMED.get(name, name)} ", {"protocol": name})


def options(field: str) -> st.SearchStrategy[Text]:
    """OPT with 4 to 40 octets."""
    hexadecimal = st.integers(1, 10).flatmap(lambda words: st.binary(min_size=4 * words, max_size=4 * words))
    return hexadecimal.map(lambda raw: Text(f"OPT ({raw.hex().upper()}) ", {field: raw.hex().upper()}))


def tcp() -> st.SearchStrategy[Text]:
    """nf_log_dump_tcp_header, whole."""
    flags = st.lists(st.sampled_from(FLAGS), unique=True).map(lambda drawn: tuple(f for f in FLAGS if f in drawn))
    return joined(
        st.just(proto("tcp")),
        numbers("SPT=", "source_port", 0xFFFF),
        numbers("DPT=", "destination_port", 0xFFFF),
        maybe(joined(numbers("SEQ=", "tcp_seq", 0xFFFFFFFF), numbers("ACK=", "tcp_ack", 0xFFFFFFFF))),
        numbers("WINDOW=", "tcp_window", 0xFFFF),
        st.integers(0, 15).map(lambda nibble: Text(f"RES=0x{nibble * 4:02x} ", {"tcp_reserved": nibble * 4})),
        flags.map(lambda names: Text("".join(f"{name} " for name in names), {"tcp_flags": names})),
        numbers("URGP=", "tcp_urgent", 0xFFFF),
        maybe(options("tcp_options")),
    )


def udp() -> st.SearchStrategy[Text]:
    """nf_log_dump_udp_header, whole."""
    return joined(
        st.sampled_from(["udp", "udplite"]).map(proto),
        numbers("SPT=", "source_port", 0xFFFF),
        numbers("DPT=", "destination_port", 0xFFFF),
        numbers("LEN=", "udp_length", 0xFFFF),
    )


def quotations(version: int) -> st.SearchStrategy[Text]:
    """The packet between brackets, which shows no quotation of its own."""
    packet = packets4(quoted=True) if version == 4 else packets6(quoted=True)
    return packet.map(lambda inner: Text(f"[{inner.text}] ", {"inner": inner.fields}))


def icmp4(quoted: bool) -> st.SearchStrategy[Text]:
    """ICMP by type: echo, errors with their quotation, redirect, parameter problem, and the rest."""
    code = numbers("CODE=", "icmp_code", 0xFF)
    quote = st.just(NOTHING) if quoted else quotations(4)

    def kind(number: int, *rest: st.SearchStrategy[Text]) -> st.SearchStrategy[Text]:
        start = st.just(proto("icmp") + Text(f"TYPE={number} ", {"icmp_type": number}))
        return joined(start, *rest)

    echo = joined(numbers("ID=", "icmp_id", 0xFFFF), numbers("SEQ=", "icmp_seq", 0xFFFF))
    needed = st.just(Text("CODE=4 ", {"icmp_code": 4}))
    gateway = addresses4.map(lambda a: Text(f"GATEWAY={a} ", {"icmp_gateway": str(a)}))
    return st.one_of(
        st.sampled_from([0, 8]).flatmap(lambda number: kind(number, code, echo)),
        kind(3, needed, quote, numbers("MTU=", "icmp_mtu", 0xFFFF)),
        kind(3, st.just(Text("CODE=1 ", {"icmp_code": 1})), quote),
        st.sampled_from([4, 11]).flatmap(lambda number: kind(number, code, quote)),
        kind(5, code, gateway, quote),
        kind(12, code, numbers("PARAMETER=", "icmp_pointer", 0xFF)),
        st.sampled_from([9, 10, 13, 17, 255]).flatmap(lambda number: kind(number, code)),
        st.sampled_from([3, 5, 11, 13]).flatmap(lambda number: kind(number, code, incomplete(27))),
        joined(st.just(proto("icmp")), incomplete(7)),
    )


def icmp6(quoted: bool) -> st.SearchStrategy[Text]:
    """ICMPv6 by type."""
    code = numbers("CODE=", "icmp_code", 0xFF)
    quote = st.just(NOTHING) if quoted else quotations(6)

    def kind(number: int, *rest: st.SearchStrategy[Text]) -> st.SearchStrategy[Text]:
        start = st.just(proto("icmpv6") + Text(f"TYPE={number} ", {"icmp_type": number}))
        return joined(start, code, *rest)

    echo = joined(numbers("ID=", "icmp_id", 0xFFFF), numbers("SEQ=", "icmp_seq", 0xFFFF))
    return st.one_of(
        st.sampled_from([128, 129]).flatmap(lambda number: kind(number, echo)),
        st.sampled_from([1, 3]).flatmap(lambda number: kind(number, quote)),
        kind(2, quote, numbers("MTU=", "icmp_mtu", 0xFFFFFFFF)),
        kind(4, numbers("POINTER=", "icmp_pointer", 0xFFFFFFFF, "08x"), quote),
        st.sampled_from([133, 135, 143, 255]).flatmap(lambda number: kind(number)),
    )


def trailers() -> st.SearchStrategy[Text]:
    """UID=, GID= and MARK=, which only the outermost packet has."""
    owner = joined(numbers("UID=", "uid", 0xFFFFFFFF), numbers("GID=", "gid", 0xFFFFFFFF))
    return joined(maybe(owner), maybe(numbers("MARK=0x", "mark", 0xFFFFFFFF, "x", minimum=1)))


def numbered(*excluded: int) -> st.SearchStrategy[Text]:
    """A protocol that the kernel prints as a number."""
    return st.integers(0, 255).filter(lambda n: n not in excluded).map(lambda n: proto(str(n)))


def _addresses(source: Any, target: Any, version: int) -> Text:
    if version == 4:
        return Text(
            f"SRC={source} DST={target} ", {"ip_version": 4, "source_ip": str(source), "destination_ip": str(target)}
        )
    fields = {"ip_version": 6, "source_ip": canonical6(source), "destination_ip": canonical6(target)}
    return Text(f"SRC={source.exploded} DST={target.exploded} ", fields)


@st.composite
def packets4(draw: st.DrawFn, *, quoted: bool = False) -> Text:
    """dump_ipv4_packet."""
    text = _addresses(draw(addresses4), draw(addresses4), 4)
    text += draw(numbers("LEN=", "length", 0xFFFF))
    tos = draw(st.integers(0, 0xFF)) & 0xFE
    text += Text(f"TOS=0x{tos & 0x1E:02X} PREC=0x{tos & 0xE0:02X} ", {"tos": tos})
    text += draw(joined(numbers("TTL=", "ttl", 0xFF), numbers("ID=", "ip_id", 0xFFFF)))
    flags = draw(st.tuples(st.booleans(), st.booleans(), st.booleans()))
    shown = "".join(f"{name} " for name, on in zip(("CE", "DF", "MF"), flags, strict=True) if on)
    names = ("reserved_bit", "dont_fragment", "more_fragments")
    text += Text(shown, dict(zip(names, flags, strict=True)))
    if draw(st.integers(0, 9)) == 0:
        units = draw(st.integers(1, 0x1FFF))
        bare = st.sampled_from(["tcp", "udp", "icmp", "esp", "132"]).map(proto) | st.just(NOTHING)
        text += Text(f"FRAG:{units} ", {"fragment_offset": units * 8}) + draw(maybe(options("ip_options"))) + draw(bare)
        return text + (NOTHING if quoted else draw(trailers()))
    text += draw(maybe(options("ip_options")))
    spi = joined(st.sampled_from(["ah", "esp"]).map(proto), numbers("SPI=0x", "spi", 0xFFFFFFFF, "x"))
    complete = st.one_of(tcp(), udp(), icmp4(quoted), spi, numbered(1, 6, 17, 50, 51, 136))
    broken = joined(st.sampled_from(["tcp", "udp", "udplite"]).map(proto), incomplete(19))
    if draw(st.integers(0, 9)) == 0:
        return text + draw(broken)
    return text + draw(complete) + (NOTHING if quoted else draw(trailers()))


@st.composite
def packets6(draw: st.DrawFn, *, quoted: bool = False) -> Text:
    """dump_ipv6_packet, with and without --log-ip-options."""
    text = _addresses(draw(addresses6), draw(addresses6), 6)
    text += draw(numbers("LEN=", "length", 0xFFFF + 40, minimum=40))
    text += draw(joined(numbers("TC=", "tos", 0xFF), numbers("HOPLIMIT=", "ttl", 0xFF)))
    text += draw(numbers("FLOWLBL=", "flow_label", 0xFFFFF))
    offset, more, number = draw(st.tuples(st.integers(0, 0x1FFF), st.booleans(), st.integers(0, 0xFFFFFFFF)))
    fragment = f"FRAG:{offset * 8} {'INCOMPLETE ' * more}ID:{number:08x}"
    fields = {"fragment_offset": offset * 8, "more_fragments": more, "fragment_id": number}
    kind = draw(st.sampled_from(["none", "none", "plain", "flagged"]))
    if kind == "plain":
        text += Text(fragment + " ", fields)
    if kind == "flagged":
        headers = draw(st.lists(st.sampled_from(["", "AH SPI=0xabc"]), max_size=3))
        headers.append(fragment)
        shown = "".join(f"OPT ( {header}{' ' if header else ''}) " for header in headers)
        text += Text(shown, fields | {"extension_headers": tuple(headers)})
    if kind != "none" and offset:
        bare = draw(st.sampled_from(["tcp", "udp", "icmpv6", "132"]).map(proto))
        return text + bare + (NOTHING if quoted else draw(trailers()))
    complete = st.one_of(tcp(), udp(), icmp6(quoted), numbered(0, 6, 17, 43, 44, 50, 51, 58, 60, 136))
    return text + draw(complete) + (NOTHING if quoted else draw(trailers()))


@st.composite
def arps(draw: st.DrawFn) -> Text:
    """dump_arp_packet."""
    text = draw(joined(numbers("ARP HTYPE=", "arp_hardware_type", 0xFFFF), st.just(Text("PTYPE=0x0800 ", {}))))
    operation = draw(st.integers(0, 0xFFFF))
    sender, target = draw(octets(6)), draw(octets(6))
    source, destination = draw(addresses4), draw(addresses4)
    fields = {
        "arp_protocol_type": 0x0800,
        "arp_operation": operation,
        "arp_source_mac": sender,
        "arp_source_ip": str(source),
        "arp_destination_mac": target,
        "arp_destination_ip": str(destination),
    }
    addresses = f"MACSRC={sender} IPSRC={source} MACDST={target} IPDST={destination}"
    return text + Text(f"OPCODE={operation} {addresses}", fields)


def bodies() -> st.SearchStrategy[Text]:
    """A record from IN= on, as the kernel ends it (with a blank, but for ARP)."""
    return st.one_of(
        joined(heads(), maybe(link_headers(0x0800)), packets4()),
        joined(heads(), maybe(link_headers(0x86DD)), packets6()),
        joined(heads(), arps()),
    )


prefixes = st.sampled_from(["calico-packet: ", "calico-packet", "calico-drop: ", "calico-packet np default/p1: "])


def messages() -> st.SearchStrategy[tuple[str, Text]]:
    """The log prefix and the record."""
    return st.tuples(prefixes, bodies())


@st.composite
def syslog_lines(draw: st.DrawFn) -> tuple[str, Packet]:
    """A line of syslog in one of its usual frames, and the packet it stands for (read with an anchor in 2026)."""
    prefix, body = draw(messages())
    inner = body.fields.get("inner")
    zone = timezone(timedelta(hours=draw(st.integers(-11, 13))))
    moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=draw(st.integers(0, 25_000_000_000_000)))
    uptime = draw(st.integers(0, 10**13)) / 1e6
    stamp = f"[{uptime:12.6f}] " if draw(st.booleans()) else ""
    day = f"{moment:%b} {moment.day:2d} {moment:%H:%M:%S}"
    iso = moment.astimezone(zone)
    time, shown = draw(
        st.sampled_from([(moment.replace(microsecond=0), day), (iso, iso.isoformat("T", "microseconds"))])
    )
    fields: dict[str, Any] = {**body.fields, "inner": Packet(**inner) if inner else None}
    ways = (str(fields.get(f"{way}_interface")).startswith("cali") for way in ("in", "out"))
    packet = Packet(
        **fields,
        time=time,
        uptime_s=float(f"{uptime:.6f}") if stamp else None,
        node="node-1",
        direction={(True, True): None, (True, False): "egress", (False, True): "ingress"}.get(tuple(ways), "host"),
        prefix=prefix.rstrip(": "),
    )
    text = body.text.rstrip() if draw(st.booleans()) else body.text
    return f"{shown} node-1 kernel: {stamp}{prefix}{text}", packet
