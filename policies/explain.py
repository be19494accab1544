"""A verdict for people, programs and graphviz: the walk as it was made, and why each rule did not match.

Rule: nothing is decided here; text, JSON and dot are three spellings of the evidence in a `Verdict`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from policies.evaluate import Ending, PolicyStep, RuleStep, TierStep, Verdict, Walk
from policies.model import Action, Policy


def _order(policy: Policy) -> str:
    return "no order" if policy.order is None else f"order {policy.order:g}"


def _outcome(walk: Walk) -> str:
    if not walk.reached:
        return "would be " + ("allowed" if walk.allowed else "denied") + ", but the packet is dropped before"
    return "allowed" if walk.allowed else "DENIED"


# -- text ------------------------------------------------------------------------------------------------------------


def _rule_line(step: RuleStep) -> str:
    text = "matches" if step.mismatch is None else f"no match: {step.mismatch}"
    return f"      rule {step.index + 1} {step.rule.action}: {text}"


def _policy_lines(step: PolicyStep, number: int) -> Iterator[str]:
    yield f"    {step.policy} ({_order(step.policy)})"
    yield from map(_rule_line, step.rules)
    if not step.rules:
        yield "      no rules in this direction: it only isolates"
    left = number - len(step.rules)
    if left > 0:
        yield f"      {left} more rule{'s' if left > 1 else ''} not looked at"


def _tier_lines(step: TierStep, walk: Walk) -> Iterator[str]:
    yield f"  tier {step.tier.name}"
    for policy in step.policies:
        yield from _policy_lines(policy, len(policy.policy.rules(walk.direction)))
    if step.by_default:
        yield f"    end of tier: {step.action}"


_PROFILE_LINES = {
    Ending.PROFILE: "  profile: Allow",
    Ending.NO_PROFILE: "  profiles: none allows, so Deny",
    Ending.FALL_THROUGH: "  nothing decided here: the packet goes on",
}


def _walk_lines(walk: Walk) -> Iterator[str]:
    hook = "" if walk.hook == "normal" else f", {walk.hook} policies"
    yield f"{walk.direction} of {walk.endpoint.name}{hook}: {_outcome(walk)}"
    if not walk.tiers:
        yield "  no policy selects it in this direction"
    for step in walk.tiers:
        yield from _tier_lines(step, walk)
    if walk.ending in _PROFILE_LINES:
        yield _PROFILE_LINES[walk.ending]
    for policy in walk.staged:
        yield f"  {policy} selects it too, but is staged: not enforced"


def _lines(verdict: Verdict) -> Iterator[str]:
    yield f"{verdict.flow}: {'allowed' if verdict.allowed else 'DENIED'}"
    yield f"  {verdict.why}"
    for walk in verdict.walks:
        yield ""
        yield from _walk_lines(walk)
    if verdict.logs:
        yield ""
        yield f"logged by: {', '.join(map(str, verdict.logs))}"
    for note in verdict.notes:
        yield f"note: {note}"


def as_text(verdict: Verdict) -> str:
    """The walk as an indented text."""
    return "\n".join(_lines(verdict)) + "\n"


# -- data ------------------------------------------------------------------------------------------------------------


def _rule_data(step: RuleStep) -> dict[str, Any]:
    data: dict[str, Any] = {"rule": step.index + 1, "action": step.rule.action.value, "matches": step.mismatch is None}
    if step.mismatch:
        data |= {"field": step.mismatch.field, "wanted": step.mismatch.wanted, "found": step.mismatch.found}
    return data


def policy_data(policy: Policy) -> dict[str, Any]:
    """How a policy is named in JSON."""
    return {"kind": policy.kind.value, "namespace": policy.namespace, "name": policy.name, "tier": policy.tier}


def _policy_data(step: PolicyStep) -> dict[str, Any]:
    return policy_data(step.policy) | {
        "order": step.policy.order,
        "rules": [_rule_data(rule) for rule in step.rules],
        "action": step.action and step.action.value,
    }


def _tier_data(step: TierStep) -> dict[str, Any]:
    policies = [_policy_data(policy) for policy in step.policies]
    return {"tier": step.tier.name, "policies": policies, "action": step.action.value, "by_default": step.by_default}


def _walk_data(walk: Walk) -> dict[str, Any]:
    return {
        "endpoint": walk.endpoint.name,
        "direction": walk.direction.value,
        "hook": walk.hook.value,
        "reached": walk.reached,
        "allowed": walk.allowed,
        "ending": walk.ending.value,
        "why": walk.why,
        "tiers": [_tier_data(step) for step in walk.tiers],
        "staged": [policy_data(policy) for policy in walk.staged],
    }


def as_data(verdict: Verdict) -> dict[str, Any]:
    """The verdict and its evidence as plain data."""
    return {
        "source": verdict.flow.source.name,
        "destination": verdict.flow.destination.name,
        "service": verdict.flow.service,
        "allowed": verdict.allowed,
        "why": verdict.why,
        "denied_by": [policy_data(policy) for policy in verdict.denied_by],
        "logged_by": [policy_data(policy) for policy in verdict.logs],
        "walks": [_walk_data(walk) for walk in verdict.walks],
        "notes": list(verdict.notes),
    }


# -- dot -------------------------------------------------------------------------------------------------------------

_COLOURS = {Action.ALLOW: "darkgreen", Action.DENY: "red3", Action.PASS: "grey40", None: "grey70"}


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _walk_nodes(walk: Walk) -> Iterator[tuple[str, str, str]]:
    """(name, label, colour) of the boxes of one walk, in order."""
    for tier in walk.tiers:
        for step in tier.policies:
            action = step.action.value if step.action else "no rule matches"
            name = f"{walk.direction} {walk.hook} {step.policy}"
            yield name, f"{step.policy}\\n{action}", _COLOURS[step.action]
    colour = _COLOURS[Action.ALLOW if walk.allowed else Action.DENY]
    yield f"{walk.direction} {walk.hook} end", f"{walk.ending.value}: {_outcome(walk)}", colour


def as_dot(verdict: Verdict) -> str:
    """The walk as a graph for graphviz."""
    lines = ["digraph verdict {", "  rankdir=LR;", "  node [shape=box];"]
    last = verdict.flow.source.name
    lines.append(f"  {_quoted(last)} [shape=ellipse];")
    for walk in verdict.walks:
        for name, label, colour in _walk_nodes(walk):
            text = _quoted(label).replace("\\\\n", "\\n")
            lines.append(f"  {_quoted(name)} [label={text}, color={colour}];")
            lines.append(f"  {_quoted(last)} -> {_quoted(name)};")
            last = name
    target = f"{verdict.flow.destination.name} {verdict.flow.service}"
    style = "solid" if verdict.allowed else "dotted"
    lines += [f"  {_quoted(target)} [shape=ellipse];", f"  {_quoted(last)} -> {_quoted(target)} [style={style}];", "}"]
    return "\n".join(lines) + "\n"
