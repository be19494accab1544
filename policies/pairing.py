"""Sources and generated policies side by side: which policy stands where in both sets, and for which endpoints.

Rule: an object that both sets hold under one name is the same object, as `apply` would leave it: the generated one
replaces the source. Rules that both forms share are walked once, so that proofs compare only what differs.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from policies.classes import Fire, Space
from policies.evaluate import governs, in_hook, log_only, policy_key, tier_key
from policies.flow import Hook
from policies.labelspace import Assignment, atoms
from policies.model import Action, Direction, Inventory, Policy, Rule, Tier
from policies.scope import NAMESPACE, NAMESPACE_PREFIX, ORCHESTRATOR, policy_term
from policies.selector import Compare, Term, Within
from policies.symbolic import Entry, Step

MANAGED_BY = {"app.kubernetes.io/managed-by": "denylog"}
"""The label of everything that `policies.generate` makes."""

_NAME_LABELS = (
    NAMESPACE,
    f"{NAMESPACE_PREFIX}projectcalico.org/name",
    f"{NAMESPACE_PREFIX}kubernetes.io/metadata.name",
)
"""Labels that tell a pod's namespace by name."""

_ELSEWHERE = "any-other-namespace"
_ANYTHING = Rule(Action.LOG)

Identity = tuple[str, str | None, str]


def is_ours(policy: Policy) -> bool:
    """Whether an earlier run of `policies.generate` made the policy."""
    return MANAGED_BY.items() <= policy.labels.items()


def identity(policy: Policy) -> Identity:
    """What makes two policies the same object in a cluster."""
    return (policy.kind.value, policy.namespace, policy.name)


@dataclass(frozen=True, slots=True)
class Pair:
    """A policy as it is before and after the generated ones are applied; None: not there."""

    policy: Policy
    before: Policy | None
    after: Policy | None
    key: tuple[float, str]
    term: Term


def unapplied(sources: Iterable[Policy], generated: Iterable[Policy]) -> tuple[Policy, ...]:
    """The sources as they were before the Log policies: without ours, and without Log-only ones given again."""
    again = {identity(policy) for policy in generated if log_only(policy)}
    return tuple(p for p in sources if not is_ours(p) and not (log_only(p) and identity(p) in again))


# -- the two sets, sorted ------------------------------------------------------------------------------------------


def _alone(policy: Policy, before: Policy | None, after: Policy | None) -> Pair:
    return Pair(policy, before, after, policy_key(policy), policy_term(policy))


def _same_place(one: Policy, other: Policy) -> bool:
    return (one.tier, policy_key(one), policy_term(one)) == (other.tier, policy_key(other), policy_term(other))


def _pairs(sources: Iterable[Policy], generated: Iterable[Policy]) -> list[Pair]:
    """Every enforced policy, those that are alike but for Log rules beside each other."""
    new = {identity(policy): policy for policy in generated if not policy.staged}
    pairs: list[Pair] = []
    for policy in sources:
        other = new.pop(identity(policy), None)
        if policy.staged:
            continue
        if other is None:
            pairs.append(_alone(policy, policy, policy))
        elif _same_place(policy, other):
            pairs.append(_alone(policy, policy, other))
        else:
            pairs += [_alone(policy, policy, None), _alone(other, None, other)]
    return [*pairs, *(_alone(policy, None, policy) for policy in new.values())]


