"""Single verdicts and their reasons: every kind of field, hook and endpoint, and the commands that print them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from policies.commands import policies
from policies.evaluate import Ending, Ruleset, Verdict, evaluate
from policies.flow import Directory, Flow, Party, flow_to, parse_target
from policies.load import assembled, found_in
from policies.model import Inventory

CLUSTER = """\
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: web, labels: {team: blue}}}
- {apiVersion: v1, kind: Namespace, metadata: {name: ops, labels: {team: red}}}
- apiVersion: v1
  kind: Pod
  metadata: {name: server, namespace: web, labels: {app: server}}
  spec: {nodeName: n1, serviceAccountName: store, containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}
  status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}], phase: Running}
- apiVersion: v1
  kind: Pod
  metadata: {name: client, namespace: ops, labels: {app: client}}
  spec: {nodeName: n2, serviceAccountName: caller, containers: [{name: c}]}
  status: {podIP: 10.0.0.2, phase: Running}
- {apiVersion: v1, kind: ServiceAccount, metadata: {name: caller, namespace: ops, labels: {trust: high}}}
- apiVersion: v1
  kind: Service
  metadata: {name: shop, namespace: web}
  spec: {selector: {app: server}, ports: [{port: 80, targetPort: http}]}
- apiVersion: projectcalico.org/v3
  kind: GlobalNetworkSet
  metadata: {name: office, labels: {zone: office}}
  spec: {nets: [198.51.100.0/24]}
- apiVersion: projectcalico.org/v3
  kind: HostEndpoint
  metadata: {name: n1-eth0, labels: {role: worker}}
  spec: {node: n1, interfaceName: eth0, expectedIPs: [172.16.0.1]}
