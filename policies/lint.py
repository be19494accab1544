"""What is allowed but does not do what it seems to: findings about policies, each with what would really happen.

Rule: a finding names a place, the fact, and its effect in Calico. Mistakes of shape are findings too, with their effect
once a server has dropped or refused the field. Nothing is reported that depends on objects which were not given, except
where the text says "among the objects given".
"""

from __future__ import annotations

import itertools
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TypeAlias

from policies.dns import forgets_dns
from policies.errors import PathStep, Problem, SelectorError
from policies.labelindex import LabelIndex
from policies.load import Found, Loaded, assembled, is_kubernetes
from policies.model import Action, Direction, EntityRule, Inventory, Place, Policy, Rule
from policies.nets import parse_cidr
from policies.scope import pod_labels, policy_term
from policies.selector import And, Or, Term
from policies.validate import complaints
from policies.written import Document, Written, items, mapping, text

LOG_ORDER = 3000.0
"""Where denylog puts the policies it generates, unless it is told otherwise."""

MAX_BRANCHES = 1024
"""Alternatives of one selector that are looked at; a selector can stand for many more, and then nothing is certain."""

Path: TypeAlias = tuple[PathStep, ...]


def lint(found: Found) -> tuple[Problem, ...]:
    """All findings of a load, by file, line and column; one for each place, the one that says most."""
    loaded = assembled(found)
    findings = [
        *_label_case(found, loaded.inventory),
        *(finding for written in found.objects for finding in _written(written)),
        *(finding for check in _CHECKS for finding in check(loaded)),
        *(_with_effect(problem) for problem in loaded.problems),
        *(problem for written in found.objects for problem in complaints(written)),
    ]
    one_each: dict[tuple[Place, str, str], Problem] = {}
    for finding in findings:
        policy = finding.code if finding.code in _ABOUT_POLICIES else ""
        one_each.setdefault((finding.place, finding.path, policy), finding)
    return tuple(sorted(one_each.values(), key=_order))


def _order(finding: Problem) -> tuple[str, int, int, str]:
    return finding.place.file, finding.place.line, finding.place.column, str(finding)


_ABOUT_POLICIES = frozenset({"behind-log", "log-isolates", "log-then-allow", "selects-nothing", "no-dns"})


# -- mistakes of shape: what a server makes of them ------------------------------------------------------------------

_EFFECTS: tuple[tuple[str, str, str], ...] = (
    (
        "wrong-case|unknown-field",
        r"\.(from|to)\[\d+\]\.",
        "a server that drops it sees an empty peer, which Calico takes for every pod of the policy's own namespace",
    ),
    (
        "wrong-case|unknown-field",
        r"^metadata\.namespace$",
        "the policy would go to the namespace of the current context, not to this one",
    ),
    (
        "wrong-case|unknown-field",
        r".",
        "kubectl and calicoctl refuse it; a server that drops it acts as if it were not there",
    ),
    ("wrong-shape", r".", "the server refuses the whole object, so nothing of it is enforced"),
    ("syntax|no-kind|unknown-kind|api-version|no-name", r"", "nothing of it is enforced"),
)


def _with_effect(problem: Problem) -> Problem:
    for codes, path, effect in _EFFECTS:
        if problem.code in codes.split("|") and re.search(path, problem.path, re.IGNORECASE):
            return replace(problem, advice="; ".join(filter(None, [problem.advice, effect])))
    return problem


# -- labels whose names differ only in case --------------------------------------------------------------------------


def _label_case(found: Found, inventory: Inventory) -> Iterator[Problem]:
    """A key of a selector that no object carries and that is, but for its case, one that is used, or starts large."""
    worn = {key for pod in inventory.pods for key in pod.labels}
    worn |= {key for namespace in inventory.namespaces for key in namespace.labels}
    used = [(written, path, key) for written in (*found.objects, *found.misshapen) for path, key in _keys(written)]
    known = worn or {key for _, _, key in used}
    for written, path, key in used:
        twins = sorted(other for other in known if other != key and other.lower() == key.lower())
        if key in worn or key == key.lower() or not (twins or key.rpartition("/")[2][:1].isupper()):
            continue
        advice = (
            f"it does not select what is labelled {(twins or [key.lower()])[0]!r}: label names count with their case"
        )
        yield Problem("label-case", written.place(*path), _text(path), f"label {key!r} has capital letters", advice)


