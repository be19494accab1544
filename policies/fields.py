"""The tables of fields: every kind of object that is read, and the shape each may have.

Rule: one row a field, in the order of the API. Sources: api/pkg/apis/projectcalico/v3 (Calico), networking.k8s.io/v1,
policy.networking.k8s.io v1alpha1 and v1alpha2. Kinds that only say what exists (Pod, Namespace, …) are open: they hold
many fields that no policy looks at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from policies.ports import parse_port, parse_protocol
from policies.shapes import (
    ANYTHING,
    FLAG,
    INTEGER,
    NUMBER,
    TEXT,
    TEXT_OR_INTEGER,
    Fields,
    ListOf,
    MapOf,
    Scalar,
    Shape,
)

TEXTS = ListOf(TEXT)
LABELS = MapOf(TEXT)
PORTS = ListOf(Scalar("a port", parse_port))
PROTOCOL = Scalar("a protocol", parse_protocol)

METADATA: Mapping[str, Shape] = {
    "name": TEXT,
    "generateName": TEXT,
    "namespace": TEXT,
    "labels": LABELS,
    "annotations": LABELS,
    "uid": TEXT,
    "resourceVersion": TEXT,
    "generation": INTEGER,
    "creationTimestamp": TEXT,
    "deletionTimestamp": TEXT,
    "deletionGracePeriodSeconds": INTEGER,
    "finalizers": TEXTS,
    "ownerReferences": ANYTHING,
    "managedFields": ANYTHING,
    "selfLink": TEXT,
}

# -- Calico ----------------------------------------------------------------------------------------------------------

ICMP = Fields({"type": INTEGER, "code": INTEGER})
ENTITY = Fields(
    {
        "nets": TEXTS,
        "notNets": TEXTS,
        "selector": TEXT,
        "notSelector": TEXT,
        "namespaceSelector": TEXT,
        "ports": PORTS,
        "notPorts": PORTS,
        "serviceAccounts": Fields({"names": TEXTS, "selector": TEXT}),
        "services": Fields({"name": TEXT, "namespace": TEXT}),
    }
)
RULE = Fields(
    {
        "action": TEXT,
        "ipVersion": INTEGER,
        "protocol": PROTOCOL,
        "notProtocol": PROTOCOL,
        "icmp": ICMP,
        "notICMP": ICMP,
        "http": Fields({"methods": TEXTS, "paths": ListOf(Fields({"exact": TEXT, "prefix": TEXT}))}),
        "source": ENTITY,
        "destination": ENTITY,
        "metadata": Fields({"annotations": LABELS}),
    }
)
NETWORK_POLICY: Mapping[str, Shape] = {
    "tier": TEXT,
    "order": NUMBER,
    "ingress": ListOf(RULE),
    "egress": ListOf(RULE),
    "selector": TEXT,
    "types": TEXTS,
    "serviceAccountSelector": TEXT,
    "performanceHints": TEXTS,
}
GLOBAL_NETWORK_POLICY: Mapping[str, Shape] = {
    **NETWORK_POLICY,
    "namespaceSelector": TEXT,
    "doNotTrack": FLAG,
    "preDNAT": FLAG,
    "applyOnForward": FLAG,
}
STAGED: Mapping[str, Shape] = {"stagedAction": TEXT}
TIER: Mapping[str, Shape] = {"order": NUMBER, "defaultAction": TEXT}
HOST_ENDPOINT: Mapping[str, Shape] = {
    "node": TEXT,
    "interfaceName": TEXT,
    "expectedIPs": TEXTS,
    "profiles": TEXTS,
    "ports": ListOf(Fields({"name": TEXT, "protocol": PROTOCOL, "port": INTEGER})),
}
NETWORK_SET: Mapping[str, Shape] = {"nets": TEXTS}

# -- Kubernetes ------------------------------------------------------------------------------------------------------

LABEL_SELECTOR = Fields(
    {
        "matchLabels": LABELS,
        "matchExpressions": ListOf(Fields({"key": TEXT, "operator": TEXT, "values": TEXTS})),
    }
)
PEERS = ListOf(
    Fields(
        {
            "podSelector": LABEL_SELECTOR,
            "namespaceSelector": LABEL_SELECTOR,
            "ipBlock": Fields({"cidr": TEXT, "except": TEXTS}),
        }
    )
)
KUBERNETES_PORTS = ListOf(Fields({"protocol": TEXT, "port": TEXT_OR_INTEGER, "endPort": INTEGER}))
KUBERNETES_POLICY: Mapping[str, Shape] = {
    "podSelector": LABEL_SELECTOR,
    "ingress": ListOf(Fields({"from": PEERS, "ports": KUBERNETES_PORTS})),
    "egress": ListOf(Fields({"to": PEERS, "ports": KUBERNETES_PORTS})),
    "policyTypes": TEXTS,
}

PODS = Fields({"namespaceSelector": LABEL_SELECTOR, "podSelector": LABEL_SELECTOR})
SUBJECT = Fields({"namespaces": LABEL_SELECTOR, "pods": PODS})
INGRESS_PEERS = ListOf(SUBJECT)
EGRESS_PEERS = ListOf(Fields({**SUBJECT.known, "nodes": LABEL_SELECTOR, "networks": TEXTS, "domainNames": TEXTS}))
_DESTINATION = Fields(
    {"destinationPort": Fields({"number": INTEGER, "range": Fields({"start": INTEGER, "end": INTEGER})})}
)
CLUSTER_PROTOCOLS = ListOf(
    Fields({"tcp": _DESTINATION, "udp": _DESTINATION, "sctp": _DESTINATION, "destinationNamedPort": TEXT})
)
ADMIN_PORTS = ListOf(
    Fields(
        {
            "portNumber": Fields({"protocol": TEXT, "port": INTEGER}),
            "portRange": Fields({"protocol": TEXT, "start": INTEGER, "end": INTEGER}),
            "namedPort": TEXT,
        }
    )
)


def _cluster_spec(first: Mapping[str, Shape], ports: str, shape: Shape) -> Mapping[str, Shape]:
    rule = {"name": TEXT, "action": TEXT, ports: shape}
    return {
        **first,
        "subject": SUBJECT,
        "ingress": ListOf(Fields({**rule, "from": INGRESS_PEERS})),
        "egress": ListOf(Fields({**rule, "to": EGRESS_PEERS})),
    }


CLUSTER_POLICY = _cluster_spec({"tier": TEXT, "priority": INTEGER}, "protocols", CLUSTER_PROTOCOLS)
ADMIN_POLICY = _cluster_spec({"priority": INTEGER}, "ports", ADMIN_PORTS)
BASELINE_POLICY = _cluster_spec({}, "ports", ADMIN_PORTS)

CONTAINERS = ListOf(
    Fields({"ports": ListOf(Fields({"name": TEXT, "protocol": TEXT, "containerPort": INTEGER}, True))}, True)
)
POD: Mapping[str, Shape] = {
    "nodeName": TEXT,
    "serviceAccountName": TEXT,
    "hostNetwork": FLAG,
    "containers": CONTAINERS,
    "initContainers": CONTAINERS,
}
POD_STATUS = Fields({"phase": TEXT, "podIP": TEXT, "podIPs": ListOf(Fields({"ip": TEXT}, True))}, True)
SERVICE: Mapping[str, Shape] = {
    "selector": LABELS,
    "clusterIP": TEXT,
    "clusterIPs": TEXTS,
    "ports": ListOf(
        Fields({"name": TEXT, "protocol": TEXT, "port": INTEGER, "targetPort": TEXT_OR_INTEGER}, True),
    ),
}

# -- kinds -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object: its API group ("" is the core), whether it lives in a namespace, and its shape."""

    group: str
    name: str
    namespaced: bool
    shape: Fields


