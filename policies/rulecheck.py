"""Whether Calico accepts one rule of a policy.

Rule: the union of both layers that judge it, validateRule and validateEntityRule in
libcalico-go/lib/validator/v3/validator.go and the schema and CEL rules of the CRDs (api/config/crd).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal, TypeAlias

from policies.errors import PathStep, SelectorError
from policies.model import PROTOCOL_NUMBERS, NamedPort, Port, Protocol
from policies.names import annotation_complaints, port_name_complaint, subdomain_complaint
from policies.nets import parse_net_or_address
from policies.ports import all_named, has_ports, parse_port, parse_protocol
from policies.selector import parse
from policies.written import Document, items, labels, mapping, text

Path: TypeAlias = tuple[PathStep, ...]
Complaint: TypeAlias = tuple[Path, str]
GlobalIs: TypeAlias = Literal["forbidden", "alone", "unchecked"]

MAX_SELECTOR = 1024
MAX_PORTS = 50
MAX_NETS = 256
MAX_HTTP = 20
ACTIONS = ("Allow", "Deny", "Log", "Pass")
SIDES = ("source", "destination")

_PORTS_NEED_PROTOCOL = "rules that specify ports must set protocol to TCP or UDP or SCTP"
_NUMBERS_NEED_PROTOCOL = "rules with numeric port or port range must set protocol to TCP or UDP or SCTP"
_GLOBAL_ALONE = re.compile(r"[ \t]*global\([ \t]*\)[ \t]*")
_ICMP_FAMILIES = (("ICMP", 1, 4), ("ICMPv6", 58, 6))


def rule_complaints(rule: Document, *, egress: bool) -> Iterator[Complaint]:
    """Everything Calico would say about the rule, with paths below it."""
    for check in _CHECKS:
        yield from check(rule)
    for side in SIDES:
        yield from _below(side, _entity_complaints(mapping(rule, side)))
    yield from _below("metadata", _annotations(mapping(rule, "metadata")))
    forbidden = "source" if egress else "destination"
    if mapping(rule, forbidden).get("services") is not None:
        yield (forbidden, "services"), f"not allowed in {'egress' if egress else 'ingress'} rule {forbidden}"
    if egress and rule.get("http") is not None:
        yield ("http",), "not allowed in egress rules"


def selector_complaint(selector: str, global_is: GlobalIs = "forbidden", longest: float = MAX_SELECTOR) -> str | None:
    """What is wrong with a selector; a rule's namespaceSelector may be `global()`, and nothing but that."""
    if len(selector) > longest:
        return f"longer than {longest} characters"
    if "global(" in selector and global_is == "forbidden":
        return "global() can only be used in an EntityRule namespaceSelector"
    if "global(" in selector and global_is == "alone" and not _GLOBAL_ALONE.fullmatch(selector):
        return "global() cannot be combined with other selectors"
    try:
        parse(selector)
    except SelectorError as error:
        return str(error)
    return None


def _below(name: PathStep, complaints: Iterable[Complaint]) -> Iterator[Complaint]:
    return (((name, *path), message) for path, message in complaints)


# -- the rule itself -------------------------------------------------------------------------------------------------


def _action(rule: Document) -> Iterator[Complaint]:
    if text(rule, "action") not in ACTIONS:
        yield ("action",), f"{text(rule, 'action')!r} is not one of {', '.join(ACTIONS)}"


def _ip_version(rule: Document) -> Iterator[Complaint]:
    version = rule.get("ipVersion")
    if version is not None and version not in (4, 6):
        yield ("ipVersion",), f"{version} is not 4 or 6"


def _protocols(rule: Document) -> Iterator[Complaint]:
    for field in ("protocol", "notProtocol"):
        protocol = _protocol(rule, field)
        if protocol == 0:
            yield (field,), "protocol number invalid"
        elif isinstance(protocol, str) and protocol not in PROTOCOL_NUMBERS:
            yield (field,), f"protocol name invalid: {protocol!r} is not one of {', '.join(PROTOCOL_NUMBERS)}"