def _keys(written: Written) -> Iterator[tuple[Path, str]]:
    """The label names of Kubernetes selectors, wherever they stand in the object."""
    waiting: list[tuple[Path, object]] = [((), written.document)]
    while waiting:
        path, value = waiting.pop()
        children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for step, child in children:
            waiting.append(((*path, step), child))
            if step == "matchLabels" and isinstance(child, dict):
                yield from (((*path, step, key), str(key)) for key in child)
            elif step == "key" and isinstance(child, str) and "matchExpressions" in path:
                yield (*path, step), child


def _text(path: Path) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


# -- one object by itself --------------------------------------------------------------------------------------------


def _written(written: Written) -> Iterator[Problem]:
    if is_kubernetes(written):
        yield from _open_cidrs(written)
    elif "Policy" in written.kind.name:
        yield from _newlines(written)


def _open_cidrs(written: Written) -> Iterator[Problem]:
    for name, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(items(written.spec, name)):
            for number, peer in enumerate(items(rule, peers)):
                yield from _block(written, ("spec", name, index, peers, number, "ipBlock"), mapping(peer, "ipBlock"))


def _block(written: Written, path: Path, block: Document) -> Iterator[Problem]:
    if block and (reason := _unreadable(text(block, "cidr"))):
        advice = "Calico leaves the peer empty, so the rule lets every address through; write address/length"
        yield written.problem("open-cidr", (*path, "cidr"), reason, advice)
    for index, each in enumerate(items(block, "except")):
        if reason := _unreadable(each):
            advice = "Calico drops it and every exception after it, so those addresses are let through"
            yield written.problem("open-except", (*path, "except", index), reason, advice)


def _unreadable(cidr: str) -> str | None:
    try:
        parse_cidr(cidr)
    except ValueError as error:
        return str(error)
    return None


def _newlines(written: Written) -> Iterator[Problem]:
    for path, selector in _selectors(written.spec):
        if "\n" in selector:
            advice = "outside quotes Calico refuses it; fold the lines with '>-'"
            yield written.problem("selector-newline", ("spec", *path), "a selector with a newline", advice)


def _selectors(spec: Document) -> Iterator[tuple[Path, str]]:
    for field in ("selector", "namespaceSelector", "serviceAccountSelector"):
        yield (field,), text(spec, field)
    for name in ("ingress", "egress"):
        for index, rule in enumerate(items(spec, name)):
            for side in ("source", "destination"):
                for field in ("selector", "notSelector", "namespaceSelector"):
                    yield (name, index, side, field), text(mapping(rule, side), field)


# -- policies among each other ---------------------------------------------------------------------------------------


def _finding(policy: Policy, code: str, path: str, message: str, advice: str) -> Problem:
    place = policy.source.place if policy.source else Place("")
    return Problem(code, place, path, f"{policy}: {message}", advice)


def _enforced(loaded: Loaded) -> list[Policy]:
    return [policy for policy in loaded.inventory.policies if not policy.staged]


def is_log_only(policy: Policy) -> bool:
    """Whether it does nothing but log, in the directions it governs."""
    rules = [rule for direction in policy.types for rule in policy.rules(direction)]
    return bool(rules) and all(rule.action is Action.LOG for rule in rules)


def _behind_log(loaded: Loaded) -> Iterator[Problem]:
    policies = _enforced(loaded)
    logs = [policy.order for policy in policies if is_log_only(policy) and policy.tier == "default"]
    order = min((each for each in logs if each is not None), default=math.inf if logs else LOG_ORDER)
    for policy in policies:
        deciding = any(r.action in (Action.ALLOW, Action.PASS) for d in policy.types for r in policy.rules(d))
        behind = order < (math.inf if policy.order is None else policy.order)
        if policy.tier == "default" and deciding and behind and not (policy.pre_dnat or policy.do_not_track):
            stands = "has no order, which sorts last" if policy.order is None else f"has order {policy.order:g}"
            advice = f"a Log policy of order {order:g} logs packets as denied that this policy then allows"
            yield _finding(policy, "behind-log", "spec.order", stands, advice)


