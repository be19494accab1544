"""Policies as Calico v3 objects: plain data for JSON and YAML.

Rule: what `policies.build` reads from the output is the same policy again. Empty fields are left out, as Calico's own
marshalling does, and nothing that a server manages (uid, resourceVersion, creationTimestamp) is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from policies.model import EntityRule, Http, Icmp, Policy, PolicyKind, Rule
from policies.ports import port_value
from policies.written import mapping

Data: TypeAlias = dict[str, Any]

_STAGED = {
    PolicyKind.STAGED_NETWORK_POLICY: "StagedNetworkPolicy",
    PolicyKind.STAGED_GLOBAL_NETWORK_POLICY: "StagedGlobalNetworkPolicy",
    PolicyKind.STAGED_KUBERNETES_NETWORK_POLICY: "StagedNetworkPolicy",
}


def policy_object(policy: Policy) -> Data:
    """The projectcalico.org/v3 object of a policy; converted Kubernetes policies become Calico kinds."""
    kind = _STAGED.get(policy.kind) or ("NetworkPolicy" if policy.namespace is not None else "GlobalNetworkPolicy")
    metadata: Data = {"name": policy.name, "namespace": _namespace(policy)}
    metadata |= {"labels": dict(policy.labels), "annotations": dict(policy.annotations)}
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": kind,
        "metadata": _written(metadata),
        "spec": _written(_spec(policy)),
    }


def _namespace(policy: Policy) -> str | None:
    """As in the written object: where that names none, the one who applies the output chooses, as with the original."""
    written = policy.source.document if policy.source else None
    return policy.namespace if written is None or mapping(written, "metadata").get("namespace") else None


def documents(objects: Iterable[Data]) -> Data:
    """Several objects as one JSON document: the object itself where there is one, else a `v1 List`."""
    found = list(objects)
    return found[0] if len(found) == 1 else {"apiVersion": "v1", "kind": "List", "items": found}


def _spec(policy: Policy) -> Data:
    return {
        "stagedAction": policy.staged_action and policy.staged_action.value,
        "tier": policy.tier,
        "order": _order(policy.order),
        "namespaceSelector": policy.namespace_selector,
        "selector": policy.selector,
        "serviceAccountSelector": policy.service_account_selector,
        "types": [direction.value for direction in policy.types],
        "applyOnForward": policy.apply_on_forward,
        "doNotTrack": policy.do_not_track,
        "preDNAT": policy.pre_dnat,
        "performanceHints": list(policy.performance_hints),
        "ingress": [rule_object(rule) for rule in policy.ingress],
        "egress": [rule_object(rule) for rule in policy.egress],
    }


def _order(order: float | None) -> int | float | None:
    return int(order) if order is not None and order.is_integer() else order


def rule_object(rule: Rule) -> Data:
    """One rule of a policy."""
    return _written(
        {
            "action": rule.action.value,
            "ipVersion": rule.ip_version,
            "protocol": rule.protocol,
            "icmp": rule.icmp and _icmp(rule.icmp),
            "notProtocol": rule.not_protocol,
            "notICMP": rule.not_icmp and _icmp(rule.not_icmp),
            "http": rule.http and _http(rule.http),
            "source": _entity(rule.source),
            "destination": _entity(rule.destination),
            "metadata": {"annotations": dict(rule.annotations)} if rule.annotations else None,
        }
    )


def _entity(entity: EntityRule) -> Data:
    accounts, services = entity.service_accounts, entity.services
    return _written(
        {
            "nets": [str(net) for net in entity.nets],
            "notNets": [str(net) for net in entity.not_nets],
            "selector": entity.selector,
            "notSelector": entity.not_selector,
            "namespaceSelector": entity.namespace_selector,
            "serviceAccounts": accounts and _written({"names": list(accounts.names), "selector": accounts.selector}),
            "services": services and _written({"name": services.name, "namespace": services.namespace}),
            "ports": [port_value(port) for port in entity.ports],
            "notPorts": [port_value(port) for port in entity.not_ports],
        }
    )


def _icmp(icmp: Icmp) -> Data:
    return {name: value for name, value in (("type", icmp.type), ("code", icmp.code)) if value is not None}


def _http(http: Http) -> Data:
    paths = [{"prefix" if path.prefix else "exact": path.value} for path in http.paths]
    return _written({"methods": list(http.methods), "paths": paths})


def _written(fields: Mapping[str, Any]) -> Data:
    """Without what is empty or false; zero is a value (`order: 0`)."""
    return {name: value for name, value in fields.items() if value not in (None, "", [], {}) and value is not False}
