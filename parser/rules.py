"""Small combinators over pyparsing in which every rule has two forms: the whole text, and the text cut short.

Rule: the cut form of a rule matches a proper beginning of it that reaches the end of the text, and yields only the
fields that are certain, so the last, possibly shortened token never counts. Blanks are significant everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyparsing as pp

from parser.patterns import beginning
from parser.values import Pair, Value


@dataclass(frozen=True, slots=True)
class Rule:
    """`whole` matches the complete text of the rule; `cut` a beginning of it, up to the end of the text."""

    whole: pp.ParserElement
    cut: pp.ParserElement


def regex(pattern: str, name: str, convert: Callable[[re.Match[str]], Sequence[Pair]]) -> pp.ParserElement:
    """An element that turns a match of `pattern` into pairs; a ValueError of `convert` is a failure to match."""

    def action(text: str, position: int, tokens: pp.ParseResults) -> list[Pair]:
        try:
            return list(convert(tokens[0]))
        except ValueError as error:
            raise pp.ParseException(text, position, str(error)) from error

    element = pp.Regex(pattern, as_match=True).leave_whitespace().set_name(name)
    return element.set_parse_action(action)


def _shortened(_match: re.Match[str]) -> Sequence[Pair]:
    return [("truncated", True)]


def remnant(pattern: str, name: str) -> pp.ParserElement:
    """The cut form of a token: a rest that matches `pattern` and reaches the end of the text."""
    return regex(rf"(?:{pattern})\Z", name, _shortened)


def token(literal: str, value: Value, close: str = " ") -> Rule:
    """`literal`, a value, and what closes it: a blank in almost all of the kernel's formats."""
    start, stop = re.escape(literal), re.escape(close)
    rest = f"{beginning(literal)}|{start}{value.part}|{start}(?:{value.pattern}){beginning(close[:-1])}"
    whole = regex(f"{start}(?:{value.pattern}){stop}", literal, value.convert)
    return Rule(whole, remnant(rest, literal))


def fixed(literal: str, *pairs: Pair) -> Rule:
    """A word without a value, which stands for `pairs`."""
    whole = regex(re.escape(literal), literal, lambda _match: pairs)
    return Rule(whole, remnant(beginning(literal[:-1]), literal))


def ahead(literal: str) -> Rule:
    """Goes on only where `literal` follows, and takes none of it."""
    whole = regex(f"(?={re.escape(literal)})", literal, lambda _match: ())
    return Rule(whole, remnant(beginning(literal[:-1]), literal))


def sequence(first: Rule, *rest: Rule) -> Rule:
    """One rule after the other."""
    if not rest:
        return first
    tail = sequence(*rest)
    return Rule(pp.And([first.whole, tail.whole]), pp.MatchFirst([pp.And([first.whole, tail.cut]), first.cut]))


def choice(*rules: Rule) -> Rule:
    """The first rule that matches."""
    return Rule(pp.MatchFirst([rule.whole for rule in rules]), pp.MatchFirst([rule.cut for rule in rules]))


def optional(rule: Rule) -> Rule:
    """The rule, or nothing."""
    return Rule(pp.Opt(rule.whole), rule.cut)


def repeated(rule: Rule) -> Rule:
    """The rule any number of times."""
    return Rule(pp.ZeroOrMore(rule.whole), pp.And([pp.ZeroOrMore(rule.whole), rule.cut]))


def collected(rule: Rule, collect: Callable[[Sequence[Pair]], Sequence[Pair]]) -> Rule:
    """The rule, with `collect` applied to all the pairs it found."""

    def action(tokens: pp.ParseResults) -> list[Pair]:
        return list(collect(list(tokens)))

    return Rule(pp.And([rule.whole]).set_parse_action(action), pp.And([rule.cut]).set_parse_action(action))


NOTHING = Rule(pp.Empty().leave_whitespace(), pp.NoMatch())
END = Rule(regex(r" ?\Z", "the end of the line", lambda _match: ()), pp.NoMatch())
