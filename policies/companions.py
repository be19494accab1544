"""Log policies for explicit Deny rules: a policy just before the one that denies, which logs and changes nothing.

Rule: a Log-only companion is exact where no packet of a Deny rule meets an earlier rule of its policy that decides.
Where some packet does, the companion repeats the policy's rules up to its last Deny, with a Log before each: what it
decides is what the policy would have decided next. The policy itself is never overwritten.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from policies.classes import Fire, Question, Space, find
from policies.labelspace import Undecided
from policies.model import Action, Direction, Policy, PolicyKind, Rule
from policies.scope import policy_term
from policies.symbolic import disjoint

LOG_ONLY = "before its Deny rules: a Log-only policy, exact because no earlier rule of it takes their packets"
PATCHED = "before its Deny rules: a copy with Log before each Deny, since rules of it share packets; \
generate again when the policy changes"


MAX_TANGLED = 4
"""Deny rules with packets in common that a Log-only policy may have: beyond it a copy makes fewer lines."""


@dataclass(frozen=True, slots=True)
class Companion:
    """The policy to put before the one that denies, still without name, and how it is exact."""

    policy: Policy
    how: str


def has_rule(policy: Policy, *actions: Action) -> bool:
    """Whether a rule that counts has one of the actions."""
    types = policy.types or tuple(Direction)
    return any(rule.action in actions for direction in types for rule in policy.rules(direction))


def places_before(policy: Policy, tier: Sequence[Policy]) -> float:
    """An order between the policy and the one that sorts before it, whole where there is room."""
    finite = sorted({each.order for each in tier if each.order is not None})
    if policy.order is None:
        return finite[-1] + 1 if finite else 1.0
    below = [order for order in finite if order < policy.order]
    if not below or below[-1] < policy.order - 1:
        return policy.order - 1
    return (below[-1] + policy.order) / 2


def _as_log(rule: Rule) -> Rule:
    return replace(rule, action=Action.LOG, annotations={}, place=None)


def _overlap(policy: Policy, direction: Direction, one: Rule, other: Rule) -> bool:
    """Whether some packet matches both rules; taken to be so where that cannot be decided."""
    if disjoint(one, other):
        return False
    fires = tuple(Fire(policy_term(policy), _as_log(rule), policy.namespace) for rule in (one, other))
    try:
        return find(Question(Space("", {}), direction, fires, ())) is not None
    except Undecided:
        return True


def _stands_alone(policy: Policy, direction: Direction, index: int) -> bool:
    rules = policy.rules(direction)
    deciding = (rule for rule in rules[:index] if rule.action is not Action.LOG)
    return not any(_overlap(policy, direction, rules[index], rule) for rule in deciding)


def _denials(policy: Policy, direction: Direction) -> list[int]:
    return [index for index, rule in enumerate(policy.rules(direction)) if rule.action is Action.DENY]


def _tangled(policy: Policy, direction: Direction) -> int:
    """How many Deny rules may share packets with another one: each of those would log a packet once more."""
    rules = [policy.rules(direction)[index] for index in _denials(policy, direction)]
    return sum(any(not disjoint(rule, other) for other in rules if other is not rule) for rule in rules)


def _patched(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    result: list[Rule] = []
    for rule in rules:
        result += [_as_log(rule), rule] if rule.action is Action.DENY else [rule]
    return tuple(result)


def _rules(policy: Policy, direction: Direction, log_only: bool) -> tuple[Rule, ...]:
    rules, denials = policy.rules(direction), _denials(policy, direction)
    if not denials:
        return ()
    if log_only:
        return tuple(_as_log(rules[index]) for index in denials)
    return _patched(rule for rule in rules[: denials[-1] + 1] if rule.action is not Action.LOG)


def companion(policy: Policy, order: float) -> Companion | None:
    """The companion of a policy that denies; None for one that has no Deny rule.

    `order` has to lie just before the policy (`places_before`).
    """
    denying = tuple(d for d in policy.types or tuple(Direction) if _denials(policy, d))
    if not denying:
        return None
    alone = all(_stands_alone(policy, d, index) for d in denying for index in _denials(policy, d))
    alone = alone and all(_tangled(policy, d) <= MAX_TANGLED for d in denying)
    rules = {d: _rules(policy, d, alone) if d in denying else () for d in Direction}
    made = replace(
        policy,
        kind=PolicyKind.NETWORK_POLICY if policy.namespace else PolicyKind.GLOBAL_NETWORK_POLICY,
        name="",
        order=order,
        types=denying,
        ingress=rules[Direction.INGRESS],
        egress=rules[Direction.EGRESS],
        performance_hints=(),
        uid="",
        annotations={},
        errors=(),
        source=None,
    )
    return Companion(made, LOG_ONLY if alone else PATCHED)
