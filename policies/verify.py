"""Proof that Log policies only log: no verdict changes, and a packet is logged if and only if a policy denies it.

Rule: a claim is proved over every endpoint, peer and port that the policies can tell apart, or refuted with one packet
that the evaluator (`policies.evaluate`) has confirmed, or reported as not decided; never guessed. "Denied" means by a
policy: a packet that no policy and no profile of a host endpoint allows is dropped without a policy that could log it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from policies.classes import Fire, Question, Space, find
from policies.evaluate import Ending, Ruleset, Walk, walk
from policies.flow import Flow, Hook
from policies.labelspace import Undecided, specialise
from policies.model import Action, Direction, Inventory, Policy
from policies.pairing import Comparison, Numbers, Pair, entries, unapplied
from policies.selector import Term
from policies.symbolic import History, Literal, Walker

_HOST_WALKS = tuple(itertools.product(Direction, Hook))
_POD_WALKS = tuple((direction, Hook.NORMAL) for direction in Direction)

_TRIES = 200
"""Suspicious classes of one walk in which a packet is looked for; beyond that the answer is "not decided"."""


_LEFT = {
    Hook.NORMAL: "left to the profiles of the host endpoint",
    Hook.PRE_DNAT: "left to the policies after preDNAT",
    Hook.UNTRACKED: "left to the policies after doNotTrack",
}
"""What a host endpoint does with a packet that no policy decides; an Allow would skip it (felix/rules/static.go)."""


def _outcome(walk: Walk) -> str:
    if walk.endpoint.host and walk.ending in (Ending.PROFILE, Ending.FALL_THROUGH) and walk.hook in _LEFT:
        return _LEFT[walk.hook]
    return "allowed" if walk.allowed else "denied"


@dataclass(frozen=True, slots=True)
class Counterexample:
    """One packet for which the claim fails, with both walks as evidence."""

    flow: Flow
    before: Walk
    after: Walk
    lines: int

    @property
    def claim(self) -> str:
        """Which claim fails, in words."""
        was, now = _outcome(self.before), _outcome(self.after)
        if was != now:
            return f"the verdict changes: {was} by the sources, {now} with the generated policies"
        if now == "denied":
            return "it is denied but not logged"
        return "it is logged but allowed"

    def __str__(self) -> str:
        return f"{self.flow}: {self.claim} ({self.after.why})"


@dataclass(frozen=True, slots=True)
class Proof:
    """What was found. `lines` bounds the log lines of one denied packet; `classes` the packet classes seen."""

    counterexamples: tuple[Counterexample, ...] = ()
    undecided: tuple[str, ...] = ()
    lines: int = 0
    classes: int = 0
    spaces: int = 0

    @property
    def holds(self) -> bool:
        """Whether the claim is proved."""
        return not self.counterexamples and not self.undecided

    def __str__(self) -> str:
        if self.holds:
            lines = "1 line" if self.lines <= 1 else f"up to {self.lines} lines"
            seen = (
                f"{self.classes} classes of packets, {self.spaces} kind{'s' if self.spaces != 1 else ''} of endpoints"
            )
            return f"proved for every packet ({seen}): no verdict changes, exactly the denied are logged, {lines} each"
        return "\n".join([*map(str, self.counterexamples), *self.undecided])


# -- one kind of endpoint, direction and hook ------------------------------------------------------------------------


@dataclass(slots=True)
class _Findings:
    """What the walks have found so far."""

    counterexamples: list[Counterexample]
    undecided: list[str]
    lines: int = 0
    classes: int = 0


@dataclass(frozen=True, slots=True)
class _Case:
    """One kind of endpoint in one direction and hook, with the policies that can select it."""

    comparison: Comparison
    space: Space
    pairs: tuple[tuple[Pair, Term | bool], ...]
    direction: Direction
    hook: Hook

    def __str__(self) -> str:
        return f"{self.space.name}, {self.direction.value.lower()}, {self.hook} policies"

    def question(self, history: History, numbers: Numbers) -> Question:
        """The class of packets with these answers."""
        fires, selected = _sorted(history.yes, numbers)
        misses, unselected = _sorted(history.denied(), numbers)
        return Question(self.space, self.direction, fires, misses, selected, unselected)

    def confirm(self, flow: Flow) -> Counterexample | None:
        """The packet as a counterexample, if the evaluator agrees that it is one."""
        endpoint = flow.side(self.direction).endpoint
        assert endpoint is not None
        before, after = (
            walk(_ruleset(self, generated), endpoint, self.direction, self.hook, flow) for generated in (False, True)
        )
        lines = self._lines(before, after)
        denied = after.ending is not after.ending.NO_PROFILE and not after.allowed
        wrong = _outcome(before) != _outcome(after) or denied != (lines > 0)
        return Counterexample(flow, before, after, lines) if wrong else None

    def _lines(self, before: Walk, after: Walk) -> int:
        """The lines that the generated policies write; those of a policy's replaced form are not new."""
        changed = [pair for pair, _ in self.pairs if pair.after is not pair.before]
        written = sum(any(policy is pair.after for pair in changed) for policy in after.logs)
        return written - sum(any(policy is pair.before and pair.after for pair in changed) for policy in before.logs)


