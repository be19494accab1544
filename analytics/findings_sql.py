"""The rules in SQL: steps that are taken one after the other, each a table of numbers that the next ones read.

Rule: what one rule explains, a later one does not count again: a scanner's tries belong to the scan, regular calls to
the beacon, and a client that is just misconfigured makes no spike. Replies are nobody's attempt. A step that counts
different things groups twice, which spills, and a window is laid only over what grouping could not decide.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import timedelta

from analytics.findings_facts import SLOT_US, seen
from analytics.findings_rules import Settings
from analytics.intervals import reached

_DAY_US = 86_400_000_000


def _sessions(rows: str, key: str, pause: str) -> str:
    """The sessions of rows: those of one key with pauses of at most `pause` between them. A session has a number, and
    its rows have their `first` from `began` to `ended`. Rows within one `pause` are never apart."""
    return f"""
SELECT {key}, session, min(first) AS began, max(newest) AS ended FROM (
    SELECT *, sum(opens) OVER (PARTITION BY {key} ORDER BY first ROWS UNBOUNDED PRECEDING) AS session
    FROM (SELECT *, CASE WHEN first - max(last) OVER (PARTITION BY {key} ORDER BY first
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) <= {pause} THEN 0 ELSE 1 END AS opens
        FROM (SELECT {key}, min(first) AS first, max(first) AS newest, max(last) AS last
            FROM {rows} GROUP BY {key}, first // {pause}))) GROUP BY {key}, session"""


def _marks(
    rule: str,
    rows: str,
    subject: str = "source",
    target: str = "NULL::INTEGER",
    service: str = "NULL::UBIGINT",
    measure: str = "NULL::DOUBLE",
    apart: str = "0::UBIGINT",
) -> str:
    """What a rule found, by ends and doors; `subject`, `target`, `service` and `session` make one finding. `measure` is
    kept for each of `apart`."""
    return f"""
SELECT '{rule}' AS rule, {subject} AS subject, {target} AS target, {service} AS service, session, source_end,
    destination_end, door, {apart} AS apart, min(first) AS first, max(last) AS last, sum(packets)::BIGINT AS packets,
    sum(attempts)::BIGINT AS attempts, max({measure}) AS measure
FROM {rows} GROUP BY ALL"""


# A stretch of `slow_window`, cut anywhere, holds no more than the window that holds most: where one holds enough, no
# window has to be laid.
_VERTICAL = {
    "vertical_pairs": """
SELECT source, destination
FROM (SELECT DISTINCT source, destination, service FROM {vertical_scan} WHERE port IS NOT NULL) GROUP BY ALL
HAVING count(*) >= least($vertical_scan_ports, $vertical_scan_slow_ports, $vertical_scan_pod_ports)""",
    "vertical_sessions": _sessions(
        "{vertical_scan} SEMI JOIN vertical_pairs USING (source, destination) WHERE port IS NOT NULL",
        "source",
        "$vertical_scan_cooldown",
    ),
    "vertical_days": """
SELECT source, session, destination, service, first // $vertical_scan_slow_window AS day, bool_or(from_pod) AS from_pod
FROM {vertical_scan} SEMI JOIN vertical_pairs USING (source, destination) JOIN vertical_sessions USING (source)
WHERE port IS NOT NULL AND first BETWEEN began AND ended GROUP BY ALL""",
    "vertical_totals": """
SELECT source, session, destination, count(*) AS ports,
    CASE WHEN bool_or(from_pod) THEN $vertical_scan_pod_ports ELSE $vertical_scan_slow_ports END AS enough
FROM (SELECT source, session, destination, service, bool_or(from_pod) AS from_pod FROM vertical_days GROUP BY ALL)
GROUP BY ALL HAVING ports >= least($vertical_scan_ports, enough)""",
    "vertical_sure": """
SELECT DISTINCT source, session, destination FROM (
    SELECT source, session, destination, day, count(*) AS ports FROM vertical_days GROUP BY ALL
) AS days JOIN vertical_totals AS totals USING (source, session, destination) WHERE days.ports >= enough""",
    "vertical_rows": """
SELECT source, session, destination, service, first, enough FROM {vertical_scan} JOIN vertical_sessions USING (source)
JOIN (FROM vertical_totals ANTI JOIN vertical_sure USING (source, session, destination))
    USING (source, session, destination)
WHERE port IS NOT NULL AND first BETWEEN began AND ended""",
    "vertical_counts": """
SELECT source, session, destination, enough, count(DISTINCT service) OVER (
        PARTITION BY source, session, destination ORDER BY first
        RANGE BETWEEN $vertical_scan_window PRECEDING AND CURRENT ROW) AS fast,
    count(DISTINCT service) OVER (PARTITION BY source, session, destination ORDER BY first
        RANGE BETWEEN $vertical_scan_slow_window PRECEDING AND CURRENT ROW) AS slow
FROM vertical_rows""",
    "vertical_hot": """
SELECT source, session, destination, began, ended FROM vertical_sessions JOIN (
    FROM vertical_sure UNION
    SELECT source, session, destination FROM vertical_counts WHERE fast >= $vertical_scan_ports OR slow >= enough
) USING (source, session)""",
    "vertical_scan_marks": _marks(
        "vertical_scan",
        "{vertical_scan} JOIN vertical_hot USING (source, destination) "
        "WHERE port IS NOT NULL AND first BETWEEN began AND ended",
    ),
    "vertical_spans": """
SELECT subject AS source, session, min(first) AS first, max(last) AS last FROM vertical_scan_marks GROUP BY ALL""",
}

# A host that is tried again and again is a peer of a misconfigured client. Services of the world's clouds have hundreds
# of addresses behind ports 80 and 443: slow counts leave them out. One run of a scanner over many hosts is one finding:
# the scan.
_HORIZONTAL = {
    "sweep_pairs": """
SELECT source, service FROM (SELECT DISTINCT source, service, destination_ip FROM {horizontal_sweep})
GROUP BY ALL HAVING count(*)
    >= least($horizontal_sweep_hosts, $horizontal_sweep_slow_hosts, $horizontal_sweep_pod_hosts)""",
    "sweep_sessions": _sessions(
        "{horizontal_sweep} SEMI JOIN sweep_pairs USING (source, service)", "source", "$horizontal_sweep_cooldown"
    ),
    "sweep_days": """
SELECT source, session, service, destination_ip, first // $horizontal_sweep_slow_window AS day,
    sum(attempts)::BIGINT AS attempts, min(first) AS first, max(last) AS last, bool_or(from_pod AND to_inside) AS near,
    bool_or(to_inside OR port NOT IN (80, 443) OR port IS NULL) AS plain
FROM {horizontal_sweep} SEMI JOIN sweep_pairs USING (source, service) JOIN sweep_sessions USING (source)
WHERE first BETWEEN began AND ended GROUP BY source, session, service, destination_ip, day""",
    "sweep_guesses": """
SELECT source, session, service, destination_ip, min(first) AS first, max(last) AS last, bool_or(near) AS near,
    bool_or(plain) AS plain
FROM sweep_days GROUP BY source, session, service, destination_ip HAVING sum(attempts) <= $horizontal_sweep_tries""",
    "sweep_totals": """
SELECT source, session, service FROM sweep_guesses GROUP BY ALL HAVING count(*) >= $horizontal_sweep_hosts
    OR count(*) FILTER (plain) >= $horizontal_sweep_slow_hosts OR count(*) FILTER (near) >= $horizontal_sweep_pod_hosts
""",
    "sweep_sure": """
SELECT DISTINCT source, session, service FROM (
    SELECT source, session, service FROM sweep_days SEMI JOIN sweep_totals USING (source, session, service)
    SEMI JOIN sweep_guesses USING (source, session, service, destination_ip) GROUP BY source, session, service, day
    HAVING count(*) FILTER (plain) >= $horizontal_sweep_slow_hosts
        OR count(*) FILTER (near) >= $horizontal_sweep_pod_hosts)""",
    "sweep_rows": """
SELECT source, session, service, destination_ip, port, from_pod, to_inside, hit.first
FROM {horizontal_sweep} AS hit JOIN sweep_sessions USING (source)
SEMI JOIN (FROM sweep_totals ANTI JOIN sweep_sure USING (source, session, service)) USING (source, session, service)
SEMI JOIN sweep_guesses USING (source, session, service, destination_ip)
WHERE hit.first BETWEEN began AND ended""",
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
FROM sweep_rows""",
    "sweep_hot": """
SELECT source, session, service, began, ended FROM sweep_sessions JOIN (
    FROM sweep_sure UNION SELECT source, session, service FROM sweep_counts
    WHERE fast >= $horizontal_sweep_hosts OR slow >= $horizontal_sweep_slow_hosts
        OR pod_slow >= $horizontal_sweep_pod_hosts
) USING (source, session)""",
    "sweep_spans": """
SELECT source, session, min(first) AS first, max(last) AS last
FROM sweep_guesses SEMI JOIN sweep_hot USING (source, session, service) GROUP BY ALL""",
    "sweep_alone": """
SELECT source, session FROM sweep_spans ANTI JOIN (
    SELECT sweep.source, sweep.session FROM sweep_spans AS sweep JOIN vertical_spans AS scan
        ON scan.source = sweep.source AND scan.first <= sweep.last AND sweep.first <= scan.last
) USING (source, session)""",
    "sweep_found": """
SELECT source, session, service, destination_ip, began, ended FROM sweep_hot SEMI JOIN sweep_alone
USING (source, session) JOIN sweep_guesses USING (source, session, service)""",
    "horizontal_sweep_marks": _marks(
        "horizontal_sweep",
        "{horizontal_sweep} JOIN sweep_found USING (source, service, destination_ip) "
        "WHERE first BETWEEN began AND ended",
    ),
}

# The slots that neither a scan nor a sweep explains.
_QUIET = {
    "quiet_slots": """
SELECT source_end, destination_end, door, number, (hit.first - slot)::INTEGER AS first,
    (hit.last - slot)::INTEGER AS last, packets, attempts
FROM {hits} AS hit
ANTI JOIN vertical_hot AS scan ON scan.source = hit.source AND hit.first BETWEEN scan.began AND scan.ended
    AND scan.destination = CASE WHEN port IS NOT NULL AND NOT muted_vertical_scan THEN hit.destination END
ANTI JOIN sweep_hot AS sweep ON sweep.source = hit.source AND hit.first BETWEEN sweep.began AND sweep.ended
    AND sweep.service = CASE WHEN NOT muted_horizontal_sweep THEN hit.service END""",
}

_SPOOFED = {
    "lies": "SELECT *, CASE WHEN by_interface THEN source ELSE link END AS liar FROM {spoofed_source} WHERE conflict",
    "lie_sessions": _sessions("lies", "liar", "$spoofed_source_cooldown"),
    "lying": """
SELECT liar, session, any_value(began) AS began, any_value(ended) AS ended FROM lies JOIN lie_sessions USING (liar)
WHERE first BETWEEN began AND ended GROUP BY ALL HAVING sum(packets) >= $spoofed_source_packets""",
    "spoofed_source_marks": _marks(
        "spoofed_source", "lies JOIN lying USING (liar) WHERE first BETWEEN began AND ended", "liar"
    ),
}

_BEACONING = {
    "beacon_ends": """
SELECT source_ip, destination_ip, service FROM {quiet_beaconing}
WHERE inside AND NOT to_inside AND NOT to_all AND port IS NOT NULL AND NOT list_contains($beaconing_ignore_ports, port)
GROUP BY ALL HAVING sum(attempts) >= $beaconing_attempts AND max(last) - min(first) >= $beaconing_span""",
    "beacon_pairs": """
SELECT source_ip, destination_ip, service, hash(source.name, destination.name, service) AS pair
FROM beacon_ends JOIN names AS source ON source.id = source_ip JOIN names AS destination
    ON destination.id = destination_ip""",
    "beacon_calls": f"""
SELECT pair, min(epoch_us(time)) AS call FROM (
    SELECT hash(source_ip, destination_ip, hash(protocol, destination_port)) AS pair, time,
        hash(source_port, icmp_id, icmp_seq) AS flow
    FROM {{asked}}
) SEMI JOIN beacon_pairs USING (pair) GROUP BY pair, flow, epoch_us(time) // {SLOT_US}""",
    "beacon_pauses": """
SELECT *, (call - lag(call) OVER (PARTITION BY pair ORDER BY call)) / 1e6 AS pause FROM beacon_calls""",
    "beacon_runs": """
SELECT *, count(*) FILTER (pause > $beaconing_cooldown / 1e6) OVER (
    PARTITION BY pair ORDER BY call ROWS UNBOUNDED PRECEDING) AS run
FROM beacon_pauses""",
    "beacons": """
SELECT pair, median(pause) AS every, min(call) AS began, max(call) AS ended FROM beacon_runs
WHERE pause BETWEEN $beaconing_shortest / 1e6 AND $beaconing_cooldown / 1e6 GROUP BY pair, run
HAVING count(*) + 1 >= $beaconing_attempts AND sum(pause) >= $beaconing_span / 1e6
    AND 1 - (quantile_cont(pause, 0.9) - quantile_cont(pause, 0.1)) / 2 / median(pause) >= $beaconing_regularity""",
    # The first call of a run has no pause before it.
    "beacon_rows": """
SELECT quiet.*, every FROM {quiet} AS quiet JOIN beacon_pairs USING (source_ip, destination_ip, service)
JOIN beacons USING (pair) WHERE first <= ended AND last >= began - every * 2e6""",
    "beacon_sessions": _sessions("beacon_rows", "source, destination_ip, service", "$beaconing_cooldown"),
    "beaconing_marks": _marks(
        "beaconing",
        "beacon_rows JOIN beacon_sessions USING (source, destination_ip, service) WHERE first BETWEEN began AND ended",
        target="destination_ip",
        service="service",
        measure="every",
        apart="hash(id, every)",
    ),
}

_CLIENTS = {
    "client_pairs": """
SELECT source, service FROM (
    SELECT source, service, slot, sum(attempts) AS attempts FROM {quiet_misconfigured_client}
    WHERE inside AND port IS NOT NULL GROUP BY ALL)
GROUP BY ALL HAVING sum(attempts) >= $misconfigured_client_attempts AND count(*) >= $misconfigured_client_slots""",
    "client_slots": """
SELECT source, service, slot, min(first) AS first, max(last) AS last, sum(attempts) AS attempts
FROM {quiet_misconfigured_client} SEMI JOIN client_pairs USING (source, service)
ANTI JOIN beacon_rows USING (id) GROUP BY source, service, slot""",
    "client_sessions": _sessions("client_slots", "source, service", "$misconfigured_client_cooldown"),
    "client_counts": """
SELECT source, service, session, slot, first, sum(attempts) OVER recent AS attempts, count(*) OVER recent AS slots
FROM client_slots JOIN client_sessions USING (source, service) WHERE first BETWEEN began AND ended
WINDOW recent AS (PARTITION BY source, service, session ORDER BY slot
    RANGE BETWEEN $misconfigured_client_window PRECEDING AND CURRENT ROW)""",
    "client_spans": """
SELECT source, service, session, min(slot) AS began, max(slot) AS ended, min(first) AS first
FROM client_counts GROUP BY ALL HAVING bool_or(
    attempts >= $misconfigured_client_attempts AND slots >= $misconfigured_client_slots)""",
    "misconfigured_client_marks": _marks(
        "misconfigured_client",
        "(SELECT hit.*, session FROM {quiet_misconfigured_client} AS hit JOIN client_spans USING (source, service) "
        "ANTI JOIN beacon_rows USING (id) WHERE slot BETWEEN began AND ended)",
        service="service",
    ),
}

# Who makes so many attempts within a burst makes them within a stretch of its length, cut anywhere, and the one before.
_OFFENDERS = {
    "offender_sources": """
SELECT source, name FROM {quiet_repeated_offender} JOIN names ON names.id = source WHERE NOT inside
GROUP BY ALL HAVING sum(attempts) >= $repeated_offender_attempts""",
    "offender_slots": """
SELECT source, slot, min(first) AS first, max(last) AS last, sum(attempts) AS attempts
FROM {quiet_repeated_offender} SEMI JOIN offender_sources USING (source) WHERE NOT inside GROUP BY source, slot""",
    "offender_sessions": _sessions("offender_slots", "source", "$repeated_offender_cooldown"),
    "offender_calls": f"""
SELECT source, min(epoch_us(time)) AS call FROM (
    SELECT source_ip, hash(destination_ip, hash(protocol, destination_port)) AS aim,
        hash(source_port, icmp_id, icmp_seq) AS flow, time
    FROM {{asked}}
) JOIN offender_sources ON name = source_ip GROUP BY source, aim, flow, epoch_us(time) // {SLOT_US}""",
    "offender_stretches": """
SELECT source, stretch FROM (
    SELECT source, call // $repeated_offender_burst AS stretch, count(*) AS calls FROM offender_calls GROUP BY ALL)
QUALIFY calls + coalesce(sum(calls) OVER (PARTITION BY source ORDER BY stretch
    RANGE BETWEEN 1 PRECEDING AND 1 PRECEDING), 0) >= $repeated_offender_attempts""",
    "offender_bursts": f"""
SELECT DISTINCT source, call // {SLOT_US} * {SLOT_US} AS slot FROM (
    FROM offender_calls SEMI JOIN (
        FROM offender_stretches UNION SELECT source, stretch - 1 FROM offender_stretches
    ) AS near ON near.source = offender_calls.source AND stretch = call // $repeated_offender_burst)
QUALIFY count(*) OVER (PARTITION BY source ORDER BY call
    RANGE BETWEEN $repeated_offender_burst PRECEDING AND CURRENT ROW) >= $repeated_offender_attempts""",
    "offender_counts": """
SELECT source, session, slot, sum(attempts) OVER recent AS attempts, count(*) OVER recent AS slots
FROM offender_slots JOIN offender_sessions USING (source) WHERE first BETWEEN began AND ended
WINDOW recent AS (PARTITION BY source, session ORDER BY slot
    RANGE BETWEEN $repeated_offender_window PRECEDING AND CURRENT ROW)""",
    "offender_spans": """
SELECT source, session, min(slot) AS began, max(slot) AS ended
FROM offender_counts LEFT JOIN offender_bursts AS burst USING (source, slot)
GROUP BY ALL HAVING bool_or(burst.source IS NOT NULL
    OR (attempts >= $repeated_offender_attempts AND slots >= $repeated_offender_slots))""",
    "repeated_offender_marks": _marks(
        "repeated_offender",
        "{quiet_repeated_offender} JOIN offender_spans USING (source) "
        "WHERE NOT inside AND slot BETWEEN began AND ended",
    ),
}

# A client that was there a day before is part of the baseline; one that began since is a finding of its own.
_UNEXPLAINED = f"""
(SELECT quiet.*, slot // {3 * SLOT_US} AS quarter FROM {{quiet_spike}} AS quiet
ANTI JOIN client_spans AS client ON client.source = quiet.source AND client.service = quiet.service
    AND slot BETWEEN client.began AND client.ended AND client.first > slot - {_DAY_US}
ANTI JOIN offender_spans AS offender ON slot BETWEEN offender.began AND offender.ended
    AND offender.source = CASE WHEN NOT inside AND NOT muted_repeated_offender THEN quiet.source END
ANTI JOIN beacon_rows USING (id) WHERE place IS NOT NULL)"""
_SPIKES = {
    "quarters": f"SELECT place, quarter, sum(attempts) AS attempts FROM {_UNEXPLAINED} GROUP BY ALL",
    "beginning": "SELECT min(first) AS began FROM {hits}",
    "spikes": f"""
SELECT high.place, high.quarter, any_value(high.attempts) / nullif(max(earlier.attempts), 0) AS factor
FROM quarters AS high LEFT JOIN quarters AS earlier ON earlier.place = high.place AND earlier.quarter < high.quarter
    AND earlier.quarter * {3 * SLOT_US} >= high.quarter * {3 * SLOT_US} - $spike_history
    AND earlier.quarter % 96 = high.quarter % 96
WHERE high.attempts >= $spike_attempts
    AND (SELECT began FROM beginning) <= high.quarter * {3 * SLOT_US} - $spike_days * {_DAY_US}
GROUP BY high.place, high.quarter
HAVING any_value(high.attempts) >= $spike_factor * coalesce(max(earlier.attempts), 0)""",
    "spike_rows": f"SELECT spiking.*, factor FROM {_UNEXPLAINED} AS spiking JOIN spikes USING (place, quarter)",
    "spike_sessions": _sessions("spike_rows", "place", "$spike_cooldown"),
    "spike_marks": _marks(
        "spike",
        "spike_rows JOIN spike_sessions USING (place) WHERE first BETWEEN began AND ended",
        "place",
        measure="factor",
    ),
}

_FIRST_SEEN = {
    "first_pairs": """
SELECT source, destination, service, min(first) AS began FROM {quiet_first_seen}
WHERE known AND NOT to_nobody AND port IS NOT NULL GROUP BY ALL""",
    "new_pairs": """
SELECT source, destination, service FROM first_pairs
JOIN (SELECT source, min(began) AS source_began FROM first_pairs GROUP BY ALL) USING (source)
ANTI JOIN client_spans USING (source, service) WHERE began >= source_began + $first_seen_history""",
    "new_rows": """
SELECT * FROM {quiet} SEMI JOIN new_pairs USING (source, destination, service) ANTI JOIN beacon_rows USING (id)""",
    "new_sessions": _sessions("new_rows", "source", "$first_seen_cooldown"),
    "first_seen_marks": _marks(
        "first_seen", "new_rows JOIN new_sessions USING (source) WHERE first BETWEEN began AND ended"
    ),
}

_PARTS: dict[str, str] = {
    **_VERTICAL, **_HORIZONTAL, **_QUIET, **_SPOOFED, **_BEACONING, **_CLIENTS, **_OFFENDERS, **_SPIKES, **_FIRST_SEEN,
}  # fmt: skip


def steps(settings: Settings, rules: Collection[str], asked: str) -> dict[str, str]:
    """The tables that these rules need, in the order in which they can be made -> the SELECT of each."""
    sources = {"asked": asked, "hits": seen("slots"), "quiet": seen("quiet_slots")}
    for rule in settings.values:
        sources[rule] = seen("slots", f"NOT muted_{rule}")
        sources[f"quiet_{rule}"] = seen("quiet_slots", f"NOT muted_{rule}")
    made = {name: sql.format_map(sources) for name, sql in _PARTS.items()}
    wanted = reached(
        [f"{rule}_marks" for rule in rules], lambda name: made.keys() & set(re.findall(r"\w+", made[name]))
    )
    return {name: sql for name, sql in made.items() if name in wanted}


def flat(settings: Settings) -> dict[str, object]:
    """The thresholds as parameters, lengths of time in microseconds."""
    return {f"{rule}_{name}": _plain(value) for rule, table in settings.values.items() for name, value in table.items()}


def _plain(value: object) -> object:
    if isinstance(value, timedelta):
        return value // timedelta(microseconds=1)
    return list(value) if isinstance(value, tuple) else value
