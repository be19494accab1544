"""Why a stored packet was denied: the verdict of the policies of its time, and the rule that would have let it through.

Rule: pure; a packet and objects in, an explanation out. Where the policies that are known would have let the packet go
on, the answer says so instead of naming a culprit: a snapshot may be old, or the line came from a Log rule before an
Allow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from policies.allow import allow
from policies.evaluate import PolicyStep, RuleStep, Verdict
from policies.explain import as_text
from policies.logged import Cause, Logged, Open, Packet, placed
from policies.output import as_yaml
from policies.past import Past, Span, Version


@dataclass(frozen=True, slots=True)
class Ruling:
    """Who denied a packet, why, at which side (`ingress`: at its destination), and for how long that is the answer."""

    denied_by: tuple[str, ...]
    why: str
    direction: str
    span: Span


def ruled(packet: Packet, past: Past) -> Ruling | Open:
    """Which policies denied a stored packet, or why that cannot be said."""
    logged = placed(packet, past)
    if isinstance(logged, Open):
        return logged
    verdict = logged.judged()
    if verdict.allowed:
        return Open(Cause.ALLOWED, disagreement(verdict), logged.span)
    side = next(walk.direction for walk in verdict.walks if not walk.allowed)
    return Ruling(tuple(map(str, verdict.denied_by)), verdict.why, side.value.lower(), logged.span)


def disagreement(verdict: Verdict) -> str:
    """Why the policies let a packet go on that was logged."""
    loggers = ", ".join(sorted({str(policy) for policy in verdict.logs}))
    return verdict.why + (f"; it is logged, not denied, by {loggers}" if loggers else "")


# -- for people ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Selecting:
    """A policy that selects the denied pod in that direction, and what became of the packet at each of its rules."""

    policy: str
    tier: str
    order: float | None
    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """One stored packet, explained.

    `denied` is None where the packet cannot be judged and False where the known policies allow it; `why` says which and
    why in one sentence. `policies` are those that select the denied endpoint, in the order in which Calico walks them.
    `proposal` is the smallest policy that would allow the flow, as YAML; where it is empty, `refused` says why.
    `walk` is the whole evidence as a text, `notes` are what the reader should know besides.
    """

    flow: str
    denied: bool | None
    denied_by: tuple[str, ...]
    why: str
    policies: tuple[Selecting, ...] = ()
    proposal: str = ""
    refused: str = ""
    opens: tuple[str, ...] = ()
    walk: str = ""
    notes: tuple[str, ...] = ()


def explain_denial(packet: Packet, objects: Iterable[Mapping[str, object]], *, propose: bool = True) -> Explanation:
    """Why a stored packet was denied.

    `packet` is a row of the store with the names of `parser.FIELDS` (at least time, direction, interfaces, addresses,
    protocol and ports); `objects` are the plain objects that held at its time (`analytics.inventory.objects_at`).
    Objects that cannot be read are named in `notes`. Raises nothing about the input.
    """
    past = Past(map(Version, objects))
    problems = tuple(map(str, past.problems))
    logged = placed(packet, past)
    if isinstance(logged, Open):
        return Explanation(_seen(packet), None, (), logged.why, notes=problems)
    verdict = logged.judged()
    notes = (*logged.notes, *verdict.notes, *problems)
    told = Explanation(
        str(verdict.flow), not verdict.allowed, tuple(map(str, verdict.denied_by)), verdict.why,
        tuple(_selecting(verdict)), walk=as_text(verdict), notes=notes,
    )  # fmt: skip
    if verdict.allowed:
        return replace(told, why=disagreement(verdict))
    return _proposed(told, logged, past, packet) if propose else told


def _seen(packet: Packet) -> str:
    port = packet.get("destination_port")
    kind = f"{packet.get('protocol')}" + (f" port {port}" if port is not None else "")
    return f"{packet.get('source_ip')} to {packet.get('destination_ip')}, {kind}"


def _selecting(verdict: Verdict) -> Iterator[Selecting]:
    walk = next((walk for walk in verdict.walks if not walk.allowed), None)
    for tier in walk.tiers if walk else ():
        for step in tier.policies:
            yield Selecting(str(step.policy), tier.tier.name, step.policy.order, tuple(_words(step)))


def _words(step: PolicyStep) -> Iterator[str]:
    yield from map(rule_words, step.rules)
    if not step.rules:
        yield "no rules in this direction: it only isolates"


def rule_words(step: RuleStep) -> str:
    """What became of a packet at one rule: `rule 1 Allow: no match: …`."""
    text = "matches" if step.mismatch is None else f"no match: {step.mismatch}"
    return f"rule {step.index + 1} {step.rule.action}: {text}"


def _proposed(told: Explanation, logged: Logged, past: Past, packet: Packet) -> Explanation:
    inventory = past.inventory(packet["time"])
    proposal = allow([logged.flow], inventory)
    if proposal.refused and not proposal.objects:
        proposal = allow([logged.flow], inventory, calico=True)
    return replace(
        told,
        proposal=as_yaml(proposal.objects),
        refused="; ".join(each.reason for each in proposal.refused),
        opens=tuple(str(change.after.flow) for change in proposal.beside if change.kind == "opened"),
    )
