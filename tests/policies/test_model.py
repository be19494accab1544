"""From fields to the model: every field arrives, with the defaults of the API and of the store."""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import ip_address, ip_network

import pytest

from policies.errors import SelectorError
from policies.load import Loaded
from policies.model import Action, Direction, NamedPort, PortRange, ServiceMatch, StagedAction
from policies.scope import peer_term, policy_term
from policies.selector import canonical

Load = Callable[[str], Loaded]

KUBERNETES = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: web
  namespace: shop
spec:
  podSelector: {}
"""
CALICO = """\
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata:
  name: %s
  namespace: shop
spec:
  selector: app == 'web'
"""
RULES = """\
  order: 10.5
  tier: security
  serviceAccountSelector: role == 'x'
  types: [Egress, Ingress]
  ingress:
  - action: Deny
    ipVersion: 4
    protocol: "6"
    notProtocol: UDPLite
    source:
      nets: [10.0.0.0/8]
      notNets: [10.1.0.0/16]
      notSelector: has(x)
      serviceAccounts: {names: [a], selector: has(y)}
    destination:
      ports: [80, "90:99", http]
      notPorts: [95]
    metadata: {annotations: {why: because}}
  egress:
  - action: Log
    protocol: ICMP
    icmp: {type: 8, code: 0}
    destination: {services: {name: dns, namespace: kube-system}}
"""


def test_every_field_of_a_policy_reaches_the_model(load: Load) -> None:
    """With numbers as numbers, networks as networks, and the place of each rule."""
    (policy,) = load(CALICO % "a" + RULES).inventory.policies
    assert (policy.order, policy.tier, policy.service_account_selector) == (10.5, "security", "role == 'x'")
    assert policy.types == (Direction.EGRESS, Direction.INGRESS)
    (deny,) = policy.ingress
    assert (deny.action, deny.ip_version, deny.protocol, deny.not_protocol) == (Action.DENY, 4, 6, "UDPLite")
    assert (deny.source.nets, deny.source.not_nets) == ((ip_network("10.0.0.0/8"),), (ip_network("10.1.0.0/16"),))
    assert deny.source.service_accounts is not None
    assert (deny.source.service_accounts.names, deny.source.service_accounts.selector) == (("a",), "has(y)")
    assert deny.destination.ports == (PortRange(80, 80), PortRange(90, 99), NamedPort("http"))
    assert deny.annotations == {"why": "because"}
    assert str(deny.place) == "p.yaml:13:5"
    assert policy.egress[0].destination.services is not None


def test_types_have_the_defaults_of_the_api_and_of_the_store(load: Load) -> None:
    """Egress rules alone mean Egress; in the raw store, where nothing is filled in, Felix takes both."""
    egress = CALICO % "a" + "  egress: [{action: Allow}]\n"
    assert load(egress).inventory.policies[0].types == (Direction.EGRESS,)
    stored = egress.replace("projectcalico.org/v3", "crd.projectcalico.org/v1")
    assert load(stored).inventory.policies[0].types == tuple(Direction)


def test_a_file_is_read_as_the_api_server_would_fill_it_in(load: Load) -> None:
    """A Kubernetes policy with egress rules and no policyTypes governs both directions in a cluster."""
    assert load(KUBERNETES + "  egress: [{}]\n").inventory.policies[0].types == tuple(Direction)


def test_stored_names_and_labels_are_those_of_the_object(load: Load) -> None:
    """Older releases store the tier in the name and labels in an annotation."""
    text = (CALICO % "default.a").replace("projectcalico.org/v3", "crd.projectcalico.org/v1")
    text = text.replace("spec:", """  annotations: {projectcalico.org/metadata: '{"labels": {"team": "x"}}'}\nspec:""")
    (policy,) = load(text).inventory.policies
    assert (policy.name, policy.labels) == ("a", {"team": "x"})


def test_staged_policies_are_kept_apart(load: Load) -> None:
    """They are in the inventory, marked, and never enforced."""
    text = (CALICO % "a").replace("NetworkPolicy", "StagedNetworkPolicy") + "  stagedAction: Delete\n"
    (policy,) = load(text).inventory.policies
    assert (policy.staged, policy.staged_action) == (True, StagedAction.DELETE)


def test_everything_else_that_exists_reaches_the_inventory(load: Load) -> None:
    """Pods, namespaces, accounts, services, tiers, host endpoints, network sets."""
    v3, v1 = "projectcalico.org/v3", "v1"
    container = {"image": "x", "ports": [{"name": "http", "containerPort": 80}]}
    objects = [
        (v1, "Pod", {"spec": {"nodeName": "n", "containers": [container]}, "status": {"podIPs": [{"ip": "10.0.0.1"}]}}),
        (v1, "Namespace", {"spec": {"finalizers": ["kubernetes"]}}),
        (v1, "ServiceAccount", {"secrets": []}),
        (v1, "Service", {"spec": {"clusterIP": "None", "ports": [{"port": 53, "targetPort": "dns"}]}}),
        (v3, "Tier", {"spec": {"order": 5, "defaultAction": "Pass"}}),
        (v3, "HostEndpoint", {"spec": {"node": "n", "interfaceName": "*", "expectedIPs": ["192.0.2.1"]}}),
        (v3, "NetworkSet", {"spec": {"nets": ["192.0.2.1", "192.0.2.8/29"]}}),
        (v3, "GlobalNetworkSet", {"spec": {"nets": []}}),
    ]
    listed = [
        {"apiVersion": version, "kind": kind, "metadata": {"name": "x"}, **rest} for version, kind, rest in objects
    ]
    loaded = load(json.dumps(listed))
    found = loaded.inventory
    assert loaded.problems == ()
    assert found.pods[0].ports[0].port == 80
    assert found.pods[0].addresses == (ip_address("10.0.0.1"),)
    assert (found.services[0].cluster_ips, found.services[0].ports[0].target) == ((), "dns")
    assert found.tiers[0].default_action is Action.PASS
    assert found.host_endpoints[0].interface == "*"
    assert found.network_sets[0].nets == (ip_network("192.0.2.1/32"), ip_network("192.0.2.8/29"))
    assert [each.namespace for each in found.network_sets] == ["default", None]
    assert (len(found.namespaces), len(found.service_accounts)) == (1, 1)


def test_tiers_of_calico_itself_exist_unwritten(load: Load) -> None:
    """A written tier of the name comes first; an unknown one is None."""
    inventory = load(KUBERNETES).inventory
    default = inventory.tier("default")
    assert default is not None
    assert (default.order, default.default_action) == (1_000_000, Action.DENY)
    assert inventory.tier("nowhere") is None


# -- what selectors become on their way to Felix ---------------------------------------------------------------------

IN_SPACE, WITH_ACCOUNT = "has(projectcalico.org/namespace)", "has(projectcalico.org/serviceaccount)"


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({}, "all()"),
        ({"selector": "all()"}, "all()"),
        ({"namespaceSelector": "!has(x)"}, "!has(pcns.x)"),
        ({"selector": "all()", "namespaceSelector": "!has(x)"}, f"({IN_SPACE} && !has(pcns.x))"),
        ({"selector": "all( )", "namespaceSelector": "!has(x)"}, "(all() && !has(pcns.x))"),
        ({"namespaceSelector": " "}, IN_SPACE),
        ({"namespaceSelector": "all() || has(x)"}, f"({IN_SPACE} || has(pcns.x))"),
        ({"selector": "all()", "serviceAccountSelector": "a == 'b'"}, f'({WITH_ACCOUNT} && pcsa.a == "b")'),
        ({"serviceAccountSelector": "all()"}, WITH_ACCOUNT),
        (
            {"selector": "all()", "namespaceSelector": "all()", "serviceAccountSelector": "all()"},
            f"(({IN_SPACE} && {IN_SPACE}) && {WITH_ACCOUNT})",
        ),
    ],
)
def test_selectors_of_cluster_wide_policies_become_one_as_in_calico(
    spec: dict[str, str], wanted: str, load: Load
) -> None:
    """globalnetworkpolicyprocessor.go replaces the text `all()`, in the policy's own selector, too."""
    head = {"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy", "metadata": {"name": "p"}}
    (policy,) = load(json.dumps({**head, "spec": spec})).inventory.policies
    assert canonical(policy_term(policy)) == wanted


