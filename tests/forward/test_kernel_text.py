"""The kernel's line printed anew: read again, it gives back the packet that it was made from."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from collector.forward.kernel import kernel_stamp, kernel_text
from parser import Options, Packet
from parser.line import parse
from tests.forward.conftest import packet_lines
from tests.parser.lines import syslog_lines

ANCHOR = datetime(2026, 11, 22, 22, tzinfo=UTC)
EVERYTHING = Options(any_prefix=True, any_tag=True)
CORPUS = Path(__file__).parents[3] / "shared" / "netfilter" / "corpus"
FRAME = "2026-11-22T15:00:00.000000+00:00 node-1 kernel: "


def again(packet: Packet) -> object:
    """What is read from the line that is printed anew; the frame around it is not the renderer's."""
    fields = packet.as_dict()
    outcome = parse(FRAME + kernel_stamp(fields) + kernel_text(fields), EVERYTHING, anchor=ANCHOR)
    if not isinstance(outcome, Packet):
        return outcome
    return replace(outcome, time=packet.time, node=packet.node, repeat_count=packet.repeat_count)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(syslog_lines())
def test_legal_lines_come_back(case: tuple[str, Packet]) -> None:
    """Every line that the kernel can print is read back the same after it was printed anew from its fields."""
    packet = parse(case[0], EVERYTHING, anchor=ANCHOR)
    assert isinstance(packet, Packet)
    assert again(packet) == packet


@pytest.mark.skipif(not CORPUS.exists(), reason="needs the corpus of real lines")
def test_real_lines_come_back() -> None:
    """The same for lines that kernels printed, cut ones too."""
    rows = [row for path in sorted(CORPUS.glob("*.jsonl")) for row in path.read_text().splitlines()]
    found = [parse(json.loads(row)["line"], EVERYTHING, anchor=ANCHOR) for row in rows]
    packets = [packet for packet in found if isinstance(packet, Packet)]
    assert len(packets) > 1000
    assert [packet for packet in packets if again(packet) != packet] == []


def test_sample_lines_come_back_byte_for_byte() -> None:
    """A line as Calico and the kernel print it comes back octet for octet, from its stamp on."""
    for line in packet_lines()[::7]:
        packet = parse(line, Options(), anchor=ANCHOR)
        assert isinstance(packet, Packet)
        if packet.truncated or packet.repeat_count:
            continue
        text = line.partition("kernel: ")[2].rstrip("\n")
        fields = packet.as_dict()
        assert (kernel_stamp(fields) + kernel_text(fields)).rstrip() == text.rstrip()
