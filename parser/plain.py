"""The frame of a line of plain text: syslog in its dialects, journalctl's short forms, dmesg, /dev/kmsg, the trace pipe.

Rule: layers come off from the left, each recognised by its pattern; what no pattern knows stays in the message. Only the
kernel's own tag or stamp makes a line trusted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime

from parser.options import Options
from parser.when import find_stamp, instant

KERNEL_TAGS = frozenset({"kernel", "vmunix", "kern.log"})
"""vmunix: some appliances; kern.log: LogDNA shows the file's name where the tag stood."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands around a message.

    `time`: aware, or None. `uptime_s`: the printk stamp. `tag`: the program, as printed. `trusted`: True when the line
    is the kernel's, False when it is another program's, None when nothing tells. `message_offset`: where `message`
    begins in the decoded line. `repeat_count`: n of "message repeated n times".
    """

    time: datetime | None
    uptime_s: float | None
    node: str | None
    tag: str | None
    trusted: bool | None
    message: str
    message_offset: int
    repeat_count: int = 0


_OUTER = re.compile(
    r"\[pod/[^\]\s]+\] "  # kubectl logs --prefix
    r"|[\w./-]*(?:log|messages|syslog|kern|journal)[\w.-]*?(?::(?:\d+:)?|-(?:\d+-)?)(?=[A-Z<\[12])"  # grep -H, -n, -A
)
_PRIORITY = re.compile(r"(?:\d{1,6} )?<(\d{1,3})>")
_NIL_TIME = re.compile(r"1 - ")
_RFC5424 = re.compile(
    r" (?P<host>\S+) (?P<app>\S+) (?P<process>\S+) \S+ (?:-|(?:\[(?:[^\]\\\"]|\\.|\"(?:[^\"\\]|\\.)*\")*\])+)(?: |$)"
)
_RFC5424_FILE = re.compile(r" (?P<host>\S+) (?P<app>\S+) (?P<process>-|\d+) - -(?: |$)")
_FACILITY = "(?:kern|user|mail|daemon|auth|authpriv|syslog|lpr|news|uucp|cron|ftp|local[0-7])"
_LEVEL = "(?:emerg|panic|alert|crit|err|error|warn|warning|notice|info|debug)"
_SEVERITY = rf"{_FACILITY}\.{_LEVEL}"
_SEVERITY_FIRST = re.compile(rf"{_SEVERITY}: ")
_DMESG_DECODED = re.compile(rf"(?P<facility>{_FACILITY}) *:{_LEVEL} *: ")
_HOST = r"(?P<host>[^\s\[\]\"'=#*]*[^\s\[\]\"'=#*:])"
_KERNEL_TAG = re.compile(
    rf" (?:{_HOST} )?(?:{_SEVERITY} )?(?P<tag>kernel|vmunix)(?P<process>\[\d*\])?:(?: |$)"
    rf"| (?P<host2>\S+) (?P<tag2>kern\.log)(?: (?=\[)|: )"
)
_TAG = re.compile(rf" (?:{_HOST} )?(?:(?P=host) )?(?:{_SEVERITY} )?(?P<tag>[\w./()@-]+)(?P<process>\[\d+\])?: ")
_HOST_ONLY = re.compile(rf" {_HOST} (?:(?P=host) )?(?:{_SEVERITY}:? )?(?=\S)")
_STAMP = re.compile(
    r"\[ *(?P<uptime>\d+\.\d{3,9})(?:@\d+)?(?: <[ +]*\d+\.\d+ ?>)?\](?:\[ *[TC]\d+\])? ?"
    r"|\[(?:< *[+-]?\d+\.\d+ ?>| *[+-]\d+\.\d+)\] ?"  # dmesg --time-format delta, reltime
)
_MONOTONIC = re.compile(r"(?P<host>\S+) (?P<tag>[\w./()@-]+)(?P<process>\[\d+\])?: ")
_TRACE_PIPE = re.compile(r" *\S.*-\d+ +(?:\( *[\d-]+\) )?\[\d{3}\] \S* *(?P<uptime>\d+\.\d+): bpf_trace_printk: ")
_KMSG = re.compile(r"(?P<priority>\d{1,5}),\d+,(?P<us>\d+),[^;]*;")
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")
_REPEATED = re.compile(r" *message repeated (\d{1,9}) times: \[(?P<text>.*)\]\s*\Z", re.S)
_LEVEL_MARK = re.compile("<[0-7]>")


def text_frame(text: str, options: Options, anchor: datetime) -> Frame:
    """The frame of a line of plain text, without what wraps it."""
    return _kmsg(text) or _trace_pipe(text) or _repeated(_plain(text, options, anchor), options, anchor)


def _kmsg(text: str) -> Frame | None:
    """A record of /dev/kmsg: facility 0 is the kernel's; bytes that cannot be printed are escaped (devkmsg_read)."""
    match = _KMSG.match(text)
    if match is None:
        return None
    message = text[match.end() :].split("\n", 1)[0]
    trusted = int(match["priority"]) >> 3 == 0
    return Frame(None, int(match["us"]) / 1e6, None, None, trusted, unescaped(message), match.end())


def unescaped(text: str) -> str:
    r"""Text with kmsg's \xNN undone: the bytes are UTF-8."""
    if "\\x" not in text:
        return text
    raw = _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), text.encode())
    return raw.decode("utf-8", "replace")


