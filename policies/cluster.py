"""Cluster-wide Kubernetes policies to Calico's GlobalNetworkPolicy: ClusterNetworkPolicy and its two forerunners.

Rule: as libcalico-go/lib/backend/k8s/conversion/clusternetworkpolicy.go (3.32) and, for AdminNetworkPolicy and
BaselineAdminNetworkPolicy, adminnetworkpolicy.go (3.29 to 3.31). They fail closed: a Deny or Pass rule that cannot be
converted becomes "deny everything", an allowing one is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from policies import gotext
from policies.combine import PortsByProtocol, by_protocol, combined
from policies.labels import selector_text
from policies.model import Action, Direction, EntityRule, NamedPort, Network, Policy, PolicyKind, Port, PortRange, Rule
from policies.nets import parse_net
from policies.ports import MAX_PORT, port_range
from policies.written import Document, Written, items, mapping, text

Ports: TypeAlias = Callable[[Document], PortsByProtocol]

_SIDES = ((Direction.INGRESS, "ingress", "from"), (Direction.EGRESS, "egress", "to"))
_ANP_ACTIONS = {"Allow": Action.ALLOW, "Deny": Action.DENY, "Pass": Action.PASS}
BASELINE_ORDER = 1000.0
"""Where the one BaselineAdminNetworkPolicy stands in its tier."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What tells the three kinds apart."""

    kind: PolicyKind
    tier: Callable[[Document], str | None]
    order: Callable[[Document], float]
    actions: Mapping[str, Action]
    ports: Ports
    called: str


def cluster_policy(written: Written) -> Policy | None:
    """The Calico policy of a cluster-wide Kubernetes policy; None for an unknown tier or without a subject."""
    dialect = _DIALECTS[written.kind.name]
    tier, subject = dialect.tier(written.spec), _subject(_namespaces_first(mapping(written.spec, "subject")))
    if tier is None or subject is None:
        return None
    errors: list[str] = []
    rules = {direction: _rules(written, dialect, direction, name, peers, errors) for direction, name, peers in _SIDES}
    return Policy(
        kind=dialect.kind,
        name=written.name,
        tier=tier,
        order=dialect.order(written.spec),
        selector=subject.selector,
        namespace_selector=subject.namespace_selector,
        types=tuple(direction for direction in Direction if rules[direction]),
        ingress=rules[Direction.INGRESS],
        egress=rules[Direction.EGRESS],
        uid=text(written.metadata, "uid"),
        errors=tuple(errors),
        source=written.source,
    )


def _namespaces_first(subject: Document) -> Document:
    """Of a subject that names both, which the API server refuses, Calico reads the namespaces; of a peer, the pods."""
    return subject if subject.get("namespaces") is None else {"namespaces": subject["namespaces"]}


def _subject(subject: Document) -> EntityRule | None:
    """Who a subject or peer of namespaces or pods names; None where it names nobody in a way Calico knows."""
    if subject.get("pods") is not None:
        return EntityRule(
            selector=selector_text(mapping(subject["pods"], "podSelector"), pods=True),
            namespace_selector=selector_text(mapping(subject["pods"], "namespaceSelector"), pods=False),
        )
    if subject.get("namespaces") is None:
        return None
    return EntityRule(
        selector=selector_text(None, pods=True), namespace_selector=selector_text(subject["namespaces"], pods=False)
    )


def _rules(
    written: Written, dialect: Dialect, direction: Direction, name: str, peers: str, errors: list[str]
) -> tuple[Rule, ...]:
    converted: list[Rule] = []
    for index, rule in enumerate(items(written.spec, name)):
        place = written.place("spec", name, index)
        try:
            found = [*_rule(rule, dialect, direction, peers)]
        except ValueError as error:
            errors.append(f"{gotext.cluster_rule(rule, peers)} (k8s rule couldn't be converted: {error})")
            found = [Rule(Action.DENY)] if text(rule, "action") in ("Deny", "Pass") else []
        converted += (replace(each, place=place) for each in found)
    return tuple(converted)


def _rule(rule: Document, dialect: Dialect, direction: Direction, peers: str) -> Iterator[Rule]:
    action = dialect.actions.get(text(rule, "action"))
    if action is None:
        raise ValueError(f"unsupported {dialect.called} network policy action {text(rule, 'action')}")
    ports = dialect.ports(rule)
    entities = [_peer(peer, peers) for peer in items(rule, peers)]
    annotations = {"name": rule["name"]} if text(rule, "name") else {}
    return (replace(each, annotations=annotations) for each in combined(ports, entities, direction, action))


