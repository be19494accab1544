"""What a change opens or closes beside: the short way (only what a changed rule matches) against asking about all."""

from __future__ import annotations

import itertools
import json
import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from policies.allow import allow
from policies.beside import Neighbours, Suspicion, changed
from policies.evaluate import Ruleset, evaluate
from policies.flow import Directory, Flow, Party
from policies.load import assembled, found_in
from policies.model import Action, HostEndpoint, Inventory, NetworkSet, Pod, Tier
from policies.reach import Beside, changes_beside
from tests.policies.worlds import policy_sets

_LABELS: tuple[dict[str, str], ...] = (
    {"app": "a", "tier": "x"},
    {"app": "a", "tier": "x"},
    {"app": "a"},
    {"app": "b"},
    {},
)
PODS = tuple(
    Pod(name=f"{space}-{number}", namespace=space, labels=labels, addresses=(ip_address(f"{net}.0.{number + 1}"),))
    for space, net in (("one", "10.1"), ("two", "10.2"))
    for number, labels in enumerate(_LABELS)
)
SIX = Pod(name="six", namespace="one", labels={"app": "c"}, addresses=(ip_address("2001:db8::6"),))
BARE = Pod(name="bare", namespace="two", labels={"app": "b"})
HOST = HostEndpoint(
    name="eth0", node="n1", labels={"app": "a"}, interface="eth0", addresses=(ip_address("10.9.0.1"),),
    profiles=("projectcalico-default-allow",),
)  # fmt: skip
SET = NetworkSet(name="partners", labels={"app": "b"}, nets=(ip_network("192.0.2.0/24"),))
OUTSIDE = ("192.0.2.1", "198.51.100.1", "10.1.0.77", "10.9.0.1")
KINDS = ((6, 80, None), (6, 443, None), (17, 80, None), (1, None, 8))


def _world(policies: Inventory, loose: Action) -> Inventory:
    """The policies over the same pods; the default action of a tier can be another one."""
    tiers = tuple(Tier(t.name, t.order, loose) if t.name == "loose" else t for t in policies.tiers)
    pods = (*PODS, SIX, BARE)
    return replace(policies, tiers=tiers, pods=pods, host_endpoints=(HOST,), network_sets=(SET,))


_SETS = policy_sets(tuple(Action), "policy", (500.0, 1000.0, 2000.0), hosts=True)
_WORLDS = st.builds(_world, policies=_SETS, loose=st.sampled_from((Action.PASS, Action.PASS, Action.DENY)))


def _ends(inventory: Inventory) -> list[Party]:
    directory = Directory(inventory)
    return [*directory.parties(), *(directory.at(ip_address(text)) for text in OUTSIDE)]


def _flows(inventory: Inventory, choices: list[int]) -> list[Flow]:
    """Some of all flows that there are."""
    pairs = [pair for pair in itertools.permutations(_ends(inventory), 2) if "one/six" not in (p.name for p in pair)]
    every = [Flow(a, b, protocol, port, icmp_type=icmp) for a, b in pairs for protocol, port, icmp in KINDS]
    return [every[choice % len(every)] for choice in choices]


def _told(beside: Beside) -> list[tuple[str, str, int, str, str]]:
    return sorted((c.kind, str(c.after.flow), c.alike, c.before.why, c.after.why) for c in beside.changes)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    before=_WORLDS,
    other=_WORLDS,
    kept=st.integers(0, 3),
    choices=st.lists(st.integers(0, 10_000), min_size=1, max_size=8),
)
def test_the_short_way_finds_what_asking_about_all_finds(
    before: Inventory, other: Inventory, kept: int, choices: list[int]
) -> None:
    """Policies, orders, tiers and host endpoints of all kinds: the same flows open and close, with the same words."""
    after = replace(other, policies=(*before.policies[:kept], *other.policies[kept:]))
    flows = _flows(after, choices)
    found = changes_beside(flows, before, after)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Suspicion, "falls_on", lambda self, flow: True)
        plain = changes_beside(flows, before, after)
    assert (_told(found), found.unseen) == (_told(plain), plain.unseen)
    event("something changes beside" if found.changes else "nothing changes beside")


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(before=_WORLDS, after=_WORLDS, choices=st.lists(st.integers(0, 10_000), min_size=1, max_size=30))
def test_neighbours_are_counted_without_being_made(before: Inventory, after: Inventory, choices: list[int]) -> None:
    """Also where some pairs of twins were asked about, or all of them; no pair is made twice."""
    flows = _flows(after, choices)
    around = Neighbours(flows, _ends(after), _ends(after), changed(before, after))
    made = [(each.flow.source.name, each.flow.destination.name, each.flow.service) for each in around]
    assert around.count() == len(made) == len(set(made))


def _cluster(namespaces: int, workloads: int) -> Inventory:
    """Isolated namespaces in which each workload lets in one other, three pods each."""
    objects: list[dict[str, object]] = []
    for space, load in itertools.product(range(namespaces), range(workloads)):
        metadata = {"name": f"w{load}", "namespace": f"n{space}"}
        others = [{"podSelector": {"matchLabels": {"app": f"w{(load + 1) % workloads}"}}}]
        spec = {
            "podSelector": {"matchLabels": {"app": f"w{load}"}},
            "ingress": [{"from": others, "ports": [{"port": 80}]}],
        }
        objects.append(
            {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}
        )
        for number in range(3):
            pod = {"name": f"w{load}-{number}", "namespace": f"n{space}", "labels": {"app": f"w{load}"}}
            status = {"phase": "Running", "podIP": f"10.{space}.{load}.{number + 1}"}
            objects.append({"apiVersion": "v1", "kind": "Pod", "metadata": pod, "status": status})
    return assembled(found_in((str(n), json.dumps(each)) for n, each in enumerate(objects))).inventory


def _denied(inventory: Inventory, number: int, ports: Sequence[int] = (80, 443, 5432)) -> list[Flow]:
    """So many denied flows, spread over the cluster."""
    ruleset, parties = Ruleset.of(inventory), Directory(inventory).parties()
    pairs = ((a, b) for step in (7, 11, 13) for a, b in zip(parties, parties[step:] + parties[:step], strict=True))
    flows = (Flow(a, b, 6, port) for a, b in pairs for port in ports)
    denied = [flow for flow in flows if not evaluate(flow, ruleset).allowed]
    return denied[:: len(denied) // number][:number]


def test_hundreds_of_flows_are_allowed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaving out what cannot change saves most of the time that 500 flows take, and changes no answer."""
    inventory = _cluster(10, 6)
    flows = _denied(inventory, 500)
    quick, found = min((_timed(flows, inventory) for _ in range(3)), key=lambda timed: timed[0])
    monkeypatch.setattr(Suspicion, "falls_on", lambda self, flow: True)
    slow, plain = _timed(flows, inventory)
    assert found == plain
    assert len(found) > 100
    assert quick * 1.5 < slow  # 2.7 times as fast where nothing else runs


def _timed(flows: list[Flow], inventory: Inventory) -> tuple[float, list[object]]:
    began = time.process_time()
    proposal = allow(flows, inventory)
    return time.process_time() - began, _told(Beside(proposal.beside, proposal.unseen))  # type: ignore[return-value]


def test_memory_does_not_grow_with_what_is_looked_at() -> None:
    """A hundred thousand kinds of flows beside are looked at one by one; what is kept are those that change."""
    inventory = _cluster(14, 8)
    flows = _denied(inventory, 300, range(8001, 8011))
    tracemalloc.start()
    proposal = allow(flows, inventory)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert proposal.unseen == 0
    assert peak < 20 * 2**20, peak
