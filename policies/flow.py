"""The two ends of a packet as policies see them: addresses, label maps, named ports, and the endpoint that is policed.

Rule: a `Party` is built from the inventory and nothing is invented: an address that no object claims has no labels, and
a pod without an address in the files lies in no net. One address can be known by several label maps (a pod inside a
NetworkSet's net), as in Felix' IP sets.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

from policies.errors import PolicyError, Problem
from policies.model import (
    PROTOCOL_NUMBERS,
    Address,
    Direction,
    EndpointPort,
    HostEndpoint,
    Inventory,
    Labels,
    Place,
    Pod,
    Service,
)
from policies.scope import network_set_labels, pod_labels

PORT_PROTOCOLS = frozenset({6, 17, 132, 136})
"""Protocols that have ports: TCP, UDP, SCTP, UDPLite."""

PROTOCOL_NAMES = {number: name for name, number in PROTOCOL_NUMBERS.items()}
_NUMBERS = {name.lower(): number for name, number in PROTOCOL_NUMBERS.items()}


class Hook(StrEnum):
    """Where in the kernel a policy is rendered (felix/calc/event_sequencer.go, tierInfosToProtoTierInfos)."""

    NORMAL = "normal"
    FORWARD = "forward"
    PRE_DNAT = "preDNAT"
    UNTRACKED = "doNotTrack"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A policed interface: a pod's (`host` false) or a node's; `labels` are those that selectors see."""

    name: str
    labels: Labels = field(hash=False)
    host: bool = False
    node: str = ""
    profiles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServicePlace:
    """A Service that stands in front of a party, with the (protocol number, port) pairs it sends there."""

    namespace: str
    name: str
    ports: frozenset[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Party:
    """One end of a flow; `endpoint` is None where nothing is policed (outside, host network)."""

    name: str
    address: Address | None = None
    identities: tuple[Labels, ...] = field(default=(), hash=False)
    ports: tuple[EndpointPort, ...] = ()
    services: tuple[ServicePlace, ...] = ()
    endpoint: Endpoint | None = None
    pod: Pod | None = None


@dataclass(frozen=True, slots=True)
class Flow:
    """The first packet of a connection. `entering` and `leaving` are host endpoints a forwarded packet passes."""

    source: Party
    destination: Party
    protocol: int
    destination_port: int | None = None
    source_port: int | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    entering: Party | None = None
    leaving: Party | None = None

    @property
    def ip_version(self) -> int:
        """4 or 6; 4 where neither end has an address, 6 for ICMPv6."""
        address = self.source.address or self.destination.address
        return address.version if address else 6 if self.protocol == PROTOCOL_NUMBERS["ICMPv6"] else 4

    @property
    def service(self) -> str:
        """The packet's kind in words: `TCP port 80`, `ICMP type 8`, `protocol 112`."""
        name = PROTOCOL_NAMES.get(self.protocol, f"protocol {self.protocol}")
        if self.destination_port is not None:
            return f"{name} port {self.destination_port}"
        return name if self.icmp_type is None else f"{name} type {self.icmp_type}"

    def __str__(self) -> str:
        return f"{self.source.name} to {self.destination.name}, {self.service}"

    def side(self, direction: Direction) -> Party:
        """The end that a policy of this direction governs."""
        return self.destination if direction is Direction.INGRESS else self.source


def protocol_number(text: str) -> int | None:
    """IANA number of a protocol by name (any case) or number; None where it is neither."""
    return int(text) if text.isdecimal() and int(text) < 256 else _NUMBERS.get(text.lower())


def _trouble(text: str, message: str, advice: str) -> PolicyError:
    return PolicyError([Problem("flow", Place("command line"), "", f"{text!r}: {message}", advice)])


class Directory:
    """Finds parties in an inventory, by name or address."""

    def __init__(self, inventory: Inventory) -> None:
        self.inventory = inventory
        endpoints = [pod for pod in reversed(inventory.pods) if pod.is_endpoint]
        self._pods = {address: pod for pod in endpoints for address in pod.addresses}
        self._services = tuple((service, _targets(service)) for service in inventory.services)

    def pod(self, pod: Pod, version: int | None = None) -> Party:
        """A pod's party, with its address of an IP version where it has one; in the host network it is only that."""
        suited = [address for address in pod.addresses if version in (None, address.version)]
        address = next(iter((*suited, *pod.addresses)), None)
        known = list(self._set_labels(address))
        if not pod.is_endpoint:
            return Party(f"{pod.namespace}/{pod.name}", address, tuple(known), pod=pod)
        labels = pod_labels(pod, self.inventory)
        endpoint = Endpoint(f"{pod.namespace}/{pod.name}", labels, node=pod.node, profiles=(f"kns.{pod.namespace}",))
        return Party(
            f"{pod.namespace}/{pod.name}", address, (labels, *known), pod.ports, tuple(self._places(pod)), endpoint, pod
        )

    def seen(self, pod: Pod, address: Address) -> Party:
        """The party of a pod in a packet that shows this address, be it one that the pod is not known to have."""
        party = self.pod(pod, address.version)
        own = party.identities[:1] if party.endpoint else ()
        return replace(party, address=address, identities=(*own, *self._set_labels(address)))

    def again(self, party: Party) -> Party:
        """A party of another inventory with the labels that this one gives it."""
        if party.address is None or (party.endpoint and party.endpoint.host):
            return party
        if party.pod:
            return self.seen(party.pod, party.address)
        return replace(party, identities=tuple(self._set_labels(party.address)))

    def host(self, host: HostEndpoint, seen: Address | None = None) -> Party:
        """A host endpoint's party, in a packet that shows the address `seen`, or with its first."""
        address = seen or (host.addresses[0] if host.addresses else None)
        endpoint = Endpoint(host.name, host.labels, True, host.node, host.profiles)
        known = (host.labels, *self._set_labels(address))
        return Party(f"host endpoint {host.name}", address, known, host.ports, endpoint=endpoint)

    def at(self, address: Address) -> Party:
        """Whoever has the address: a pod, a host endpoint, or an address that only network sets may know."""
        pod = self._pods.get(address)
        if pod:
            return self.pod(pod, address.version)
        host = next((host for host in self.inventory.host_endpoints if address in host.addresses), None)
        return self.host(host) if host else Party(str(address), address, tuple(self._set_labels(address)))

    def find(self, text: str) -> Party:
        """A party by address, `namespace/pod`, pod name, or host endpoint's name. Raises PolicyError."""
        try:
            return self.at(ipaddress.ip_address(text.strip("[]")))
        except ValueError:
            return self._named(text)

    def of_one_family(self, source: Party, destination: Party) -> tuple[Party, Party]:
        """Both ends with addresses of one IP version; pods that have both take that of the other end.

        Raises PolicyError where there is no common version.
        """
        for one, other in ((source, destination), (destination, source)):
            if one.address and other.address and other.pod and one.address.version != other.address.version:
                other = self.pod(other.pod, one.address.version)
                source, destination = (one, other) if one is source else (other, one)
        versions = {party.address.version for party in (source, destination) if party.address}
        if len(versions) > 1:
            text = f"{source.name} to {destination.name}"
            raise _trouble(text, "one end has only IPv4 and the other only IPv6", "name two addresses of one kind")
        return source, destination

    def parties(self) -> list[Party]:
        """All pods that are endpoints, sorted by name."""
        pods = sorted((p for p in self.inventory.pods if p.is_endpoint), key=lambda p: (p.namespace, p.name))
        return [self.pod(pod) for pod in pods]

    def _named(self, text: str) -> Party:
        namespace, _, name = text.rpartition("/")
        pods = [p for p in self.inventory.pods if p.name == name and namespace in ("", p.namespace)]
        if len(pods) == 1:
            return self.pod(pods[0])
        if pods:
            found = ", ".join(f"{pod.namespace}/{pod.name}" for pod in pods)
            raise _trouble(text, "several pods have this name", f"write one of {found}")
        host = next((host for host in self.inventory.host_endpoints if host.name == text), None)
        if host:
            return self.host(host)
        raise _trouble(text, "no pod or host endpoint of that name in the files", "add its Pod object, or an address")

    def _set_labels(self, address: Address | None) -> Iterator[Labels]:
        for each in self.inventory.network_sets:
            if address is not None and any(address in net for net in each.nets):
                yield network_set_labels(each, self.inventory)

    def _places(self, pod: Pod) -> Iterator[ServicePlace]:
        for service, targets in self._services:
            chosen = service.selector and service.selector.items() <= pod.labels.items()
            if chosen and service.namespace == pod.namespace:
                yield ServicePlace(service.namespace, service.name, frozenset(_numbers(targets, pod)))


def _targets(service: Service) -> tuple[tuple[int, int | str], ...]:
    return tuple((protocol_number(port.protocol) or 6, port.target) for port in service.ports)


def _numbers(targets: tuple[tuple[int, int | str], ...], pod: Pod) -> Iterator[tuple[int, int]]:
    for protocol, target in targets:
        if isinstance(target, int):
            yield protocol, target
        else:
            same = (p.port for p in pod.ports if p.name == target and protocol_number(p.protocol) == protocol)
            yield from ((protocol, port) for port in same)


_TARGET = re.compile(
    r"(?P<who>\[[^]]+\]|[^:\[\]]+?|[0-9A-Fa-f:]+?)(?::(?P<port>[0-9]+))?"
    r"(?:/(?P<protocol>tcp|udp|sctp|udplite|icmp|icmpv6|[0-9]{1,3}))?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Target:
    """What `PODorIP:PORT/PROTO` names; for ICMP the number is the type."""

    who: str
    protocol: int
    number: int | None


def parse_target(text: str) -> Target:
    """Read `PODorIP:PORT/PROTO`: TCP where no protocol is written, IPv6 in brackets. Raises PolicyError."""
    found = _TARGET.fullmatch(text)
    if found is None or ((number := found["port"]) is not None and int(number) > 65535):
        raise _trouble(text, "not POD:PORT/PROTO or IP:PORT/PROTO", "write web:80/tcp, [2001:db8::1]:53/udp, web/icmp")
    protocol = protocol_number(found["protocol"] or "tcp") or 0
    if protocol in PORT_PROTOCOLS and number is None:
        raise _trouble(text, "needs a port", f"write {text.split('/')[0]}:80/tcp")
    return Target(found["who"], protocol, int(number) if number is not None else None)


def flow_to(source: Party, destination: Party, target: Target) -> Flow:
    """The flow from one party to another's target."""
    if target.protocol in PORT_PROTOCOLS:
        return Flow(source, destination, target.protocol, target.number)
    return Flow(source, destination, target.protocol, icmp_type=target.number)
