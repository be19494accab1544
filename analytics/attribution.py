"""Who source and destination of a packet were at its time, and who denied it: SQL for as much of it as is asked for.

Rule: the interface decides before the address, what decided is said, and where nothing is known the column is null.
The view `denied` has all columns; `select` leaves out every join that its columns do not need.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from analytics.intervals import VERDICT_KEY, chain

# Calico's short kinds in a log prefix (felix/rules/policy.go, %k) -> the kinds that `policies` prints.
_KINDS = {
    "np": "NetworkPolicy",
    "gnp": "GlobalNetworkPolicy",
    "knp": "KubernetesNetworkPolicy",
    "kcnp": "KubernetesClusterNetworkPolicy",
    "kanp": "KubernetesAdminNetworkPolicy",
    "kbanp": "KubernetesBaselineAdminNetworkPolicy",
}
_INTERFACES = {"source": "in_interface", "destination": "out_interface"}
_POD = ("namespace", "pod", "workload_kind", "workload", "node", "service")
# Addresses that nobody holds or that every pod may use: link-local, multicast, unspecified, broadcast.
_NOBODYS = r"^(fe[89ab]|ff|::$|0\.0\.0\.0$|22[4-9]\.|23[0-9]\.|255\.255\.255\.255$)"
_BY_PREFIX = "p.policy_name IS NOT NULL AND p.policy_kind IS NOT NULL"
_PREFIX_KIND = " ".join(["CASE p.policy_kind", *(f"WHEN '{k}' THEN '{v}'" for k, v in _KINDS.items())])


def _by_interface(side: str, name: str) -> str:
    return f"CASE WHEN {side}_i.pod IS NOT NULL THEN {side}_i.{name} ELSE {side}_a.{name} END"


def _name(side: str) -> str:
    return f"CASE WHEN {side}_i.pod IS NOT NULL THEN {side}_i.pod ELSE coalesce({side}_a.name, {side}_n.name) END"


def _class(side: str) -> str:
    pods = f"{side}_c.in_pod_network OR starts_with(p.{_INTERFACES[side]}, 'cali')"
    return (
        f"CASE WHEN {side}_i.pod IS NOT NULL THEN 'pod' WHEN {side}_a.class IS NOT NULL THEN {side}_a.class "
        f"WHEN {pods} THEN 'unknown pod' WHEN {side}_n.name IS NOT NULL THEN 'network set' ELSE {side}_c.class END"
    )


def _by(side: str) -> str:
    known = f"{side}_a.class IS NOT NULL OR {side}_c.in_pod_network OR {side}_n.name IS NOT NULL"
    return (
        f"CASE WHEN {side}_i.pod IS NOT NULL THEN 'interface' WHEN {side}_a.class IS NOT NULL THEN 'address' "
        f"WHEN starts_with(p.{_INTERFACES[side]}, 'cali') THEN 'interface' WHEN {known} THEN 'address' END"
    )


def _conflict(side: str) -> str:
    """True where the pod of the interface does not have the address, or the pod of the address not the interface."""
    address, interface = f"p.{side}_ip", f"p.{_INTERFACES[side]}"
    return (
        f"CASE WHEN {side}_i.pod IS NULL THEN starts_with({interface}, 'cali') AND {side}_a.interface <> {interface} "
        f"WHEN len({side}_i.addresses) = 0 OR list_contains({side}_i.addresses, {address}) THEN false "
        f"ELSE NOT regexp_matches({address}, '{_NOBODYS}') END"
    )


def _denied(name: str) -> str:
    """A column of the side at which the packet was denied: by its direction, else (pod to pod) by the verdict."""
    direction = "coalesce(nullif(p.direction, 'host'), v.direction)"
    sides = " ".join(
        f"WHEN '{way}' THEN {_by_interface(side, name)}"
        for way, side in (("ingress", "destination"), ("egress", "source"))
    )
    return f"CASE {direction} {sides} END"


def _side_columns(side: str) -> dict[str, str]:
    told = {f"{side}_{name}": _by_interface(side, name) for name in _POD}
    return {**told, f"{side}_name": _name(side), f"{side}_class": _class(side), f"{side}_by": _by(side)}


COLUMNS = {
    **_side_columns("source"),
    **_side_columns("destination"),
    "attribution_conflict": f"coalesce({_conflict('source')}, false) OR coalesce({_conflict('destination')}, false)",
    **{name: _denied(name) for name in ("namespace", "pod", "workload")},
    "denied_by": f"CASE WHEN v.decided_by IS NULL AND {_BY_PREFIX} THEN [{_PREFIX_KIND} ELSE p.policy_kind END || "
    "' ' || coalesce(p.policy_namespace || '/', '') || p.policy_name] ELSE v.denied_by END",
    "decided_by": f"coalesce(v.decided_by, CASE WHEN {_BY_PREFIX} THEN 'prefix' END)",
    "why": f"CASE WHEN v.decided_by IS NULL AND {_BY_PREFIX} THEN 'the log prefix names this policy' ELSE v.why END",
}
"""The columns of `denied` beside those of `packets` and `packet_count` -> SQL over packets `p` and the joins below."""

JUDGED = frozenset(name for name, sql in COLUMNS.items() if "v." in sql.replace("v.direction", ""))
"""Those that only the verdict on a packet tells."""


def _holding(short: str) -> str:
    return f"{short}.valid_from <= p.time AND p.time < {short}.valid_until"


def _joins(side: str) -> dict[str, tuple[str, str]]:
    i, a, n, c = (f"{side}_{letter}" for letter in "ianc")
    address = f"p.{side}_ip"
    return {
        i: ("interface_intervals", f"{i}.interface = p.{_INTERFACES[side]} AND {_holding(i)}"),
        a: ("address_intervals", f"{a}.address = {address} AND {_holding(a)}"),
        n: ("set_intervals", f"{n}.address = {address} AND {_holding(n)}"),
        c: ("address_classes", f"{c}.address = {address}"),
    }


# Alias -> relation and condition of a LEFT JOIN.
_JOINS = {
    **_joins("source"),
    **_joins("destination"),
    "v": (
        "verdict_intervals",
        " AND ".join(f"v.{name} IS NOT DISTINCT FROM p.{name}" for name in VERDICT_KEY)
        + " AND v.lowest_port <= coalesce(p.source_port, 0) AND coalesce(p.source_port, 0) <= v.highest_port AND "
        + _holding("v"),
    ),
}


def attributed_view() -> str:
    """The packets, also those that are no denials, with all columns."""
    return f"{chain(needs(COLUMNS))}{attribute(COLUMNS)}"


def denied_view() -> str:
    """The denied packets with all columns."""
    return f"{chain(needs(COLUMNS))}{select(COLUMNS)}"


def mentioned(sql: str) -> bool:
    """Whether SQL names one of COLUMNS, so that it cannot be asked of `packets`."""
    return not COLUMNS.keys().isdisjoint(re.findall(r"\w+", sql))


def needs(names: Iterable[str]) -> list[str]:
    """The relations that these columns need."""
    return list(dict.fromkeys(_JOINS[alias][0] for alias in _used(COLUMNS[name] for name in names)))


def select(names: Iterable[str], rows: str = "packets") -> str:
    """The denied ones of what `attribute` gives."""
    return f"{attribute(names, rows)}\nWHERE p.follow_up IS NULL"


def attribute(names: Iterable[str], rows: str = "packets") -> str:
    """The packets with these of COLUMNS, over `packets` (or a table with what these columns need of it) and the
    relations that they need."""
    return _joined("p.*, greatest(p.repeat_count, 1) AS packet_count", {name: COLUMNS[name] for name in names}, rows)


def attribute_sums(names: Iterable[str], rows: str, *, verdicts: bool) -> str:
    """The same over sums of packets (with `packet_count`, and as `time` that of the first packet). Without verdicts,
    which are about single packets, a sum has to tell at which side it was denied."""
    columns = {name: COLUMNS[name] if verdicts else COLUMNS[name].replace("v.direction", "NULL") for name in names}
    return _joined("p.*", columns, rows)


def _joined(own: str, columns: Mapping[str, str], rows: str) -> str:
    listed = "".join(f",\n    {sql} AS {name}" for name, sql in columns.items())
    joins = "".join(f"\nLEFT JOIN {_JOINS[each][0]} AS {each} ON {_JOINS[each][1]}" for each in _used(columns.values()))
    return f"SELECT {own}{listed}\nFROM {rows} AS p{joins}"


def _used(columns: Iterable[str]) -> list[str]:
    """The joins that these expressions need."""
    text = " ".join(columns)
    return [alias for alias in _JOINS if re.search(rf"\b{alias}\.", text)]