def _protocol(rule: Document, field: str = "protocol") -> Protocol | None:
    return None if rule.get(field) is None else parse_protocol(rule[field])


def _icmp(rule: Document) -> Iterator[Complaint]:
    for field in ("icmp", "notICMP"):
        icmp = mapping(rule, field)
        for name, most in (("type", 254), ("code", 255)):
            if icmp.get(name) is not None and not 0 <= icmp[name] <= most:
                yield (field, name), f"{icmp[name]} is not between 0 and {most}"
        if icmp.get("code") is not None and icmp.get("type") is None:
            yield (field, "code"), "ICMP code specified without an ICMP type"
    if rule.get("icmp") is not None and _protocol(rule) not in ("ICMP", "ICMPv6", 1, 58):
        yield ("icmp",), "ICMP fields require protocol to be ICMP or ICMPv6"


def _icmp_family(rule: Document) -> Iterator[Complaint]:
    for field in ("protocol", "notProtocol"):
        for name, number, version in _ICMP_FAMILIES:
            if _protocol(rule, field) in (name, number) and rule.get("ipVersion") not in (None, version):
                yield ("ipVersion",), f"protocol {name} requires ipVersion {version}"


def _http(rule: Document) -> Iterator[Complaint]:
    if rule.get("http") is None:
        return
    methods, paths = items(rule["http"], "methods"), items(rule["http"], "paths")
    if text(rule, "action") != "Allow":
        yield ("http",), "HTTP match is only valid on Allow rules"
    if _protocol(rule) not in (None, "TCP", 6):
        yield ("http",), "rules with HTTP match must have protocol TCP or unset"
    if len(set(methods)) != len(methods):
        yield ("http", "methods"), "a method is listed twice"
    for name, listed in (("methods", methods), ("paths", paths)):
        if len(listed) > MAX_HTTP:
            yield ("http", name), f"more than {MAX_HTTP} entries"
    for index, path in enumerate(paths):
        yield from _below("http", _below("paths", _below(index, _http_path(path))))


def _http_path(path: Document) -> Iterator[Complaint]:
    exact, prefix = text(path, "exact"), text(path, "prefix")
    value = exact or prefix
    if bool(exact) == bool(prefix):
        yield (), "exactly one of 'exact' and 'prefix' must be set"
    elif not value.startswith("/") or any(each in value for each in "? #") or len(value) > MAX_SELECTOR:
        yield (), f"invalid path {value!r}: it must start with '/' and hold no '?', '#' or blank"


def _ports_and_protocol(rule: Document) -> Iterator[Complaint]:
    protocol = _protocol(rule)
    if has_ports(protocol):
        return
    for side, field in _port_fields():
        ports = _ports(mapping(rule, side), field)
        if ports and protocol is not None:
            yield (side, field), _PORTS_NEED_PROTOCOL
        elif not all_named(ports):
            yield (side, field), _NUMBERS_NEED_PROTOCOL


def _port_fields() -> Iterator[tuple[str, str]]:
    return ((side, field) for side in SIDES for field in ("ports", "notPorts"))


def _ports(entity: Document, field: str) -> list[Port]:
    return [parse_port(port) for port in items(entity, field) if port != {}]


def _families(rule: Document) -> Iterator[Complaint]:
    """Networks of one family in the whole rule, that of `ipVersion` where it is set."""
    seen: set[int] = set()
    for side in SIDES:
        for field in ("nets", "notNets"):
            versions = {version for net in items(mapping(rule, side), field) if (version := _version(net))}
            if rule.get("ipVersion") is not None and versions - {rule["ipVersion"]}:
                yield (side, field), "rule IP version doesn't match CIDR version"
            if len(versions) > 1 or (versions and seen - versions):
                yield (side, field), "rule contains both IPv4 and IPv6 CIDRs"
            seen |= versions


def _version(net: str) -> int | None:
    try:
        return parse_net_or_address(net)[1].version
    except ValueError:
        return None


