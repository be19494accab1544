"""Who can reach a port, and what a changed set of policies would do to given flows: pure functions over an inventory.

Rule: every answer is a verdict of `policies.evaluate`. Pods are asked one by one; addresses outside the cluster by one
address for each piece into which the nets of the policies cut them.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from policies.beside import Neighbours, Suspicion, changed, one_family
from policies.classes import address_classes
from policies.errors import PolicyError, Problem
from policies.evaluate import Rules, Ruleset, Verdict, evaluate, evaluate_at, selected, visits
from policies.flow import PORT_PROTOCOLS, Directory, Flow, Party, Target, flow_to, parse_target, protocol_number
from policies.model import Inventory, Place, Service


def targets(directory: Directory, target: Target) -> list[tuple[Party, Target]]:
    """The parties behind `PODorSERVICE:PORT`: the pod or address itself, or a Service's pods with their own port.

    Raises PolicyError where there is neither.
    """
    try:
        return [(directory.find(target.who), target)]
    except PolicyError:
        service = _service(directory.inventory, target.who)
        if service is None:
            raise
        return list(_backends(directory, service, target))


def _service(inventory: Inventory, text: str) -> Service | None:
    namespace, _, name = text.rpartition("/")
    found = [s for s in inventory.services if s.name == name and namespace in ("", s.namespace)]
    return found[0] if len(found) == 1 else None


def _backends(directory: Directory, service: Service, target: Target) -> Iterator[tuple[Party, Target]]:
    for party in directory.parties():
        for place in party.services:
            wanted = [p for p in service.ports if p.port == target.number and protocol_number(p.protocol)]
            if (place.namespace, place.name) != (service.namespace, service.name):
                continue
            for port in wanted:
                number = _target_number(party, port.target, port.port)
                yield party, Target(target.who, protocol_number(port.protocol) or 6, number)


def _target_number(party: Party, target: int | str, otherwise: int) -> int:
    if isinstance(target, int):
        return target
    return next((port.port for port in party.ports if port.name == target), otherwise)


def _outsiders(directory: Directory) -> list[Party]:
    rules = (r for p in directory.inventory.policies for r in (*p.ingress, *p.egress))
    entities = [entity for rule in rules for entity in (rule.source, rule.destination)]
    pieces = (directory.at(address) for address in address_classes(entities))
    return [party for party in pieces if party.endpoint is None]


def who_can(inventory: Inventory, target: Target) -> list[Verdict]:
    """One verdict for each pod and each kind of outside address, against everything the target stands for.

    Raises PolicyError for a target that the inventory does not know.
    """
    directory, ruleset = Directory(inventory), Ruleset.of(inventory)
    found = []
    for party, port in targets(directory, target):
        version = party.address.version if party.address else 4
        sources = [each for each in directory.parties() if each.name != party.name]
        outside = [each for each in _outsiders(directory) if each.address and each.address.version == version]
        pairs = (directory.of_one_family(source, party) for source in (*sources, *outside) if one_family(source, party))
        found += [evaluate(flow_to(source, end, port), ruleset) for source, end in pairs]
    return found


# -- flows as JSON lines ---------------------------------------------------------------------------------------------


def _problem(number: int, message: str, advice: str) -> PolicyError:
    return PolicyError([Problem("flow", Place("flows", number), "", message, advice)])


def _number(fields: dict[str, Any], name: str) -> int | None:
    value = fields.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _party(directory: Directory, text: str) -> Party:
    try:
        return directory.at(ip_address(text))
    except ValueError:
        return directory.find(text)


def _flow(fields: dict[str, Any], directory: Directory) -> Flow:
    if "from" in fields and "to" in fields:
        target = parse_target(str(fields["to"]))
        ends = _party(directory, str(fields["from"])), _party(directory, target.who)
        return flow_to(*directory.of_one_family(*ends), target)
    protocol = protocol_number(str(fields["protocol"]))
    if protocol is None:
        raise ValueError(fields["protocol"])
    found = _party(directory, str(fields["source_ip"])), _party(directory, str(fields["destination_ip"]))
    source, destination = directory.of_one_family(*found)
    port = _number(fields, "destination_port")
    if protocol in PORT_PROTOCOLS and port is None:
        raise KeyError("destination_port")
    kind = (_number(fields, "icmp_type"), _number(fields, "icmp_code"))
    return Flow(source, destination, protocol, port, _number(fields, "source_port"), *kind)


def read_flows(text: str, directory: Directory) -> list[Flow]:
    """Flows from JSON lines, one object each, with the names of stored packets or with `from` and `to`.

    `source_ip`, `destination_ip`, `protocol`, `destination_port` (and `icmp_type`), as `denylog packets -o jsonl`
    prints them; or `{"from": "web/client", "to": "web/server:80/tcp"}`. Raises PolicyError.
    """
    flows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            flows.append(_flow(json.loads(line), directory))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            advice = 'write {"source_ip": "…", "destination_ip": "…", "protocol": "tcp", "destination_port": 80}'
            raise _problem(number, f"no flow: {error}", advice) from error
    return flows


# -- what if ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Change:
    """One flow under the old and the new policies; `alike` counts the others that no policy can tell from it."""

    before: Verdict
    after: Verdict
    alike: int = 0

    @property
    def kind(self) -> str:
        """`opened`, `closed`, `still allowed` or `still denied`."""
        if self.before.allowed != self.after.allowed:
            return "opened" if self.after.allowed else "closed"
        return "still allowed" if self.after.allowed else "still denied"


def _judges(old: Rules, new: Rules) -> Callable[[Flow, int], Change]:
    def judge(flow: Flow, alike: int) -> Change:
        places = visits(flow)
        return Change(evaluate_at(places, flow, old), evaluate_at(places, flow, new), alike)

    return judge


def compare(flows: Iterable[Flow], before: Inventory, after: Inventory) -> list[Change]:
    """Each flow under both sets; the flows' parties come from one inventory with the pods of both."""
    judge = _judges(*_rules(before, after))
    return [judge(flow, 0) for flow in flows]


def _rules(before: Inventory, after: Inventory) -> tuple[Rules, Rules]:
    return selected(Ruleset.of(before)), selected(Ruleset.of(after))


@dataclass(frozen=True, slots=True)
class Beside:
    """What a change opens or closes beside the flows that were asked about; `unseen`: kinds of flows not looked at."""

    changes: tuple[Change, ...]
    unseen: int = 0


MOST_BESIDE = 200_000
"""Kinds of flows that are looked at beside those that were asked about: seconds where few can change, else half a
minute."""


def what_if(flows: Sequence[Flow], before: Inventory, after: Inventory) -> tuple[list[Change], Beside]:
    """What the new policies change: for the flows themselves, and for their neighbours (only those that change)."""
    return compare(flows, before, after), changes_beside(flows, before, after)


def changes_beside(flows: Sequence[Flow], before: Inventory, after: Inventory, most: int = MOST_BESIDE) -> Beside:
    """Flows that were not asked about, at the same ports, that the new policies open or close."""
    directory, touched, rules = Directory(after), changed(before, after), _rules(before, after)
    judge, suspicion = _judges(*rules), Suspicion(touched, *rules)
    around = Neighbours(flows, directory.parties(), _outsiders(directory), touched)
    found = (judge(each.flow, each.alike) for each in itertools.islice(around, most) if suspicion.falls_on(each.flow))
    differ = tuple(change for change in found if change.kind in ("opened", "closed"))
    return Beside(differ, max(0, around.count() - most))
