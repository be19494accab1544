"""The shared corpus: every field that its authors know is found, and every line they do not explain has a known fate.

The corpus is not part of this repository; without it these tests are skipped. The golden file holds no line of it, only
places, hashes and outcomes: `pytest --rewrite-golden` writes it anew, and its diff is to be read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import fields
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from parser import Loss, Options, Packet, Reject
from parser.line import parse

CORPUS = Path(__file__).parents[3] / "shared" / "netfilter" / "corpus"
GOLDEN = Path(__file__).parent / "golden" / "corpus.jsonl"
ANCHOR = datetime(2026, 11, 22, 22, tzinfo=UTC)
EVERYTHING = Options(any_prefix=True, any_tag=True)

pytestmark = pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no corpus at {CORPUS}")

FRAME_FIELDS = {"time", "uptime_s", "node", "direction", "prefix", "ip_version", "repeat_count", "link_header"}
TRUTH_NAMES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "ethertype": ("ether_type", int),
    "df": ("dont_fragment", bool),
    "mf": ("more_fragments", bool),
    "ce": ("reserved_bit", bool),
    "tc": ("tos", int),
    "hoplimit": ("ttl", int),
    "flowlabel": ("flow_label", int),
    "urgp": ("tcp_urgent", int),
    "tcp_res": ("tcp_reserved", lambda nibble: nibble * 4),
    "tcp_flags": ("tcp_flags", tuple),
    "fragment_offset": ("fragment_offset", lambda units: units * 8),
    "fragment_offset_bytes": ("fragment_offset", int),
    "ip_options_hex": ("ip_options", str),
    "tcp_options_hex": ("tcp_options", str),
    "protocol": ("protocol", str),
    "phys_in_interface": ("physical_in_interface", str),
    "phys_out_interface": ("physical_out_interface", str),
    "vlan_proto": ("vlan_protocol", int),
    "arp_htype": ("arp_hardware_type", int),
    "arp_ptype": ("arp_protocol_type", int),
    "arp_opcode": ("arp_operation", int),
    "ext_headers": ("extension_headers", lambda headers: tuple(map(_printed, headers))),
    "inner": ("inner", lambda inner: _named(inner)),
}


def _printed(header: dict[str, Any]) -> str:
    """An extension header as the kernel prints it between the brackets of OPT ( )."""
    match header["type"]:
        case "fragment":
            more = "INCOMPLETE " if header["mf"] else ""
            return f"FRAG:{header['fragment_offset_bytes']} {more}ID:{header['fragment_id']:08x}"
        case "ah" | "esp" as name if "spi" in header:
            return f"{name.upper()} SPI=0x{header['spi']:x}"
        case "ah" | "esp" as name:
            return name.upper()
        case _:
            return ""


def _named(expected: dict[str, Any]) -> dict[str, Any]:
    """The truth under our names and in our units."""
    named = {}
    for key, value in expected.items():
        name, convert = TRUTH_NAMES.get(key, (key, lambda same: same))
        named[name] = convert(value)
    return named


def _claims(packet: Packet) -> dict[str, Any]:
    """What a packet says of itself: the fields that are set."""
    shown = {f.name: getattr(packet, f.name) for f in fields(packet) if f.name not in FRAME_FIELDS}
    if packet.inner:
        shown["inner"] = _claims(packet.inner)
    return {name: value for name, value in shown.items() if value is not None and (name, value) != ("truncated", False)}


def _rows(*names: str) -> list[Any]:
    return [
        pytest.param(json.loads(line), id=f"{path.stem}:{number}")
        for path in sorted(CORPUS.glob("*.jsonl"))
        if not names or path.stem in names
        for number, line in enumerate(path.read_text().splitlines(), 1)
    ]


@pytest.mark.parametrize("row", _rows("kernel_truth"))
def test_kernel_truth(row: dict[str, Any]) -> None:
    """A line of the live kernel gives the values of the packet that was crafted, and claims nothing else."""
    packet = parse(row["line"], EVERYTHING, anchor=ANCHOR)
    assert isinstance(packet, Packet)
    assert _claims(packet) == _named(row["expected"])
    assert packet.prefix == row["prefix"].rstrip(": ")


NORM_NAMES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "IN": ("in_interface", lambda name: name or None),
    "OUT": ("out_interface", lambda name: name or None),
    "SRC": ("source_ip", lambda text: _canonical(text)),
    "DST": ("destination_ip", lambda text: _canonical(text)),
    "PROTO": ("protocol", lambda text: str(text).lower()),
    "MAC_SRC": ("source_mac", str),
    "MAC_DST": ("destination_mac", str),
    "LEN": ("length", int),
    "TTL": ("ttl", int),
    "ID": ("ip_id", int),
    "SPT": ("source_port", int),
    "DPT": ("destination_port", int),
    "WINDOW": ("tcp_window", int),
    "TYPE": ("icmp_type", int),
    "CODE": ("icmp_code", int),
    "ICMP_ID": ("icmp_id", int),
    "ICMP_SEQ": ("icmp_seq", int),
    "FLOWLBL": ("flow_label", int),
    "UDP_LEN": ("udp_length", int),
}


def _canonical(address: str) -> str:
    from ipaddress import ip_address

    return ip_address(address).compressed


def _norm(expected: dict[str, Any]) -> dict[str, Any]:
    named = {name: convert(expected[key]) for key, (name, convert) in NORM_NAMES.items() if key in expected}
    if {"TOS", "PREC"} <= expected.keys():
        named["tos"] = int(str(expected["TOS"]), 16) | int(str(expected["PREC"]), 16)
    return named


def _with_norm(*names: str) -> list[Any]:
    return [row for row in _rows(*names) if "expected_norm" in row.values[0]]


@pytest.mark.parametrize("row", _with_norm("filebeat", "logstash"))
def test_expected_by_other_projects(row: dict[str, Any]) -> None:
    """What other projects' tests expect of a line is what we find; a line without its head is a reject."""
    outcome = parse(row["line"], EVERYTHING, anchor=ANCHOR)
    if isinstance(outcome, Reject):
        assert outcome.reason == "head cut"
        return
    assert isinstance(outcome, Packet)
    expected = _norm(row["expected_norm"])
    assert {name: getattr(outcome, name) for name in expected} == expected


