"""Two sets of policies walked side by side over every packet at once: the sources, and the sources with Log policies.

Rule: a packet is known only by the questions asked so far ("does this policy select the endpoint and does this rule
match?"). Each question splits what is left; packets that stand at the same place are kept together, so the work grows
with the number of rules and not with the number of packets. What comes out are the classes of packets on which the two
sets differ, or log otherwise than they deny; whether such a class holds any packet is asked of `policies.classes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache, reduce
from typing import NamedTuple, TypeAlias

from policies.classes import Fire
from policies.labelspace import Undecided, truth
from policies.match import number_of
from policies.model import Action, EntityRule, Labels, Network, PortRange, Rule
from policies.selector import All, And, Compare, Or, Term

MAX_CLASSES = 20_000
"""Histories kept at once; Log policies of ordinary sources need about one for each source policy."""

MAX_COUNTED = 3_000
"""The same while lines are counted: beyond it their number is only bounded."""

SAMPLES = 5
"""Histories kept for each number of lines, to tell how often one packet can be logged."""

ANYONE: Term = All()
"""Stands for "the policy selects the endpoint" where that is certain."""

FINAL = (Action.ALLOW, Action.DENY)
Literal: TypeAlias = Term | tuple[Term, int]
"""A question: "does the policy select the endpoint", or that together with "does this rule match" (by its number)."""


class Place(NamedTuple):
    """Where a packet stands: whether each set isolates it in this tier, what each decided, how often it was logged.

    PASS means that the rest of the tier is skipped; at the very end, that profiles or later hooks decide.
    """

    before_isolates: bool = False
    after_isolates: bool = False
    before: Action | None = None
    after: Action | None = None
    lines: int = 0

    @property
    def sound(self) -> bool:
        """Same decision in both sets, and logged exactly where denied."""
        return self.before is self.after and (self.after is Action.DENY) == (self.lines > 0)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, the selector `term` in it, and their places in the bit sets of a history.

    `parts` are the bits of the terms where the selector is an `||`. A long selector is hashed once for each question,
    not once for each history.
    """

    literal: Literal
    term: Term
    bit: int
    term_bit: int
    parts: int


@dataclass(frozen=True, slots=True)
class History:
    """The answers that lead to a place: questions answered yes, and a chain of those answered no."""

    yes: frozenset[Literal] = frozenset()
    no: tuple[Literal, object] | None = None
    known: Labels = field(default_factory=dict, hash=False)
    """Labels of the endpoint that the answers fix, so that selectors which exclude each other are seen to do so."""
    said: int = 0
    denied_bits: int = 0
    """What was answered yes and no, as bit sets of `Asked.bit`."""
    chosen: tuple[int, ...] = ()
    """For each `||` answered yes the bits of its parts: one of them holds."""

    def denied(self) -> Iterator[Literal]:
        """The questions answered no, newest first."""
        link: object = self.no
        while isinstance(link, tuple):
            yield link[0]
            link = link[1]

    def with_yes(self, asked: Asked) -> History:
        """One more question answered yes; a rule that fires also says that its policy selects the endpoint."""
        return replace(
            self,
            yes=self.yes | {asked.literal, asked.term},
            known={**self.known, **_fixed_by(asked.term)},
            said=self.said | asked.bit | asked.term_bit,
            chosen=(*self.chosen, asked.parts) if asked.parts else self.chosen,
        )

    def with_no(self, asked: Asked) -> History:
        """One more question answered no; where it is an `||`, so is each of its terms."""
        no: tuple[Literal, object] = (asked.literal, self.no)
        if isinstance(asked.literal, tuple):
            return replace(self, no=no, denied_bits=self.denied_bits | asked.bit)
        for part in _parts(asked.term):
            no = (part, no)
        return replace(self, no=no, denied_bits=self.denied_bits | asked.bit | asked.parts)


def _parts(term: Term) -> tuple[Term, ...]:
    return term.terms if isinstance(term, Or) else ()


def _fixed_by(term: Term) -> dict[str, str]:
    """Labels that a selector asks for by value."""
    parts = term.terms if isinstance(term, And) else (term,)
    return {part.label: part.value for part in parts if isinstance(part, Compare) and part.operator == "=="}


