"""Small random worlds for property tests: policies, tiers, and every packet that such policies can tell apart.

Rule: the universe is closed. Policies only name labels, ports, protocols and nets from the tables here, and `packets`
holds one packet for each combination of them, other values included, so a test can compare a proof with plain counting.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from hypothesis import strategies as st

from policies.evaluate import Ruleset, Walk, walk
from policies.flow import Endpoint, Flow, Hook, Party
from policies.model import (
    Action,
    Direction,
    EntityRule,
    Inventory,
    Policy,
    PolicyKind,
    PortRange,
    Rule,
    Tier,
)
from policies.scope import NAMESPACE, ORCHESTRATOR

NAMESPACES = ("one", "two")
SELECTORS = ("", "all()", "app == 'a'", "app != 'a'", "has(app)", "app in {'a', 'b'} && tier == 'x'", "!has(tier)")
NETS = (ip_network("10.1.0.0/16"), ip_network("10.0.0.0/8"))
TIERS = (Tier("early", 100.0, Action.DENY), Tier("loose", 200.0, Action.PASS))

HOOKS = ((False, False, False), (True, False, False), (True, True, False), (True, False, True))
"""(applyOnForward, preDNAT, doNotTrack) as Calico allows them together."""

_APPS = (None, "a", "b", "c")
_TIERS = (None, "x", "y")
_ADDRESSES = tuple(map(ip_address, ("10.1.0.1", "10.2.0.1", "192.0.2.1")))
_KINDS = ((6, 80), (6, 81), (17, 80), (1, None))


def entities() -> st.SearchStrategy[EntityRule]:
    """One side of a rule."""
    few = st.sampled_from(("", "", *SELECTORS))
    return st.builds(
        EntityRule,
        nets=st.sampled_from(((), (), (NETS[0],), (NETS[1],))),
        not_nets=st.sampled_from(((), (), (NETS[0],))),
        selector=few,
        not_selector=st.sampled_from(("", "", "app == 'b'")),
    )


@st.composite
def rules(draw: st.DrawFn, actions: tuple[Action, ...]) -> Rule:
    """A rule with at most a peer, a protocol and a port; half of them say nothing about the peer."""
    protocol = draw(st.sampled_from((None, "TCP", "UDP")))
    ports = draw(st.sampled_from(((), (PortRange(80, 80),), (PortRange(80, 443),)))) if protocol else ()
    source = draw(st.one_of(st.just(EntityRule()), entities()))
    far = draw(st.one_of(st.just(EntityRule()), st.just(EntityRule()), entities()))
    destination = EntityRule(far.nets, far.not_nets, far.selector, far.not_selector, "", ports)
    return Rule(draw(st.sampled_from(actions)), protocol=protocol, source=source, destination=destination)


def rule_lists(actions: tuple[Action, ...]) -> st.SearchStrategy[tuple[Rule, ...]]:
    """Up to three rules."""
    return st.lists(rules(actions), max_size=3).map(tuple)


@st.composite
def policy_sets(
    draw: st.DrawFn, actions: tuple[Action, ...], prefix: str, orders: tuple[float | None, ...], hosts: bool = False
) -> Inventory:
    """Up to four policies, namespaced and cluster-wide, in three tiers; with `hosts` some for host endpoints only."""
    policies = []
    for number in range(draw(st.integers(1, 4))):
        namespace = draw(st.sampled_from((*NAMESPACES, None)))
        hook = draw(st.sampled_from(HOOKS)) if hosts and namespace is None else HOOKS[0]
        types = draw(st.sampled_from((tuple(Direction), (Direction.INGRESS,), (Direction.EGRESS,))))
        policies.append(
            Policy(
                kind=PolicyKind.NETWORK_POLICY if namespace else PolicyKind.GLOBAL_NETWORK_POLICY,
                name=f"{prefix}{number}",
                namespace=namespace,
                tier=draw(st.sampled_from(("default", "default", "early", "loose"))),
                order=draw(st.sampled_from(orders)),
                selector=draw(st.sampled_from(SELECTORS)),
                types=(Direction.INGRESS,) if hook[1] else types,
                apply_on_forward=hook[0],
                pre_dnat=hook[1],
                do_not_track=hook[2],
                ingress=draw(rule_lists(actions)),
                egress=draw(rule_lists(actions)),
            )
        )
    return Inventory(policies=tuple(policies), tiers=TIERS)


def _labels(namespace: str, app: str | None, tier: str | None) -> dict[str, str]:
    own = {key: value for key, value in (("app", app), ("tier", tier)) if value}
    return own | {NAMESPACE: namespace, ORCHESTRATOR: "k8s"}


def _maps() -> Iterator[dict[str, str]]:
    for namespace, app, tier in itertools.product((*NAMESPACES, "three"), _APPS, _TIERS):
        yield _labels(namespace, app, tier)


def endpoints() -> list[Party]:
    """One pod for each combination of labels."""
    return [
        Party("own", _ADDRESSES[0], (labels,), endpoint=Endpoint(str(labels), labels, profiles=("kns.",)))
        for labels in _maps()
    ]


def host_endpoints() -> list[Party]:
    """One host endpoint for each combination of labels, with a profile that allows."""
    maps = [{k: v for k, v in (("app", app), ("tier", tier)) if v} for app in _APPS for tier in _TIERS]
    return [
        Party("host", _ADDRESSES[0], (labels,), endpoint=Endpoint(str(labels), labels, True, profiles=("kns.",)))
        for labels in maps
    ]


def peers() -> list[Party]:
    """Outside addresses, and pods for each combination of labels that policies name."""
    outside = [Party("outside", address) for address in _ADDRESSES]
    few = [_labels(n, a, t) for n, a, t in itertools.product(NAMESPACES, ("a", "b", None), ("x", None))]
    return [*outside, *(Party("peer", address, (labels,)) for labels in few for address in _ADDRESSES[1:])]


def packets(own: Party) -> Iterator[tuple[Direction, Flow]]:
    """Every kind of packet to and from one pod."""
    for peer, (protocol, port) in itertools.product(peers(), _KINDS):
        yield Direction.INGRESS, Flow(peer, own, protocol, port)
        yield Direction.EGRESS, Flow(own, peer, protocol, port)


def walks(ruleset: Ruleset, direction: Direction, flow: Flow) -> list[Walk]:
    """The walks of one packet at its own pod, or at its own host endpoint in every hook."""
    endpoint = flow.side(direction).endpoint
    assert endpoint is not None
    hooks = tuple(Hook) if endpoint.host else (Hook.NORMAL,)
    return [walk(ruleset, endpoint, direction, hook, flow) for hook in hooks]
