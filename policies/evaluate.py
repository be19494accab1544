"""What Calico does with a flow, and why: the walk over tiers, policies, rules and profiles, kept as evidence.

Rule: the verdict is read off the evidence, never computed beside it. The walk is that of felix/rules/endpoints.go
(endpointIptablesChain) and felix/calc/policy_sorter.go: tiers in order, policies in order, the first rule that matches
decides, Log goes on, a tier with an enforced policy for the endpoint ends in its default action, then come profiles.
Egress is walked before ingress, and a packet that egress drops never reaches ingress.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from policies.flow import Endpoint, Flow, Hook, Party
from policies.match import Mismatch, first_mismatch
from policies.model import Action, Direction, Inventory, Policy, Rule, Tier
from policies.scope import NAMESPACE, policy_term
from policies.selector import Test, compiled

ALLOW_PROFILES = ("kns.", "projectcalico-default-allow")
"""Profiles that allow both directions: every namespace's, and that of automatic host endpoints."""


class Ending(StrEnum):
    """What decided a walk."""

    RULE = "rule"
    END_OF_TIER = "end of tier"
    PROFILE = "profile"
    NO_PROFILE = "no profile"
    FALL_THROUGH = "no policy decided"


@dataclass(frozen=True, slots=True)
class RuleStep:
    """One rule that was looked at; `mismatch` is None where it matched."""

    index: int
    rule: Rule
    mismatch: Mismatch | None


@dataclass(frozen=True, slots=True)
class PolicyStep:
    """One policy for this endpoint and direction; `action` is None where no rule of it decided."""

    policy: Policy
    rules: tuple[RuleStep, ...]
    action: Action | None

    @property
    def logs(self) -> int:
        """How many Log rules the packet matched here."""
        return sum(step.mismatch is None and step.rule.action is Action.LOG for step in self.rules)


@dataclass(frozen=True, slots=True)
class TierStep:
    """One tier with the policies that apply; `action` is what it did: Allow, Deny or Pass."""

    tier: Tier
    policies: tuple[PolicyStep, ...]
    action: Action
    by_default: bool


