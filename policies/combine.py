"""Ports and peers of one Kubernetes rule, combined into Calico rules.

Rule: one Calico rule for each protocol and peer, protocols sorted by name and peers in the order given, as in
k8sRuleToCalico and combinePortsWithCNPIngressPeers (libcalico-go/lib/backend/k8s/conversion).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TypeAlias

from policies.model import Action, Direction, EntityRule, Port, Rule
from policies.ports import canonical_protocol, joined

PortsByProtocol: TypeAlias = dict[str, tuple[Port, ...] | None]
"""Ports of one rule for each protocol; "" is any protocol, None any port."""


def by_protocol(ports: Iterable[tuple[str, Port | None]]) -> PortsByProtocol:
    """Ports gathered by protocol; one entry without a port opens all ports of its protocol."""
    gathered: PortsByProtocol = {}
    for name, port in ports:
        protocol = canonical_protocol(name)
        present = gathered.get(protocol, ())
        gathered[protocol] = None if port is None or present is None else (*present, port)
    return gathered


def combined(
    ports: PortsByProtocol, peers: Iterable[EntityRule], direction: Direction, action: Action
) -> Iterator[Rule]:
    """One rule for each protocol, sorted by name, and within it for each peer in the order given."""
    peers = tuple(peers)
    for protocol in sorted(ports):
        wanted = joined(ports[protocol] or ())
        for peer in peers:
            sides = (peer, EntityRule(ports=wanted))
            if direction is Direction.EGRESS:
                sides = (EntityRule(), replace(peer, ports=wanted))
            yield Rule(action, protocol=canonical_protocol(protocol) or None, source=sides[0], destination=sides[1])
