"""What the Kubernetes API server refuses about a NetworkPolicy beyond its shape.

Rule: the checks are those of ValidateNetworkPolicySpec (Kubernetes, pkg/apis/networking/validation/validation.go). They
matter beyond their own sake: Calico's converter passes over a selector's unknown operator, a type in the wrong case or
an `except` outside its block without a word, and the policy then means something else.
"""

from __future__ import annotations

from collections.abc import Iterator

from policies.model import Direction
from policies.names import label_complaints, port_name_complaint, value_complaint
from policies.nets import parse_net
from policies.ports import MAX_PORT
from policies.rulecheck import Complaint
from policies.written import Document, items, labels, mapping, text

SIDES = (("ingress", "from"), ("egress", "to"))
_TYPES = tuple(direction.value for direction in Direction)
_PROTOCOLS = ("TCP", "UDP", "SCTP")
_NEEDS_VALUES = {"In": True, "NotIn": True, "Exists": False, "DoesNotExist": False}


def network_policy_complaints(spec: Document) -> Iterator[Complaint]:
    """What would be refused, by the path below `spec`."""
    yield from _below(("podSelector",), _selector(mapping(spec, "podSelector")))
    types = items(spec, "policyTypes")
    if len(types) > len(_TYPES):
        yield ("policyTypes",), f"more than {len(_TYPES)} types"
    for index, each in enumerate(types):
        if each not in _TYPES:
            yield ("policyTypes", index), f"{each!r} is not one of {', '.join(_TYPES)}"
    for name, peers in SIDES:
        for index, rule in enumerate(items(spec, name)):
            for number, port in enumerate(items(rule, "ports")):
                yield from _below((name, index, "ports", number), _port(port))
            for number, peer in enumerate(items(rule, peers)):
                yield from _below((name, index, peers, number), _peer(peer))


def _below(path: tuple[str | int, ...], found: Iterator[Complaint]) -> Iterator[Complaint]:
    return (((*path, *rest), message) for rest, message in found)


def _selector(selector: Document) -> Iterator[Complaint]:
    for key, complaint in label_complaints(labels(selector, "matchLabels")):
        yield ("matchLabels", key), complaint
    for index, wanted in enumerate(items(selector, "matchExpressions")):
        yield from _below(("matchExpressions", index), _requirement(wanted))


def _requirement(wanted: Document) -> Iterator[Complaint]:
    operator, values = text(wanted, "operator"), items(wanted, "values")
    for _, complaint in label_complaints(dict.fromkeys([text(wanted, "key")], "")):
        yield ("key",), complaint
    if operator not in _NEEDS_VALUES:
        yield ("operator",), f"{operator!r} is not one of {', '.join(_NEEDS_VALUES)}; Calico would pass over it"
    elif _NEEDS_VALUES[operator] != bool(values):
        yield ("values",), f"operator {operator} needs {'values' if _NEEDS_VALUES[operator] else 'no values'}"
    for number, value in enumerate(values):
        if wrong := value_complaint(value):
            yield ("values", number), wrong


def _port(port: Document) -> Iterator[Complaint]:
    protocol, number, last = port.get("protocol"), port.get("port"), port.get("endPort")
    if protocol is not None and protocol not in _PROTOCOLS:
        yield ("protocol",), f"{protocol!r} is not one of {', '.join(_PROTOCOLS)}"
    if isinstance(number, str) and (complaint := port_name_complaint(number)):
        yield ("port",), complaint
    if isinstance(number, int) and not 1 <= number <= MAX_PORT:
        yield ("port",), f"{number} is not between 1 and {MAX_PORT}"
    if last is not None and (not isinstance(number, int) or not number <= last <= MAX_PORT):
        yield ("endPort",), f"{last} is no end of a range that starts at port {number}"


def _peer(peer: Document) -> Iterator[Complaint]:
    selectors = [name for name in ("podSelector", "namespaceSelector") if peer.get(name) is not None]
    for name in selectors:
        yield from _below((name,), _selector(peer[name]))
    if peer.get("ipBlock") is None and not selectors:
        yield (), "an empty peer; name a podSelector, a namespaceSelector or an ipBlock"
    if peer.get("ipBlock") is not None:
        if selectors:
            yield ("ipBlock",), f"cannot stand beside {' and '.join(selectors)}"
        yield from _below(("ipBlock",), _exceptions(peer["ipBlock"]))


def _exceptions(block: Document) -> Iterator[Complaint]:
    for index, each in enumerate(items(block, "except")):
        try:
            whole, part = parse_net(text(block, "cidr")), parse_net(each)
        except ValueError:
            continue  # said elsewhere: an unreadable block lets everyone through
        if whole == part or whole.version != part.version or not part.subnet_of(whole):  # type: ignore[arg-type]
            yield ("except", index), f"{each} is no part of {text(block, 'cidr')}"