@dataclass(frozen=True, slots=True)
class Walk:
    """The walk of one packet over the policies of one endpoint, direction and hook.

    `reached` is False where an earlier walk had dropped the packet. `staged` are the staged policies that select this
    endpoint in this direction: not enforced.
    """

    endpoint: Endpoint
    direction: Direction
    hook: Hook
    tiers: tuple[TierStep, ...]
    allowed: bool
    ending: Ending
    reached: bool = True
    staged: tuple[Policy, ...] = ()

    @property
    def logs(self) -> tuple[Policy, ...]:
        """The policies that log the packet, once for each line."""
        steps = (step for tier in self.tiers for step in tier.policies)
        return tuple(step.policy for step in steps for _ in range(step.logs)) if self.reached else ()

    @property
    def decided_by(self) -> tuple[Policy, ...]:
        """The policies that decided: the one whose rule matched, or all that isolate in the tier that ended it.

        Log-only policies are left out where others isolate too.
        """
        if self.ending is Ending.RULE:
            return (self.tiers[-1].policies[-1].policy,)
        if self.ending is not Ending.END_OF_TIER:
            return ()
        isolating = tuple(step.policy for step in self.tiers[-1].policies)
        return tuple(policy for policy in isolating if not log_only(policy)) or isolating

    @property
    def why(self) -> str:
        """The decision in one sentence."""
        return _why(self)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a flow, with every walk in the order of the kernel; `notes` say what the files cannot."""

    flow: Flow
    walks: tuple[Walk, ...]
    notes: tuple[str, ...] = ()

    @property
    def allowed(self) -> bool:
        """Whether every walk lets the packet go on."""
        return all(walk.allowed for walk in self.walks)

    @property
    def denied_by(self) -> tuple[Policy, ...]:
        """The policies that drop the packet; empty where it is allowed or no policy is to blame."""
        return next((walk.decided_by for walk in self.walks if not walk.allowed), ())

    @property
    def logs(self) -> tuple[Policy, ...]:
        """The policies that log the packet, once for each line that the kernel writes."""
        return tuple(policy for walk in self.walks for policy in walk.logs)

    @property
    def why(self) -> str:
        """The reason in one sentence: that of the walk that dropped it, or of all that allowed it."""
        denied = next((walk.why for walk in self.walks if not walk.allowed), None)
        return denied or "; ".join(walk.why for walk in self.walks) or "no policy governs either end"


def _why(walk: Walk) -> str:
    side = f"{walk.direction.value.lower()} of {walk.endpoint.name}"
    if walk.ending is Ending.RULE:
        step = walk.tiers[-1].policies[-1]
        return f"{side}: rule {step.rules[-1].index + 1} of {step.policy} says {step.rules[-1].rule.action}"
    if walk.ending is Ending.END_OF_TIER:
        names = ", ".join(str(policy) for policy in walk.decided_by)
        verb = "isolates" if len(walk.decided_by) == 1 else "isolate"
        return f"{side}: no rule allows it, and tier {walk.tiers[-1].tier.name} then drops what {names} {verb}"
    profile = {
        Ending.PROFILE: "no policy decides, and its profile allows",
        Ending.NO_PROFILE: "no policy decides, and no profile of it allows",
        Ending.FALL_THROUGH: f"no {walk.hook} policy decides, so the packet goes on",
    }
    return f"{side}: {profile[walk.ending]}"


def log_only(policy: Policy) -> bool:
    """Whether every rule of the policy only logs."""
    rules = (*policy.ingress, *policy.egress)
    return bool(rules) and all(rule.action is Action.LOG for rule in rules)


# -- which policies, in which order ----------------------------------------------------------------------------------


def in_hook(policy: Policy, hook: Hook) -> bool:
    """Whether Felix renders the policy there (event_sequencer.go)."""
    if policy.do_not_track or policy.pre_dnat:
        return hook is (Hook.UNTRACKED if policy.do_not_track else Hook.PRE_DNAT)
    return hook is Hook.NORMAL or (hook is Hook.FORWARD and policy.apply_on_forward)


def governs(policy: Policy, direction: Direction) -> bool:
    """Whether the policy counts in this direction; no types at all mean both (policy_sorter.go)."""
    return direction in policy.types or not policy.types


def tier_key(tier: Tier) -> tuple[float, str]:
    """Tiers sort by order, none last, then by name."""
    return (math.inf if tier.order is None else tier.order, tier.name)


def policy_key(policy: Policy) -> tuple[float, str]:
    """Policies of a tier sort by order, none last, then as Calico 3.32 breaks ties: `name/namespace/kind`."""
    order = math.inf if policy.order is None else policy.order
    return (order, f"{policy.name}/{policy.namespace or ''}/{policy.kind}")


def ordered_tiers(inventory: Inventory) -> list[tuple[Tier, list[Policy]]]:
    """The tiers that hold policies, in order, each with its policies in order; unknown tiers come last and deny."""
    names = {policy.tier for policy in inventory.policies}
    known = {name: inventory.tier(name) for name in names}
    tiers = sorted((tier for tier in known.values() if tier), key=tier_key)
    tiers += [Tier(name) for name in sorted(name for name, tier in known.items() if tier is None)]
    return [(t, sorted((p for p in inventory.policies if p.tier == t.name), key=policy_key)) for t in tiers]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A policy with its compiled selector."""

    policy: Policy
    selects: Test


@dataclass(frozen=True, slots=True)
class Ruleset:
    """Policies in the order of the walk, selectors compiled; build it once for many flows."""

    tiers: tuple[tuple[Tier, tuple[Prepared, ...]], ...]
    staged: tuple[Prepared, ...] = field(default=())

    @classmethod
    def of(cls, inventory: Inventory) -> Ruleset:
        """Sort and compile. Raises SelectorError."""
        tiers = [(tier, [*map(prepared, policies)]) for tier, policies in ordered_tiers(inventory)]
        enforced = tuple((tier, tuple(p for p in ps if not p.policy.staged)) for tier, ps in tiers)
        return cls(enforced, tuple(p for _, ps in tiers for p in ps if p.policy.staged))

    def selecting(self, endpoint: Endpoint) -> Ruleset:
        """The part of it that selects an endpoint; it gives that endpoint the same walks."""
        tiers = tuple((tier, tuple(_selecting(ps, endpoint))) for tier, ps in self.tiers)
        return Ruleset(tiers, tuple(_selecting(self.staged, endpoint)))


