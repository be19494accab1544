"""One line in, one outcome out: packet, not ours, reject with its reason and place, or a report of loss.

Rule: never an exception, whatever the bytes; what cannot be believed is a reject, never a guess.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from parser import prefix as prefixes
from parser.direction import direction
from parser.ebpf import trace_fields
from parser.frame import Frame, clean_frame, original
from parser.losses import loss
from parser.options import Options
from parser.outcome import FOREIGN_FORMAT, HEAD_CUT, NO_HEAD, NOT_FROM_THE_KERNEL, SPLICED, Other, Outcome, Reject
from parser.packet import Packet

HEAD = re.compile(r"IN=\S{0,15} (?:PHYSIN=\S{1,15} )?OUT=\S{0,15}(?= |$)")
"""Where a record begins. The prefix before it may hold anything, what follows it no such thing: the last one counts."""

LONGEST_PREFIX = 127
"""NF_LOG_PREFIXLEN - 1; what is longer before IN= is another record, or an unknown frame."""

_LAST_REPEATED = re.compile(r" *(?:--- )?last message repeated (\d{1,9}) times?(?: ---)?\s*\Z")
_HEAD_CUT = re.compile(r"(?:^|[ =])(?:PROTO=[A-Za-z0-9]+|SPT=\d+ DPT=\d+|WINDOW=\d+ RES=0x[0-9a-f]{2})(?: |$)")
_SECOND_RECORD = re.compile(
    r"\[ *\d+\.\d{6}\]|<\d{1,3}>(?:1 )?(?:[A-Z][a-z]{2} |\d{4}-)|(?<!^)\bkernel: "
    r"|IN=\S{0,15} OUT=\S{0,15} (?:PHYS|MAC=[0-9a-f]{2}:|MACSRC=|SRC=|ARP )"
)
_SHORT_PREFIX = 29
_PVE = re.compile(r"\d+ \d+ \S+ \d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4} ")
"""pve-firewall-logger's line (Proxmox): VM, level, chain, a date of its own."""

_CONTINUATION = re.compile(r".*<[0-7]>")
"""The kernel's own level mark inside a line: a record was printed into an unfinished one, and begins after the mark."""

_ENDING = 32
_ESCAPED_END = re.compile(r"(?:#0(?:00|12|15)|\^[M@J]|\\x0[0ad]|\\[nr])+\s*\Z")
"""How relays write the control characters that end a record received over the network."""


def parse(line: bytes | str, options: Options, *, anchor: datetime, previous: Packet | None = None) -> Outcome:
    """What one record means; `anchor` gives RFC 3164 stamps their year, `previous` is the packet of the line before.

    `anchor` must be aware. A record is a line without its newline, or one journal entry of several lines. Raises
    nothing, whatever the bytes.
    """
    text, found = clean_frame(line, options, anchor)
    outcome = _judge(found, options, previous)
    if isinstance(outcome, Reject):
        return replace(outcome, position=original(text, outcome.position))
    return outcome


def _judge(found: Frame, options: Options, previous: Packet | None) -> Outcome:
    if found.tag is None and (again := _LAST_REPEATED.match(found.message)):
        return _again(found, int(again[1]), previous)
    if report := loss(found, options):
        return report
    heads = [match.start() for match in HEAD.finditer(found.message)]
    if not heads:
        return _without_head(found, options)
    return _Record(found, heads[-1], options).judge()


def _again(found: Frame, count: int, previous: Packet | None) -> Outcome:
    """The old syslogd counts instead of writing a line again: n more of the packet before, at times unknown."""
    if previous is None or found.node not in (None, previous.node):
        return Other()
    return replace(previous, time=found.time, uptime_s=None, repeat_count=count)


