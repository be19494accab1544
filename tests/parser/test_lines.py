"""Single lines and what becomes of them: the grammar's corners, damage, foreign formats, losses, repeats, prefixes.

The names say what each row guards; rows marked with a project are complaints of its users.
"""

from __future__ import annotations

import json
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from parser import Loss, Options, Other, Packet, Reject
from parser.line import parse
from parser.prefix import match

ANCHOR = datetime(2026, 11, 22, 22, tzinfo=UTC)
KERNEL = "Nov 22 13:05:43 n1 kernel: [   12.000001] calico-packet: "
MAC = "MAC=ee:ee:ee:ee:ee:ee:02:00:5e:10:00:01:08:00 "
IP4 = "SRC=198.51.100.1 DST=203.0.113.2 LEN=60 TOS=0x00 PREC=0x00 TTL=63 ID=1 "
TCP = "PROTO=TCP SPT=45588 DPT=80 WINDOW=64860 RES=0x00 SYN URGP=0 "
IN = "IN=cali0123456789a OUT=eth0 "
IP6 = (
    "SRC=2001:0db8:0000:0000:0000:0000:0000:0001 DST=2001:0db8:0000:0000:0000:0000:0000:0002 LEN=60 TC=0 HOPLIMIT=64 "
    "FLOWLBL=7 "
)
WHOLE = {
    "tcp": IN + MAC + IP4 + "DF " + TCP,
    "tcp with everything": IN
    + MAC
    + IP4
    + "CE DF MF OPT (94040000) PROTO=TCP SPT=1 DPT=2 SEQ=3 ACK=4 WINDOW=5 RES=0x38 "
    "AE CWR ECE URG ACK PSH RST SYN FIN URGP=6 OPT (0204FFD7) UID=0 GID=4294967295 MARK=0xffffffff ",
    "udp": IN + MAC + IP4 + "PROTO=UDP SPT=53 DPT=45588 LEN=40 ",
    "icmp error": IN + MAC + IP4 + "PROTO=ICMP TYPE=3 CODE=4 [" + IP4 + "DF PROTO=TCP INCOMPLETE [8 bytes] ] MTU=1400 ",
    "redirect": IN + IP4 + "PROTO=ICMP TYPE=5 CODE=1 GATEWAY=192.0.2.1 [" + IP4 + "PROTO=UDP SPT=1 DPT=2 LEN=8 ] ",
    "ipv6": IN + MAC.replace("08:00 ", "86:dd ") + IP6 + "PROTO=ICMPv6 TYPE=2 CODE=0 [" + IP6 + TCP + "] MTU=1280 ",
    "ipv6 options": IN
    + IP6
    + "OPT ( ) OPT ( FRAG:0 INCOMPLETE ID:00c0ffee ) OPT ( AH SPI=0xabc ) "
    + TCP
    + "MARK=0x1 ",
    "vlan": IN + "MACSRC=02:00:5e:10:00:01 MACDST=ee:ee:ee:ee:ee:ee VPROTO=8100 VID=41060 MACPROTO=0800 " + IP4 + TCP,
    "arp": IN + "ARP HTYPE=1 PTYPE=0x0800 OPCODE=1 MACSRC=02:00:5e:10:00:01 IPSRC=192.0.2.1 MACDST=00:00:00:00:00:00 "
    "IPDST=192.0.2.2",
    "bridge": "IN=br0 OUT=br0 PHYSIN=veth1 PHYSOUT=veth2 " + MAC + IP4 + TCP,
    "linux 2.4 bridge": "IN=br0 PHYSIN=eth0 OUT=br0 PHYSOUT=eth1 " + IP4 + TCP,
    "sit": "IN=sit0 OUT= MAC=00:01:08:00:02:00:00:00:00:00:38:00:00:00 TUNNEL=192.0.2.1->192.0.2.2 " + IP6 + TCP,
    "ebtables": IN + "MAC source = 02:00:5e:10:00:01 MAC dest = ee:ee:ee:ee:ee:ee proto = 0x0800 IP SRC=192.0.2.1 "
    "IP DST=192.0.2.2, IP tos=0x00, IP proto=17 SPT=46417 DPT=53",
    "ebtables, link layer only": IN + "MAC source = 02:00:5e:10:00:01 MAC dest = ee:ee:ee:ee:ee:ee proto = 0x0800",
}
# Fields whose value may be a shorter, legal one when a line is cut inside the number (or name) it ends with, and the
# kernel's closing blank is gone with the rest: such a line cannot be told from one whose blank an editor trimmed.
MAY_SHRINK = {
    "udp_length", "tcp_urgent", "mark", "uid", "gid", "icmp_mtu", "icmp_seq", "spi", "protocol", "arp_destination_ip",
    "flow_label", "fragment_offset", "destination_port",
}  # fmt: skip


