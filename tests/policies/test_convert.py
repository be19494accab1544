"""Conversion and rendering: what a stranger's clone can check without Calico's vectors, and the schemas of the CRDs."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from policies import convert
from policies.document import nodes
from policies.fields import CALICO, KINDS
from policies.load import Found, assembled, found_in
from policies.model import Direction, PolicyKind
from policies.output import as_json, as_yaml
from policies.ports import has_ports, joined, parse_port, parse_protocol
from policies.render import policy_object
from policies.shapes import Fields, ListOf, MapOf, Shape
from policies.validate import validate

Find = Callable[[str], Found]

SEED = """\
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata:
  name: access-nginx
spec:
  podSelector:
    matchLabels:
      run: nginx
  ingress:
  - from:
    - podSelector:
        matchLabels:
          run: access
"""


def test_the_usual_example_becomes_what_calicoctl_shows_for_it(find: Find) -> None:
    """One Allow rule of order 1000, with the orchestrator term on both sides, and no namespace invented."""
    policy = convert.to_calico(find(SEED).objects[0])
    assert policy is not None
    assert policy_object(policy) == {
        "apiVersion": "projectcalico.org/v3",
        "kind": "NetworkPolicy",
        "metadata": {"name": "access-nginx"},
        "spec": {
            "tier": "default",
            "order": 1000,
            "selector": "projectcalico.org/orchestrator == 'k8s' && run == 'nginx'",
            "types": ["Ingress"],
            "ingress": [
                {
                    "action": "Allow",
                    "source": {"selector": "projectcalico.org/orchestrator == 'k8s' && run == 'access'"},
                }
            ],
        },
    }


def test_an_unreadable_cidr_leaves_the_peer_open(find: Find) -> None:
    """Calico fails open here; so does the conversion, and lint says so."""
    text = SEED.split("  - from")[0] + "  - from: [{ipBlock: {cidr: 10.0.0.1}}]\n"
    policy = convert.to_calico(find(text).objects[0])
    assert policy is not None
    assert policy_object(policy)["spec"]["ingress"] == [{"action": "Allow"}]


def test_exceptions_end_at_the_first_that_cannot_be_read(find: Find) -> None:
    """What follows the bad one is dropped, too."""
    block = "{cidr: 10.0.0.7/8, except: [10.1.0.0/16, 10.2.0.0, 10.3.0.0/16]}"
    policy = convert.to_calico(find(SEED.split("  - from")[0] + f"  - from: [{{ipBlock: {block}}}]\n").objects[0])
    assert policy is not None
    (rule,) = policy.ingress
    assert [str(net) for net in (*rule.source.nets, *rule.source.not_nets)] == ["10.0.0.0/8", "10.1.0.0/16"]


def test_a_rule_with_a_bad_port_is_left_out_and_named(find: Find) -> None:
    """The other rules stay, and the error is Calico's sentence."""
    policy = convert.to_calico(find(SEED + "  - ports: [{port: 70000}]\n").objects[0])
    assert policy is not None
    assert len(policy.ingress) == 1
    assert convert.error_text(policy) == (
        "policy: access-nginx: error with rule &NetworkPolicyIngressRule{Ports:[]NetworkPolicyPort{NetworkPolicyPort{"
        "Protocol:nil,Port:70000,EndPort:nil,},},From:[]NetworkPolicyPeer{},} (k8s rule couldn't be converted:"
        " failed to parse k8s port: invalid port 70000: invalid port format (70000))"
    )


@pytest.mark.parametrize(
    ("uid", "good"),
    [
        ("30316465-6365-4463-ad63-3564622d3638", True),
        ("3031646563654463ad633564622d3638", True),
        ("3031646-56365-4463-ad63-3564622d3638", False),
        ("nonsense", False),
    ],
)
def test_a_uid_that_is_no_uuid_is_refused(uid: str, good: bool, find: Find) -> None:
    """Calico derives the policy's own uid from it."""
    written = find(SEED.replace("name: access-nginx", f"name: access-nginx\n  uid: {uid}")).objects[0]
    if good:
        assert convert.to_calico(written) is not None
    else:
        with pytest.raises(ValueError, match="UID"):
            convert.to_calico(written)


ADMIN = """\
apiVersion: policy.networking.k8s.io/v1alpha1
kind: %s
metadata: {name: default}
spec:
  %s
  subject: {namespaces: {matchLabels: {team: a}}}
  egress:
  - name: dns
    action: Allow
    to: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: dns}}}}]
    ports: [{portNumber: {protocol: UDP, port: 53}}, {portRange: {start: 5, end: 9}}]
  - action: Deny
    to: [{nodes: {}}]
"""