def _without_head(found: Frame, options: Options) -> Outcome:
    believed = found.trusted or options.any_tag
    if believed and (fields := trace_fields(found.message)) is not None:
        return _packet(fields, found, None, options) if fields else Other()
    if not believed:
        return Other()
    if prefixes.match(found.message, replace(options, any_prefix=False)):
        return Reject(NO_HEAD, found.message_offset + len(found.message), "our prefix, but no IN= and OUT= after it")
    if options.any_prefix and (cut := _HEAD_CUT.search(found.message)):
        if _PVE.match(found.message):
            return Reject(FOREIGN_FORMAT, found.message_offset, "pve-firewall's own logger")
        return Reject(HEAD_CUT, found.message_offset, f"the record begins before {cut[0].strip(' =')!r}")
    return Other()


@dataclass(frozen=True, slots=True)
class _Record:
    """A message that holds IN= and OUT= at `head`."""

    found: Frame
    head: int
    options: Options

    def judge(self) -> Outcome:
        """Ours? From the kernel? One record, and a legal one?"""
        text = self._prefix_text()
        spliced = self._second_record(text)
        prefix = prefixes.match(text, self.options)
        if prefix is None:
            return self._stray(text, spliced)
        if not (self.found.trusted or self.options.any_tag):
            return Reject(NOT_FROM_THE_KERNEL, self.found.message_offset, self._writer())
        if spliced is not None:
            return Reject(SPLICED, self.found.message_offset + spliced, "one record only")
        if _PVE.match(self.found.message):
            return Reject(FOREIGN_FORMAT, self.found.message_offset, "pve-firewall's own logger")
        return self._body(prefix)

    def _prefix_text(self) -> str:
        text = self.found.message[: self.head]
        if continued := _CONTINUATION.match(text):
            text = text[continued.end() :]
        if not self.found.trusted:
            text = text[prefixes.find(text, self.options) or 0 :]
        return text

    def _writer(self) -> str:
        tag = self.found.tag
        return f"written by {tag!r}" if tag else "nothing says that the kernel wrote it"

    def _second_record(self, text: str) -> int | None:
        """Where another record shows before this one."""
        if len(text) <= _SHORT_PREFIX:
            return None
        match = _SECOND_RECORD.search(text)
        if match is None and len(text.encode()) <= LONGEST_PREFIX:
            return None
        return self.head - len(text) + (match.start() if match else 0)

    def _stray(self, text: str, spliced: int | None) -> Outcome:
        """Not ours by its beginning; but a record of ours may have been written into somebody else's line."""
        if spliced is None or prefixes.find(text, self.options) is None:
            return Other()
        return Reject(SPLICED, self.found.message_offset + spliced, "one record only")

    def _body(self, prefix: prefixes.Prefix) -> Outcome:
        body = self.found.message[self.head :]
        body = body[:-_ENDING] + _ESCAPED_END.sub("", body[-_ENDING:])
        body = body.rstrip() + " " * body[-1:].isspace()
        outcome = _read(body)
        if isinstance(outcome, Reject):
            return replace(outcome, position=self.found.message_offset + self.head + outcome.position)
        return _packet(outcome, self.found, prefix, self.options)


def _read(body: str) -> dict[str, Any] | Reject:
    from parser import grammar, verdict  # noqa: PLC0415 - pyparsing costs a tenth of a second; the fast path does without

    try:
        return grammar.read(body)
    except grammar.GrammarError as error:
        return verdict.reject(body, error.position, error.expected)


def _packet(fields: dict[str, Any], found: Frame, prefix: prefixes.Prefix | None, options: Options) -> Packet:
    inner = fields.pop("inner", None)
    packet = Packet(
        **fields,
        time=found.time,
        uptime_s=found.uptime_s,
        node=found.node,
        inner=Packet(**inner) if inner else None,
        repeat_count=found.repeat_count,
    )
    if "out_interface" in fields:
        way = direction(packet.in_interface, packet.out_interface, options.interface_prefix)
        packet = replace(packet, direction=way)
    if prefix is None:
        return packet
    return replace(
        packet,
        prefix=prefix.text,
        policy_tier=prefix.tier,
        policy_kind=prefix.kind,
        policy_namespace=prefix.namespace,
        policy_name=prefix.name,
        follow_up=prefix.follow_up,
    )