class Step(NamedTuple):
    """One rule: its number (None: it matches everything), where it stands, and whether its lines count."""

    number: int | None
    action: Action
    before: bool
    after: bool
    counts: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """A policy of the sources (`before`), of the result (`after`) or of both, for one direction."""

    selects: Term | bool
    before: bool
    after: bool
    steps: tuple[Step, ...]


Places: TypeAlias = dict[Place, list[History]]


Span: TypeAlias = tuple[tuple[int, int], tuple[int, int]]
"""First and last address of a net, each with its IP version in front."""


@lru_cache(maxsize=65536)
def _spans(nets: tuple[Network, ...]) -> tuple[Span, ...]:
    return tuple(sorted(((n.version, int(n.network_address)), (n.version, int(n.broadcast_address))) for n in nets))


def _apart(one: EntityRule, other: EntityRule) -> bool:
    """Whether two sides have no address in common, as far as nets say: both lists in step, as one merges them."""
    if not one.nets or not other.nets:
        return False
    here, there, i, j = _spans(one.nets), _spans(other.nets), 0, 0
    while i < len(here) and j < len(there):
        if here[i][1] < there[j][0]:
            i += 1
        elif there[j][1] < here[i][0]:
            j += 1
        else:
            return False
    return True


def _ports_apart(one: EntityRule, other: EntityRule) -> bool:
    here, there = one.ports, other.ports
    ranges = [(a, b) for a in here for b in there if isinstance(a, PortRange) and isinstance(b, PortRange)]
    plain = len(ranges) == len(here) * len(there) > 0
    return plain and all(a.last < b.first or b.last < a.first for a, b in ranges)


@lru_cache(maxsize=65536)
def disjoint(one: Rule, other: Rule) -> bool:
    """Whether two rules plainly share no packet: other IP version, protocol, port or address."""
    if None not in (one.ip_version, other.ip_version) and one.ip_version != other.ip_version:
        return True
    if _apart(one.source, other.source) or _apart(one.destination, other.destination):
        return True
    if one.protocol is None or other.protocol is None:
        return False
    same = number_of(one.protocol) == number_of(other.protocol)
    return not same or _ports_apart(one.destination, other.destination)


