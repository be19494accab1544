"""Kubernetes rules as Calico's error messages print them, so that its sentences can be compared and searched for.

Rule: the text is that of the generated String() methods (k8s.io/api/networking/v1/generated.pb.go), and for policies of
the whole cluster that of `%+v`, where Calico prints memory addresses; they are 0x0 here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from policies.written import Document, items, mapping, text


def rule(document: Document, kind: str, peers: str) -> str:
    """One rule of a NetworkPolicy; `kind` is Ingress or Egress, `peers` is `from` or `to`."""
    ports = _list("NetworkPolicyPort", (_port(port) for port in items(document, "ports")))
    others = _list("NetworkPolicyPeer", (_peer(peer) for peer in items(document, peers)))
    return f"&NetworkPolicy{kind}Rule{{Ports:{ports},{peers.capitalize()}:{others},}}"


def _list(name: str, texts: Iterable[str]) -> str:
    return f"[]{name}{{{''.join(each + ',' for each in texts)}}}"


def _pointer(value: Any, missing: str = "nil") -> str:
    return missing if value is None else f"*{value}"


def _port(port: Document) -> str:
    number = "nil" if port.get("port") is None else port["port"]
    protocol, end = _pointer(port.get("protocol")), _pointer(port.get("endPort"))
    return f"NetworkPolicyPort{{Protocol:{protocol},Port:{number},EndPort:{end},}}"


def _peer(peer: Document) -> str:
    pods, namespaces = (selector(peer.get(name)) for name in ("podSelector", "namespaceSelector"))
    block = "nil" if peer.get("ipBlock") is None else _block(peer["ipBlock"])
    return f"NetworkPolicyPeer{{PodSelector:{pods},NamespaceSelector:{namespaces},IPBlock:{block},}}"


def _block(block: Document) -> str:
    return f"&IPBlock{{CIDR:{text(block, 'cidr')},Except:[{' '.join(items(block, 'except'))}],}}"


def cluster_rule(document: Document, peers: str) -> str:
    """One rule of a ClusterNetworkPolicy or of its forerunners; `peers` is `from` or `to`."""
    others = " ".join(_cluster_peer(peer, peers) for peer in items(document, peers))
    ports = f"Protocols:[{' '.join(map(_cluster_protocol, items(document, 'protocols')))}]"
    if "ports" in document:
        ports = f"Ports:{_address(document['ports'])}"
    head = f"Name:{text(document, 'name')} Action:{text(document, 'action')}"
    return f"&{{{head} {peers.capitalize()}:[{others}] {ports}}}"


def _address(value: Any) -> str:
    return "<nil>" if value is None else "0x0"


def _cluster_peer(peer: Document, peers: str) -> str:
    shown = f"Namespaces:{_plain_selector(peer, 'namespaces')} Pods:{_address(peer.get('pods'))}"
    if peers == "to":
        lists = (f"{field}:[{' '.join(items(peer, name))}]" for field, name in _CLUSTER_LISTS)
        shown += f" Nodes:{_plain_selector(peer, 'nodes')} {' '.join(lists)}"
    return f"{{{shown}}}"


_CLUSTER_LISTS = (("Networks", "networks"), ("DomainNames", "domainNames"))


def _plain_selector(peer: Document, name: str) -> str:
    return selector(peer.get(name)).replace("&v1.", "&")


def _cluster_protocol(entry: Document) -> str:
    pointers = " ".join(f"{name.upper()}:{_address(entry.get(name))}" for name in ("tcp", "udp", "sctp"))
    return f"{{{pointers} DestinationNamedPort:{text(entry, 'destinationNamedPort')}}}"


def selector(document: Document | None) -> str:
    """A LabelSelector."""
    if document is None:
        return "nil"
    pairs = "".join(f"{key}: {value}," for key, value in sorted(mapping(document, "matchLabels").items()))
    wanted = _list("LabelSelectorRequirement", map(_requirement, items(document, "matchExpressions")))
    return f"&v1.LabelSelector{{MatchLabels:map[string]string{{{pairs}}},MatchExpressions:{wanted},}}"


def _requirement(wanted: Document) -> str:
    values = " ".join(items(wanted, "values"))
    return (
        f"LabelSelectorRequirement{{Key:{text(wanted, 'key')},Operator:{text(wanted, 'operator')},Values:[{values}],}}"
    )
