"""Whether Calico, and for Kubernetes objects the API server, would accept what is written.

Rule: an object is valid here exactly where both layers of Calico accept it: decoding (`policies.shapes`), the Go
validator (libcalico-go/lib/validator/v3/validator.go), and schema and CEL rules of the CRDs (api/config/crd).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from policies import convert
from policies.errors import PathStep, Problem
from policies.fields import CALICO, STORED
from policies.kubecheck import SIDES, network_policy_complaints
from policies.load import Found, is_kubernetes
from policies.model import Direction, StagedAction
from policies.names import (
    annotation_complaints,
    label_complaints,
    name_complaint,
    port_name_complaint,
    subdomain_complaint,
)
from policies.nets import parse_address, parse_cidr, parse_net_or_address
from policies.ports import has_ports
from policies.rulecheck import Complaint, rule_complaints, selector_complaint
from policies.written import Document, Written, items, labels, mapping, text

MAX_RULES = 1024
TYPES = tuple(direction.value for direction in Direction)
STAGED_ACTIONS = tuple(action.value for action in StagedAction)
HINTS = ("AssumeNeededOnEveryNode",)
_TIERS: Mapping[str, tuple[float, str]] = {
    "default": (1_000_000, "Deny"),
    "kube-admin": (1_000, "Pass"),
    "kube-baseline": (10_000_000, "Pass"),
}
"""Order and default action that the tiers of Calico itself must have."""


def validate(found: Found) -> tuple[Problem, ...]:
    """All problems of a load: what could not be decoded, then what would be refused, object by object."""
    return (*found.problems, *(problem for written in found.objects for problem in complaints(written)))


def complaints(written: Written) -> Iterator[Problem]:
    """Everything that would be refused about one object."""
    checks: list[Check] = [_metadata, _kubernetes] if is_kubernetes(written) else []
    if written.kind.group in (CALICO, STORED):
        checks = [*(checks or [_metadata]), *_BY_KIND[written.kind.name]]
    for check in checks:
        for path, message in check(written):
            yield written.problem("invalid", path, message)


def _metadata(written: Written) -> Iterator[Complaint]:
    kind = written.kind.name if written.kind.group in (CALICO, STORED) else ""
    if complaint := name_complaint(kind, written.name):
        yield ("metadata", "name"), complaint
    for key, complaint in label_complaints(labels(written.metadata, "labels")):
        yield ("metadata", "labels", key), complaint
    for key, complaint in annotation_complaints(labels(written.metadata, "annotations")):
        yield ("metadata", "annotations", key) if key else ("metadata", "annotations"), complaint


# -- Calico policies -------------------------------------------------------------------------------------------------


def _policy(written: Written) -> Iterator[Complaint]:
    for complaints_of in (_selectors, _types, _hints, _tier_of, _rules):
        for path, message in complaints_of(written.spec):
            yield ("spec", *path), message


def _selectors(spec: Document) -> Iterator[Complaint]:
    for field in ("selector", "namespaceSelector", "serviceAccountSelector"):
        if complaint := selector_complaint(text(spec, field)):
            yield (field,), complaint


def _types(spec: Document) -> Iterator[Complaint]:
    types = items(spec, "types")
    for index, each in enumerate(types):
        if each not in TYPES:
            yield ("types", index), f"{each!r} is not one of {', '.join(TYPES)}"
        elif each in types[:index]:
            yield ("types", index), f"{each!r} type specified more than once"


def _hints(spec: Document) -> Iterator[Complaint]:
    hints = items(spec, "performanceHints")
    for index, hint in enumerate(hints):
        if hint not in HINTS:
            yield ("performanceHints", index), f"{hint!r} is not one of {', '.join(HINTS)}"
        elif hint in hints[:index]:
            yield ("performanceHints", index), f"{hint!r} is listed twice"


def _tier_of(spec: Document) -> Iterator[Complaint]:
    if text(spec, "tier") and (complaint := subdomain_complaint(text(spec, "tier"))):
        yield ("tier",), complaint


def _rules(spec: Document) -> Iterator[Complaint]:
    for name in ("ingress", "egress"):
        rules = items(spec, name)
        if len(rules) > MAX_RULES:
            yield (name,), f"more than {MAX_RULES} rules"
        for index, rule in enumerate(rules):
            for path, message in rule_complaints(rule, egress=name == "egress"):
                yield (name, index, *path), message


def _global(written: Written) -> Iterator[Complaint]:
    spec = written.spec
    before_nat, untracked = bool(spec.get("preDNAT")), bool(spec.get("doNotTrack"))
    if before_nat and untracked:
        yield ("spec", "preDNAT"), "preDNAT and doNotTrack cannot both be true"
    if before_nat and items(spec, "egress"):
        yield ("spec", "egress"), "preDNAT policy cannot have any egress rules"
    if before_nat and "Egress" in items(spec, "types"):
        yield ("spec", "types"), "preDNAT policy cannot have 'Egress' type"
    if (before_nat or untracked) and not spec.get("applyOnForward"):
        yield ("spec",), "applyOnForward must be true if either preDNAT or doNotTrack is true"
    yield from _service_namespaces(spec)


def _service_namespaces(spec: Document) -> Iterator[Complaint]:
    for name, side in (("egress", "destination"), ("ingress", "source")):
        for index, rule in enumerate(items(spec, name)):
            services = mapping(rule, side).get("services")
            if services is not None and not text(services, "namespace"):
                yield ("spec", name, index, side, "services"), "must specify a namespace"


def _staged(written: Written) -> Iterator[Complaint]:
    action = text(written.spec, "stagedAction")
    if action and action not in STAGED_ACTIONS:
        yield ("spec", "stagedAction"), f"{action!r} is not one of {', '.join(STAGED_ACTIONS)}"
    kept = ("stagedAction",) if written.kind.name == "StagedKubernetesNetworkPolicy" else ("stagedAction", "tier")
    filled = [name for name, value in written.spec.items() if name not in kept and not _is_zero(value)]
    if action == "Delete" and filled:
        yield ("spec", filled[0]), "Spec fields, except Tier, should all be zero-value if stagedAction is Delete"


def _is_zero(value: object) -> bool:
    """Go's zero value after decoding; an order of 0 is a pointer to 0, an empty list is not nil, a struct may be {}."""
    return value is None or value is False or value in ("", {})


