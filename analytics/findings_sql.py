"""The rules in SQL: one query that finds all of them, in few passes over the packets and without a row in Python.

Rule: what one rule explains, a later one does not count again: a scanner's tries belong to the scan, regular calls to
the beacon, and a client that is just misconfigured makes no spike. Replies are nobody's attempt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from analytics.attribution import needs, select
from analytics.filters import Context, Where
from analytics.findings_rules import LOOKBACK, Settings, muted
from analytics.intervals import RELATIONS, closure, packet_addresses

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

# The packets, by five minutes and by all that tells who tries what; attribution, which costs more than counting, comes
# after. A system sends a SYN (or a question to a name server) again from the same port: all lines of one flow within a
# slot are one attempt, and so are those on both sides of the edge of a slot. Linux waits at most 32 s between two SYNs
# (net.ipv4.tcp_syn_retries 6: after 1, 3, 7, 15, 31 and 63 s); a minute leaves room.
_BASE: dict[str, str] = {
    "asked": f"""
SELECT time, node, direction, source_ip, destination_ip, protocol, destination_port, in_interface, out_interface,
    greatest(repeat_count, 1) AS packet_count, epoch_us(time) // 300_000_000 AS number,
    hash(source_port, icmp_id, icmp_seq) AS flow, hash(protocol, destination_port) AS service,
    hash(node, direction, source_ip, destination_ip, protocol, destination_port, in_interface, out_interface) AS same
FROM {{packets}} follow_up IS NULL AND time IS NOT NULL AND source_ip IS NOT NULL AND destination_ip IS NOT NULL
    AND {{time}} AND NOT coalesce({_REPLY}, false)""",
    "slots": """
SELECT same, number, min(time) AS time, max(time) AS last, sum(packet_count)::BIGINT AS packets,
    list_unique(list(flow)) AS attempts, any_value(service) AS service, any_value(node) AS node,
    any_value(direction) AS direction, any_value(source_ip) AS source_ip, any_value(destination_ip) AS destination_ip,
    any_value(protocol) AS protocol, any_value(destination_port) AS port, any_value(in_interface) AS in_interface,
    any_value(out_interface) AS out_interface, 0 AS repeat_count,
    NULL AS follow_up, list(flow) FILTER (epoch_us(time) % 300_000_000 < 60_000_000) AS opening,
    list(flow) FILTER (epoch_us(time) % 300_000_000 >= 240_000_000) AS closing
FROM asked GROUP BY same, number""",
    "tries": """
SELECT * EXCLUDE (opening, closing, attempts), attempts - CASE WHEN lag(number) OVER slots = number - 1
    THEN coalesce(len(list_intersect(opening, lag(closing) OVER slots)), 0) ELSE 0 END AS attempts
FROM slots WINDOW slots AS (PARTITION BY same ORDER BY number)""",
}
PLACE = (
    "coalesce(CASE direction WHEN 'ingress' THEN destination_namespace WHEN 'egress' THEN source_namespace END, "
    "destination_namespace, source_namespace, node)"
)
"""Where a packet was denied: the namespace of that side, or the node."""

_HITS = f"""
hash(same, number) AS id, to_timestamp(number * 300) AS slot, time AS first, last, packets, attempts, service,
    protocol, port, node, in_interface, source_ip, destination_ip, source_namespace,
    coalesce(source_namespace || '/' || source_workload, source_ip) AS source,
    coalesce(destination_namespace || '/' || destination_workload, destination_ip) AS destination,
    source_workload IS NOT NULL AS known, source_class IN ('pod', 'unknown pod') AS from_pod,
    coalesce(source_class IN {_INSIDE}, false) AS inside, coalesce(destination_class IN {_INSIDE}, false) AS to_inside,
    destination_workload IS NULL AND destination_class = 'unknown pod' AS to_nobody,
    coalesce(destination_class IN {_TO_ALL}, false) AS to_all, {PLACE} AS place,
    CASE WHEN source_class IN ('node', 'host-network pod') THEN source_node END AS source_node,
    source_by = 'interface' AS by_interface,
    attribution_conflict AND (source_by = 'interface' OR starts_with(in_interface, 'cali')) AS conflict"""
_ATTRIBUTION = (
    "source_namespace", "source_workload", "source_class", "source_by", "source_node", "destination_namespace",
    "destination_workload", "destination_class", "attribution_conflict",
)  # fmt: skip
_BASE |= {
    **{name: RELATIONS[name].sql.replace("{", "{{").replace("}", "}}") for name in closure(needs(_ATTRIBUTION))},
    "packet_addresses": packet_addresses("slots"),
    "attributed": select(_ATTRIBUTION, "tries"),
    "hits": f"SELECT {_HITS} FROM attributed WHERE NOT coalesce({{muted}}, false)",
}


def _sessions(rows: str, key: str, pause: str) -> str:
    """The rows with the number of their session: rows of one key with pauses of at most `pause` between them."""
    return f"""
