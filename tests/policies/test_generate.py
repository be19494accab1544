"""Log policies for given sources: the documented example, real policy sets, hazards, names and forms."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner, Result

from policies.commands import policies
from policies.emit import log_object
from policies.generate import MAX_SELECTOR, Options, Plan, generate
from policies.load import assembled, found_in
from policies.verify import verify

SHARED = Path(__file__).parents[3] / "shared"
SAMPLES = SHARED / "kube-samples" / "calico-policies"

ACCESS_NGINX = """\
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata: {name: access-nginx}
spec:
  podSelector: {matchLabels: {run: nginx}}
  ingress:
  - from:
    - podSelector: {matchLabels: {run: access}}
"""
ACCESS_NGINX_CONVERTED = """\
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: access-nginx}
spec:
  ingress:
  - action: Allow
    destination: {}
    source: {selector: "projectcalico.org/orchestrator == 'k8s' && run == 'access'"}
  order: 1000
  selector: projectcalico.org/orchestrator == 'k8s' && run == 'nginx'
  types: [Ingress]
"""
LOG_DENIED_PACKETS = {
    "apiVersion": "projectcalico.org/v3",
    "kind": "NetworkPolicy",
    "metadata": {"name": "log-denied-packets"},
    "spec": {
        "types": ["Ingress"],
        "ingress": [{"action": "Log", "destination": {}, "source": {}}],
        "selector": "projectcalico.org/orchestrator == 'k8s' && run == 'nginx'",
        "order": 3000,
    },
}
DENY_NODEPORTS = """\
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: deny-nodeports}
spec:
  applyOnForward: true
  preDNAT: true
  ingress:
  - {action: Deny, destination: {ports: ['30000:32767']}, protocol: TCP, source: {}}
  - {action: Deny, destination: {ports: ['30000:32767']}, protocol: UDP, source: {}}
  selector: ibm.role=='worker_public'
  order: 1100
  types: [Ingress]
"""
WHITELIST = """\
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: whitelist}
spec:
  applyOnForward: true
  doNotTrack: true
  ingress:
  - {action: Allow, destination: {nets: [203.0.113.9/32], ports: [80]}, protocol: TCP, source: {nets: [192.0.2.7/32]}}
  selector: ibm.role=='worker_public'
  order: 500
  types: [Ingress]
