"""Log policies for the policies that exist, so that the kernel writes one line for each packet that they deny.

Rule: nothing is handed out that `policies.verify` has not proved; what cannot be exact is refused with the reason.
A Log-only policy isolates like any other (felix/rules/endpoints.go, endOfTierDrop), so each selects, for each
direction, only endpoints that a source already isolates in the same tier. Packets that reach the end of a tier are
logged by a policy that sorts last in it; packets that a Deny rule drops, by one just before (`policies.companions`).
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from policies.companions import companion, has_rule, places_before
from policies.evaluate import in_hook, log_only, ordered_tiers, policy_key
from policies.flow import Hook
from policies.labelspace import Undecided, solve
from policies.model import Action, Direction, Inventory, Policy, PolicyKind, Rule, Tier
from policies.pairing import MANAGED_BY, identity, is_ours
from policies.scope import policy_term
from policies.selector import Not
from policies.verify import Proof, verify

NAME = "log-denied-packets"
ORDER = 3000.0
SOURCE_ANNOTATION = "denylog/source"

MAX_SELECTOR = 1024
"""Bytes of a selector that Calico's current validation takes (api/pkg/apis/projectcalico/v3, MaxLength)."""

_UNPREFIXED = ("default", "kube-admin", "kube-baseline")
"""Tiers whose policies need no tier name in front: `default` always, the others exist from 3.32 on."""


_OWN_ORDER = "give it an order of its own"


@dataclass(frozen=True, slots=True)
class Options:
    """`order` None: after every policy of the tier that allows; `name` None: the default names."""

    name: str | None = None
    order: float | None = ORDER
    per_policy: bool = False


@dataclass(frozen=True, slots=True)
class LogPolicy:
    """A generated policy, the policies whose denials it logs, and how it is exact."""

    policy: Policy
    sources: tuple[Policy, ...]
    how: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What was generated with its proof; with `refusals` nothing of it may be applied. `notes` are worth reading."""

    made: tuple[LogPolicy, ...]
    proof: Proof
    notes: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Group:
    """What policies must share so that one Log policy can stand for them."""

    tier: str
    namespace: str | None
    namespace_selector: str
    account_selector: str
    forward: bool


@dataclass(slots=True)
class _Names:
    """Hands out names that no other object of the same namespace and kind has."""

    taken: set[tuple[str | None, str]] = field(default_factory=set)

    def free(self, policy: Policy, wanted: str) -> str:
        prefix = "" if policy.tier in _UNPREFIXED else f"{policy.tier}."
        options = (f"{prefix}{wanted}" + (f"-{n}" if n > 1 else "") for n in range(1, 10**6))
        name = next(name for name in options if (policy.namespace, name) not in self.taken)
        self.taken.add((policy.namespace, name))
        return name


def short_name(source: Policy, prefix: str = "log") -> str:
    """A name of 12 characters for one source's Log policy: it survives in an iptables prefix, and is stable."""
    identity = f"{source.kind}/{source.namespace or ''}/{source.name}"
    return f"{prefix}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"


def directions(policy: Policy) -> tuple[Direction, ...]:
    """The directions that a policy governs, in its own order."""
    return policy.types or tuple(Direction)


# -- end of tier -----------------------------------------------------------------------------------------------------


def _group(policy: Policy) -> _Group:
    return _Group(
        policy.tier,
        policy.namespace,
        policy.namespace_selector,
        policy.service_account_selector,
        policy.apply_on_forward,
    )


def closing_order(policies: Iterable[Policy], options: Options) -> float:
    """The order of the Log policy that ends a tier: as asked for, or after every policy that allows or passes."""
    if options.order is not None:
        return options.order
    allowing = (p.order for p in policies if has_rule(p, Action.ALLOW, Action.PASS) and p.order is not None)
    return max(ORDER, math.floor(max(allowing, default=0.0)) + 1.0)


def _reaches_end(policy: Policy, direction: Direction, order: float) -> bool:
    """Whether packets that the policy leaves undecided get as far as our Log policy."""
    deny_all = any(replace(rule, annotations={}, place=None) == Rule(Action.DENY) for rule in policy.rules(direction))
    return not deny_all or policy_key(policy) > (order, "")


def _closing_groups(policies: Sequence[Policy], order: float) -> dict[_Group, dict[Policy, tuple[Direction, ...]]]:
    groups: dict[_Group, dict[Policy, tuple[Direction, ...]]] = {}
    for policy in policies:
        if in_hook(policy, Hook.NORMAL):
            open_ended = tuple(d for d in directions(policy) if _reaches_end(policy, d, order))
            if open_ended:
                groups.setdefault(_group(policy), {})[policy] = open_ended
    return groups


_Unit = tuple[tuple[Policy, ...], tuple[Direction, ...]]


