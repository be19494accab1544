"""Every frame around a kernel message: time, node, stamp, trust, prefix and repeat count, each in one row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from json import dumps
from zoneinfo import ZoneInfo

import pytest

from parser import Options, Other, Packet, Reject
from parser.frame import frame
from parser.line import parse

ANCHOR = datetime(2026, 11, 22, 22, tzinfo=UTC)
PRAGUE = Options(zone=ZoneInfo("Europe/Prague"))
EVERYTHING = replace(PRAGUE, any_prefix=True, any_tag=True)
BODY = (
    "IN=cali0123456789a OUT=eth0 MAC=ee:ee:ee:ee:ee:ee:02:00:5e:10:00:01:08:00 SRC=198.51.100.1 DST=203.0.113.2 "
    "LEN=60 TOS=0x00 PREC=0x00 TTL=63 ID=58406 DF PROTO=TCP SPT=45588 DPT=80 WINDOW=64860 RES=0x00 SYN URGP=0 "
)
OURS = "calico-packet: " + BODY
SYSLOGGED = "Nov 22 13:05:43 n1 kernel:"
ENTRY = {
    "_TRANSPORT": "kernel",
    "_HOSTNAME": "n1",
    "SYSLOG_IDENTIFIER": "kernel",
    "SYSLOG_FACILITY": "0",
    "__REALTIME_TIMESTAMP": "1795352860325509",
    "_SOURCE_MONOTONIC_TIMESTAMP": "2236840527",
    "MESSAGE": OURS,
}
EXPORT = (
    "__CURSOR=s=c5;i=2\n__REALTIME_TIMESTAMP=1795352860325509\nMESSAGE=%s\n_TRANSPORT=%s\n_HOSTNAME=n1\n"
    "SYSLOG_IDENTIFIER=kernel\n_SOURCE_MONOTONIC_TIMESTAMP=2236840527\n"
)
VERBOSE = (
    "Sun 2026-11-22 14:07:40.325509 CET [s=c573;i=257;b=c0;m=8e;t=66;x=71]\n    _TRANSPORT=kernel\n    _HOSTNAME=n1\n"
    f"    _SOURCE_MONOTONIC_TIMESTAMP=2236840527\n    MESSAGE={OURS}\n"
)
BINARY = b"MESSAGE\n" + len(OURS).to_bytes(8, "little") + OURS.encode() + b"\n_TRANSPORT=kernel\n_HOSTNAME=n1\n"
RECEIVED = datetime(2026, 11, 22, 13, 7, 40, 325509, tzinfo=UTC)


def at(hour: int, minute: int, second: int, us: int = 0, zone: object = PRAGUE.zone) -> datetime:
    """A moment of 22 November 2026, in the writer's zone unless another is given."""
    return datetime(2026, 11, 22, hour, minute, second, us, tzinfo=zone)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Case:
    """A line and what its frame says."""

    name: str
    line: str | bytes
    time: datetime | None = None
    node: str | None = None
    uptime_s: float | None = None
    repeat_count: int = 0


