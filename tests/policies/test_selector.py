"""The selector language: what Calico's vectors cannot show, as properties and as small cases."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.errors import SelectorError
from policies.labelindex import LabelIndex, positions
from policies.selector import (
    COMPARISONS,
    MAX_NESTING,
    All,
    And,
    Compare,
    Global,
    Has,
    Not,
    Or,
    Term,
    Within,
    canonical,
    compiled,
    matches,
    parse,
    prefixed,
    unique_id,
)

KEYS = st.sampled_from(["a", "b", "in", "not", "has", "all", "x.y/z_-1", "contains"])
VALUES = st.sampled_from(["", "a", "ab", "b", "'", "two words", "&& ||", "é", "\n"])
LABELS = st.dictionaries(KEYS, VALUES, max_size=4)


def _terms(inner: st.SearchStrategy[Term]) -> st.SearchStrategy[Term]:
    several = st.lists(inner, min_size=2, max_size=3).map(tuple)
    positive = inner.filter(lambda term: not isinstance(term, Not))
    return positive.map(Not) | several.map(And) | several.map(Or)


LEAVES: st.SearchStrategy[Term] = (
    st.just(All())
    | st.just(Global())
    | KEYS.map(Has)
    | st.builds(Compare, KEYS, st.sampled_from(list(COMPARISONS)), VALUES)
    | st.builds(Within, KEYS, st.booleans(), st.lists(VALUES, unique=True).map(sorted).map(tuple))
)
TERMS = st.recursive(LEAVES, _terms, max_leaves=8)


def holds(term: Term, labels: dict[str, str]) -> bool:
    """The meaning of a term, written down a second time and naively."""
    match term:
        case Not(inner):
            return not holds(inner, labels)
        case And(terms):
            return all(holds(each, labels) for each in terms)
        case Or(terms):
            return any(holds(each, labels) for each in terms)
        case Has(label):
            return label in labels
        case Within(label, negated, values):
            return (label not in labels or labels[label] not in values) if negated else labels.get(label) in values
        case Compare(label, "!=", value):
            return labels.get(label) != value
        case Compare(label, operator, value):
            return label in labels and COMPARISONS[operator](labels[label], value)
    return True


@given(TERMS)
def test_the_canonical_form_reads_back_as_the_same_selector(term: Term) -> None:
    """parse(canonical(t)) is t, and has the same id."""
    assert parse(canonical(term)) == term
    assert unique_id(parse(canonical(term))) == unique_id(term)


@given(TERMS, st.lists(LABELS, max_size=6))
def test_one_endpoint_and_many_endpoints_are_judged_alike(term: Term, maps: list[dict[str, str]]) -> None:
    """The compiled test, the bit sets and the naive reading agree on every label map."""
    wanted = [position for position, labels in enumerate(maps) if holds(term, labels)]
    assert [position for position, labels in enumerate(maps) if compiled(term)(labels)] == wanted
    assert LabelIndex(maps).positions(term) == wanted


@given(TERMS, LABELS)
def test_a_prefix_moves_the_question_to_other_labels(term: Term, labels: dict[str, str]) -> None:
    """A prefixed selector says of prefixed labels what the selector says of the labels."""
    moved = {f"pcns.{key}": value for key, value in labels.items()}
    assert compiled(prefixed(term, "pcns."))(moved) == compiled(term)(labels)


def refusal(text: str) -> SelectorError | None:
    try:
        parse(text)
    except SelectorError as error:
        return error
    return None


@given(st.text(alphabet="ab=!&|(){},'\" \t\ncontainshas", max_size=40))
def test_any_text_is_read_or_refused_with_a_column_inside_it(text: str) -> None:
    """Nothing but SelectorError comes out, and its column is in the text or just behind it."""
    error = refusal(text)
    assert error is None or (1 <= error.column <= len(text) + 1 and repr(text) in str(error))


@pytest.mark.parametrize(
    "text",
    ["a == 'b'\n", "\na == 'b'", "a == 'b'\n&& has(c)", "a in {\n'b'}", "!\nhas(a)", "(\nhas(a))", "has(a)\r", "\v"],
)
def test_a_newline_outside_quotes_is_refused(text: str) -> None:
    """YAML that keeps line breaks makes a selector that Calico does not read."""
    with pytest.raises(SelectorError):
        parse(text)


def test_a_newline_is_named_as_the_reason() -> None:
    """The sentence says what to do about it."""
    with pytest.raises(SelectorError, match=r"newline outside quotes.*'>-' in YAML"):
        parse("a == 'b' &&\nc == 'd'")


def test_the_column_is_that_of_the_first_unreadable_term() -> None:
    """What follows an operator is where the reader should look."""
    with pytest.raises(SelectorError) as caught:
        parse("a == 'b' && %")
    assert caught.value.column == 13


def test_a_tab_inside_quotes_stays_a_tab() -> None:
    """The grammar does not expand tabs."""
    assert parse("a\t==\t'x\ty'") == Compare("a", "==", "x\ty")


def test_parentheses_have_no_limit() -> None:
    """Calico's parser has none either (parser.go, parseOperation); `!` and the operators are folded on the way."""
    assert parse("(" * 5000 + "a == ''" + ")" * 5000) == Compare("a", "==", "")
    assert parse("! (" * 4 + "has(a) ) || has(b))))") == Not(Not(Not(Or((Not(Has("a")), Has("b"))))))