@pytest.mark.parametrize(
    ("kind", "priority", "tier", "order"),
    [
        ("AdminNetworkPolicy", "priority: 7", "adminnetworkpolicy", 7),
        ("BaselineAdminNetworkPolicy", "", "baselineadminnetworkpolicy", 1000),
    ],
)
def test_the_forerunners_of_cluster_network_policy_keep_their_tiers(
    kind: str, priority: str, tier: str, order: int, find: Find
) -> None:
    """Protocols sorted, the rule's name kept, and a Deny that Calico cannot express denies everything."""
    found = find(ADMIN % (kind, priority))
    assert not found.problems
    policy = convert.to_calico(found.objects[0])
    assert policy is not None
    assert (policy.tier, policy.order, policy.types) == (tier, order, (Direction.EGRESS,))
    rendered = policy_object(policy)["spec"]["egress"]
    assert [(rule["action"], rule.get("protocol"), rule.get("destination", {}).get("ports")) for rule in rendered] == [
        ("Allow", "TCP", ["5:9"]),
        ("Allow", "UDP", [53]),
        ("Deny", None, None),
    ]
    assert rendered[0]["metadata"] == {"annotations": {"name": "dns"}}
    assert "none of supported fields in 'To' is set" in (convert.error_text(policy) or "")


def test_a_staged_kubernetes_policy_stays_staged(find: Find) -> None:
    """It becomes a StagedNetworkPolicy, with its action."""
    staged = SEED.replace("networking.k8s.io/v1", "projectcalico.org/v3").replace(
        "kind: NetworkPolicy", "kind: StagedKubernetesNetworkPolicy"
    )
    (policy,) = assembled(find(staged)).inventory.policies
    assert policy.kind is PolicyKind.STAGED_KUBERNETES_NETWORK_POLICY
    rendered = policy_object(policy)
    assert (rendered["kind"], rendered["spec"]["stagedAction"]) == ("StagedNetworkPolicy", "Set")


# -- what Calico's converter does with what the API server would refuse or fill in -----------------------------------

ANY: dict[str, Any] = {"action": "Allow"}
PODS = "projectcalico.org/orchestrator == 'k8s'"


def tcp(*ports: int | str, protocol: str | None = "TCP") -> dict[str, Any]:
    """An ingress rule as it is rendered, with these ports."""
    return {
        **ANY,
        **({"protocol": protocol} if protocol else {}),
        **({"destination": {"ports": [*ports]}} if ports else {}),
    }


