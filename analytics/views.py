"""The views of a store: the kernel's own names, each packet once, and the packets that count as denials.

Rule: a view only renames, derives or leaves out; what it leaves out is said in its meaning.
"""

from __future__ import annotations

from dataclasses import dataclass

from analytics.attribution import attributed_view, denied_view
from analytics.intervals import view


@dataclass(frozen=True, slots=True)
class View:
    """One view: name, meaning, and the SELECT behind it."""

    name: str
    meaning: str
    sql: str


# Kernel name -> expression over `packets` (net/netfilter/nf_log_syslog.c). Where the kernel prints one name twice, the
# second carries the header's name in front.
_KERNEL = """
time | time
node | node
prefix | prefix
IN | in_interface
OUT | out_interface
PHYSIN | physical_in_interface
PHYSOUT | physical_out_interface
MACSRC | source_mac
MACDST | destination_mac
MACPROTO | ether_type
SRC | source_ip
DST | destination_ip
LEN | length
TOS | CASE WHEN ip_version = 4 THEN tos & 30 END
PREC | CASE WHEN ip_version = 4 THEN tos & 224 END
TC | CASE WHEN ip_version = 6 THEN tos END
TTL | CASE WHEN ip_version = 4 THEN ttl END
HOPLIMIT | CASE WHEN ip_version = 6 THEN ttl END
FLOWLBL | flow_label
ID | ip_id
CE | reserved_bit
DF | dont_fragment
MF | more_fragments
FRAG | CASE WHEN ip_version = 4 THEN fragment_offset // 8 ELSE fragment_offset END
PROTO | CASE WHEN protocol = 'icmpv6' THEN 'ICMPv6' ELSE upper(protocol) END
SPT | source_port
DPT | destination_port
UDP_LEN | udp_length
SEQ | tcp_seq
ACK_SEQ | tcp_ack
WINDOW | tcp_window
RES | tcp_reserved
CWR | list_contains(tcp_flags, 'CWR')
ECE | list_contains(tcp_flags, 'ECE')
URG | list_contains(tcp_flags, 'URG')
ACK | list_contains(tcp_flags, 'ACK')
PSH | list_contains(tcp_flags, 'PSH')
RST | list_contains(tcp_flags, 'RST')
SYN | list_contains(tcp_flags, 'SYN')
FIN | list_contains(tcp_flags, 'FIN')
URGP | tcp_urgent
TYPE | icmp_type
CODE | icmp_code
ICMP_ID | icmp_id
ICMP_SEQ | icmp_seq
MTU | icmp_mtu
GATEWAY | icmp_gateway
SPI | spi
MARK | mark
UID | uid
GID | gid
INNER | "inner"
"""


def kernel_names() -> list[tuple[str, str]]:
    """The columns of `calico_packet`: the kernel's name, and the expression over `packets`."""
    pairs = (line.partition(" | ") for line in _KERNEL.strip().splitlines())
    return [(name, expression) for name, _, expression in pairs]


def _calico_packet() -> str:
    columns = ", ".join(f'{expression} AS "{name}"' for name, expression in kernel_names())
    return f"SELECT {columns} FROM packets"


# What two log lines of one packet share: the node and everything in the packet's own headers that no hop on the node
# changes. (The hop limit and the link layer do change between hooks; the log prefix is what differs.)
_SAME_PACKET = """
node, ip_version, source_ip, destination_ip, protocol, source_port, destination_port, ip_id, flow_label, length,
fragment_id, fragment_offset, tcp_flags, tcp_seq, tcp_ack, icmp_type, icmp_code, icmp_id, icmp_seq, spi, follow_up
""".strip()

# A run is a chain of lines of the same packet, each within 1 ms of the one before; of each millisecond of a run,
# counted from its start, the first line is kept. So a burst of equal packets (IP id 0) does not collapse into one row.
# Kernel stamps have whole microseconds: the difference is rounded to them before it is compared. Comparing a 64-bit
# hash of the fields instead of twenty columns is five times as fast; a collision would have to fall into 1 ms.
_DISTINCT = f"""
WITH keyed AS (
    SELECT *, hash({_SAME_PACKET}) AS same FROM packets WHERE uptime_s IS NOT NULL
), followed AS (
    SELECT *, coalesce(round((uptime_s - lag(uptime_s) OVER stamps) * 1e6) > 1000, true) AS starts_run
    FROM keyed WINDOW stamps AS (PARTITION BY same ORDER BY uptime_s, source_file, source_offset)
), runs AS (
    SELECT *, max(CASE WHEN starts_run THEN uptime_s END) OVER (
        PARTITION BY same ORDER BY uptime_s, source_file, source_offset ROWS UNBOUNDED PRECEDING) AS run
    FROM followed
), slots AS (
    SELECT *, round((uptime_s - run) * 1e6)::BIGINT // 1001 AS slot FROM runs
), numbered AS (
    SELECT *, slot IS DISTINCT FROM lag(slot) OVER stamps OR run IS DISTINCT FROM lag(run) OVER stamps AS first_line
    FROM slots WINDOW stamps AS (PARTITION BY same ORDER BY uptime_s, source_file, source_offset)
)
SELECT * EXCLUDE (same, starts_run, run, slot, first_line) FROM numbered WHERE first_line
UNION ALL BY NAME
SELECT * FROM packets WHERE uptime_s IS NULL
""".strip()

VIEWS = (
    View(
        "object_intervals",
        "each version of an object with the time from which (valid_from) and until which (valid_until; null: it still "
        "holds) it held; the versions of one object do not overlap",
        view("object_intervals"),
    ),
    View(
        "pod_intervals",
        "the versions of pods, cut where a service that selects the pod (service: names with commas between) begins "
        "or ends",
        view("pod_intervals"),
    ),
    View("interface_intervals", "which pod an interface belonged to; without overlap", view("interface_intervals")),
    View("address_intervals", "who held an address, from when until when; no overlap", view("address_intervals")),
    View("set_intervals", "the network set that held an address in packets; no overlap", view("set_intervals")),
    View("address_classes", "what an address in packets is by networks and registries", view("address_classes")),
    View("verdict_intervals", "the newest verdict on each flow, from when until when", view("verdict_intervals")),
    View(
        "attributed",
        "the packets, replies after a denial too, with who source and destination were at the time",
        attributed_view(),
    ),
    View(
        "denied",
        "the packets that count as denials: without the replies that Calico logs after one (follow_up), with who "
        "source and destination were at the time, and who denied them; packet_count is the number of packets that a "
        "row stands for",
        denied_view(),
    ),
    View(
        "distinct_packets",
        "each packet once, also where several policies logged it: lines of the same node, addresses, ports, protocol, "
        "IP id (and further header fields) with kernel stamps within 1 ms are one packet; lines without a kernel "
        "stamp are kept",
        _DISTINCT,
    ),
    View("calico_packet", "the packets under the names that the kernel prints", _calico_packet()),
)