SELECT * EXCLUDE opens, sum(opens) OVER (PARTITION BY {key} ORDER BY first, last ROWS UNBOUNDED PRECEDING) AS session
FROM (SELECT *, CASE WHEN first - max(last) OVER (PARTITION BY {key} ORDER BY first, last
    ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) <= {pause} THEN 0 ELSE 1 END AS opens FROM ({rows}))"""


def _summary(rule: str, key: str = "source", subject: str = "source", about: str = "''", measure: str = "NULL") -> str:
    """The findings of a rule from its marks: `id` of a hit, `session`, and perhaps more; `about` tells apart findings
    of one subject."""
    return f"""
SELECT '{rule}' AS rule, any_value({subject}) AS subject, {about} AS about, min(first) AS first, max(last) AS last,
    sum(packets)::BIGINT AS packets, sum(attempts)::BIGINT AS attempts, bool_or(known) AS known,
    bool_or(inside) AS inside, bool_or(to_inside) AS to_inside, any_value(source_node) AS source_node,
    list(DISTINCT source_ip) AS sources, list(DISTINCT destination) AS targets,
    list(DISTINCT destination_ip) AS target_ips, list(DISTINCT port) FILTER (port IS NOT NULL) AS ports,
    list(DISTINCT protocol) AS protocols, list(DISTINCT node) AS nodes, ({measure})::DOUBLE AS measure
FROM hits JOIN {rule}_marks USING (id) GROUP BY {key}, session"""


_SERVICE = "any_value(protocol) || '/' || any_value(port)"

_VERTICAL = {
    "vertical_pairs": """
SELECT source, destination FROM {vertical_scan} WHERE port IS NOT NULL GROUP BY ALL
HAVING count(DISTINCT service) >= least($vertical_scan_ports, $vertical_scan_slow_ports, $vertical_scan_pod_ports)""",
    "vertical_rows": _sessions(
        "SELECT id, source, destination, service, from_pod, first, last FROM {vertical_scan} "
        "SEMI JOIN vertical_pairs USING (source, destination) WHERE port IS NOT NULL",
        "source",
        "$vertical_scan_cooldown",
    ),
    "vertical_counts": """
SELECT *, count(DISTINCT service) OVER (PARTITION BY source, session, destination ORDER BY first
        RANGE BETWEEN $vertical_scan_window PRECEDING AND CURRENT ROW) AS fast,
    count(DISTINCT service) OVER (PARTITION BY source, session, destination ORDER BY first
        RANGE BETWEEN $vertical_scan_slow_window PRECEDING AND CURRENT ROW) AS slow
FROM vertical_rows""",
    "vertical_hot": """
SELECT source, session, destination FROM vertical_counts GROUP BY ALL
HAVING max(fast) >= $vertical_scan_ports
    OR max(slow) >= CASE WHEN bool_or(from_pod) THEN $vertical_scan_pod_ports ELSE $vertical_scan_slow_ports END""",
    "vertical_scan_marks": """
