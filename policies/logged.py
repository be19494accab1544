"""A stored packet as a flow, with the chains of its node in which its line can have been written.

Rule: the interface says which pod it was, the address only where the interface does not; and a line is judged only by
what its node saw. A packet that came in by `eth0` has left its sender's node, so the sender's egress policies had let
it go on, whatever they say now. What cannot be placed is told with the reason, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from ipaddress import ip_address
from typing import Any, TypeAlias

from policies.evaluate import Verdict, Visit, evaluate_at
from policies.flow import PORT_PROTOCOLS, Flow, Hook, Party, protocol_number
from policies.model import Address, Direction
from policies.past import ALWAYS, Epoch, Past, Span

Packet: TypeAlias = Mapping[str, Any]
"""A row of the store: the names of `parser.FIELDS`; what is absent is as good as null."""

_BEYOND_CALICO = {"esp": 50, "ah": 51}
"""Protocols that the kernel names and Calico does not."""


class Cause(StrEnum):
    """Why a packet got no verdict."""

    NO_FLOW = "no addresses, protocol or time on the line"
    NO_POLICIES = "no policies known of that time"
    UNKNOWN_POD = "pod not known of that time"
    UNKNOWN_HOST = "no host endpoint known of that time"
    ALLOWED = "the policies known of that time allow it"


@dataclass(frozen=True, slots=True)
class Open:
    """A packet without a verdict: why, in general and in this case, and for how long that is so."""

    cause: Cause
    why: str
    span: Span = ALWAYS


@dataclass(frozen=True, slots=True)
class Logged:
    """A packet that was placed; `span` is the time in which nothing that matters here changed."""

    flow: Flow
    places: tuple[Visit, ...]
    epoch: Epoch
    span: Span
    notes: tuple[str, ...] = ()

    def judged(self) -> Verdict:
        """What the policies of that time do with it, at the places that its node saw."""
        return evaluate_at(self.places, self.flow, self.epoch.rules_for)


@dataclass(frozen=True, slots=True)
class _End:
    """One end of a packet: who it is, and for how long; `interface` is set where it is that of a pod."""

    party: Party
    interface: str | None
    span: Span
    notes: tuple[str, ...] = ()


def placed(packet: Packet, past: Past) -> Logged | Open:
    """The flow of a stored packet, its ends being those that held the interfaces and addresses at its time."""
    time, protocol = packet.get("time"), _protocol(packet)
    if not isinstance(time, datetime) or protocol is None or not (packet.get("source_ip") and packet["destination_ip"]):
        return Open(Cause.NO_FLOW, Cause.NO_FLOW.value)
    epoch = past.epoch(time)
    if not any(not policy.staged for policy in epoch.inventory.policies):
        return Open(Cause.NO_POLICIES, Cause.NO_POLICIES.value, epoch.span)
    source = _end(packet["source_ip"], _pod_interface(packet, "in"), past, epoch, time)
    destination = _end(packet["destination_ip"], _pod_interface(packet, "out"), past, epoch, time)
    span = epoch.span & source.span & destination.span
    for end in (source, destination):
        if end.interface and end.party.endpoint is None:
            return Open(Cause.UNKNOWN_POD, f"no pod known behind {end.interface} or at {end.party.address}", span)
    flow = _flow(packet, source.party, destination.party, protocol)
    places = tuple(_places(packet, source, destination, epoch))
    if not places:
        where = packet.get("in_interface") or packet.get("out_interface")
        return Open(Cause.UNKNOWN_HOST, f"no host endpoint known for {where} of node {packet.get('node')}", span)
    return Logged(flow, places, epoch, span, (*source.notes, *destination.notes))


def _protocol(packet: Packet) -> int | None:
    text = str(packet.get("protocol") or "")
    return _BEYOND_CALICO.get(text, protocol_number(text))


def _flow(packet: Packet, source: Party, destination: Party, protocol: int) -> Flow:
    ports = (packet.get("destination_port"), packet.get("source_port")) if protocol in PORT_PROTOCOLS else (None, None)
    return Flow(source, destination, protocol, *ports, packet.get("icmp_type"), packet.get("icmp_code"))


_POD_SIDES = {"in": ("egress", None), "out": ("ingress", None)}
"""`direction` of the packets that went through a pod's interface on this side; null is from pod to pod."""


def _pod_interface(packet: Packet, side: str) -> str | None:
    interface: str | None = packet.get(f"{side}_interface")
    return interface if interface and packet.get("direction") in _POD_SIDES[side] else None


def _end(text: str, interface: str | None, past: Past, epoch: Epoch, time: datetime) -> _End:
    address = ip_address(text)
    owner, span = past.at(address, time)
    behind, held = past.behind(interface, time) if interface else (None, ALWAYS)
    pod = behind or owner
    party = epoch.seen(pod, address) if pod else epoch.directory.at(address)
    notes: tuple[str, ...] = ()
    if behind and address not in behind.addresses:
        other = f"{owner.namespace}/{owner.name}'s" if owner else "not one that it is known to have"
        notes = (f"{interface} is {behind.namespace}/{behind.name}, the address {address} is {other}",)
    return _End(party, interface, span & held, notes)


def _places(packet: Packet, source: _End, destination: _End, epoch: Epoch) -> list[Visit]:
    """Egress of the sender where it is here, ingress of the receiver where it is here, and host endpoints around."""
    entering, leaving = packet.get("in_interface"), packet.get("out_interface")
    forwarded = bool(entering and leaving)
    into = (Hook.FORWARD,) if forwarded else (Hook.UNTRACKED, Hook.PRE_DNAT, Hook.NORMAL)
    out_of = (Hook.FORWARD,) if forwarded else (Hook.UNTRACKED, Hook.NORMAL)
    return [
        *_pod(source, Direction.EGRESS),
        *_host(packet, None if source.interface else entering, destination, epoch, Direction.INGRESS, into),
        *_host(packet, None if destination.interface else leaving, source, epoch, Direction.EGRESS, out_of),
        *_pod(destination, Direction.INGRESS),
    ]


def _pod(end: _End, direction: Direction) -> list[Visit]:
    endpoint = end.party.endpoint if end.interface else None
    return [(endpoint, direction, Hook.NORMAL)] if endpoint else []


def _host(
    packet: Packet, interface: str | None, own: _End, epoch: Epoch, direction: Direction, hooks: tuple[Hook, ...]
) -> list[Visit]:
    """The places of the host endpoint behind an interface that is no pod's; `own` is the end on this node, if any."""
    address: Address | None = own.party.address
    if not interface or address is None:
        return []
    party = epoch.host(packet.get("node"), interface, address)
    return [(party.endpoint, direction, hook) for hook in hooks] if party and party.endpoint else []
