"""What one logged packet says: a frozen record, and the table of its fields.

Rule: a field is None when the line does not show it. Nothing is filled in, nothing is guessed.
The table (`FIELDS`) is the one place where a kernel token, its name, type, unit and meaning stand together;
columns, JSON, `docs/schema.md` and filters are derived from it.
Kernel source: net/netfilter/nf_log_syslog.c (dump_ipv4_packet, dump_ipv6_packet, dump_arp_packet, dump_mac_header).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Field:
    """One row of the vocabulary: name, SQL type, kernel token, Elastic Common Schema name, unit and meaning."""

    name: str
    sql: str
    kernel: str
    ecs: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """One packet as the kernel logged it; see `FIELDS` for units and sources.

    Addresses are text in canonical form (RFC 5952 for IPv6, without the dotted quad), numbers are integers,
    `protocol` is lower case and stays a number as text where the kernel prints a number.
    """

    time: datetime | None = None
    uptime_s: float | None = None
    node: str | None = None
    direction: str | None = None
    in_interface: str | None = None
    out_interface: str | None = None
    physical_in_interface: str | None = None
    physical_out_interface: str | None = None
    source_mac: str | None = None
    destination_mac: str | None = None
    ether_type: int | None = None
    link_header: str | None = None
    vlan_protocol: int | None = None
    vlan_tci: int | None = None
    vlan_id: int | None = None
    tunnel_source_ip: str | None = None
    tunnel_destination_ip: str | None = None
    ip_version: int | None = None
    source_ip: str | None = None
    destination_ip: str | None = None
    length: int | None = None
    tos: int | None = None
    ttl: int | None = None
    ip_id: int | None = None
    flow_label: int | None = None
    reserved_bit: bool | None = None
    dont_fragment: bool | None = None
    more_fragments: bool | None = None
    fragment_offset: int | None = None
    fragment_id: int | None = None
    ip_options: str | None = None
    extension_headers: tuple[str, ...] | None = None
    protocol: str | None = None
    source_port: int | None = None
    destination_port: int | None = None
    tcp_flags: tuple[str, ...] | None = None
    tcp_window: int | None = None
    tcp_seq: int | None = None
    tcp_ack: int | None = None
    tcp_reserved: int | None = None
    tcp_urgent: int | None = None
    tcp_options: str | None = None
    udp_length: int | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    icmp_id: int | None = None
    icmp_seq: int | None = None
    icmp_mtu: int | None = None
    icmp_gateway: str | None = None
    icmp_pointer: int | None = None
    spi: int | None = None
    incomplete_bytes: int | None = None
    arp_hardware_type: int | None = None
    arp_protocol_type: int | None = None
    arp_operation: int | None = None
    arp_source_mac: str | None = None
    arp_source_ip: str | None = None
    arp_destination_mac: str | None = None
    arp_destination_ip: str | None = None
    mark: int | None = None
    uid: int | None = None
    gid: int | None = None
    prefix: str | None = None
    policy_tier: str | None = None
    policy_kind: str | None = None
    policy_namespace: str | None = None
    policy_name: str | None = None
    follow_up: str | None = None
    inner: Packet | None = None
    repeat_count: int = 0
    truncated: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Every field by name, JSON-ready: time as ISO 8601 text, tuples as lists, `inner` as a dict (or None)."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}

    def as_json(self) -> str:
        """The fields that are set, as compact JSON: the form in which `inner` is stored."""
        shown = {name: value for name, value in self.as_dict().items() if value is not None}
        for name, default in (("repeat_count", 0), ("truncated", False)):
            if shown[name] == default:
                del shown[name]
        return json.dumps(shown, separators=(",", ":"))


def _plain(value: Any) -> Any:
    match value:
        case Packet():
            return value.as_dict()
        case datetime():
            return value.isoformat()
        case tuple():
            return list(value)
        case _:
            return value


_TABLE = """
time | TIMESTAMPTZ | (syslog time) | @timestamp | when the record was written, as the frame around the line says; for syslog files that is when the daemon read it
uptime_s | DOUBLE | [stamp] | | seconds since boot at which the kernel logged the packet (printk stamp); the better clock for order and gaps
node | VARCHAR | (host) | host.name | the node that logged the packet
direction | VARCHAR | (IN, OUT) | network.direction | ingress: to a pod (OUT=cali…); egress: from a pod (IN=cali…); host: no pod interface; null: both are pods, or unknown
in_interface | VARCHAR | IN | observer.ingress.interface.name | interface the packet came in by; null where the kernel printed an empty IN=
out_interface | VARCHAR | OUT | observer.egress.interface.name | interface the packet would leave by; null where the kernel printed an empty OUT=
physical_in_interface | VARCHAR | PHYSIN | iptables.physical_input_device | bridge port behind in_interface
physical_out_interface | VARCHAR | PHYSOUT | iptables.physical_output_device | bridge port behind out_interface
source_mac | VARCHAR | MAC, MACSRC | source.mac | Ethernet source, lower case
destination_mac | VARCHAR | MAC, MACDST | destination.mac | Ethernet destination, lower case
ether_type | INTEGER | MAC, MACPROTO | iptables.ether_type | EtherType: 2048 IPv4, 34525 IPv6, 2054 ARP
link_header | VARCHAR | MAC | iptables.link_header | the octets of MAC= as printed, where they are not the usual 14
vlan_protocol | INTEGER | VPROTO | iptables.vlan.protocol | EtherType of the VLAN tag: 33024 (802.1Q), 34984 (802.1ad)
vlan_tci | INTEGER | VID | iptables.vlan.tci | the whole 16-bit tag control information; the kernel prints it under the name VID
vlan_id | INTEGER | VID & 0xfff | network.vlan.id | VLAN number, 0-4095
tunnel_source_ip | VARCHAR | TUNNEL | iptables.tunnel.source.ip | outer source of a SIT tunnel
tunnel_destination_ip | VARCHAR | TUNNEL | iptables.tunnel.destination.ip | outer destination of a SIT tunnel
ip_version | SMALLINT | | network.type | 4 or 6; null for ARP and other link protocols
source_ip | VARCHAR | SRC | source.ip | source address, canonical text
destination_ip | VARCHAR | DST | destination.ip | destination address, canonical text
length | BIGINT | LEN | network.bytes | bytes of the whole IP packet, header included
tos | SMALLINT | TOS + PREC, TC | iptables.tos | type of service or traffic class, the whole octet (IPv4: the kernel hides bit 0)
ttl | SMALLINT | TTL, HOPLIMIT | iptables.ttl | time to live (IPv4) or hop limit (IPv6)
ip_id | INTEGER | ID | iptables.id | IPv4 identification
flow_label | INTEGER | FLOWLBL | iptables.flow_label | IPv6 flow label
reserved_bit | BOOLEAN | CE | iptables.reserved_bit | the reserved bit of the IPv4 flags, which the kernel prints as CE (not ECN)
dont_fragment | BOOLEAN | DF | iptables.dont_fragment | IPv4 don't fragment
more_fragments | BOOLEAN | MF, INCOMPLETE | iptables.more_fragments | more fragments follow (IPv4 flag, or the IPv6 fragment header)
fragment_offset | INTEGER | FRAG | iptables.fragment_offset | bytes from the start of the unfragmented payload (IPv4 prints units of 8, converted)
fragment_id | BIGINT | ID: | iptables.fragment_id | identification in the IPv6 fragment header
ip_options | VARCHAR | OPT | iptables.ip_options | IPv4 options, upper-case hex as printed
extension_headers | VARCHAR[] | OPT | iptables.extension_headers | IPv6 extension headers in order, as printed between the brackets of OPT ( )
protocol | VARCHAR | PROTO | network.transport | tcp, udp, udplite, icmp, icmpv6, ah, esp, or the protocol number as text
source_port | INTEGER | SPT | source.port | TCP or UDP source port
destination_port | INTEGER | DPT | destination.port | TCP or UDP destination port
tcp_flags | VARCHAR[] | SYN ACK … | iptables.tcp.flags | flags that are set, in the order printed: AE CWR ECE URG ACK PSH RST SYN FIN
tcp_window | INTEGER | WINDOW | iptables.tcp.window | window as in the header, not scaled
tcp_seq | BIGINT | SEQ | iptables.tcp.seq | sequence number (only with --log-tcp-sequence)
tcp_ack | BIGINT | ACK= | iptables.tcp.ack | acknowledgement number (only with --log-tcp-sequence)
tcp_reserved | SMALLINT | RES | iptables.tcp.reserved_bits | reserved bits as printed (the nibble times 4)
tcp_urgent | INTEGER | URGP | iptables.tcp.urgent | urgent pointer
tcp_options | VARCHAR | OPT | iptables.tcp.options | TCP options, upper-case hex as printed
udp_length | INTEGER | LEN (second) | iptables.udp.length | bytes of UDP or UDP-Lite, header included
icmp_type | SMALLINT | TYPE | iptables.icmp.type | ICMP or ICMPv6 type
icmp_code | SMALLINT | CODE | iptables.icmp.code | ICMP or ICMPv6 code
icmp_id | INTEGER | ID (second) | iptables.icmp.id | echo identifier
icmp_seq | INTEGER | SEQ | iptables.icmp.seq | echo sequence number
icmp_mtu | BIGINT | MTU | iptables.icmp.mtu | next-hop MTU in bytes
icmp_gateway | VARCHAR | GATEWAY | iptables.icmp.redirect | gateway of a redirect
icmp_pointer | BIGINT | PARAMETER, POINTER | iptables.icmp.parameter | octet at which a parameter problem was found
spi | BIGINT | SPI | iptables.spi | security parameter index of AH or ESP
incomplete_bytes | BIGINT | INCOMPLETE [n bytes] | iptables.incomplete_bytes | octets that were left of a header cut short (the kernel's 32-bit count, which can wrap)
arp_hardware_type | INTEGER | HTYPE | iptables.arp.hardware_type | ARP hardware type
arp_protocol_type | INTEGER | PTYPE | iptables.arp.protocol_type | ARP protocol type
arp_operation | INTEGER | OPCODE | iptables.arp.operation | 1 request, 2 reply
arp_source_mac | VARCHAR | MACSRC (after ARP) | iptables.arp.source.mac | sender hardware address
arp_source_ip | VARCHAR | IPSRC | iptables.arp.source.ip | sender protocol address
arp_destination_mac | VARCHAR | MACDST (after ARP) | iptables.arp.destination.mac | target hardware address
arp_destination_ip | VARCHAR | IPDST | iptables.arp.destination.ip | target protocol address
mark | BIGINT | MARK | iptables.mark | firewall mark of the packet
uid | BIGINT | UID | user.id | owner of the local socket
gid | BIGINT | GID | group.id | group of the local socket
prefix | VARCHAR | (before IN=) | iptables.prefix | log prefix without its closing colon and blank
policy_tier | VARCHAR | %t | rule.ruleset | Calico tier named by the prefix
policy_kind | VARCHAR | %k | rule.category | Calico short kind: np, gnp, knp, kcnp, …
policy_namespace | VARCHAR | %p | rule.namespace | namespace of the policy that holds the Log rule
policy_name | VARCHAR | %n, %p | rule.name | name of the policy that holds the Log rule; may be cut (29 characters of prefix on iptables)
follow_up | VARCHAR | -est, -rst, -icmp-err | iptables.follow_up | est, rst or icmp-err: a reply that Calico logged after a denial, not a denial itself
inner | JSON | [ … ] | iptables.inner | the packet quoted by an ICMP error, with these same names
repeat_count | INTEGER | | iptables.repeat_count | n of "message repeated n times": this row stands for n further packets; 0 for an ordinary line, which stands for one
truncated | BOOLEAN | TRUNCATED | iptables.truncated | the line or the packet was cut; only what is certain is filled in
""".strip()


def _rows(table: str) -> tuple[Field, ...]:
    return tuple(Field(*(cell.strip() for cell in line.split("|", 4))) for line in table.splitlines())


FIELDS = _rows(_TABLE)
