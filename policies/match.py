"""Does one rule match one flow, and if not, which field says so first?

Rule: the fields are a table, checked in the order in which Calico writes them; the first that fails is the answer, in
words. IP families follow felix/rules/policy.go (FilterRuleToIPVersion): nets that are all of the other family, or a
negated net that holds every address, make the whole rule vanish for that family. `http` is left to Envoy: the kernel
never sees it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

from policies.flow import PORT_PROTOCOLS, PROTOCOL_NAMES, Flow, Party, protocol_number
from policies.labelspace import atoms
from policies.model import EntityRule, Icmp, NamedPort, Network, Policy, Port, PortRange, Protocol, Rule
from policies.scope import excluded_term, peer_term
from policies.selector import And, Term, canonical, compiled

PROTOCOLS_WITH_NUMBERS = frozenset({6, 17, 132})
"""TCP, UDP and SCTP: the protocols whose port numbers Calico renders."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The first field of a rule that a flow fails.

    What it wants and what it found are put into words only when asked: most rules that are looked at do not match, and
    hardly anybody reads why.
    """

    field: str
    words: Callable[[], tuple[str, str]] = dataclasses.field(compare=False, repr=False)

    @property
    def wanted(self) -> str:
        """What the rule says."""
        return self.words()[0]

    @property
    def found(self) -> str:
        """What the packet is."""
        return self.words()[1]

    def __str__(self) -> str:
        return f"{self.field} wants {self.wanted}, but this is {self.found}"


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a flow beside the same side of a rule; `scope` is the namespace of the policy, None if global."""

    entity: EntityRule
    party: Party
    port: int | None
    flow: Flow
    rule: Rule
    scope: str | None


def number_of(protocol: Protocol) -> int:
    """The IANA number of a rule's protocol."""
    return protocol if isinstance(protocol, int) else protocol_number(protocol) or 0


def port_text(port: Port) -> str:
    """A port as Calico writes it: `80`, `8000:8080`, `http`."""
    if isinstance(port, NamedPort):
        return port.name
    return str(port.first) if port.first == port.last else f"{port.first}:{port.last}"


def listed(items: Iterable[object], most: int = 6) -> str:
    """Items for a sentence: the first few, and how many more."""
    texts = [str(item) for item in items]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


def asks_source_port(policy: Policy) -> bool:
    """Whether a rule of the policy asks for the port that a packet comes from."""
    ends = (rule.source for rule in (*policy.ingress, *policy.egress))
    return any(end.ports or end.not_ports for end in ends)


# -- fields of the whole rule ----------------------------------------------------------------------------------------


def _version(rule: Rule, flow: Flow) -> Mismatch | None:
    if rule.ip_version in (None, flow.ip_version):
        return None
    return Mismatch("ipVersion", lambda: (str(rule.ip_version), f"IPv{flow.ip_version}"))


def _protocol(rule: Rule, flow: Flow) -> Mismatch | None:
    if rule.protocol is None or number_of(rule.protocol) == flow.protocol:
        return None
    return Mismatch("protocol", lambda: (str(rule.protocol), PROTOCOL_NAMES.get(flow.protocol, str(flow.protocol))))


def _not_protocol(rule: Rule, flow: Flow) -> Mismatch | None:
    if rule.not_protocol is None or number_of(rule.not_protocol) != flow.protocol:
        return None
    return Mismatch("notProtocol", lambda: (f"anything but {rule.not_protocol}", str(rule.not_protocol)))


def _icmp_fits(icmp: Icmp, flow: Flow) -> bool:
    same_type = icmp.type is None or icmp.type == flow.icmp_type
    return same_type and (icmp.code is None or icmp.code == flow.icmp_code)


def _icmp_text(icmp: Icmp) -> str:
    return f"type {icmp.type}" + (f" code {icmp.code}" if icmp.code is not None else "")


def _icmp(rule: Rule, flow: Flow) -> Mismatch | None:
    wanted = rule.icmp
    if wanted is None or _icmp_fits(wanted, flow):
        return None
    return Mismatch("icmp", lambda: (_icmp_text(wanted), _icmp_text(Icmp(flow.icmp_type, flow.icmp_code))))


def _not_icmp(rule: Rule, flow: Flow) -> Mismatch | None:
    unwanted = rule.not_icmp
    if unwanted is None or not _icmp_fits(unwanted, flow):
        return None
    return Mismatch("notICMP", lambda: (f"anything but {_icmp_text(unwanted)}", _icmp_text(unwanted)))


# -- fields of one side ----------------------------------------------------------------------------------------------


def _address(side: Side) -> str:
    return str(side.party.address) if side.party.address else f"{side.party.name}, whose address is not in the files"


def _within(side: Side, nets: tuple[Network, ...]) -> bool:
    address = side.party.address
    return address is not None and any(address in net for net in nets)


def _nets(side: Side) -> Mismatch | None:
    nets = side.entity.nets
    if not nets or _within(side, nets):
        return None
    return Mismatch("nets", lambda: (f"an address in {listed(nets)}", _address(side)))


def _not_nets(side: Side) -> Mismatch | None:
    nets = side.entity.not_nets
    own = [net for net in nets if net.version == side.flow.ip_version]
    if nets and (not own or any(net.prefixlen == 0 for net in own)):
        return Mismatch("notNets", lambda: (f"no IPv{side.flow.ip_version} address at all", _address(side)))
    if not nets or not _within(side, nets):
        return None
    return Mismatch("notNets", lambda: (f"an address outside {listed(nets)}", _address(side)))