EDGES: list[tuple[str, Any, list[dict[str, Any]]]] = [
    (
        "one number among names changes no order",
        {"ports": [{"port": "b"}, {"port": 80}, {"port": "a"}]},
        [tcp("b", 80, "a")],
    ),
    (
        "the same number twice is two numbers: names go first",
        {"ports": [{"port": 80}, {"port": "b"}, {"port": 80}]},
        [tcp("b", 80)],
    ),
    ("ranges that touch are one", {"ports": [{"port": 6}, {"port": 1, "endPort": 5}, {"port": 8}]}, [tcp("1:6", 8)]),
    ("a number in quotes is the number", {"ports": [{"port": "080"}]}, [tcp(80)]),
    ("a negative number is a name (PortFromString)", {"ports": [{"port": -1}]}, [tcp("-1")]),
    ("endPort without port is nothing", {"ports": [{"endPort": 90}]}, [tcp()]),
    ("all ports win, wherever they stand", {"ports": [{"port": 80}, {}, {"port": 81}]}, [tcp()]),
    (
        "a protocol has Calico's spelling",
        {"ports": [{"protocol": "sctp", "port": 1}, {"protocol": "SCTP", "port": 2}]},
        [tcp("1:2", protocol="SCTP")],
    ),
    ("an unknown protocol stays, sorted by bytes", {"ports": [{"protocol": "foo"}, {}]}, [tcp(), tcp(protocol="foo")]),
    ("an empty protocol is any", {"ports": [{"protocol": "", "port": 80}]}, [tcp(80, protocol=None)]),
    ("port 0 is taken", {"ports": [{"port": 0}]}, [tcp(0)]),
    ("null is an empty rule", None, [ANY]),
    ("null is an empty peer", {"from": [None]}, [{**ANY, "source": {"selector": PODS}}]),
    (
        "an ipBlock hides the selectors beside it",
        {"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]},
        [{**ANY, "source": {"nets": ["10.0.0.0/8"]}}],
    ),
    ("an ipBlock without a network is anybody", {"from": [{"ipBlock": {}}]}, [ANY]),
    (
        "IPv6 is written short",
        {"from": [{"ipBlock": {"cidr": "2001:DB8:0:0:1::1/80"}}]},
        [{**ANY, "source": {"nets": ["2001:db8:0:0:1::/80"]}}],
    ),
    (
        "a mapped IPv4 network is one (net.IPNet.String)",
        {"from": [{"ipBlock": {"cidr": "::ffff:10.1.2.3/104"}}]},
        [{**ANY, "source": {"nets": ["10.0.0.0/8"]}}],
    ),
]


@pytest.mark.parametrize("edge", EDGES, ids=[edge[0] for edge in EDGES])
def test_odd_rules_become_what_calicos_converter_makes_of_them(edge: tuple[str, Any, list[dict[str, Any]]]) -> None:
    """k8sRuleToCalico, k8sPeerToCalicoFields and SimplifyPorts in conversion.go, numorstring's port.go."""
    _, rule, wanted = edge
    document = {**_plain(SEED), "spec": {"podSelector": {}, "ingress": [rule]}}
    policy = convert.to_calico(found_in([("p.json", json.dumps(document))]).objects[0])
    assert policy is not None
    assert not policy.errors
    assert policy_object(policy)["spec"]["ingress"] == wanted


def _plain(text: str) -> Any:
    return next(nodes(text, "p.yaml")).plain()


@pytest.mark.parametrize(
    ("types", "wanted"),
    [
        (["Egress", "Ingress"], ["Ingress", "Egress"]),
        (["egress"], ["Ingress"]),
        (["Egress", "other"], ["Egress"]),
        ([], ["Ingress"]),
    ],
)
def test_types_are_those_that_calico_knows_or_ingress(types: list[str], wanted: list[str]) -> None:
    """Ingress first, others passed over, Ingress where none is left (K8sNetworkPolicyToCalico)."""
    document = {**_plain(SEED), "spec": {"policyTypes": types, "egress": [{}]}}
    policy = convert.to_calico(found_in([("p.json", json.dumps(document))]).objects[0])
    assert policy is not None
    assert policy_object(policy)["spec"]["types"] == wanted


def test_of_namespaces_and_pods_a_subject_keeps_the_first_and_a_peer_the_second() -> None:
    """clusternetworkpolicy.go asks for them in that order, and lets the later one of a peer win."""
    both = {"namespaces": {"matchLabels": {"n": "1"}}, "pods": {"podSelector": {"matchLabels": {"p": "2"}}}}
    rules = [{"action": "Accept", "from": [both], "protocols": [{"udp": {"destinationPort": {}}}]}]
    document = {
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "c"},
        "spec": {"tier": "Admin", "priority": 0, "subject": both, "ingress": rules},
    }
    policy = convert.to_calico(found_in([("p.json", json.dumps(document))]).objects[0])
    assert policy is not None
    assert (policy.order, policy.namespace_selector, policy.selector) == (0, "n == '1'", PODS)
    source = {"selector": f"{PODS} && p == '2'", "namespaceSelector": "all()"}
    assert policy_object(policy)["spec"]["ingress"] == [{**ANY, "protocol": "UDP", "source": source}]


# -- ports -----------------------------------------------------------------------------------------------------------

PORTS = st.one_of(
    st.integers(0, 65535),
    st.tuples(st.integers(0, 400), st.integers(0, 400)).map(sorted).map(lambda ends: f"{ends[0]}:{ends[1]}"),
    st.sampled_from(["http", "dns"]),
)


@given(st.lists(PORTS, max_size=6))
def test_joining_changes_no_port_and_leaves_no_neighbours(ports: list[int | str]) -> None:
    """The same numbers and names are covered, by ranges that neither touch nor overlap."""
    before = [parse_port(port) for port in ports]
    after = joined(before)

    def numbers(listed: Any) -> set[int]:
        return {number for port in listed if hasattr(port, "first") for number in range(port.first, port.last + 1)}

    assert numbers(after) == numbers(before)
    assert [port for port in after if hasattr(port, "name")] == [port for port in before if hasattr(port, "name")]
    ranges = [port for port in after if hasattr(port, "first")]
    if len(numbers(before)) > 1:
        assert all(left.last + 1 < right.first for left, right in itertools.pairwise(ranges))


@pytest.mark.parametrize("value", [-1, 65536, 1.5, True, "", "80:", "70000", "1:70000", "a b", "9:8"])
def test_what_calico_reads_as_no_port_is_refused(value: object) -> None:
    """With a reason."""
    with pytest.raises(ValueError, match=r"\w"):
        parse_port(value)


def test_protocols_are_names_as_written_or_numbers() -> None:
    """`"6"` is a number, and only three protocols have ports."""
    assert [parse_protocol(value) for value in ("6", 6, "TCP", "tcp", "256")] == [6, 6, "TCP", "tcp", "256"]
    assert [has_ports(value) for value in ("TCP", 17, "SCTP", "ICMP", 1, None)] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]


# -- output ----------------------------------------------------------------------------------------------------------


