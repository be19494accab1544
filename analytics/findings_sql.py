"""The rules in SQL: one query that finds all of them, in few passes over the packets and without a row in Python.

Rule: what one rule explains, a later one does not count again: a scanner's tries belong to the scan, regular calls to
the beacon, and a client that is just misconfigured makes no spike. Replies are nobody's attempt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from analytics.filters import FILTERS, Context, Where
from analytics.findings_rules import LOOKBACK, Mute, Settings

# Classes of addresses that are a cluster's, or its owner's.
_INSIDE = (
    "pod", "unknown pod", "node", "service", "host endpoint", "host-network pod", "private", "unique-local", "shared",
    "link-local", "loopback",
)  # fmt: skip
_INSIDE_SQL = f"({', '.join(map(repr, _INSIDE))})"

# An answer, or what is left of a connection that the node has forgotten: an attempt has a SYN without an ACK, or comes
# from a port of the range that systems give to clients (Linux: 32768 on), or goes to a port below it. ICMP asks with
# types 8, 13 and 17 (RFC 792, RFC 950), ICMPv6 with 128 (RFC 4443); any other type answers or reports.
_REPLY = """
CASE WHEN protocol IN ('icmp', 'icmpv6') THEN icmp_type NOT IN (8, 13, 17, 128)
    WHEN list_has_all(tcp_flags, ['SYN', 'ACK']) OR list_contains(tcp_flags, 'RST') THEN true
    WHEN list_contains(tcp_flags, 'SYN') THEN false
    ELSE source_port < 32768 AND destination_port >= 32768 END
""".strip()

_RAW = f"""
SELECT time, time_bucket(INTERVAL 5 minutes, time) AS slot, node, packet_count, source_ip, destination_ip, protocol,
    destination_port AS port, in_interface,
    hash(protocol, destination_port) AS service,
    hash(source_ip, source_port, destination_ip, destination_port, protocol, icmp_id, icmp_seq) AS flow,
    coalesce(source_namespace || '/' || source_workload, source_ip) AS source, source_namespace,
    coalesce(destination_namespace || '/' || destination_workload, destination_ip) AS destination,
    source_workload IS NOT NULL AS known, source_class IN ('pod', 'unknown pod') AS pod,
    coalesce(source_class IN {_INSIDE_SQL}, false) AS inside,
    coalesce(destination_class IN {_INSIDE_SQL}, false) AS to_inside,
    destination_workload IS NULL AND destination_class = 'unknown pod' AS to_nobody,
    coalesce(namespace, destination_namespace, source_namespace, node) AS place,
    attribution_conflict AS conflict, source_by = 'interface' AS by_interface
FROM denied
WHERE {{where}} AND source_ip IS NOT NULL AND destination_ip IS NOT NULL AND NOT coalesce({_REPLY}, false)
"""

# A system sends a SYN (or a question to a name server) again from the same port: all lines of one flow within five
# minutes are one attempt, and so are those on both sides of the edge of a slot. Linux waits at most 32 s between two
# SYNs (net.ipv4.tcp_syn_retries 6: after 1, 3, 7, 15, 31 and 63 s); a minute leaves room.
_HITS = """
SELECT * EXCLUDE (opening, closing, attempts), attempts - CASE WHEN lag(slot) OVER slots = slot - INTERVAL 5 minutes
    THEN coalesce(len(list_intersect(opening, lag(closing) OVER slots)), 0) ELSE 0 END AS attempts
FROM (
    SELECT slot, source, source_ip, destination, destination_ip, service, conflict, any_value(protocol) AS protocol,
        any_value(port) AS port, any_value(in_interface) AS in_interface,
        any_value(source_namespace) AS source_namespace, any_value(known) AS known, any_value(pod) AS pod,
        any_value(inside) AS inside, any_value(to_inside) AS to_inside, any_value(to_nobody) AS to_nobody,
        any_value(place) AS place, any_value(by_interface) AS by_interface, any_value(node) AS node,
        min(time) AS first, max(time) AS last, sum(packet_count)::BIGINT AS packets, count(DISTINCT flow) AS attempts,
        list(flow) FILTER (time < slot + INTERVAL 1 minute) AS opening,
        list(flow) FILTER (time >= slot + INTERVAL 4 minutes) AS closing
    FROM raw GROUP BY slot, source, source_ip, destination, destination_ip, service, conflict
) WINDOW slots AS (PARTITION BY source, source_ip, destination, destination_ip, service, conflict ORDER BY slot)
"""


def _sessions(rows: str, key: str, pause: str) -> str:
    """The rows with the number of their session: rows of one key with pauses of at most `pause` between them."""
    return f"""
