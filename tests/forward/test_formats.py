"""The formats: what is said in each of them, and that no text out of a log breaks out of its place."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.forward.formats import Message, encoder
from collector.forward.target import FORMATS, parse_target
from parser import FIELDS

RECORD: dict[str, Any] = {
    "time": datetime(2026, 11, 2, 9, 5, 7, 1234, UTC),
    "uptime_s": 12.5,
    "node": "worker-1",
    "direction": "ingress",
    "in_interface": "eth0",
    "out_interface": "cali0123456789a",
    "source_mac": "02:00:5e:10:00:01",
    "destination_mac": "ee:ee:ee:ee:ee:ee",
    "ether_type": 2048,
    "ip_version": 4,
    "source_ip": "10.0.0.1",
    "destination_ip": "10.1.0.1",
    "length": 60,
    "tos": 0,
    "ttl": 63,
    "ip_id": 7,
    "reserved_bit": False,
    "dont_fragment": True,
    "more_fragments": False,
    "protocol": "tcp",
    "source_port": 40000,
    "destination_port": 443,
    "tcp_flags": ["SYN"],
    "tcp_window": 64240,
    "tcp_reserved": 0,
    "tcp_urgent": 0,
    "prefix": "calico-packet",
    "policy_kind": "knp",
    "policy_namespace": "shop",
    "policy_name": "db",
    "follow_up": None,
    "inner": None,
    "repeat_count": 0,
    "truncated": False,
    "source_file": "f00d",
    "source_offset": 700,
    "stored_at": datetime(2026, 11, 2, 9, 5, 9, tzinfo=UTC),
    "day": datetime(2026, 11, 2, tzinfo=UTC).date(),
}
KERNEL = (
    "calico-packet: IN=eth0 OUT=cali0123456789a MAC=ee:ee:ee:ee:ee:ee:02:00:5e:10:00:01:08:00 SRC=10.0.0.1 "
    "DST=10.1.0.1 LEN=60 TOS=0x00 PREC=0x00 TTL=63 ID=7 DF PROTO=TCP SPT=40000 DPT=443 WINDOW=64240 RES=0x00 SYN URGP=0"
)
STAMPED = f"[   12.500000] {KERNEL}"
HOSTILE = ('a"b', "a]b", "a\\", 'x"] <5>1 - - - - - -', "line\nfeed", "nul\0byte", "\x1b[31m", "\u202eabc", "=|", "é")


def encode(query: str = "", zone: Any = UTC, **changes: Any) -> Message:
    """The record with changes, in a format."""
    return encoder(parse_target(f"tcp://h?{query}"), zone)({**RECORD, **changes})


def header(data: bytes) -> tuple[dict[str, str], bytes]:
    """The parameters of the one element of structured data, read by the grammar of RFC 5424, and what follows."""
    found = re.match(rb"<\d+>1 \S+ \S+ \S+ \S+ \S+ \[(\S+)", data)
    assert found, data
    rest, parameters = data[found.end() :], {}
    while parameter := re.match(rb' ([!#-<>-\\^-~]{1,32})="((?:[^"\\\]]|\\["\\\]])*)"', rest):
        parameters[parameter[1].decode()] = re.sub(r'\\(["\\\]])', r"\1", parameter[2].decode())
        rest = rest[parameter.end() :]
    assert rest.startswith(b"]"), rest
    return parameters, rest[1:]


def test_rfc5424() -> None:
    """A header with time, node and facility, every field as a parameter, and the kernel's text."""
    data = encode().data
    assert data.startswith(b"<5>1 2026-11-02T09:05:07.001234Z worker-1 denylog - denied [denylog@32473 time=")
    parameters, rest = header(data)
    assert parameters["source_ip"] == "10.0.0.1"
    assert parameters["tcp_flags"] == "SYN"
    assert parameters["dont_fragment"] == "true"
    assert set(parameters) == {name for name, value in RECORD.items() if value is not None} - {"stored_at", "day"}
    assert rest == b" " + KERNEL.encode()


def test_names_are_legal() -> None:
    """Every column's name can be the name of a parameter (RFC 5424, 6.3.3)."""
    assert all(re.fullmatch(r"[a-z0-9_]{1,32}", field.name) for field in FIELDS)


def test_unknown_time_and_node() -> None:
    """What is not known is nil in the header and absent from the data."""
    data = encode(time=None, node=None).data
    assert data.startswith(b"<5>1 - - denylog - denied [")
    assert not header(data)[0].keys() & {"time", "node"}


def test_settings_of_the_target() -> None:
    """The facility and the name of the structured data are the target's; a reply says that it is one."""
    data = encode("facility=local4&sd-id=ours@4711", follow_up="rst").data
    assert data.startswith(b"<165>1 ")
    assert b" reply [ours@4711 " in data


