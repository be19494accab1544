"""Generated Log policies on random worlds: what is proved is true, and what is true is proved."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_network

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies.evaluate import Ruleset, Walk
from policies.generate import Options, generate
from policies.model import Action, EntityRule, Inventory, Rule
from policies.symbolic import disjoint
from policies.verify import verify
from tests.policies.worlds import endpoints, host_endpoints, packets, policy_sets, walks

DECIDING = (Action.ALLOW, Action.DENY, Action.PASS)
ORDERS = (100.0, 500.0, 1000.0, 2000.0)
LOGS = policy_sets((Action.LOG,), "log", (50.0, 900.0, 3000.0, None), hosts=True)
FEW = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))


def _applied(sources: Inventory, generated: Inventory) -> Inventory:
    return replace(sources, policies=(*sources.policies, *generated.policies))


def _differs(was: Walk, now: Walk) -> bool:
    return was.allowed != now.allowed or (len(now.logs) > len(was.logs)) == now.allowed


def _wrong(sources: Inventory, generated: Inventory) -> list[str]:
    """The packets of the whole universe for which the claim fails, found by counting."""
    before, after = Ruleset.of(sources), Ruleset.of(_applied(sources, generated))
    wrong = []
    for own in (*endpoints(), *host_endpoints()):
        for direction, flow in packets(own):
            pairs = zip(walks(before, direction, flow), walks(after, direction, flow), strict=True)
            wrong += [f"{now.hook} {flow}" for was, now in pairs if _differs(was, now)]
    return wrong


@FEW
@given(policy_sets(DECIDING, "source", ORDERS, hosts=True), st.booleans())
def test_generated_policies_log_exactly_the_denied_packets(sources: Inventory, per_policy: bool) -> None:
    """Where generate does not refuse, no packet changes its verdict, and exactly the denied ones are logged."""
    plan = generate(sources, Options(per_policy=per_policy))
    if not plan.refusals:
        generated = Inventory(policies=tuple(made.policy for made in plan.made))
        assert _wrong(sources, generated) == []


@FEW
@given(policy_sets(DECIDING, "source", ORDERS, hosts=True), LOGS)
def test_verify_says_what_counting_says(sources: Inventory, generated: Inventory) -> None:
    """For any set of Log policies, right or wrong, verify proves it exactly where counting finds no wrong packet."""
    proof = verify(sources, generated.policies)
    wrong = _wrong(sources, generated)
    assert proof.undecided == ()
    if wrong:
        assert not proof.holds
    for found in proof.counterexamples:
        assert found.before.allowed != found.after.allowed or (found.lines > 0) == found.after.allowed


NETS = st.lists(
    st.builds(
        lambda net, length: ip_network(f"{net}/{length}", strict=False),
        st.sampled_from(
            ["0.0.0.0", "48.0.0.0", "64.0.0.0", "160.0.0.0", "240.0.0.0", "::", "3000::", "4000::", "f000::"]
        ),
        st.integers(0, 4),
    ),
    max_size=5,
).map(tuple)


@given(NETS, NETS)
def test_rules_share_no_packet_where_no_two_of_their_nets_meet(
    here: tuple[IPv4Network | IPv6Network, ...], there: tuple[IPv4Network | IPv6Network, ...]
) -> None:
    """Nested, equal and neighbouring nets of both versions, compared pair by pair."""
    one, other = (Rule(Action.DENY, source=EntityRule(nets=nets)) for nets in (here, there))
    meet = any(a.version == b.version and a.overlaps(b) for a in here for b in there)  # type: ignore[arg-type]
    assert disjoint(one, other) is (bool(here and there) and not meet)