SYSLOG = at(13, 5, 43)
ZULU = at(13, 5, 43, zone=UTC)
READ = "2026-11-22T12:00:00Z stdout"
TRUSTED = (
    Case("rsyslog traditional", f"Nov 22 13:05:43 n1 kernel: [ 2236.840527] {OURS}", SYSLOG, "n1", 2236.840527),
    Case("no kernel stamp", f"Nov 22 13:05:43 n1 kernel: {OURS}", SYSLOG, "n1"),
    Case("no host (journalctl --no-hostname)", f"Nov 22 13:05:43 kernel: {OURS}", SYSLOG),
    Case("host is an address", f"Nov 22 13:05:43 192.0.2.7 kernel: {OURS}", SYSLOG, "192.0.2.7"),
    Case("vmunix", f"Nov 22 13:05:43 n1 vmunix: {OURS}", SYSLOG, "n1"),
    Case("busybox facility", f"Nov 22 13:05:43 n1 user.warn kernel: [    9.5000] {OURS}", SYSLOG, "n1", 9.5),
    Case("LogDNA's file name", f"Nov 22 13:05:43 n1 kern.log [852791.892864] {OURS}", SYSLOG, "n1", 852791.892864),
    Case("severity in front", f"kern.info: Nov 22 13:05:43 n1 kernel: {OURS}", SYSLOG, "n1"),
    Case("priority in front", f"<165>Nov 22 13:05:43 n1 kernel: {OURS}", SYSLOG, "n1"),
    Case("short-precise", f"Nov 22 13:05:43.000007 n1 kernel: {OURS}", at(13, 5, 43, 7), "n1"),
    Case("year after the time", f"Nov 22 13:05:43 2026 n1 kernel: {OURS}", SYSLOG, "n1"),
    Case("year after the day", f"Nov 22 2026 13:05:43 n1 kernel: {OURS}", SYSLOG, "n1"),
    Case("day with a zero", f"Nov 02 13:05:43 n1 kernel: {OURS}", SYSLOG.replace(day=2), "n1"),
    Case("day with a blank", f"Nov  2 13:05:43 n1 kernel: {OURS}", SYSLOG.replace(day=2), "n1"),
    Case("day without either", f"Nov 2 13:05:43 n1 kernel: {OURS}", SYSLOG.replace(day=2), "n1"),
    Case("ISO with offset", f"2026-11-22T13:05:43.25-08:00 n1 kernel: {OURS}",
         at(13, 5, 43, 250000, timezone(timedelta(hours=-8))), "n1"),
    Case("ISO in UTC", f"2026-11-22T13:05:43Z n1 kernel: {OURS}", ZULU, "n1"),
    Case("short-iso", f"2026-11-22T13:05:43+0530 n1 kernel: {OURS}",
         at(13, 5, 43, zone=timezone(timedelta(hours=5, minutes=30))), "n1"),
    Case("ISO without offset", f"2026-11-22T13:05:43 n1 kernel: {OURS}", SYSLOG, "n1"),
    Case("leap second", f"2026-11-22T13:05:60Z n1 kernel: {OURS}", at(13, 6, 0, zone=UTC), "n1"),
    Case("RFC 5424", f"<4>1 2026-11-22T13:05:43Z n1 kernel - - - [ 1.500000] {OURS}", ZULU, "n1", 1.5),
    Case("RFC 5424, octets counted", f"412 <4>1 2026-11-22T13:05:43Z n1 kernel - - - {OURS}", ZULU, "n1"),
    Case("RFC 5424, structured data", f'<4>1 2026-11-22T13:05:43Z n1 kernel - - [a k="v \\]"][b c="d"] {OURS}',
         ZULU, "n1"),
    Case("RFC 5424, no time or host", f"<4>1 - - kernel - - - {OURS}"),
    Case("RFC 5424 in a file", f"2026-11-22T13:05:43Z n1 kernel - - - [ 1.500000] {OURS}", ZULU, "n1", 1.5),
    Case("short-full", f"Sun 2026-11-22 13:05:43 CET n1 kernel: {OURS}", SYSLOG, "n1"),
    Case("short-full in UTC", f"Sun 2026-11-22 13:05:43 UTC n1 kernel: {OURS}", ZULU, "n1"),
    Case("short-unix", f"1795352860.325509 n1 kernel: {OURS}", RECEIVED, "n1"),
    Case("short-monotonic", f"[ 2170.172431] n1 kernel: {OURS}", None, "n1", 2170.172431),
    Case("short-delta", f"[ 2170.172431 <    0.047973 >] n1 kernel: {OURS}", None, "n1", 2170.172431),
    Case("OpenWrt logread", f"Sun Nov 22 13:05:43 2026 kern.warn kernel: [123.456000] {OURS}", SYSLOG, None, 123.456),
    Case("dmesg", f"[ 2236.840527] {OURS}", None, None, 2236.840527),
    Case("dmesg -r", f"<4>[ 2236.840527] {OURS}", None, None, 2236.840527),
    Case("dmesg -x", f"kern  :warn  : [ 2236.840527] {OURS}", None, None, 2236.840527),
    Case("dmesg -d", f"[ 2236.840527 <    0.046979>] {OURS}", None, None, 2236.840527),
    Case("dmesg -T", f"[Sun Nov 22 13:05:43 2026] {OURS}", SYSLOG),
    Case("dmesg -H", f"[Nov22 13:05] {OURS}", at(13, 5, 0)),
    Case("dmesg reltime", f"[  +0.046979] {OURS}"),
    Case("dmesg delta", f"[<    0.046979>] {OURS}"),
    Case("dmesg iso", f"2026-11-22T13:05:07,640288+00:00 {OURS}", at(13, 5, 7, 640288, UTC)),
    Case("dmesg --color", f"\x1b[32m[  +0.05] \x1b[0m\x1b[33mcalico-packet: \x1b[0m\x1b[1m{BODY}\x1b[0m"),
    Case("CPU in the stamp", f"[157340.932724@5] {OURS}", None, None, 157340.932724),
    Case("caller in the stamp", f"[  147.444368][  T11] {OURS}", None, None, 147.444368),
    Case("kmsg", f"4,594,2236840287,-;{OURS}", None, None, 2236.840287),
    Case("kmsg with caller", f"4,594,2236840287,-,caller=T123;{OURS}", None, None, 2236.840287),
    Case("journal json", dumps(ENTRY), RECEIVED, "n1", 2236.840527),
    Case("journal export", EXPORT % (OURS, "kernel"), RECEIVED, "n1", 2236.840527),
    Case("journal export, binary message", BINARY, None, "n1"),
    Case("journal verbose", VERBOSE, at(14, 7, 40, 325509), "n1", 2236.840527),
    Case("docker", dumps({"log": f"{SYSLOGGED} {OURS}\n", "stream": "stdout", "time": "2026-11-22T12:00:00Z"}),
         SYSLOG, "n1"),
    Case("CRI", f"2026-11-22T12:00:00.333Z stdout F [ 2.000001] {OURS}", at(12, 0, 0, 333000, UTC), None, 2.000001),
    Case("CRI in two parts", f"{READ} P [ 2.000001] {OURS[:50]}\n{READ} F {OURS[50:]}",
         at(12, 0, 0, zone=UTC), None, 2.000001),
    Case("Vector", dumps({"appname": "kernel", "host": "n1", "message": OURS, "timestamp": "2026-11-22T13:05:43Z"}),
         ZULU, "n1"),
    Case("kubectl logs --prefix", f"[pod/logs-x/y] Nov 22 13:05:43 n1 kernel: {OURS}", SYSLOG, "n1"),
    Case("grep -n", f"/var/log/kern.log:123:Nov 22 13:05:43 n1 kernel: {OURS}", SYSLOG, "n1"),
    Case("grep -A", f"kern.log-Nov 22 13:05:43 n1 kernel: {OURS}", SYSLOG, "n1"),
    Case("repeated", f"Nov 22 13:05:43 n1 kernel: message repeated 28 times: [ {OURS}]", SYSLOG, "n1", None, 28),
    Case("repeated with a stamp", f"Nov 22 13:05:43 n1 kernel: message repeated 2 times: [[ 2.500000] {OURS}]",
         SYSLOG, "n1", 2.5, 2),
    Case("repeated, cut by a relay", f"{SYSLOGGED} message repeated 2 times: [ {OURS}", SYSLOG, "n1", None, 2),
    Case("two blanks after the tag", f"Nov 22 13:05:43 n1 kernel:  {OURS}", SYSLOG, "n1"),
    Case("no blank after the tag", f"Nov 22 13:05:43 n1 kernel:{OURS}", SYSLOG, "n1"),
    Case("level left in", f"Nov 22 13:05:43 n1 kernel: <4>{OURS}", SYSLOG, "n1"),
    Case("continued from another message", f"Nov 22 13:05:43 n1 kernel: floppy0: error<4>{OURS}", SYSLOG, "n1"),
    Case("carriage return", f"Nov 22 13:05:43 n1 kernel: {OURS}\r", SYSLOG, "n1"),
    Case("NULs before", f"\0\0\0Nov 22 13:05:43 n1 kernel: {OURS}", SYSLOG, "n1"),
    Case("byte order mark", f"\ufeffNov 22 13:05:43 n1 kernel: {OURS}".encode(), SYSLOG, "n1"),
    Case("escaped end", f"Nov 22 13:05:43 n1 kernel: {OURS}#012", SYSLOG, "n1"),
)  # fmt: skip


