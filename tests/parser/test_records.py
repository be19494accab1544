"""Records of several lines: where each begins and ends, whole, in pieces, and among lines that are none."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parser.records import is_multiline, records

EXPORT = b"__CURSOR=s=1\n_TRANSPORT=kernel\nMESSAGE=calico-packet: IN= OUT= \n\n"
BINARY = b"_TRANSPORT=kernel\nMESSAGE\n" + (7).to_bytes(8, "little") + b"a\n\nb\n=c\n\n"
VERBOSE = b"Sun 2026-11-22 14:07:40.325509 CET [s=c5;i=2]\n    _TRANSPORT=kernel\n    MESSAGE=x\n"
PARTIAL = b"2026-11-22T12:00:00Z stdout P half a\n2026-11-22T12:00:00Z stdout F  line\n"
FULL = b"2026-11-22T12:00:00Z stderr F one line\n"
PLAIN = b"Nov 22 13:05:43 n1 kernel: calico-packet: IN= OUT=\n"
PIECES = {"export": EXPORT, "binary": BINARY, "verbose": VERBOSE, "partial": PARTIAL, "full": FULL, "plain": PLAIN}


def cut(data: bytes, final: bool = True) -> list[bytes]:
    """The records of `data`."""
    return [data[start:end] for start, end in records(data, final)]


@pytest.mark.parametrize("first", PIECES)
@pytest.mark.parametrize("second", PIECES)
def test_records_end_where_their_format_says(first: str, second: str) -> None:
    """Two records of any two formats come apart at the seam."""
    assert cut(PIECES[first] + PIECES[second]) == [PIECES[first], PIECES[second]]


@given(st.lists(st.sampled_from(sorted(PIECES)), max_size=6), st.data())
@settings(max_examples=100, deadline=None)
def test_records_do_not_depend_on_the_chunks(names: list[str], data: st.DataObject) -> None:
    """Read in two chunks, the second beginning where the first had its last whole record, nothing changes."""
    text = b"".join(PIECES[name] for name in names)
    middle = data.draw(st.integers(0, len(text)))
    head = cut(text[:middle], final=False)
    assert head + cut(text[sum(map(len, head)) :]) == cut(text)


@given(st.binary(max_size=200), st.booleans())
def test_records_cover_any_bytes(data: bytes, final: bool) -> None:
    """Whatever the bytes, records follow each other without a gap; when final, to the end."""
    found = list(records(data, final))
    assert [start for start, _ in found] == [0, *(end for _, end in found)][: len(found)]
    assert all(end > start for start, end in found)
    assert not final or not data or found[-1][1] == len(data)


def test_an_entry_waits_for_its_end() -> None:
    """Without its blank line an entry is not whole, unless nothing can follow."""
    assert cut(EXPORT[:-1], final=False) == []
    assert cut(EXPORT[:-1]) == [EXPORT[:-1]]


def test_a_stray_field_swallows_nothing() -> None:
    """A line that looks like a field, in a file of plain lines, ends at the next of them."""
    assert cut(b"MESSAGE=x\n" + PLAIN) == [b"MESSAGE=x\n", PLAIN]
    assert cut(b"MESSAGE\n" + b"\xff" * 8 + PLAIN)[0] == b"MESSAGE\n"


@pytest.mark.parametrize("piece", ["export", "binary", "verbose", "partial", "full"])
def test_multiline_formats_are_recognised_by_any_first_line(piece: str) -> None:
    """The first line of a record tells the format."""
    assert is_multiline(PIECES[piece].split(b"\n")[0])


@pytest.mark.parametrize(
    "line", [PLAIN, b"IN=eth0 OUT= SRC=192.0.2.1", b"", b"[   12.000001] IN= OUT=", b"{}", b"SRC=1"]
)
def test_plain_lines_are_not_multiline(line: bytes) -> None:
    """A bare record that begins with IN= is no journal field."""
    assert not is_multiline(line)
