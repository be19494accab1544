"""The kernel's text of a packet, printed anew from its fields: what stood on the log line from the prefix on.

Rule: read again, the text of a whole line gives back the very fields that it was made from. What no field says cannot
come back: whether the link header was printed as MAC= or MACSRC=, how a prefix was closed, the torn last token of a cut
line. Sources: net/netfilter/nf_log_syslog.c, net/bridge/netfilter/ebt_log.c, felix/bpf-gpl/skb.h (skb_log).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import IPv6Address
from typing import Any

Fields = Mapping[str, Any]
Part = Callable[[Fields], str]

# xt_LOG keeps 29 bytes of a prefix, nftables 127: one that long was cut, so nothing followed it.
_CUT_PREFIX = (29, 127)
_NUMBERS = {"icmp": 1, "tcp": 6, "udp": 17, "esp": 50, "ah": 51, "icmpv6": 58, "udplite": 136}
_ARP = (0x0806, 0x8035)


def kernel_text(packet: Fields) -> str:
    """The prefix and the record of a packet, its values by column name (`inner` as a mapping or None)."""
    if _from_ebpf(packet):
        return _trace(packet)
    interfaces = f"IN={packet.get('in_interface') or ''} OUT={packet.get('out_interface') or ''} "
    record = _ebtables(packet) if _from_ebtables(packet) else _physical(packet) + _link(packet) + _body(packet)
    return _prefix(packet) + interfaces + record


def kernel_stamp(packet: Fields) -> str:
    """printk's stamp (kernel/printk/printk.c, print_time), or nothing where the line had none."""
    uptime = packet.get("uptime_s")
    return "" if uptime is None else f"[{uptime:12.6f}] "


def _prefix(packet: Fields) -> str:
    """Calico closes its prefix with a colon and a blank (felix/iptables/actions.go, LogAction)."""
    prefix = packet.get("prefix") or ""
    return f"{prefix}: " if prefix and len(prefix.encode()) not in _CUT_PREFIX else prefix


def _hexadecimal(form: str) -> Callable[[Any], str]:
    return lambda value: format(int(value), form)


def _address(value: str) -> str:
    """IPv6 in full (lib/vsprintf.c, %pI6), IPv4 as it is."""
    return IPv6Address(value).exploded if ":" in value else value


def _protocol(value: str) -> str:
    return "ICMPv6" if value == "icmpv6" else value.upper()


def _flags(value: list[str]) -> str:
    return "".join(f"{flag} " for flag in value)


def _quotation(value: Fields) -> str:
    return f"[{_body(value)}] "


def _token(name: str, field: str, form: Callable[[Any], str] = str, close: str = " ") -> Part:
    def text(packet: Fields) -> str:
        value = packet.get(field)
        return "" if value is None else f"{name}{form(value)}{close}"

    return text


def _word(word: str, field: str) -> Part:
    return lambda packet: word if packet.get(field) else ""


def _all(*parts: Part) -> Part:
    return lambda packet: "".join([part(packet) for part in parts])


_physical = _all(_token("PHYSIN=", "physical_in_interface"), _token("PHYSOUT=", "physical_out_interface"))
_decoded = _all(
    _token("MACSRC=", "source_mac"),
    _token("MACDST=", "destination_mac"),
    _token("VPROTO=", "vlan_protocol", _hexadecimal("04x")),
    _token("VID=", "vlan_tci"),
    _token("MACPROTO=", "ether_type", _hexadecimal("04x")),
)


def _link(packet: Fields) -> str:
    """dump_mac_header: decoded where there is a VLAN tag or an ARP record, else the octets as they are."""
    tunnel = ""
    if packet.get("tunnel_source_ip") is not None:
        tunnel = f"TUNNEL={packet['tunnel_source_ip']}->{packet.get('tunnel_destination_ip')} "
    if packet.get("link_header") is not None:
        return f"MAC={packet['link_header']} {tunnel}"
    if packet.get("vlan_protocol") is not None or packet.get("arp_operation") is not None:
        return _decoded(packet)
    if packet.get("source_mac") is None or packet.get("ether_type") is None:
        return f"MAC= {tunnel}"
    kind = format(packet["ether_type"], "04x")
    return f"MAC={packet['destination_mac']}:{packet['source_mac']}:{kind[:2]}:{kind[2:]} "


_incomplete = _token("INCOMPLETE [", "incomplete_bytes", close=" bytes] ")
_ports = _all(_token("SPT=", "source_port"), _token("DPT=", "destination_port"))
_trailer = _all(_token("UID=", "uid"), _token("GID=", "gid"), _token("MARK=0x", "mark", _hexadecimal("x")))
_quoted = _token("", "inner", _quotation, close="")
_mtu = _token("MTU=", "icmp_mtu")

_tcp = _all(
    _incomplete,
    _ports,
    _token("SEQ=", "tcp_seq"),
    _token("ACK=", "tcp_ack"),
    _token("WINDOW=", "tcp_window"),
    _token("RES=0x", "tcp_reserved", _hexadecimal("02x")),
    _token("", "tcp_flags", _flags, close=""),
    _token("URGP=", "tcp_urgent"),
    _token("OPT (", "tcp_options", close=") "),
    lambda packet: "OPT (TRUNCATED)" if packet.get("truncated") and packet.get("tcp_urgent") is not None else "",
)
_udp = _all(_incomplete, _ports, _token("LEN=", "udp_length"))
# A type has no more than one of these; the order is that of dump_ipv4_packet and dump_ipv6_packet.
_icmp_head = _all(
    _token("TYPE=", "icmp_type"),
    _token("CODE=", "icmp_code"),
    _incomplete,
    _token("ID=", "icmp_id"),
    _token("SEQ=", "icmp_seq"),
    _token("GATEWAY=", "icmp_gateway"),
)
_TRANSPORT: dict[str, Part] = {
    "tcp": _tcp,
    "udp": _udp,
    "udplite": _udp,
    "icmp": _all(_icmp_head, _token("PARAMETER=", "icmp_pointer"), _quoted, _mtu),
    "icmpv6": _all(_icmp_head, _token("POINTER=", "icmp_pointer", _hexadecimal("08x")), _quoted, _mtu),
    "ah": _all(_incomplete, _token("SPI=0x", "spi", _hexadecimal("x"))),
    "esp": _all(_incomplete, _token("SPI=0x", "spi", _hexadecimal("x"))),
}
_named = _token("PROTO=", "protocol", _protocol)