SELECT * EXCLUDE opens, sum(opens) OVER (PARTITION BY {key} ORDER BY first, last ROWS UNBOUNDED PRECEDING) AS session
FROM (SELECT *, CASE WHEN first - max(last) OVER (PARTITION BY {key} ORDER BY first, last
    ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) <= {pause} THEN 0 ELSE 1 END AS opens FROM ({rows}))
"""


# What every finding has; `identity` is what it is about beside its subject.
def _summary(rule: str, subject: str = "source", identity: str = "''", measure: str = "NULL", keys: str = "") -> str:
    return f"""
SELECT '{rule}' AS rule, {subject} AS subject, {identity} AS identity, min(first) AS first, max(last) AS last,
    sum(packets)::BIGINT AS packets, sum(attempts)::BIGINT AS attempts, bool_or(known) AS known,
    bool_or(inside) AS inside, list(DISTINCT source_ip ORDER BY source_ip) AS sources,
    list(DISTINCT destination ORDER BY destination) AS targets,
    list(DISTINCT destination_ip ORDER BY destination_ip) AS target_ips,
    list(DISTINCT port ORDER BY port) FILTER (port IS NOT NULL) AS ports,
    list(DISTINCT protocol ORDER BY protocol) AS protocols, list(DISTINCT node ORDER BY node) AS nodes,
    ({measure})::DOUBLE AS measure"""


_SERVICE = "any_value(protocol) || '/' || any_value(port)"

_VERTICAL = {
    "vertical_rows": _sessions(
        """SELECT * FROM {vertical_scan} SEMI JOIN (
    SELECT source, destination FROM {vertical_scan} WHERE port IS NOT NULL GROUP BY ALL
    HAVING count(DISTINCT service) >= least($vertical_scan_ports, $vertical_scan_slow_ports, $vertical_scan_pod_ports)
) USING (source, destination) WHERE port IS NOT NULL""",
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
    OR max(slow) >= CASE WHEN bool_or(pod) THEN $vertical_scan_pod_ports ELSE $vertical_scan_slow_ports END""",
    "vertical_scan": f"""
{_summary("vertical_scan")}, session FROM vertical_rows SEMI JOIN vertical_hot USING (source, session, destination)
GROUP BY source, session""",
}

