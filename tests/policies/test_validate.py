"""Which objects Calico accepts: one case for each rule of its two layers, each with a neighbour on the other side.

Sources: libcalico-go/lib/validator/v3/validator.go and api/pkg/lib/numorstring ("Go" below), the schemas and CEL rules
of api/pkg/apis/projectcalico/v3 ("CRD"), and what decoding refuses before either ("decode").
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from policies.load import found_in
from policies.validate import validate

Case = tuple[str, Any, bool]
"""The rule and where it is written, the fragment, and whether Calico accepts it."""


def accepted(document: dict[str, Any]) -> bool:
    return not validate(found_in([("p.json", json.dumps(document))]))


def object_of(kind: str, spec: Any, name: str = "p", **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name, **metadata}, "spec": spec}


def names_of(cases: list[Case]) -> list[str]:
    return [f"{'accepted' if wanted else 'refused'}: {rule}" for rule, _, wanted in cases]


# -- rules -----------------------------------------------------------------------------------------------------------

RULES: list[Case] = [
    ("Go validateProtocol: a number above 0", {"protocol": 0}, False),
    ("Go Uint8OrString: digits in quotes are the number", {"protocol": "0"}, False),
    ("Go Uint8OrString: digits in quotes, leading zeros", {"protocol": "047"}, True),
    ("Go Uint8OrString: more than eight bits in quotes is a name", {"protocol": "256"}, False),
    ("decode: more than eight bits", {"protocol": 256}, False),
    ("Go validateProtocol: names with their case", {"protocol": "tcp"}, False),
    ("Go validateProtocol: UDPLite is one", {"protocol": "UDPLite"}, True),
    ("Go validateProtocol: also of notProtocol", {"notProtocol": "any"}, False),
    ("Go validateRule: names of ports need no protocol", {"destination": {"ports": ["http"]}}, True),
    ("Go validateRule: one number among the names does", {"destination": {"ports": ["http", 80]}}, False),
    ("Go SupportsPorts: by number", {"protocol": 132, "source": {"notPorts": [1]}}, True),
    (
        "Go SupportsPorts: UDPLite has none, not even by name",
        {"protocol": "UDPLite", "source": {"ports": ["a"]}},
        False,
    ),
    ("Go SupportsPorts: an empty list is none", {"protocol": 7, "source": {"ports": []}}, True),
    ("Go validatePort: from 1", {"protocol": "TCP", "source": {"ports": ["0:10"]}}, False),
    ("Go PortFromString: leading zeros", {"protocol": "TCP", "source": {"ports": ["00080"]}}, True),
    ("decode: a range that runs backwards", {"protocol": "TCP", "source": {"ports": ["90:80"]}}, False),
    ("decode: a range without an end", {"protocol": "TCP", "source": {"ports": ["80:"]}}, False),
    ("Go portName: 15 characters", {"destination": {"ports": ["a" * 15]}}, True),
    ("Go portName: 16 characters", {"destination": {"ports": ["a" * 16]}}, False),
    ("Go portName: a hyphen for the range", {"protocol": "TCP", "destination": {"ports": ["80-90"]}}, False),
    ("Go portName: two hyphens in a row", {"destination": {"ports": ["a--b"]}}, False),
    ("CRD maxItems: 50 ports", {"protocol": "TCP", "source": {"ports": [*range(1, 51)]}}, True),
    ("CRD maxItems: 51 ports", {"protocol": "TCP", "source": {"ports": [*range(1, 52)]}}, False),
    ("CRD icmp: a type up to 254", {"protocol": "ICMP", "icmp": {"type": 254}}, True),
    ("CRD icmp: type 255", {"protocol": "ICMP", "icmp": {"type": 255}}, False),
    ("CRD icmp: a code up to 255", {"protocol": 58, "icmp": {"type": 0, "code": 255}}, True),
    ("CRD icmp: a code needs a type", {"protocol": "ICMP", "icmp": {"code": 0}}, False),
    ("CRD icmp: needs the protocol", {"icmp": {"type": 8}}, False),
    ("CRD icmp: notICMP does not", {"notICMP": {"type": 8}}, True),
    ("CRD icmp: empty, and still needs the protocol", {"icmp": {}}, False),
    ("CRD ipVersion: of ICMP by number", {"protocol": 1, "ipVersion": 6}, False),
    ("CRD ipVersion: of notProtocol, too", {"notProtocol": "ICMPv6", "ipVersion": 4}, False),
    ("CRD ipVersion: 4 or 6", {"ipVersion": 5}, False),
    ("decode: ipVersion is a number", {"ipVersion": "4"}, False),
    ("Go scanNets: bits behind the mask", {"source": {"nets": ["10.0.0.1/8"]}}, False),
    ("Go scanNets: an address without a length", {"source": {"nets": ["10.0.0.1"]}}, False),
    ("Go ParseCIDR: zeros before the length", {"source": {"nets": ["10.0.0.0/0008"]}}, True),
    ("Go ParseCIDR: zeros before a byte", {"source": {"nets": ["010.0.0.0/8"]}}, False),
    ("Go scanNets: one family in all lists", {"source": {"nets": ["::/0"], "notNets": ["10.0.0.0/8"]}}, False),
    ("Go scanNets: a mapped IPv4 network is IPv4", {"source": {"nets": ["::ffff:a00:0/104", "11.0.0.0/8"]}}, True),
    ("Go scanNets: and not IPv6", {"source": {"nets": ["::ffff:a00:0/104", "fd00::/8"]}}, False),
    ("Go scanNets: mapped with fewer than 96 bits is IPv6", {"ipVersion": 6, "source": {"nets": ["::/64"]}}, True),
    ("Go scanNets: everything excluded", {"destination": {"notNets": ["::/0"]}}, False),
    ("Go scanNets: compared as text", {"destination": {"notNets": ["::ffff:0.0.0.0/96"]}}, True),
    ("Go scanNets: everything included", {"destination": {"nets": ["0.0.0.0/0"]}}, True),
    ("CRD listType=set is the API server's alone", {"source": {"nets": ["10.0.0.0/8", "10.0.0.0/8"]}}, True),
    ("Go EntityRule: global() stands alone", {"source": {"namespaceSelector": "\tglobal( ) "}}, True),
    ("Go EntityRule: global() negated", {"source": {"namespaceSelector": "!global()"}}, False),
    ("Go EntityRule: global() in brackets", {"source": {"namespaceSelector": "(global())"}}, False),
    ("CRD EntityRule: 'global(' even as a value", {"source": {"selector": "a == 'global('"}}, False),
    ("CRD EntityRule: notSelector is not looked at", {"source": {"notSelector": "global()"}}, True),
    ("CRD EntityRule: 1 024 characters", {"source": {"selector": f"a == '{'b' * 1017}'"}}, True),
    ("CRD EntityRule: 1 025 characters", {"source": {"notSelector": f"a == '{'b' * 1018}'"}}, False),
    ("Go ServiceAccountMatch: names are not looked at", {"source": {"serviceAccounts": {"names": ["A_b"]}}}, True),
    ("Go ServiceAccountMatch: the selector is", {"source": {"serviceAccounts": {"selector": "a = b"}}}, False),
    ("CRD ServiceAccountMatch: any length", {"source": {"serviceAccounts": {"selector": f"a=='{'b' * 2000}'"}}}, True),
    ("CRD services: a name", {"source": {"services": {"namespace": "n"}}}, False),
    ("Go ServiceMatch: the name is one", {"source": {"services": {"name": "S"}}}, False),
    (
        "CRD services: empty serviceAccounts are there",
        {"source": {"services": {"name": "s"}, "serviceAccounts": {}}},
        False,
    ),
    ("CRD services: an empty selector is not", {"source": {"services": {"name": "s"}, "selector": ""}}, True),
    ("Go services: only of the source", {"destination": {"services": {"name": "s"}}}, False),
    ("CRD http: on Deny", {"action": "Deny", "http": {}}, False),
    ("CRD http: protocol 6 is TCP", {"protocol": "6", "http": {"methods": ["GET"]}}, True),
    ("Go HTTPMatch: a method twice", {"http": {"methods": ["GET", "GET"]}}, False),
    ("Go HTTPMatch: a path of both kinds", {"http": {"paths": [{"exact": "/a", "prefix": "/b"}]}}, False),
    ("Go HTTPMatch: a path of none", {"http": {"paths": [{}]}}, False),
    ("Go HTTPMatch: a path with a query", {"http": {"paths": [{"prefix": "/a?b"}]}}, False),
    ("CRD HTTPPath: 1 025 characters", {"http": {"paths": [{"exact": "/" + "a" * 1024}]}}, False),
    ("Go RuleMetadata: keys in any case", {"metadata": {"annotations": {"A/B": "c"}}}, True),
    ("Go RuleMetadata: two slashes", {"metadata": {"annotations": {"a/b/c": "c"}}}, False),
    ("CRD action: with its case", {"action": "log"}, False),
    ("decode: a field of another product", {"destination": {"domains": ["example.com"]}}, False),
]


@pytest.mark.parametrize("case", RULES, ids=names_of(RULES))
def test_a_rule_is_accepted_where_calico_accepts_it(case: Case) -> None:
    """An ingress rule of a NetworkPolicy, action Allow where it says nothing else."""
    _, fragment, wanted = case
    assert accepted(object_of("NetworkPolicy", {"ingress": [{"action": "Allow", **fragment}]})) is wanted


# -- policies and tiers ----------------------------------------------------------------------------------------------

NP, GNP, SNP, SGNP, SKNP = (
    "NetworkPolicy",
    "GlobalNetworkPolicy",
    *(f"Staged{scope}NetworkPolicy" for scope in ("", "Global", "Kubernetes")),
)
SERVICE = {"services": {"name": "s"}}
BEFORE_NAT = {"preDNAT": True, "applyOnForward": True}


def to(rule: dict[str, Any]) -> dict[str, Any]:
    """A spec with one egress rule."""
    return {"egress": [{"action": "Allow", **rule}]}


SPECS: list[Case] = [
    ("CRD NP: applyOnForward is a field of another kind", (NP, {"applyOnForward": True}), False),
    ("CRD NP: serviceAccountSelector without global()", (NP, {"serviceAccountSelector": "global()"}), False),
    ("Go NP: http on egress", (NP, to({"http": {}})), False),
    ("Go NP: services of a destination on egress", (NP, to({"destination": SERVICE})), True),
    ("CRD NP: ports beside them", (NP, to({"protocol": "TCP", "destination": {**SERVICE, "notPorts": [1]}})), False),
    ("Go GNP: such a service needs its namespace", (GNP, to({"destination": SERVICE})), False),
    ("CRD NP: order is any number", (NP, {"order": -1.5}), True),
    ("decode: order in quotes", (NP, {"order": "1"}), False),
    ("CRD NP: a type twice", (NP, {"types": ["Ingress", "Ingress"]}), False),
    ("CRD NP: a type in lower case", (NP, {"types": ["ingress"]}), False),
    ("Go NP: the tier's name may have dots", (NP, {"tier": "a.b"}), True),
    ("Go NP: the tier's name in upper case", (NP, {"tier": "A"}), False),
    ("CRD GNP: preDNAT without applyOnForward", (GNP, {"preDNAT": True}), False),
    ("CRD GNP: preDNAT with an empty list of egress", (GNP, {**BEFORE_NAT, "egress": []}), True),
    ("CRD GNP: preDNAT with the type", (GNP, {**BEFORE_NAT, "types": ["Ingress", "Egress"]}), False),
    ("CRD GNP: false is no preDNAT", (GNP, {"preDNAT": False, "doNotTrack": True, "applyOnForward": True}), True),
    ("CRD Staged: an action of nobody", (SNP, {"stagedAction": "set"}), False),
    ("Go Staged Delete: a tier may stay", (SNP, {"stagedAction": "Delete", "tier": "t"}), True),
    ("Go Staged Delete: an order of 0 is one", (SNP, {"stagedAction": "Delete", "order": 0}), False),
    ("Go Staged Delete: an empty list is not nil", (SGNP, {"stagedAction": "Delete", "ingress": []}), False),
    ("Go Staged Delete: false is the zero value", (SGNP, {"stagedAction": "Delete", "preDNAT": False}), True),
    ("Go Staged Delete: an empty podSelector is a struct", (SKNP, {"stagedAction": "Delete", "podSelector": {}}), True),
    ("Go Staged Learn is judged as a whole", (SGNP, {"stagedAction": "Learn", "preDNAT": True}), False),
    ("CRD Tier: Pass or Deny", ("Tier", {"defaultAction": "Allow"}), False),
    ("CRD Tier: no order", ("Tier", {}), True),
]


@pytest.mark.parametrize("case", SPECS, ids=names_of(SPECS))
def test_a_spec_is_accepted_where_calico_accepts_it(case: Case) -> None:
    """The kind says which fields there are and what they may be together."""
    _, (kind, spec), wanted = case
    assert accepted(object_of(kind, spec)) is wanted


NAMES: list[Case] = [
    ("Go NP: one dot", ("NetworkPolicy", "a.b"), True),
    ("Go NP: two dots", ("NetworkPolicy", "a.b.c"), False),
    ("Go NP: more behind the prefix of Kubernetes' policies", ("NetworkPolicy", "knp.default.a.b"), True),
    ("Go NP: that prefix with nothing behind it has one dot", ("NetworkPolicy", "knp.default"), True),
    ("Go GNP: not that prefix", ("GlobalNetworkPolicy", "knp.default.a"), False),
    ("Go GNP: 253 characters without a dot", ("GlobalNetworkPolicy", "a" * 253), True),
    ("Go GNP: 254", ("GlobalNetworkPolicy", "a" * 254), False),
    ("Go Tier: 63", ("Tier", "a" * 63), True),
    ("Go Tier: 64", ("Tier", "a" * 64), False),
    ("Go Tier: a dot", ("Tier", "a.b"), False),
    ("CRD Tier: the default tier has its order", ("Tier", "default"), False),
]


@pytest.mark.parametrize("case", NAMES, ids=names_of(NAMES))
def test_a_name_is_accepted_where_calico_accepts_it(case: Case) -> None:
    """Letters of other scripts, capitals and underscores never are."""
    _, (kind, name), wanted = case
    assert accepted(object_of(kind, {}, name)) is wanted
    assert not any(accepted(object_of(kind, {}, wrong)) for wrong in ("", "A", "a_b", "-a", "a-", "é", "a\n"))


METADATA: list[Case] = [
    ("Go labels: an empty value", {"labels": {"a": ""}}, True),
    ("Go labels: null is empty", {"labels": {"a": None}}, True),
    ("Go labels: 64 characters", {"labels": {"a": "b" * 64}}, False),
    ("Go labels: a key with a prefix", {"labels": {f"{'p' * 253}/{'n' * 63}": "v"}}, True),
    ("Go labels: a prefix in upper case", {"labels": {"P.q/n": "v"}}, False),
    ("Go annotations: a prefix in upper case", {"annotations": {"P.q/n": "v"}}, True),
    ("Go annotations: 256 KiB", {"annotations": {"a": "b" * (256 * 1024 - 1)}}, True),
    ("Go annotations: one byte more", {"annotations": {"a": "b" * (256 * 1024)}}, False),
    ("decode: a field of nobody", {"bogus": ""}, False),
    ("decode: fields of the server", {"uid": "x", "creationTimestamp": None, "managedFields": [{}]}, True),
]


@pytest.mark.parametrize("case", METADATA, ids=names_of(METADATA))
def test_metadata_is_accepted_where_calico_accepts_it(case: Case) -> None:
    """Labels and annotations follow Kubernetes' rules."""
    _, metadata, wanted = case
    assert accepted(object_of("NetworkPolicy", {}, **metadata)) is wanted


@pytest.mark.parametrize(("name", "wanted"), [("a.b.c", True), ("A", False), ("a_b", False), ("a" * 254, False)])
def test_kubernetes_names_are_domain_names(name: str, wanted: bool) -> None:
    """ValidateNetworkPolicyName (Kubernetes): any number of dots, where Calico's own policies have one."""
    document = object_of("NetworkPolicy", {"podSelector": {}}, name)
    assert accepted({**document, "apiVersion": "networking.k8s.io/v1"}) is wanted
