"""Kubernetes objects for the tests of the inventory, made from a few words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

DAY = datetime(2026, 11, 20, tzinfo=UTC)


def at(hour: float) -> datetime:
    """So many hours into the day."""
    return datetime.fromtimestamp(DAY.timestamp() + hour * 3600, UTC)


def thing(kind: str, name: str, namespace: str | None = None, api: str = "v1", **parts: Any) -> dict[str, Any]:
    """One object, made at the beginning of the day unless `made` says otherwise."""
    metadata = {"name": name, "uid": f"{kind}-{namespace}-{name}", "creationTimestamp": DAY.isoformat()}
    metadata |= {"namespace": namespace} if namespace else {}
    metadata |= parts.pop("metadata", {})
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **parts}


def pod(name: str, address: str | None, start: float, *, namespace: str = "shop", **more: Any) -> dict[str, Any]:
    """A running pod that started so many hours into the day; `labels`, `spec` and `status` may be added to."""
    status = {"phase": "Running", "startTime": at(start).isoformat(), **({"podIP": address} if address else {})}
    metadata = {"uid": f"{name}-{start}", "labels": more.pop("labels", {}), **more.pop("metadata", {})}
    spec = {"nodeName": "node-1", "containers": [], **more.pop("spec", {})}
    return thing("Pod", name, namespace, metadata=metadata, spec=spec, status={**status, **more.pop("status", {})})


def node(name: str, address: str, *networks: str) -> dict[str, Any]:
    """A node with the networks of its pods."""
    addresses = [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}]
    return thing("Node", name, spec={"podCIDRs": list(networks)}, status={"addresses": addresses})


def service(name: str, address: str, selector: dict[str, str], namespace: str = "shop") -> dict[str, Any]:
    """A service."""
    return thing("Service", name, namespace, spec={"clusterIP": address, "selector": selector})


def listed(*objects: dict[str, Any]) -> dict[str, Any]:
    """What `kubectl get -o json` makes of them."""
    return {"apiVersion": "v1", "kind": "List", "items": list(objects)}