def read(body: str, options: Options = Options()) -> Any:  # noqa: B008 - options are frozen
    """The outcome of a kernel line with this body."""
    return parse(KERNEL + body, options, anchor=ANCHOR)


@pytest.mark.parametrize("name", WHOLE)
def test_whole_lines_are_packets(name: str) -> None:
    """A whole line is a packet, not truncated, with or without the blank that closes it."""
    packet = read(WHOLE[name])
    assert isinstance(packet, Packet)
    assert not packet.truncated
    assert read(WHOLE[name].rstrip()) == packet


def _agrees(cut: Packet, whole: Packet) -> None:
    """Everything the cut packet claims is what the whole one says."""
    for field in fields(Packet):
        claim, truth = getattr(cut, field.name), getattr(whole, field.name)
        if claim in (None, truth) or field.name == "truncated":
            continue
        if field.name == "inner":
            _agrees(claim, truth)
        elif field.name == "extension_headers":
            assert truth[: len(claim)] == claim
        else:
            assert not cut.truncated
            assert field.name in MAY_SHRINK


@pytest.mark.parametrize("name", WHOLE)
def test_lines_cut_anywhere_claim_nothing_false(name: str) -> None:
    """Cut at every character: never an exception, and no field but the last number may differ from the whole line's."""
    whole = read(WHOLE[name])
    # Before TUNNEL= begins, nothing tells a SIT device's octets from an Ethernet header's.
    start = WHOLE[name].find("TUNNEL=") + len("TUNNEL=192.0.2.1->192.0.2.2 ") if name == "sit" else 0
    for end in range(start, len(WHOLE[name])):
        cut = read(WHOLE[name][:end])
        if isinstance(cut, Packet):
            _agrees(cut, whole)
        else:
            assert cut.reason == "no IN= and OUT="


@pytest.mark.parametrize("garbage", ["x", "SRC=192.0.2.9 ", "\x01", "] ", "PROTO=UDP ", "#", "' ", "{}", "TTL=1 "])
@pytest.mark.parametrize("name", WHOLE)
def test_garbage_after_a_line_is_a_reject(name: str, garbage: str) -> None:
    """Nothing follows a record: whatever does makes the line a reject that points at it."""
    body = WHOLE[name].rstrip() + " "
    outcome = read(body + garbage)
    assert isinstance(outcome, Reject)
    assert outcome.position <= len(KERNEL + body)


@pytest.mark.parametrize("noise", ["\r", "\0\0", "\x1b[0m", " ", "\r\n", "#012", "^M"])
@pytest.mark.parametrize("name", WHOLE)
def test_noise_after_a_line_is_not_part_of_it(name: str, noise: str) -> None:
    """Carriage returns, NULs, colours and relays' escapes at the end change nothing."""
    assert read(WHOLE[name] + noise) == read(WHOLE[name])