def _nothing(_packet: Fields) -> str:
    """The kernel prints no more of a protocol that it knows by number only."""
    return ""


_ipv4_head = _all(
    _token("SRC=", "source_ip"),
    _token("DST=", "destination_ip"),
    _token("LEN=", "length"),
    _token("TOS=0x", "tos", lambda tos: format(tos & 0x1E, "02X")),
    _token("PREC=0x", "tos", lambda tos: format(tos & 0xE0, "02X")),
    _token("TTL=", "ttl"),
    _token("ID=", "ip_id"),
    _word("CE ", "reserved_bit"),
    _word("DF ", "dont_fragment"),
    _word("MF ", "more_fragments"),
    _token("FRAG:", "fragment_offset", lambda octets: str(octets // 8)),
    _token("OPT (", "ip_options", close=") "),
)
_ipv6_head = _all(
    _token("SRC=", "source_ip", _address),
    _token("DST=", "destination_ip", _address),
    _token("LEN=", "length"),
    _token("TC=", "tos"),
    _token("HOPLIMIT=", "ttl"),
    _token("FLOWLBL=", "flow_label"),
)
_arp = _all(
    _token("ARP HTYPE=", "arp_hardware_type"),
    _token("PTYPE=0x", "arp_protocol_type", _hexadecimal("04x")),
    _token("OPCODE=", "arp_operation"),
    _incomplete,
    _token("MACSRC=", "arp_source_mac"),
    _token("IPSRC=", "arp_source_ip"),
    _token("MACDST=", "arp_destination_mac"),
    _token("IPDST=", "arp_destination_ip"),
)


def _body(packet: Fields) -> str:
    """The text from SRC= on, or an ARP record, or nothing."""
    if packet.get("arp_hardware_type") is not None:
        return _arp(packet)
    if packet.get("ip_version") is None:
        return "TRUNCATED" if packet.get("truncated") else ""
    head = _ipv4_head(packet) if packet["ip_version"] == 4 else _ipv6_head(packet) + _extensions(packet)
    if packet.get("protocol") is None:
        whole = packet.get("dont_fragment") is not None or packet.get("flow_label") is not None
        return head + ("TRUNCATED" if whole and packet.get("truncated") else "") + _trailer(packet)
    transport = _TRANSPORT.get(packet["protocol"], _nothing)
    return head + _named(packet) + transport(packet) + _trailer(packet)


def _extensions(packet: Fields) -> str:
    """dump_ipv6_packet: every header with --log-ip-options, else the fragment header only."""
    shown = packet.get("extension_headers")
    if shown is not None:
        # The kernel breaks off after ESP, and after an AH that is cut short, without closing with a blank.
        return "".join(f"OPT ( {text} {')' if _last_word(text) else ') '}" if text else "OPT ( ) " for text in shown)
    if packet.get("fragment_id") is None:
        return ""
    more = "INCOMPLETE " if packet.get("more_fragments") else ""
    return f"FRAG:{packet['fragment_offset']} {more}ID:{packet['fragment_id']:08x} "


def _last_word(text: str) -> bool:
    return text.startswith("ESP ") or text.endswith("bytes]")


def _from_ebtables(packet: Fields) -> bool:
    """Its logger prints no length, which the other loggers print before anything else of the header that it does."""
    return packet.get("length") is None and packet.get("protocol") is not None and packet.get("source_mac") is not None


def _ebtables(packet: Fields) -> str:
    number = _NUMBERS.get(packet["protocol"], packet["protocol"])
    link = f"MAC source = {packet['source_mac']} MAC dest = {packet['destination_mac']} proto = 0x"
    source, destination = (_address(packet[f"{end}_ip"]) for end in ("source", "destination"))
    if packet["ip_version"] == 4:
        ends = f"IP SRC={source} IP DST={destination}, IP tos=0x{packet['tos']:02X}, IP proto={number} "
    else:
        ends = f"IPv6 SRC={source} IPv6 DST={destination}, IPv6 priority=0x0, Next Header={number} "
    return f"{link}{packet['ether_type']:04x} {ends}{_ports(packet)}"


def _from_ebpf(packet: Fields) -> bool:
    """Calico's eBPF data plane prints an interface and the 5-tuple, without a prefix."""
    absent = all(packet.get(name) is None for name in ("prefix", "length", "ttl", "source_mac"))
    return absent and packet.get("protocol") is not None


def _trace(packet: Fields) -> str:
    hook = "I" if packet.get("out_interface") else "E"
    protocol = packet["protocol"]
    ports = packet.get("source_port") or 0, packet.get("destination_port") or packet.get("icmp_type") or 0
    ends = (
        f"{f'[{ip}]' if ':' in ip else ip}:{port}"
        for ip, port in zip((packet["source_ip"], packet["destination_ip"]), ports, strict=True)
    )
    interface = packet.get("out_interface") or packet.get("in_interface") or ""
    source, destination = ends
    return f"{interface}-{hook}: policy DENIED proto {_NUMBERS.get(protocol, protocol)} src {source} dest {destination}"
