"""The evaluator against the real kernel: what arrives and what is logged is what it predicts."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import HealthCheck, given, settings

from policies.evaluate import Ruleset, evaluate
from policies.flow import Directory, Flow
from policies.generate import generate
from policies.model import Action, Inventory, Pod
from tests.policies.dataplane import Cluster, Probe, cluster
from tests.policies.worlds import policy_sets
from tests.system.kernel import missing

REASON = missing("iptables", "iptables-restore", "sysctl")
pytestmark = [pytest.mark.system, pytest.mark.skipif(bool(REASON), reason=REASON)]

PODS = (
    Pod(name="a", namespace="one", labels={"app": "a", "tier": "x"}, addresses=(ip_address("10.1.0.1"),)),
    Pod(name="b", namespace="one", labels={"app": "b"}, addresses=(ip_address("10.2.0.1"),)),
    Pod(name="c", namespace="two", labels={"app": "a"}, addresses=(ip_address("10.1.0.2"),)),
    Pod(name="d", namespace="two", labels={"tier": "x"}, addresses=(ip_address("192.0.2.9"),)),
)
KINDS = ((6, 80), (6, 81), (17, 80), (17, 53))
_PORTS = itertools.count(20_000)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for all examples; only its rules change."""
    with cluster(PODS, tmp_path_factory.mktemp("cluster")) as made:
        yield made


def _probes() -> list[Probe]:
    pairs = [(str(a.addresses[0]), str(b.addresses[0])) for a, b in itertools.permutations(PODS, 2)]
    return [Probe(protocol, *pair, next(_PORTS), port) for pair in pairs for protocol, port in KINDS]


def _predicted(world: Inventory, probes: list[Probe]) -> tuple[set[Probe], Counter[Probe]]:
    directory, ruleset = Directory(world), Ruleset.of(world)
    arrived, logged = set[Probe](), Counter[Probe]()
    for probe in probes:
        ends = (directory.find(probe.source), directory.find(probe.target))
        verdict = evaluate(Flow(*ends, probe.protocol, probe.port, probe.source_port), ruleset)
        if verdict.allowed:
            arrived.add(probe)
        if verdict.logs:
            logged[probe] = len(verdict.logs)
    return arrived, logged


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(sources=policy_sets((Action.ALLOW, Action.DENY, Action.PASS), "source", (100.0, 500.0, 1000.0, 2000.0)))
def test_the_kernel_does_what_the_evaluator_says(sources: Inventory, node: Cluster) -> None:
    """Random policies with their Log policies: packets that arrive, and lines in the kernel's log, one by one."""
    plan = generate(sources)
    if plan.refusals:
        return
    generated = tuple(made.policy for made in plan.made)
    world = replace(sources, policies=(*sources.policies, *generated), pods=PODS)
    node.apply(world)
    probes = _probes()
    arrived, logged = node.send(probes)
    expected_arrivals, expected_lines = _predicted(world, probes)
    assert arrived == expected_arrivals
    assert logged == expected_lines
    assert set(logged) == set(probes) - arrived