SELECT id, session FROM vertical_rows SEMI JOIN vertical_hot USING (source, session, destination)""",
    "vertical_scan": _summary("vertical_scan"),
}

# A host that is tried again and again is a peer of a misconfigured client. Services of the world's clouds have hundreds
# of addresses behind ports 80 and 443: slow counts leave them out. One run of a scanner over many hosts is one finding:
# the scan.
_HORIZONTAL = {
    "sweep_pairs": """
SELECT source, service FROM {horizontal_sweep} GROUP BY ALL HAVING count(DISTINCT destination_ip)
    >= least($horizontal_sweep_hosts, $horizontal_sweep_slow_hosts, $horizontal_sweep_pod_hosts)""",
    "sweep_rows": _sessions(
        "SELECT id, source, service, destination_ip, port, from_pod, to_inside, attempts, first, last "
        "FROM {horizontal_sweep} SEMI JOIN sweep_pairs USING (source, service)",
        "source",
        "$horizontal_sweep_cooldown",
    ),
    "sweep_guesses": """
SELECT * FROM sweep_rows
QUALIFY sum(attempts) OVER (PARTITION BY source, session, service, destination_ip) <= $horizontal_sweep_tries""",
    "sweep_counts": """
SELECT source, session, service,
    count(DISTINCT destination_ip) OVER (PARTITION BY source, session, service ORDER BY first
        RANGE BETWEEN $horizontal_sweep_window PRECEDING AND CURRENT ROW) AS fast,
    count(DISTINCT CASE WHEN to_inside OR port NOT IN (80, 443) OR port IS NULL THEN destination_ip END) OVER (
        PARTITION BY source, session, service ORDER BY first
        RANGE BETWEEN $horizontal_sweep_slow_window PRECEDING AND CURRENT ROW) AS slow,
    count(DISTINCT CASE WHEN from_pod AND to_inside THEN destination_ip END) OVER (
        PARTITION BY source, session, service ORDER BY first
        RANGE BETWEEN $horizontal_sweep_slow_window PRECEDING AND CURRENT ROW) AS pod_slow
FROM sweep_guesses""",
    "sweep_hot": """
SELECT source, session, service FROM sweep_counts GROUP BY ALL
HAVING max(fast) >= $horizontal_sweep_hosts OR max(slow) >= $horizontal_sweep_slow_hosts
    OR max(pod_slow) >= $horizontal_sweep_pod_hosts""",
    "sweep_spans": """
SELECT source, session, min(first) AS first, max(last) AS last
FROM sweep_guesses SEMI JOIN sweep_hot USING (source, session, service) GROUP BY ALL""",
    "sweep_alone": """
SELECT source, session FROM sweep_spans ANTI JOIN (
    SELECT sweep.source, sweep.session FROM sweep_spans AS sweep JOIN vertical_scan AS scan
        ON scan.subject = sweep.source AND scan.first <= sweep.last AND sweep.first <= scan.last
) USING (source, session)""",
    "horizontal_sweep_marks": """
SELECT id, session FROM sweep_guesses SEMI JOIN sweep_hot USING (source, session, service)
SEMI JOIN sweep_alone USING (source, session)""",
    "horizontal_sweep": _summary("horizontal_sweep"),
    "quiet": """
SELECT * FROM hits ANTI JOIN vertical_scan_marks USING (id)
ANTI JOIN (SELECT id FROM sweep_rows SEMI JOIN sweep_hot USING (source, session, service)) USING (id)""",
}

_SPOOFED = {
    "spoofed_source_marks": _sessions(
        """SELECT id, CASE WHEN by_interface THEN source ELSE in_interface END AS liar, first, last
FROM {spoofed_source} AS hit WHERE conflict AND NOT EXISTS (
    SELECT 1 FROM interface_intervals AS held WHERE held.interface = hit.in_interface
        AND held.valid_from <= hit.first AND hit.first < held.valid_until
        AND list_contains(held.addresses, hit.source_ip))""",
        "liar",
        "$spoofed_source_cooldown",
    ).replace("* EXCLUDE opens,", "id, liar,"),
    "spoofed_source": f"""
{_summary("spoofed_source", "liar", "liar")} HAVING sum(packets) >= $spoofed_source_packets""",
}

_BEACONING = {
    "beacon_pairs": """