- {apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: guard}, spec: {order: 10, defaultAction: Pass}}
"""


def policy(name: str, spec: dict[str, Any], kind: str = "NetworkPolicy") -> str:
    """A Calico policy as text; a namespaced one is in namespace web."""
    metadata = {"name": name} | ({"namespace": "web"} if "Global" not in kind else {})
    return json.dumps({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec})


def ingress(*rules: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """A spec that governs ingress of everything it can select."""
    return {"order": 100, "types": ["Ingress"], "ingress": list(rules), **spec}


def inventory(*texts: str) -> Inventory:
    loaded = assembled(found_in((f"file{n}", text) for n, text in enumerate((CLUSTER, *texts))))
    assert loaded.problems == ()
    return loaded.inventory


def verdict(source: str, target: str, *texts: str) -> Verdict:
    world = inventory(*texts)
    directory, wanted = Directory(world), parse_target(target)
    return evaluate(flow_to(directory.find(source), directory.find(wanted.who), wanted), Ruleset.of(world))


def field_of(source: str, target: str, rule: dict[str, Any]) -> str | None:
    """The field of the one rule that fails first; None where the rule matches."""
    walked = verdict(source, target, policy("p", ingress({"action": "Allow", **rule}))).walks[-1]
    mismatch = walked.tiers[0].policies[0].rules[0].mismatch
    return mismatch.field if mismatch else None


FIELDS: dict[str, tuple[str, str, dict[str, Any], str | None]] = {
    "version": ("ops/client", "server:80", {"ipVersion": 6}, "ipVersion"),
    "protocol": ("ops/client", "server:80/udp", {"protocol": "TCP"}, "protocol"),
    "not protocol": ("ops/client", "server:80", {"notProtocol": "TCP"}, "notProtocol"),
    "icmp": ("ops/client", "server:8/icmp", {"protocol": "ICMP", "icmp": {"type": 0}}, "icmp"),
    "icmp fits": ("ops/client", "server:8/icmp", {"protocol": "ICMP", "icmp": {"type": 8}}, None),
    "not icmp": ("ops/client", "server:8/icmp", {"protocol": "ICMP", "notICMP": {"type": 8}}, "notICMP"),
    "nets": ("ops/client", "server:80", {"source": {"nets": ["10.0.0.0/31"]}}, "source.nets"),
    "not nets": ("ops/client", "server:80", {"source": {"notNets": ["10.0.0.2/32"]}}, "source.notNets"),
    "nets of the other family only": (
        "ops/client",
        "server:80",
        {"source": {"notNets": ["2001:db8::/32"]}},
        "source.notNets",
    ),
    "a selector stays in the namespace": (
        "ops/client",
        "server:80",
        {"source": {"selector": "all()"}},
        "source.selector",
    ),
    "a namespace selector leaves it": (
        "ops/client",
        "server:80",
        {"source": {"namespaceSelector": "team == 'red'"}},
        None,
    ),
    "a selector needs somebody known": (
        "203.0.113.1",
        "server:80",
        {"source": {"namespaceSelector": "all()"}},
        "source.selector",
    ),
    "global() is outside namespaces": (
        "198.51.100.7",
        "server:80",
        {"source": {"namespaceSelector": "global()"}},
        None,
    ),
    "not selector": (
        "ops/client",
        "server:80",
        {"source": {"notSelector": "app == 'client'", "namespaceSelector": "all()"}},
        "source.notSelector",
    ),
    "service account by name": (
        "ops/client",
        "server:80",
        {"source": {"namespaceSelector": "all()", "serviceAccounts": {"names": ["caller"]}}},
        None,
    ),
    "service account by label": (
        "ops/client",
        "server:80",
        {"source": {"namespaceSelector": "all()", "serviceAccounts": {"selector": "trust == 'low'"}}},
        "source.selector",
    ),
    "network set": (
        "198.51.100.7",
        "server:80",
        {"source": {"namespaceSelector": "global()", "selector": "zone == 'office'"}},
        None,
    ),
    "ports": (
        "ops/client",
        "server:81",
        {"protocol": "TCP", "destination": {"ports": [80, "82:90"]}},
        "destination.ports",
    ),
    "named port": ("ops/client", "server:8080", {"protocol": "TCP", "destination": {"ports": ["http"]}}, None),
    "named port, other number": (
        "ops/client",
        "server:80",
        {"protocol": "TCP", "destination": {"ports": ["http"]}},
        "destination.ports",
    ),
    "not ports": (
        "ops/client",
        "server:80",
        {"protocol": "TCP", "destination": {"notPorts": [80]}},
        "destination.notPorts",
    ),
}


@pytest.mark.parametrize(("source", "target", "rule", "field"), FIELDS.values(), ids=FIELDS)
def test_the_first_field_that_fails_is_named(source: str, target: str, rule: dict[str, Any], field: str | None) -> None:
    """Each field of a rule matches as Felix renders it, and is named when it is the one that fails."""
    assert field_of(source, target, rule) == field


def test_no_policy_means_the_namespace_s_profile_allows() -> None:
    """Pods that no policy selects are open in both directions."""
    found = verdict("ops/client", "server:80")
    assert found.allowed
    assert {walk.ending for walk in found.walks} == {Ending.PROFILE}


def test_a_pass_leaves_the_tier_and_the_next_tier_decides() -> None:
    """Pass skips the rest of its tier, be there a Deny; the default tier then has its say."""
    spec = ingress({"action": "Pass"}, {"action": "Deny"}, tier="guard")
    found = verdict("ops/client", "server:80", policy("guard.p", spec), policy("q", ingress({"action": "Allow"})))
    assert found.allowed
    assert [tier.tier.name for tier in found.walks[-1].tiers] == ["guard", "default"]


def test_a_tier_that_passes_by_default_does_not_isolate() -> None:
    """A policy without a matching rule in such a tier leaves the packet to the next tier and to profiles."""
    found = verdict("ops/client", "server:80", policy("guard.p", ingress(tier="guard")))
    assert found.walks[-1].ending is Ending.PROFILE


def test_equal_orders_are_sorted_by_name() -> None:
    """Policies of one order are walked in the order of their names, as Calico 3.32 does."""
    deny, allow = ingress({"action": "Deny"}), ingress({"action": "Allow"})
    assert not verdict("ops/client", "server:80", policy("b", allow), policy("a", deny)).allowed
    assert verdict("ops/client", "server:80", policy("a", allow), policy("b", deny)).allowed


def test_what_egress_drops_never_reaches_ingress() -> None:
    """Both walks are shown, but a Log policy of the far end sees nothing of a packet that its sender drops."""
    egress = {"order": 1, "types": ["Egress"], "selector": "app == 'client'", "egress": [{"action": "Deny"}]}
    log = ingress({"action": "Log"}, order=3000)
    found = verdict("ops/client", "server:80", policy("e", egress, "GlobalNetworkPolicy"), policy("l", log))
    assert [walk.reached for walk in found.walks] == [True, False]
    assert found.logs == ()
    assert "rule 1 of GlobalNetworkPolicy e says Deny" in found.why


def test_staged_policies_are_reported_and_not_enforced() -> None:
    """A staged policy changes nothing and is named in the walk."""
    found = verdict("ops/client", "server:80", policy("s", ingress({"action": "Deny"}), "StagedNetworkPolicy"))
    assert found.allowed
    assert [each.name for each in found.walks[-1].staged] == ["s"]


def test_isolating_policies_are_the_ones_that_denied() -> None:
    """At the end of a tier every policy that isolates is to blame, but not one that only logs."""
    log = ingress({"action": "Log"}, order=3000)
    found = verdict("ops/client", "server:80", policy("a", ingress()), policy("b", ingress()), policy("l", log))
    assert [each.name for each in found.denied_by] == ["a", "b"]
    assert [each.name for each in found.logs] == ["l"]


def test_a_rule_about_a_service_matches_its_pods_and_ports() -> None:
    """`services` stands for the pods behind it at the ports the Service sends to."""
    rule = {"action": "Allow", "destination": {"services": {"name": "shop", "namespace": "web"}}}
    spec = {"order": 1, "types": ["Egress"], "egress": [rule]}
    text = policy("p", spec, "GlobalNetworkPolicy")
    assert verdict("ops/client", "server:8080", text).allowed
    assert not verdict("ops/client", "server:8081", text).allowed


def test_a_pod_with_both_families_answers_in_that_of_its_peer() -> None:
    """A dual-stack pod is met at its IPv6 address by an IPv6 peer, so that nets are compared with the right one."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "dual", "namespace": "web"},
        "status": {"podIP": "10.0.0.9", "podIPs": [{"ip": "10.0.0.9"}, {"ip": "2001:db8::9"}], "phase": "Running"},
    }
    directory = Directory(inventory(json.dumps(pod)))
    ends = directory.of_one_family(directory.find("2001:db8::1"), directory.find("web/dual"))
    assert [str(party.address) for party in ends] == ["2001:db8::1", "2001:db8::9"]
    assert str(directory.find("2001:db8::9").address) == "2001:db8::9"