# A host that is tried again and again is a peer of a misconfigured client. Services of the world's clouds have hundreds
# of addresses behind ports 80 and 443: slow counts leave them out.
_HORIZONTAL = {
    "horizontal_rows": _sessions(
        """SELECT * FROM {horizontal_sweep} SEMI JOIN (
    SELECT source, service FROM {horizontal_sweep} GROUP BY ALL HAVING count(DISTINCT destination_ip)
        >= least($horizontal_sweep_hosts, $horizontal_sweep_slow_hosts, $horizontal_sweep_pod_hosts)
) USING (source, service)""",
        "source",
        "$horizontal_sweep_cooldown",
    ),
    "horizontal_guesses": """
SELECT * FROM horizontal_rows
QUALIFY sum(attempts) OVER (PARTITION BY source, session, service, destination_ip) <= $horizontal_sweep_tries""",
    "horizontal_counts": """
SELECT source, session, service,
    count(DISTINCT destination_ip) OVER (PARTITION BY source, session, service ORDER BY first
        RANGE BETWEEN $horizontal_sweep_window PRECEDING AND CURRENT ROW) AS fast,
    count(DISTINCT CASE WHEN to_inside OR port NOT IN (80, 443) OR port IS NULL THEN destination_ip END) OVER (
        PARTITION BY source, session, service ORDER BY first
        RANGE BETWEEN $horizontal_sweep_slow_window PRECEDING AND CURRENT ROW) AS slow,
    count(DISTINCT CASE WHEN pod AND to_inside THEN destination_ip END) OVER (
        PARTITION BY source, session, service ORDER BY first
        RANGE BETWEEN $horizontal_sweep_slow_window PRECEDING AND CURRENT ROW) AS pod_slow
FROM horizontal_guesses""",
    "horizontal_hot": """
SELECT source, session, service FROM horizontal_counts GROUP BY ALL
HAVING max(fast) >= $horizontal_sweep_hosts OR max(slow) >= $horizontal_sweep_slow_hosts
    OR max(pod_slow) >= $horizontal_sweep_pod_hosts""",
    "horizontal_all": f"""
{_summary("horizontal_sweep")}, session
FROM horizontal_guesses SEMI JOIN horizontal_hot USING (source, session, service) GROUP BY source, session""",
    # One run of a scanner over many hosts is one finding: the scan.
    "horizontal_sweep": """
SELECT * FROM horizontal_all AS sweep WHERE NOT EXISTS (SELECT 1 FROM vertical_scan AS scan
    WHERE scan.subject = sweep.subject AND scan.first <= sweep.last AND sweep.first <= scan.last)""",
    "quiet": """
SELECT * FROM hits WHERE NOT EXISTS (
    SELECT 1 FROM vertical_hot AS hot JOIN vertical_scan AS scan ON hot.source = scan.subject
        AND hot.session = scan.session
    WHERE hot.source = hits.source AND hot.destination = hits.destination AND hits.first <= scan.last
        AND hits.last >= scan.first
) AND NOT EXISTS (
    SELECT 1 FROM horizontal_hot AS hot JOIN horizontal_all AS sweep ON hot.source = sweep.subject
        AND hot.session = sweep.session
    WHERE hot.source = hits.source AND hot.service = hits.service AND hits.first <= sweep.last
        AND hits.last >= sweep.first
)""",
}

_SPOOFED = {
    "spoofed_rows": _sessions(
        """SELECT *, CASE WHEN by_interface THEN source ELSE in_interface END AS liar FROM {spoofed_source} AS hit
WHERE conflict AND in_interface IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM interface_intervals AS held WHERE held.interface = hit.in_interface
        AND held.valid_from <= hit.first AND hit.first < held.valid_until
        AND list_contains(held.addresses, hit.source_ip))""",
        "liar",
        "$spoofed_source_cooldown",
    ),
    "spoofed_source": f"""
{_summary("spoofed_source", "liar")} FROM spoofed_rows GROUP BY liar, session
HAVING sum(packets) >= $spoofed_source_packets""",
}

_BEACONING = {
    "beacon_pairs": """
SELECT source_ip, destination_ip, service FROM {quiet_beaconing}
WHERE inside AND NOT to_inside AND port IS NOT NULL AND NOT list_contains($beaconing_ignore_ports, port)
GROUP BY ALL HAVING sum(attempts) >= $beaconing_attempts AND max(last) - min(first) >= $beaconing_span""",
    "calls": """
SELECT source, source_ip, destination_ip, service, min(time) AS call
FROM raw SEMI JOIN beacon_pairs USING (source_ip, destination_ip, service)
GROUP BY source, source_ip, destination_ip, service, flow, slot""",
    "pauses": """
SELECT *, epoch_us(call - lag(call) OVER (PARTITION BY source, source_ip, destination_ip, service ORDER BY call)) / 1e6
    AS pause
FROM calls""",
    "beacons": """
SELECT source, source_ip, destination_ip, service, median(pause) AS every FROM pauses
WHERE pause >= epoch_us($beaconing_shortest::INTERVAL) / 1e6 GROUP BY source, source_ip, destination_ip, service
HAVING count(*) + 1 >= $beaconing_attempts AND sum(pause) >= epoch_us($beaconing_span::INTERVAL) / 1e6
    AND 1 - mad(pause) / median(pause) >= $beaconing_regularity""",
    "beacon_rows": _sessions(
        "SELECT quiet.*, every FROM quiet JOIN beacons USING (source, source_ip, destination_ip, service)",
        "source, destination_ip, service",
        "$beaconing_cooldown",
    ),
    "beaconing": f"""
{_summary("beaconing", identity=f"destination_ip || ' ' || {_SERVICE}", measure="median(every)")}
FROM beacon_rows GROUP BY source, destination_ip, service, session""",
}