SELECT source_ip, destination_ip, service FROM {quiet_beaconing}
WHERE inside AND NOT to_inside AND NOT to_all AND port IS NOT NULL AND NOT list_contains($beaconing_ignore_ports, port)
GROUP BY ALL HAVING sum(attempts) >= $beaconing_attempts AND max(last) - min(first) >= $beaconing_span""",
    "calls": """
SELECT source_ip, destination_ip, service, min(time) AS call
FROM asked SEMI JOIN beacon_pairs USING (source_ip, destination_ip, service)
GROUP BY source_ip, destination_ip, service, flow, number""",
    "pauses": """
SELECT *, (epoch_us(call) - epoch_us(lag(call) OVER one)) / 1e6 AS pause
FROM calls WINDOW one AS (PARTITION BY source_ip, destination_ip, service ORDER BY call)""",
    "runs": """
SELECT *, count(*) FILTER (pause > epoch_us($beaconing_cooldown::INTERVAL) / 1e6) OVER (
    PARTITION BY source_ip, destination_ip, service ORDER BY call ROWS UNBOUNDED PRECEDING) AS run
FROM pauses""",
    "beacons": """
SELECT source_ip, destination_ip, service, median(pause) AS every, min(call) AS began, max(call) AS ended FROM runs
WHERE pause BETWEEN epoch_us($beaconing_shortest::INTERVAL) / 1e6 AND epoch_us($beaconing_cooldown::INTERVAL) / 1e6
GROUP BY source_ip, destination_ip, service, run
HAVING count(*) + 1 >= $beaconing_attempts AND sum(pause) >= epoch_us($beaconing_span::INTERVAL) / 1e6
    AND 1 - (quantile_cont(pause, 0.9) - quantile_cont(pause, 0.1)) / 2 / median(pause) >= $beaconing_regularity""",
    # The first call of a run has no pause before it.
    "beacon_rows": """
SELECT quiet.*, every FROM quiet JOIN beacons USING (source_ip, destination_ip, service)
WHERE first <= ended AND last >= began - every * INTERVAL 2 seconds""",
    "beaconing_marks": _sessions(
        "SELECT id, source, destination_ip, service, first, last, every FROM beacon_rows",
        "source, destination_ip, service",
        "$beaconing_cooldown",
    ).replace("* EXCLUDE opens,", "id, every,"),
    "beaconing": _summary(
        "beaconing",
        "source, destination_ip, service",
        about=f"any_value(destination_ip) || ' ' || {_SERVICE}",
        measure="median(every)",
    ),
}

_CLIENTS = {
    "client_pairs": """
SELECT source, service FROM {quiet_misconfigured_client} WHERE inside AND port IS NOT NULL
GROUP BY ALL HAVING sum(attempts) >= $misconfigured_client_attempts
    AND count(DISTINCT slot) >= $misconfigured_client_slots""",
    "client_hits": """
SELECT id, source, service, slot, first, last, attempts FROM {quiet_misconfigured_client}
SEMI JOIN client_pairs USING (source, service) ANTI JOIN (SELECT id FROM beacon_rows) USING (id)""",
    "client_slots": _sessions(
        "SELECT source, service, slot, min(first) AS first, max(last) AS last, sum(attempts) AS attempts "
        "FROM client_hits GROUP BY source, service, slot",
        "source, service",
        "$misconfigured_client_cooldown",
    ),
    "client_counts": """
SELECT source, service, session, sum(attempts) OVER recent AS attempts, count(*) OVER recent AS slots FROM client_slots
WINDOW recent AS (PARTITION BY source, service, session ORDER BY slot
    RANGE BETWEEN $misconfigured_client_window PRECEDING AND CURRENT ROW)""",
    "client_hot": """
SELECT DISTINCT source, service, session FROM client_counts
WHERE attempts >= $misconfigured_client_attempts AND slots >= $misconfigured_client_slots""",
    "client_spans": """
