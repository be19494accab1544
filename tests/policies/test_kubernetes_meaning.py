"""Converted policies mean what the Kubernetes specification says, read here directly and without Calico.

The reading follows the API reference of NetworkPolicySpec: a pod is isolated in a direction when some policy selects it
for that direction, and then only what some rule of such a policy lists is allowed; traffic needs both ends to allow it.
"""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies.evaluate import Ruleset, evaluate
from policies.flow import Directory, Flow, Party
from policies.load import assembled, found_in
from policies.model import Direction, Pod

Document = dict[str, Any]
NUMBERS = {"TCP": 6, "UDP": 17, "SCTP": 132}

# -- the specification, read directly ----------------------------------------------------------------------------------


def _selected(selector: Document, labels: Document) -> bool:
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for wanted in selector.get("matchExpressions", []):
        value = labels.get(wanted["key"])
        answer = {
            "In": value in wanted.get("values", ()),
            "NotIn": value not in wanted.get("values", ()),
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[wanted["operator"]]
        if not answer:
            return False
    return True


def _peer_listed(peer: Document, policy: Document, far: Party, namespaces: dict[str, Document]) -> bool:
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        inside = far.address in ip_network(block["cidr"])
        return inside and not any(far.address in ip_network(net) for net in block.get("except", ()))
    if far.pod is None:
        return False
    if "namespaceSelector" in peer:
        space = _selected(peer["namespaceSelector"], namespaces[far.pod.namespace])
    else:
        space = far.pod.namespace == policy["metadata"]["namespace"]
    return space and _selected(peer.get("podSelector", {}), dict(far.pod.labels))


def _port_listed(port: Document, flow: Flow, target: Pod | None) -> bool:
    if NUMBERS[port.get("protocol", "TCP")] != flow.protocol:
        return False
    if "port" not in port:
        return True
    if isinstance(port["port"], str):
        ports = target.ports if target else ()
        return any(
            (p.name, NUMBERS[p.protocol], p.port) == (port["port"], flow.protocol, flow.destination_port) for p in ports
        )
    return port["port"] <= (flow.destination_port or 0) <= port.get("endPort", port["port"])


def _rule_lists(rule: Document, side: str, policy: Document, flow: Flow, far: Party, namespaces: Any) -> bool:
    peers, ports = rule.get(side, []), rule.get("ports", [])
    peer = not peers or any(_peer_listed(each, policy, far, namespaces) for each in peers)
    return peer and (not ports or any(_port_listed(each, flow, flow.destination.pod) for each in ports))


def _allowed(policies: list[Document], namespaces: Any, flow: Flow, direction: Direction) -> bool:
    own = flow.side(direction)
    far = flow.source if direction is Direction.INGRESS else flow.destination
    if own.pod is None:
        return True
    selecting = [
        p
        for p in policies
        if p["metadata"]["namespace"] == own.pod.namespace
        and direction.value in p["spec"]["policyTypes"]
        and _selected(p["spec"]["podSelector"], dict(own.pod.labels))
    ]
    field, side = ("ingress", "from") if direction is Direction.INGRESS else ("egress", "to")
    rules = [(p, rule) for p in selecting for rule in p["spec"].get(field, [])]
    return not selecting or any(_rule_lists(rule, side, p, flow, far, namespaces) for p, rule in rules)


# -- random clusters ---------------------------------------------------------------------------------------------------

_VALUES = st.sampled_from(("a", "b"))
_EXPRESSIONS = st.one_of(
    st.builds(
        lambda k, o: {"key": k, "operator": o},
        st.sampled_from(("app", "tier")),
        st.sampled_from(("Exists", "DoesNotExist")),
    ),
    st.builds(
        lambda k, o, v: {"key": k, "operator": o, "values": v},
        st.sampled_from(("app", "tier")),
        st.sampled_from(("In", "NotIn")),
        st.lists(_VALUES, min_size=1, max_size=2),
    ),
)
_SELECTORS = st.one_of(
    st.just({}),
    st.builds(lambda value: {"matchLabels": {"app": value}}, _VALUES),
    st.builds(lambda e: {"matchExpressions": e}, st.lists(_EXPRESSIONS, min_size=1, max_size=2)),
)
_BLOCKS = st.sampled_from(
    (
        {"cidr": "10.1.0.0/16"},
        {"cidr": "0.0.0.0/0", "except": ["10.1.0.0/24", "192.0.2.0/24"]},
        {"cidr": "2001:db8::/32"},
    )
)
_PEERS = st.one_of(
    st.builds(lambda s: {"podSelector": s}, _SELECTORS),
    st.builds(lambda s: {"namespaceSelector": s}, _SELECTORS),
    st.builds(lambda n, p: {"namespaceSelector": n, "podSelector": p}, _SELECTORS, _SELECTORS),
    st.builds(lambda b: {"ipBlock": b}, _BLOCKS),
)
_PORTS = st.sampled_from(
    (
        {"port": 80},
        {"port": 80, "protocol": "UDP"},
        {"port": "http"},
        {"port": 79, "endPort": 81},
        {"protocol": "UDP"},
        {"port": "dns", "protocol": "UDP"},
    )
)


@st.composite
def _policies(draw: st.DrawFn) -> list[Document]:
    found = []
    for number in range(draw(st.integers(1, 3))):
        spec: Document = {
            "podSelector": draw(_SELECTORS),
            "policyTypes": draw(st.sampled_from((["Ingress"], ["Egress"], ["Ingress", "Egress"]))),
        }
        for direction, side in (("Ingress", "from"), ("Egress", "to")):
            if direction in spec["policyTypes"]:
                peers = st.lists(_PEERS, max_size=2)
                rule = st.builds(lambda f, p, s=side: {s: f, "ports": p}, peers, st.lists(_PORTS, max_size=2))
                spec[direction.lower()] = draw(st.lists(rule, max_size=2))
        metadata = {"name": f"p{number}", "namespace": draw(st.sampled_from(("one", "two")))}
        found.append(
            {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}
        )
    return found


NAMESPACES = {"one": {"app": "a"}, "two": {"tier": "b"}}


def _pods() -> list[Document]:
    ports = [{"name": "http", "containerPort": 80}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}]
    combinations = [
        ("one", {}),
        ("one", {"app": "a"}),
        ("one", {"app": "b", "tier": "a"}),
        ("two", {"app": "a"}),
        ("two", {"tier": "b"}),
    ]
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"pod{n}", "namespace": namespace, "labels": labels},
            "spec": {"containers": [{"name": "c", "image": "i", "ports": ports if n % 2 else []}]},
            "status": {"podIP": f"10.1.{n}.1", "phase": "Running"},
        }
        for n, (namespace, labels) in enumerate(combinations)
    ]


OBJECTS = [
    *({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": n, "labels": v}} for n, v in NAMESPACES.items()),
    *_pods(),
]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(_policies())
def test_calico_and_kubernetes_agree(policies: list[Document]) -> None:
    """Every flow between pods and outside addresses gets the verdict that the Kubernetes specification gives it."""
    loaded = assembled(found_in((f"object{n}", json.dumps(each)) for n, each in enumerate([*policies, *OBJECTS])))
    assert loaded.problems == ()
    directory, ruleset = Directory(loaded.inventory), Ruleset.of(loaded.inventory)
    labels = {name: {**own, "kubernetes.io/metadata.name": name} for name, own in NAMESPACES.items()}
    outside = [directory.at(ip_address(a)) for a in ("192.0.2.1", "10.1.77.1", "10.1.0.99")]
    parties = [*directory.parties(), *outside]
    for source in parties:
        for target in parties:
            for protocol, port in ((6, 80), (6, 82), (17, 80), (17, 53)):
                flow = Flow(source, target, protocol, port)
                expected = all(_allowed(policies, labels, flow, direction) for direction in Direction)
                assert evaluate(flow, ruleset).allowed == expected, str(flow)
