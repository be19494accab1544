"""Calico's policy model as evaluated: what a policy, a tier, an endpoint *is*, not how YAML spells it.

Rule: everything here is frozen and already checked by shape; no I/O, no parsing. Selectors stay text in the form of the
v3 object (`policies.selector` compiles them, `policies.scope` widens them with namespace terms as Felix does).

What is what:

- `Policy`: every policy kind after conversion. A Kubernetes NetworkPolicy becomes kind KUBERNETES_NETWORK_POLICY with
  order 1000 in tier `default`; cluster-wide Kubernetes kinds become policies of their own tiers. Staged kinds are kept
  with `staged` true: they are never enforced and never logged.
- `Rule`, `EntityRule`: one match with an action. A field that is None or empty does not restrict the match.
  `Policy.types` is explicit: the loader applied the defaults (empty only for a cluster-wide policy without rules).
- `Tier`: `DEFAULT_TIERS` holds those that exist without being written; `Inventory.tier` finds either.
- `Pod`: a workload endpoint when `is_endpoint`; `labels` are the pod's own. The labels that selectors see (with
  `projectcalico.org/namespace`, inherited `pcns.` and `pcsa.` labels) come from `policies.scope`.
- `HostEndpoint`, `NetworkSet` (global when `namespace` is None), `Namespace`, `ServiceAccount`, `Service`: the rest of
  what selectors and `services` can name.
- `Inventory`: all objects of one load, in the order of the files. `Place` says where each was written, for messages.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, TypeAlias

Labels: TypeAlias = Mapping[str, str]
Network: TypeAlias = IPv4Network | IPv6Network
Address: TypeAlias = IPv4Address | IPv6Address
Protocol: TypeAlias = str | int
"""A protocol as Calico writes it: one of `PROTOCOL_NUMBERS`, or the IANA number."""

PROTOCOL_NUMBERS: Mapping[str, int] = {"ICMP": 1, "TCP": 6, "UDP": 17, "ICMPv6": 58, "SCTP": 132, "UDPLite": 136}
"""Calico's protocol names (api/pkg/lib/numorstring/protocol.go) and their IANA numbers."""


class PolicyKind(StrEnum):
    """What a policy was written as; the value is the kind that Felix sorts and prints by."""

    NETWORK_POLICY = "NetworkPolicy"
    GLOBAL_NETWORK_POLICY = "GlobalNetworkPolicy"
    KUBERNETES_NETWORK_POLICY = "KubernetesNetworkPolicy"
    CLUSTER_NETWORK_POLICY = "KubernetesClusterNetworkPolicy"
    ADMIN_NETWORK_POLICY = "KubernetesAdminNetworkPolicy"
    BASELINE_ADMIN_NETWORK_POLICY = "KubernetesBaselineAdminNetworkPolicy"
    STAGED_NETWORK_POLICY = "StagedNetworkPolicy"
    STAGED_GLOBAL_NETWORK_POLICY = "StagedGlobalNetworkPolicy"
    STAGED_KUBERNETES_NETWORK_POLICY = "StagedKubernetesNetworkPolicy"


class Direction(StrEnum):
    """Which side of an endpoint a policy governs."""

    INGRESS = "Ingress"
    EGRESS = "Egress"


class Action(StrEnum):
    """What a rule does when it matches; Log lets the walk go on with the next rule."""

    ALLOW = "Allow"
    DENY = "Deny"
    LOG = "Log"
    PASS = "Pass"


class StagedAction(StrEnum):
    """What committing a staged policy would do."""

    SET = "Set"
    DELETE = "Delete"
    LEARN = "Learn"
    IGNORE = "Ignore"