SELECT source, service, session, min(slot) AS began, max(slot) AS ended, min(first) AS first
FROM client_slots SEMI JOIN client_hot USING (source, service, session) GROUP BY ALL""",
    "misconfigured_client_marks": """
SELECT id, session FROM client_hits JOIN client_spans USING (source, service) WHERE slot BETWEEN began AND ended""",
    "misconfigured_client": _summary("misconfigured_client", "source, service", about=_SERVICE),
}

_OFFENDERS = {
    "offender_sources": """
SELECT source FROM {quiet_repeated_offender} WHERE NOT inside GROUP BY ALL
HAVING sum(attempts) >= $repeated_offender_attempts""",
    "offender_slots": _sessions(
        "SELECT source, slot, min(first) AS first, max(last) AS last, sum(attempts) AS attempts "
        "FROM {quiet_repeated_offender} SEMI JOIN offender_sources USING (source) WHERE NOT inside "
        "GROUP BY source, slot",
        "source",
        "$repeated_offender_cooldown",
    ),
    "offender_calls": """
SELECT source_ip AS source, number, min(time) AS call FROM asked
WHERE source_ip IN (SELECT source FROM offender_sources) GROUP BY source_ip, destination_ip, service, flow, number""",
    "offender_bursts": """
SELECT DISTINCT source, to_timestamp(number * 300) AS slot FROM offender_calls
QUALIFY count(*) OVER (PARTITION BY source ORDER BY call
    RANGE BETWEEN $repeated_offender_burst PRECEDING AND CURRENT ROW) >= $repeated_offender_attempts""",
    "offender_counts": """
SELECT source, session, slot, sum(attempts) OVER recent AS attempts, count(*) OVER recent AS slots
FROM offender_slots WINDOW recent AS (PARTITION BY source, session ORDER BY slot
    RANGE BETWEEN $repeated_offender_window PRECEDING AND CURRENT ROW)""",
    "offender_hot": """
SELECT DISTINCT source, session FROM offender_counts LEFT JOIN offender_bursts USING (source, slot)
WHERE offender_bursts.source IS NOT NULL
    OR (attempts >= $repeated_offender_attempts AND slots >= $repeated_offender_slots)""",
    "offender_spans": """
SELECT source, session, min(slot) AS began, max(slot) AS ended
FROM offender_slots SEMI JOIN offender_hot USING (source, session) GROUP BY ALL""",
    "repeated_offender_marks": """
SELECT id, session FROM {quiet_repeated_offender} AS quiet JOIN offender_spans USING (source)
WHERE NOT inside AND slot BETWEEN began AND ended""",
    "repeated_offender": _summary("repeated_offender"),
}

# A client that was there a day before is part of the baseline; one that began since is a finding of its own.
_SPIKES = {
    "unexplained": """
SELECT id, place, slot, quiet.first, quiet.last, attempts, time_bucket(INTERVAL 15 minutes, slot) AS quarter
FROM {quiet_spike} AS quiet LEFT JOIN client_spans AS client ON client.source = quiet.source
    AND client.service = quiet.service AND slot BETWEEN client.began AND client.ended
    AND client.first > slot - INTERVAL 1 day
WHERE client.source IS NULL AND place IS NOT NULL
    AND id NOT IN (SELECT id FROM repeated_offender_marks) AND id NOT IN (SELECT id FROM beacon_rows)""",
    "quarters": "SELECT place, quarter, sum(attempts) AS attempts FROM unexplained GROUP BY ALL",
    "spikes": """
SELECT high.place, high.quarter, any_value(high.attempts) / nullif(max(earlier.attempts), 0) AS factor
FROM quarters AS high LEFT JOIN quarters AS earlier ON earlier.place = high.place AND earlier.quarter < high.quarter
    AND earlier.quarter >= high.quarter - $spike_history
    AND (epoch_us(high.quarter) - epoch_us(earlier.quarter)) % 86_400_000_000 = 0
WHERE high.attempts >= $spike_attempts
    AND (SELECT min(first) FROM hits) <= high.quarter - $spike_days * INTERVAL 1 day