"""


def run(arguments: list[str], text: str | None = None) -> Result:
    return CliRunner().invoke(policies, arguments, input=text)


def planned(*texts: str, **options: Any) -> Plan:
    loaded = assembled(found_in((f"file{n}", text) for n, text in enumerate(texts)))
    assert loaded.problems == ()
    return generate(loaded.inventory, Options(**options))


def calico(name: str, *, order: float | None = 1000, selector: str = "all()", **spec: Any) -> str:
    """A namespaced Calico policy as text."""
    whole = {"selector": selector, **({"order": order} if order is not None else {}), **spec}
    metadata = {"name": name, "namespace": "web"}
    return yaml.safe_dump(
        {"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy", "metadata": metadata, "spec": whole}
    )


def kubernetes(name: str, app: str, namespace: str = "web", types: tuple[str, ...] = ("Ingress",)) -> str:
    """A NetworkPolicy that allows nothing."""
    spec = {"podSelector": {"matchLabels": {"app": app}}, "policyTypes": list(types)}
    document = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "spec": spec}
    return yaml.safe_dump(document | {"metadata": {"name": name, "namespace": namespace}})


# -- the documented example --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [ACCESS_NGINX, ACCESS_NGINX_CONVERTED], ids=["kubernetes", "converted"])
@pytest.mark.parametrize("form", ["json", "yaml"])
def test_the_guide_s_example_comes_out_field_by_field(source: str, form: str) -> None:
    """For access-nginx the output is log-denied-packets as the guide prints it, with one label more."""
    result = run(["generate", "-", "-o", form], source)
    assert result.exit_code == 0
    made = json.loads(result.stdout) if form == "json" else yaml.safe_load(result.stdout)
    assert made["metadata"].pop("labels") == {"app.kubernetes.io/managed-by": "denylog"}
    assert made == LOG_DENIED_PACKETS


def test_the_proof_and_a_table_stand_on_standard_error() -> None:
    """What each Log policy is for, and that it is proved, is narration and not data."""
    result = run(["generate", "-"], ACCESS_NGINX)
    assert "access-nginx" in result.stderr
    assert "proved" in result.stderr
    assert "proved" not in result.stdout


def test_node_ports_denied_before_dnat_are_logged_before_they_are_denied() -> None:
    """A preDNAT policy gets a Log-only companion with its flags, its matches and the order just before it."""
    (made,) = planned(DENY_NODEPORTS).made
    assert (made.policy.pre_dnat, made.policy.apply_on_forward, made.policy.order) == (True, True, 1099.0)
    assert [(r.action.value, r.protocol) for r in made.policy.ingress] == [("Log", "TCP"), ("Log", "UDP")]
    assert "Log-only" in made.how


def test_an_untracked_whitelist_denies_nothing() -> None:
    """doNotTrack policies fall through at their end, so a list of Allows needs no Log policy, and is told so."""
    result = run(["generate", "-"], WHITELIST)
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "no policy denies anything" in result.stderr


# -- real policy sets --------------------------------------------------------------------------------------------------


def _sample_files() -> list[Path]:
    return sorted(SAMPLES.rglob("*.yaml")) or [SAMPLES]


@pytest.mark.parametrize("file", _sample_files(), ids=lambda path: path.name)
def test_every_sample_file_is_logged_with_proof_or_refused(file: Path) -> None:
    """Each file of the samples has Log policies whose proof holds, or is refused with a sentence about the field."""
    if not file.is_file():
        pytest.skip("kube-samples are kept outside the repository")
    result = run(["generate", str(file), "-o", "json"])
    if result.exit_code:
        assert result.exit_code == 2
        assert "expectedIPs[0]: invalid IP address" in result.stderr or "no network policy here" in result.stderr
        return
    assert "proved" in result.stderr
    assert json.loads(result.stdout)["kind"] in ("NetworkPolicy", "GlobalNetworkPolicy", "List")


@pytest.mark.parametrize("folder", ["private-network-isolation", "public-network-isolation"])
def test_both_isolation_sets_are_logged_with_proof(folder: str, tmp_path: Path) -> None:
    """The isolation sets as a whole, with denies behind and before our order, make one line for each denied packet."""
    files = sorted((SAMPLES / folder).rglob("*.yaml"))
    if not files:
        pytest.skip("kube-samples are kept outside the repository")
    texts = [file.read_text() for file in files if "hostendpoint" not in file.name]
    plan = planned(*texts)
    assert plan.refusals == ()
    assert plan.proof.lines <= 1


WITNESSES = """\
apiVersion: v1
kind: List
items:
- apiVersion: projectcalico.org/v3
  kind: HostEndpoint
  metadata: {name: private, labels: {ibm.role: worker_private}}
  spec: {node: n1, interfaceName: eth0, expectedIPs: [172.16.0.1]}
- apiVersion: projectcalico.org/v3
  kind: HostEndpoint
  metadata: {name: public, labels: {ibm.role: worker_public}}
  spec: {node: n1, interfaceName: eth1, expectedIPs: [203.0.113.1]}
- apiVersion: v1
  kind: Pod
  metadata: {name: agent, namespace: kube-system, labels: {app: konnectivity-agent, kubernetes-dashboard-policy: allow}}
  status: {podIP: 10.0.0.1, phase: Running}
- {apiVersion: v1, kind: Pod, metadata: {name: p, namespace: openshift-monitoring}, status: {podIP: 10.0.0.2}}
- {apiVersion: v1, kind: Pod, metadata: {name: r, namespace: openshift-ingress}, status: {podIP: 10.0.0.3}}
"""


@pytest.mark.parametrize("file", _sample_files(), ids=lambda path: path.name)
def test_every_sample_file_is_explained(file: Path, tmp_path: Path) -> None:
    """For some endpoint that the file governs, the walk names each of its policies."""
    if not file.is_file():
        pytest.skip("kube-samples are kept outside the repository")
    (tmp_path / "witnesses.yaml").write_text(WITNESSES)
    names = [d["metadata"]["name"] for d in yaml.safe_load_all(file.read_text()) if "Policy" in d["kind"]]
    flows = [("172.16.0.1", "198.51.100.1"), ("203.0.113.1", "198.51.100.1"), ("198.51.100.1", "172.16.0.1")]
    flows += [(f"10.0.0.{n}", "198.51.100.1") for n in (1, 2, 3)]
    results = [
        run(["explain", "--from", source, "--to", f"{target}:443", str(file), str(tmp_path / "witnesses.yaml")])
        for source, target in flows
    ]
    walks = "".join(result.stdout for result in results)
    assert all(f" {name} " in walks or f"/{name} " in walks for name in names)
    assert names or all(result.exit_code == 2 for result in results)


# -- the other examples of the guide -----------------------------------------------------------------------------------

BACKEND = """\
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata: {name: %s-allow}
spec:
  podSelector: {matchLabels: {app: Srv1, tier: %s}}
  ingress:
  - from:
    - podSelector: {matchLabels: {app: Srv1, Tier: %s}}
