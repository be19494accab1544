"""SQL that turns versions of objects into intervals: who was what from when until when, and who held an address.

Rule: for one object, address or interface the intervals do not overlap, so a join with them doubles no packet. They
are computed when they are asked for: an inventory that comes late improves old rows. `RELATIONS` names them; each may
use those before it, and `chain` gives the WITH clause that one needs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from analytics.ranges import bits, special_class

# A version holds from the time that the object itself tells. Where a version of the same object was seen after that
# time, the object was still another one then, so the change came later: the version holds from when it was first seen.
# It ends where the next version begins, where the object was gone, or where another object took its name. Kubernetes
# and Calico both have a NetworkPolicy: the group of the API belongs to the identity.
OBJECT_INTERVALS = """
WITH seen AS (
    SELECT *, lag(observed_at) OVER (
        PARTITION BY kind, api_group, namespace, name, uid ORDER BY observed_at, gone, stored_at) AS seen_before
    FROM (SELECT *, split_part(api_version, '/', 1) AS api_group FROM objects)
), begun AS (
    SELECT * EXCLUDE (valid_from, seen_before),
        CASE WHEN gone OR seen_before IS NULL OR valid_from > seen_before THEN valid_from ELSE observed_at
        END AS valid_from
    FROM seen
), ended AS (
    SELECT *, lead(valid_from) OVER (
        PARTITION BY kind, api_group, namespace, name, uid ORDER BY valid_from, observed_at, gone, stored_at
        ) AS ended_at
    FROM begun
), named AS (
    SELECT *, lead(valid_from) OVER (
        PARTITION BY kind, api_group, namespace, name ORDER BY valid_from, observed_at, stored_at) AS replaced_at
    FROM ended WHERE NOT gone
)
SELECT kind, namespace, name, uid, api_version, valid_from, least(ended_at, replaced_at) AS valid_until, node,
    addresses, networks, host_network, interface, workload_kind, workload, labels, selects, body, observed_at
FROM named WHERE valid_until IS NULL OR valid_from < valid_until
""".strip()

# A pod belongs to the services of its namespace whose selectors it matches: its interval is cut where one of them
# begins or ends.
POD_INTERVALS = """
WITH pods AS (
    SELECT * EXCLUDE valid_until, coalesce(valid_until, 'infinity') AS valid_until, row_number() OVER () AS id,
        list_transform(map_entries(labels::MAP(VARCHAR, VARCHAR)), lambda pair: pair.key || '=' || pair.value) AS tags
    FROM object_intervals WHERE kind = 'Pod'
), services AS (
    SELECT namespace, name, selects, valid_from, coalesce(valid_until, 'infinity') AS valid_until
    FROM object_intervals WHERE kind = 'Service' AND len(selects) > 0
), members AS (
    SELECT id, services.name, greatest(pods.valid_from, services.valid_from) AS valid_from,
        least(pods.valid_until, services.valid_until) AS valid_until
    FROM pods JOIN services ON pods.namespace = services.namespace AND list_has_all(tags, services.selects)
    WHERE pods.valid_from < services.valid_until AND services.valid_from < pods.valid_until
), cuts AS (
    SELECT id, valid_from FROM pods
    UNION SELECT id, valid_from FROM members
    UNION SELECT id, members.valid_until FROM members JOIN pods USING (id) WHERE members.valid_until < pods.valid_until
), pieces AS (
    SELECT id, cuts.valid_from, least(pods.valid_until, lead(cuts.valid_from) OVER (
        PARTITION BY id ORDER BY cuts.valid_from)) AS valid_until
    FROM cuts JOIN pods USING (id)
), served AS (
    SELECT id, pieces.valid_from, string_agg(DISTINCT name, ',' ORDER BY name) AS service
    FROM pieces JOIN members USING (id)
    WHERE members.valid_from <= pieces.valid_from AND pieces.valid_from < members.valid_until GROUP BY ALL
)
SELECT namespace, name AS pod, uid, pieces.valid_from, pieces.valid_until, node, addresses, host_network, interface,
    workload_kind, workload, service
