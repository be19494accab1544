"""The small cluster of the samples: nodes, namespaces, workloads, pods and services, and the dump that kubectl gives.

Rule: only addresses that RFC 5737 and RFC 3849 set aside for documentation: 192.0.2.0/24 are nodes, 198.51.100.0/24 and
2001:db8:1::/48 are pods (a /26 for each node) and services, 203.0.113.0/24 is the world. A pod's interface on its node
is named as Calico names it.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

DAY = datetime(2026, 11, 20, tzinfo=UTC)
"""The labelled day begins here; the clean days before it are the baseline."""
CLEAN_DAYS = 5
CLUSTER_STARTED = DAY - timedelta(days=21)

NODES = {
    "control-1": ("192.0.2.10", "198.51.100.240/28", "2001:db8:1:f::/64"),
    "worker-1": ("192.0.2.11", "198.51.100.0/26", "2001:db8:1:1::/64"),
    "worker-2": ("192.0.2.12", "198.51.100.64/26", "2001:db8:1:2::/64"),
    "worker-3": ("192.0.2.13", "198.51.100.128/26", "2001:db8:1:3::/64"),
}
NAMESPACES = ("kube-system", "shop", "payments", "monitoring", "build")


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod; `owner` is kind and name of the workload above it, `address_v6` is empty in a pod of one family."""

    namespace: str
    name: str
    owner: tuple[str, str]
    node: str
    address: str
    address_v6: str = ""
    started: datetime = CLUSTER_STARTED
    finished: datetime | None = None
    host_network: bool = False

    @property
    def interface(self) -> str:
        """The host's end of the pod's veth (libcalico-go, names.go: VethNameForWorkload)."""
        return "cali" + hashlib.sha1(f"{self.namespace}.{self.name}".encode()).hexdigest()[:11]

    @property
    def workload(self) -> str:
        """NAMESPACE/NAME of the workload, which is what findings name."""
        return f"{self.namespace}/{self.owner[1]}"

    @property
    def label(self) -> dict[str, str]:
        """The labels that policies and services select by."""
        return {"k8s-app" if self.namespace == "kube-system" else "app": self.owner[1]}


def _pod(namespace: str, name: str, kind: str, node: int, last: int, **more: Any) -> Pod:
    owner = {"Deployment": name.rsplit("-", 2)[0], "StatefulSet": name.rsplit("-", 1)[0]}.get(kind, name)
    return Pod(namespace, name, (kind, owner), f"worker-{node}", f"198.51.100.{last}", **more)


def _agent(number: int, tail: str) -> Pod:
    """Calico's own pod on a worker: it has the address of its node."""
    owner = ("DaemonSet", "calico-node")
    return Pod(
        "kube-system", f"calico-node-{tail}", owner, f"worker-{number}", f"192.0.2.{10 + number}", host_network=True
    )


REUSED = "198.51.100.27"
HANDED_OVER = DAY + timedelta(hours=6)

PODS = {
    "web-1": _pod("shop", "web-6d4cf56db6-8xk2p", "Deployment", 1, 11),
    "web-2": _pod("shop", "web-6d4cf56db6-tj7wq", "Deployment", 2, 71),
    "api-1": _pod("shop", "api-7f9b8c5d4-m2zvc", "Deployment", 1, 12, address_v6="2001:db8:1:1::12"),
    "api-2": _pod("shop", "api-7f9b8c5d4-qn5rd", "Deployment", 2, 72, address_v6="2001:db8:1:2::72"),
    "db": _pod("shop", "db-0", "StatefulSet", 1, 13, address_v6="2001:db8:1:1::13"),
    "cart": _pod("shop", "cart-5c6d7b9f88-h4lsz", "Deployment", 2, 73),
    "batch-old": _pod("shop", "batch-58b9c7f6d-2vwxk", "Deployment", 1, 27, finished=HANDED_OVER),
    "batch": _pod("shop", "batch-58b9c7f6d-zc9fj", "Deployment", 2, 75, started=HANDED_OVER),
    "ledger": _pod("payments", "ledger-0", "StatefulSet", 3, 131),
    "payments-api": _pod("payments", "payments-api-6b8d9f7c5-k8t4n", "Deployment", 3, 132),
    "prometheus": _pod("monitoring", "prometheus-0", "StatefulSet", 2, 70),
    "runner-1": _pod(
        "build", "runner-84c6d9b5f7-p6gbl", "Deployment", 1, 27, started=HANDED_OVER + timedelta(minutes=5)
    ),
    "runner-2": _pod("build", "runner-84c6d9b5f7-x2dhm", "Deployment", 3, 135),
    "dns-1": _pod("kube-system", "coredns-76f75df574-4rjnt", "Deployment", 1, 2),
    "dns-2": _pod("kube-system", "coredns-76f75df574-wv8cx", "Deployment", 2, 66),
    **{f"calico-{number}": _agent(number, tail) for number, tail in ((1, "b7k5x"), (2, "n9d2f"), (3, "r4s6h"))},
}