"""
ACCOUNTS = """\
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata:
  Namespace: accounts
  name: accounts-allow
spec:
  podSelector: {matchLabels: {app: Srv1, Tier: backend}}
  ingress:
  - from:
    - NamespaceSelector: {matchLabels: {usage: finance}}
      ports:
        port: 3111
"""


def test_the_guide_s_services_are_logged_together_with_proof() -> None:
    """Front end to back end to database: one Log policy, for the pods that the podSelectors really name."""
    plan = planned(BACKEND % ("backend", "backend", "frontend"), BACKEND % ("db", "db", "backend"))
    (made,) = plan.made
    assert plan.proof.holds
    assert made.policy.selector.count("tier == ") == 2
    assert "Tier" not in made.policy.selector


def test_the_guide_s_mistakes_are_refused_with_their_fields() -> None:
    """The accounts example has fields in the wrong case and place; each is named, and nothing is generated."""
    result = run(["generate", "-"], ACCOUNTS)
    assert (result.exit_code, result.stdout) == (2, "")
    for field in ("metadata.Namespace", "NamespaceSelector", "ports"):
        assert field in result.stderr


# -- several policies --------------------------------------------------------------------------------------------------


def test_policies_of_one_namespace_share_a_log_policy() -> None:
    """Selectors are joined once each, for each direction, so that a denied packet makes one line."""
    plan = planned(kubernetes("a", "a"), kubernetes("b", "b"), kubernetes("c", "a", types=("Egress",)))
    made = {each.policy.name: each.policy for each in plan.made}
    assert sorted(made) == ["log-egress", "log-ingress"]
    orchestrator = "projectcalico.org/orchestrator == 'k8s'"
    assert made["log-ingress"].selector == f"{orchestrator} && app == 'a' || {orchestrator} && app == 'b'"
    assert plan.proof.holds
    assert plan.proof.lines <= 1


def test_long_selectors_are_split() -> None:
    """No selector passes 1 024 bytes, and all pods stay covered."""
    plan = planned(*(kubernetes(f"p{n}", f"application-{n}") for n in range(40)))
    assert len(plan.made) > 1
    assert all(len(each.policy.selector.encode()) <= MAX_SELECTOR for each in plan.made)
    assert plan.proof.holds


def test_per_policy_names_are_short_unique_and_stable() -> None:
    """Each source gets its own Log policy, whose name survives in a log prefix and does not depend on the others."""
    both = planned(kubernetes("a", "a"), kubernetes("z", "z"), per_policy=True)
    alone = planned(kubernetes("z", "z"), per_policy=True)
    first, second = ({m.sources[0].name: m.policy.name for m in plan.made} for plan in (both, alone))
    assert first["z"] == second["z"] != first["a"]
    assert all(len(name) <= 13 for name in first.values())
    assert all(m.policy.annotations["denylog/source"].endswith(f"web/{m.sources[0].name}") for m in both.made)


def test_types_are_those_of_the_sources() -> None:
    """A policy that isolates both directions is logged in both, one that isolates egress only there."""
    both = planned(kubernetes("a", "a", types=("Ingress", "Egress"))).made[0].policy
    egress = planned(kubernetes("a", "a", types=("Egress",))).made[0].policy
    assert [t.value for t in both.types] == ["Ingress", "Egress"]
    assert [t.value for t in egress.types] == ["Egress"]
    assert egress.ingress == ()


def test_an_earlier_run_s_output_is_not_a_source() -> None:
    """Generating from a cluster that already holds the Log policies gives the same Log policies."""
    once = planned(ACCESS_NGINX)
    again = planned(ACCESS_NGINX, json.dumps(log_object(once.made[0])))
    assert [each.policy for each in again.made] == [each.policy for each in once.made]


def test_a_log_policy_of_our_name_is_said_to_be_replaced() -> None:
    """It would be wrong to advise to remove what was just applied."""
    notes = planned(f"{ACCESS_NGINX}---\n{yaml.safe_dump(LOG_DENIED_PACKETS)}").notes
    assert notes == ("NetworkPolicy default/log-denied-packets is replaced by the one of that name here",)


def test_a_shared_order_is_named() -> None:
    """Releases before 3.32 break ties otherwise than the proof does."""
    allow = {"action": "Allow", "protocol": "TCP"}
    (note,) = planned(calico("a", order=3000, types=["Ingress"], ingress=[allow])).notes
    assert "releases before it sort them otherwise" in note


def test_staged_policies_are_left_alone() -> None:
    """A staged policy denies nothing, so nothing is logged for it, and that is said."""
    staged = calico("s", types=["Ingress"]).replace("kind: NetworkPolicy", "kind: StagedNetworkPolicy")
    plan = planned(ACCESS_NGINX, staged)
    assert len(plan.made) == 1
    assert any("staged" in note for note in plan.notes)


# -- Deny rules, tiers, hazards ----------------------------------------------------------------------------------------

DENY_SSH = {"action": "Deny", "protocol": "TCP", "destination": {"ports": [22]}}
ALLOW_OPS = {"action": "Allow", "source": {"nets": ["10.9.0.0/16"]}}


def test_a_deny_that_an_allow_overlaps_is_logged_by_a_copy() -> None:
    """Where an earlier Allow takes packets of the Deny, the companion repeats it, so nobody it allows is logged."""
    plan = planned(calico("ssh", types=["Ingress"], ingress=[ALLOW_OPS, DENY_SSH, {"action": "Allow"}]))
    companion = next(each for each in plan.made if "copy" in each.how)
    assert [rule.action.value for rule in companion.policy.ingress] == ["Allow", "Log", "Deny"]
    assert plan.proof.holds


def test_a_policy_with_deny_rules_between_others_keeps_its_place() -> None:
    """The companion sorts between the policy and the one before it, even where their orders are close."""
    first = calico("first", order=1000.5, types=["Ingress"], ingress=[{"action": "Allow", "protocol": "UDP"}])
    plan = planned(first, calico("second", order=1001, types=["Ingress"], ingress=[DENY_SSH]))
    companion = next(each for each in plan.made if each.policy.order not in (None, 3000.0))
    assert companion.policy.order is not None
    assert 1000.5 < companion.policy.order < 1001


def test_a_late_policy_that_allows_is_refused_and_auto_finds_an_order() -> None:
    """An Allow behind our order would be logged as denied: refused with the reason, solved by --order auto."""
    sources = (
        ACCESS_NGINX
        + "---\n"
        + calico("late", order=5000, types=["Ingress"], ingress=[ALLOW_OPS]).replace("web", "default")
    )
    refused = run(["generate", "-"], sources)
    assert refused.exit_code == 1
    assert refused.stdout == ""
    assert "order 5000" in refused.stderr
    assert "--order auto" in refused.stderr
    solved = run(["generate", "-", "--order", "auto", "-o", "json"], sources)
    assert solved.exit_code == 0
    orders = {each["spec"]["order"] for each in json.loads(solved.stdout).get("items", [json.loads(solved.stdout)])}
    assert orders == {5001}


def test_a_late_policy_without_order_cannot_be_logged_exactly() -> None:
    """A policy without order sorts last whatever ours is, so the answer is to give it one."""
    plan = planned(calico("last", order=None, types=["Ingress"], ingress=[ALLOW_OPS]), order=None)
    assert any("give it an order" in reason for reason in plan.refusals)


def test_cluster_network_policies_are_logged_in_their_tier() -> None:
    """Deny rules of a ClusterNetworkPolicy drop in tier kube-admin, so their companion stands there."""
    text = """\
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: no-db}
spec:
  tier: Admin
  priority: 10
  subject: {namespaces: {matchLabels: {team: web}}}
  ingress:
  - {name: deny, action: Deny, from: [{namespaces: {matchLabels: {team: db}}}]}