FROM pieces JOIN pods USING (id) LEFT JOIN served ON served.id = pieces.id AND served.valid_from = pieces.valid_from
""".strip()


# The addresses in packets, with their bits. DuckLake stores no INET, and whoever attaches a store by hand may lack the
# extension: a network holds the addresses whose bits begin with its own.
def packet_addresses(packets: str) -> str:
    """SQL for the addresses in a relation of packets."""
    both = f"SELECT source_ip AS address FROM {packets} UNION SELECT destination_ip FROM {packets}"
    return f"SELECT address, {bits('address')} AS bits FROM ({both}) WHERE address IS NOT NULL"


# Known networks and the addresses in packets that are in them. A network of pods counts whenever it was seen: that an
# address is some pod's is also true before the inventory began.
ADDRESS_NETWORKS = f"""
WITH networks AS (
    SELECT kind IN ('Node', 'IPPool') AS pods, namespace, name, valid_from,
        coalesce(valid_until, 'infinity') AS valid_until,
        split_part(network, '/', 1) AS first, split_part(network, '/', 2)::INTEGER AS length
    FROM (SELECT *, unnest(networks) AS network FROM object_intervals)
), spelled AS (
    SELECT * EXCLUDE bits, left(bits, length) AS head, len(bits) AS width
    FROM (SELECT *, {bits("first")} AS bits FROM networks)
), heads AS (
    SELECT address, length, left(bits, length) AS head, width
    FROM packet_addresses, (SELECT DISTINCT length, width FROM spelled) WHERE len(bits) = width
)
SELECT address, pods, namespace, name, length, valid_from, valid_until
FROM heads JOIN spelled USING (length, head, width)
""".strip()

# The network set that holds an address; of several the one with the smallest network, then the first by name.
SET_INTERVALS = """
WITH members AS (
    SELECT * FROM address_networks WHERE NOT pods
    QUALIFY row_number() OVER (PARTITION BY address, valid_from ORDER BY length DESC, namespace, name) = 1
)
SELECT address, namespace, name, valid_from, least(valid_until, lead(valid_from) OVER (
    PARTITION BY address ORDER BY valid_from)) AS valid_until
FROM members
""".strip()

# What an address is by the networks of pods and the registries alone.
ADDRESS_CLASSES = f"""
SELECT address, address IN (SELECT address FROM address_networks WHERE pods) AS in_pod_network,
    {special_class("bits")} AS class
FROM packet_addresses
""".strip()

# Who held an address, best claim first. Of two pods with one address the one that began later holds it (a dump may
# have missed the end of the first). Each kind of claim is a state that events switch; the best state counts.
_CLAIMS = """
SELECT unnest(addresses) AS address, 1 AS rank, 'pod' AS class, namespace, pod AS name, pod, workload, workload_kind,
    node, service, interface, valid_from, valid_until
FROM pod_intervals WHERE NOT host_network
UNION ALL BY NAME
SELECT unnest(addresses) AS address, 2 AS rank, 'node' AS class, name, name AS node, valid_from, valid_until
FROM object_intervals WHERE kind = 'Node'
UNION ALL BY NAME
SELECT unnest(addresses) AS address, 3 AS rank, 'service' AS class, namespace, name, name AS service, valid_from,
    valid_until
FROM object_intervals WHERE kind = 'Service'
UNION ALL BY NAME
SELECT unnest(addresses) AS address, 4 AS rank, 'host endpoint' AS class, name, node, valid_from, valid_until
FROM object_intervals WHERE kind = 'HostEndpoint'
UNION ALL BY NAME
SELECT address, 5 AS rank, 'host-network pod' AS class, node AS name, node, min(valid_from) AS valid_from,
    max(valid_until) AS valid_until
FROM (SELECT unnest(addresses) AS address, node, valid_from, valid_until FROM pod_intervals WHERE host_network)
GROUP BY address, node
""".strip()
_RANKS = range(1, 6)
_STATES = ", ".join(
    f"last_value(CASE WHEN rank = {rank} THEN id END IGNORE NULLS) OVER events AS state_{rank}" for rank in _RANKS
)
ADDRESS_INTERVALS = f"""
WITH claims AS ({_CLAIMS}), numbered AS (
    SELECT *, row_number() OVER () AS id FROM claims WHERE address IS NOT NULL
), followed AS (
    SELECT id, address, rank, valid_from, least(coalesce(valid_until, 'infinity'), lead(valid_from) OVER (
        PARTITION BY address, rank ORDER BY valid_from, namespace, name)) AS valid_until
    FROM numbered
), switched AS (
    SELECT address, rank, valid_from AS moment, id, true AS begins FROM followed
    UNION ALL
    SELECT address, rank, valid_until AS moment, 0 AS id, false AS begins FROM followed WHERE valid_until < 'infinity'
), states AS (
    SELECT address, moment, lead(moment) OVER events AS until, {_STATES}
    FROM switched WINDOW events AS (PARTITION BY address ORDER BY moment, begins)
), held AS (
    SELECT address, moment AS valid_from, coalesce(until, 'infinity') AS valid_until,
        coalesce({", ".join(f"nullif(state_{rank}, 0)" for rank in _RANKS)}) AS id
    FROM states
)
SELECT held.address, class, namespace, name, pod, workload, workload_kind, node, service, interface,
    held.valid_from, held.valid_until