def _trace_pipe(text: str) -> Frame | None:
    """A line of the kernel's trace pipe, to which Calico's eBPF programs print."""
    match = _TRACE_PIPE.match(text)
    if match is None:
        return None
    return Frame(None, float(match["uptime"]), None, "bpf_trace_printk", True, text[match.end() :], match.end())


def _plain(text: str, options: Options, anchor: datetime) -> Frame:
    """A line as syslog, journalctl or dmesg write it."""
    position = match.end() if (match := _OUTER.match(text)) else 0
    from_kernel: bool | None = True
    if match := _PRIORITY.match(text, position):
        from_kernel, position = int(match[1]) < 8, match.end()
    elif match := _DMESG_DECODED.match(text, position):
        from_kernel, position = match["facility"] == "kern", match.end()
    elif match := _SEVERITY_FIRST.match(text, position):
        position = match.end()
    if match := _NIL_TIME.match(text, position):
        return _header(text, match.end() - 1, None, rfc5424=True)
    rfc5424 = text.startswith("1 ", position)
    stamp = find_stamp(text, position + 2 * rfc5424)
    if stamp is None:
        return _dmesg(text, position, from_kernel)
    time = instant(stamp[0], anchor, options.zone)
    if stamp[0][0] == "[" or ("," in stamp[0] and "offset" in stamp.re.groupindex):
        return stamped(
            text, stamp.end() + text.startswith(" ", stamp.end()), Frame(time, None, None, None, from_kernel, "", 0)
        )
    return _header(text, stamp.end(), time, rfc5424=rfc5424)


def _dmesg(text: str, position: int, from_kernel: bool | None) -> Frame:
    """A line without a date: the kernel's stamp first (dmesg, or journalctl -o short-monotonic), or nothing at all."""
    bare = Frame(None, None, None, None, None, text[position:], position)
    stamp = _STAMP.match(text, position)
    if stamp is None:
        return bare
    uptime = float(stamp["uptime"]) if stamp["uptime"] else None
    header = _MONOTONIC.match(text, stamp.end())
    if header and (header["process"] or header["tag"] in KERNEL_TAGS):
        trusted = not header["process"]
        return replace(
            _rest(bare, text, header), uptime_s=uptime, node=header["host"], tag=header["tag"], trusted=trusted
        )
    return replace(_rest(bare, text, stamp), uptime_s=uptime, trusted=from_kernel)


def _rest(found: Frame, text: str, match: re.Match[str]) -> Frame:
    return replace(found, message=text[match.end() :], message_offset=match.end())


def _header(text: str, position: int, time: datetime | None, *, rfc5424: bool) -> Frame:
    """What follows the date: host, tag, process id; each may be missing."""
    found = Frame(time, None, None, None, None, text[position:], position)
    if match := (_RFC5424 if rfc5424 else _RFC5424_FILE).match(text, position):
        return _named(found, text, match, match["host"], match["app"], match["process"] != "-")
    if match := _KERNEL_TAG.match(text, position):
        tag = match["tag"] or match["tag2"]
        return _named(found, text, match, match["host"] or match["host2"], tag, bool(match["process"]))
    match = _TAG.match(text, position)
    # A word that stands right before the record is its prefix, whatever it looks like: `box IN-work: IN=`.
    if match and (match["process"] or not text.startswith("IN=", match.end())):
        return _named(found, text, match, match["host"], match["tag"], True)
    if match is None:
        match = _HOST_ONLY.match(text, position)
    if match:
        start = match.start("tag") if "tag" in match.re.groupindex else match.end()
        return stamped(text, start, replace(found, node=match["host"]))
    return stamped(text, position + text.startswith(" ", position), found)


def _named(found: Frame, text: str, match: re.Match[str], host: str | None, tag: str, process: bool) -> Frame:
    """A line with a tag: the kernel has no process id, so `kernel[123]` is somebody else."""
    trusted = tag in KERNEL_TAGS and not process
    node = None if host == "-" else host
    return stamped(text, match.end(), replace(found, node=node, tag=None if tag == "-" else tag, trusted=trusted))


def stamped(text: str, position: int, found: Frame) -> Frame:
    """The frame with the rest of a line as its message; the rest may begin with the kernel's stamp."""
    if (stamp := _STAMP.match(text, position)) and stamp["uptime"]:
        return replace(_rest(found, text, stamp), uptime_s=float(stamp["uptime"]))
    return replace(found, message=text[position:], message_offset=position)


def _repeated(found: Frame, options: Options, anchor: datetime) -> Frame:
    """rsyslog's "message repeated n times: [text]" stands for n more messages; a kernel stamp may be in the text."""
    match = _REPEATED.match(found.message)
    if match is None:
        level = _LEVEL_MARK.match(found.message)
        return _moved(found, level.end()) if level else found
    inner = stamped(match["text"], len(match["text"]) - len(match["text"].lstrip(" ")), found)
    offset = found.message_offset + match.start("text") + inner.message_offset
    message = match["text"][inner.message_offset :]
    return replace(inner, message=message, message_offset=offset, repeat_count=int(match[1]))


def _moved(found: Frame, by: int) -> Frame:
    return replace(found, message=found.message[by:], message_offset=found.message_offset + by)
