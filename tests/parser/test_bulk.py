"""The fast path says of every line what the reference says of it: on real lines, on generated ones, on broken ones."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parser import Loss, Options, Outcome, Packet, Reject, parse
from parser.bulk import COLUMNS, Batch, read
from tests.parser.lines import syslog_lines

ROOT = Path(__file__).parents[2]
CORPUS = sorted((ROOT.parent / "shared" / "netfilter" / "corpus").glob("*.jsonl"))
ANCHOR = datetime(2026, 11, 22, tzinfo=UTC)
OPTIONS = {
    "defaults": Options(),
    "any prefix": Options(any_prefix=True),
    "any tag": Options(any_tag=True),
    "everything": Options(any_prefix=True, any_tag=True, zone=ZoneInfo("Europe/Berlin")),
    "formats": Options(prefixes=("calico-packet %k %p", "calico-drop"), zone=ZoneInfo("America/St_Johns")),
}


def said(batch: Batch) -> dict[int, Any]:
    """What the fast path says, by the offset of the line; a packet as its stored row."""
    rows = {row.pop("source_offset"): row for row in batch.packets.iter_rows(named=True)}
    return {
        **rows,
        **{found.offset: found.reject for found in batch.rejects},
        **{found.offset: found.loss for found in batch.losses},
    }


def stored(packet: Packet) -> dict[str, Any]:
    """The row that a packet must become."""
    row = {name: getattr(packet, name) for name in COLUMNS if name != "source_offset"}
    row["inner"] = packet.inner and packet.inner.as_json()
    row["time"] = packet.time and packet.time.astimezone(UTC)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in row.items()}


def by_reference(lines: list[bytes], options: Options) -> dict[int, Any]:
    """What the reference says of the same lines, one after another."""
    found: dict[int, Any] = {}
    offset, before, repeated = 0, None, None
    for line in lines:
        outcome: Outcome = parse(line, options, anchor=ANCHOR, previous=repeated)
        if isinstance(outcome, Packet):
            found[offset] = stored(outcome)
        elif isinstance(outcome, Reject | Loss):
            found[offset] = outcome
        before = outcome if isinstance(outcome, Packet) else None
        repeated = repeated if b"last message repeated" in line else before
        offset += len(line) + 1
    return found


def check(lines: list[bytes], options: Options) -> None:
    """Both agree on every line, and every line is accounted for."""
    data = b"".join(line + b"\n" for line in lines)
    batch = read(data, options, anchor=ANCHOR)
    assert said(batch) == by_reference(lines, options)
    assert (batch.consumed, batch.lines) == (len(data), len(lines))
    assert batch.lines == batch.packets.height + batch.others + len(batch.rejects)
    assert dict(batch.packets.schema) == COLUMNS


@pytest.mark.skipif(not CORPUS, reason="the corpus of real lines is not beside this checkout")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_corpus(options: Options) -> None:
    """Every single line of the corpus."""
    texts = [json.loads(row)["line"] for path in CORPUS for row in path.read_text().splitlines()]
    check([text.encode("utf-8", "replace") for text in texts if "\n" not in text], options)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_sample(options: Options) -> None:
    """Every line of our own sample."""
    check((ROOT / "samples" / "syslog").read_bytes().splitlines(), options)


NOISE = st.sampled_from(
    [
        b"",
        b"Nov 20 09:00:00 node-1 sshd[1]: hello",
        b"Nov 20 09:00:00 node-1 kernel: net_ratelimit: 7 callbacks suppressed",
        b"Nov 20 09:00:00 node-1 last message repeated 3 times",
        b"Nov 20 09:00:00 node-1 root: calico-packet: IN=eth0 OUT= SRC=192.0.2.1 DST=192.0.2.2 LEN=40",
        b"2026-11-20T09:00:00Z node-1 kernel: calico-packet: caf\xc3\xa9 IN=",
        b"\xff\xfe\x00calico-packet: IN=eth0 OUT=",
    ]
)
LINES = st.one_of(syslog_lines().map(lambda found: found[0].encode()), NOISE)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A legal line with a cut, a byte changed, a piece doubled or the end trimmed."""
    line = draw(syslog_lines())[0].encode()
    at = draw(st.integers(0, len(line)))
    to = draw(st.integers(at, min(at + 12, len(line))))
    piece = draw(
        st.sampled_from([b"", b" ", b"0", b"=", b"IN=", b"SRC=192.0.2.9 ", b"\xc3\xa9", b"\0", b"[", line[at:to] * 2])
    )
    return (line[:at] + piece + line[to:]).replace(b"\n", b"")


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_prefix_without_a_record(options: Options) -> None:
    """A line with our prefix and no record after it is told alike, also where every prefix is taken."""
    check([b"2025-12-31T22:11:34.790675-02:00 node-1 kernel: calico-drop: hello"], options)


