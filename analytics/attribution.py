"""The view `denied`: each denied packet with who its source and destination were at its time, and who denied it.

Rule: the interface decides before the address, what decided is said, and where nothing is known the column is null.
"""

from __future__ import annotations

# Calico's short kinds in a log prefix (felix/rules/policy.go, %k) -> the kinds that `policies` prints.
_KINDS = {
    "np": "NetworkPolicy",
    "gnp": "GlobalNetworkPolicy",
    "knp": "KubernetesNetworkPolicy",
    "kcnp": "KubernetesClusterNetworkPolicy",
    "kanp": "KubernetesAdminNetworkPolicy",
    "kbanp": "KubernetesBaselineAdminNetworkPolicy",
}
_SIDES = {"source": ("in_interface", "s"), "destination": ("out_interface", "d")}
_POD = ("pod", "namespace", "workload", "workload_kind", "node", "service")
# An address of these classes says nothing about who sent a packet, or is nobody's.
_NOBODYS = "('link-local', 'unspecified', 'multicast', 'broadcast')"


def _side(side: str) -> str:
    """The columns of one side: i is the pod of its interface, a the holder of its address, c the address's class."""
    interface, short = _SIDES[side]
    i, a, c = (f"{short}{letter}" for letter in "iac")
    columns = [f"CASE WHEN {i}.pod IS NOT NULL THEN {i}.{name} ELSE {a}.{name} END AS {side}_{name}" for name in _POD]
    columns.append(f"CASE WHEN {i}.pod IS NOT NULL THEN {i}.pod ELSE {a}.name END AS {side}_name")
    columns.append(
        f"CASE WHEN {i}.pod IS NOT NULL THEN 'pod' WHEN {a}.class <> 'network set' THEN {a}.class "
        f"WHEN {c}.in_pod_network OR starts_with(p.{interface}, 'cali') THEN 'unknown pod' "
        f"ELSE coalesce({a}.class, {c}.class) END AS {side}_class"
    )
    columns.append(
        f"CASE WHEN {i}.pod IS NOT NULL THEN 'interface' "
        f"WHEN {a}.address IS NULL AND starts_with(p.{interface}, 'cali') THEN 'interface' "
        f"WHEN {a}.address IS NOT NULL OR {c}.in_pod_network THEN 'address' END AS {side}_by"
    )
    return ",\n    ".join(columns)


def _conflict(side: str) -> str:
    interface, short = _SIDES[side]
    i, a, c = (f"{short}{letter}" for letter in "iac")
    return (
        f"CASE WHEN {i}.pod IS NOT NULL THEN len({i}.addresses) > 0 AND {c}.class NOT IN {_NOBODYS} "
        f"AND NOT list_contains({i}.addresses, p.{side}_ip) "
        f"ELSE starts_with(p.{interface}, 'cali') AND {a}.interface <> p.{interface} END"
    )


def _joins(side: str) -> str:
    interface, short = _SIDES[side]
    i, a, c = (f"{short}{letter}" for letter in "iac")
    return f"""
LEFT JOIN interface_intervals AS {i} ON {i}.interface = p.{interface}
    AND {i}.valid_from <= p.time AND p.time < {i}.valid_until
LEFT JOIN address_intervals AS {a} ON {a}.address = p.{side}_ip
    AND {a}.valid_from <= p.time AND p.time < {a}.valid_until
LEFT JOIN address_classes AS {c} ON {c}.address = p.{side}_ip""".strip()


# At which side the packet was denied: the packet's own direction, else what the verdict says (pod to pod).
_AT = (
    "CASE coalesce(nullif(direction, 'host'), decided) "
    "WHEN 'ingress' THEN destination_{0} WHEN 'egress' THEN source_{0} END"
)
_PREFIX_KIND = (
    "CASE policy_kind " + " ".join(f"WHEN '{a}' THEN '{b}'" for a, b in _KINDS.items()) + " ELSE policy_kind END"
)

VERDICT_INTERVALS = """
WITH newest AS (
    SELECT * FROM verdicts
    QUALIFY row_number() OVER (PARTITION BY in_interface, out_interface, source_ip, destination_ip, protocol,
        source_port, destination_port, icmp_type, icmp_code, valid_from ORDER BY stored_at DESC) = 1
)
SELECT * EXCLUDE valid_until, coalesce(source_port, 0) AS lowest_port, coalesce(source_port, 65535) AS highest_port,
    least(coalesce(valid_until, 'infinity'), lead(valid_from) OVER (
        PARTITION BY in_interface, out_interface, source_ip, destination_ip, protocol, source_port, destination_port,
        icmp_type, icmp_code ORDER BY valid_from)) AS valid_until
FROM newest
""".strip()

_KEY = [
    "in_interface",
    "out_interface",
    "source_ip",
    "destination_ip",
    "protocol",
    "destination_port",
    "icmp_type",
    "icmp_code",
]

DENIED = f"""
SELECT * EXCLUDE (decided, engine_denied_by, engine_why),
    {", ".join(f"{_AT.format(name)} AS {name}" for name in ("namespace", "pod", "workload"))},
    CASE WHEN policy_name IS NOT NULL AND policy_kind IS NOT NULL
        THEN [({_PREFIX_KIND}) || ' ' || coalesce(policy_namespace || '/', '') || policy_name]
        ELSE engine_denied_by END AS denied_by,
    CASE WHEN policy_name IS NOT NULL AND policy_kind IS NOT NULL THEN 'prefix'
        WHEN engine_denied_by IS NOT NULL THEN 'engine' END AS decided_by,
    CASE WHEN policy_name IS NOT NULL AND policy_kind IS NOT NULL THEN 'the log prefix names this policy'
        ELSE engine_why END AS why
FROM (
SELECT p.*, greatest(p.repeat_count, 1) AS packet_count,
    {_side("source")},
    {_side("destination")},
    coalesce({_conflict("source")}, false) OR coalesce({_conflict("destination")}, false) AS attribution_conflict,
    v.direction AS decided, v.denied_by AS engine_denied_by, v.why AS engine_why
FROM packets AS p
{_joins("source")}
{_joins("destination")}
LEFT JOIN verdict_intervals AS v ON {" AND ".join(f"v.{name} IS NOT DISTINCT FROM p.{name}" for name in _KEY)}
    AND v.lowest_port <= coalesce(p.source_port, 0) AND coalesce(p.source_port, 0) <= v.highest_port
    AND v.valid_from <= p.time AND p.time < v.valid_until
WHERE p.follow_up IS NULL)
""".strip()