@dataclass(frozen=True, slots=True)
class Place:
    """Where it was written: the file as the user named it (`-`: stdin), line and column from 1 (0: unknown)."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return ":".join([self.file, *(str(n) for n in (self.line, self.column) if n)])


@dataclass(frozen=True, slots=True)
class Source:
    """The written object behind a record: its place, its kind as spelled in the file, and the document itself."""

    place: Place
    api_version: str
    kind: str
    document: Mapping[str, Any] = field(repr=False, hash=False, compare=False)


@dataclass(frozen=True, slots=True, order=True)
class PortRange:
    """Port numbers `first` to `last`, both included; a single port has both equal."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class NamedPort:
    """A port by the name an endpoint gives it; it stands for (address, protocol, number) of those endpoints."""

    name: str


Port: TypeAlias = PortRange | NamedPort


@dataclass(frozen=True, slots=True)
class Icmp:
    """ICMP type and code; None matches every one."""

    type: int | None = None
    code: int | None = None


@dataclass(frozen=True, slots=True)
class HttpPath:
    """One path match: exact, or every path with the prefix."""

    value: str
    prefix: bool


@dataclass(frozen=True, slots=True)
class Http:
    """Application-layer match; only Calico's Envoy-based enforcement sees it, the kernel does not."""

    methods: tuple[str, ...] = ()
    paths: tuple[HttpPath, ...] = ()


@dataclass(frozen=True, slots=True)
class ServiceAccountMatch:
    """Peers that run as one of `names` and as an account that `selector` picks (both, where both are given)."""

    names: tuple[str, ...] = ()
    selector: str = ""


