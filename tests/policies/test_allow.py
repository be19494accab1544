"""Policies that allow denied flows: exactly those, named by workload, or a refusal that says why."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies.allow import allow, policies_of
from policies.commands import policies
from policies.evaluate import Ruleset, evaluate
from policies.flow import Directory, Flow
from policies.load import assembled, found_in
from policies.model import Action, EndpointPort, Inventory, Pod
from tests.policies.worlds import policy_sets

_LABELS: tuple[tuple[str, dict[str, str]], ...] = (
    ("one", {"app": "a", "tier": "x", "pod-template-hash": "1"}),
    ("one", {"app": "a"}),
    ("one", {"app": "b"}),
    ("two", {"app": "a"}),
    ("two", {"tier": "x", "app": "c"}),
    ("two", {}),
)
PODS = tuple(
    Pod(
        name=f"pod{number}",
        namespace=namespace,
        labels=labels,
        addresses=(ip_address(f"10.{number}.0.1"),),
        ports=(EndpointPort("http", "TCP", 80),),
    )
    for number, (namespace, labels) in enumerate(_LABELS)
)
HOST = Pod(name="host", namespace="one", labels={"app": "host"}, addresses=(ip_address("10.1.9.9"),), host_network=True)
OUTSIDE = ("192.0.2.1", "10.1.0.77", "10.1.9.9")
KINDS = ((6, 80, None), (17, 53, None), (1, None, 8))


def _flows(inventory: Inventory) -> list[Flow]:
    directory = Directory(inventory)
    parties = [*directory.parties(), *(directory.at(ip_address(text)) for text in OUTSIDE)]
    return [
        Flow(source, target, protocol, port, icmp_type=kind)
        for source, target in itertools.permutations(parties, 2)
        for protocol, port, kind in KINDS
    ]


def _key(flow: Flow) -> tuple[str, str, int]:
    return (flow.source.name, flow.destination.name, flow.protocol)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    sources=policy_sets((Action.ALLOW, Action.DENY, Action.PASS), "source", (500.0, 1000.0, 2000.0)),
    calico=st.booleans(),
    choice=st.integers(0, 10_000),
)
def test_allow_allows_exactly_what_was_asked(sources: Inventory, calico: bool, choice: int) -> None:
    """Of all flows among pods and addresses only the chosen one changes; or it is refused and nothing changes."""
    world = replace(sources, pods=(*PODS, HOST))
    before = Ruleset.of(world)
    denied = [flow for flow in _flows(world) if not evaluate(flow, before).allowed]
    if not denied:
        return
    chosen = denied[choice % len(denied)]
    proposal = allow([chosen], world, calico=calico)
    after = Ruleset.of(replace(world, policies=(*world.policies, *policies_of(proposal.objects))))
    changed = {_key(f) for f in _flows(world) if evaluate(f, before).allowed != evaluate(f, after).allowed}
    refused = bool(proposal.refused)
    assert changed == (set() if refused else {_key(chosen)})
    assert {_key(change.after.flow) for change in proposal.beside} == changed - {_key(chosen)}


ISOLATED = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: isolate, namespace: web}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
"""


def _pod(name: str, namespace: str, address: str, labels: dict[str, str], **spec: Any) -> str:
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": {"containers": [{"name": "c", "image": "i"}], **spec},
            "status": {"podIP": address, "phase": "Running"},
        }
    )


def _inventory(*texts: str) -> Inventory:
    loaded = assembled(found_in((f"file{n}", text) for n, text in enumerate(texts)))
    assert loaded.problems == ()
    return loaded.inventory


SERVER = _pod("server-0", "web", "10.0.0.1", {"app": "server", "statefulset.kubernetes.io/pod-name": "server-0"})
DNS = _pod("coredns-1", "kube-system", "10.0.0.53", {"k8s-app": "kube-dns", "pod-template-hash": "f00"})
NODE = _pod("agent", "ops", "172.16.0.1", {"app": "agent"}, hostNetwork=True)