FROM held JOIN numbered USING (id) WHERE held.valid_from < held.valid_until
""".strip()

# Calico derives the name of an interface from the names of namespace and pod: no other pod ever has it. So it tells
# the pod also before the inventory began and after the pod was gone, when its last packets are logged.
INTERFACE_INTERVALS = """
SELECT interface, namespace, pod, workload, workload_kind, node, service, addresses,
    CASE WHEN lag(valid_from) OVER pieces IS NULL THEN '-infinity' ELSE valid_from END AS valid_from,
    coalesce(lead(valid_from) OVER pieces, 'infinity') AS valid_until
FROM pod_intervals WHERE interface IS NOT NULL
WINDOW pieces AS (PARTITION BY interface ORDER BY valid_from)
""".strip()

VERDICT_KEY = (
    "in_interface", "out_interface", "source_ip", "destination_ip", "protocol", "destination_port", "icmp_type",
    "icmp_code",
)  # fmt: skip
"""The columns of packets that a verdict is about, beside the source port."""

# Of two verdicts on one flow the one that begins later counts from then on, of two with one beginning the newer row.
VERDICT_INTERVALS = f"""
WITH newest AS (
    SELECT * FROM verdicts QUALIFY row_number() OVER (
        PARTITION BY {", ".join(VERDICT_KEY)}, source_port, valid_from ORDER BY stored_at DESC) = 1
)
SELECT * EXCLUDE valid_until, coalesce(source_port, 0) AS lowest_port, coalesce(source_port, 65535) AS highest_port,
    least(coalesce(valid_until, 'infinity'), lead(valid_from) OVER (
        PARTITION BY {", ".join(VERDICT_KEY)}, source_port ORDER BY valid_from)) AS valid_until
FROM newest
""".strip()

_TEXTS = {
    "object_intervals": OBJECT_INTERVALS,
    "pod_intervals": POD_INTERVALS,
    "interface_intervals": INTERFACE_INTERVALS,
    "address_intervals": ADDRESS_INTERVALS,
    "packet_addresses": packet_addresses("packets"),
    "address_networks": ADDRESS_NETWORKS,
    "set_intervals": SET_INTERVALS,
    "address_classes": ADDRESS_CLASSES,
    "verdict_intervals": VERDICT_INTERVALS,
}


@dataclass(frozen=True, slots=True)
class Relation:
    """One relation: its SELECT, and which relations that names."""

    sql: str
    needs: tuple[str, ...]


RELATIONS = {
    name: Relation(sql, tuple(other for other in _TEXTS if other != name and re.search(rf"\b{other}\b", sql)))
    for name, sql in _TEXTS.items()
}


def closure(names: Iterable[str]) -> list[str]:
    """These relations and all that they need, in the order in which they can be made."""
    wanted = reached(names, lambda name: RELATIONS[name].needs)
    return [name for name in RELATIONS if name in wanted]


def reached(names: Iterable[str], needs: Callable[[str], Iterable[str]]) -> set[str]:
    """These names and all that they need, directly or not."""
    wanted: set[str] = set()
    queue = list(names)
    while queue:
        name = queue.pop()
        if name not in wanted:
            wanted.add(name)
            queue.extend(needs(name))
    return wanted


def chain(names: Iterable[str]) -> str:
    """The WITH clause that makes these relations, each computed once."""
    parts = (f"{name} AS MATERIALIZED (\n{RELATIONS[name].sql}\n)" for name in closure(names))
    found = ", ".join(parts)
    return f"WITH {found}\n" if found else ""


def view(name: str) -> str:
    """The relation as one statement."""
    return f"{chain(RELATIONS[name].needs)}SELECT * FROM (\n{RELATIONS[name].sql}\n)"


def renamed(sql: str, prefix: str) -> str:
    """`sql` with a prefix before the names of relations."""
    return re.sub(rf"\b({'|'.join(RELATIONS)})\b", rf"{prefix}\1", sql)