GAPS = IN + MAC + IP4 + TCP
REJECTS = (
    ("redacted (IBM Cloud docs)", IN + IP4.replace("198.51.100.1", "192.XXX.XX.X") + TCP, "bad address", "SRC="),
    ("redacted (kube-iptables-tailer #29)", IN + IP4.replace("203.0.113.2", "(redacted)") + TCP, "bad address", "DST="),
    ("five octets", IN + IP4.replace("203.0.113.2", "203.0.113.2.7") + TCP, "bad address", "DST="),
    ("octet above 255", IN + IP4.replace("203.0.113.2", "203.0.113.256") + TCP, "bad address", "DST="),
    ("gateway cut out", IN + IP4 + "PROTO=ICMP TYPE=5 CODE=0 GATEWAY=<snip> ", "bad address", "GATEWAY="),
    ("port above 65535", GAPS.replace("SPT=45588", "SPT=65536"), "number out of range", "SPT="),
    ("port of many digits", GAPS.replace("SPT=45588", "SPT=" + "9" * 5000), "number out of range", "SPT="),
    ("TTL above 255", GAPS.replace("TTL=63", "TTL=256"), "number out of range", "TTL="),
    ("echo id above 65535", IN + IP4 + "PROTO=ICMP TYPE=8 CODE=0 ID=98765 SEQ=1 ", "number out of range", "ID=98765"),
    ("uid above 32 bits", GAPS + "UID=4294967296 ", "number out of range", "UID="),
    ("mark above 32 bits", GAPS + "MARK=0x100000000 ", "number out of range", "MARK="),
    ("label above 20 bits", IN + IP6.replace("FLOWLBL=7", "FLOWLBL=1048576") + TCP, "number out of range", "FLOWL"),
    ("reserved bits above six", GAPS.replace("RES=0x00", "RES=0x40"), "number out of range", "RES="),
    ("leading zeros", GAPS.replace("TTL=63", "TTL=063"), "malformed", "TTL="),
    ("upper-case mark", GAPS + "MARK=0xCAFE ", "malformed", "MARK="),
    ("mark of zero", GAPS + "MARK=0x0 ", "malformed", "MARK="),
    ("LEN= for TCP (IPTables::Log)", IN + IP4 + "PROTO=TCP SPT=1 DPT=2 LEN=384 ", "malformed", "LEN=384"),
    ("no TOS=", GAPS.replace("TOS=0x00 PREC=0x00 ", ""), "malformed", "TTL="),
    ("no RES= (prelude)", GAPS.replace("RES=0x00 ", ""), "malformed", "SYN URGP"),
    ("order changed", GAPS.replace("TTL=63 ID=1 ", "ID=1 TTL=63 "), "malformed", "ID=1"),
    ("two blanks", GAPS.replace("ID=1 ", "ID=1  "), "malformed", " PROTO="),
    ("flags out of order", GAPS.replace("SYN ", "SYN ACK "), "malformed", "SYN ACK"),
    ("ports in a later fragment", IN + IP4 + "FRAG:185 " + TCP, "malformed", "SPT="),
    ("UID after a cut TCP header", IN + IP4 + "PROTO=TCP INCOMPLETE [8 bytes] UID=0 ", "malformed", "UID="),
    ("a slash in the interface", GAPS.replace("OUT=eth0", "OUT=et/0"), "malformed", "OUT="),
    ("ulogd2 (integrations #4479)", GAPS.replace("TOS=0x00", "TOS=00"), "foreign format", "TOS=00"),
    ("ulogd2's mark", GAPS + "MARK=1a ", "foreign format", "MARK=1a"),
    ("ulogd2's IPv6", IN + "SRC=2001:db8::1 DST=2001:db8::2 LEN=60 ", "foreign format", "SRC="),
    ("ulogd2's SCTP", IN + IP4 + "PROTO=SCTP SPT=1 DPT=2 ", "foreign format", "PROTO=SCTP"),
    ("torn and overwritten, address", IN + MAC + "SRC=127.0.0.53 DS.189.91.96 LEN=52 ", "malformed", "DS."),
    ("torn and overwritten, second record",
     IN + MAC + IP4 + "PROTO=UDP SPT=123 DPT=9663 LEN=5T=127.0.0.1 LEN=150 TOS=0x00 PREC=0x00 TTL=64 ID=1 DF PROTO=UDP "
     "SPT=53 DPT=39933 LEN=130", "spliced", "LEN=5T"),
    ("two records in a line", GAPS + "Nov 22 13:05:44 n1 kernel: [ 13.000001] calico-packet: " + GAPS, "spliced", None),
    ("torn, then a whole record", GAPS[:90] + "calico-packet: " + GAPS, "spliced", None),
)  # fmt: skip


@pytest.mark.parametrize(("name", "body", "reason", "place"), REJECTS, ids=[row[0] for row in REJECTS])
def test_rejects_say_why_and_where(name: str, body: str, reason: str, place: str | None) -> None:
    """A line that is not believed has a reason, and the position of the token that broke it."""
    outcome = read(body)
    assert isinstance(outcome, Reject)
    assert outcome.reason == reason
    if place is not None:
        assert (KERNEL + body)[outcome.position :].startswith(place)


