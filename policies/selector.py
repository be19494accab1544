"""Calico's selector language: its grammar, canonical form, unique id, and evaluation (for many, `policies.labelindex`).

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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TypeAlias

import pyparsing as pp

from policies.errors import SelectorError
from policies.model import Labels

Test: TypeAlias = Callable[[Labels], bool]

MAX_NESTING = 100
"""Levels of `!`, `&&` and `||` inside each other that are followed; people write three. Parentheses are no limit."""


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


@dataclass(frozen=True, slots=True)
class _Sign:
    """`!`, a parenthesis, `&&` or `||`, and its offset in the selector."""

    sign: str
    at: int


def _sign(pattern: str) -> pp.ParserElement:
    return _terminal(pattern).add_parse_action(lambda _, at, tokens: _Sign(tokens[0].lstrip(" \t"), at))


def _separated(item: pp.ParserElement, separator: str) -> pp.ParserElement:
    return item + pp.ZeroOrMore(pp.Suppress(_terminal(separator)) + item)


def _grammar() -> pp.ParserElement:
    """A selector as terms and signs in a row: `_folded` makes one term of them, however deep its parentheses."""
    opening = _terminal(rf"{_LABEL}{_BLANK}(?P<operator>not{_BLANK}in|in){_BLANK}\{{")
    members = _separated(_terminal(_STRING), ",") + pp.Suppress(pp.Optional(_terminal(",")))
    term = (
        _terminal(rf"has\({_BLANK}{_LABEL}{_BLANK}\)").add_parse_action(lambda tokens: Has(tokens["label"]))
        | _terminal(rf"all\({_BLANK}\)").add_parse_action(lambda: All())
        | _terminal(rf"global\({_BLANK}\)").add_parse_action(lambda: Global())
        | _terminal(rf"{_LABEL}{_BLANK}{_OPERATOR}{_BLANK}(?P<value>{_STRING})").add_parse_action(_compare)
        | (opening + pp.Optional(members)("values") + pp.Suppress(_terminal(r"\}"))).add_parse_action(_within)
    )
    item = pp.ZeroOrMore(_sign(r"!(?!=)") | _sign(r"\(")) + term + pp.ZeroOrMore(_sign(r"\)"))
    # What follows an operator must be an item (`-`): the error then points there.
    items = item + pp.ZeroOrMore((_sign("&&") | _sign(r"\|\|")) - item)
    return (items + pp.Suppress(_terminal(r"\Z"))).leave_whitespace().parse_with_tabs()


@dataclass(slots=True)
class _Level:
    """What was read inside one pair of parentheses: terms to be joined by `&&` in lists to be joined by `||`."""

    choices: list[list[Term]] = field(default_factory=lambda: [[]])
    negated: bool = False

    def add(self, term: Term) -> None:
        self.choices[-1].append(Not(term) if self.negated else term)
        self.negated = False

    def term(self) -> Term:
        return _joined(Or, [_joined(And, terms) for terms in self.choices])


def _joined(join: Callable[[tuple[Term, ...]], Term], terms: list[Term]) -> Term:
    return terms[0] if len(terms) == 1 else join(tuple(terms))


def _folded(tokens: Iterable[Term | _Sign]) -> Term:
    """One term of a row with matching parentheses."""
    levels = [_Level()]
    for token in tokens:
        match token:
            case _Sign("!"):
                levels[-1].negated = not levels[-1].negated
            case _Sign("("):
                levels.append(_Level())
            case _Sign(")"):
                inner = levels.pop().term()
                levels[-1].add(inner)
            case _Sign("||"):
                levels[-1].choices.append([])
            case _Sign():
                pass  # `&&` joins what stands in one list anyway
            case _:
                levels[-1].add(token)
    return levels[0].term()


def _check_parentheses(text: str, tokens: Iterable[Term | _Sign]) -> None:
    depth = 0
    for token in tokens:
        if isinstance(token, _Sign):
            depth += (token.sign == "(") - (token.sign == ")")
            if depth < 0:
                raise SelectorError(text, "this ')' closes nothing", _column(text, token.at))
    if depth:
        raise SelectorError(text, f"{depth} ')' missing at the end", len(text) + 1)


def _depth(term: Term) -> int:
    depth, level = 0, [term]
    while level:
        depth, level = depth + 1, list(itertools.chain.from_iterable(map(_inner, level)))
    return depth


def _inner(term: Term) -> tuple[Term, ...]:
    return (term.term,) if isinstance(term, Not) else term.terms if isinstance(term, And | Or) else ()


_GRAMMAR = _grammar()


def _reason(text: str, at: int) -> str:
    rest = text[at:].lstrip(" \t")
    if not rest:
        return "it ends where a term such as app == 'web', has(app) or app in {'a', 'b'} is needed"
    if re.search(r"[\r\n]", re.sub(_STRING, "", text)):
        return "a newline outside quotes; write the selector on one line, or fold it with '>-' in YAML"
    return f"cannot read {rest[:20]!r} as part of a selector such as app == 'web' && !has(tier) || app in {{'a', 'b'}}"


def _column(text: str, at: int) -> int:
    return len(text) - len(text[at:].lstrip(" \t")) + 1


@lru_cache(maxsize=65536)
def parse(text: str) -> Term:
    """The terms of a selector; blank text is `all()`. Raises SelectorError with the column."""
    if not text.strip(" \t"):
        return All()
    try:
        tokens = list(_GRAMMAR.parse_string(text))
    except pp.ParseBaseException as error:
        raise SelectorError(text, _reason(text, error.loc), _column(text, error.loc)) from None
    _check_parentheses(text, tokens)
    term = _folded(tokens)
    if _depth(term) > MAX_NESTING:
        raise SelectorError(text, f"operators nested deeper than {MAX_NESTING}", 1)
    return term


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


# -- evaluation ----------------------------------------------------------------------------------------


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