@dataclass(slots=True)
class Walker:
    """All packets of one endpoint class, direction and hook. Feed it tiers, `finish`, then read what it found.

    `rules` gives the rule and the namespace of its policy behind each rule number. With `counting` every line of a
    packet is told apart, without it only whether there is one, which keeps many overlapping Log policies apart less.
    """

    rules: list[Fire]
    counting: bool = True
    places: Places = field(default_factory=lambda: {Place(): [History()]})
    unsound: list[tuple[Place, History]] = field(default_factory=list)
    logged: dict[int, list[History]] = field(default_factory=dict)
    classes: int = 0
    _bits: dict[Literal, int] = field(default_factory=dict)
    _disjoint: dict[tuple[int, int], bool] = field(default_factory=dict)

    def tier(self, entries: Iterable[Entry], *, drops: bool) -> None:
        """Walk one tier to its end; `drops`: its default action denies."""
        for entry in entries:
            if entry.selects is not False:
                self._entry(entry)
        self._move(lambda place: _end_of_tier(place, drops))

    def finish(self, rest: Action) -> None:
        """What no tier decided ends as `rest`: ALLOW where that is certain, PASS where others decide."""
        self._move(lambda place: place._replace(before=place.before or rest, after=place.after or rest))
        for place, histories in self.places.items():
            for history in histories:
                self._leaf(place, history)
        self.places = {}

    def _move(self, change: Callable[[Place], Place]) -> None:
        target: Places = {}
        for place, histories in self.places.items():
            self._put(target, change(place), histories)
        self.places = target

    def _put(self, target: Places, place: Place, histories: list[History]) -> None:
        if place.before in FINAL and place.after in FINAL:
            for history in histories:
                self._leaf(place, history)
        elif histories:
            target.setdefault(place, []).extend(histories)

    def _leaf(self, place: Place, history: History) -> None:
        self.classes += 1
        if not place.sound:
            self.unsound.append((place, history))
        elif place.lines > 1 and len(found := self.logged.setdefault(place.lines, [])) < SAMPLES:
            found.append(history)

    def _entry(self, entry: Entry) -> None:
        active: Places = {}
        skipped: Places = {}
        for place, histories in self.places.items():
            isolated = _isolated(place, entry)
            if isolated == place or entry.selects is True:
                self._put(active, isolated, histories)
                continue
            assert not isinstance(entry.selects, bool)
            yes, no = self._split(histories, entry.selects)
            self._put(active, isolated, yes)
            self._put(skipped, place, no)
        for step in entry.steps:
            active = self._step(active, entry.selects, step)
        for place, histories in skipped.items():
            self._put(active, place, histories)
        self.places = active

    def _step(self, places: Places, selects: Term | bool, step: Step) -> Places:
        target: Places = {}
        for place, histories in places.items():
            moved = _moved(place, step)
            more_lines = moved.lines > place.lines > 0
            if moved == place or (more_lines and not self.counting):
                self._put(target, place, histories)
                continue
            yes, no = self._split(histories, self._literal(selects, step))
            self._put(target, moved, yes)
            self._put(target, place, no)
        limit = MAX_COUNTED if self.counting else MAX_CLASSES
        if sum(map(len, target.values())) > limit:
            raise Undecided(limit)
        return target

    def _literal(self, selects: Term | bool, step: Step) -> Literal | bool:
        if step.number is None:
            return selects
        return (ANYONE if isinstance(selects, bool) else selects, step.number)

    def _bit(self, literal: Literal) -> int:
        return 1 << self._bits.setdefault(literal, len(self._bits))

    def _asked(self, literal: Literal) -> Asked:
        term = literal[0] if isinstance(literal, tuple) else literal
        parts = reduce(int.__or__, map(self._bit, _parts(term)), 0)
        return Asked(literal, term, self._bit(literal), self._bit(term), parts)

    def _split(self, histories: list[History], literal: Literal | bool) -> tuple[list[History], list[History]]:
        if isinstance(literal, bool):
            return (histories, []) if literal else ([], histories)
        asked = self._asked(literal)
        yes, no = [], []
        for history in histories:
            answer = self._answer(history, asked)
            if answer is not False:
                yes.append(history if answer else history.with_yes(asked))
            if answer is not True:
                no.append(history.with_no(asked) if answer is None else history)
        return yes, no

    def _answer(self, history: History, asked: Asked) -> bool | None:
        """What earlier answers already say about a question."""
        if history.said & asked.bit:
            return True
        decided = truth(asked.term, history.known)
        if isinstance(asked.literal, tuple):
            return False if decided is False else self._answer_rule(history, asked, asked.literal[1])
        return _answer_term(history, asked) if decided is None else decided

    def _apart(self, number: int, other: int) -> bool:
        key = (number, other)
        if key not in self._disjoint:
            self._disjoint[key] = disjoint(self.rules[number].rule, self.rules[other].rule)
        return self._disjoint[key]

    def _answer_rule(self, history: History, asked: Asked, number: int) -> bool | None:
        if any(self._apart(number, each[1]) for each in history.yes if isinstance(each, tuple)):
            return False
        return False if history.denied_bits & (asked.bit | asked.term_bit) else None


def _answer_term(history: History, asked: Asked) -> bool | None:
    """An `||` is true where a part of it is, or one of an `||` that has no other parts; false where all parts are."""
    parts = asked.parts
    if parts and (history.said & parts or any(not chosen & ~parts for chosen in history.chosen)):
        return True
    if history.denied_bits & asked.bit or (parts and history.denied_bits & parts == parts):
        return False
    return None


def _isolated(place: Place, entry: Entry) -> Place:
    before = place.before_isolates or (entry.before and place.before is None)
    after = place.after_isolates or (entry.after and place.after is None)
    return place._replace(before_isolates=before, after_isolates=after)


def _moved(place: Place, step: Step) -> Place:
    """Where a packet goes that the rule matches."""
    if step.action is Action.LOG:
        return place._replace(lines=place.lines + 1) if step.counts and step.after and place.after is None else place
    before = step.action if step.before and place.before is None else place.before
    after = step.action if step.after and place.after is None else place.after
    return place._replace(before=before, after=after)


def _end_of_tier(place: Place, drops: bool) -> Place:
    def ended(action: Action | None, isolates: bool) -> Action | None:
        if action is None and isolates and drops:
            return Action.DENY
        return None if action is Action.PASS else action

    before, after = ended(place.before, place.before_isolates), ended(place.after, place.after_isolates)
    return Place(False, False, before, after, place.lines)