"""
    plan = planned(text)
    (made,) = plan.made
    assert (made.policy.tier, made.policy.order) == ("kube-admin", 9.0)
    assert plan.proof.holds


def test_the_ebpf_data_plane_is_refused() -> None:
    """There Log does not reach the kernel's log, so the tool would promise lines that never come."""
    result = run(["generate", "-", "--dataplane", "ebpf"], ACCESS_NGINX)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "trace pipe" in result.stderr


@pytest.mark.parametrize("arguments", [["--order", "x"], ["--order", "nan"], ["--name", "Bad_Name"], ["--name", ""]])
def test_options_that_cannot_be_are_usage_errors(arguments: list[str]) -> None:
    """An order that is no number and a name that no object may have are refused before anything is read."""
    assert run(["generate", "-", *arguments], ACCESS_NGINX).exit_code == 2


def test_broken_input_is_one_sentence_and_no_output() -> None:
    """A policy that cannot be read ends the command: a proof about the rest would mislead."""
    result = run(["generate", "-"], ACCESS_NGINX.replace("ingress:", "ingres:"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "ingres" in result.stderr
    assert "Traceback" not in result.stderr


# -- verify ------------------------------------------------------------------------------------------------------------

SABOTAGE = {
    "a wider selector isolates pods that were free": ("selector: ", "selector: has(run) || ", "the verdict changes"),
    "a narrower selector misses packets": ("run == 'nginx'", "run == 'nginx' && has(x)", "denied but not logged"),
    "an early order logs what is allowed": ("order: 3000", "order: 500", "logged but allowed"),
    "an Allow behind the Log lets packets in": (
        "  ingress:\n",
        "  ingress:\n  - action: Allow\n",
        "the verdict changes",
    ),
    "the wrong direction logs nothing": ("- Ingress\n", "- Egress\n", "the verdict changes"),
}


@pytest.mark.parametrize(("old", "new", "sentence"), SABOTAGE.values(), ids=SABOTAGE)
def test_verify_finds_a_packet_for_each_sabotage(old: str, new: str, sentence: str, tmp_path: Path) -> None:
    """A Log policy that is wrong in one place is refuted with a packet in words and exit code 1."""
    sources, generated = tmp_path / "sources.yaml", tmp_path / "log.yaml"
    sources.write_text(ACCESS_NGINX)
    text = run(["generate", "-"], ACCESS_NGINX).stdout
    generated.write_text(text)
    assert run(["verify", str(sources), str(generated)]).exit_code == 0
    assert old in text
    generated.write_text(text.replace(old, new))
    result = run(["verify", str(sources), str(generated)])
    assert result.exit_code == 1
    assert sentence in result.stdout
    assert "pod of namespace default" in result.stdout


def test_verify_tells_an_allow_from_what_is_left_to_others(tmp_path: Path) -> None:
    """On a pod the profile allows either way; on a host endpoint an Allow skips its profiles and later policies."""
    sources, generated = tmp_path / "sources.yaml", tmp_path / "allow.yaml"
    loose = "---\napiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: loose}\nspec: {defaultAction: Pass}\n"
    sources.write_text(calico("some", tier="loose", selector="app == 'a'", types=["Ingress"], ingress=[]) + loose)
    allow = {"action": "Allow", "protocol": "TCP"}
    generated.write_text(calico("more", tier="loose", selector="app == 'a'", types=["Ingress"], ingress=[allow]))
    assert run(["verify", str(sources), str(generated)]).exit_code == 0
    sources.write_text(DENY_NODEPORTS)
    made = yaml.safe_load(run(["generate", "-"], DENY_NODEPORTS).stdout)
    made["spec"]["ingress"].append({"action": "Allow", "protocol": "ICMP"})
    generated.write_text(yaml.safe_dump(made))
    result = run(["verify", str(sources), str(generated)])
    assert result.exit_code == 1
    assert "the verdict changes: left to the policies after preDNAT by the sources, allowed with" in result.stdout


def test_verify_does_not_mix_the_sources_lines_with_ours(tmp_path: Path) -> None:
    """A policy that allows what a source logs and allows is refuted by its own line, not by the sum."""
    logs = [{"action": "Log"}, {"action": "Allow"}]
    sources, generated = tmp_path / "sources.yaml", tmp_path / "log.yaml"
    sources.write_text(calico("some", order=10, types=["Ingress"], ingress=logs))
    generated.write_text(calico("early", order=5, types=["Ingress"], ingress=logs))
    result = run(["verify", str(sources), str(generated)])
    assert result.exit_code == 1
    assert "logged but allowed" in result.stdout


def test_verify_takes_a_cluster_where_the_log_policies_are_applied(tmp_path: Path) -> None:
    """Log policies that are in the sources already are not held against themselves, with our label or by hand."""
    applied, generated = tmp_path / "cluster.yaml", tmp_path / "log.yaml"
    for text in (run(["generate", "-"], ACCESS_NGINX).stdout, yaml.safe_dump(LOG_DENIED_PACKETS)):
        applied.write_text(f"{ACCESS_NGINX}---\n{text}")
        generated.write_text(text)
        assert run(["verify", str(applied), str(generated)]).exit_code == 0


def test_a_selector_that_cannot_be_read_is_named_with_its_policy() -> None:
    """A dump holds thousands of policies."""
    rule = {"action": "Allow", "source": {"notSelector": "a ="}}
    for text in (calico("bad", selector="a ="), calico("bad", types=["Ingress"], ingress=[rule])):
        result = run(["generate", "-"], ACCESS_NGINX + "---\n" + text)
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
        assert result.stderr.startswith("-:10:1: NetworkPolicy web/bad: invalid selector 'a =' at column 1")


def test_verify_needs_policies(tmp_path: Path) -> None:
    """Sources without policies are bad input, not a proof."""
    file = tmp_path / "empty.yaml"
    file.write_text("apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n")
    result = run(["verify", str(file), str(file)])
    assert result.exit_code == 2
    assert "no network policy here" in result.stderr


# -- schemas -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", [ACCESS_NGINX, DENY_NODEPORTS, calico("ssh", types=["Ingress"], ingress=[ALLOW_OPS, DENY_SSH])]
)
@pytest.mark.parametrize("per_policy", [False, True])
def test_generated_objects_fit_calico_s_schemas(text: str, per_policy: bool, crd: Callable[[str], Any]) -> None:
    """What is generated is valid for Calico's own CRDs, and for our validator."""
    plan = planned(text, per_policy=per_policy)
    assert plan.made
    for each in plan.made:
        made = log_object(each)
        plural = {"NetworkPolicy": "networkpolicies", "GlobalNetworkPolicy": "globalnetworkpolicies"}[made["kind"]]
        jsonschema.validate(made, crd(plural))
        assert run(["validate", "-"], yaml.safe_dump(made)).exit_code == 0


def test_proposed_objects_fit_kubernetes_schema() -> None:
    """What `allow` prints is a NetworkPolicy that the API server takes."""
    pods = "".join(
        f"---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {space}, labels: {{run: {name}}}}}\n"
        f"status: {{podIP: 10.0.0.{number}, phase: Running}}\n"
        for number, (name, space) in enumerate((("nginx", "default"), ("client", "other")), 1)
    )
    result = run(["allow", "-", "--from", "client", "--to", "nginx:80/tcp"], ACCESS_NGINX + pods)
    assert result.exit_code == 0
    kubernetes_validate.validate(yaml.safe_load(result.stdout), "1.33", strict=True)


def test_verdicts_are_the_same_after_a_round_trip_through_text() -> None:
    """The printed documents, read back, are what was proved."""
    text = run(["generate", "-"], DENY_NODEPORTS).stdout
    sources = assembled(found_in([("a", DENY_NODEPORTS)])).inventory
    assert verify(sources, assembled(found_in([("b", text)])).inventory.policies).holds


@pytest.mark.parametrize("selector", ["", "all()", "has(a)"])
def test_a_selector_beside_a_namespace_selector_is_repeated_as_written(selector: str) -> None:
    """An empty one may select host endpoints there, `all()` does not (globalnetworkpolicyprocessor.go)."""
    text = (
        "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: p}, spec: {order: 1,"
        f" selector: {selector!r}, namespaceSelector: '!has(x)', types: [Ingress]}}}}\n"
    )
    plan = generate(assembled(found_in([("p.yaml", text)])).inventory)
    assert plan.proof.holds
    assert plan.proof.spaces == (1 if selector == "all()" else 2)
    assert [made.policy.selector for made in plan.made] == [selector]


def test_policies_of_many_alternatives_are_proved_in_seconds() -> None:
    """Long selectors joined by `||` are compared by number, not term by term for each class of packets."""
    wide = (" || ".join(f"k{n} == 'v{i}'" for n in range(45)) for i in range(150))
    text = "---\n".join(
        f"{{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {{name: p{i}, namespace: shop}},"
        f' spec: {{order: 1, selector: "{selector}", types: [Ingress]}}}}\n'
        for i, selector in enumerate(wide)
    )
    start = time.process_time()
    plan = generate(assembled(found_in([("p.yaml", text)])).inventory)
    assert plan.proof.holds
    assert plan.proof.lines == 150
    assert time.process_time() - start < 12  # two seconds; term by term it would be half a minute


@pytest.mark.slow
def test_ten_thousand_policies_are_logged_in_time() -> None:
    """The benchmark's own limits hold: 10 000 policies in 30 s and 500 MB, proved."""
    bench = Path(__file__).parents[2] / "bench" / "policies.py"
    done = subprocess.run([sys.executable, str(bench)], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
