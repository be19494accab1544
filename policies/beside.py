"""Which other flows a change of policies could open or close beside those that were asked about.

Rule: nothing that could change is left out, and nothing is asked twice: only ends that a changed policy selects can
change, of pods that no policy can tell apart (the replicas of a workload) one pair stands for all, with their number,
and a flow is handed to the evaluator only where a changed rule matches it or other tiers apply than before.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, TypeAlias

from policies.evaluate import Prepared, Rules, Visit, governs, in_hook, may_select, prepared, tiers_at, visits
from policies.flow import Endpoint, Flow, Party
from policies.load import enforced_part
from policies.match import side_mismatch, transport_mismatch
from policies.model import Action, Direction, EntityRule, Inventory, Network, Policy, PortRange, Rule
from policies.nets import NetTable


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A flow that was not asked about, and how many others no policy can tell from it."""

    flow: Flow
    alike: int


@dataclass(frozen=True, slots=True)
class Touched:
    """What a change of policies touches: the endpoints that one of `policies` selects; `nets` tell addresses apart."""

    policies: tuple[Prepared, ...]
    nets: tuple[Network, ...]

    def reaches(self, party: Party, direction: Direction) -> bool:
        """Whether a changed policy governs the party in this direction."""
        return party.endpoint is not None and any(True for _ in self.of(party.endpoint, direction))

    def of(self, endpoint: Endpoint, direction: Direction) -> Iterator[Policy]:
        """The changed policies that govern an endpoint in this direction."""
        for each in may_select(self.policies, endpoint):
            if governs(each.policy, direction) and each.selects(endpoint.labels):
                yield each.policy


def changed(before: Inventory, after: Inventory) -> Touched:
    """The policies that only one side has, or whose tier differs. Raises SelectorError."""
    old, new = ({enforced_part(p): p for p in side.policies} for side in (before, after))
    either = {**old, **new}
    tiers = {p.tier for p in either.values()}
    moved = {name for name in tiers if _differ(before, after, name)}
    found = [p for key, p in either.items() if key not in old or key not in new or p.tier in moved]
    ends = (end for p in either.values() for rule in (*p.ingress, *p.egress) for end in (rule.source, rule.destination))
    nets = dict.fromkeys(net for end in ends for net in (*end.nets, *end.not_nets))
    return Touched(tuple(map(prepared, found)), tuple(nets))


def _differ(before: Inventory, after: Inventory, name: str) -> bool:
    old, new = before.tier(name), after.tier(name)
    return (old and enforced_part(old)) != (new and enforced_part(new))


class _Kind(NamedTuple):
    """What of a flow its ports and protocol say."""

    protocol: int
    port: int | None
    icmp_type: int | None


_Twins: TypeAlias = dict[Hashable, list[Party]]


class Neighbours:
    """Flows between any pods, outside addresses and ends of `flows`, at the ports of `flows`, that a change touches.

    Iterating makes them one by one, `count` tells their number without making any: there can be millions.
    """

    def __init__(
        self, flows: Sequence[Flow], pods: Iterable[Party], outside: Iterable[Party], touched: Touched
    ) -> None:
        ends = {end.name: end for flow in flows for end in (flow.source, flow.destination)}
        parties = {each.name: each for each in (*pods, *ends.values(), *outside)}
        self._twins: _Twins = defaultdict(list)
        names: dict[str, Hashable] = {}
        for party in parties.values():
            names[party.name] = _twin_key(party, touched.nets)
            self._twins[names[party.name]].append(party)
        self._asked = {(flow.source.name, flow.destination.name, _kind(flow)) for flow in flows}
        self._taken = Counter((names[source], names[target], kind) for source, target, kind in self._asked)
        self._kinds = dict.fromkeys(map(_kind, flows))
        self._senders, self._receivers = (
            dict.fromkeys(key for key, (party, *_) in self._twins.items() if touched.reaches(party, direction))
            for direction in (Direction.EGRESS, Direction.INGRESS)
        )

    def __iter__(self) -> Iterator[Neighbour]:
        for source in self._twins:
            for target in self._twins if source in self._senders else self._receivers:
                if one_family(self._twins[source][0], self._twins[target][0]):
                    for kind in self._kinds:
                        yield from self._one(source, target, kind)

    def count(self) -> int:
        """How many there are."""
        pairs = sum(self._targets(source) for source in self._twins)
        alone = [key for key, same in self._twins.items() if len(same) == 1 and self._touches(key, key)]
        nobody = {(key, key, kind) for key in alone for kind in self._kinds}
        nobody |= {each for each in self._taken if self._touches(*each[:2]) and not any(self._one(*each))}
        return pairs * len(self._kinds) - len(nobody)

    def _targets(self, source: Hashable) -> int:
        party = self._twins[source][0]
        families = self._all_families if source in self._senders else self._receiving_families
        return sum(number for version, number in families.items() if _one_of(version, _version(party)))

    def _touches(self, source: Hashable, target: Hashable) -> bool:
        family = one_family(self._twins[source][0], self._twins[target][0])
        return family and (source in self._senders or target in self._receivers)

    @cached_property
    def _all_families(self) -> Counter[int | None]:
        return self._families(self._twins)

    @cached_property
    def _receiving_families(self) -> Counter[int | None]:
        return self._families(self._receivers)

    def _families(self, keys: Iterable[Hashable]) -> Counter[int | None]:
        return Counter(_version(self._twins[key][0]) for key in keys)

    def _one(self, source: Hashable, target: Hashable, kind: _Kind) -> Iterator[Neighbour]:
        """The first pair of twins that was not asked about; those that were asked about come before it at worst."""
        sources, targets = self._twins[source], self._twins[target]
        same = len(sources) if source == target else 0
        left = len(sources) * len(targets) - same - self._taken[source, target, kind]
        for one, other in itertools.product(sources, targets):
            if one.name != other.name and (one.name, other.name, kind) not in self._asked:
                yield Neighbour(Flow(one, other, kind.protocol, kind.port, icmp_type=kind.icmp_type), left - 1)
                return