@pytest.mark.parametrize("case", TRUSTED, ids=lambda case: case.name)
def test_frames_of_the_kernel(case: Case) -> None:
    """The packet is the same in every frame; time, node, stamp and count are the frame's."""
    bare = parse(OURS, replace(PRAGUE, any_tag=True), anchor=ANCHOR)
    packet = parse(case.line, PRAGUE, anchor=ANCHOR)
    assert isinstance(bare, Packet)
    assert packet == replace(
        bare, time=case.time, node=case.node, uptime_s=case.uptime_s, repeat_count=case.repeat_count
    )


UNTRUSTED = (
    ("nothing around it", OURS),
    ("a process id: not the kernel", f"Nov 22 13:05:43 n1 kernel[123]: {OURS}"),
    ("logger", f"Nov 22 13:05:43 n1 root: {OURS}"),
    ("logger with a process id", f"Nov 22 13:05:43 n1 root[99]: {OURS}"),
    ("logger quoting the kernel", f"Nov 22 13:05:43 n1 root: kernel: {OURS}"),
    ("no host, quoting the kernel", f"Nov 22 13:05:43 root: kernel: {OURS}"),
    ("no host, a process, quoting the kernel", f"Nov 22 13:05:43 sudo[12]: kernel: {OURS}"),
    ("the tag is our prefix", f"Nov 22 13:05:43 n1 {OURS}"),
    ("RFC 5424 with a process id", f"<4>1 2026-11-22T13:05:43Z n1 kernel 77 - - {OURS}"),
    ("RFC 5424 of a program", f"<4>1 2026-11-22T13:05:43Z n1 app - - - {OURS}"),
    ("short-monotonic of a program", f"[ 2170.172431] n1 root[7]: {OURS}"),
    ("a user's message in dmesg -x", f"user  :notice: [ 2236.840527] {OURS}"),
    ("a user's message in dmesg -r", f"<14>[ 2236.840527] {OURS}"),
    ("a user's message in kmsg", f"14,594,2236840287,-;{OURS}"),
    ("journal json, syslog transport", dumps(ENTRY | {"_TRANSPORT": "syslog"})),
    ("journal json, user facility", dumps(ENTRY | {"SYSLOG_FACILITY": "1"})),
    (
        "journal json, message with a frame",
        dumps(ENTRY | {"_TRANSPORT": "stdout", "MESSAGE": f"{SYSLOGGED} {OURS}"}),
    ),
    ("journal export, syslog transport", EXPORT % (OURS, "syslog")),
    ("one field of an export entry", f"MESSAGE={OURS}"),
    ("Vector, another program", dumps({"appname": "app", "host": "n1", "message": f"{SYSLOGGED} {OURS}"})),
    ("Vector, the line inside disagrees", dumps({"appname": "kernel", "message": f"Nov 22 13:05:43 n1 root: {OURS}"})),
    ("tai64nlocal", f"2026-11-22 13:05:43.222382500 <4>{OURS}"),
)