# Name -> namespace, workload that it selects, cluster address, ports (name, protocol, port).
SERVICES = {
    "kube-dns": ("kube-system", "coredns", "198.51.100.202", (("dns", "UDP", 53), ("dns-tcp", "TCP", 53))),
    "web": ("shop", "web", "198.51.100.210", (("http", "TCP", 8080),)),
    "api": ("shop", "api", "198.51.100.211", (("http", "TCP", 8080),)),
    "db": ("shop", "db", "None", (("postgres", "TCP", 5432),)),
    "ledger": ("payments", "ledger", "198.51.100.220", (("http", "TCP", 9090),)),
    "payments-api": ("payments", "payments-api", "198.51.100.221", (("http", "TCP", 8443),)),
}


def inventory() -> dict[str, Any]:
    """What `kubectl get nodes,namespaces,pods,services -A -o json` prints, without the fields that nobody asks for."""
    items = [
        *(_node(name) for name in NODES),
        *({"apiVersion": "v1", "kind": "Namespace", "metadata": _meta("", name)} for name in NAMESPACES),
        *(_pod_object(pod) for pod in PODS.values()),
        *(_service(name) for name in SERVICES),
    ]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def _meta(namespace: str, name: str, made: datetime = CLUSTER_STARTED, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "creationTimestamp": _stamp(made)}
    found["uid"] = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{namespace}/{name}"))
    if namespace:
        found["namespace"] = namespace
    if not namespace and name in NAMESPACES:
        found["labels"] = {"kubernetes.io/metadata.name": name}
    return {**found, **more}


def _stamp(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def _node(name: str) -> dict[str, Any]:
    address, *blocks = NODES[name]
    addresses = [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": _meta("", name, labels={"kubernetes.io/hostname": name}),
        "spec": {"podCIDR": blocks[0], "podCIDRs": blocks},
        "status": {"addresses": addresses},
    }


def _pod_object(pod: Pod) -> dict[str, Any]:
    kind, name = pod.owner
    # A Deployment owns its pods through a ReplicaSet, whose name ends in a hash.
    above = ("ReplicaSet", pod.name.rsplit("-", 1)[0]) if kind == "Deployment" else (kind, name)
    owner = {"apiVersion": "apps/v1", "kind": above[0], "name": above[1], "controller": True}
    labels = dict(pod.label)
    if kind == "Deployment":
        labels["pod-template-hash"] = above[1].rsplit("-", 1)[1]
    spec: dict[str, Any] = {"nodeName": pod.node, "containers": [{"name": name}]}
    if pod.host_network:
        spec["hostNetwork"] = True
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": _meta(pod.namespace, pod.name, pod.started, labels=labels, ownerReferences=[owner]),
        "spec": spec,
        "status": _status(pod),
    }


def _status(pod: Pod) -> dict[str, Any]:
    addresses = [{"ip": address} for address in (pod.address, pod.address_v6) if address]
    state: dict[str, Any] = {"running": {"startedAt": _stamp(pod.started)}}
    if pod.finished:
        ended = {"exitCode": 0, "startedAt": _stamp(pod.started), "finishedAt": _stamp(pod.finished)}
        state = {"terminated": {**ended, "reason": "Completed"}}
    return {
        "phase": "Succeeded" if pod.finished else "Running",
        "podIP": pod.address,
        "podIPs": addresses,
        "hostIP": NODES[pod.node][0],
        "startTime": _stamp(pod.started),
        "containerStatuses": [{"name": pod.owner[1], "state": state}],
    }


def _service(name: str) -> dict[str, Any]:
    namespace, workload, address, ports = SERVICES[name]
    selector = {"k8s-app" if namespace == "kube-system" else "app": workload}
    listed = [{"name": kind, "protocol": protocol, "port": port} for kind, protocol, port in ports]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _meta(namespace, name),
        "spec": {
            "type": "ClusterIP",
            "clusterIP": address,
            "clusterIPs": [address],
            "selector": selector,
            "ports": listed,
        },
    }
