"""What the rules look at: attempts, counted by slots of five minutes and kept as numbers in tables of the reader.

Rule: texts are looked up where a question begins and where it ends; between, everything is a number, so that many
millions of packets fit into the reader's memory or spill from it. Packets are counted in pieces of a bounded size.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from analytics.attribution import mentioned, needs, select
from analytics.filters import Context, Where
from analytics.findings_rules import LOOKBACK, Settings, muted
from analytics.intervals import RELATIONS, closure, packet_addresses, renamed
from analytics.reader import Reader

# Classes of addresses that are a cluster's, or its owner's.
_INSIDE = """
('pod', 'unknown pod', 'node', 'service', 'host endpoint', 'host-network pod', 'private', 'unique-local', 'shared',
'link-local', 'loopback')
""".strip()

# What is sent to everybody nearby is heard by no one far away: a beacon is not among it.
_TO_ALL = "('multicast', 'broadcast', 'this network', 'unspecified')"

# An answer, or what is left of a connection that the node has forgotten: an attempt has a SYN without an ACK, or comes
# from a port of the range that systems give to clients (Linux: 32768 on), or goes to a port below it. ICMP asks with
# types 8, 13 and 17 (RFC 792, RFC 950), ICMPv6 with 128 (RFC 4443); any other type answers or reports. Masquerading
# and resolvers ask from any port above 1023: what comes to one of those from a system port (RFC 6335) answers too.
_REPLY = """
CASE WHEN protocol IN ('icmp', 'icmpv6') THEN icmp_type NOT IN (8, 13, 17, 128)
    WHEN list_has_all(tcp_flags, ['SYN', 'ACK']) OR list_contains(tcp_flags, 'RST') THEN true
    WHEN list_contains(tcp_flags, 'SYN') THEN false
    ELSE (source_port < 32768 AND destination_port >= 32768) OR (source_port < 1024 AND destination_port >= 1024) END
""".strip()

SLOT_US = 300_000_000
"""Five minutes in microseconds, the unit of all times here."""
# So many packets are counted in 0.3 GB, and in a second.
_PIECE = 2_000_000
# A system sends a SYN (or a question to a name server) again from the same port: all lines of one flow within a slot
# are one attempt, and so are those on both sides of the edge of a slot. Linux waits at most 32 s between two SYNs
# (net.ipv4.tcp_syn_retries 6: after 1, 3, 7, 15, 31 and 63 s); a minute leaves room.
_EDGE_US = 60_000_000
_PACKETS = "time IS NOT NULL AND source_ip IS NOT NULL AND destination_ip IS NOT NULL AND follow_up IS NULL"
_FLOW = "hash(source_port, icmp_id, icmp_seq)"
_SOURCE = "hash(in_interface, source_ip)"
_DESTINATION = "hash(out_interface, destination_ip)"
_DOOR = "hash(node, direction, protocol, destination_port)"
PLACE = (
    "coalesce(CASE direction WHEN 'ingress' THEN destination_namespace WHEN 'egress' THEN source_namespace END, "
    "destination_namespace, source_namespace, node)"
)
"""Where a packet was denied: the namespace of that side, or the node."""

_ATTRIBUTION = (
    "source_namespace", "source_workload", "source_class", "source_by", "source_node", "destination_namespace",
    "destination_workload", "destination_class", "attribution_conflict",
)  # fmt: skip
_PREFIX = "finding_"
_KEYS = {"interface_intervals": "interface", "address_intervals": "address", "set_intervals": "address"}
_BORDERS = " UNION ".join(
    f"SELECT {key} AS key, {edge} AS moment FROM {_PREFIX}{name}"
    for name, key in _KEYS.items()
    for edge in ("valid_from", "valid_until")
)
_ADDRESSES = packet_addresses("(SELECT address AS source_ip, NULL::VARCHAR AS destination_ip FROM ends)")
_RELATIONS = {
    f"{_PREFIX}{name}": _ADDRESSES if name == "packet_addresses" else renamed(RELATIONS[name].sql, _PREFIX)
    for name in closure(needs(_ATTRIBUTION))
}

# An end of packets is an interface with an address. Who that is holds until one of the two passes to somebody else.
_WHO = {
    "ends": f"""
SELECT 'source' AS side, in_interface AS interface, source_ip AS address, min(time) AS first, max(time) AS last
FROM packets WHERE {_PACKETS} AND {{time}} GROUP BY ALL
UNION ALL SELECT 'destination', out_interface, destination_ip, min(time), max(time)
FROM packets WHERE {_PACKETS} AND {{time}} GROUP BY ALL""",
    **_RELATIONS,
    "borders": _BORDERS,
    "cuts": """
SELECT side, interface, address, first AS time FROM ends
UNION SELECT side, interface, address, moment FROM ends JOIN borders ON key = interface
    WHERE moment > first AND moment <= last
