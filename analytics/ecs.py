"""A packet in the words of the Elastic Common Schema: one nested JSON object, ready for Elasticsearch.

Rule: names come from `FIELDS.ecs`; what ECS has no name for stands under `iptables`, the namespace of Elastic's own
integration for these log lines. Values take the form that the ECS reference asks for (version 8.17).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from parser import FIELDS

ECS_VERSION = "8.17.0"

# ECS "network.direction": host-based monitors use ingress and egress; a packet of the node itself is neither.
_DIRECTION = {"ingress": "ingress", "egress": "egress", "host": "unknown"}
_TYPE = {4: "ipv4", 6: "ipv6"}
# ECS "network.transport" takes IANA's keywords.
_TRANSPORT = {"icmpv6": "ipv6-icmp"}


def _mac(text: str) -> str:
    """RFC 7042 form, as ECS asks for: upper case, with hyphens."""
    return text.upper().replace(":", "-")


_FORM: dict[str, Callable[[Any], Any]] = {
    "network.direction": _DIRECTION.get,
    "network.type": _TYPE.get,
    "network.transport": lambda text: _TRANSPORT.get(text, text),
    "network.vlan.id": str,
    "source.mac": _mac,
    "destination.mac": _mac,
    "user.id": str,
    "group.id": str,
}
_NAMES = {field.name: field.ecs or f"iptables.{field.name}" for field in FIELDS}


def event(record: Mapping[str, Any]) -> dict[str, Any]:
    """The ECS document of one row (JSON-ready values by column name); columns that are not a packet's stand under
    `denylog`."""
    kind = "info" if record.get("follow_up") else "denied"
    document: dict[str, Any] = {"ecs": {"version": ECS_VERSION}}
    document["event"] = {
        "kind": "event",
        "category": ["network"],
        "type": ["connection", kind],
        "dataset": "denylog.packet",
    }
    for name, value in record.items():
        if value is not None:
            path = _NAMES.get(name, f"denylog.{name}")
            _put(document, path, _FORM.get(path, lambda same: same)(value))
    if "repeat_count" in record:
        _put(document, "network.packets", max(record["repeat_count"] or 0, 1))
    return document


def _put(document: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        document = document.setdefault(parent, {})
    document[last] = value