LIVE_NAMES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "in": ("in_interface", lambda name: name or None),
    "out": ("out_interface", lambda name: name or None),
    "physin": ("physical_in_interface", lambda name: name or None),
    "physout": ("physical_out_interface", lambda name: name or None),
    "src": ("source_ip", lambda text: _canonical(text)),
    "dst": ("destination_ip", lambda text: _canonical(text)),
    "macsrc": ("source_mac", str),
    "macdst": ("destination_mac", str),
    "macproto": ("ether_type", lambda digits: int(digits, 16)),
    "vproto": ("vlan_protocol", lambda digits: int(digits, 16)),
    "vid": ("vlan_tci", int),
    "len": ("length", int),
    "tc": ("tos", int),
    "ttl": ("ttl", int),
    "hoplimit": ("ttl", int),
    "flowlbl": ("flow_label", int),
    "id": ("ip_id", int),
    # A later fragment of AH prints no PROTO=, so none is known; the recogniser guessed one.
    "proto": ("protocol", lambda text: None if text == "AH?" else str(text).lower()),
    "spt": ("source_port", int),
    "dpt": ("destination_port", int),
    "seq": ("tcp_seq", int),
    "ack_seq": ("tcp_ack", int),
    "window": ("tcp_window", int),
    "res": ("tcp_reserved", int),
    "flags": ("tcp_flags", tuple),
    "urgp": ("tcp_urgent", int),
    "tcpopt": ("tcp_options", lambda digits: None if digits == "TRUNCATED" else digits),
    "ipopt": ("ip_options", str),
    "l4len": ("udp_length", int),
    "type": ("icmp_type", int),
    "code": ("icmp_code", int),
    "icmp_id": ("icmp_id", int),
    "icmp_seq": ("icmp_seq", int),
    "mtu": ("icmp_mtu", int),
    "gateway": ("icmp_gateway", str),
    "parameter": ("icmp_pointer", int),
    "pointer": ("icmp_pointer", int),
    "spi": ("spi", int),
    "incomplete": ("incomplete_bytes", int),
    "frag": ("fragment_offset", lambda units: units * 8),
    "mark": ("mark", int),
    "uid": ("uid", int),
    "gid": ("gid", int),
    "truncated": ("truncated", bool),
}


def _live(expected: dict[str, Any]) -> dict[str, Any]:
    named = {name: convert(expected[key]) for key, (name, convert) in LIVE_NAMES.items() if key in expected}
    if "tos" in expected:
        named["tos"] = expected["tos"] | expected["prec"]
    for flag, name in (("CE", "reserved_bit"), ("DF", "dont_fragment"), ("MF", "more_fragments")):
        if "ipflags" in expected:
            named[name] = flag in expected["ipflags"]
    if fragments := [header for header in expected.get("ext", ()) if "frag" in header]:
        last = fragments[-1]
        named |= {"fragment_offset": last["frag"], "more_fragments": last["more"], "fragment_id": last["id"]}
    return named


@pytest.mark.parametrize("row", _with_norm("kernel_6_18_generated"))
def test_generated_by_a_live_kernel(row: dict[str, Any]) -> None:
    """A line that a 6.18 kernel printed gives the values that an independent recogniser found in it."""
    packet = parse(row["line"], EVERYTHING, anchor=ANCHOR)
    assert isinstance(packet, Packet)
    expected = _live(row["expected_norm"])
    assert {name: getattr(packet, name) for name in expected} == expected
    assert packet.prefix == row["expected_norm"]["prefix"].rstrip(": ")
    if orig := row["expected_norm"].get("orig"):
        assert packet.inner is not None
        assert {name: getattr(packet.inner, name) for name in _live(orig)} == _live(orig)
    kmsg = parse(row["kmsg"], EVERYTHING, anchor=ANCHOR)
    assert isinstance(kmsg, Packet)
    assert _claims(kmsg) == _claims(packet)


def _fate(row: dict[str, Any], options: Options) -> dict[str, Any]:
    outcome = parse(row["line"], options, anchor=ANCHOR)
    fate: dict[str, Any] = {"kind": type(outcome).__name__.lower()}
    match outcome:
        case Reject(reason, position, _):
            fate |= {"reason": reason, "position": position}
        case Loss(source, count):
            fate |= {"source": source, "count": count}
        case Packet():
            fate |= {"truncated": outcome.truncated, "fields": sha256(outcome.as_json().encode()).hexdigest()[:12]}
    return fate


def _golden_rows() -> Iterator[dict[str, Any]]:
    for row in _rows():
        value = row.values[0]
        digest = sha256(value["line"].encode()).hexdigest()[:12]
        yield {"line": row.id, "sha256": digest, **_fate(value, EVERYTHING), "default": _fate(value, Options())["kind"]}


def test_every_line_has_the_fate_that_was_read(rewrite_golden: bool) -> None:
    """Every corpus line is a packet, or has the outcome, reason and place that the golden file lists."""
    rows = [json.dumps(row, ensure_ascii=False) for row in _golden_rows()]
    if rewrite_golden:
        GOLDEN.write_text("\n".join(rows) + "\n")
    assert rows == GOLDEN.read_text().splitlines()