_CLIENTS = {
    "client_rows": _sessions(
        """SELECT * FROM {quiet_misconfigured_client} AS quiet
ANTI JOIN beacons USING (source, source_ip, destination_ip, service) WHERE inside AND port IS NOT NULL""",
        "source, service",
        "$misconfigured_client_cooldown",
    ),
    "client_slots": """
SELECT source, service, session, slot, sum(attempts) AS attempts FROM client_rows GROUP BY ALL""",
    "client_counts": """
SELECT source, service, session, sum(attempts) OVER recent AS attempts, count(*) OVER recent AS slots FROM client_slots
WINDOW recent AS (PARTITION BY source, service, session ORDER BY slot
    RANGE BETWEEN $misconfigured_client_window PRECEDING AND CURRENT ROW)""",
    "client_hot": """
SELECT DISTINCT source, service, session FROM client_counts
WHERE attempts >= $misconfigured_client_attempts AND slots >= $misconfigured_client_slots""",
    "misconfigured_client": f"""
{_summary("misconfigured_client", identity=_SERVICE)}, source, service
FROM client_rows SEMI JOIN client_hot USING (source, service, session) GROUP BY source, service, session""",
}

_OFFENDERS = {
    "offender_rows": _sessions(
        "SELECT * FROM {quiet_repeated_offender} WHERE NOT inside", "source", "$repeated_offender_cooldown"
    ),
    "offender_slots": """
SELECT source, session, slot, min(first) AS first, max(last) AS last, sum(attempts) AS attempts
FROM offender_rows GROUP BY source, session, slot""",
    # A slot is no shorter than a burst: more attempts over a longer time may be as dense.
    "offender_counts": """
SELECT source, session, attempts >= $repeated_offender_attempts * greatest(1,
        epoch_us(last - first) / epoch_us($repeated_offender_burst::INTERVAL)) AS bursts,
    sum(attempts) OVER recent AS attempts, count(*) OVER recent AS slots
FROM offender_slots WINDOW recent AS (PARTITION BY source, session ORDER BY slot
    RANGE BETWEEN $repeated_offender_window PRECEDING AND CURRENT ROW)""",
    "offender_hot": """
SELECT DISTINCT source, session FROM offender_counts
WHERE bursts OR (attempts >= $repeated_offender_attempts AND slots >= $repeated_offender_slots)""",
    "repeated_offender": f"""
{_summary("repeated_offender")} FROM offender_rows SEMI JOIN offender_hot USING (source, session)
GROUP BY source, session""",
}

# A client that was there a day before is part of the baseline; one that began since is a finding of its own.
_SPIKES = {
    "unexplained": """
SELECT * FROM {quiet_spike} AS quiet WHERE NOT EXISTS (
    SELECT 1 FROM misconfigured_client AS client WHERE client.source = quiet.source AND client.service = quiet.service
        AND quiet.first BETWEEN client.first AND client.last AND client.first > quiet.first - INTERVAL 1 day
) AND NOT EXISTS (
    SELECT 1 FROM repeated_offender AS offender WHERE offender.subject = quiet.source
        AND quiet.first BETWEEN offender.first AND offender.last
) AND NOT EXISTS (
    SELECT 1 FROM beacons WHERE beacons.source_ip = quiet.source_ip AND beacons.destination_ip = quiet.destination_ip
        AND beacons.service = quiet.service)""",
    "quarters": """
SELECT place, time_bucket(INTERVAL 15 minutes, slot) AS quarter, sum(attempts) AS attempts
FROM unexplained WHERE place IS NOT NULL GROUP BY ALL""",
    "spikes": """
SELECT high.place, high.quarter, any_value(high.attempts) / nullif(max(earlier.attempts), 0) AS factor
FROM quarters AS high LEFT JOIN quarters AS earlier ON earlier.place = high.place AND earlier.quarter < high.quarter
    AND earlier.quarter >= high.quarter - $spike_history
    AND epoch_us(high.quarter - earlier.quarter) % 86_400_000_000 = 0
WHERE high.attempts >= $spike_attempts
    AND (SELECT min(first) FROM hits) <= high.quarter - $spike_days * INTERVAL 1 day
GROUP BY high.place, high.quarter
HAVING any_value(high.attempts) >= $spike_factor * coalesce(max(earlier.attempts), 0)""",
    "spike_rows": _sessions(
        "SELECT unexplained.*, factor FROM unexplained JOIN spikes "
        "ON unexplained.place = spikes.place AND time_bucket(INTERVAL 15 minutes, slot) = quarter",
        "place",
        "$spike_cooldown",
    ),
    "spike": f"""
{_summary("spike", "place", measure="max(factor)")} FROM spike_rows GROUP BY place, session""",
}

