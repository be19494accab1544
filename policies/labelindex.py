"""Which of many endpoints a selector picks, for clusters with thousands of pods and policies.

Rule: the answer is that of `policies.selector.compiled` for each label map; only the work differs, since label maps are
turned into one bit set per label and value, and a selector costs a few steps of big integers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache, reduce

from policies.model import Labels
from policies.selector import COMPARISONS, And, Compare, Has, Not, Or, Term, Within, parse


class LabelIndex:
    """Many label maps, turned into one bit set per label and value, so that a selector costs a few big-integer steps.

    A set is an int whose bit i stands for the i-th map given.
    """

    def __init__(self, maps: Iterable[Labels]) -> None:
        self.maps = tuple(maps)
        self.everyone = (1 << len(self.maps)) - 1
        self._values = _bit_sets(self.maps)
        self._present = {label: _union(sets.values()) for label, sets in self._values.items()}
        self._select = lru_cache(maxsize=65536)(self._evaluate)

    def select(self, selector: str | Term) -> int:
        """The maps that the selector picks, as a bit set. Raises SelectorError."""
        return self._select(parse(selector) if isinstance(selector, str) else selector)

    def positions(self, selector: str | Term) -> list[int]:
        """The positions of the maps that the selector picks, ascending. Raises SelectorError."""
        return list(positions(self.select(selector)))

    def _evaluate(self, term: Term) -> int:
        match term:
            case Has(label):
                return self._present.get(label, 0)
            case Compare(label, operator, value):
                return self._compare(label, operator, value)
            case Within(label, negated, values):
                sets = self._values.get(label, {})
                found = _union(sets.get(value, 0) for value in values)
                return self.everyone ^ found if negated else found
            case Not(inner):
                return self.everyone ^ self._select(inner)
            case And(terms):
                return reduce(int.__and__, map(self._select, terms))
            case Or(terms):
                return _union(map(self._select, terms))
        return self.everyone

    def _compare(self, label: str, operator: str, value: str) -> int:
        sets = self._values.get(label, {})
        if operator in ("==", "!="):
            equal = sets.get(value, 0)
            return equal if operator == "==" else self.everyone ^ equal
        holds = COMPARISONS[operator]
        return _union(bits for own, bits in sets.items() if holds(own, value))


def positions(bits: int) -> Iterator[int]:
    """The positions of the set bits, ascending."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest


def _union(sets: Iterable[int]) -> int:
    return reduce(int.__or__, sets, 0)


def _bit_sets(maps: tuple[Labels, ...]) -> dict[str, dict[str, int]]:
    members: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for position, labels in enumerate(maps):
        for label, value in labels.items():
            members[label][value].append(position)
    size = len(maps) // 8 + 1
    return {label: {value: _bits(found, size) for value, found in values.items()} for label, values in members.items()}


def _bits(found: list[int], size: int) -> int:
    buffer = bytearray(size)
    for position in found:
        buffer[position >> 3] |= 1 << (position & 7)
    return int.from_bytes(buffer, "little")