def test_a_selector_cannot_close_the_parenthesis_around_it(load: Load) -> None:
    """Each is read by itself before they are joined as text."""
    spec = {"selector": "a == 'b') || (has(c)", "namespaceSelector": "all()"}
    head = {"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy", "metadata": {"name": "p"}}
    (policy,) = load(json.dumps({**head, "spec": spec})).inventory.policies
    with pytest.raises(SelectorError):
        policy_term(policy)


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("{}", None),
        ("{serviceAccounts: {}}", None),
        ("{serviceAccounts: {names: []}}", None),
        ("{serviceAccounts: {selector: all()}}", 'projectcalico.org/namespace == "shop"'),
        ("{notSelector: has(x)}", 'projectcalico.org/namespace == "shop"'),
        ("{namespaceSelector: ' '}", IN_SPACE),
        ("{namespaceSelector: global()}", "!has(projectcalico.org/namespace)"),
        ("{selector: all(), namespaceSelector: all()}", IN_SPACE),
    ],
)
def test_selectors_of_a_rule_become_one_as_in_calico(source: str, wanted: str | None, load: Load) -> None:
    """getEndpointSelector in rules.go: None where any address will do."""
    text = (CALICO % "a").split("spec:")[0] + f"spec: {{ingress: [{{action: Allow, source: {source}}}]}}\n"
    (policy,) = load(text).inventory.policies
    term = peer_term(policy.ingress[0].source, policy.namespace)
    assert (term and canonical(term)) == wanted


def test_an_empty_services_match_is_still_one(load: Load) -> None:
    """Calico's validation refuses it; it is no reason to fall over."""
    text = (CALICO % "a").split("spec:")[0] + "spec: {ingress: [{action: Allow, source: {services: {}}}]}\n"
    (policy,) = load(text).inventory.policies
    assert policy.ingress[0].source.services == ServiceMatch("", "")
