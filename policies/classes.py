"""A packet that fits: given which rules must match and which must not, find one, or show there is none.

Rule: exhaustive over classes. Protocols, ports, ICMP types and addresses are cut at every boundary that a rule names
and one packet stands for each piece; labels are solved exactly (`policies.labelspace`). So None means that no packet at
all fits, and where the search is too large it raises `Undecided` instead of guessing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import TypeVar

from policies.flow import PORT_PROTOCOLS, PROTOCOL_NAMES, Endpoint, Flow, Party, ServicePlace
from policies.labelspace import Assignment, Undecided, solve
from policies.match import first_mismatch, number_of
from policies.model import (
    Address,
    Direction,
    EndpointPort,
    EntityRule,
    Labels,
    NamedPort,
    PortRange,
    Rule,
    ServiceMatch,
)
from policies.scope import excluded_term, peer_term
from policies.selector import All, And, Has, Not, Or, Term, prefixed

_T = TypeVar("_T")

MAX_NAMES = 5
"""Named ports or services of one side whose every combination is tried."""

MAX_COMBINATIONS = 200_000
"""Classes of transport and addresses that are tried for one question."""

_SAMPLE_OUTSIDE = ("192.0.2.1", "2001:db8::1")
"""Addresses for documentation (RFC 5737, RFC 3849): preferred where any address will do."""

_OWN, _EXTRA = "own:", "extra:"


@dataclass(frozen=True, slots=True)
class Fire:
    """ "This rule decides": the policy selects the endpoint and the rule matches. `scope` as in `first_mismatch`."""

    selects: Term
    rule: Rule
    scope: str | None


@dataclass(frozen=True, slots=True)
class Space:
    """The endpoints in question: pods of one namespace, or host endpoints; `fixed`: what is known of their labels."""

    name: str
    fixed: Assignment
    host: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """What one packet has to do at an endpoint of the space, in one direction."""

    space: Space
    direction: Direction
    fires: tuple[Fire, ...]
    misses: tuple[Fire, ...]
    selected: tuple[Term, ...] = ()
    unselected: tuple[Term, ...] = ()


# -- transport -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Transport:
    """A class of packets without its addresses; `names` are the port names that each end gives to its port."""

    version: int
    protocol: int
    source_port: int | None = None
    destination_port: int | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    source_names: tuple[str, ...] = ()
    destination_names: tuple[str, ...] = ()


def _protocols(rules: Sequence[Rule]) -> list[int]:
    named = {number_of(p) for rule in rules for p in (rule.protocol, rule.not_protocol) if p is not None}
    other = next(n for n in range(253, 0, -1) if n not in named)
    return list(dict.fromkeys([6, 17, *sorted(named), other]))


def _ports(entities: Iterable[EntityRule]) -> list[int]:
    ranges = [p for e in entities for p in (*e.ports, *e.not_ports) if isinstance(p, PortRange)]
    starts = {1, *(p.first for p in ranges), *(p.last + 1 for p in ranges)}
    return sorted(port for port in starts if port <= 65535)


def _names(entities: Iterable[EntityRule]) -> list[tuple[str, ...]]:
    names = sorted({p.name for e in entities for p in (*e.ports, *e.not_ports) if isinstance(p, NamedPort)})
    return _subsets(names)


def _subsets(items: Sequence[_T]) -> list[tuple[_T, ...]]:
    if len(items) > MAX_NAMES:
        raise Undecided(2 ** len(items))
    return [chosen for size in range(len(items) + 1) for chosen in itertools.combinations(items, size)]


def _icmp(rules: Sequence[Rule]) -> list[tuple[int, int]]:
    named = [icmp for rule in rules for icmp in (rule.icmp, rule.not_icmp) if icmp]
    types = {8, 255, *(icmp.type for icmp in named if icmp.type is not None)}
    codes = {0, 255, *(icmp.code for icmp in named if icmp.code is not None)}
    return list(itertools.product(sorted(types), sorted(codes)))


def _transports(rules: Sequence[Rule]) -> Iterator[Transport]:
    sources, destinations = [rule.source for rule in rules], [rule.destination for rule in rules]
    ports = list(itertools.product(_ports(sources), _ports(destinations)))
    names = list(itertools.product(_names(sources), _names(destinations)))
    for version, protocol in itertools.product((4, 6), _protocols(rules)):
        if protocol in PORT_PROTOCOLS:
            for (own, far), (own_names, far_names) in itertools.product(ports, names):
                yield Transport(version, protocol, own, far, None, None, own_names, far_names)
        elif PROTOCOL_NAMES.get(protocol, "").startswith("ICMP"):
            yield from (Transport(version, protocol, None, None, *icmp) for icmp in _icmp(rules))
        else:
            yield Transport(version, protocol)


def _bare(rule: Rule) -> Rule:
    """The rule with only what a transport can fail."""
    source = EntityRule(ports=rule.source.ports, not_ports=rule.source.not_ports)
    destination = EntityRule(ports=rule.destination.ports, not_ports=rule.destination.not_ports)
    return replace(rule, source=source, destination=destination)


def _end_ports(names: tuple[str, ...], protocol: int, port: int | None) -> tuple[EndpointPort, ...]:
    return tuple(EndpointPort(name, PROTOCOL_NAMES[protocol].upper(), port or 0) for name in names)


def _flow(transport: Transport, source: Party, destination: Party) -> Flow:
    t = transport
    return Flow(
        replace(source, ports=_end_ports(t.source_names, t.protocol, t.source_port)),
        replace(destination, ports=_end_ports(t.destination_names, t.protocol, t.destination_port)),
        t.protocol,
        t.destination_port,
        t.source_port,
        t.icmp_type,
        t.icmp_code,
    )


# -- addresses -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """A class of addresses of one end, with the Services it stands behind."""

    address: Address
    services: tuple[tuple[str, str], ...] = ()


def _boundaries(entities: Sequence[EntityRule]) -> list[Address]:
    nets = [net for e in entities for net in (*e.nets, *e.not_nets)]
    samples = [ip_address(text) for text in _SAMPLE_OUTSIDE]
    found = {net.network_address for net in nets}
    found |= {n.broadcast_address + 1 for n in nets if int(n.broadcast_address) + 1 < 2**n.max_prefixlen}
    return [*samples, *sorted(found - set(samples), key=lambda address: (address.version, int(address)))]


def address_classes(entities: Sequence[EntityRule]) -> list[Address]:
    """One address for each way in which the nets of the rules can hold it, documentation addresses first."""
    sides = [nets for entity in entities for nets in (entity.nets, entity.not_nets) if nets]
    classes: dict[tuple[int, ...], Address] = {}
    for address in _boundaries(entities):
        inside = (any(address in net for net in nets) for nets in sides)
        classes.setdefault((address.version, *inside), address)
    return list(classes.values())


def _service_name(match: ServiceMatch, scope: str | None) -> tuple[str, str]:
    return (match.namespace or scope or "", match.name)


def _only_places(entity: EntityRule) -> EntityRule:
    return EntityRule(nets=entity.nets, not_nets=entity.not_nets, services=entity.services)


def _places(pairs: Sequence[tuple[EntityRule, str | None]]) -> list[Place]:
    services = sorted({_service_name(e.services, scope) for e, scope in pairs if e.services})
    addresses = address_classes([entity for entity, _ in pairs])
    return [Place(address, chosen) for address in addresses for chosen in _subsets(services)]


def _located(rule: Rule) -> Rule:
    """The rule with only what a transport and two addresses can fail."""
    bare = _bare(rule)
    source = replace(_only_places(rule.source), ports=bare.source.ports, not_ports=bare.source.not_ports)
    far = replace(_only_places(rule.destination), ports=bare.destination.ports, not_ports=bare.destination.not_ports)
    return replace(rule, source=source, destination=far)


def _party(place: Place, protocol: int, port: int | None) -> Party:
    ports = frozenset({(protocol, port)} if port is not None else set())
    services = tuple(ServicePlace(namespace, name, ports) for namespace, name in place.services)
    return Party(str(place.address), place.address, services=services)


# -- labels ----------------------------------------------------------------------------------------------------------


def _known(prefix: str) -> Term:
    return Has(prefix)


def _identity(prefix: str, term: Term) -> Term:
    """An address is known by this label map, and the map satisfies the term."""
    return And((_known(prefix), prefixed(term, prefix)))


def _any_of(prefixes: Sequence[str], term: Term) -> Term:
    options = tuple(_identity(prefix, term) for prefix in prefixes)
    return options[0] if len(options) == 1 else Or(options)


def _side_terms(entity: EntityRule, scope: str | None, prefixes: Sequence[str]) -> list[Term]:
    wanted, excluded = peer_term(entity, scope), excluded_term(entity)
    terms = [_any_of(prefixes, wanted)] if wanted is not None else []
    return [*terms, *([Not(_any_of(prefixes, excluded))] if excluded is not None else [])]


@dataclass(frozen=True, slots=True)
class _Naming:
    """Prefixes under which the label maps of both ends live in one space of labels."""

    own: tuple[str, ...]
    peer: tuple[str, ...]

    def terms(self, fire: Fire, direction: Direction) -> list[Term]:
        ingress = direction is Direction.INGRESS
        own, peer = (fire.rule.destination, fire.rule.source) if ingress else (fire.rule.source, fire.rule.destination)
        return [
            prefixed(fire.selects, _OWN),
            *_side_terms(own, fire.scope, self.own),
            *_side_terms(peer, fire.scope, self.peer),
        ]


def _conjunction(terms: Sequence[Term]) -> Term:
    return And(tuple(terms)) if len(terms) > 1 else terms[0] if terms else All()


def _namings(question: Question, live: Sequence[Fire]) -> Iterator[_Naming]:
    """The simplest world first: the peer unknown or known by one label map; then by as many as rules ask for."""
    yield _Naming((_OWN,), ("peer0:",))
    wanted = {fire.rule.source if question.direction is Direction.INGRESS else fire.rule.destination for fire in live}
    own = {fire.rule.destination if question.direction is Direction.INGRESS else fire.rule.source for fire in live}
    picky = [e for e in wanted if e.selector or e.namespace_selector or e.service_accounts]
    extras = [e for e in own if e.selector or e.namespace_selector or e.service_accounts]
    if len(picky) > 1 or extras:
        peers = tuple(f"peer{i}:" for i in range(max(1, len(picky))))
        yield _Naming((_OWN, *(f"{_EXTRA}{i}:" for i in range(len(extras)))), peers)


def _solve_labels(question: Question, live: Sequence[Fire], named: tuple[bool, bool]) -> dict[str, str] | None:
    """`live`: misses that only labels can still prevent; `named`: whether own and peer must be known endpoints."""
    fixed: dict[str, str | None] = {_OWN + key: value for key, value in question.space.fixed.items()}
    fixed[_OWN] = "yes"
    for naming in _namings(question, question.fires):
        fires = [term for fire in question.fires for term in naming.terms(fire, question.direction)]
        misses = [Not(_conjunction(naming.terms(fire, question.direction))) for fire in live]
        selected = [prefixed(term, _OWN) for term in question.selected]
        unselected = [Not(prefixed(term, _OWN)) for term in question.unselected]
        known = [_known(naming.peer[0])] if named[1] else []
        found = solve([*fires, *selected, *unselected, *known, *misses], fixed)
        if found is not None:
            return found
    return None


# -- the search ------------------------------------------------------------------------------------------------------


def _maps(labels: Mapping[str, str], kind: str) -> tuple[dict[str, str], ...]:
    prefixes = sorted(key for key in labels if key.startswith(kind) and key.endswith(":"))
    return tuple(
        {k.removeprefix(p): v for k, v in labels.items() if k.startswith(p) and k != p and not k.endswith(":")}
        for p in prefixes
    )


def _classes(question: Question, rules: Sequence[Rule]) -> list[Transport]:
    """Transports that pass the rules that must fire, one for each set of other rules that they pass."""
    needed = [_bare(fire.rule) for fire in question.fires]
    others = [_bare(fire.rule) for fire in question.misses]
    classes: dict[tuple[object, ...], Transport] = {}
    for count, transport in enumerate(_transports(rules)):
        if count > MAX_COMBINATIONS:
            raise Undecided(count)
        flow = _flow(transport, *_anywhere(transport.version))
        if any(first_mismatch(rule, flow, None) for rule in needed):
            continue
        passed = tuple(first_mismatch(rule, flow, None) is None for rule in others)
        key = (transport.version, transport.source_names, transport.destination_names, passed)
        classes.setdefault(key, transport)
    return list(classes.values())


def _anywhere(version: int) -> tuple[Party, Party]:
    address = ip_address(_SAMPLE_OUTSIDE[version == 6])
    return Party("any", address), Party("any", address)


def _candidates(question: Question) -> Iterator[tuple[Transport, Flow]]:
    everything = (*question.fires, *question.misses)
    rules = [fire.rule for fire in everything]
    sources = _places([(fire.rule.source, fire.scope) for fire in everything])
    destinations = _places([(fire.rule.destination, fire.scope) for fire in everything])
    combinations = itertools.product(_classes(question, rules), sources, destinations)
    for count, (transport, source, far) in enumerate(combinations):
        if count > MAX_COMBINATIONS:
            raise Undecided(count)
        if source.address.version == far.address.version == transport.version:
            ends = _party(source, transport.protocol, transport.source_port)
            yield transport, _flow(transport, ends, _party(far, transport.protocol, transport.destination_port))


def _named_ends(transport: Transport, direction: Direction) -> tuple[bool, bool]:
    source, destination = bool(transport.source_names), bool(transport.destination_names)
    return (destination, source) if direction is Direction.INGRESS else (source, destination)


def find(question: Question) -> Flow | None:
    """A packet that answers the question; None where there is none. Raises Undecided."""
    fires = [(_located(fire.rule), fire.scope) for fire in question.fires]
    misses = [(fire, _located(fire.rule)) for fire in question.misses]
    hopeless: set[tuple[tuple[Fire, ...], tuple[bool, bool]]] = set()
    for transport, flow in _candidates(question):
        if any(first_mismatch(rule, flow, scope) for rule, scope in fires):
            continue
        live = tuple(fire for fire, rule in misses if first_mismatch(rule, flow, fire.scope) is None)
        named = _named_ends(transport, question.direction)
        if (live, named) in hopeless:
            continue
        labels = _solve_labels(question, live, named)
        if labels is not None:
            return _dressed(question, flow, labels)
        hopeless.add((live, named))
    return None


def _described(labels: Labels, space: Space) -> str:
    own = ", ".join(f"{k}={v}" for k, v in sorted(labels.items()) if k not in space.fixed) or "no labels of note"
    where = "host endpoint" if space.host else f"pod of {space.name}"
    return f"a {where} with {own}"


def _peer_name(party: Party, maps: Sequence[Labels]) -> str:
    known = " and ".join("{" + ", ".join(f"{k}={v}" for k, v in sorted(m.items())) + "}" for m in maps)
    return f"{party.address} with labels {known}" if maps else f"{party.address}, which no object claims"


def _dressed(question: Question, flow: Flow, labels: Mapping[str, str]) -> Flow:
    """The flow with the label maps that were found put on its ends."""
    own_map, extras, peers = _maps(labels, _OWN)[0], _maps(labels, _EXTRA), _maps(labels, "peer")
    ingress = question.direction is Direction.INGRESS
    own, peer = (flow.destination, flow.source) if ingress else (flow.source, flow.destination)
    name = _described(own_map, question.space)
    endpoint = Endpoint(name, own_map, question.space.host, profiles=("kns.",))
    own = replace(own, name=name, identities=(own_map, *extras), endpoint=endpoint)
    peer = replace(peer, name=_peer_name(peer, peers), identities=peers)
    source, destination = (peer, own) if ingress else (own, peer)
    return replace(flow, source=source, destination=destination)
