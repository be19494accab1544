"""A stored packet as a flow, with the chains of its node in which its line can have been written.

Rule: the interface says which pod it was, the address only where the interface does not; and a line is judged only by
what its node saw. A packet that came in by `eth0` has left its sender's node, so the sender's egress policies had let
it go on, whatever they say now. What cannot be placed is told with the reason, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
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

    def advice(self, time: str) -> str:
        """What brings into the store what was missing at a time; "" where nothing would."""
        return _ADVICE.get(self, "").format(time=time)


_ADVICE = {
    Cause.NO_POLICIES: "`denylog policies snapshot FILES --at '{time}'` keeps the policies of then; with --valid-from "
    "in place of --at those of now, where they have not changed since",
    Cause.UNKNOWN_POD: "`denylog inventory import DUMP --at '{time}'` keeps the pods of then, where there is a dump; "
    "`denylog inventory watch` follows them from now on",
    Cause.UNKNOWN_HOST: "`denylog policies snapshot FILES --at '{time}'` keeps the host endpoints, too, that FILES "
    "hold",
}


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
    flow = _flow(packet, protocol, source, destination, epoch)
    places = tuple(_places(packet, flow, source, destination))
    if not places:
        where = packet.get("in_interface") or packet.get("out_interface")
        return Open(Cause.UNKNOWN_HOST, f"no host endpoint known for {where} of node {packet.get('node')}", span)
    return Logged(flow, places, epoch, span, (*source.notes, *destination.notes))


def _protocol(packet: Packet) -> int | None:
    text = str(packet.get("protocol") or "")
    return _BEYOND_CALICO.get(text, protocol_number(text))


def _flow(packet: Packet, protocol: int, source: _End, destination: _End, epoch: Epoch) -> Flow:
    """The flow with the host endpoints around it: ends of it where the node itself sends or receives."""
    ports = (packet.get("destination_port"), packet.get("source_port")) if protocol in PORT_PROTOCOLS else (None, None)
    flow = Flow(source.party, destination.party, protocol, *ports, packet.get("icmp_type"), packet.get("icmp_code"))
    entering = _host(packet, "in", source, destination, epoch)
    leaving = _host(packet, "out", destination, source, epoch)
    if _forwarded(packet):
        return replace(flow, entering=entering, leaving=leaving)
    return replace(flow, source=leaving or source.party, destination=entering or destination.party)


def _forwarded(packet: Packet) -> bool:
    return bool(packet.get("in_interface") and packet.get("out_interface"))


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


def _places(packet: Packet, flow: Flow, source: _End, destination: _End) -> list[Visit]:
    """Egress of the sender where it is here, ingress of the receiver where it is here, and host endpoints around."""
    forwarded = _forwarded(packet)
    entering, leaving = (flow.entering, flow.leaving) if forwarded else (flow.destination, flow.source)
    into = (Hook.FORWARD,) if forwarded else (Hook.UNTRACKED, Hook.PRE_DNAT, Hook.NORMAL)
    out_of = (Hook.FORWARD,) if forwarded else (Hook.UNTRACKED, Hook.NORMAL)
    return [
        *_visits(source.party if source.interface else None, Direction.EGRESS, (Hook.NORMAL,), host=False),
        *_visits(entering if packet.get("in_interface") else None, Direction.INGRESS, into, host=True),
        *_visits(leaving if packet.get("out_interface") else None, Direction.EGRESS, out_of, host=True),
        *_visits(destination.party if destination.interface else None, Direction.INGRESS, (Hook.NORMAL,), host=False),
    ]


def _visits(party: Party | None, direction: Direction, hooks: tuple[Hook, ...], *, host: bool) -> list[Visit]:
    endpoint = party.endpoint if party else None
    return [(endpoint, direction, hook) for hook in hooks] if endpoint and endpoint.host is host else []


def _host(packet: Packet, side: str, end: _End, own: _End, epoch: Epoch) -> Party | None:
    """The host endpoint of the interface on this side, where that is no pod's; `own` is the node's end, if any."""
    interface: str | None = packet.get(f"{side}_interface")
    address: Address | None = own.party.address
    if end.interface or not interface or address is None:
        return None
    return epoch.host(packet.get("node"), interface, address)