def _asked(inventory: Inventory, source: str, target: str, protocol: int, port: int) -> Flow:
    directory = Directory(inventory)
    return Flow(directory.find(source), directory.find(target), protocol, port)


def test_dns_is_opened_to_the_dns_pods_of_their_namespace() -> None:
    """An egress flow to port 53 names the DNS workload and its namespace, without labels that change at a rollout."""
    inventory = _inventory(ISOLATED, SERVER, DNS)
    proposal = allow([_asked(inventory, "web/server-0", "10.0.0.53", 17, 53)], inventory)
    (rule,) = proposal.objects[0]["spec"]["egress"]
    assert rule == {
        "to": [
            {
                "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
            }
        ],
        "ports": [{"protocol": "UDP", "port": 53}],
    }
    assert proposal.objects[0]["spec"]["podSelector"] == {"matchLabels": {"app": "server"}}


def test_a_host_network_pod_is_named_by_address() -> None:
    """Calico knows no labels of a pod in the host network, so its node's address is what can be allowed."""
    inventory = _inventory(ISOLATED, SERVER, NODE)
    proposal = allow([_asked(inventory, "ops/agent", "web/server-0", 6, 80)], inventory)
    (rule,) = proposal.objects[0]["spec"]["ingress"]
    assert rule["from"] == [{"ipBlock": {"cidr": "172.16.0.1/32"}}]


def test_several_flows_share_policies_and_both_ends_are_opened() -> None:
    """Each workload gets one policy with all its rules; a flow that both ends deny is allowed at both."""
    client = _pod("client", "web", "10.0.0.2", {"app": "client"})
    inventory = _inventory(ISOLATED, SERVER, client)
    flows = [_asked(inventory, "web/client", "web/server-0", 6, port) for port in (80, 443)]
    proposal = allow(flows, inventory)
    assert len(proposal.objects) == 2
    assert all(change.kind == "opened" for change in proposal.changes)
    assert proposal.refused == ()


def test_a_pod_without_labels_is_refused() -> None:
    """A selector for it would select everyone, so the answer is to give it a label."""
    inventory = _inventory(ISOLATED, _pod("bare", "web", "10.0.0.3", {}))
    proposal = allow([_asked(inventory, "192.0.2.1", "web/bare", 6, 80)], inventory)
    assert proposal.objects == ()
    assert "has no labels" in str(proposal.refused[0])


DENIED_EARLY = """\
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: no-ssh, namespace: web}
spec:
  order: 10
  types: [Ingress]
  ingress: [{action: Deny, protocol: TCP, destination: {ports: [22]}}, {action: Allow}]
"""


def test_a_deny_rule_is_passed_only_by_a_calico_policy_before_it() -> None:
    """A Kubernetes policy would come too late, and says so; with --calico the policy sorts before the Deny."""
    inventory = _inventory(DENIED_EARLY, SERVER)
    flow = _asked(inventory, "192.0.2.1", "web/server-0", 6, 22)
    assert "use --calico" in str(allow([flow], inventory).refused[0])
    proposal = allow([flow], inventory, calico=True)
    assert proposal.objects[0]["spec"]["order"] < 10
    assert proposal.changes[0].kind == "opened"


def test_the_command_tells_the_difference_and_refuses_with_exit_code_1() -> None:
    """Standard output holds only objects; what changes, and what is refused, is on standard error."""
    text = "---\n".join((ISOLATED, SERVER + "\n", DNS + "\n"))
    good = CliRunner().invoke(policies, ["allow", "-", "--from", "10.0.0.1", "--to", "10.0.0.53:53/udp"], input=text)
    assert good.exit_code == 0
    assert "opened: web/server-0 to kube-system/coredns-1, UDP port 53" in good.stderr
    bad = CliRunner().invoke(policies, ["allow", "-", "--from", "10.0.0.53", "--to", "10.0.0.1/icmp"], input=text)
    assert (bad.exit_code, bad.stdout) == (1, "")
    assert "use --calico" in bad.stderr
