"""A packet in ArcSight's Common Event Format: a header of seven fields, then key=value pairs.

Rule: keys are those of the CEF dictionary with the types that it gives them; what it has no key for stands in the six
custom strings with their labels. In the header `|` and `\\` are escaped, in a value `=` and `\\` (Implementing ArcSight
CEF, revision 25, "Character Encoding"); line ends cannot occur, they were made escapes before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from importlib.metadata import version
from typing import Any

from analytics.values import harmless

Record = Mapping[str, Any]

SEVERITY = 5  # of 10: medium
_CLASSES = {False: ("denied", "Packet denied by network policy"), True: ("reply", "Reply after a denial")}


def header(record: Record) -> str:
    """`CEF:0|vendor|product|version|class|name|severity|`."""
    kind, name = _CLASSES[bool(record.get("follow_up"))]
    parts = ("CEF:0", "denylog", "denylog", version("denylog"), kind, name, str(SEVERITY))
    return "|".join(part.replace("\\", "\\\\").replace("|", "\\|") for part in parts) + "|"


def _milliseconds(time: datetime) -> int:
    return int(time.timestamp() * 1000)


# Key, column, and how the value is written. Addresses are typed by family in CEF: `src` and `dst` take IPv4, the
# device-custom addresses IPv6.
_PLAIN: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
    ("rt", "time", _milliseconds),
    ("dvchost", "node", str),
    ("proto", "protocol", str.upper),
    ("spt", "source_port", int),
    ("dpt", "destination_port", int),
    ("smac", "source_mac", str),
    ("dmac", "destination_mac", str),
    ("shost", "source_pod", str),
    ("dhost", "destination_pod", str),
    ("deviceInboundInterface", "in_interface", str),
    ("deviceOutboundInterface", "out_interface", str),
    ("deviceDirection", "direction", {"ingress": 0, "egress": 1}.get),
    ("cnt", "repeat_count", lambda count: max(count, 1)),
)
_CUSTOM = (
    ("cs1", "policy", ("policy_kind", "policy_namespace", "policy_name")),
    ("cs2", "prefix", ("prefix",)),
    ("cs3", "tcpFlags", ("tcp_flags",)),
    ("cs4", "sourceWorkload", ("source_namespace", "source_workload")),
    ("cs5", "destinationWorkload", ("destination_namespace", "destination_workload")),
    ("cs6", "deniedBy", ("denied_by",)),
)


def extension(record: Record, kernel: str) -> str:
    """The pairs of a packet; `kernel` is its text as the kernel prints it."""
    pairs = [*_pairs(record), *_custom(record), ("externalId", _line(record)), ("msg", kernel)]
    return " ".join(f"{key}={_escaped(str(value))}" for key, value in pairs if value not in (None, ""))


def _pairs(record: Record) -> Iterable[tuple[str, Any]]:
    yield "act", "reply" if record.get("follow_up") else "denied"
    for end, four, six in (("source", "src", "c6a2"), ("destination", "dst", "c6a3")):
        address = record.get(f"{end}_ip")
        if address is not None and ":" in address:
            yield six, address
            yield f"{six}Label", f"{end.capitalize()} IPv6 Address"
        else:
            yield four, address
    for key, column, form in _PLAIN:
        value = record.get(column)
        yield key, None if value is None else form(value)


def _custom(record: Record) -> Iterable[tuple[str, Any]]:
    for key, label, columns in _CUSTOM:
        values = [value for column in columns if (value := record.get(column))]
        text = "/".join(",".join(value) if isinstance(value, list | tuple) else str(value) for value in values)
        if text:
            yield key, text
            yield f"{key}Label", label


def _line(record: Record) -> str:
    """Which log line it was: the same for a message that comes twice."""
    return f"{record.get('source_file')}:{record.get('source_offset')}"


def _escaped(value: str) -> str:
    return harmless(value).replace("\\", "\\\\").replace("=", "\\=")