ANYONE = Options(any_prefix=True, any_tag=True)
PVE = "101 1 tap101i0-IN 20/Jun/2022:13:12:46 +0200 REJECT: IN=fwbr101i0 "
STRAY = (
    ("not a firewall line", "Nov 22 13:05:43 n1 kernel: usb 1-1: new device", ANYONE, Other()),
    ("empty", "", ANYONE, Other()),
    ("mark", "Nov 22 13:05:43 n1 -- MARK --", ANYONE, Other()),
    ("journalctl's own words", "-- Boot 1234 --", ANYONE, Other()),
    ("another prefix", "Nov 22 13:05:43 n1 kernel: [UFW BLOCK] " + GAPS, Options(), Other()),
    ("a longer word", "Nov 22 13:05:43 n1 kernel: calico-packets: " + GAPS, Options(), Other()),
    ("our word in the middle", "Nov 22 13:05:43 n1 kernel: not calico-packet: " + GAPS, Options(), Other()),
    ("head cut, not asked for", "May  5 20:46:46 gw kernel: L=126 ID=8698 DF " + TCP, Options(), Other()),
)


@pytest.mark.parametrize(("name", "line", "options", "outcome"), STRAY, ids=[row[0] for row in STRAY])
def test_lines_that_are_not_ours(name: str, line: str, options: Options, outcome: Other) -> None:
    """What is not recognisably ours is not ours, and no reject."""
    assert parse(line, options, anchor=ANCHOR) == outcome


@pytest.mark.parametrize("tail", ["L=126 ID=8698 DF ", "0 TTL=126 ID=1 DF ", " TTL=1 ID=5 ", "TTL=126 ID=15317 "])
def test_head_cut_lines_are_named(tail: str) -> None:
    """A record without its beginning (elastic/beats #25615) has no addresses: a reject, never a packet."""
    outcome = parse(f"May  5 20:46:46 gw user.info kernel: {tail}{TCP}", ANYONE, anchor=ANCHOR)
    assert isinstance(outcome, Reject)
    assert outcome.reason == "head cut"


@pytest.mark.parametrize("out", ["", "OUT=vmbr0 "])
def test_pve_firewall_is_another_format(out: str) -> None:
    """Proxmox' logger (crowdsecurity/hub PR 168) is not the kernel's, with or without OUT=."""
    outcome = parse(PVE + out + IP4 + TCP, ANYONE, anchor=ANCHOR)
    assert isinstance(outcome, Reject)
    assert outcome.reason == "foreign format"


def test_our_prefix_without_a_record_is_a_reject() -> None:
    """Our word with the kernel's tag, but no IN= and OUT= (crowdsecurity/hub PR 168): said, not swallowed."""
    outcome = read("IN=eth0 SRC=192.0.2.1 ")
    assert isinstance(outcome, Reject)
    assert outcome.reason == "no IN= and OUT="


LOSSES = (
    ("Nov 22 13:05:43 n1 kernel: [72924.290265] net_ratelimit: 1739 callbacks suppressed", "net_ratelimit", 1739),
    ("Nov 22 13:05:43 n1 kernel: __ratelimit: 225 callbacks suppressed", "__ratelimit", 225),
    ("Nov 22 13:05:43 n1 kernel: netfilter please increase S_SIZE", "netfilter", None),
    ("Nov 22 13:05:43 n1 kernel: ** 12 printk messages dropped ** [   12.000001] x", "printk", 12),
    ("Nov 22 13:05:43 n1 rsyslogd: imjournal: 84667 messages lost due to rate-limiting", "imjournal", 84667),
    ("Nov 22 13:05:43 n1 rsyslogd-2177: imjournal: begin to drop messages due to rate-limiting", "imjournal", None),
    ("Nov 22 13:05:43 n1 rsyslogd[81]: imuxsock lost 12 messages from pid 9 due to rate-limiting", "imuxsock", 12),
    ("Nov 22 13:05:43 n1 imklog: 7 messages lost due to rate-limiting", "rsyslogd", 7),
    ("Nov 22 13:05:43 n1 systemd-journal[1770]: Missed 1427 kernel messages", "systemd-journald", 1427),
    ("Nov 22 13:05:43 n1 systemd-journald[17]: Suppressed 917 messages from /", "systemd-journald", 917),
)


@pytest.mark.parametrize(("line", "source", "count"), LOSSES, ids=[row[1] + str(row[2]) for row in LOSSES])
def test_admitted_losses_are_reported(line: str, source: str, count: int | None) -> None:
    """A program that admits to have lost messages makes a loss, not a row, and not silence."""
    assert parse(line, Options(), anchor=ANCHOR) == Loss(source, count)


def test_nobody_reports_the_losses_of_another() -> None:
    """A user's program cannot make the log look incomplete."""
    for line, _, _ in LOSSES:
        tag = line.split()[4]
        assert parse(line.replace(f" {tag} ", " root: ", 1), Options(), anchor=ANCHOR) == Other()


