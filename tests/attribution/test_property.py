"""Whoever denies a packet is whom its log line is attributed to: random policies, with the Log policies made for them.

Rule: objects and lines go through text: policies are written as Calico objects and read back, packets are lines that
the reference parser reads.
"""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime
from ipaddress import ip_address

from hypothesis import HealthCheck, given, settings

from parser.line import parse
from parser.options import Options
from parser.packet import Packet
from policies.denial import Ruling, explain_denial, ruled
from policies.emit import log_object
from policies.evaluate import Ruleset, Verdict, evaluate
from policies.flow import Directory, Flow
from policies.generate import Options as Wanted
from policies.generate import generate
from policies.load import assembled, found_as
from policies.model import Action, Direction, Inventory, Tier
from policies.past import Past, Version
from policies.render import policy_object
from tests.attribution.cluster import START, calico, line, pod
from tests.policies.worlds import policy_sets

_LABELS = ({"app": "a", "tier": "x"}, {"app": "a"}, {"app": "b", "tier": "y"}, {"role": "none"})
PODS = [
    pod(f"{namespace}/pod{number}", f"10.{number % 2 + 1}.0.{number + 1}", labels, nodeName=f"node-{number % 3}")
    for number, (namespace, labels) in enumerate(itertools.product(("one", "two"), _LABELS))
]
OUTSIDE = ("192.0.2.1", "10.1.0.77")
KINDS = ((6, 80, "TCP SPT=40000 DPT=80 WINDOW=64240 RES=0x00 SYN URGP=0"), (17, 53, "UDP SPT=40000 DPT=53 LEN=40"))


def _tier(each: Tier) -> dict[str, object]:
    return calico("Tier", each.name, {"order": each.order, "defaultAction": each.default_action.value})


def _line(flow: Flow, verdict: Verdict, kind: str) -> str:
    """What the node writes where the packet was denied; a packet between nodes comes or goes by eth0."""
    walk = next(walk for walk in verdict.walks if not walk.allowed)
    source, destination = flow.source, flow.destination
    ends = [end.endpoint.node if end.endpoint else "" for end in (source, destination)]
    here = ends[0] == ends[1]
    enters = source.name if walk.direction is Direction.EGRESS or here else "eth0"
    leaves = destination.name if walk.direction is Direction.INGRESS or here else "eth0"
    return line(str(source.address), str(destination.address), kind, enters=enters, leaves=leaves)


def _parsed(text: str) -> dict[str, object]:
    outcome = parse(text.rstrip("\n"), Options(), anchor=datetime(2026, 11, 22, tzinfo=UTC))
    assert isinstance(outcome, Packet), outcome
    return outcome.as_dict() | {"time": outcome.time}


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(sources=policy_sets((Action.ALLOW, Action.DENY, Action.PASS), "source", (500.0, 1000.0, 2000.0)))
def test_each_denied_packet_is_attributed_to_the_policies_that_deny_it(sources: Inventory) -> None:
    """The evaluator on both ends of a flow, and the attribution of the one line that comes of it, name the same."""
    plan = generate(sources, Wanted())
    logs = [] if plan.refusals else [log_object(made) for made in plan.made]
    tiers = [_tier(each) for each in sources.tiers]
    objects = json.loads(json.dumps([*PODS, *tiers, *map(policy_object, sources.policies), *logs]))
    loaded = assembled(found_as(objects, "world"))
    assert loaded.problems == ()
    past, directory, ruleset = Past(map(Version, objects)), Directory(loaded.inventory), Ruleset.of(loaded.inventory)
    parties = [*directory.parties(), *(directory.at(ip_address(text)) for text in OUTSIDE)]
    for source, destination in itertools.permutations(parties, 2):
        for protocol, port, kind in KINDS:
            flow = Flow(source, destination, protocol, port)
            verdict = evaluate(flow, ruleset)
            if verdict.allowed:
                continue
            packet = _parsed(_line(flow, verdict, kind))
            found = ruled(packet, past)
            assert isinstance(found, Ruling), found
            assert found.denied_by == tuple(map(str, verdict.denied_by))
            assert found.span.since <= START < found.span.until


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(sources=policy_sets((Action.ALLOW, Action.DENY), "source", (500.0, 1000.0)))
def test_an_explanation_names_the_same_policies_and_a_policy_that_would_allow_it(sources: Inventory) -> None:
    """What a person is shown of one packet agrees with its attribution, and the proposal works or says why not."""
    objects = json.loads(json.dumps([*PODS, *map(_tier, sources.tiers), *map(policy_object, sources.policies)]))
    packet = _parsed(line("192.0.2.1", "10.1.0.1", KINDS[0][2], leaves="one/pod0"))
    ruling, told = ruled(packet, Past(map(Version, objects))), explain_denial(packet, objects)
    if not isinstance(ruling, Ruling):
        assert told.denied in (None, False)
        assert told.why == ruling.why
        return
    assert (told.denied, told.denied_by, told.why) == (True, ruling.denied_by, ruling.why)
    assert {each.policy for each in told.policies} >= set(ruling.denied_by)
    assert bool(told.proposal) is not bool(told.refused)