UNION SELECT side, interface, address, moment FROM ends JOIN borders ON key = address
    WHERE moment > first AND moment <= last""",
    "holdings": f"""
SELECT *, hash(interface, address) AS key, epoch_us(time) AS begins,
    coalesce(epoch_us(lead(time) OVER (PARTITION BY side, interface, address ORDER BY time)), {2**63 - 1}) AS ends,
    CASE side WHEN 'source' THEN address END AS source_ip, CASE side WHEN 'source' THEN interface END AS in_interface,
    CASE side WHEN 'destination' THEN address END AS destination_ip,
    CASE side WHEN 'destination' THEN interface END AS out_interface, 0 AS repeat_count, NULL AS follow_up
FROM cuts""",
    "held": f"""
SELECT *, row_number() OVER (ORDER BY side, interface, address, time)::INTEGER AS id,
    coalesce(source_namespace || '/' || source_workload, source_ip) AS source,
    coalesce(destination_namespace || '/' || destination_workload, destination_ip) AS destination
FROM ({renamed(select(_ATTRIBUTION, "holdings"), _PREFIX)})""",
    "doors_seen": f"""
SELECT DISTINCT node, direction, protocol, destination_port FROM packets WHERE {_PACKETS} AND {{time}}""",
    "names": """
SELECT row_number() OVER (ORDER BY name)::INTEGER AS id, name FROM (
    SELECT address AS name FROM held UNION SELECT interface FROM held UNION SELECT source FROM held
    UNION SELECT destination FROM held UNION SELECT source_namespace FROM held
    UNION SELECT destination_namespace FROM held UNION SELECT node FROM doors_seen) WHERE name IS NOT NULL""",
    "source_ends": f"""
SELECT held.id, key, begins, ends, named.id AS source, here.id AS source_ip, space.id AS source_namespace,
    link.id AS link,
    source_workload IS NOT NULL AS known, source_class IN ('pod', 'unknown pod') AS from_pod,
    coalesce(source_class IN {_INSIDE}, false) AS inside, coalesce(source_by = 'interface', false) AS by_interface,
    CASE WHEN source_class IN ('node', 'host-network pod') THEN source_node END AS source_node,
    attribution_conflict AS conflict, source_by = 'interface' OR starts_with(interface, 'cali') AS by_pod,
    EXISTS (SELECT 1 FROM {_PREFIX}interface_intervals AS own WHERE own.interface = held.interface
        AND own.valid_from <= time AND time < own.valid_until AND list_contains(own.addresses, address)) AS own,
    {{muted}}
FROM held JOIN names AS named ON named.name = source JOIN names AS here ON here.name = address
LEFT JOIN names AS space ON space.name = source_namespace LEFT JOIN names AS link ON link.name = interface
WHERE side = 'source'""",
    "destination_ends": f"""
SELECT held.id, key, begins, ends, named.id AS destination, here.id AS destination_ip,
    space.id AS destination_namespace, coalesce(destination_class IN {_INSIDE}, false) AS to_inside,
    destination_workload IS NULL AND destination_class = 'unknown pod' AS to_nobody,
    coalesce(destination_class IN {_TO_ALL}, false) AS to_all, attribution_conflict AS conflict
FROM held JOIN names AS named ON named.name = destination JOIN names AS here ON here.name = address
LEFT JOIN names AS space ON space.name = destination_namespace WHERE side = 'destination'""",
    "doors": f"""
SELECT row_number() OVER ()::INTEGER AS id, {_DOOR} AS key, hash(protocol, destination_port) AS service, direction,
    protocol, destination_port AS port, names.id AS node
FROM doors_seen LEFT JOIN names ON names.name = node""",
}

# The attempts of one piece of time, and of the minute before it.
_CALLS = f"""
SELECT {_SOURCE} AS source_key, {_DESTINATION} AS destination_key, {_DOOR} AS door_key,
    epoch_us(time) // {SLOT_US} AS number, {_FLOW} AS flow, min(epoch_us(time)) AS first, max(epoch_us(time)) AS last,
    sum(greatest(repeat_count, 1))::BIGINT AS packets
FROM {{asked}} AND {{piece}} GROUP BY ALL
"""
_SLOTS = f"""
WITH again AS (
    SELECT source_key, destination_key, door_key, number, count(*) AS retried
    FROM finding_calls SEMI JOIN (
        SELECT source_key, destination_key, door_key, flow, number + 1 AS number FROM finding_calls
        WHERE last - number * {SLOT_US} >= {SLOT_US - _EDGE_US}
    ) USING (source_key, destination_key, door_key, flow, number)
    WHERE first - number * {SLOT_US} < {_EDGE_US} GROUP BY ALL
), slots AS (
    SELECT source_key, destination_key, door_key, number, min(first) AS first, max(last) AS last,
        sum(packets)::BIGINT AS packets, count(*) AS attempts
    FROM finding_calls WHERE number >= {{begin}} GROUP BY ALL
)
SELECT s.id AS source_end, d.id AS destination_end, o.id AS door, slots.number::INTEGER AS number,
    (slots.first - slots.number * {SLOT_US})::INTEGER AS first,
    (slots.last - slots.number * {SLOT_US})::INTEGER AS last, packets,
    (attempts - coalesce(retried, 0))::INTEGER AS attempts