def _services_and_ports(rule: Document) -> Iterator[Complaint]:
    destination = mapping(rule, "destination")
    if destination.get("services") is not None and (items(destination, "ports") or items(destination, "notPorts")):
        yield ("destination",), "ports and notPorts cannot be specified with services"


_CHECKS: tuple[Callable[[Document], Iterator[Complaint]], ...] = (
    _action,
    _ip_version,
    _protocols,
    _icmp,
    _icmp_family,
    _http,
    _ports_and_protocol,
    _families,
    _services_and_ports,
)


# -- source and destination ------------------------------------------------------------------------------------------


_ENTITY_SELECTORS: Mapping[str, GlobalIs] = {
    "selector": "forbidden",
    "notSelector": "unchecked",  # neither layer looks for global() here
    "namespaceSelector": "alone",
}


def _entity_complaints(entity: Document) -> Iterator[Complaint]:
    for field, global_is in _ENTITY_SELECTORS.items():
        if complaint := selector_complaint(text(entity, field), global_is):
            yield (field,), complaint
    yield from _nets_complaints(entity)
    yield from _port_complaints(entity)
    yield from _accounts_complaints(mapping(entity, "serviceAccounts"))
    if entity.get("services") is not None:
        yield from _service_complaints(entity)


def _nets_complaints(entity: Document) -> Iterator[Complaint]:
    for field in ("nets", "notNets"):
        nets = items(entity, field)
        if len(nets) > MAX_NETS:
            yield (field,), f"more than {MAX_NETS} networks"
        for index, net in enumerate(nets):
            if complaint := _net_complaint(net, negated=field == "notNets"):
                yield (field, index), complaint


def _net_complaint(written: str, *, negated: bool) -> str | None:
    try:
        address, net = parse_net_or_address(written)
    except ValueError as error:
        return str(error)
    if "/" not in written:
        return f"invalid CIDR: write {net}"
    if address != net.network_address:
        return f"{written} is not strictly masked: write {net}"
    # Of IPv4 Calico compares the text (validateRule, scanNets).
    if negated and net.prefixlen == 0 and (net.version == 6 or written == "0.0.0.0/0"):
        return "catch-all CIDR in negation creates logical contradiction (matches no traffic)"
    return None


def _port_complaints(entity: Document) -> Iterator[Complaint]:
    for field in ("ports", "notPorts"):
        ports = _ports(entity, field)
        if len(ports) > MAX_PORTS:
            yield (field,), f"more than {MAX_PORTS} ports"
        for index, port in enumerate(ports):
            if isinstance(port, NamedPort):
                complaint = port_name_complaint(port.name)
            else:
                complaint = None if port.first else "port number must be between 1 and 65535"
            if complaint:
                yield (field, index), complaint


def _accounts_complaints(accounts: Document) -> Iterator[Complaint]:
    # Neither layer looks at `names` (policy_common.go, ServiceAccountMatch).
    if complaint := selector_complaint(text(accounts, "selector"), "unchecked", math.inf):
        yield ("serviceAccounts", "selector"), complaint


_BESIDE_SERVICES: Mapping[str, tuple[str, ...]] = {
    "NamespaceSelector": ("namespaceSelector",),
    "Selector/NotSelector": ("selector", "notSelector"),
    "Nets/NotNets": ("nets", "notNets"),
}


def _service_complaints(entity: Document) -> Iterator[Complaint]:
    services = entity["services"]
    if not text(services, "name"):
        yield ("services",), "services must specify a service name"
    for field in ("name", "namespace"):
        if text(services, field) and (complaint := subdomain_complaint(text(services, field))):
            yield ("services", field), complaint
    for words, fields in _BESIDE_SERVICES.items():
        if any(entity.get(field) for field in fields):
            yield ("services",), f"cannot specify {words} and Services on the same rule"
    if entity.get("serviceAccounts") is not None:
        yield ("services",), "cannot specify ServiceAccounts and Services on the same rule"


def _annotations(metadata: Document) -> Iterator[Complaint]:
    for key, complaint in annotation_complaints(labels(metadata, "annotations")):
        yield ("annotations", key) if key else ("annotations",), complaint