def _units(members: dict[Policy, tuple[Direction, ...]], per_policy: bool) -> Iterator[_Unit]:
    """Which sources share a Log policy, and its types: each alone, or all of one direction."""
    if per_policy or len(members) == 1:
        yield from (((policy,), types) for policy, types in members.items())
        return
    for direction in Direction:
        chosen = tuple(policy for policy, types in members.items() if direction in types)
        if chosen:
            yield chosen, (direction,)


def _selector(policy: Policy) -> str:
    """The selector, written out where it is empty: but not where Calico would rewrite it (`scope.policy_term`)."""
    rewritten = policy.namespace is None and (policy.namespace_selector or policy.service_account_selector)
    return policy.selector.strip() or ("" if rewritten else "all()")


def _joined(sources: Sequence[Policy]) -> Iterator[tuple[str, tuple[Policy, ...]]]:
    """Selectors joined by `||`, cut where the next one would pass `MAX_SELECTOR` bytes."""
    by_selector: dict[str, list[Policy]] = {}
    for source in sources:
        by_selector.setdefault(_selector(source), []).append(source)
    if "" in by_selector:
        yield "", tuple(sources)
        return
    text, chosen = "", list[Policy]()
    for selector, owners in by_selector.items():
        longer = f"{text} || {selector}" if text else selector
        if text and len(longer.encode()) > MAX_SELECTOR:
            yield text, tuple(chosen)
            longer, chosen = selector, []
        text = longer
        chosen += owners
    yield text, tuple(chosen)


def _log_all(group: _Group, selector: str, types: tuple[Direction, ...], order: float) -> Policy:
    logs = (Rule(Action.LOG),)
    return Policy(
        kind=PolicyKind.NETWORK_POLICY if group.namespace else PolicyKind.GLOBAL_NETWORK_POLICY,
        name="",
        namespace=group.namespace,
        tier=group.tier,
        order=order,
        selector=selector,
        namespace_selector=group.namespace_selector,
        service_account_selector=group.account_selector,
        types=types,
        ingress=logs if Direction.INGRESS in types else (),
        egress=logs if Direction.EGRESS in types else (),
        apply_on_forward=group.forward,
        labels=MANAGED_BY,
    )


_END = "end of tier: a Log-only policy after all others"


def _closing(policies: Sequence[Policy], options: Options, order: float) -> Iterator[LogPolicy]:
    for group, members in _closing_groups(policies, order).items():
        for sources, types in _units(members, options.per_policy):
            for selector, owners in _joined(sources):
                yield LogPolicy(_log_all(group, selector, types, order), owners, _END)


# -- all of it -------------------------------------------------------------------------------------------------------


def _companions(tier: Tier, policies: Sequence[Policy], order: float) -> Iterator[LogPolicy]:
    for policy in policies:
        closed = tier.default_action is Action.DENY and in_hook(policy, Hook.NORMAL)
        if closed and policy_key(policy) > (order, ""):
            continue  # what reaches it was logged at the end-of-tier order already
        if not has_rule(policy, Action.DENY):
            continue
        made = companion(policy, places_before(policy, policies))
        if made:
            yield LogPolicy(replace(made.policy, labels=MANAGED_BY), (policy,), made.how)


def _drafts(inventory: Inventory, options: Options) -> Iterator[LogPolicy]:
    for tier, sorted_policies in ordered_tiers(inventory):
        order = closing_order(sorted_policies, options)
        if tier.default_action is Action.DENY:
            in_file_order = [policy for policy in inventory.policies if policy.tier == tier.name]
            yield from _closing(in_file_order, options, order)
        yield from _companions(tier, sorted_policies, order)


def _without_covered(drafts: list[LogPolicy]) -> tuple[list[LogPolicy], list[str]]:
    """Leave out namespaced Log policies whose every packet a cluster-wide one logs already."""
    everywhere = [draft for draft in drafts if draft.policy.namespace is None and draft.how == _END]
    kept, notes = [], []
    for draft in drafts:
        cover = next((each for each in everywhere if draft.how == _END and _covers(each.policy, draft.policy)), None)
        if cover is None:
            kept.append(draft)
        else:
            names = ", ".join(map(str, draft.sources))
            notes.append(
                f"{names}: logged by the Log policy of {', '.join(map(str, cover.sources))}, no second one made"
            )
    return kept, notes


def _covers(wide: Policy, narrow: Policy) -> bool:
    if narrow.namespace is None or wide.tier != narrow.tier or not set(narrow.types) <= set(wide.types):
        return False
    try:
        labels = {"projectcalico.org/orchestrator": "k8s"}
        return solve([policy_term(narrow), Not(policy_term(wide))], labels) is None
    except Undecided:
        return False


