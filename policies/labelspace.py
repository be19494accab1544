"""Is there a label map that makes some selectors true and others false? A small constraint solver over labels.

Rule: exact or honest. For each label only the values that the selectors can tell apart are tried (every constant, one
fresh value, absence), so "no" means no label map at all; where the search would pass its limit it raises `Undecided`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from policies.model import Labels
from policies.selector import COMPARISONS, All, And, Compare, Global, Has, Not, Or, Term, Within

MAX_STEPS = 5_000
"""Assignments tried for one question; a question of a real policy set needs fewer than a hundred."""

MAX_FRAGMENTS = 6
"""Constants of `contains`, `starts with`, `ends with` for one label whose combinations are all tried."""

_EASY = 10_000
"""Stands for the many ways in which a negation can be satisfied."""

_COUNTLESS = 10**9

FRESH = "other"
Assignment = Mapping[str, str | None]
"""Label to value; None: the label is absent. What is not in the map is not decided yet."""


class Undecided(Exception):
    """The search passed its limit, so neither answer is known; `steps` is how far it went, or would have to go."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        super().__init__(steps)

    def __str__(self) -> str:
        return f"there are too many classes to try them all ({min(self.steps, _COUNTLESS)} or more)"


def truth(term: Term, known: Assignment) -> bool | None:
    """Whether the selector holds under a partial assignment; None where that is still open."""
    match term:
        case All() | Global():
            return True
        case Not(inner):
            value = truth(inner, known)
            return None if value is None else not value
        case And(terms):
            return _combined((truth(each, known) for each in terms), False)
        case Or(terms):
            return _combined((truth(each, known) for each in terms), True)
    return _atom(term, known[term.label]) if term.label in known else None


def _combined(values: Iterable[bool | None], decisive: bool) -> bool | None:
    answer: bool | None = not decisive
    for value in values:
        if value is decisive:
            return decisive
        answer = None if value is None else answer
    return answer


def _atom(term: Has | Compare | Within, value: str | None) -> bool:
    match term:
        case Has():
            return value is not None
        case Compare(_, operator, wanted):
            return operator == "!=" if value is None else COMPARISONS[operator](value, wanted)
    return (value in term.values) is not term.negated


def specialise(term: Term, known: Assignment) -> Term | bool:
    """The selector with known labels put in; a bool where that decides it."""
    value = truth(term, known)
    if value is not None:
        return value
    match term:
        case Not(inner):
            kept = specialise(inner, known)
            return Not(kept) if not isinstance(kept, bool) else not kept
        case And(terms) | Or(terms):
            left = [each for each in (specialise(t, known) for t in terms) if not isinstance(each, bool)]
            return left[0] if len(left) == 1 else type(term)(_flat(type(term), left))
    return term


def _flat(join: type[And] | type[Or], terms: Iterable[Term]) -> tuple[Term, ...]:
    return tuple(itertools.chain.from_iterable(t.terms if isinstance(t, join) else (t,) for t in terms))


def atoms(term: Term) -> Iterator[Has | Compare | Within]:
    """The comparisons of a selector, in order."""
    match term:
        case Not(inner):
            yield from atoms(inner)
        case And(terms) | Or(terms):
            for each in terms:
                yield from atoms(each)
        case Has() | Compare() | Within():
            yield term


def _fresh(taken: Iterable[str]) -> str:
    used = set(taken)
    return next(name for n in itertools.count() if (name := FRESH + (str(n) if n else "")) not in used)


def _separator(constants: Iterable[str]) -> str:
    text = "".join(constants)
    return next((mark for mark in "-._0x" if mark not in text), "\x1f")


def _joined_fragments(fragments: Mapping[str, set[str]]) -> Iterator[str]:
    """Values that hold a choice of fragments and nothing else, the pieces kept apart by a mark none of them has."""
    constants = list(itertools.chain.from_iterable(fragments.values()))
    if len(constants) > MAX_FRAGMENTS:
        raise Undecided(2 ** len(constants))
    mark = _separator(constants)
    inner = sorted(fragments["contains"])
    for start, end in itertools.product(("", *fragments["starts with"]), ("", *fragments["ends with"])):
        for size in range(len(inner) + 1):
            for chosen in itertools.combinations(inner, size):
                yield mark.join((start, *chosen, end))


def values(label: str, found: Iterable[Has | Compare | Within]) -> list[str | None]:
    """The values of a label that the comparisons can tell apart; absence first. Raises Undecided."""
    constants: set[str] = set()
    fragments: dict[str, set[str]] = {"starts with": set(), "contains": set(), "ends with": set()}
    for atom in found:
        if isinstance(atom, Within):
            constants.update(atom.values)
        elif isinstance(atom, Compare):
            fragments.get(atom.operator, set()).add(atom.value)
            constants.add(atom.value)
    if any(fragments.values()):
        constants.update(_joined_fragments(fragments))
    return [None, _fresh(constants), *sorted(constants)]


@dataclass(slots=True)
class _Search:
    """A depth-first search over labels."""

    domains: Mapping[str, list[str | None]]
    known: dict[str, str | None]
    steps: int = 0

    def run(self, constraints: list[Term]) -> bool:
        left = [c for c in (specialise(each, self.known) for each in constraints) if c is not True]
        if any(each is False for each in left):
            return False
        rest = [each for each in left if not isinstance(each, bool)]
        if not rest:
            return True
        return self._branch(min(rest, key=_width), rest)

    def _branch(self, constraint: Term, rest: list[Term]) -> bool:
        label = next(atoms(constraint)).label
        for value in self._order(label, constraint):
            self.steps += 1
            if self.steps > MAX_STEPS:
                raise Undecided(self.steps)
            self.known[label] = value
            if self.run(rest):
                return True
        del self.known[label]
        return False

    def _order(self, label: str, constraint: Term) -> list[str | None]:
        """Values that decide the constraint in its favour first."""
        rank = {True: 0, None: 1, False: 2}
        return sorted(self.domains[label], key=lambda value: rank[truth(constraint, {label: value})])


def _width(term: Term) -> int:
    """How few ways there are to satisfy a constraint: what is nearly forced is tried first."""
    match term:
        case Compare(_, "==", _) | Has():
            return 0
        case Within(_, False, values):
            return len(values)
        case And(terms):
            return min(map(_width, terms))
        case Or(terms):
            return len(terms)
    return _EASY


def solve(constraints: Iterable[Term], fixed: Labels | Assignment) -> dict[str, str] | None:
    """A label map, `fixed` included, under which every constraint is true; None where there is none.

    A label that `fixed` maps to None is absent. Raises Undecided.
    """
    known: dict[str, str | None] = dict(fixed)
    wanted = [c for c in (specialise(each, known) for each in dict.fromkeys(constraints)) if c is not True]
    if any(each is False for each in wanted):
        return None
    terms = [each for each in wanted if not isinstance(each, bool)]
    by_label: dict[str, list[Has | Compare | Within]] = {}
    for atom in itertools.chain.from_iterable(map(atoms, terms)):
        by_label.setdefault(atom.label, []).append(atom)
    search = _Search({label: values(label, found) for label, found in by_label.items()}, known)
    if not search.run(terms):
        return None
    return {label: value for label, value in search.known.items() if value is not None}