@dataclass(frozen=True, slots=True)
class ServiceMatch:
    """Peers that stand behind a Kubernetes Service, with their ports; `namespace` empty: that of the policy."""

    name: str
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class EntityRule:
    """One side of a rule; all fields that are given must match. Empty text or tuple: not given."""

    nets: tuple[Network, ...] = ()
    not_nets: tuple[Network, ...] = ()
    selector: str = ""
    not_selector: str = ""
    namespace_selector: str = ""
    ports: tuple[Port, ...] = ()
    not_ports: tuple[Port, ...] = ()
    service_accounts: ServiceAccountMatch | None = None
    services: ServiceMatch | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: every given field must match, then the action is taken. `annotations` are the rule's own metadata."""

    action: Action
    ip_version: int | None = None
    protocol: Protocol | None = None
    not_protocol: Protocol | None = None
    icmp: Icmp | None = None
    not_icmp: Icmp | None = None
    http: Http | None = None
    source: EntityRule = EntityRule()
    destination: EntityRule = EntityRule()
    annotations: Labels = field(default_factory=dict, hash=False)
    place: Place | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One policy of any kind, with all defaults applied.

    `order` None sorts last. `namespace` is None for cluster-wide kinds. `selector` is the v3 text ("" means all()).
    `types` is in the order of the source. `name` is the bare name of Calico 3.32 and later, without
    `knp.default.` or a tier prefix that the store adds. `errors` are the sentences of Calico's converter about rules it
    left out (`policies.convert`); a policy that was written as Calico policy has none.
    """

    kind: PolicyKind
    name: str
    namespace: str | None = None
    tier: str = "default"
    order: float | None = None
    selector: str = ""
    namespace_selector: str = ""
    service_account_selector: str = ""
    types: tuple[Direction, ...] = ()
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()
    apply_on_forward: bool = False
    do_not_track: bool = False
    pre_dnat: bool = False
    performance_hints: tuple[str, ...] = ()
    staged_action: StagedAction | None = None
    uid: str = ""
    labels: Labels = field(default_factory=dict, hash=False)
    annotations: Labels = field(default_factory=dict, hash=False)
    errors: tuple[str, ...] = ()
    source: Source | None = field(default=None, compare=False)

    @property
    def staged(self) -> bool:
        """True for kinds that Felix never programs: they neither deny nor log (felix/rules/policy.go)."""
        return self.kind.value.startswith("Staged")

    def rules(self, direction: Direction) -> tuple[Rule, ...]:
        """Rules of one direction, whether or not `types` makes them count."""
        return self.ingress if direction is Direction.INGRESS else self.egress

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Tier:
    """A group of policies; `default_action` is taken at its end for endpoints that one of its policies selects."""

    name: str
    order: float | None = None
    default_action: Action = Action.DENY
    source: Source | None = field(default=None, compare=False)


DEFAULT_TIERS: tuple[Tier, ...] = (
    Tier("kube-admin", 1_000, Action.PASS),
    Tier("adminnetworkpolicy", 1_000, Action.PASS),
    Tier("default", 1_000_000, Action.DENY),
    Tier("kube-baseline", 10_000_000, Action.PASS),
    Tier("baselineadminnetworkpolicy", 10_000_000, Action.PASS),
)
"""Tiers that Calico makes itself (api/pkg/apis/projectcalico/v3/tier.go); `*adminnetworkpolicy` in 3.29 to 3.31."""


@dataclass(frozen=True, slots=True)
class EndpointPort:
    """A port that an endpoint names: `protocol` in upper case as in the object (TCP, UDP, SCTP)."""

    name: str
    protocol: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod; `labels` are its own, without what Calico adds (see `policies.scope`)."""

    name: str
    namespace: str
    labels: Labels = field(default_factory=dict, hash=False)
    service_account: str = ""
    node: str = ""
    addresses: tuple[Address, ...] = ()
    ports: tuple[EndpointPort, ...] = ()
    host_network: bool = False
    phase: str = ""
    source: Source | None = field(default=None, compare=False)

    @property
    def is_endpoint(self) -> bool:
        """Whether Calico polices it: no host network, not finished (conversion.go, IsValidCalicoWorkloadEndpoint)."""
        return not self.host_network and self.phase not in ("Succeeded", "Failed")

    @property
    def interface(self) -> str:
        """The pod's interface on its node, for the default prefix `cali` (workload_endpoint_default.go)."""
        return "cali" + hashlib.sha1(f"{self.namespace}.{self.name}".encode(), usedforsecurity=False).hexdigest()[:11]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostEndpoint:
    """An interface of a node (`*` for all, "" where only addresses say which) with labels that policies can select."""

    name: str
    node: str = ""
    interface: str = ""
    addresses: tuple[Address, ...] = ()
    labels: Labels = field(default_factory=dict, hash=False)
    profiles: tuple[str, ...] = ()
    ports: tuple[EndpointPort, ...] = ()
    source: Source | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSet:
    """Labelled addresses outside the cluster; a GlobalNetworkSet has no namespace."""

    name: str
    namespace: str | None = None
    nets: tuple[Network, ...] = ()
    labels: Labels = field(default_factory=dict, hash=False)
    source: Source | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace with its own labels."""

    name: str
    labels: Labels = field(default_factory=dict, hash=False)
    source: Source | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """A service account with its own labels."""

    name: str
    namespace: str
    labels: Labels = field(default_factory=dict, hash=False)
    source: Source | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ServicePort:
    """A port of a Service; `target` is the pod's port number or the name of it."""

    name: str
    protocol: str
    port: int
    target: int | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A Kubernetes Service; `selector` are pod labels, empty where its endpoints are managed by hand."""

    name: str
    namespace: str
    selector: Labels = field(default_factory=dict, hash=False)
    cluster_ips: tuple[Address, ...] = ()
    ports: tuple[ServicePort, ...] = ()
    source: Source | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """Everything one load found, in the order it was read; `tiers` holds only those that were written."""

    policies: tuple[Policy, ...] = ()
    tiers: tuple[Tier, ...] = ()
    pods: tuple[Pod, ...] = ()
    host_endpoints: tuple[HostEndpoint, ...] = ()
    network_sets: tuple[NetworkSet, ...] = ()
    namespaces: tuple[Namespace, ...] = ()
    service_accounts: tuple[ServiceAccount, ...] = ()
    services: tuple[Service, ...] = ()

    def tier(self, name: str) -> Tier | None:
        """The tier of that name, written or built in; None where a policy names a tier that does not exist."""
        return next((t for t in (*self.tiers, *DEFAULT_TIERS) if t.name == name), None)