_peer_term = lru_cache(maxsize=65536)(peer_term)
_excluded_term = lru_cache(maxsize=65536)(excluded_term)


def _known_as(party: Party, failing: Term) -> str:
    if not party.identities:
        return f"{party.name}, which no pod, host endpoint or network set claims"
    own = party.identities[0]
    asked = dict.fromkeys(atom.label for atom in atoms(failing))
    return f"{party.name}, where {listed(f'{k} is {own[k]}' if k in own else f'{k} is not set' for k in asked)}"


def _failing(term: Term, party: Party) -> Term:
    """The first term of a conjunction that fails for a party with one label map; else the whole."""
    if not isinstance(term, And) or len(party.identities) != 1:
        return term
    return next((_failing(part, party) for part in term.terms if not _picked(part, party)), term)


def _picked(term: Term, party: Party) -> bool:
    return any(map(compiled(term), party.identities))


def _selector(side: Side) -> Mismatch | None:
    if not _asks_labels(side.entity):
        return None
    term = _peer_term(side.entity, side.scope)
    if term is None or _picked(term, side.party):
        return None
    return Mismatch("selector", lambda: _unselected(term, side.party))


def _asks_labels(entity: EntityRule) -> bool:
    """Looked at before the cache is: hashing an entity with its nets costs more than most rules do."""
    accounts = entity.service_accounts is not None
    return bool(entity.selector or entity.not_selector or entity.namespace_selector or accounts)


def _unselected(term: Term, party: Party) -> tuple[str, str]:
    failing = _failing(term, party)
    return canonical(failing), _known_as(party, failing)


def _not_selector(side: Side) -> Mismatch | None:
    if not side.entity.not_selector:
        return None
    term = _excluded_term(side.entity)
    if term is None or not _picked(term, side.party):
        return None
    return Mismatch("notSelector", lambda: (f"anything but {canonical(term)}", _known_as(side.party, term)))


def _has_port(side: Side, port: Port) -> bool:
    if isinstance(port, PortRange):
        numbered = side.flow.protocol in PROTOCOLS_WITH_NUMBERS
        return numbered and side.port is not None and port.first <= side.port <= port.last
    wanted = (port.name, side.flow.protocol, side.port)
    return any((each.name, protocol_number(each.protocol), each.port) == wanted for each in side.party.ports)


def _port_found(side: Side) -> str:
    return f"port {side.port}" if side.port is not None else "a packet whose port is not known"


def _ports(side: Side) -> Mismatch | None:
    if not side.entity.ports or any(_has_port(side, port) for port in side.entity.ports):
        return None
    return Mismatch("ports", lambda: (listed(map(port_text, side.entity.ports)), _port_found(side)))


def _not_ports(side: Side) -> Mismatch | None:
    ports = side.entity.not_ports
    if ports and side.flow.protocol not in PORT_PROTOCOLS:
        return Mismatch("notPorts", lambda: ("a protocol with ports", f"protocol {side.flow.protocol}"))
    if not any(_has_port(side, port) for port in ports):
        return None
    return Mismatch("notPorts", lambda: (f"anything but {listed(map(port_text, ports))}", _port_found(side)))


def _services(side: Side) -> Mismatch | None:
    wanted = side.entity.services
    if wanted is None:
        return None
    name = (wanted.namespace or side.scope or "", wanted.name)
    is_destination = side.entity is side.rule.destination
    for place in side.party.services:
        port_fits = not is_destination or (side.flow.protocol, side.port) in place.ports
        if (place.namespace, place.name) == name and port_fits:
            return None
    return Mismatch("services", lambda: (f"a backend of Service {'/'.join(name)}", side.party.name))


_RULE_FIELDS: tuple[Callable[[Rule, Flow], Mismatch | None], ...] = (
    _version,
    _protocol,
    _not_protocol,
    _icmp,
    _not_icmp,
)
_SIDE_FIELDS: tuple[Callable[[Side], Mismatch | None], ...] = (
    _nets,
    _not_nets,
    _selector,
    _not_selector,
    _ports,
    _not_ports,
    _services,
)


def _side(name: str, rule: Rule, flow: Flow, scope: str | None) -> Side:
    if name == "source":
        return Side(rule.source, flow.source, flow.source_port, flow, rule, scope)
    return Side(rule.destination, flow.destination, flow.destination_port, flow, rule, scope)


def transport_mismatch(rule: Rule, flow: Flow) -> Mismatch | None:
    """The first field about IP version, protocol and ICMP that the flow fails."""
    for check in _RULE_FIELDS:
        if found := check(rule, flow):
            return found
    return None


def side_mismatch(name: str, rule: Rule, flow: Flow, scope: str | None) -> Mismatch | None:
    """The first field about one end, `source` or `destination`, that the flow fails; `scope` as below."""
    side = _side(name, rule, flow, scope)
    for check in _SIDE_FIELDS:
        if found := check(side):
            return Mismatch(f"{name}.{found.field}", found.words)
    return None


def first_mismatch(rule: Rule, flow: Flow, scope: str | None) -> Mismatch | None:
    """The first field of the rule that the flow fails; None where the rule matches.

    `scope` is the namespace of the rule's policy, None for a cluster-wide one.
    """
    return (
        transport_mismatch(rule, flow)
        or side_mismatch("source", rule, flow, scope)
        or side_mismatch("destination", rule, flow, scope)
    )