def test_operators_are_read_up_to_the_limit_and_refused_beyond() -> None:
    """A selector cannot exhaust the stack, neither while it is read nor later."""
    deep = "!(" * (MAX_NESTING - 1) + "has(a)" + ")" * (MAX_NESTING - 1)
    assert matches(canonical(parse(deep)), {}) is (MAX_NESTING % 2 == 0)
    with pytest.raises(SelectorError, match="nested deeper"):
        parse(f"!({deep})")


@pytest.mark.parametrize(
    ("text", "column"),
    [("has(a))", 7), ("(has(a)", 8), ("(has(a) && (has(b) ) ", 22), ("has(a) ) (has(b)", 10), (")", 1)],
)
def test_a_parenthesis_without_partner_is_refused_where_it_shows(text: str, column: int) -> None:
    """At the one too many, at what cannot follow one, or at the end."""
    with pytest.raises(SelectorError) as caught:
        parse(text)
    assert caught.value.column == column


def test_parentheses_inside_quotes_are_no_nesting() -> None:
    """The limit counts structure, not text."""
    assert matches("a == '" + "(" * 100 + "'", {"a": "(" * 100})


def test_a_label_has_at_most_512_characters() -> None:
    """One more is refused, as by the tokenizer's pattern."""
    assert parse(f"has({'a' * 512})") == Has("a" * 512)
    with pytest.raises(SelectorError):
        parse(f"has({'a' * 513})")


def test_positions_are_those_of_the_set_bits() -> None:
    """Bit sets and lists of positions are the same thing."""
    assert list(positions(0b1010001)) == [0, 4, 6]


def test_ten_thousand_selectors_over_ten_thousand_label_classes_take_seconds() -> None:
    """The index is what makes clusters of this size possible: a hundred million pairs."""
    maps = [{"app": f"app{i % 500}", "tier": f"t{i % 7}", "ns": f"n{i % 1000}"} for i in range(10_000)]
    terms = [And((Compare("ns", "==", f"n{i % 1000}"), Compare("app", "==", f"app{i}"))) for i in range(10_000)]
    start = time.perf_counter()
    index = LabelIndex(maps)
    found = [index.select(term).bit_count() for term in terms]
    # app i % 500 and ns i % 1000 meet in the ten maps whose number is i modulo 1000; only 500 apps are worn
    assert found == [10] * 500 + [0] * 9_500
    assert time.perf_counter() - start < 10