def test_rfc3164() -> None:
    """The line as a daemon on the node writes it, in the zone that was asked for."""
    data = encode("format=rfc3164", zone=timezone(timedelta(hours=1))).data
    assert data == b"<5>Nov  2 10:05:07 worker-1 kernel: " + STAMPED.encode()


def test_cef() -> None:
    """A syslog header, the seven fields of CEF's, and the keys of its dictionary."""
    text = encode("format=cef").data.decode()
    start, _, pairs = text.partition("|5|")
    assert re.fullmatch(r"<5>Nov  2 09:05:07 worker-1 CEF:0\|denylog\|denylog\|[\d.a-z]+\|denied\|[A-Za-z ]+", start)
    found = dict(re.findall(r"(\w+)=((?:[^=\\]|\\.)*?)(?= \w+=|$)", pairs))
    assert found["src"] == "10.0.0.1"
    assert (found["dst"], found["dpt"], found["proto"], found["act"]) == ("10.1.0.1", "443", "TCP", "denied")
    assert (found["cs1"], found["cs1Label"]) == ("knp/shop/db", "policy")
    assert found["rt"] == "1793610307001"
    assert found["externalId"] == "f00d:700"
    assert found["msg"].replace("\\=", "=") == KERNEL


def test_cef_of_ipv6() -> None:
    """IPv6 addresses have keys of their own, with labels."""
    text = encode("format=cef", ip_version=6, source_ip="fd00::1", destination_ip="fd00::2").data.decode()
    assert " c6a2=fd00::1 c6a2Label=Source IPv6 Address " in text
    assert " src=" not in text


def test_ecs() -> None:
    """A syslog header and a document of the Elastic Common Schema on one line."""
    data = encode("format=ecs", inner={"protocol": "udp"}).data
    start, _, document = data.partition(b" - {")
    assert start == b"<5>1 2026-11-02T09:05:07.001234Z worker-1 denylog - denied"
    found = json.loads(b"{" + document)
    assert found["source"] == {"ip": "10.0.0.1", "port": 40000, "mac": "02-00-5E-10-00-01"}
    assert found["iptables"]["inner"] == {"protocol": "udp"}
    assert found["event"]["type"] == ["connection", "denied"]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_in_its_place(form: str, text: str) -> None:
    """Quotes, brackets, line ends, NULs and escapes in a prefix, a node and a name are data and nothing else."""
    data = encode(f"format={form}", prefix=text, node=text, policy_name=text, source_pod=text).data
    assert not re.search(rb"[\x00-\x1f\x7f]", data)
    assert data.count(b"<5>1 2026") + data.count(b"<5>Nov") == 1
    if form == "rfc5424":
        parameters, _ = header(data)
        assert parameters["source_ip"] == "10.0.0.1"
        assert parameters["prefix"].encode("ascii", "backslashreplace") in (
            text.encode("ascii", "backslashreplace"), text.encode("unicode_escape"),
        )  # fmt: skip
    if form == "ecs":
        assert json.loads(data.partition(b" - {")[2].join([b"{", b""]))["source"]["ip"] == "10.0.0.1"


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=40), st.text(max_size=300), st.sampled_from(FORMATS), st.integers(480, 1500))
def test_any_text_in_any_size(node: str, name: str, form: str, size: int) -> None:
    """Whatever a log holds, a message has no control character, is whole UTF-8, fits, and stays readable."""
    clean = [text.encode("utf-8", "replace").decode() for text in (node, name)]
    message = encode(f"format={form}&size={size}", node=clean[0], policy_name=clean[1], prefix=clean[1])
    assert len(message.data) <= size
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", message.data.decode())
    if form == "rfc5424":
        header(message.data)
    if form == "ecs":
        json.loads(b"{" + message.data.partition(b" - {")[2])


def test_what_is_cut_is_told() -> None:
    """A message that is too long loses its text first, then its last parameters, and says so."""
    whole = encode()
    assert not whole.cut
    shorter = encode(f"size={len(whole.data) - 20}")
    assert shorter.cut
    assert header(shorter.data)[0] == header(whole.data)[0]
    shortest = encode("size=480")
    assert shortest.cut
    parameters, rest = header(shortest.data)
    assert rest == b""
    assert list(parameters) == list(header(whole.data)[0])[: len(parameters)]


def test_text_beyond_ascii_is_marked() -> None:
    """A message with other characters than ASCII begins with the byte order mark (RFC 5424, 6.4)."""
    assert b"] \xef\xbb\xbfcaf\xc3\xa9: IN=" in encode(prefix="café").data
