"""Why a text is no netfilter record: the reason for the place where reading stopped.

Rule: the first row of the table whose pattern fits at that place is the reason; what no row knows is malformed.
"""

from __future__ import annotations

import re

from parser.outcome import BAD_ADDRESS, FOREIGN_FORMAT, MALFORMED, OUT_OF_RANGE, SPLICED, Reject
from parser.values import IPV4, IPV6, U8, U16, U32

_RECORD_BEGUN = re.compile(r"(?:TTL|HOPLIMIT)=\d+ ")
_RECORD_AGAIN = re.compile(
    r"(?:^|[^\w\[ ]|\w)(?:SRC|DST|TOS|TC|TTL|HOPLIMIT|IN|OUT)=\S|\[ *\d+\.\d{6}\]|\bkernel: |<\d{1,3}>"
    r"| (?:SRC|TOS|TC|TTL|HOPLIMIT)=\S"
)
_ADDRESS = re.compile(r"(?:SRC|DST|GATEWAY|IPSRC|IPDST|TUNNEL|IP SRC|IP DST|IPv6 SRC|IPv6 DST)=|->")
_LEGAL_ADDRESS = re.compile(rf"(?:{IPV4}|{IPV6})(?=[ ,-]|\Z)")
_COMPRESSED = re.compile(r"[0-9a-f:.]*::[0-9a-f:.]*(?: |\Z)")
_NUMBER = re.compile(
    r"(?P<name>[A-Za-z: ]+[=:])(?P<hex>0x)?(?P<digits>[0-9A-Fa-f]+)(?=[ ,]|\Z)|INCOMPLETE \[(?P<left>\d+)"
)
_LIMITS = {
    **dict.fromkeys(("TTL", "HOPLIMIT", "TC", "TYPE", "CODE", "PARAMETER", "PROTO", "IP proto", "Next Header"), U8),
    **dict.fromkeys(("ID", "SPT", "DPT", "WINDOW", "URGP", "MTU", "VID", "ARP HTYPE", "OPCODE", "FRAG"), U16),
    **dict.fromkeys(("SEQ", "ACK", "UID", "GID", "SPI", "MARK"), U32),
    "LEN": U16,
    "FLOWLBL": 0xFFFFF,
    "RES": 0x3C,
}
"""The largest number under each name; a larger one is the reason, a smaller one stands in the wrong place."""

_FOREIGN = re.compile(
    r"TOS=[0-9A-F]{2} "  # ulogd2 prints no 0x
    r"|MARK=(?!0x)[0-9a-f]+|PROTO=SCTP|FRAG: \d"  # ulogd2 util/printpkt.c
    r"|MACSRC=[0-9a-f]:|MACSRC=[0-9a-f]{2}:[0-9a-f]:|SPORT=|PKTTYPE="  # xtables-monitor
)


def reject(body: str, position: int, expected: str) -> Reject:
    """The reject for a body that left the grammar at `position`, where `expected` should have been."""
    rest = body[position:]
    return Reject(_reason(body, position, rest), position, f"expected {expected}, found {rest[:40]!r}")


def _reason(body: str, position: int, rest: str) -> str:
    if _FOREIGN.match(rest):
        return FOREIGN_FORMAT
    if _RECORD_BEGUN.search(body, 0, position) and _RECORD_AGAIN.search(rest):
        return SPLICED
    if address := _ADDRESS.match(rest):
        return _address_reason(rest[address.end() :])
    return OUT_OF_RANGE if _too_large(rest) else MALFORMED


def _too_large(rest: str) -> bool:
    match = _NUMBER.match(rest)
    if match is None:
        return False
    if match["left"]:
        return len(match["left"]) > 10 or int(match["left"]) > U32
    limit = _LIMITS.get(match["name"].rstrip("=:"))
    digits = match["digits"].lstrip("0") or "0"
    if limit is None or not (match["hex"] or digits.isdecimal()):
        return False
    return len(digits) > 20 or int(digits, 16 if match["hex"] else 10) > limit


def _address_reason(value: str) -> str:
    if _COMPRESSED.match(value):
        return FOREIGN_FORMAT
    return MALFORMED if _LEGAL_ADDRESS.match(value) else BAD_ADDRESS