def _isolating(loaded: Loaded) -> Iterator[Problem]:
    policies = _enforced(loaded)
    others = _by_namespace(policy for policy in policies if not is_log_only(policy))
    for policy in filter(is_log_only, policies):
        tier = loaded.inventory.tier(policy.tier)
        if (tier and tier.default_action is Action.PASS) or policy.pre_dnat or policy.do_not_track:
            continue
        for direction in policy.types:
            near = _near(policy, others)
            same = [other for other in near if other.tier == policy.tier and direction in other.types]
            if not _covered(policy, same):
                advice = "at the end of the tier Calico drops what reaches a policy: the Log policy alone turns on deny"
                message = f"only logs, and no other policy given selects all its endpoints for {direction.lower()}"
                yield _finding(policy, "log-isolates", "spec.types", message, advice)


def _by_namespace(policies: Iterable[Policy]) -> Mapping[str | None, list[Policy]]:
    grouped: dict[str | None, list[Policy]] = defaultdict(list)
    for policy in policies:
        grouped[policy.namespace].append(policy)
    return grouped


def _near(policy: Policy, grouped: Mapping[str | None, list[Policy]]) -> list[Policy]:
    """Policies that can select the same endpoints: those of its namespace and those of the whole cluster."""
    return [*grouped.get(policy.namespace, []), *(grouped.get(None, []) if policy.namespace is not None else [])]


def _covered(policy: Policy, others: Iterable[Policy]) -> bool:
    """Whether each endpoint of the policy is certainly selected by one of the others."""
    parts = [_parts(term) for term in map(_term, others) if term]
    branches = list(itertools.islice(_branches(_term(policy)), MAX_BRANCHES + 1))
    return len(branches) <= MAX_BRANCHES and all(any(each <= branch for each in parts) for branch in branches)


def _term(policy: Policy) -> Term | None:
    try:
        return policy_term(policy)
    except SelectorError:
        return None


def _parts(term: Term) -> frozenset[Term]:
    """Terms that all hold; nested `&&` taken apart."""
    if isinstance(term, And):
        return frozenset().union(*map(_parts, term.terms))
    return frozenset([term])


def _branches(term: Term | None) -> Iterator[frozenset[Term]]:
    """The term as alternatives: each `||` among its parts splits it."""
    parts = _parts(term) if term else frozenset()
    split = next((part for part in parts if isinstance(part, Or)), None)
    if split is None:
        yield parts
        return
    for choice in split.terms:
        yield from _branches(And((*(parts - {split}), choice)))


def _log_then_allow(loaded: Loaded) -> Iterator[Problem]:
    for policy in _enforced(loaded):
        for direction in policy.types:
            rules = policy.rules(direction)
            for first, second in itertools.pairwise(rules):
                if (first.action, second.action) == (Action.LOG, Action.ALLOW) and _matches_all(first, second):
                    advice = "what it logs as denied is let through; leave the Allow out"
                    message = f"logs everything and then allows everything ({direction.lower()})"
                    yield _finding(policy, "log-then-allow", f"spec.{direction.lower()}", message, advice)


def _matches_all(*rules: Rule) -> bool:
    everything = EntityRule()
    return all(
        rule.source == rule.destination == everything
        and not (rule.protocol or rule.not_protocol or rule.ip_version or rule.http)
        for rule in rules
    )


def _selects_nothing(loaded: Loaded) -> Iterator[Problem]:
    inventory = loaded.inventory
    if not inventory.pods:
        return
    labels = [pod_labels(pod, inventory) for pod in inventory.pods if pod.is_endpoint]
    index = LabelIndex([*labels, *(each.labels for each in inventory.host_endpoints)])
    for policy in inventory.policies:
        term = _term(policy)
        if term is not None and not index.select(term):
            message = f"selects none of the {len(inventory.pods)} pods given"
            yield _finding(policy, "selects-nothing", "spec.selector", message, "it does nothing; compare the labels")


def _no_dns(loaded: Loaded) -> Iterator[Problem]:
    policies = [policy for policy in _enforced(loaded) if Direction.EGRESS in policy.types and not is_log_only(policy)]
    grouped = _by_namespace(policies)
    for policy in policies:
        siblings = [other for other in _near(policy, grouped) if _covered(policy, [other])]
        if policy.egress and forgets_dns([policy, *siblings]):
            advice = "its pods cannot resolve names: allow UDP and TCP port 53 to the cluster's DNS"
            yield _finding(policy, "no-dns", "spec.egress", "restricts egress and allows no DNS", advice)


_CHECKS: tuple[Callable[[Loaded], Iterator[Problem]], ...] = (
    _behind_log,
    _isolating,
    _log_then_allow,
    _selects_nothing,
    _no_dns,
)