def _kind(flow: Flow) -> _Kind:
    return _Kind(flow.protocol, flow.destination_port, flow.icmp_type)


def _twin_key(party: Party, nets: Iterable[Network]) -> Hashable:
    """Equal for parties that no rule can tell apart."""
    address, endpoint = party.address, party.endpoint
    inside = tuple(number for number, net in enumerate(nets) if address is not None and address in net)
    policed = endpoint and (endpoint.host, endpoint.node if endpoint.host else "", endpoint.profiles)
    labels = tuple(frozenset(each.items()) for each in party.identities)
    return (labels, frozenset(party.ports), frozenset(party.services), policed, address and address.version, inside)


def _past_ports(end: str, rule: Rule, flow: Flow) -> Rule | None:
    """The rule without the port numbers of this end, which the kind of flow has; None where it has others."""
    entity: EntityRule = getattr(rule, end)
    if not entity.ports or not all(isinstance(port, PortRange) for port in entity.ports):
        return rule
    if side_mismatch(end, _with(rule, end, EntityRule(ports=entity.ports)), flow, None):
        return None
    return _with(rule, end, replace(entity, ports=()))


def _with(rule: Rule, end: str, entity: EntityRule) -> Rule:
    return replace(rule, source=entity) if end == "source" else replace(rule, destination=entity)


class _FarEnds:
    """Rules of which only the far end is open; those that name nothing but nets are asked all at once."""

    def __init__(self, end: str, rules: Iterable[tuple[Rule, str | None]]) -> None:
        self._end = end
        asked = {(getattr(rule, end), scope): (rule, scope) for rule, scope in rules}
        only_nets = [entity for entity, _ in asked if entity.nets and entity == EntityRule(nets=entity.nets)]
        self._nets = NetTable(net for entity in only_nets for net in entity.nets)
        self._others = [asked[key] for key in asked if key[0] not in set(only_nets)]

    def match(self, flow: Flow, far: Party) -> bool:
        """Whether one of the rules matches the flow, whose far end this is."""
        if far.address is not None and far.address in self._nets:
            return True
        return any(side_mismatch(self._end, rule, flow, scope) is None for rule, scope in self._others)


class Suspicion:
    """Which flows a change can open or close, cheaply: "no" is certain, "yes" is for the evaluator to say.

    A policy of which no rule matches a packet does nothing to it but isolate. So a verdict stays where the same tiers
    apply as before and no rule of a changed policy, as it was or as it is, matches. `old` and `new` are as `selected`
    gives them. Each rule is asked once about the near end and the port, and then only about the far ends.
    """

    def __init__(self, touched: Touched, old: Rules, new: Rules) -> None:
        self._touched = touched
        self._old, self._new = old, new
        self._found: dict[Hashable, _FarEnds | None] = {}
        self._there: dict[Hashable, tuple[Policy, ...]] = {}

    def falls_on(self, flow: Flow) -> bool:
        """Whether the verdict of a flow of `Neighbours` may change."""
        return any(self._may_change(visit, flow) for visit in visits(flow))

    def _may_change(self, visit: Visit, flow: Flow) -> bool:
        _, direction, hook = visit
        key = (flow.side(direction).name, direction, hook, _kind(flow), flow.ip_version)
        if key not in self._found:
            self._found[key] = self._near(visit, flow)
        rules = self._found[key]
        return rules is None or rules.match(flow, flow.side(_OTHER[direction]))

    def _near(self, visit: Visit, flow: Flow) -> _FarEnds | None:
        """The changed rules that only the far end can still keep from matching; None where other tiers apply now."""
        if tiers_at(self._old, visit) != tiers_at(self._new, visit):
            return None
        _, direction, _ = visit
        far = _END[_OTHER[direction]]
        rules = (
            (left, policy.namespace)
            for policy in self._changed(visit)
            for rule in policy.rules(direction)
            if rule.action is not Action.LOG
            and transport_mismatch(rule, flow) is None
            and side_mismatch(_END[direction], rule, flow, policy.namespace) is None
            and (left := _past_ports(far, rule, flow))
        )
        return _FarEnds(far, rules)

    def _changed(self, visit: Visit) -> tuple[Policy, ...]:
        endpoint, direction, hook = visit
        key = (endpoint.name, direction, hook)
        if key not in self._there:
            chosen = self._touched.of(endpoint, direction)
            self._there[key] = tuple(each for each in chosen if not each.staged and in_hook(each, hook))
        return self._there[key]


_END = {Direction.INGRESS: "destination", Direction.EGRESS: "source"}
"""What rules call the end that a direction protects."""
_OTHER = {Direction.INGRESS: Direction.EGRESS, Direction.EGRESS: Direction.INGRESS}


def one_family(source: Party, target: Party) -> bool:
    """Whether both ends can have addresses of one IP version."""
    return _one_of(_version(source), _version(target))


def _version(party: Party) -> int | None:
    return party.address.version if party.address else None


def _one_of(version: int | None, other: int | None) -> bool:
    return version is None or other is None or version == other
