"""What is read off each kind of object: addresses, networks, the workload of a pod, and since when it holds.

Rule: one row of a table for each kind; what an object does not say is not made up.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

Object: TypeAlias = Mapping[str, Any]

INTERFACE_PREFIX = "cali"
"""Felix' InterfacePrefix where it was not changed."""
CORE = "v1"
_CALICO = ("projectcalico.org", "crd.projectcalico.org")
_ENDED_PHASES = ("Succeeded", "Failed")
# What makes pods, and for what its own owner says; others have kinds of the same names (batch.volcano.sh).
MAKERS: Mapping[str, tuple[str, ...]] = {"ReplicaSet": ("apps", "extensions"), "Job": ("batch",)}
# Labels by which a controller marks the pods of a ReplicaSet that it made; the ReplicaSet's name ends in the value.
_TEMPLATE_HASHES = {"pod-template-hash": "Deployment", "rollouts-pod-template-hash": "Rollout"}
# CronJobs name their jobs after the scheduled minute, before Kubernetes 1.21 after the second
# (pkg/controller/cronjob/utils.go, getJobName).
_CRON_JOB = re.compile(r"(.+)-(?:\d{8}|\d{10})")
# Addresses of a node that Calico keeps in annotations: the tunnels have addresses of the pod network.
_NODE_ANNOTATIONS = tuple(
    f"projectcalico.org/IPv{version}{name}"
    for version in (4, 6)
    for name in ("Address", "IPIPTunnelAddr", "VXLANTunnelAddr", "WireguardInterfaceAddr")
)


@dataclass(frozen=True, slots=True)
class Sight:
    """What rows are made with besides the object itself."""

    at: datetime
    valid_from: datetime | None
    prefix: str
    owners: Mapping[tuple[str, str, str], Object]
    problems: list[str]


@dataclass(frozen=True, slots=True)
class Kind:
    """How a kind becomes a row: the fields that only it has, since when it holds, what of it is kept."""

    namespaced: bool
    fields: Callable[[Object, Sight], dict[str, Any]]
    since: Callable[[Object], datetime | None]
    spec: tuple[str, ...] | None = None
    status: tuple[str, ...] = ()


def _pod(each: Object, sight: Sight) -> dict[str, Any]:
    spec, status = each.get("spec") or {}, each.get("status") or {}
    namespace, name = namespace_of(each) or "default", each["metadata"]["name"]
    annotations = each["metadata"].get("annotations") or {}
    # Calico writes the address that it gave into an annotation before the kubelet reports it.
    told = [entry.get("ip") for entry in status.get("podIPs") or ()] or [status.get("podIP")]
    given = annotations.get("cni.projectcalico.org/podIPs") or annotations.get("cni.projectcalico.org/podIP") or ""
    kind, workload = _workload(each, sight.owners)
    host_network = bool(spec.get("hostNetwork"))
    return {
        "node": spec.get("nodeName"),
        "addresses": _addresses(told if any(told) else given.split(","), each, sight),
        "host_network": host_network,
        "interface": None if host_network else interface_name(namespace, name, sight.prefix),
        "workload_kind": kind,
        "workload": workload,
    }


def interface_name(namespace: str, pod: str, prefix: str = INTERFACE_PREFIX) -> str:
    """The host's end of a pod's veth (libcalico-go, conversion/workload_endpoint_default.go, VethNameForWorkload)."""
    return prefix + hashlib.sha1(f"{namespace}.{pod}".encode()).hexdigest()[:11]


def _workload(pod: Object, owners: Mapping[tuple[str, str, str], Object]) -> tuple[str, str]:
    """What made a pod, as far up as it is told: by the owner itself where it is among the objects, else by its name."""
    owner = _owner(pod)
    if owner is None or owner["kind"] == "Node":  # a static pod belongs to its node; it is its own workload
        return "Pod", pod["metadata"]["name"]
    kind, name = owner["kind"], owner["name"]
    maker = maker_of(pod)
    if maker is None:
        return kind, name
    above = owners.get(maker)
    if above is not None and owner.get("uid") in (None, above["metadata"].get("uid")):
        made_by = _owner(above)
        return (made_by["kind"], made_by["name"]) if made_by else (kind, name)
    if kind == "ReplicaSet":
        return _maker_of_replica_set(name, pod["metadata"].get("labels") or {})
    found = _CRON_JOB.fullmatch(name)
    return ("CronJob", found[1]) if found else (kind, name)


