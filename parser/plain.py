"""The frame of a line of plain text: syslog and its dialects, journalctl's short forms, dmesg, /dev/kmsg, trace pipe.

Rule: layers come off from the left, each recognised by its pattern; what no pattern knows stays in the message. Only
the kernel's own tag or stamp makes a line trusted.
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
    r"\[pod/[^\]\s]+\] "  # kubectl logs --prefix; below: grep -H, -n, -A
    r"|[\w./-]{0,255}(?:log|messages|kern|journal)[\w.-]{0,64}?(?::(?:\d+:)?|-(?:\d+-)?)(?=[A-Z<\[12])"
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
_HOST = rf"(?P<host>(?!{_SEVERITY} )[^\s\[\]\"'=#*]*[^\s\[\]\"'=#*:])"
_KERNEL_TAG = re.compile(
    rf" (?:{_HOST} )?(?:{_SEVERITY} )?(?P<tag>kernel|vmunix)(?P<process>\[\d*\])?: ?"
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
_DMESG_ISO = re.compile(r"\S+T[\d:]+,\d{6}[+-]\S+")
_KMSG = re.compile(r"(?P<priority>\d{1,5}),\d+,(?P<us>\d+),[^;]*;")
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")
_REPEATED = re.compile(r" *message repeated (\d{1,9}) times: \[(?P<text>.*)", re.S)
_LEVEL_MARK = re.compile("<[0-7]>")


def text_frame(text: str, options: Options, anchor: datetime) -> Frame:
    """The frame of a line of plain text, without what wraps it."""
    if stamp := find_stamp(text, 0):
        return _repeated(_dated(text, stamp, options, anchor))
    return _kmsg(text) or _trace_pipe(text) or _repeated(_undated(text, options, anchor))


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
    match = _TRACE_PIPE.match(text) if "bpf_trace_printk: " in text else None
    if match is None:
        return None
    return Frame(None, float(match["uptime"]), None, "bpf_trace_printk", True, text[match.end() :], match.end())


def _undated(text: str, options: Options, anchor: datetime) -> Frame:
    """A line that does not begin with its date: something stands before it, or there is none."""
    position = match.end() if (match := _OUTER.match(text)) else 0
    from_kernel = True
    if match := _PRIORITY.match(text, position):
        from_kernel, position = int(match[1]) < 8, match.end()
    elif match := _DMESG_DECODED.match(text, position):
        from_kernel, position = match["facility"] == "kern", match.end()
    elif match := _SEVERITY_FIRST.match(text, position):
        position = match.end()
    if match := _NIL_TIME.match(text, position):
        return _header(text, match.end() - 1, None, _RFC5424)
    rfc5424 = text.startswith("1 ", position)
    stamp = find_stamp(text, position + 2 * rfc5424)
    if stamp is None:
        return _dmesg(text, position, from_kernel)
    return _dated(text, stamp, options, anchor, _RFC5424 if rfc5424 else _RFC5424_FILE, from_kernel=from_kernel)


def _dated(
    text: str,
    stamp: re.Match[str],
    options: Options,
    anchor: datetime,
    columns: re.Pattern[str] = _RFC5424_FILE,
    *,
    from_kernel: bool = True,
) -> Frame:
    """A line with its date: dmesg (a bracket or a comma gives it away) goes on with the message, syslog with a host."""
    time = instant(stamp[0], anchor, options.zone)
    if stamp[0][0] == "[" or _DMESG_ISO.fullmatch(stamp[0]):
        return stamped(text, stamp.end() + text.startswith(" ", stamp.end()), time, trusted=from_kernel)
    return _header(text, stamp.end(), time, columns)


def _dmesg(text: str, position: int, from_kernel: bool) -> Frame:
    """A line without a date: the kernel's stamp first (dmesg, or journalctl -o short-monotonic), or nothing at all."""
    stamp = _STAMP.match(text, position)
    if stamp is None:
        return Frame(None, None, None, None, None, text[position:], position)
    uptime = float(stamp["uptime"]) if stamp["uptime"] else None
    end, node, tag, trusted = stamp.end(), None, None, from_kernel
    header = _MONOTONIC.match(text, end)
    if header and (header["process"] or header["tag"] in KERNEL_TAGS):
        end, node, tag, trusted = header.end(), header["host"], header["tag"], not header["process"]
    return Frame(None, uptime, node, tag, trusted, text[end:], end)


def _header(text: str, position: int, time: datetime | None, columns: re.Pattern[str]) -> Frame:
    """What follows the date: host, tag, process id; each may be missing."""
    if match := columns.match(text, position):
        return _tagged(text, match, time, match["host"], match["app"], match["process"] != "-")
    if match := _KERNEL_TAG.match(text, position):
        tag = match["tag"] or match["tag2"]
        return _tagged(text, match, time, match["host"] or match["host2"], tag, bool(match["process"]))
    match = _TAG.match(text, position)
    # A word that stands right before the record is its prefix, whatever it looks like: `box IN-work: IN=`.
    if match and (match["process"] or not text.startswith("IN=", match.end())):
        return _tagged(text, match, time, match["host"], match["tag"], True)
    if match:
        return stamped(text, match.start("tag"), time, node=match["host"])
    if match := _HOST_ONLY.match(text, position):
        return stamped(text, match.end(), time, node=match["host"])
    return stamped(text, position + text.startswith(" ", position), time)


def _tagged(text: str, match: re.Match[str], time: datetime | None, host: str | None, tag: str, process: bool) -> Frame:
    """A line with a tag: the kernel has no process id, so `kernel[123]` is somebody else."""
    trusted = tag in KERNEL_TAGS and not process
    shown = (None if name == "-" else name for name in (host, tag))
    return stamped(text, match.end(), time, *shown, trusted=trusted)


def stamped(
    text: str,
    position: int,
    time: datetime | None,
    node: str | None = None,
    tag: str | None = None,
    *,
    trusted: bool | None = None,
) -> Frame:
    """The frame whose message is the rest of the text; the rest may begin with the kernel's stamp."""
    uptime = None
    if (stamp := _STAMP.match(text, position)) and stamp["uptime"]:
        uptime, position = float(stamp["uptime"]), stamp.end()
    return Frame(time, uptime, node, tag, trusted, text[position:], position)


def _repeated(found: Frame) -> Frame:
    """rsyslog's "message repeated n times: [text]" stands for n more messages; a kernel stamp may be in the text.

    The closing bracket is missing where a relay cut the line.
    """
    message = found.message
    if message.startswith("<") and (level := _LEVEL_MARK.match(message)):
        return replace(found, message=message[level.end() :], message_offset=found.message_offset + level.end())
    match = _REPEATED.match(message)
    if match is None:
        return found
    body = match["text"].rstrip().removesuffix("]")
    inner = stamped(body, len(body) - len(body.lstrip(" ")), found.time)
    return replace(
        found,
        uptime_s=inner.uptime_s,
        message=inner.message,
        message_offset=found.message_offset + match.start("text") + inner.message_offset,
        repeat_count=int(match[1]),
    )