FROM slots LEFT JOIN again USING (source_key, destination_key, door_key, number)
JOIN source_ends AS s ON s.key = source_key AND s.begins <= slots.first AND slots.first < s.ends AND NOT s.muted
JOIN destination_ends AS d ON d.key = destination_key AND d.begins <= slots.first AND slots.first < d.ends
JOIN doors AS o ON o.key = door_key
"""
_COUNTS = f"""
SELECT epoch_us(time) // {SLOT_US} AS number, count(*) AS packets
FROM packets WHERE {_PACKETS} AND {{time}} GROUP BY ALL ORDER BY ALL
"""


def seen(table: str, condition: str = "true") -> str:
    """The rows of a table of slots, with what their ends and doors are; a relation in parentheses."""
    return f"""(
SELECT t.rowid AS id, t.source_end, t.destination_end, t.door, t.number, t.number::BIGINT * {SLOT_US} AS slot,
    slot + t.first AS first, slot + t.last AS last, t.packets, t.attempts,
    s.* EXCLUDE (id, key, begins, ends, conflict), d.* EXCLUDE (id, key, begins, ends, conflict),
    o.* EXCLUDE (id, key), {PLACE} AS place,
    (s.conflict OR d.conflict) AND by_pod AND NOT own AS conflict
FROM {table} AS t JOIN source_ends AS s ON s.id = t.source_end JOIN destination_ends AS d ON d.id = t.destination_end
JOIN doors AS o ON o.id = t.door WHERE {condition})"""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of the packets: the relation `asked` (it ends in a condition), and the values that it names."""

    asked: str
    time: str
    parameters: Mapping[str, object]


def question(reader: Reader, where: Where, since: datetime | None, until: datetime | None) -> Question:
    """The packets to look at. What comes into the store meanwhile is left out, since they are asked several times.

    Raises QueryError where the condition is none.
    """
    reader.rows(f"SELECT 1 FROM denied WHERE {where.sql} LIMIT 0", where.parameters)
    newest = reader.rows("SELECT max(stored_at) FROM packets").rows[0][0]
    bounds = [("time >=", since and since - LOOKBACK), ("time <", until), ("stored_at <=", newest)]
    time = " AND ".join(f"{side} TIMESTAMPTZ '{at.isoformat()}'" for side, at in bounds if at) or "true"
    rows = "denied" if mentioned(where.sql) else "(SELECT *, greatest(repeat_count, 1) AS packet_count FROM packets)"
    asked = f"{rows} WHERE ({where.sql}) AND {_PACKETS} AND {time} AND NOT coalesce({_REPLY}, false)"
    return Question(asked, time, where.parameters)


def gather(reader: Reader, asked: Question, settings: Settings) -> None:
    """Let the reader keep the tables that `seen` reads, and `names`."""
    context = Context(datetime.now(UTC), UTC, dict(asked.parameters))
    silenced = {"muted": None, **{f"muted_{rule}": rule for rule in settings.values}}
    columns = [f"coalesce({muted(settings, rule, context)}, false) AS {name}" for name, rule in silenced.items()]
    for name, sql in _WHO.items():
        text = sql.replace("{time}", asked.time).replace("{muted}", ", ".join(columns))
        reader.keep(name, text, used(text, context.parameters))
    for number, (begin, end) in enumerate(_pieces(reader, asked)):
        piece = f"time >= make_timestamptz({begin * SLOT_US - _EDGE_US}) AND time < make_timestamptz({end * SLOT_US})"
        text = _CALLS.format(asked=asked.asked, piece=piece)
        reader.keep("finding_calls", text, used(text, asked.parameters))
        reader.keep("slots", _SLOTS.format(begin=begin), more=number > 0)


def _pieces(reader: Reader, asked: Question) -> Iterator[tuple[int, int]]:
    """Numbers of the first slot of each piece, and of the first after it."""
    counts: Sequence[tuple[int, int]] = reader.rows(_COUNTS.format(time=asked.time)).rows or [(0, 0)]
    begin, packets = counts[0][0], 0
    for number, count in counts:
        if packets and packets + count > _PIECE:
            yield begin, number
            begin, packets = number, 0
        packets += count
    yield begin, counts[-1][0] + 1


def used(text: str, parameters: Mapping[str, object]) -> dict[str, object]:
    """DuckDB refuses values that the statement does not name."""
    named = set(re.findall(r"\$(\w+)", text))
    return {name: value for name, value in parameters.items() if name in named}