# -- host endpoints ----------------------------------------------------------------------------------------------------


def host_policy(name: str, rule: dict[str, Any], **spec: Any) -> str:
    return policy(name, ingress(rule, selector="role == 'worker'", **spec), "GlobalNetworkPolicy")


def test_a_host_endpoint_without_policy_or_profile_drops() -> None:
    """Unlike a pod, a host endpoint has no profile of its own, so what no policy allows is dropped."""
    found = verdict("203.0.113.1", "172.16.0.1:22")
    assert not found.allowed
    assert found.walks[-1].ending is Ending.NO_PROFILE
    assert found.denied_by == ()


def test_untracked_and_pre_dnat_policies_come_first_and_do_not_isolate() -> None:
    """Falling off their end lets a packet go on; an Allow there skips the host endpoint's other chains."""
    early = host_policy("early", {"action": "Deny", "protocol": "UDP"}, preDNAT=True, applyOnForward=True)
    raw = host_policy("raw", {"action": "Allow", "protocol": "TCP"}, doNotTrack=True, applyOnForward=True)
    assert verdict("203.0.113.1", "172.16.0.1:22", early, raw).allowed
    dropped = verdict("203.0.113.1", "172.16.0.1:22/udp", early, raw)
    assert [walk.hook for walk in dropped.walks][:2] == ["doNotTrack", "preDNAT"]
    assert [each.name for each in dropped.denied_by] == ["early"]


def test_forwarded_packets_meet_only_policies_that_apply_on_forward() -> None:
    """A packet that enters by a host endpoint meets its applyOnForward policies first, then those of the pod."""
    world = inventory(
        host_policy("gate", {"action": "Deny"}, applyOnForward=True), host_policy("own", {"action": "Deny"})
    )
    directory = Directory(world)
    ends = directory.find("203.0.113.1"), directory.find("web/server")
    found = evaluate(Flow(*ends, 6, 80, entering=directory.find("n1-eth0")), Ruleset.of(world))
    assert [each.name for each in found.denied_by] == ["gate"]
    world = inventory(host_policy("own", {"action": "Deny"}))
    assert evaluate(Flow(*ends, 6, 80, entering=directory.find("n1-eth0")), Ruleset.of(world)).allowed


def test_a_node_s_own_traffic_to_its_pods_is_not_policed() -> None:
    """Calico lets a host reach its local pods whatever the policies say, and the verdict notes it."""
    found = verdict("172.16.0.1", "server:80", policy("p", ingress()))
    assert found.allowed
    assert any("does not police" in note for note in found.notes)


# -- commands ----------------------------------------------------------------------------------------------------------

WALK = """\
ops/client to web/server, TCP port 80: DENIED
  ingress of web/server: no rule allows it, and tier default then drops what NetworkPolicy web/p isolates

Egress of ops/client: allowed
  no policy selects it in this direction
  profile: Allow

Ingress of web/server: DENIED
  tier default
    NetworkPolicy web/p (order 100)
      rule 1 Allow: no match: source.selector wants projectcalico.org/namespace == "web", but this is ops/client, \
where projectcalico.org/namespace is ops
      rule 2 Allow: no match: protocol wants UDP, but this is TCP
    end of tier: Deny
"""
BOTH = policy(
    "p", ingress({"action": "Allow", "source": {"selector": "all()"}}, {"action": "Allow", "protocol": "UDP"})
)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """The cluster and one policy as files."""
    for name, text in (("cluster.yaml", CLUSTER), ("policy.json", BOTH)):
        (tmp_path / name).write_text(text)
    return [str(tmp_path / "cluster.yaml"), str(tmp_path / "policy.json")]


