"""Properties: what the kernel prints is read back exactly, what anybody else writes never raises."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from parser import Options, Packet, Reject
from parser.frame import frame
from parser.line import parse
from parser.outcome import REASONS
from tests.parser.lines import messages, syslog_lines

ANCHOR = datetime(2026, 11, 22, 22, tzinfo=UTC)
EVERYTHING = Options(any_prefix=True, any_tag=True)
CORPUS = Path(__file__).parents[3] / "shared" / "netfilter" / "corpus"
SEED = (
    "Nov 22 13:05:43 node-1 kernel: [ 2236.840527] calico-packet: IN=cali0123456789a OUT=eth0 "
    "MAC=ee:ee:ee:ee:ee:ee:02:00:5e:10:00:01:08:00 SRC=198.51.100.1 DST=203.0.113.2 LEN=56 TOS=0x00 PREC=0x00 TTL=64 "
    "ID=4660 PROTO=ICMP TYPE=3 CODE=4 [SRC=203.0.113.2 DST=198.51.100.1 LEN=60 TOS=0x00 PREC=0x00 TTL=64 ID=4660 DF "
    "PROTO=TCP INCOMPLETE [8 bytes] ] MTU=1400 "
)
quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
thorough = settings(max_examples=100_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@cache
def seeds() -> list[str]:
    """Real lines where the corpus is at hand, else one of our own."""
    rows = [row for path in sorted(CORPUS.glob("*.jsonl")) for row in path.read_text().splitlines()]
    found = [json.loads(row)["line"] for row in rows]
    return found[::7] or [SEED]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A real line with a few pieces cut out, doubled, swapped with another line's, or overwritten."""
    line = draw(st.sampled_from(seeds())).encode()
    for _ in range(draw(st.integers(1, 4))):
        start, end = sorted(draw(st.tuples(st.integers(0, len(line)), st.integers(0, len(line)))))
        other = draw(st.sampled_from(seeds())).encode()
        piece = draw(st.sampled_from([b"", line[start:end] * 2, other[start:end], draw(st.binary(max_size=6))]))
        line = line[:start] + piece + line[end:]
    return line


def check(line: bytes | str, options: Options) -> None:
    """An outcome, and where it is a reject a reason that exists and a place inside the line."""
    outcome = parse(line, options, anchor=ANCHOR)
    frame(line, options, anchor=ANCHOR)
    if isinstance(outcome, Reject):
        text = line.decode("utf-8", "replace") if isinstance(line, bytes) else line
        assert outcome.reason in REASONS
        assert 0 <= outcome.position <= len(text)
    if isinstance(outcome, Packet):
        outcome.as_json().encode()


anything = st.one_of(st.binary(max_size=300), mutated(), st.text(max_size=200), st.text(st.characters(), max_size=50))
choices = st.sampled_from([Options(), EVERYTHING])


@quick
@given(anything, choices)
@example("\ud800 IN= OUT= SRC=", EVERYTHING)
@example(b"", EVERYTHING)
@example(b"\x00" * 1000, EVERYTHING)
@example(b"IN= OUT= " * 10_000, EVERYTHING)
@example(b"[" * 100_000, EVERYTHING)
@example(b'{"message":' * 20_000, EVERYTHING)
@example(b"MESSAGE\n" + b"\xff" * 8 + b"IN= OUT=", EVERYTHING)
@example("log" * 30_000, EVERYTHING)
@example("Nov 22 13:05:43 n1 kernel: message repeated 2 times: [" + " " * 60_000 + "x", EVERYTHING)
@example("Nov 22 13:05:43 n1 kernel: calico-packet: IN=a OUT= " + "#012" * 16_000 + "x", EVERYTHING)
@example("Nov 22 13:05:43 " + "a:" * 30_000, EVERYTHING)
@example('<4>1 - - kernel - - [a "' + 'x"' * 30_000, EVERYTHING)
@example("[" + " " * 60_000, EVERYTHING)
@example("bpf_trace_printk: " + "-1 " * 20_000, EVERYTHING)
@example("calico-packet " + "a" * 60_000 + " IN=a OUT= ", Options(prefixes=("calico-packet %t%k%n%p",)))
@example("calico-packet: IN=a OUT= SRC=" + "9" * 10_000, EVERYTHING)
@example("calico-packet: IN=a OUT= MAC= SRC=192.0.2.1 DST=192.0.2.2 LEN=" + "9" * 10_000, EVERYTHING)
def test_nothing_raises(line: bytes | str, options: Options) -> None:
    """Whatever the bytes, there is an outcome."""
    check(line, options)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@thorough
@given(anything, choices)
def test_nothing_raises_in_a_hundred_thousand_lines(line: bytes | str, options: Options) -> None:
    """Whatever the bytes, there is an outcome; the long run."""
    check(line, options)


@quick
@given(syslog_lines())
def test_legal_lines_give_back_their_values(case: tuple[str, Packet]) -> None:
    """What the kernel prints of known values is read back as exactly these values, in any frame."""
    line, packet = case
    assert parse(line, Options(), anchor=ANCHOR) == packet


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=20_000, deadline=None)
@given(syslog_lines())
def test_many_legal_lines_give_back_their_values(case: tuple[str, Packet]) -> None:
    """The same, for twenty thousand lines."""
    line, packet = case
    assert parse(line, Options(), anchor=ANCHOR) == packet


@quick
@given(messages(), st.data())
def test_two_lines_run_together_are_no_packet(case: tuple[str, object], data: st.DataObject) -> None:
    """A line torn off anywhere and overwritten by the next one, frame and all, is never one packet."""
    prefix, body = case
    first = f"Nov 22 13:05:43 node-1 kernel: [   12.000001] {prefix}{body.text}"  # type: ignore[attr-defined]
    second = f"Nov 22 13:05:44 node-1 kernel: [   13.000001] {prefix}{body.text}"  # type: ignore[attr-defined]
    cut = data.draw(st.integers(first.index("] ") + 2, len(first)))
    outcome = parse(first[:cut] + second, Options(), anchor=ANCHOR)
    assert not isinstance(outcome, Packet)