def test_the_old_repeat_counts_the_line_before() -> None:
    """ "last message repeated n times" stands for n more packets of the same node, at a time of its own."""
    first = read(WHOLE["tcp"])
    line = "Nov 22 13:06:00 n1 last message repeated 3 times"
    again = parse(line, Options(), anchor=ANCHOR, previous=first)
    when = datetime(2026, 11, 22, 13, 6, tzinfo=UTC)
    assert again == replace(first, repeat_count=3, time=when, uptime_s=None)
    assert parse(line, Options(), anchor=ANCHOR) == Other()
    assert parse(line.replace(" n1 ", " n2 "), Options(), anchor=ANCHOR, previous=first) == Other()


def test_the_quoted_packet_is_not_the_packet() -> None:
    """An ICMP error's quotation never overwrites the outer packet (psad, CrowdSec, syslog-ng)."""
    quoted = IP4.replace("198.51.100.1", "203.0.113.2").replace("DST=203.0.113.2", "DST=198.51.100.1")
    packet = read(IN + IP4 + f"PROTO=ICMP TYPE=3 CODE=3 [{quoted}PROTO=UDP SPT=9 DPT=53 LEN=40 ] MARK=0xcafe ")
    assert (packet.source_ip, packet.destination_ip, packet.protocol) == ("198.51.100.1", "203.0.113.2", "icmp")
    assert (packet.source_port, packet.mark) == (None, 0xCAFE)
    assert (packet.inner.source_ip, packet.inner.destination_port, packet.inner.mark) == ("203.0.113.2", 53, None)


def test_names_that_repeat_keep_their_meanings() -> None:
    """LEN=, ID=, SEQ= and ACK appear twice with different meanings (liblognorm #332, CrowdSec's own tests)."""
    udp = read(IN + IP4 + "PROTO=UDP SPT=1 DPT=2 LEN=40 ")
    assert (udp.length, udp.udp_length) == (60, 40)
    echo = read(IN + IP4 + "PROTO=ICMP TYPE=8 CODE=0 ID=77 SEQ=5 ")
    assert (echo.ip_id, echo.icmp_id, echo.icmp_seq, echo.tcp_seq) == (1, 77, 5, None)
    tcp = read(IN + IP4 + "PROTO=TCP SPT=1 DPT=2 SEQ=8 ACK=9 WINDOW=1 RES=0x00 ACK URGP=0 ")
    assert (tcp.tcp_seq, tcp.tcp_ack, tcp.tcp_flags) == (8, 9, ("ACK",))
    vlan = read(WHOLE["vlan"])
    assert (vlan.source_ip, vlan.protocol, vlan.source_mac) == ("198.51.100.1", "tcp", "02:00:5e:10:00:01")


TRACE = "curl-5288    [000] ..s2.  3055.982021: bpf_trace_printk: "


def test_the_ebpf_data_plane() -> None:
    """A denial in the trace pipe is a packet with its 5-tuple; the port of an ICMP packet is its type."""
    line = TRACE + "cali527b0801ecb-I: policy DENIED  proto 6 src 198.51.100.1:56042 dest 203.0.113.2:80"
    assert parse(line, Options(), anchor=ANCHOR) == Packet(
        uptime_s=3055.982021, direction="ingress", out_interface="cali527b0801ecb", ip_version=4, protocol="tcp",
        source_ip="198.51.100.1", destination_ip="203.0.113.2", source_port=56042, destination_port=80,
    )  # fmt: skip
    echo = parse(
        TRACE + "cali0-E: policy DENIED proto 1 src 198.51.100.1:0 dest 203.0.113.2:8", Options(), anchor=ANCHOR
    )
    assert isinstance(echo, Packet)
    assert (echo.direction, echo.protocol, echo.icmp_type, echo.destination_port) == ("egress", "icmp", 8, None)
    assert parse(line.replace("DENIED ", "ALLOWED"), Options(), anchor=ANCHOR) == Other()
    assert parse(line[len(TRACE) :], Options(), anchor=ANCHOR) == Other()


VECTORS = Path(__file__).parents[3] / "shared" / "calico" / "vectors" / "log_prefix.json"
KINDS = {
    "GlobalNetworkPolicy": "gnp", "NetworkPolicy": "np", "Profile": "pro", "KubernetesNetworkPolicy": "knp",
    "KubernetesClusterNetworkPolicy": "kcnp", "StagedNetworkPolicy": "snp",
}  # fmt: skip


