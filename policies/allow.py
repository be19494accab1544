"""The smallest policy that would allow given denied flows.

Rule: never wider than asked. Pods are named by their workload's labels (not those that change with every rollout),
other pods that happen to carry the same labels and more are kept out by name, addresses stand only for what is no pod,
and the result is run through the evaluator: what it opens beside the flows is handed back, what it cannot allow is
refused with the reason.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from policies.companions import places_before
from policies.evaluate import Ending, Ruleset, Walk, evaluate_at, ordered_tiers, selected, visits
from policies.flow import PROTOCOL_NAMES, Flow, Party
from policies.load import assembled, found_in
from policies.model import Direction, Inventory, Pod, Policy
from policies.reach import Change, changes_beside, compare
from policies.render import Data

VOLATILE = frozenset(
    {
        "pod-template-hash",
        "controller-revision-hash",
        "pod-template-generation",
        "controller-uid",
        "batch.kubernetes.io/controller-uid",
        "job-name",
        "batch.kubernetes.io/job-name",
        "batch.kubernetes.io/job-completion-index",
        "statefulset.kubernetes.io/pod-name",
        "apps.kubernetes.io/pod-index",
    }
)
"""Labels that controllers put on one pod or one rollout; they do not name a workload."""

NAMESPACE_NAME = "kubernetes.io/metadata.name"
KUBERNETES_PROTOCOLS = ("TCP", "UDP", "SCTP")
KUBERNETES_ORDER = 1000


@dataclass(frozen=True, slots=True)
class Refused:
    """A flow that no proposed policy allows, with the reason."""

    flow: Flow
    reason: str

    def __str__(self) -> str:
        return f"{self.flow}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Proposal:
    """Objects to apply, what they change for the flows, and every other flow that they open or close."""

    objects: tuple[Data, ...]
    changes: tuple[Change, ...]
    beside: tuple[Change, ...]
    refused: tuple[Refused, ...]
    unseen: int = 0
    """Kinds of flows beside that were too many to look at."""


class Workload(NamedTuple):
    """Pods as a selector: labels they have, and label keys they do not have."""

    labels: tuple[tuple[str, str], ...]
    without: tuple[str, ...] = ()


class _Home(NamedTuple):
    """The policy that an allowing rule goes into."""

    namespace: str
    workload: Workload
    tier: str
    order: float


class _Opening(NamedTuple):
    """One rule: the direction, the far end, the protocol and the port (or ICMP type)."""

    direction: Direction
    peer: str
    protocol: int
    number: int | None


@dataclass(slots=True)
class _Draft:
    """Rules collected so far, with the far end of each."""

    rules: dict[_Home, dict[_Opening, Data]] = field(default_factory=dict)
    refused: list[Refused] = field(default_factory=list)


class _CannotAllow(Exception):
    """Why a flow cannot be allowed; the argument is the sentence."""


class Names:
    """How the objects of an inventory are named in policies; each workload is worked out once."""

    def __init__(self, inventory: Inventory) -> None:
        self.tiers = {tier.name: policies for tier, policies in ordered_tiers(inventory)}
        self._found: dict[Pod, Workload] = {}
        self._others: defaultdict[str, dict[frozenset[tuple[str, str]], None]] = defaultdict(dict)
        for pod in inventory.pods:
            if pod.is_endpoint:
                self._others[pod.namespace][frozenset(_lasting(pod).items())] = None

    def workload(self, pod: Pod) -> Workload:
        """The selector of a pod's workload; pods of other workloads in its namespace are not in it.

        Raises _CannotAllow for a pod without labels of its own.
        """
        if pod not in self._found:
            self._found[pod] = self._worked_out(pod)
        return self._found[pod]

    def _worked_out(self, pod: Pod) -> Workload:
        labels = _lasting(pod)
        if not labels:
            raise _CannotAllow(f"pod {pod.namespace}/{pod.name} has no labels to name it by: give its workload a label")
        wider = [dict(other) for other in self._others[pod.namespace] if labels.items() < set(other)]
        without = sorted({min(set(other) - set(labels)) for other in wider})
        return Workload(tuple(sorted(labels.items())), tuple(without))


def _lasting(pod: Pod) -> dict[str, str]:
    return {key: value for key, value in pod.labels.items() if key not in VOLATILE}


def _kubernetes_selector(chosen: Workload) -> Data:
    selector: Data = {"matchLabels": dict(chosen.labels)}
    if chosen.without:
        selector["matchExpressions"] = [{"key": key, "operator": "DoesNotExist"} for key in chosen.without]
    return selector


def _calico_selector(chosen: Workload) -> str:
    terms = [f"{key} == '{value}'" for key, value in chosen.labels]
    return " && ".join(["projectcalico.org/orchestrator == 'k8s'", *terms, *(f"!has({k})" for k in chosen.without)])


def _net(party: Party) -> str:
    if party.address is None:
        raise _CannotAllow(f"{party.name} has no address in the files and no labels that a policy could name")
    return f"{party.address}/{party.address.max_prefixlen}"


def _kubernetes_peer(party: Party, namespace: str, names: Names) -> Data:
    if party.pod is None or not party.pod.is_endpoint:
        return {"ipBlock": {"cidr": _net(party)}}
    peer: Data = {"podSelector": _kubernetes_selector(names.workload(party.pod))}
    if party.pod.namespace != namespace:
        peer["namespaceSelector"] = {"matchLabels": {NAMESPACE_NAME: party.pod.namespace}}
    return peer


def _calico_peer(party: Party, namespace: str, names: Names) -> Data:
    if party.pod is None or not party.pod.is_endpoint:
        return {"nets": [_net(party)]}
    peer: Data = {"selector": _calico_selector(names.workload(party.pod))}
    if party.pod.namespace != namespace:
        peer["namespaceSelector"] = f"projectcalico.org/name == '{party.pod.namespace}'"
    return peer


# -- one flow --------------------------------------------------------------------------------------------------------


def _check_kubernetes(walk: Walk, flow: Flow) -> None:
    if PROTOCOL_NAMES.get(flow.protocol) not in KUBERNETES_PROTOCOLS:
        raise _CannotAllow(f"Kubernetes policies know no {flow.service}: use --calico")
    if walk.ending is Ending.RULE or walk.tiers[-1].tier.name != "default":
        raise _CannotAllow(f"{walk.why}; a Kubernetes policy comes too late to allow it: use --calico")


def _calico_home(walk: Walk, names: Names) -> tuple[str, float]:
    tier = walk.tiers[-1].tier.name
    if walk.ending is not Ending.RULE:
        return tier, float(KUBERNETES_ORDER)
    return tier, places_before(walk.decided_by[0], names.tiers[tier])


def _home(walk: Walk, flow: Flow, names: Names, calico: bool) -> _Home:
    pod = flow.side(walk.direction).pod
    if walk.endpoint.host or pod is None:
        raise _CannotAllow(f"{walk.why}; host endpoints are not opened by this command: change their policy by hand")
    if walk.ending not in (Ending.RULE, Ending.END_OF_TIER):
        raise _CannotAllow(f"{walk.why}; no policy denies it, so none can allow it")
    if not calico:
        _check_kubernetes(walk, flow)
    tier, order = _calico_home(walk, names) if calico else ("default", float(KUBERNETES_ORDER))
    return _Home(pod.namespace, names.workload(pod), tier, order)


def _opened(walk: Walk, flow: Flow, names: Names, calico: bool) -> tuple[_Home, _Opening, Data]:
    home = _home(walk, flow, names, calico)
    far = flow.source if walk.direction is Direction.INGRESS else flow.destination
    peer = (_calico_peer if calico else _kubernetes_peer)(far, home.namespace, names)
    number = flow.icmp_type if flow.destination_port is None else flow.destination_port
    opening = _Opening(walk.direction, json.dumps(peer, sort_keys=True), flow.protocol, number)
    return home, opening, peer


# -- objects ---------------------------------------------------------------------------------------------------------


def _kubernetes_rule(opening: _Opening, peer: Data) -> Data:
    side = "from" if opening.direction is Direction.INGRESS else "to"
    port = {"protocol": PROTOCOL_NAMES[opening.protocol], "port": opening.number}
    return {side: [peer], "ports": [port]}


def _calico_rule(opening: _Opening, peer: Data) -> Data:
    rule: Data = {"action": "Allow", "protocol": PROTOCOL_NAMES.get(opening.protocol, opening.protocol)}
    near, far = ("destination", "source") if opening.direction is Direction.INGRESS else ("source", "destination")
    ends: dict[str, Any] = {near: {}, far: dict(peer)}
    if PROTOCOL_NAMES.get(opening.protocol) in KUBERNETES_PROTOCOLS:
        ends["destination"]["ports"] = [opening.number]
    elif opening.number is not None:
        rule["icmp"] = {"type": opening.number}
    return rule | {end: value for end, value in ends.items() if value}


def _named(home: _Home, spec: Mapping[str, Any], calico: bool) -> Data:
    digest = hashlib.sha256(json.dumps([home, spec], sort_keys=True).encode()).hexdigest()[:8]
    prefix = f"{home.tier}." if calico and home.tier not in ("default", "kube-admin", "kube-baseline") else ""
    return {
        "apiVersion": "projectcalico.org/v3" if calico else "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": f"{prefix}allow-{digest}", "namespace": home.namespace},
        "spec": spec,
    }


def _object(home: _Home, rules: Mapping[_Opening, Data], calico: bool) -> Data:
    types = [d for d in Direction if any(opening.direction is d for opening in rules)]
    if calico:
        spec: Data = {"tier": home.tier, "order": home.order, "selector": _calico_selector(home.workload)}
    else:
        spec = {"podSelector": _kubernetes_selector(home.workload)}
    spec["types" if calico else "policyTypes"] = [direction.value for direction in types]
    write = _calico_rule if calico else _kubernetes_rule
    for direction in types:
        chosen = sorted(
            (o for o in rules if o.direction is direction), key=lambda o: (o.protocol, o.number or 0, o.peer)
        )
        spec[direction.value.lower()] = [write(opening, rules[opening]) for opening in chosen]
    return _named(home, spec, calico)


def policies_of(objects: Iterable[Data]) -> tuple[Policy, ...]:
    """Objects as the loader reads them. Raises PolicyError where it would refuse them."""
    return assembled(found_in([("proposal", json.dumps(each)) for each in objects])).inventory.policies


def allow(flows: Sequence[Flow], inventory: Inventory, *, calico: bool = False) -> Proposal:
    """Policies that allow the flows, each checked by the evaluator with what else they change among known pods.

    Flows that are allowed already need nothing; flows that cannot be allowed are in `refused`.
    """
    draft, names, rules = _Draft(), Names(inventory), selected(Ruleset.of(inventory))
    for flow in flows:
        try:
            denied = [walk for walk in evaluate_at(visits(flow), flow, rules).walks if not walk.allowed]
            for home, opening, peer in [_opened(walk, flow, names, calico) for walk in denied]:
                draft.rules.setdefault(home, {})[opening] = peer
        except _CannotAllow as refusal:
            draft.refused.append(Refused(flow, str(refusal)))
    objects = tuple(_object(home, rules, calico) for home, rules in sorted(draft.rules.items()))
    return _checked(flows, inventory, objects, draft.refused)


def _checked(
    flows: Sequence[Flow], inventory: Inventory, objects: tuple[Data, ...], refused: Sequence[Refused]
) -> Proposal:
    after = replace(inventory, policies=(*inventory.policies, *policies_of(objects)))
    changes = compare(flows, inventory, after)
    named = {id(each.flow) for each in refused}
    missed = [
        Refused(change.before.flow, f"still denied: {change.after.why}")
        for change in changes
        if not change.after.allowed and id(change.before.flow) not in named
    ]
    beside = changes_beside(flows, inventory, after)
    return Proposal(objects, tuple(changes), beside.changes, (*refused, *missed), beside.unseen)
