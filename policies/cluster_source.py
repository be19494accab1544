"""A live cluster as a source of policies beside files, and what it says about Calico itself.

Rule: it is only read. An object is named in messages by the cluster and its own name, since it has no file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from policies.fields import KINDS
from policies.kube import Cluster
from policies.load import Calico
from policies.resources import READS, Resource

_ENDPOINTS = ("Pod", "Service", "ServiceAccount")
"""Kinds of which there are many, and which only questions about pods need."""

_IMPORTED = ("knp.default.", "kcnp.", "kanp.", "kbanp.")
"""How Calico names the Kubernetes policies among its own (libcalico-go/lib/names); they are read as what they are."""


_FELIX = "FelixConfiguration"
_ABOUT_CALICO = ("ClusterInformation", _FELIX)


@dataclass(frozen=True, slots=True)
class LiveCluster:
    """The cluster of a kubeconfig's context (None: the current one, of the usual file); `pods`: with its endpoints."""

    context: str | None = None
    kubeconfig: str | None = None
    pods: bool = True

    def connect(self) -> Cluster:
        """A connection to it. Raises ClusterError."""
        return Cluster.connect(self.context, self.kubeconfig)

    def objects(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Policies and what they select, each with a name for messages. Raises ClusterError."""
        with self.connect() as cluster:
            for resource in cluster.served(filter(self._counts, READS)):
                for found in cluster.list(resource):
                    if not is_imported(found):
                        yield _named(cluster, resource, found), _bare(found)

    def calico(self) -> Calico:
        """As ClusterInformation and FelixConfiguration have it. Raises ClusterError."""
        with self.connect() as cluster:
            found = {each.kind: each for each in cluster.served(READS) if each.kind in _ABOUT_CALICO}
            about, felix = (_spec(cluster, found.get(kind)) for kind in _ABOUT_CALICO)
        return Calico(about.get("calicoVersion") or "", _dataplane(felix))

    def felix(self) -> list[dict[str, Any]]:
        """Every FelixConfiguration: the one for all nodes, and those of single ones. Raises ClusterError."""
        with self.connect() as cluster:
            found = [each for each in cluster.served(READS) if each.kind == _FELIX]
            return [_bare(each) for resource in found for each in cluster.list(resource)]

    def _counts(self, resource: Resource) -> bool:
        return (resource.group, resource.kind) in KINDS and (self.pods or resource.kind not in _ENDPOINTS)

    def __str__(self) -> str:
        return f"cluster {self.context}" if self.context else "the cluster"


def is_imported(found: Mapping[str, Any]) -> bool:
    """Whether it is a Kubernetes policy that Calico's API server shows a second time, as one of Calico's."""
    return str(found["metadata"]["name"]).startswith(_IMPORTED)


def _bare(found: dict[str, Any]) -> dict[str, Any]:
    """As `kubectl get` prints it: without the bookkeeping of who set which field."""
    return found | {"metadata": {key: value for key, value in found["metadata"].items() if key != "managedFields"}}


def _named(cluster: Cluster, resource: Resource, found: dict[str, Any]) -> str:
    metadata = found["metadata"]
    within = f"{metadata['namespace']}/" if metadata.get("namespace") else ""
    return f"{cluster.name} {resource}/{within}{metadata['name']}"


def _spec(cluster: Cluster, resource: Resource | None) -> dict[str, Any]:
    """The one object of a kind that Calico names `default`; empty where there is none."""
    found = cluster.get(resource, None, "default") if resource else None
    return (found or {}).get("spec") or {}


def _dataplane(felix: dict[str, Any]) -> str:
    """Felix also reads its environment (FELIX_BPFENABLED), which the API does not show."""
    if felix.get("bpfEnabled"):
        return "ebpf"
    return "nftables" if felix.get("nftablesMode") == "Enabled" else "iptables"