@given(st.dictionaries(st.text(max_size=6), st.text(max_size=12), max_size=4))
def test_yaml_output_is_read_back_as_the_same_text(labels: dict[str, str]) -> None:
    """Whatever a label says: `y`, `1e3` and `0o17` stay text for Kubernetes' YAML library."""
    keys = {key: value for key, value in labels.items() if key not in ("<<", "=")}
    written = as_yaml([{"labels": keys}])
    assert [node.plain() for node in nodes(written, "out")] == [{"labels": keys}]


@pytest.mark.parametrize("text", ["y", "no", "1e3", "0o17", "012", "~", "20:30", "null", "1_0", ".5", "0x1f"])
def test_text_that_looks_like_something_else_is_quoted(text: str) -> None:
    """PyYAML alone leaves some of these bare."""
    assert as_yaml([{"a": text}]) == f"a: '{text}'\n"


def test_long_selectors_stay_on_one_line() -> None:
    """A folded selector would be hard to read, and with '|' wrong."""
    selector = " || ".join(f"app == 'service-number-{i}'" for i in range(40))
    assert as_yaml([{"selector": selector}]).count("\n") == 1


def test_json_output_is_the_bare_object_or_a_list() -> None:
    """So that both kubectl and calicoctl users can pipe it on."""
    assert json.loads(as_json([{"kind": "a"}])) == {"kind": "a"}
    assert json.loads(as_json([{"kind": "a"}, {"kind": "b"}]))["kind"] == "List"


CALICO_POLICY = """\
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: a, labels: {x: "y"}, annotations: {example.com/why: "1"}}
spec:
  order: 0
  namespaceSelector: has(team)
  serviceAccountSelector: has(role)
  selector: all()
  applyOnForward: true
  doNotTrack: true
  types: [Egress, Ingress]
  performanceHints: [AssumeNeededOnEveryNode]
  ingress:
  - action: Allow
    protocol: TCP
    notProtocol: 17
    ipVersion: 6
    http: {methods: [GET], paths: [{exact: /a}, {prefix: /b}]}
    source: {nets: ["2001:db8::/32"], notNets: ["2001:db8:1::/48"], ports: [1, "2:3", x], notPorts: [4]}
    destination: {selector: has(a), notSelector: has(b), namespaceSelector: global()}
  - action: Pass
    protocol: ICMP
    icmp: {type: 0, code: 0}
    notICMP: {type: 8}
    source: {serviceAccounts: {names: [a], selector: has(b)}}
    destination: {}
    metadata: {annotations: {a: b}}
  egress:
  - action: Log
    destination: {services: {name: a, namespace: b}}
"""


def test_rendering_a_policy_and_reading_it_again_loses_nothing(find: Find) -> None:
    """Every field of the API goes through the model and back."""
    (policy,) = assembled(find(CALICO_POLICY)).inventory.policies
    rendered = as_yaml([policy_object(policy)])
    assert assembled(found_in([("again", rendered)])).inventory.policies == (policy,)
    assert validate(found_in([("again", rendered)])) == ()


# -- the schemas of Calico's CRDs ------------------------------------------------------------------------------------

PLURALS = {
    "NetworkPolicy": "networkpolicies",
    "GlobalNetworkPolicy": "globalnetworkpolicies",
    "HostEndpoint": "hostendpoints",
    "Tier": "tiers",
}


def leaves(shape: Shape, path: str = "") -> set[str]:
    """The paths of all fields that a shape knows."""
    match shape:
        case Fields(known):
            return {path}.union(*(leaves(each, f"{path}.{name}") for name, each in known.items()))
        case ListOf(item):
            return leaves(item, f"{path}[]")
        case MapOf():
            return {path}
    return {path}


def schema_leaves(schema: Mapping[str, Any], path: str = "") -> set[str]:
    """The paths of all fields that an OpenAPI schema knows."""
    if "items" in schema:
        return schema_leaves(schema["items"], f"{path}[]")
    below = (schema_leaves(each, f"{path}.{name}") for name, each in schema.get("properties", {}).items())
    return {path}.union(*below)


@pytest.mark.parametrize("kind", PLURALS)
def test_the_fields_we_know_are_those_of_the_crd(kind: str, crd: Callable[[str], Any]) -> None:
    """No field of the specification is missing, none is invented."""
    ours = KINDS[(CALICO, kind)].shape.known["spec"]
    assert leaves(ours) == schema_leaves(crd(PLURALS[kind])["properties"]["spec"])


def test_yaml_and_pyyaml_agree_on_our_output() -> None:
    """The output is ordinary YAML."""
    assert yaml.safe_load(as_yaml([{"a": {"b": [1, "x", True, None]}}])) == {"a": {"b": [1, "x", True, None]}}
