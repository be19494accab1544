"""Calico's selector language: its grammar, canonical form, unique id, and evaluation for one endpoint or for many.

Rule: a selector is valid, equal and true here exactly where Calico's own parser says so
(libcalico-go/lib/selector/tokenizer/tokenizer.go and parser/parser.go). Precedence: `!` binds to one term, `&&` before
`||`. White space is space and tab; a newline outside quotes is an error, and quotes have no escapes.
A missing label makes `!=` and `not in` true and every other comparison false.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from typing import TypeAlias, cast

import pyparsing as pp

from policies.errors import SelectorError
from policies.model import Labels

Test: TypeAlias = Callable[[Labels], bool]

MAX_NESTING = 40
"""Depth of parentheses that the recursive grammar takes; ten times what people write."""


@dataclass(frozen=True, slots=True)
class All:
    """`all()`: true for every endpoint."""


@dataclass(frozen=True, slots=True)
class Global:
    """`global()`: true by itself; its meaning comes from `policies.scope`."""


@dataclass(frozen=True, slots=True)
class Has:
    """`has(label)`."""

    label: str


@dataclass(frozen=True, slots=True)
class Compare:
    """`label operator 'value'`; the operator is one of `COMPARISONS`, in its canonical spelling."""

    label: str
    operator: str
    value: str


@dataclass(frozen=True, slots=True)
class Within:
    """`label in {…}` or `label not in {…}`; values sorted and without doubles."""

    label: str
    negated: bool
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """`!term`."""

    term: Term


@dataclass(frozen=True, slots=True)
class And:
    """Terms that must all be true, at least two."""

    terms: tuple[Term, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Terms of which one must be true, at least two."""

    terms: tuple[Term, ...]


Term: TypeAlias = All | Global | Has | Compare | Within | Not | And | Or

COMPARISONS: Mapping[str, Callable[[str, str], bool]] = {
    "==": str.__eq__,
    "!=": str.__ne__,
    "contains": str.__contains__,
    "starts with": str.startswith,
    "ends with": str.endswith,
}
"""Operator to what it asks of (the label's value, the given value)."""


# -- grammar ---------------------------------------------------------------------------------------------------------
# Every terminal takes the blanks before it itself: pyparsing's own skipping would also skip newlines.

_BLANK = r"[ \t]*"
_LABEL = r"(?P<label>[A-Za-z0-9_./-]{1,512})(?![A-Za-z0-9_./-])"
_STRING = r"""(?:"[^"]*"|'[^']*')"""
_OPERATOR = rf"(?P<operator>==|!=|contains|starts{_BLANK}with|ends{_BLANK}with)"


def _terminal(pattern: str) -> pp.Regex:
    return pp.Regex(_BLANK + pattern)


def _compare(tokens: pp.ParseResults) -> Term:
    operator = "".join(tokens["operator"].split())
    spelled = {"startswith": "starts with", "endswith": "ends with"}.get(operator, operator)
    return Compare(tokens["label"], spelled, tokens["value"][1:-1])


def _values(tokens: pp.ParseResults) -> list[str]:
    return list(tokens["values"]) if "values" in tokens else []


def _within(tokens: pp.ParseResults) -> Term:
    # Go compares strings byte by byte (stringset.go), Python by code point: the order is the same for valid UTF-8.
    values = sorted({quoted.lstrip(" \t")[1:-1] for quoted in _values(tokens)})
    return Within(tokens["label"], tokens["operator"] != "in", tuple(values))


def _operation(tokens: pp.ParseResults) -> Term:
    term: Term = tokens[-1]
    return Not(term) if len(tokens) % 2 == 0 else term


def _joined(join: Callable[[tuple[Term, ...]], Term]) -> Callable[[pp.ParseResults], Term]:
    return lambda tokens: tokens[0] if len(tokens) == 1 else join(tuple(tokens))


def _separated(item: pp.ParserElement, separator: str) -> pp.ParserElement:
    return item + pp.ZeroOrMore(pp.Suppress(_terminal(separator)) + item)


def _chained(item: pp.ParserElement, operator: str) -> pp.ParserElement:
    """Like `_separated`, but what follows an operator must be an item: the error then points there."""
    return (item + pp.ZeroOrMore(pp.Suppress(_terminal(operator)) - item)).leave_whitespace()


def _grammar() -> pp.ParserElement:
    expression = pp.Forward()
    opening = _terminal(rf"{_LABEL}{_BLANK}(?P<operator>not{_BLANK}in|in){_BLANK}\{{")
    members = _separated(_terminal(_STRING), ",") + pp.Suppress(pp.Optional(_terminal(",")))
    term = (
        _terminal(rf"has\({_BLANK}{_LABEL}{_BLANK}\)").add_parse_action(lambda tokens: Has(tokens["label"]))
        | _terminal(rf"all\({_BLANK}\)").add_parse_action(lambda: All())
        | _terminal(rf"global\({_BLANK}\)").add_parse_action(lambda: Global())
        | _terminal(rf"{_LABEL}{_BLANK}{_OPERATOR}{_BLANK}(?P<value>{_STRING})").add_parse_action(_compare)
        | (opening + pp.Optional(members)("values") + pp.Suppress(_terminal(r"\}"))).add_parse_action(_within)
        | pp.Suppress(_terminal(r"\(")) + expression + pp.Suppress(_terminal(r"\)"))
    )
    operation = (pp.ZeroOrMore(_terminal(r"!(?!=)")) + term).add_parse_action(_operation)
    conjunction = _chained(operation, "&&").add_parse_action(_joined(And))
    expression <<= _chained(conjunction, r"\|\|").add_parse_action(_joined(Or))
    return (expression + pp.Suppress(_terminal(r"\Z"))).leave_whitespace().parse_with_tabs()