def _vectors() -> list[Any]:
    cases = json.loads(VECTORS.read_text())["cases"] if VECTORS.is_file() else []
    return [
        pytest.param(case, plane, id=f"{number}-{plane}")
        for number, case in enumerate(cases)
        for plane in ("iptables", "nftables")
    ]


@pytest.mark.skipif(not VECTORS.is_file(), reason=f"no vectors at {VECTORS}")
@pytest.mark.parametrize(("case", "plane"), _vectors())
def test_prefixes_that_calico_makes(case: dict[str, Any], plane: str) -> None:
    """What a logPrefix format put into the prefix comes back; what the cut took is None or the part that is seen."""
    shown, form = case[f"{plane}_visible"], case["logPrefix"] or "calico-packet"
    found = match(shown, Options(prefixes=(form,)))
    assert found is not None
    truth = {"tier": case["tier"], "kind": KINDS[case["kind"]], "namespace": case["namespace"], "name": case["name"]}
    asked = {"%t": ("tier",), "%k": ("kind",), "%n": ("name",), "%p": ("namespace", "name")}
    wanted = {field for specifier, names in asked.items() if specifier in form for field in names}
    for field, value in truth.items():
        claim = getattr(found, field)
        if shown.endswith(": ") or shown.endswith(":"):
            assert claim == (value if field in wanted and value else None)
        else:
            assert claim is None or (value.startswith(claim) if field == "name" else value == claim)


FORM = Options(prefixes=("calico-packet %k %p",))
FORMS = (
    ("calico-packet np default/p1: ", ("np", "default", "p1", None)),
    ("calico-packet gnp p1: ", ("gnp", None, "p1", None)),
    ("calico-packet np default/p1-est: ", ("np", "default", "p1", "est")),
    ("calico-packet np default/p1-icmp-err: ", ("np", "default", "p1", "icmp-err")),
    ("calico-packet np default/my-p", ("np", "default", "my-p", None)),  # 29 characters: cut in the name
    ("calico-packet np production-e", ("np", None, None, None)),  # namespace or name: the cut hides which
    ("calico-packet %k %p: ", (None, None, None, None)),  # a release that knows no specifiers
    ("calico-packet np default/p1", None),  # neither closed nor cut: not made by this format
    ("calico-packets np default/p1: ", None),
)


@pytest.mark.parametrize(("text", "expected"), FORMS, ids=[row[0] for row in FORMS])
def test_formats_are_read_back(text: str, expected: tuple[str | None, ...] | None) -> None:
    """Kind, namespace, name and follow-up of a prefix made by `calico-packet %k %p`."""
    found = match(text, FORM)
    assert (found and (found.kind, found.namespace, found.name, found.follow_up)) == expected


WORDS = (
    ("calico-packet: ", "calico-packet", None),
    ("calico-packet", "calico-packet", None),
    ("calico-drop: ", "calico-drop", None),
    ("calico-packet-est: ", "calico-packet-est", "est"),
    ("calico-packet-rst: ", "calico-packet-rst", "rst"),
    ("calico-packet np default/my-po", "calico-packet np default/my-po", None),
    ("calico-packets: ", None, None),
    ("xcalico-packet: ", None, None),
    ("calico-packet-x: ", None, None),
    ("", None, None),
)


@pytest.mark.parametrize(("text", "prefix", "follow_up"), WORDS, ids=[row[0] for row in WORDS])
def test_words_match_as_whole_words(text: str, prefix: str | None, follow_up: str | None) -> None:
    """A word counts at the start of the prefix and as a whole; the suffixes of replies are known."""
    found = match(text, Options())
    assert (found and found.text) == prefix
    assert (found and found.follow_up) == follow_up


WAYS = (
    ("IN=cali1 OUT=eth0 ", "egress"),
    ("IN=eth0 OUT=cali1 ", "ingress"),
    ("IN= OUT=cali1 ", "ingress"),
    ("IN=eth0 OUT= ", "host"),
    ("IN=cali1 OUT=cali2 ", None),
)


@pytest.mark.parametrize(("head", "way"), WAYS)
def test_direction_is_told_by_the_interfaces(head: str, way: str | None) -> None:
    """Out through a pod's interface is ingress to it, in through one is egress; from pod to pod it is both."""
    assert read(head + IP4 + TCP).direction == way


def test_the_interface_prefix_is_an_option() -> None:
    """Felix' InterfacePrefix may be another."""
    assert read("IN=azv1 OUT=eth0 " + IP4 + TCP, Options(interface_prefix="azv")).direction == "egress"
