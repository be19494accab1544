"""Kubernetes policies to Calico's, exactly as Calico's own converter does it, faults included.

Rule: same names, order, selector text, port merging, rule order and errors as
libcalico-go/lib/backend/k8s/conversion/conversion.go. Three things surprise: a rule with a bad port is left out and the
rest stays (`Policy.errors` says so); an unparseable CIDR leaves the peer empty, which matches everyone; and without
`policyTypes` the converter says Ingress, because the API server has filled them in before (`served_types`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from policies import gotext
from policies.cluster import cluster_policy
from policies.combine import PortsByProtocol, by_protocol, combined
from policies.fields import CALICO
from policies.labels import selector_text
from policies.model import (
    Action,
    Direction,
    EntityRule,
    Network,
    Policy,
    PolicyKind,
    Port,
    Rule,
    StagedAction,
)
from policies.nets import parse_net
from policies.ports import parse_port
from policies.written import Document, Written, items, mapping, text

ORDER = 1000.0
"""Where every converted NetworkPolicy stands in tier `default`."""

_UUID = re.compile(r"[0-9a-fA-F]{8}(-?)[0-9a-fA-F]{4}(\1[0-9a-fA-F]{4}){2}\1[0-9a-fA-F]{12}")
_SIDES = ((Direction.INGRESS, "ingress", "from"), (Direction.EGRESS, "egress", "to"))


def to_calico(written: Written) -> Policy | None:
    """The Calico policy of a Kubernetes policy; None where Calico makes none (a cluster-wide one without subject).

    Raises ValueError for a uid that is no UUID, as Calico's converter refuses it.
    """
    _check_uid(text(written.metadata, "uid"))
    if written.kind.namespaced:
        return _network_policy(written)
    return cluster_policy(written)


def served(written: Written) -> Policy | None:
    """Like `to_calico`, for a file that has not been through the API server: with the types it would fill in."""
    policy = to_calico(written)
    if policy is None or not written.kind.namespaced or written.kind.group == CALICO:
        return policy
    return replace(policy, types=served_types(written.spec)) if not items(written.spec, "policyTypes") else policy


def served_types(spec: Document) -> tuple[Direction, ...]:
    """`policyTypes` as the API server sets them: Ingress always, Egress where egress rules are written."""
    return tuple(Direction) if items(spec, "egress") else (Direction.INGRESS,)


def error_text(policy: Policy) -> str | None:
    """The sentence of Calico's converter about the rules it left out; None where it converted all of them."""
    if len(policy.errors) <= 1:
        return f"policy: {policy.name}: error with rule {policy.errors[0]}" if policy.errors else None
    rules = "".join(f"-  {error}\n" for error in policy.errors)
    return f"policy: {policy.name}: error with the following rules:\n{rules}"


def _check_uid(uid: str) -> None:
    if uid and not _UUID.fullmatch(uid):
        raise ValueError(f"failed to parse UID for resource: {uid!r} is no UUID")


def _network_policy(written: Written) -> Policy:
    spec, staged = written.spec, written.kind.group == CALICO
    errors: list[str] = []
    rules = {direction: tuple(_rules(written, direction, name, peers, errors)) for direction, name, peers in _SIDES}
    kinds = (PolicyKind.KUBERNETES_NETWORK_POLICY, PolicyKind.STAGED_KUBERNETES_NETWORK_POLICY)
    return Policy(
        kind=kinds[staged],
        name=written.name,
        namespace=written.namespace,
        order=ORDER,
        selector=selector_text(mapping(spec, "podSelector"), pods=True),
        types=_types(spec),
        ingress=rules[Direction.INGRESS],
        egress=rules[Direction.EGRESS],
        staged_action=StagedAction(text(spec, "stagedAction") or "Set") if staged else None,
        uid=text(written.metadata, "uid"),
        errors=tuple(errors),
        source=written.source,
    )


def _types(spec: Document) -> tuple[Direction, ...]:
    listed = items(spec, "policyTypes")
    return tuple(direction for direction in Direction if direction.value in listed) or (Direction.INGRESS,)


def _rules(written: Written, direction: Direction, name: str, peers: str, errors: list[str]) -> Iterator[Rule]:
    for index, rule in enumerate(items(written.spec, name)):
        try:
            converted = [*_rule(rule, direction, peers)]
        except ValueError as error:
            printed = gotext.rule(rule, direction.value, peers)
            errors.append(f"{printed} (k8s rule couldn't be converted: failed to parse k8s port: {error})")
        else:
            place = written.place("spec", name, index)
            yield from (replace(each, place=place) for each in converted)


def _rule(rule: Document, direction: Direction, peers: str) -> Iterator[Rule]:
    entities = [_peer(peer) for peer in items(rule, peers)] or [EntityRule()]
    return combined(_ports(items(rule, "ports")), entities, direction, Action.ALLOW)


def _ports(ports: list[Document]) -> PortsByProtocol:
    if not ports:
        return {"": None}
    return by_protocol((_protocol(port), _port(port)) for port in ports)


def _protocol(port: Document) -> str:
    """TCP where none is written; an empty text, which the API server refuses, is any protocol to the converter."""
    return "TCP" if port.get("protocol") is None else text(port, "protocol")


def _port(port: Document) -> Port | None:
    if port.get("port") is None:
        return None
    written = str(port["port"]) if port.get("endPort") is None else f"{port['port']}:{port['endPort']}"
    try:
        return parse_port(written)
    except ValueError as error:
        raise ValueError(f"invalid port {written}: {error}") from None


def _peer(peer: Document) -> EntityRule:
    if peer.get("ipBlock") is not None:
        return _block(peer["ipBlock"])
    return EntityRule(
        selector=selector_text(peer.get("podSelector"), pods=True),
        namespace_selector=selector_text(peer.get("namespaceSelector"), pods=False),
    )


def _block(block: Document) -> EntityRule:
    included = _nets([text(block, "cidr")], parse_net)
    return EntityRule(nets=included, not_nets=_nets(items(block, "except"), parse_net) if included else ())


def _nets(written: Iterable[str], parse: Callable[[str], Network]) -> tuple[Network, ...]:
    """Networks up to the first that cannot be read: Calico logs that one and drops it with all that follow."""
    nets: list[Network] = []
    for each in written:
        try:
            nets.append(parse(each))
        except ValueError:
            break
    return tuple(nets)