def _sorted(literals: Iterable[Literal], numbers: Numbers) -> tuple[tuple[Fire, ...], tuple[Term, ...]]:
    fires, terms = [], []
    for literal in literals:
        if isinstance(literal, tuple):
            fires.append(replace(numbers.fires[literal[1]], selects=literal[0]))
        else:
            terms.append(literal)
    return tuple(fires), tuple(terms)


def _ruleset(case: _Case, generated: bool) -> Ruleset:
    chosen = (pair.after if generated else pair.before for pair, _ in case.pairs)
    return Ruleset.of(replace(case.comparison.sources, policies=tuple(policy for policy in chosen if policy)))


def _walked(case: _Case, numbers: Numbers, *, counting: bool) -> Walker:
    walker = Walker(numbers.fires, counting)
    for tier in case.comparison.tiers:
        own = [(pair, term) for pair, term in case.pairs if pair.policy.tier == tier.name]
        drops = tier.default_action is Action.DENY and case.hook in (Hook.NORMAL, Hook.FORWARD)
        walker.tier(entries(own, case.direction, case.hook, numbers), drops=drops)
    open_ended = case.space.host and case.hook in _LEFT
    walker.finish(Action.PASS if open_ended else Action.ALLOW)
    return walker


def _walk(case: _Case, numbers: Numbers) -> tuple[Walker, int]:
    """The walk, and the most lines: counted, or where that is too much, one for each generated policy."""
    try:
        walker = _walked(case, numbers, counting=True)
        return walker, _most_lines(case, walker, numbers)
    except Undecided:
        walker = _walked(case, numbers, counting=False)
        return walker, sum(pair.before is not pair.after for pair, _ in case.pairs)


def _check(case: _Case, findings: _Findings) -> None:
    numbers = Numbers()
    try:
        walker, lines = _walk(case, numbers)
        findings.classes += walker.classes
        findings.lines = max(findings.lines, lines)
        for _, history in walker.unsound[:_TRIES]:
            if _refute(case, case.question(history, numbers), findings):
                return
        if len(walker.unsound) > _TRIES:
            findings.undecided.append(f"{case}: {len(walker.unsound)} suspicious classes of packets are too many")
    except Undecided as stopped:
        findings.undecided.append(f"{case}: not decided, {stopped}")


def _refute(case: _Case, question: Question, findings: _Findings) -> bool:
    flow = find(question)
    found = case.confirm(flow) if flow else None
    if flow and not found:
        findings.undecided.append(f"{case}: {flow} looks wrong, but the evaluator does not confirm it")
    if found:
        findings.counterexamples.append(found)
    return found is not None


def _most_lines(case: _Case, walker: Walker, numbers: Numbers) -> int:
    """The most lines that a packet was found for, or that could not be excluded."""
    for lines, histories in sorted(walker.logged.items(), reverse=True):
        try:
            if any(find(case.question(history, numbers)) for history in histories):
                return lines
        except Undecided:
            return lines
    return 1


def _cases(comparison: Comparison) -> Iterator[_Case]:
    for space, pairs in comparison.spaces():
        terms = ((pair, specialise(pair.term, space.fixed)) for pair in pairs)
        chosen = tuple((pair, term) for pair, term in terms if term is not False)
        for direction, hook in _HOST_WALKS if space.host else _POD_WALKS:
            if chosen:
                yield _Case(comparison, space, chosen, direction, hook)


def verify(sources: Inventory, generated: Iterable[Policy], *, most: int = 1) -> Proof:
    """Prove or refute that the generated policies, applied beside or over the sources, only log what is denied.

    Log policies among the sources that are ours, or that `generated` holds again, count as not yet applied.
    Stops after `most` counterexamples. Raises SelectorError for a selector that Calico would not parse.
    """
    findings = _Findings([], [])
    spaces: set[str] = set()
    new = tuple(generated)
    for case in _cases(Comparison(replace(sources, policies=unapplied(sources.policies, new)), new)):
        spaces.add(case.space.name)
        _check(case, findings)
        if len(findings.counterexamples) >= most:
            break
    found = findings
    return Proof(tuple(found.counterexamples), tuple(found.undecided), found.lines, found.classes, len(spaces))