def _peer(peer: Document, peers: str) -> EntityRule:
    nets = tuple(_net(each) for each in items(peer, "networks"))
    subject = _subject(peer)
    if subject is None and not nets:
        raise ValueError(f"none of supported fields in '{peers.capitalize()}' is set.")
    if peer.get("pods") is None and subject is not None:
        subject = replace(subject, selector="")  # the orchestrator term is for subjects only
    return replace(subject or EntityRule(), nets=nets)


def _net(written: str) -> Network:
    try:
        return parse_net(written)
    except ValueError as error:
        raise ValueError(f"invalid CIDR in ANP rule: {error}") from None


# -- ports -----------------------------------------------------------------------------------------------------------

Entry: TypeAlias = tuple[str, Port | None]


def _gathered(entries: list[Document], read: Callable[[Document], Entry | None], called: str) -> PortsByProtocol:
    """Ports of a rule; an entry that says nothing opens everything, whatever follows it."""
    found: list[Entry] = []
    for entry in entries or [{}]:
        try:
            one = read(entry)
        except ValueError as error:
            raise ValueError(f"failed to parse k8s {called}: {error}") from None
        if one is None:
            return {"": None}
        found.append(one)
    return by_protocol(found)


def _protocol(entry: Document) -> Entry | None:
    """One of `protocols` of a ClusterNetworkPolicy; a named port has no protocol."""
    for field, protocol in (("tcp", "TCP"), ("udp", "UDP"), ("sctp", "SCTP")):
        if entry.get(field) is not None:
            return protocol, _number_or_range(mapping(entry[field], "destinationPort"))
    name = text(entry, "destinationNamedPort")
    return ("", NamedPort(name)) if name else None


def _number_or_range(port: Document) -> Port | None:
    if port.get("number"):
        return _range(port["number"], port["number"])
    ends = port.get("range")
    return None if ends is None else _range(ends.get("start") or 0, ends.get("end") or 0)


def _admin_port(entry: Document) -> Entry | None:
    """One of `ports` of the two forerunners; Calico never supported their `namedPort`."""
    if entry.get("portNumber") is not None:
        number = entry["portNumber"].get("port") or 0
        return text(entry["portNumber"], "protocol") or "TCP", _range(number, number)
    if entry.get("portRange") is not None:
        ends = entry["portRange"]
        return text(ends, "protocol") or "TCP", _range(ends.get("start") or 0, ends.get("end") or 0)
    return None


def _range(first: int, last: int) -> PortRange:
    if not 0 <= first <= MAX_PORT or not 0 <= last <= MAX_PORT:
        raise ValueError(f"port number {first if not 0 <= first <= MAX_PORT else last} is not between 0 and {MAX_PORT}")
    return port_range(first, last)


def _admin(kind: PolicyKind, tier: str, order: Callable[[Document], float]) -> Dialect:
    def ports(rule: Document) -> PortsByProtocol:
        return _gathered(items(rule, "ports"), _admin_port, "port")

    return Dialect(kind, lambda spec: tier, order, _ANP_ACTIONS, ports, "admin")


_DIALECTS: Mapping[str, Dialect] = {
    "ClusterNetworkPolicy": Dialect(
        kind=PolicyKind.CLUSTER_NETWORK_POLICY,
        tier=lambda spec: {"Admin": "kube-admin", "Baseline": "kube-baseline"}.get(text(spec, "tier")),
        order=lambda spec: float(spec.get("priority") or 0),
        actions={"Accept": Action.ALLOW, "Deny": Action.DENY, "Pass": Action.PASS},
        ports=lambda rule: _gathered(items(rule, "protocols"), _protocol, "protocol"),
        called="cluster",
    ),
    "AdminNetworkPolicy": _admin(
        PolicyKind.ADMIN_NETWORK_POLICY, "adminnetworkpolicy", lambda spec: float(spec.get("priority") or 0)
    ),
    "BaselineAdminNetworkPolicy": _admin(
        PolicyKind.BASELINE_ADMIN_NETWORK_POLICY, "baselineadminnetworkpolicy", lambda spec: BASELINE_ORDER
    ),
}
