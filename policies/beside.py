"""Which other flows a change of policies could open or close beside those that were asked about.

Rule: nothing that could change is left out, and nothing is asked twice: only ends that a changed policy selects can
change, and of pods that no policy can tell apart (the replicas of a workload) one pair stands for all, with their
number.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from policies.evaluate import governs
from policies.flow import Flow, Party
from policies.load import enforced_part
from policies.model import Direction, Inventory, Network, Policy
from policies.scope import policy_term
from policies.selector import Test, compiled


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A flow that was not asked about, and how many others no policy can tell from it."""

    flow: Flow
    alike: int


@dataclass(frozen=True, slots=True)
class Touched:
    """What a change of policies touches: the endpoints that one of `policies` selects; `nets` tell addresses apart."""

    policies: tuple[tuple[Policy, Test], ...]
    nets: tuple[Network, ...]

    def reaches(self, party: Party, direction: Direction) -> bool:
        """Whether a changed policy governs the party in this direction."""
        endpoint = party.endpoint
        if endpoint is None:
            return False
        return any(selects(endpoint.labels) for each, selects in self.policies if governs(each, direction))


def changed(before: Inventory, after: Inventory) -> Touched:
    """The policies that only one side has, or whose tier differs. Raises SelectorError."""
    old, new = ({enforced_part(p): p for p in side.policies} for side in (before, after))
    either = {**old, **new}
    tiers = {p.tier for p in either.values()}
    moved = {name for name in tiers if _differ(before, after, name)}
    found = [p for key, p in either.items() if key not in old or key not in new or p.tier in moved]
    ends = (end for p in either.values() for rule in (*p.ingress, *p.egress) for end in (rule.source, rule.destination))
    nets = dict.fromkeys(net for end in ends for net in (*end.nets, *end.not_nets))
    return Touched(tuple((p, compiled(policy_term(p))) for p in found), tuple(nets))


def _differ(before: Inventory, after: Inventory, name: str) -> bool:
    old, new = before.tier(name), after.tier(name)
    return (old and enforced_part(old)) != (new and enforced_part(new))


class _Kind(NamedTuple):
    """What of a flow its ports and protocol say."""

    protocol: int
    port: int | None
    icmp_type: int | None


_Twins: TypeAlias = dict[Hashable, list[Party]]


def neighbours(
    flows: Sequence[Flow], pods: Iterable[Party], outside: Iterable[Party], touched: Touched
) -> Iterator[Neighbour]:
    """Flows between any pods, outside addresses and ends of `flows`, at the ports of `flows`, that a change touches."""
    ends = {end.name: end for flow in flows for end in (flow.source, flow.destination)}
    parties = {each.name: each for each in (*pods, *ends.values(), *outside)}
    twins: _Twins = defaultdict(list)
    names: dict[str, Hashable] = {}
    for party in parties.values():
        names[party.name] = _twin_key(party, touched.nets)
        twins[names[party.name]].append(party)
    asked = {(flow.source.name, flow.destination.name, _kind(flow)) for flow in flows}
    taken = Counter((names[source], names[target], kind) for source, target, kind in asked)
    kinds = dict.fromkeys(map(_kind, flows))
    for source, target in _touched_pairs(twins, touched):
        for kind in kinds:
            yield from _one(twins[source], twins[target], kind, asked, taken[source, target, kind])


def _kind(flow: Flow) -> _Kind:
    return _Kind(flow.protocol, flow.destination_port, flow.icmp_type)


def _twin_key(party: Party, nets: Iterable[Network]) -> Hashable:
    """Equal for parties that no rule can tell apart."""
    address, endpoint = party.address, party.endpoint
    inside = tuple(number for number, net in enumerate(nets) if address is not None and address in net)
    policed = endpoint and (endpoint.host, endpoint.node if endpoint.host else "", endpoint.profiles)
    labels = tuple(frozenset(each.items()) for each in party.identities)
    return (labels, frozenset(party.ports), frozenset(party.services), policed, address and address.version, inside)


def _touched_pairs(twins: _Twins, touched: Touched) -> Iterator[tuple[Hashable, Hashable]]:
    senders, receivers = (
        {key for key, (party, *_) in twins.items() if touched.reaches(party, direction)}
        for direction in (Direction.EGRESS, Direction.INGRESS)
    )
    for source in twins:
        for target in twins if source in senders else receivers:
            if one_family(twins[source][0], twins[target][0]):
                yield source, target


def _one(
    sources: Sequence[Party],
    targets: Sequence[Party],
    kind: _Kind,
    asked: set[tuple[str, str, _Kind]],
    taken: int,
) -> Iterator[Neighbour]:
    """The first pair of twins that was not asked about; the `taken` pairs that were come before it at worst."""
    same = sources is targets
    left = len(sources) * len(targets) - (len(sources) if same else 0) - taken
    for source, target in itertools.product(sources, targets):
        if source.name != target.name and (source.name, target.name, kind) not in asked:
            yield Neighbour(Flow(source, target, kind.protocol, kind.port, icmp_type=kind.icmp_type), left - 1)
            return


def one_family(source: Party, target: Party) -> bool:
    """Whether both ends can have addresses of one IP version."""
    versions = {party.address.version for party in (source, target) if party.address}
    return len(versions) < 2