def run(*arguments: str, text: str | None = None) -> Result:
    return CliRunner().invoke(policies, arguments, input=text)


def test_explain_prints_the_walk(files: list[str]) -> None:
    """The text has every tier, policy and rule that was looked at, with the reason for each rule."""
    result = run("explain", "--from", "ops/client", "--to", "server:80/tcp", *files)
    assert (result.exit_code, result.stdout) == (0, WALK)


def test_explain_speaks_json_and_dot(files: list[str]) -> None:
    """The same evidence as data and as a graph."""
    arguments = ("explain", "--from", "10.0.0.2", "--to", "10.0.0.1:80", *files)
    data = json.loads(run(*arguments, "-o", "json").stdout)
    assert data["denied_by"] == [{"kind": "NetworkPolicy", "namespace": "web", "name": "p", "tier": "default"}]
    assert data["walks"][1]["tiers"][0]["policies"][0]["rules"][1]["field"] == "protocol"
    dot = run(*arguments, "-o", "dot").stdout
    assert dot.startswith("digraph verdict {")
    assert '"NetworkPolicy web/p\\nno rule matches"' in dot


def test_who_can_answers_for_a_service(files: list[str]) -> None:
    """A Service stands for its pods at their own port; every other pod and kind of address is asked."""
    result = run("who-can", "web/shop:80", *files, "-o", "json")
    rows = {(row["verdict"], row["source"]) for row in json.loads(result.stdout)}
    assert rows == {("denied", "ops/client"), ("denied", "192.0.2.1")}


def test_what_if_tells_what_opens_and_what_stays_denied(files: list[str], tmp_path: Path) -> None:
    """Flows as stored packets: opened by the change, still denied, and neighbours that open beside them."""
    new = tmp_path / "new.json"
    new.write_text(policy("p", ingress({"action": "Allow", "protocol": "TCP", "destination": {"ports": [80]}})))
    flows = '{"source_ip": "10.0.0.2", "destination_ip": "10.0.0.1", "protocol": "tcp", "destination_port": 80}\n'
    flows += '{"from": "ops/client", "to": "web/server:81"}\n'
    current = [part for file in files for part in ("--current", file)]
    result = run("what-if", str(new), *current, text=flows)
    assert result.exit_code == 0
    lines = [line.split("  ")[0] for line in result.stdout.splitlines()]
    assert lines == ["CHANGE", "opened", "still denied", "opened beside"]


BAD = {
    "no port": (("explain", "--from", "ops/client", "--to", "server"), "needs a port"),
    "no such pod": (("explain", "--from", "nobody", "--to", "server:80"), "no pod or host endpoint of that name"),
    "two families": (("explain", "--from", "2001:db8::1", "--to", "10.0.0.1:80"), "one end has only IPv4"),
    "no target": (("who-can", "web/server:http"), "not POD:PORT/PROTO"),
}


@pytest.mark.parametrize(("arguments", "sentence"), BAD.values(), ids=BAD)
def test_bad_ends_are_one_sentence(arguments: tuple[str, ...], sentence: str, files: list[str]) -> None:
    """What cannot be understood is said in one sentence with exit code 2."""
    result = run(*arguments, *files)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "line",
    ["{", "[]", '{"source_ip": "x"}', '{"source_ip": "10.0.0.1", "destination_ip": "10.0.0.2", "protocol": "tcp"}'],
)
def test_bad_flows_name_their_line(line: str, files: list[str]) -> None:
    """A line that is no flow is refused with its number."""
    result = run("allow", *files, text=f"\n{line}\n")
    assert result.exit_code == 2
    assert "flows:2" in result.stderr


def test_felix_prints_what_the_release_understands() -> None:
    """Prefix specifiers and rate limits appear only for releases that have them."""
    assert json.loads(run("felix", "--calico", "3.32.1").stdout) == {"spec": {"logPrefix": "calico-packet %n"}}
    assert json.loads(run("felix", "--calico", "v3.31.3").stdout) == {"spec": {"logPrefix": "calico-packet"}}
    assert run("felix", "--calico", "3.31.3", "--rate-limit", "10/second").exit_code == 2
    assert run("felix", "--calico", "three").exit_code == 2


def test_every_command_has_help_with_an_example() -> None:
    """The group reads like a guide and each command shows how it is used."""
    for name, command in policies.commands.items():
        if name != "selector":
            assert "Example:" in run(name, "--help").stdout, command


def test_parties_without_address_are_noted() -> None:
    """A pod whose address is not in the files is in no net, and the verdict says so."""
    empty = Party("nowhere")
    found = evaluate(Flow(empty, empty, 6, 80), Ruleset.of(Inventory()))
    assert len(found.notes) == 2
    assert found.why == "no policy governs either end"