def _wanted_name(draft: LogPolicy, options: Options, alone: bool) -> str:
    if draft.how != _END:
        return options.name or NAME if alone else short_name(draft.sources[0], "den")
    if options.per_policy:
        return short_name(draft.sources[0], options.name or "log")
    if alone:
        return options.name or NAME
    types = draft.policy.types
    suffix = types[0].value.lower() if len(types) == 1 else "both"
    return f"{options.name or 'log'}-{suffix}"


def _named(drafts: Sequence[LogPolicy], inventory: Inventory, options: Options) -> list[LogPolicy]:
    names = _Names({(p.namespace, p.name) for p in inventory.policies if not log_only(p)})
    named = []
    for draft in drafts:
        name = names.free(draft.policy, _wanted_name(draft, options, len(drafts) == 1))
        told = options.per_policy or draft.how != _END
        annotations = {SOURCE_ANNOTATION: str(draft.sources[0])} if told else {}
        named.append(replace(draft, policy=replace(draft.policy, name=name, annotations=annotations)))
    return named


def _notes(inventory: Inventory, ours: Sequence[Policy], made: Sequence[LogPolicy]) -> Iterator[str]:
    replaced = {identity(each.policy) for each in made}
    if ours:
        yield f"{len(ours)} policies of an earlier run (labelled {next(iter(MANAGED_BY.values()))}) were left out"
    for policy in inventory.policies:
        if policy.staged:
            yield f"{policy} is staged: Calico does not enforce it, so it denies nothing and nothing is logged for it"
        elif log_only(policy) and identity(policy) in replaced:
            yield f"{policy} is replaced by the one of that name here"
        elif log_only(policy):
            yield f"{policy} logs already: a packet that it logs gets one line more; remove it after applying these"
        if len(policy.selector.encode()) > MAX_SELECTOR:
            yield f"{policy}: its selector is longer than {MAX_SELECTOR} bytes, which newer Calico refuses"
        if policy.tier not in ("default",) and inventory.tier(policy.tier) is None:
            yield f"{policy}: tier {policy.tier} is not in the files; it is taken to deny at its end"


def _version_ties(enforced: Inventory, made: Sequence[LogPolicy]) -> Iterator[str]:
    """Policies that decide at the order of a Log policy: which comes first depends on the release."""
    orders = {(each.policy.tier, each.policy.order): each.policy for each in made}
    for policy in enforced.policies:
        log = orders.get((policy.tier, policy.order))
        if log and has_rule(policy, Action.ALLOW, Action.PASS, Action.DENY):
            yield (
                f"{policy} has the order of our Log policy {log.name}: the proof sorts equal orders by name as Calico"
                " 3.32 does, releases before it sort them otherwise; give it an order of its own"
            )


def late_allowers(inventory: Inventory, options: Options) -> list[str]:
    """Policies that sort after our Log policy and allow: what they allow would be logged as if it were denied."""
    found = []
    for tier, policies in ordered_tiers(inventory):
        order = closing_order(policies, options)
        if tier.default_action is Action.DENY:
            late = (p for p in policies if not p.staged and policy_key(p) > (order, ""))
            found += [_late(p, order) for p in late if has_rule(p, Action.ALLOW, Action.PASS)]
    return found


def _late(policy: Policy, order: float) -> str:
    here = "has no order and so sorts last" if policy.order is None else f"has order {policy.order:g}"
    advice = "give it an order" if policy.order is None else "use --order auto, or give it a lower order"
    return f"{policy} {here}, after our Log policy at {order:g}, and allows packets that this has logged: {advice}"


def tied_denials(inventory: Inventory) -> list[str]:
    """Policies with Deny rules that share their order with one that sorts before them: nothing fits in between."""
    found = []
    for _, policies in ordered_tiers(inventory):
        for before, policy in itertools.pairwise(policies):
            if has_rule(policy, Action.DENY) and policy.order == before.order and policy.order is not None:
                found.append(
                    f"{policy} has the same order as {before}, so no Log policy fits just before it: {_OWN_ORDER}"
                )
    return found


def generate(inventory: Inventory, options: Options | None = None) -> Plan:
    """Log policies for all enforced policies of the inventory, proved; or the reasons why not.

    Raises SelectorError for a selector that Calico would not parse.
    """
    options = options or Options()
    ours = [policy for policy in inventory.policies if is_ours(policy)]
    theirs = replace(inventory, policies=tuple(p for p in inventory.policies if not is_ours(p)))
    enforced = replace(theirs, policies=tuple(p for p in theirs.policies if not p.staged))
    drafts, notes = _without_covered(list(_drafts(enforced, options)))
    made = _named(drafts, theirs, options)
    proof = verify(theirs, [each.policy for each in made])
    reasons = [] if proof.holds else [*late_allowers(enforced, options), *tied_denials(enforced)]
    refusals = [] if proof.holds else [*reasons, *str(proof).splitlines()]
    told = (*_notes(theirs, ours, made), *_version_ties(enforced, made), *notes)
    return Plan(tuple(made), proof, told, tuple(refusals))