def maker_of(pod: Object) -> tuple[str, str, str] | None:
    """The ReplicaSet or Job that made a pod, on behalf of something else perhaps: kind, namespace and name."""
    owner = _owner(pod)
    if owner is None:
        return None
    group = str(owner.get("apiVersion") or "").partition("/")[0]
    is_maker = owner["kind"] in MAKERS and group in ("", *MAKERS[owner["kind"]])
    return (owner["kind"], namespace_of(pod) or "default", owner["name"]) if is_maker else None


def _maker_of_replica_set(name: str, labels: Mapping[str, str]) -> tuple[str, str]:
    for label, kind in _TEMPLATE_HASHES.items():
        ending = f"-{labels.get(label)}"
        if name.endswith(ending) and name != ending:
            return kind, name.removesuffix(ending)
    return "ReplicaSet", name


def _owner(each: Object) -> Object | None:
    owners = each["metadata"].get("ownerReferences") or ()
    return next((owner for owner in owners if owner.get("controller")), next(iter(owners), None))


def _node(each: Object, sight: Sight) -> dict[str, Any]:
    spec, status = each.get("spec") or {}, each.get("status") or {}
    annotations = each["metadata"].get("annotations") or {}
    told = [
        entry.get("address") for entry in status.get("addresses") or () if str(entry.get("type")).endswith("IP")
    ] + [annotations.get(name) for name in _NODE_ANNOTATIONS]
    networks = spec.get("podCIDRs") or [spec.get("podCIDR")]
    return {
        "node": each["metadata"]["name"],
        "addresses": _addresses(told, each, sight),
        "networks": _networks(networks, each, sight),
    }


def _service(each: Object, sight: Sight) -> dict[str, Any]:
    spec, status = each.get("spec") or {}, each.get("status") or {}
    balancer = (status.get("loadBalancer") or {}).get("ingress") or ()
    told = [
        *(spec.get("clusterIPs") or [spec.get("clusterIP")]),
        *(spec.get("externalIPs") or ()),
        spec.get("loadBalancerIP"),
        *(entry.get("ip") for entry in balancer),
    ]
    selector = spec.get("selector") or {}
    return {
        "addresses": _addresses([each for each in told if each != "None"], each, sight),
        "selects": tuple(sorted(f"{key}={value}" for key, value in selector.items())),
    }


def _host_endpoint(each: Object, sight: Sight) -> dict[str, Any]:
    spec = each.get("spec") or {}
    return {"node": spec.get("node"), "addresses": _addresses(spec.get("expectedIPs") or (), each, sight)}


def _network_set(each: Object, sight: Sight) -> dict[str, Any]:
    return {"networks": _networks((each.get("spec") or {}).get("nets") or (), each, sight)}


def _ip_pool(each: Object, sight: Sight) -> dict[str, Any]:
    return {"networks": _networks([(each.get("spec") or {}).get("cidr")], each, sight)}


def _nothing(each: Object, sight: Sight) -> dict[str, Any]:
    return {}


def _addresses(texts: Iterable[str | None], each: Object, sight: Sight) -> tuple[str, ...]:
    found = (_each(ipaddress.ip_interface, text, each, sight) for text in texts if text)
    return tuple(dict.fromkeys(str(address.ip) for address in found if address))


def _networks(texts: Iterable[str | None], each: Object, sight: Sight) -> tuple[str, ...]:
    found = (_each(ipaddress.ip_interface, text, each, sight) for text in texts if text)
    return tuple(dict.fromkeys(str(network.network) for network in found if network))