@settings(max_examples=60, deadline=None)
@given(st.lists(LINES, max_size=12), st.sampled_from(list(OPTIONS.values())))
def test_generated(lines: list[bytes], options: Options) -> None:
    """Legal lines made from known values, between other lines."""
    check(lines, options)


@settings(max_examples=60, deadline=None)
@given(st.lists(mutated(), min_size=1, max_size=12), st.sampled_from(list(OPTIONS.values())))
def test_mutated(lines: list[bytes], options: Options) -> None:
    """Legal lines that something happened to."""
    check(lines, options)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(st.lists(st.one_of(LINES, mutated()), min_size=1, max_size=20), st.sampled_from(list(OPTIONS.values())))
def test_many(lines: list[bytes], options: Options) -> None:
    """The same at length."""
    check(lines, options)


@settings(max_examples=30, deadline=None)
@given(st.lists(LINES, min_size=2, max_size=8), st.data())
def test_chunks_do_not_matter(lines: list[bytes], data: st.DataObject) -> None:
    """Cut anywhere, with the unread rest carried over, the same is said of each line."""
    text = b"".join(line + b"\n" for line in lines)
    found: dict[int, Any] = {}
    start = end = 0
    while end < len(text):
        end = data.draw(st.integers(end + 1, len(text)))
        batch = read(text[start:end], Options(), anchor=ANCHOR, before=text[:start])
        found.update({start + offset: what for offset, what in said(batch).items()})
        start += batch.consumed
    assert found == by_reference(lines, Options())


def test_final_counts_an_unfinished_line() -> None:
    """A last line without newline is left for later, or read where nothing follows."""
    line = b"Nov 20 09:00:00 n kernel: calico-packet: IN=a OUT= SRC=192.0.2.1 DST=192.0.2.2 LEN=28 TOS=0x00 PREC=0x00 "
    line += b"TTL=1 ID=1 PROTO=2"
    assert read(line, Options(), anchor=ANCHOR).consumed == 0
    batch = read(line, Options(), anchor=ANCHOR, final=True)
    assert (batch.consumed, batch.lines, batch.packets.height) == (len(line), 1, 1)


def test_many_repetitions_take_no_time() -> None:
    """A hundred thousand repetitions in a row are not each followed back to the first."""
    line = b"Nov 20 09:00:00 n last message repeated 2 times\n"
    assert read(line * 20_000, Options(), anchor=ANCHOR).others == 20_000


def test_an_interface_has_fifteen_characters() -> None:
    """What stands where a name should be, but is longer than the kernel allows, is no packet on either path."""
    line = "Nov 20 09:00:00 n kernel: calico-packet: IN={} OUT= SRC=192.0.2.1 DST=192.0.2.2 LEN=28 TOS=0x00 PREC=0x00 "
    line += "TTL=1 ID=1 PROTO=2 "
    check([line.format("a" * size).encode() for size in (1, 15, 16, 40)], Options())
    assert read(line.format("a" * 16).encode() + b"\n", Options(), anchor=ANCHOR).packets.is_empty()
