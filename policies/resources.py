"""What denylog reads from a live cluster and what it may write there: API groups, resources and verbs, in tables.

Rule: nothing is asked for that is not in these tables, so that the rights of a deployment can be compared with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object in an API group, with the verbs that denylog uses on it ("" is the core group)."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    verbs: tuple[str, ...]

    @property
    def api_version(self) -> str:
        """As objects write it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def base(self) -> str:
        """The path of the API group's version."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        """The path of one object, or of all in the cluster."""
        within = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
        return f"{self.base}{within}/{self.plural}" + (f"/{quote(name, safe='')}" if name else "")

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


_READ = ("get", "list", "watch")
_WRITE = ("get", "list", "create", "patch", "delete")

_CORE = (
    ("namespaces", "Namespace", False),
    ("nodes", "Node", False),
    ("pods", "Pod", True),
    ("serviceaccounts", "ServiceAccount", True),
    ("services", "Service", True),
)
_POLICIES = (
    ("networkpolicies", "NetworkPolicy", True),
    ("globalnetworkpolicies", "GlobalNetworkPolicy", False),
)
_CALICO = (
    *_POLICIES,
    ("stagednetworkpolicies", "StagedNetworkPolicy", True),
    ("stagedglobalnetworkpolicies", "StagedGlobalNetworkPolicy", False),
    ("stagedkubernetesnetworkpolicies", "StagedKubernetesNetworkPolicy", True),
    ("tiers", "Tier", False),
    ("networksets", "NetworkSet", True),
    ("globalnetworksets", "GlobalNetworkSet", False),
    ("hostendpoints", "HostEndpoint", False),
    ("ippools", "IPPool", False),
    ("felixconfigurations", "FelixConfiguration", False),
    ("clusterinformations", "ClusterInformation", False),
)
_ADMIN = (
    ("adminnetworkpolicies", "AdminNetworkPolicy", False),
    ("baselineadminnetworkpolicies", "BaselineAdminNetworkPolicy", False),
)

SERVED, STORED = "projectcalico.org", "crd.projectcalico.org"
"""Calico's group as its API server (or, from 3.32 on, the cluster itself) serves it, and as its storage looks."""

READS: tuple[Resource, ...] = (
    *(Resource("", "v1", *row, _READ) for row in _CORE),
    Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", True, _READ),
    *(Resource("policy.networking.k8s.io", "v1alpha1", *row, _READ) for row in _ADMIN),
    Resource("policy.networking.k8s.io", "v1alpha2", "clusternetworkpolicies", "ClusterNetworkPolicy", False, _READ),
    *(Resource(SERVED, "v3", *row, _READ) for row in _CALICO),
    *(Resource(STORED, "v1", *row, _READ) for row in _CALICO),
)
"""All that is ever read. Groups that a cluster does not serve are passed over; of Calico's two the first served."""

OWNERS: tuple[Resource, ...] = (
    Resource("apps", "v1", "replicasets", "ReplicaSet", True, ("get", "list")),
    Resource("batch", "v1", "jobs", "Job", True, ("get", "list")),
)
"""What makes pods on behalf of something else; only the metadata is asked for, and only where it may be."""

WRITES: tuple[Resource, ...] = tuple(Resource(SERVED, "v3", *row, _WRITE) for row in _POLICIES)
"""All that `apply` and `prune` ever change."""

TIER_GUARDS = ("tier.networkpolicies", "tier.globalnetworkpolicies")
"""Names that Calico's API server checks beside those of policies, with `get` on tiers (its "tiered policy" RBAC)."""