def _each(reads: Callable[[str], Any], text: str, each: Object, sight: Sight) -> Any:
    try:
        return reads(text_of(text).strip())
    except ValueError:
        sight.problems.append(f"{title(each)}: {text!r} is no address")
        return None


# -- since when ------------------------------------------------------------------------------------------------------


def _time(text: Any) -> datetime | None:
    if not text:
        return None
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def ended(pod: Object, sight: Sight) -> datetime | None:
    """When a pod terminated; None while it runs."""
    status = pod.get("status") or {}
    if status.get("phase") not in _ENDED_PHASES:
        return None
    states = [each.get("state") or {} for each in status.get("containerStatuses") or ()]
    ends = [_time((state.get("terminated") or {}).get("finishedAt")) for state in states]
    return max((end for end in ends if end), default=sight.at)


def _made(each: Object) -> datetime | None:
    return _time(each["metadata"].get("creationTimestamp"))


def _started(each: Object) -> datetime | None:
    return _time((each.get("status") or {}).get("startTime")) or _made(each)


def _edited(each: Object) -> datetime | None:
    """When an object was changed last, as far as it tells: `generation` counts the changes of its spec."""
    managed = each["metadata"].get("managedFields") or ()
    times = [_time(entry.get("time")) for entry in managed if entry.get("subresource") != "status"]
    newest = max((found for found in times if found), default=None)
    return newest or (_made(each) if each["metadata"].get("generation") in (None, 1) else None)


_POLICIES = {
    "networking.k8s.io": ("NetworkPolicy",),
    "policy.networking.k8s.io": ("ClusterNetworkPolicy", "AdminNetworkPolicy", "BaselineAdminNetworkPolicy"),
    **dict.fromkeys(
        _CALICO,
        (
            "NetworkPolicy", "GlobalNetworkPolicy", "StagedNetworkPolicy", "StagedGlobalNetworkPolicy",
            "StagedKubernetesNetworkPolicy", "Tier",
        ),
    ),
}  # fmt: skip
_CLUSTER_WIDE = ("ClusterNetworkPolicy", "AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "GlobalNetworkPolicy",
                 "StagedGlobalNetworkPolicy", "Tier")  # fmt: skip
BY_GROUP: Mapping[tuple[str, str], Kind] = {
    (CORE, "Pod"): Kind(
        True, _pod, _started, ("nodeName", "serviceAccountName", "hostNetwork"), ("podIP", "podIPs", "hostIP")
    ),
    (CORE, "Node"): Kind(False, _node, _made, ("podCIDR", "podCIDRs"), ("addresses",)),
    (CORE, "Service"): Kind(True, _service, _made, None, ("loadBalancer",)),
    (CORE, "Namespace"): Kind(False, _nothing, _made, ()),
    (CORE, "ServiceAccount"): Kind(True, _nothing, _made, ()),
    **{
        (group, name): Kind(name not in _CLUSTER_WIDE, _nothing, _edited)
        for group, names in _POLICIES.items()
        for name in names
    },
    **{
        (group, name): Kind(namespaced, fields, since)
        for group in _CALICO
        for name, namespaced, fields, since in (
            ("HostEndpoint", False, _host_endpoint, _edited),
            ("NetworkSet", True, _network_set, _edited),
            ("GlobalNetworkSet", False, _network_set, _edited),
            ("IPPool", False, _ip_pool, _made),
            ("FelixConfiguration", False, _nothing, _edited),
        )
    },
}
KINDS = frozenset(name for _, name in BY_GROUP)
"""The kinds of objects that an inventory holds."""


def namespace_of(each: Object) -> str | None:
    metadata = each.get("metadata")
    return metadata.get("namespace") if isinstance(metadata, Mapping) else None


def identity(each: Object) -> tuple[str, str, str]:
    metadata = each.get("metadata") or {}
    return str(each.get("kind")), namespace_of(each) or "default", str(metadata.get("name"))


def title(each: Object) -> str:
    kind, namespace, name = identity(each)
    return f"{kind} {namespace}/{name}" if namespace_of(each) else f"{kind} {name}"


def text_of(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is no name")
    return value