def prepared(policy: Policy) -> Prepared:
    """The policy, its selector compiled. Raises SelectorError."""
    return Prepared(policy, compiled(policy_term(policy)))


def may_select(policies: Iterable[Prepared], endpoint: Endpoint) -> Iterator[Prepared]:
    """Those whose selectors are worth asking: most policies belong to other namespaces."""
    namespace = endpoint.labels.get(NAMESPACE)
    return (p for p in policies if p.policy.namespace in (None, namespace) or p.policy.namespace_selector)


def _selecting(policies: Iterable[Prepared], endpoint: Endpoint) -> Iterator[Prepared]:
    return (each for each in may_select(policies, endpoint) if each.selects(endpoint.labels))


# -- the walk --------------------------------------------------------------------------------------------------------


def _applying(policies: Sequence[Prepared], endpoint: Endpoint, direction: Direction, hook: Hook) -> list[Policy]:
    return [
        each.policy
        for each in policies
        if in_hook(each.policy, hook) and governs(each.policy, direction) and each.selects(endpoint.labels)
    ]


def _policy_step(policy: Policy, direction: Direction, flow: Flow) -> PolicyStep:
    steps: list[RuleStep] = []
    for index, rule in enumerate(policy.rules(direction)):
        steps.append(RuleStep(index, rule, first_mismatch(rule, flow, policy.namespace)))
        if steps[-1].mismatch is None and rule.action is not Action.LOG:
            return PolicyStep(policy, tuple(steps), rule.action)
    return PolicyStep(policy, tuple(steps), None)


def _tier_step(tier: Tier, policies: list[Policy], direction: Direction, hook: Hook, flow: Flow) -> TierStep:
    steps: list[PolicyStep] = []
    for policy in policies:
        steps.append(_policy_step(policy, direction, flow))
        if (action := steps[-1].action) is not None:
            return TierStep(tier, tuple(steps), action, False)
    default = tier.default_action if hook in (Hook.NORMAL, Hook.FORWARD) else Action.PASS
    return TierStep(tier, tuple(steps), default, True)


def walk(ruleset: Ruleset, endpoint: Endpoint, direction: Direction, hook: Hook, flow: Flow) -> Walk:
    """Walk one packet over one endpoint's policies."""
    steps: list[TierStep] = []
    staged = tuple(_applying(ruleset.staged, endpoint, direction, hook))
    for tier, prepared in ruleset.tiers:
        policies = _applying(prepared, endpoint, direction, hook)
        if not policies:
            continue
        steps.append(_tier_step(tier, policies, direction, hook, flow))
        if steps[-1].action is not Action.PASS:
            ending = Ending.END_OF_TIER if steps[-1].by_default else Ending.RULE
            allowed = steps[-1].action is Action.ALLOW
            return Walk(endpoint, direction, hook, tuple(steps), allowed, ending, staged=staged)
    ending = _without_decision(endpoint, hook)
    return Walk(endpoint, direction, hook, tuple(steps), ending is not Ending.NO_PROFILE, ending, staged=staged)


def _without_decision(endpoint: Endpoint, hook: Hook) -> Ending:
    """After the last tier: profiles in the normal chains; the raw, mangle and forward chains let the packet go on."""
    if hook is not Hook.NORMAL:
        return Ending.FALL_THROUGH
    allows = any(profile.startswith(ALLOW_PROFILES) for profile in endpoint.profiles)
    return Ending.PROFILE if allows else Ending.NO_PROFILE


Visit = tuple[Endpoint, Direction, Hook]
"""An endpoint whose policies a packet meets, in which direction, and in which chain."""
Rules = Callable[[Endpoint], Ruleset]
"""Those policies that may select an endpoint."""


def tiers_at(rules: Rules, visit: Visit) -> tuple[Tier, ...]:
    """The tiers that a packet goes through there, in order: those with an enforced policy for it."""
    endpoint, direction, hook = visit
    return tuple(tier for tier, each in rules(endpoint).tiers if _applying(each, endpoint, direction, hook))