def _kind(group: str, name: str, spec: Mapping[str, Shape] | None, *, namespaced: bool, is_open: bool = False) -> Kind:
    fields: dict[str, Shape] = {"apiVersion": TEXT, "kind": TEXT, "metadata": Fields(METADATA, is_open)}
    if spec is not None:
        fields["spec"] = Fields(spec, is_open)
    fields["status"] = POD_STATUS if name == "Pod" else ANYTHING
    return Kind(group, name, namespaced, Fields(fields, is_open))


CALICO = "projectcalico.org"
STORED = "crd.projectcalico.org"
"""The group of Calico's objects as older releases store them: no defaults, names with their tier, labels aside."""

_CALICO_KINDS: tuple[tuple[str, Mapping[str, Shape], bool], ...] = (
    ("NetworkPolicy", NETWORK_POLICY, True),
    ("GlobalNetworkPolicy", GLOBAL_NETWORK_POLICY, False),
    ("StagedNetworkPolicy", {**NETWORK_POLICY, **STAGED}, True),
    ("StagedGlobalNetworkPolicy", {**GLOBAL_NETWORK_POLICY, **STAGED}, False),
    ("StagedKubernetesNetworkPolicy", {**KUBERNETES_POLICY, **STAGED}, True),
    ("Tier", TIER, False),
    ("HostEndpoint", HOST_ENDPOINT, False),
    ("NetworkSet", NETWORK_SET, True),
    ("GlobalNetworkSet", NETWORK_SET, False),
)

KINDS: Mapping[tuple[str, str], Kind] = {
    (kind.group, kind.name): kind
    for kind in (
        *(_kind(group, name, spec, namespaced=ns) for name, spec, ns in _CALICO_KINDS for group in (CALICO, STORED)),
        _kind("networking.k8s.io", "NetworkPolicy", KUBERNETES_POLICY, namespaced=True),
        _kind("policy.networking.k8s.io", "ClusterNetworkPolicy", CLUSTER_POLICY, namespaced=False),
        _kind("policy.networking.k8s.io", "AdminNetworkPolicy", ADMIN_POLICY, namespaced=False),
        _kind("policy.networking.k8s.io", "BaselineAdminNetworkPolicy", BASELINE_POLICY, namespaced=False),
        _kind("", "Pod", POD, namespaced=True, is_open=True),
        _kind("", "Namespace", None, namespaced=False, is_open=True),
        _kind("", "ServiceAccount", None, namespaced=True, is_open=True),
        _kind("", "Service", SERVICE, namespaced=True, is_open=True),
    )
}