@pytest.mark.parametrize(("name", "line"), UNTRUSTED, ids=[name for name, _ in UNTRUSTED])
def test_lines_that_the_kernel_did_not_write(name: str, line: str) -> None:
    """A look-alike is a reject; `any_tag` takes it, with the prefix free of its frame."""
    outcome = parse(line, PRAGUE, anchor=ANCHOR)
    assert isinstance(outcome, Reject)
    assert outcome.reason == "not from the kernel"
    packet = parse(line, EVERYTHING, anchor=ANCHOR)
    assert isinstance(packet, Packet)
    assert packet.prefix == "calico-packet"


PREFIXES = (
    ("Nov 22 13:05:43 server Shorewall:net2fw:DROP:" + BODY, "server", "Shorewall:net2fw:DROP"),
    ("Nov 22 13:05:43 box IN-work: " + BODY, "box", "IN-work"),
    ("Nov 22 13:05:43 DENY: " + BODY, None, "DENY"),
    ("Nov 22 13:05:43 UDMP-DTC UDMP-DTC [WAN_LOCAL-D]" + BODY, "UDMP-DTC", "[WAN_LOCAL-D]"),
    ("Nov 22 13:05:43 n1 [UFW BLOCK] " + BODY, "n1", "[UFW BLOCK]"),
    ("Nov 22 13:05:43 n1 kernel: [UFW BLOCK] " + BODY, "n1", "[UFW BLOCK]"),
    ("Nov 22 13:05:43 n1 kernel: [12345.6-D]" + BODY, "n1", "[12345.6-D]"),
    ("Nov 22 13:05:43 n1 kernel: [000000.000000] IN-REMOTE " + BODY, "n1", "IN-REMOTE"),
    ('Nov 22 13:05:43 n1 kernel: "filter_IN_public_REJECT: "' + BODY, "n1", '"filter_IN_public_REJECT: "'),
    ("Nov 22 13:05:43 n1 kernel: [FW_ADT]A=A D=O CD=O M=57 " + BODY, "n1", "[FW_ADT]A=A D=O CD=O M=57"),
    ("Nov 22 13:05:43 n1 kernel: IN= foo IN=bar ININ: " + BODY, "n1", "IN= foo IN=bar ININ"),
    ("Nov 22 13:05:43 n1 kernel: IN=x OUT=y SRC=192.0.2.9 " + BODY, "n1", "IN=x OUT=y SRC=192.0.2.9"),
    ("Nov 22 13:05:43 n1 kernel: LOGIN" + BODY, "n1", "LOGIN"),
    ("Nov 22 13:05:43 n1 kernel: INPUT-DROP: " + BODY, "n1", "INPUT-DROP"),
    ("Nov 22 13:05:43 n1 kernel: " + BODY, "n1", ""),
    ("Nov 22 13:05:43 n1 kernel: tab#011here " + BODY, "n1", "tab\there"),
    ("4,594,2236840287,-;caf\\xc3\\xa9 \\x5c " + BODY, None, "café \\"),
    ("Nov 22 13:05:43 n1 kernel: " + "p" * 127 + BODY, "n1", "p" * 127),
)


@pytest.mark.parametrize(("line", "node", "prefix"), PREFIXES, ids=[str(i) for i in range(len(PREFIXES))])
def test_prefix_and_frame_keep_apart(line: str, node: str | None, prefix: str) -> None:
    """The prefix holds none of the frame, the frame none of the prefix, whatever either looks like."""
    packet = parse(line, EVERYTHING, anchor=ANCHOR)
    assert isinstance(packet, Packet)
    assert (packet.node, packet.prefix) == (node, prefix)
    assert isinstance(parse(line, PRAGUE, anchor=ANCHOR), Other)


def test_an_unknown_frame_is_offered_to_the_fast_path() -> None:
    """`frame` gives the message and where it begins, also behind colours."""
    found = frame(f"\x1b[32mNov 22 13:05:43 n1 kernel:\x1b[0m {OURS}", PRAGUE, anchor=ANCHOR)
    assert found.message == OURS
    assert found.message_offset == len("\x1b[32mNov 22 13:05:43 n1 kernel:\x1b[0m ")
    assert (found.tag, found.trusted) == ("kernel", True)