GROUP BY high.place, high.quarter
HAVING any_value(high.attempts) >= $spike_factor * coalesce(max(earlier.attempts), 0)""",
    "spike_marks": _sessions(
        "SELECT id, place, first, last, factor FROM unexplained JOIN spikes USING (place, quarter)",
        "place",
        "$spike_cooldown",
    ).replace("* EXCLUDE opens,", "id, factor,"),
    "spike": _summary("spike", "place", "place", measure="max(factor)"),
}

_FIRST_SEEN = {
    "pairs": """
SELECT source, destination, service, min(first) AS began, min(min(first)) OVER (PARTITION BY source) AS source_began
FROM {quiet_first_seen} WHERE known AND NOT to_nobody AND port IS NOT NULL GROUP BY source, destination, service""",
    "new_pairs": """
SELECT source, destination, service FROM pairs ANTI JOIN client_spans USING (source, service)
WHERE began >= source_began + $first_seen_history""",
    "first_seen_marks": _sessions(
        "SELECT id, source, first, last FROM quiet SEMI JOIN new_pairs USING (source, destination, service) "
        "WHERE id NOT IN (SELECT id FROM beacon_rows)",
        "source",
        "$first_seen_cooldown",
    ).replace("* EXCLUDE opens,", "id,"),
    "first_seen": _summary("first_seen"),
}

_PARTS: dict[str, str] = {
    **_VERTICAL, **_HORIZONTAL, **_SPOOFED, **_BEACONING, **_CLIENTS, **_OFFENDERS, **_SPIKES, **_FIRST_SEEN,
}  # fmt: skip
# Cheaper to compute again than to keep: few of their columns are asked for each time.
_KEPT = dict.fromkeys(("asked", "quiet"), "NOT MATERIALIZED")
_EVER = datetime.min.replace(tzinfo=UTC)


def query(where: Where, settings: Settings, since: datetime | None, until: datetime | None) -> Where:
    """The query that finds all findings whose packets lie at least partly between `since` and `until`."""
    context = Context(since or _EVER, UTC, dict(where.parameters))
    base = {
        # Filters may ask for what only `denied` has; without any the packets are counted before they are attributed.
        "packets": "packets WHERE" if where.sql == "true" else f"denied WHERE ({where.sql}) AND",
        "time": " AND ".join(_times(since, until, context)) or "true",
        "muted": muted(settings, None, context),
    }
    sources = {
        name: _unmuted(table, muted(settings, rule, context))
        for rule in settings.values
        for name, table in ((rule, "hits"), (f"quiet_{rule}", "quiet"))
    }
    parts = {name: sql.format_map(base | sources) for name, sql in (_BASE | _PARTS).items()}
    found = " UNION ALL ".join(f"FROM {rule}" for rule in settings.values)
    recent = f"WHERE last >= {context.bind(since)}" if since else ""
    text = "WITH " + ",\n".join(f"{name} AS {_KEPT.get(name, '')} ({sql})" for name, sql in parts.items())
    text += f"\nSELECT * FROM ({found}) {recent} ORDER BY first, rule, subject, about"
    return Where(text, _used(text, {**context.parameters, **_flat(settings.values)}))


def _times(since: datetime | None, until: datetime | None, context: Context) -> list[str]:
    conditions = [f"time >= {context.bind(since - LOOKBACK)}"] if since else []
    return conditions + ([f"time < {context.bind(until)}"] if until else [])


def _unmuted(table: str, condition: str) -> str:
    return table if condition == "false" else f"(SELECT * FROM {table} WHERE NOT coalesce({condition}, false))"


def _flat(values: Mapping[str, Mapping[str, object]]) -> dict[str, object]:
    return {
        f"{rule}_{name}": list(value) if isinstance(value, tuple) else value
        for rule, table in values.items()
        for name, value in table.items()
    }


def _used(text: str, parameters: Mapping[str, object]) -> dict[str, object]:
    """DuckDB refuses values that the statement does not name."""
    named = set(re.findall(r"\$(\w+)", text))
    return {name: value for name, value in parameters.items() if name in named}
