"""A list that is read while it arrives: the same objects as from the whole text, wherever it is cut."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.streamed import Streamed

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
_LISTS = st.tuples(
    st.dictionaries(st.sampled_from(("apiVersion", "kind", "metadata", "code")), _VALUES, max_size=4),
    st.lists(_VALUES, max_size=6),
    st.integers(0, 4),
)


def _pieces(text: str, size: int) -> Iterator[str]:
    return (text[at : at + size] for at in range(0, len(text), size))


@settings(max_examples=200, deadline=None)
@given(made=_LISTS, size=st.integers(1, 40), indent=st.sampled_from((None, 2)))
def test_a_list_in_pieces_is_the_list(
    made: tuple[dict[str, Any], list[Any], int], size: int, indent: int | None
) -> None:
    """With `items` before, between or behind the other fields, cut after every so many characters, blanks or not."""
    fields, items, place = made
    entries = [*fields.items()]
    entries.insert(place, ("items", items))
    text = json.dumps(dict(entries), indent=indent) + "\n"
    read = Streamed(_pieces(text, size))
    assert [*read.items()] == items
    assert read.fields == fields


@pytest.mark.parametrize("text", ["", "[]", "{", '{"items": [{}', '{"items": [{}]', '{"kind" 1}', "<html></html>"])
def test_what_is_no_list_or_ends_early_is_an_error(text: str) -> None:
    """Never half a list that looks like a whole one."""
    for size in (1, 100):
        with pytest.raises(ValueError, match=r"."):
            list(Streamed(_pieces(text, size)).items())


def test_no_items_are_no_objects() -> None:
    """Go writes null for an empty list; a Status has no items at all."""
    assert [*Streamed(iter(['{"items": null, "kind": "PodList"}'])).items()] == []
    assert [*Streamed(iter(['{"kind": "Status"}'])).items()] == []


def test_memory_holds_one_item_at_a_time() -> None:
    """Twenty megabytes of pods go through less than two."""
    item = json.dumps({"metadata": {"name": "pod"}, "spec": {"padding": "x" * 2000}})

    def chunks() -> Iterator[str]:
        yield '{"items":['
        for _ in range(10_000):
            yield item + ","
        yield item + "]}"

    tracemalloc.start()
    assert sum(1 for _ in Streamed(chunks()).items()) == 10_001
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * 2**20