# -- tiers, endpoints, sets ------------------------------------------------------------------------------------------


def _tier(written: Written) -> Iterator[Complaint]:
    action, order = text(written.spec, "defaultAction") or "Deny", written.spec.get("order")
    if action not in ("Pass", "Deny"):
        yield ("spec", "defaultAction"), f"{action!r} is not one of Pass, Deny"
    if written.name in _TIERS:
        wanted_order, wanted_action = _TIERS[written.name]
        if order != wanted_order:
            yield ("spec", "order"), f"{written.name} tier order must be {wanted_order:.0f}"
        if action != wanted_action:
            yield ("spec", "defaultAction"), f"the {written.name!r} tier must have default action {wanted_action!r}"


def _host_endpoint(written: Written) -> Iterator[Complaint]:
    spec = written.spec
    interface = text(spec, "interfaceName")
    if not interface and not items(spec, "expectedIPs"):
        yield ("spec",), "no interface or expected IPs have been specified"
    if interface not in ("", "*") and not _is_interface(interface):
        yield ("spec", "interfaceName"), f"{interface!r} is no interface: at most 15 letters, digits, '_', '.' and '-'"
    if not text(spec, "node"):
        yield ("spec",), "no node has been specified"
    for field, complain in (("expectedIPs", _address_complaint), ("profiles", subdomain_complaint)):
        yield from _each(spec, field, complain)
    for index, port in enumerate(items(spec, "ports")):
        yield from ((("spec", "ports", index), message) for message in _endpoint_port(port))


def _is_interface(name: str) -> bool:
    return len(name) <= 15 and all(each.isascii() and (each.isalnum() or each in "_.-") for each in name)


def _endpoint_port(port: Document) -> Iterator[str]:
    if complaint := port_name_complaint(text(port, "name")):
        yield complaint
    if not has_ports(port.get("protocol")):
        yield "protocol must be TCP, UDP or SCTP"
    if not 1 <= (port.get("port") or 0) <= 65535:
        yield "port must be between 1 and 65535"


def _address_complaint(written: str) -> str | None:
    return _complaint_of(parse_address, written)


def _net_complaint(written: str) -> str | None:
    return _complaint_of(parse_net_or_address, written)


def _complaint_of(parse: Callable[[str], object], written: str) -> str | None:
    try:
        parse(written)
    except ValueError as error:
        return str(error)
    return None


def _each(spec: Document, field: str, complain: Callable[[str], str | None]) -> Iterator[Complaint]:
    for index, value in enumerate(items(spec, field)):
        if complaint := complain(value):
            yield ("spec", field, index), complaint


def _network_set(written: Written) -> Iterator[Complaint]:
    if "projectcalico.org/namespace" in labels(written.metadata, "labels"):
        yield ("metadata", "labels"), "projectcalico.org/namespace is not a valid label name"
    yield from _each(written.spec, "nets", _net_complaint)


# -- Kubernetes ------------------------------------------------------------------------------------------------------


def _kubernetes(written: Written) -> Iterator[Complaint]:
    yield from _cidrs(written.spec)
    try:
        policy = convert.to_calico(written)
    except ValueError as refused:
        yield ("metadata", "uid"), str(refused)
        return
    if policy is None:
        yield ("spec",), "tier must be Admin or Baseline, and the subject must name namespaces or pods"
    for error in policy.errors if policy else ():
        yield ("spec",), f"Calico cannot convert the rule {error}"
    if written.kind.group == "networking.k8s.io":
        for path, message in network_policy_complaints(written.spec):
            yield ("spec", *path), message


def _cidrs(spec: Document) -> Iterator[Complaint]:
    for name, peers in SIDES:
        for index, rule in enumerate(items(spec, name)):
            for number, peer in enumerate(items(rule, peers)):
                for path, cidr in _block_cidrs(mapping(peer, "ipBlock")):
                    if complaint := _complaint_of(parse_cidr, cidr):
                        yield ("spec", name, index, peers, number, "ipBlock", *path), complaint


def _block_cidrs(block: Document) -> Iterator[tuple[tuple[PathStep, ...], str]]:
    if block:
        yield ("cidr",), text(block, "cidr")
        yield from ((("except", index), each) for index, each in enumerate(items(block, "except")))


Check = Callable[[Written], Iterator[Complaint]]
_BY_KIND: Mapping[str, list[Check]] = {
    "NetworkPolicy": [_policy],
    "GlobalNetworkPolicy": [_policy, _global],
    "StagedNetworkPolicy": [_staged, _policy],
    "StagedGlobalNetworkPolicy": [_staged, _policy, _global],
    "StagedKubernetesNetworkPolicy": [_staged],
    "Tier": [_tier],
    "HostEndpoint": [_host_endpoint],
    "NetworkSet": [_network_set],
    "GlobalNetworkSet": [_network_set],
}
