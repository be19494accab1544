"""Written objects to the model: Calico policies, and everything that says what exists.

Rule: a value that the model cannot hold is a `Problem` at its place, and the object is left out. Whether Calico would
accept a policy is another question (`policies.validate`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any, TypeVar

from policies.errors import PathStep, PolicyError, Problem
from policies.fields import STORED
from policies.model import (
    Action,
    Address,
    Direction,
    EndpointPort,
    EntityRule,
    HostEndpoint,
    Http,
    HttpPath,
    Icmp,
    Labels,
    Namespace,
    Network,
    NetworkSet,
    Pod,
    Policy,
    PolicyKind,
    Rule,
    Service,
    ServiceAccount,
    ServiceAccountMatch,
    ServiceMatch,
    ServicePort,
    StagedAction,
    Tier,
)
from policies.nets import parse_address, parse_net_or_address
from policies.ports import parse_port, parse_protocol
from policies.written import Document, Written, items, labels, mapping, text

Choice = TypeVar("Choice", bound=StrEnum)
Read = TypeVar("Read")


class _Fields:
    """The fields of one object, read with their paths, so that a bad value is reported where it stands."""

    def __init__(self, written: Written) -> None:
        self.written = written
        self.problems: list[Problem] = []

    def read(self, path: tuple[PathStep, ...], value: Any, parse: Callable[[Any], Read], default: Read) -> Read:
        """The parsed value; a ValueError of `parse` becomes a problem and gives the default."""
        try:
            return parse(value)
        except ValueError as error:
            self.problems.append(self.written.problem("value", path, str(error)))
            return default

    def each(self, path: tuple[PathStep, ...], values: Iterable[Any], parse: Callable[[Any], Read]) -> tuple[Read, ...]:
        """The parsed values of a list; bad ones become problems."""
        read = (self.read((*path, index), value, parse, None) for index, value in enumerate(values))
        return tuple(value for value in read if value is not None)

    def finish(self, built: Read) -> Read:
        if self.problems:
            raise PolicyError(self.problems)
        return built


def _choice(kind: type[Choice]) -> Callable[[Any], Choice]:
    def parse(value: Any) -> Choice:
        try:
            return kind(value)
        except ValueError:
            allowed = ", ".join(each.value for each in kind)
            raise ValueError(f"{value!r} is not one of {allowed}" if value else f"missing; one of {allowed}") from None

    return parse


def _net(value: str) -> Network:
    return parse_net_or_address(value)[1]


# -- policies --------------------------------------------------------------------------------------------------------


def policy(written: Written) -> Policy:
    """A Calico policy, staged or not, with the defaults of the API applied. Raises PolicyError."""
    fields, spec = _Fields(written), written.spec
    staged = written.kind.name.startswith("Staged")
    given = fields.each(("spec", "types"), items(spec, "types"), _choice(Direction))
    tier = text(spec, "tier") or "default"
    return fields.finish(
        Policy(
            kind=PolicyKind(written.kind.name),
            name=_name(written, tier),
            namespace=written.namespace,
            tier=tier,
            order=None if spec.get("order") is None else float(spec["order"]),
            selector=text(spec, "selector"),
            namespace_selector=text(spec, "namespaceSelector"),
            service_account_selector=text(spec, "serviceAccountSelector"),
            types=given or default_types(written),
            ingress=_rules(fields, "ingress"),
            egress=_rules(fields, "egress"),
            apply_on_forward=bool(spec.get("applyOnForward")),
            do_not_track=bool(spec.get("doNotTrack")),
            pre_dnat=bool(spec.get("preDNAT")),
            performance_hints=tuple(items(spec, "performanceHints")),
            staged_action=_staged_action(fields) if staged else None,
            uid=text(written.metadata, "uid"),
            labels=object_labels(written),
            annotations=labels(written.metadata, "annotations"),
            source=written.source,
        )
    )


def default_types(written: Written) -> tuple[Direction, ...]:
    """`types` where none are written: api/pkg/defaults/networkpolicy.go; both for an object read from the store."""
    ingress, egress = bool(items(written.spec, "ingress")), bool(items(written.spec, "egress"))
    if written.kind.group == STORED or (ingress and egress):
        return tuple(Direction)
    return (Direction.EGRESS,) if egress else (Direction.INGRESS,)


def _name(written: Written, tier: str) -> str:
    """Releases before 3.32 store a policy as `<tier>.<name>`."""
    return written.name.removeprefix(f"{tier}.") if written.kind.group == STORED else written.name


def _staged_action(fields: _Fields) -> StagedAction:
    value = text(fields.written.spec, "stagedAction") or StagedAction.SET
    return fields.read(("spec", "stagedAction"), value, _choice(StagedAction), StagedAction.SET)


def _rules(fields: _Fields, name: str) -> tuple[Rule, ...]:
    return tuple(
        _rule(fields, ("spec", name, index), rule) for index, rule in enumerate(items(fields.written.spec, name))
    )


def _rule(fields: _Fields, path: tuple[PathStep, ...], rule: Document) -> Rule:
    return Rule(
        action=fields.read((*path, "action"), text(rule, "action"), _choice(Action), Action.DENY),
        ip_version=rule.get("ipVersion"),
        protocol=None if rule.get("protocol") is None else parse_protocol(rule["protocol"]),
        not_protocol=None if rule.get("notProtocol") is None else parse_protocol(rule["notProtocol"]),
        icmp=_icmp(rule.get("icmp")),
        not_icmp=_icmp(rule.get("notICMP")),
        http=_http(rule.get("http")),
        source=_entity(fields, (*path, "source"), mapping(rule, "source")),
        destination=_entity(fields, (*path, "destination"), mapping(rule, "destination")),
        annotations=labels(mapping(rule, "metadata"), "annotations"),
        place=fields.written.place(*path),
    )


def _icmp(icmp: Document | None) -> Icmp | None:
    return None if icmp is None else Icmp(icmp.get("type"), icmp.get("code"))


def _http(http: Document | None) -> Http | None:
    if http is None:
        return None
    return Http(tuple(items(http, "methods")), tuple(map(_path, items(http, "paths"))))


def _path(path: Document) -> HttpPath:
    prefix = text(path, "prefix")
    return HttpPath(prefix or text(path, "exact"), bool(prefix))


def _entity(fields: _Fields, path: tuple[PathStep, ...], entity: Document) -> EntityRule:
    services = entity.get("services")
    return EntityRule(
        nets=fields.each((*path, "nets"), items(entity, "nets"), _net),
        not_nets=fields.each((*path, "notNets"), items(entity, "notNets"), _net),
        selector=text(entity, "selector"),
        not_selector=text(entity, "notSelector"),
        namespace_selector=text(entity, "namespaceSelector"),
        ports=tuple(map(parse_port, items(entity, "ports"))),
        not_ports=tuple(map(parse_port, items(entity, "notPorts"))),
        service_accounts=_accounts(mapping(entity, "serviceAccounts")),
        services=None if services is None else ServiceMatch(text(services, "name"), text(services, "namespace")),
    )


def _accounts(accounts: Document) -> ServiceAccountMatch | None:
    """Without names and selector it asks for nothing, as if it were not there (rules.go, parseServiceAccounts)."""
    match = ServiceAccountMatch(names=tuple(items(accounts, "names")), selector=text(accounts, "selector"))
    return match if match.names or match.selector else None


# -- what exists -----------------------------------------------------------------------------------------------------


def object_labels(written: Written) -> Labels:
    """Own labels; older releases store those of Calico objects in an annotation (`projectcalico.org/metadata`)."""
    own = labels(written.metadata, "labels")
    kept = labels(written.metadata, "annotations").get("projectcalico.org/metadata")
    if written.kind.group != STORED or not kept:
        return own
    try:
        found = json.loads(kept)
    except ValueError:
        return own
    return {**(found.get("labels") or {}), **own} if isinstance(found, dict) else own


def tier(written: Written) -> Tier:
    """Raises PolicyError."""
    fields, order = _Fields(written), written.spec.get("order")
    value = text(written.spec, "defaultAction") or Action.DENY
    action = fields.read(("spec", "defaultAction"), value, _choice(Action), Action.DENY)
    return fields.finish(Tier(written.name, None if order is None else float(order), action, written.source))


def host_endpoint(written: Written) -> HostEndpoint:
    """Raises PolicyError."""
    fields, spec = _Fields(written), written.spec
    ports = (
        EndpointPort(text(port, "name"), str(port.get("protocol") or ""), port.get("port") or 0)
        for port in items(spec, "ports")
    )
    return fields.finish(
        HostEndpoint(
            name=written.name,
            node=text(spec, "node"),
            interface=text(spec, "interfaceName"),
            addresses=fields.each(("spec", "expectedIPs"), items(spec, "expectedIPs"), parse_address),
            labels=object_labels(written),
            profiles=tuple(items(spec, "profiles")),
            ports=tuple(ports),
            source=written.source,
        )
    )


def network_set(written: Written) -> NetworkSet:
    """A NetworkSet or GlobalNetworkSet. Raises PolicyError."""
    fields = _Fields(written)
    return fields.finish(
        NetworkSet(
            name=written.name,
            namespace=written.namespace,
            nets=fields.each(("spec", "nets"), items(written.spec, "nets"), _net),
            labels=object_labels(written),
            source=written.source,
        )
    )


def pod(written: Written) -> Pod:
    """Raises PolicyError."""
    fields, spec, status = _Fields(written), written.spec, mapping(written.document, "status")
    return fields.finish(
        Pod(
            name=written.name,
            namespace=written.namespace or "default",
            labels=labels(written.metadata, "labels"),
            service_account=text(spec, "serviceAccountName"),
            node=text(spec, "nodeName"),
            addresses=_pod_addresses(fields, status),
            ports=_container_ports(spec),
            host_network=bool(spec.get("hostNetwork")),
            phase=text(status, "phase"),
            source=written.source,
        )
    )


def _pod_addresses(fields: _Fields, status: Document) -> tuple[Address, ...]:
    listed = [text(entry, "ip") for entry in items(status, "podIPs")]
    if listed:
        return fields.each(("status", "podIPs"), filter(None, listed), parse_address)
    return fields.each(("status", "podIP"), filter(None, [text(status, "podIP")]), parse_address)


def _container_ports(spec: Document) -> tuple[EndpointPort, ...]:
    containers = [*items(spec, "containers"), *items(spec, "initContainers")]
    return tuple(
        EndpointPort(text(port, "name"), text(port, "protocol") or "TCP", port.get("containerPort") or 0)
        for container in containers
        for port in items(container, "ports")
    )


def namespace(written: Written) -> Namespace:
    return Namespace(written.name, labels(written.metadata, "labels"), written.source)


def service_account(written: Written) -> ServiceAccount:
    return ServiceAccount(
        written.name, written.namespace or "default", labels(written.metadata, "labels"), written.source
    )


def service(written: Written) -> Service:
    """Raises PolicyError."""
    fields, spec = _Fields(written), written.spec
    listed = items(spec, "clusterIPs") or [text(spec, "clusterIP")]
    addresses = [each for each in listed if each not in ("", "None")]
    return fields.finish(
        Service(
            name=written.name,
            namespace=written.namespace or "default",
            selector=labels(spec, "selector"),
            cluster_ips=fields.each(("spec", "clusterIPs"), addresses, parse_address),
            ports=tuple(map(_service_port, items(spec, "ports"))),
            source=written.source,
        )
    )


def _service_port(port: Document) -> ServicePort:
    number = port.get("port") or 0
    return ServicePort(text(port, "name"), text(port, "protocol") or "TCP", number, port.get("targetPort") or number)


BUILDERS: Mapping[str, Callable[[Written], Any]] = {
    "Tier": tier,
    "HostEndpoint": host_endpoint,
    "NetworkSet": network_set,
    "GlobalNetworkSet": network_set,
    "Pod": pod,
    "Namespace": namespace,
    "ServiceAccount": service_account,
    "Service": service,
}
"""Kind to builder, for the kinds that are no policies."""