_FIRST_SEEN = {
    "pairs": """
SELECT source, destination, service, min(first) AS began, min(min(first)) OVER (PARTITION BY source) AS source_began
FROM {quiet_first_seen} WHERE known AND NOT to_nobody AND port IS NOT NULL GROUP BY source, destination, service""",
    "new_pairs": """
SELECT source, destination, service FROM pairs WHERE began >= source_began + $first_seen_history
    AND NOT EXISTS (SELECT 1 FROM misconfigured_client AS client
        WHERE client.source = pairs.source AND client.service = pairs.service)""",
    "new_rows": _sessions(
        "SELECT quiet.* FROM quiet SEMI JOIN new_pairs USING (source, destination, service) "
        "ANTI JOIN beacons USING (source, source_ip, destination_ip, service)",
        "source",
        "$first_seen_cooldown",
    ),
    "first_seen": f"""
{_summary("first_seen")} FROM new_rows GROUP BY source, session""",
}

_PARTS: dict[str, str] = {
    **_VERTICAL, **_HORIZONTAL, **_SPOOFED, **_BEACONING, **_CLIENTS, **_OFFENDERS, **_SPIKES, **_FIRST_SEEN,
}  # fmt: skip
_EVER = datetime.min.replace(tzinfo=UTC)
_COLUMNS = (
    "rule, subject, identity, first, last, packets, attempts, known, inside, sources, targets, target_ips, ports, "
    "protocols, nodes, measure"
)


def query(where: Where, settings: Settings, since: datetime | None, until: datetime | None) -> Where:
    """The query that finds all findings whose packets lie at least partly between `since` and `until`."""
    context = Context(since or _EVER, UTC, dict(where.parameters))
    conditions = [f"({where.sql})", "time IS NOT NULL", f"NOT coalesce({_muted(settings, None, context)}, false)"]
    if since:
        conditions.append(f"time >= {context.bind(since - LOOKBACK)}")
    if until:
        conditions.append(f"time < {context.bind(until)}")
    sources = {
        name: _unmuted(table, _muted(settings, rule, context))
        for rule in settings.values
        for name, table in ((rule, "hits"), (f"quiet_{rule}", "quiet"))
    }
    parts = {name: sql.format_map(sources) for name, sql in _PARTS.items()}
    found = " UNION ALL ".join(f"SELECT {_COLUMNS} FROM {rule}" for rule in settings.values)
    text = ",\n".join(
        [
            f"WITH raw AS ({_RAW.format(where=' AND '.join(conditions))})",
            f"hits AS MATERIALIZED ({_HITS})",
            *(f"{name} AS ({sql})" for name, sql in parts.items()),
        ]
    )
    recent = f"WHERE last >= {context.bind(since)}" if since else ""
    text += f"\nSELECT * FROM ({found}) {recent} ORDER BY first, rule, subject, identity"
    return Where(text, _used(text, {**context.parameters, **_flat(settings.values)}))


def _unmuted(table: str, muted: str) -> str:
    return table if muted == "false" else f"(SELECT * FROM {table} WHERE NOT coalesce({muted}, false))"


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


def _muted(settings: Settings, rule: str | None, context: Context) -> str:
    """The condition under which a source is muted for `rule` (None: for every rule)."""
    return " OR ".join(_silenced(mute, context) for mute in settings.mutes if mute.rule == rule) or "false"


_FROM_IP = next(entry.condition for entry in FILTERS if entry.flag == "from-ip")


def _silenced(mute: Mute, context: Context) -> str:
    if mute.kind == "network":
        return f"({_FROM_IP(mute.value, context)})"
    if mute.kind == "namespace":
        return f"source_namespace = {context.bind(mute.value)}"
    return f"source = {context.bind(mute.value)}"