_GRAMMAR = _grammar()


def _reason(text: str, at: int) -> str:
    rest = text[at:].lstrip(" \t")
    if not rest:
        return "it ends where a term such as app == 'web', has(app) or app in {'a', 'b'} is needed"
    if re.search(r"[\r\n]", re.sub(_STRING, "", text)):
        return "a newline outside quotes; write the selector on one line, or fold it with '>-' in YAML"
    return f"cannot read {rest[:20]!r} as part of a selector such as app == 'web' && !has(tier) || app in {{'a', 'b'}}"


def _nesting(text: str) -> int:
    outside = re.sub(_STRING, "", text)
    return max(itertools.accumulate((c == "(") - (c == ")") for c in outside), default=0)


@lru_cache(maxsize=65536)
def parse(text: str) -> Term:
    """The terms of a selector; blank text is `all()`. Raises SelectorError with the column."""
    if not text.strip(" \t"):
        return All()
    if _nesting(text) > MAX_NESTING:
        raise SelectorError(text, f"parentheses nested deeper than {MAX_NESTING}", 1)
    try:
        return cast(Term, _GRAMMAR.parse_string(text)[0])
    except pp.ParseBaseException as error:
        at = error.loc + len(text[error.loc :]) - len(text[error.loc :].lstrip(" \t"))
        raise SelectorError(text, _reason(text, at), at + 1) from None


# -- canonical form and identity -------------------------------------------------------------------------------------


def _quoted(value: str) -> str:
    return f"'{value}'" if '"' in value else f'"{value}"'


def canonical(term: Term) -> str:
    """The one spelling of a selector that Calico hashes and compares (parser/ast.go)."""
    match term:
        case Has(label):
            return f"has({label})"
        case Compare(label, operator, value):
            return f"{label} {operator} {_quoted(value)}"
        case Within(label, negated, values):
            return f"{label} {'not in' if negated else 'in'} {{{', '.join(map(_quoted, values))}}}"
        case Not(inner):
            return f"!{canonical(inner)}"
        case And(terms) | Or(terms):
            glue = " && " if isinstance(term, And) else " || "
            return f"({glue.join(map(canonical, terms))})"
    return "all()" if isinstance(term, All) else "global()"


def unique_id(term: Term) -> str:
    """The id that names a selector's IP set: `s:` and the SHA-224 of its canonical form (lib/hash/id.go)."""
    digest = hashlib.sha224(b"s:" + canonical(term).encode()).digest()
    return "s:" + base64.urlsafe_b64encode(digest).decode().rstrip("=")


def prefixed(term: Term, prefix: str) -> Term:
    """The same selector about labels that start with `prefix` (`pcns.`, `pcsa.`)."""
    match term:
        case Has() | Compare() | Within():
            return replace(term, label=prefix + term.label)
        case Not(inner):
            return Not(prefixed(inner, prefix))
        case And(terms):
            return And(tuple(prefixed(each, prefix) for each in terms))
        case Or(terms):
            return Or(tuple(prefixed(each, prefix) for each in terms))
    return term


# -- evaluation: one endpoint ----------------------------------------------------------------------------------------


def _compare_test(term: Compare) -> Test:
    label, value, missing = term.label, term.value, term.operator == "!="
    holds = COMPARISONS[term.operator]
    return lambda labels: holds(labels[label], value) if label in labels else missing


def _within_test(term: Within) -> Test:
    label, values, negated = term.label, frozenset(term.values), term.negated
    return lambda labels: (label in labels and labels[label] in values) != negated


def _list_test(terms: tuple[Term, ...], combine: Callable[[Iterable[bool]], bool]) -> Test:
    tests = [compiled(term) for term in terms]
    return lambda labels: combine(test(labels) for test in tests)


@lru_cache(maxsize=65536)
def compiled(term: Term) -> Test:
    """A function from an endpoint's labels to whether the selector picks it."""
    match term:
        case Has(label):
            return lambda labels: label in labels
        case Compare():
            return _compare_test(term)
        case Within():
            return _within_test(term)
        case Not(inner):
            test = compiled(inner)
            return lambda labels: not test(labels)
        case And(terms):
            return _list_test(terms, all)
        case Or(terms):
            return _list_test(terms, any)
    return lambda labels: True


def matches(text: str, labels: Labels) -> bool:
    """Whether the selector picks an endpoint with these labels. Raises SelectorError."""
    return compiled(parse(text))(labels)


# -- evaluation: many endpoints --------------------------------------------------------------------------------------


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