@dataclass(frozen=True)
class Comparison:
    """Sources and generated policies side by side, sorted into tiers and namespaces."""

    sources: Inventory
    generated: tuple[Policy, ...]

    @cached_property
    def pairs(self) -> list[Pair]:
        """All enforced policies in the order of a tier."""
        return sorted(_pairs(self.sources.policies, self.generated), key=lambda pair: pair.key)

    @cached_property
    def by_namespace(self) -> Mapping[str | None, list[Pair]]:
        """Policies by their namespace, cluster-wide ones under None."""
        found: dict[str | None, list[Pair]] = {}
        for pair in self.pairs:
            found.setdefault(pair.policy.namespace, []).append(pair)
        return found

    @cached_property
    def tiers(self) -> list[Tier]:
        """The tiers that hold policies, in order."""
        names = {pair.policy.tier for pair in self.pairs}
        return sorted((self.sources.tier(name) or Tier(name) for name in names), key=tier_key)

    def at(self, namespace: str | None) -> list[Pair]:
        """The policies that can select pods of a namespace (None: only cluster-wide ones), in order."""
        own = self.by_namespace.get(namespace, []) if namespace else []
        everywhere = self.by_namespace.get(None, [])
        return sorted([*own, *everywhere], key=lambda pair: pair.key) if own and everywhere else own or everywhere

    def spaces(self) -> Iterator[tuple[Space, list[Pair]]]:
        """Every kind of endpoint that some policy can select."""
        everywhere = self.by_namespace.get(None, [])
        mentioned, patterns = _mentioned(everywhere)
        for namespace in sorted({*(name for name in self.by_namespace if name), *mentioned}):
            yield Space(f"namespace {namespace}", self._labels(namespace)), self.at(namespace)
        if everywhere:
            free = {ORCHESTRATOR: "k8s"}
            yield Space("any other namespace", free if patterns else self._labels(_ELSEWHERE)), everywhere
            yield Space("hosts", {NAMESPACE: None}, host=True), everywhere

    def _labels(self, namespace: str) -> Assignment:
        known = next((each.labels for each in self.sources.namespaces if each.name == namespace), {})
        own = {NAMESPACE_PREFIX + key: value for key, value in known.items()}
        return {**own, ORCHESTRATOR: "k8s", **dict.fromkeys(_NAME_LABELS, namespace)}


def _mentioned(pairs: Sequence[Pair]) -> tuple[set[str], bool]:
    """Namespaces that cluster-wide policies name, and whether they match names by pattern."""
    names: set[str] = set()
    patterns = False
    for atom in itertools.chain.from_iterable(atoms(pair.term) for pair in pairs):
        if atom.label in _NAME_LABELS and isinstance(atom, Within):
            names.update(atom.values)
        elif atom.label in _NAME_LABELS and isinstance(atom, Compare):
            names.add(atom.value)
            patterns |= atom.operator not in ("==", "!=")
    return names, patterns


# -- one space, direction and hook ---------------------------------------------------------------------------------


@dataclass(slots=True)
class Numbers:
    """Gives each distinct match a number; matches that take every packet have none."""

    fires: list[Fire] = field(default_factory=list)
    known: dict[tuple[Rule, str | None], int] = field(default_factory=dict)

    def of(self, rule: Rule, scope: str | None, selects: Term) -> int | None:
        match = replace(rule, action=Action.LOG, annotations={}, http=None, place=None)
        if match == _ANYTHING:
            return None
        if (match, scope) not in self.known:
            self.known[match, scope] = len(self.fires)
            self.fires.append(Fire(selects, match, scope))
        return self.known[match, scope]


def _counts(policy: Policy | None, direction: Direction, hook: Hook) -> bool:
    return policy is not None and in_hook(policy, hook) and governs(policy, direction)


def _aligned(pair: Pair, direction: Direction, numbers: Numbers) -> Iterator[Step]:
    """The rules of both forms beside each other, so that what they share is walked once."""
    before = [_key(rule, pair.before, pair.term, numbers) for rule in _rules(pair.before, direction)]
    after = [_key(rule, pair.after, pair.term, numbers) for rule in _rules(pair.after, direction)]
    if pair.before is pair.after:
        yield from (Step(*key, True, True, False) for key in before)
        return
    for kind, i, j, m, n in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind == "equal":
            yield from (Step(*key, True, True, False) for key in before[i:j])
        else:
            yield from (Step(*key, True, False, False) for key in before[i:j])
            yield from (Step(*key, False, True, True) for key in after[m:n])


def _rules(policy: Policy | None, direction: Direction) -> tuple[Rule, ...]:
    return policy.rules(direction) if policy else ()


def _key(rule: Rule, policy: Policy | None, term: Term, numbers: Numbers) -> tuple[int | None, Action]:
    return numbers.of(rule, policy.namespace if policy else None, term), rule.action


def entries(
    pairs: Iterable[tuple[Pair, Term | bool]], direction: Direction, hook: Hook, numbers: Numbers
) -> Iterator[Entry]:
    """The walker's view of policies in order, each with its selector as far as the space leaves it open."""
    for pair, selects in pairs:
        before, after = _counts(pair.before, direction, hook), _counts(pair.after, direction, hook)
        if before or after:
            steps = tuple(_aligned(pair, direction, numbers))
            yield Entry(selects, before, after, steps)