_HOST_INGRESS = (Hook.UNTRACKED, Hook.PRE_DNAT, Hook.NORMAL)


def _host_in(party: Party | None, hooks: Iterable[Hook]) -> list[Visit]:
    endpoint = party.endpoint if party else None
    return [(endpoint, Direction.INGRESS, hook) for hook in hooks] if endpoint and endpoint.host else []


def _host_out(party: Party | None, hooks: Iterable[Hook]) -> list[Visit]:
    endpoint = party.endpoint if party else None
    return [(endpoint, Direction.EGRESS, hook) for hook in hooks] if endpoint and endpoint.host else []


def _pod(party: Party, direction: Direction) -> list[Visit]:
    endpoint = party.endpoint
    return [(endpoint, direction, Hook.NORMAL)] if endpoint and not endpoint.host else []


def _host_to_its_pod(flow: Flow) -> bool:
    """A node's own traffic to its pods is not policed (felix/rules/static.go)."""
    source, destination = flow.source.endpoint, flow.destination.endpoint
    if source is None or destination is None or destination.host:
        return False
    return source.host and bool(source.node) and source.node == destination.node


def visits(flow: Flow) -> list[Visit]:
    """The endpoints, directions and hooks that a flow passes, in the order of the kernel."""
    if _host_to_its_pod(flow):
        return []
    return [
        *_host_in(flow.entering, (Hook.UNTRACKED, Hook.PRE_DNAT, Hook.FORWARD)),
        *_pod(flow.source, Direction.EGRESS),
        *_host_out(flow.source, (Hook.UNTRACKED, Hook.NORMAL)),
        *_pod(flow.destination, Direction.INGRESS),
        *_host_in(flow.destination, _HOST_INGRESS),
        *_host_out(flow.leaving, (Hook.FORWARD, Hook.UNTRACKED)),
    ]


def _notes(flow: Flow) -> tuple[str, ...]:
    ends = (flow.source, flow.destination)
    missing = "has no address in the files: rules with nets are taken not to match it"
    notes = [f"{party.name} {missing}" for party in ends if party.address is None]
    if _host_to_its_pod(flow):
        notes.append("Calico does not police a node's own traffic to its pods")
    pod, host = flow.source.endpoint, flow.destination.endpoint
    if pod and host and not pod.host and host.host and pod.node == host.node:
        notes.append("a pod to its own node is also subject to Felix' DefaultEndpointToHostAction")
    return tuple(notes)


def _accepts_early(walk: Walk) -> bool:
    """An Allow in raw or mangle sets the accept mark, so the host endpoint's later chains are skipped (static.go)."""
    return walk.hook in (Hook.UNTRACKED, Hook.PRE_DNAT) and walk.allowed and walk.ending is Ending.RULE


def evaluate(flow: Flow, ruleset: Ruleset) -> Verdict:
    """What becomes of the flow, with the evidence; all walks are made, also those that a dropped packet misses."""
    return evaluate_at(visits(flow), flow, lambda endpoint: ruleset)


def selected(ruleset: Ruleset) -> Rules:
    """The part of a ruleset that selects an endpoint, found once for each: a cluster has thousands of policies."""
    found: dict[Endpoint, Ruleset] = {}

    def rules(endpoint: Endpoint) -> Ruleset:
        if endpoint not in found:
            found[endpoint] = ruleset.selecting(endpoint)
        return found[endpoint]

    return rules


def evaluate_at(places: Iterable[Visit], flow: Flow, rules: Rules) -> Verdict:
    """What becomes of the flow at these places alone, in their order; `rules` gives those that may select one."""
    walks: list[Walk] = []
    reached = True
    accepted: set[tuple[str, Direction]] = set()
    for endpoint, direction, hook in places:
        if endpoint.host and (endpoint.name, direction) in accepted:
            continue
        made = walk(rules(endpoint), endpoint, direction, hook, flow)
        walks.append(made if reached else replace(made, reached=False))
        reached = reached and made.allowed
        if _accepts_early(made):
            accepted.add((endpoint.name, direction))
    return Verdict(flow, tuple(walks), _notes(flow))
