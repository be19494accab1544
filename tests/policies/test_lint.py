"""Lint: the mistakes that people make, each with what would really happen, and silence about what is fine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from policies.lint import lint
from policies.load import Found, found_in
from policies.load import find as find_files
from policies.validate import validate

Find = Callable[[str], Found]
SHARED = Path(__file__).parents[3] / "shared"

FRONTEND = """\
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata:
  name: backend-allow
spec:
  podSelector: {matchLabels: {app: Srv1, tier: backend}}
  ingress:
  - from:
    - podSelector: {matchLabels: {app: Srv1, Tier: frontend}}
"""
ACROSS = """\
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
LOG = """\
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: log-denied-packets}
spec:
  types: [Ingress]
  ingress:
  - {action: Log, destination: {}, source: {}}
  selector: projectcalico.org/orchestrator == 'k8s' && run == 'nginx'
  order: 3000
"""
NGINX = """\
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata: {name: access-nginx}
spec:
  podSelector: {matchLabels: {run: nginx}}
  ingress:
  - from: [{podSelector: {matchLabels: {run: access}}}]
"""
POD = """\
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: default, labels: {%s}}
"""
POLICY = """\
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: p, namespace: default}
spec: {%s}
"""
EGRESS = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: %s}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Egress]
  egress: [%s]
"""


def codes(found: Found) -> list[str]:
    return [finding.code for finding in lint(found)]


def test_a_label_in_the_wrong_case_is_found_where_it_stands(find: Find) -> None:
    """`Tier` beside `tier` selects nothing."""
    (finding,) = lint(find(FRONTEND))
    assert str(finding) == (
        "p.yaml:9:46: spec.ingress[0].from[0].podSelector.matchLabels.Tier: label 'Tier' has capital letters;"
        " it does not select what is labelled 'tier': label names count with their case"
    )


def test_a_capital_label_that_pods_wear_is_no_finding(find: Find) -> None:
    """The inventory decides."""
    pods = (
        POD % "app: Srv1, tier: backend" + "---\n" + (POD % "app: Srv1, Tier: frontend").replace("name: a", "name: b")
    )
    assert codes(find(FRONTEND + "---\n" + pods)) == []


def test_every_mistake_of_one_object_is_found_in_one_run(find: Find) -> None:
    """Namespace, NamespaceSelector, ports and the label, each with its effect."""
    findings = lint(find(ACROSS))
    assert [(each.code, each.path) for each in findings] == [
        ("wrong-case", "metadata.Namespace"),
        ("label-case", "spec.podSelector.matchLabels.Tier"),
        ("wrong-case", "spec.ingress[0].from[0].NamespaceSelector"),
        ("wrong-shape", "spec.ingress[0].ports"),
    ]
    effects = [each.advice.rpartition("; ")[2] for each in findings]
    assert effects == [
        "the policy would go to the namespace of the current context, not to this one",
        "it does not select what is labelled 'tier': label names count with their case",
        "a server that drops it sees an empty peer, which Calico takes for every pod of the policy's own namespace",
        "the server refuses the whole object, so nothing of it is enforced",
    ]


def test_rules_that_slipped_into_metadata_are_told_to_go_below_spec(find: Find) -> None:
    """An Ingress rule joined to the metadata isolates nothing."""
    joined = FRONTEND.split("spec:")[0] + "  ingress: []\n"
    (finding,) = lint(find(joined))
    assert "belongs below 'spec'" in str(finding)


CASES: Mapping[str, tuple[str, list[str]]] = {
    "the example of the guide": (NGINX + "---\n" + LOG, []),
    "a Log policy by itself isolates": (LOG, ["log-isolates"]),
    "a Log policy for another direction isolates": (
        NGINX + "---\n" + LOG.replace("ngress", "gress").replace("Igress", "Egress").replace("igress", "egress"),
        ["log-isolates"],
    ),
    "a Log policy for more pods isolates": (NGINX + "---\n" + LOG.replace(" && run == 'nginx'", ""), ["log-isolates"]),
    "a Log policy over two covered selectors": (
        NGINX
        + "---\n"
        + NGINX.replace("nginx", "web")
        + "---\n"
        + LOG.replace("run == 'nginx'", "(run == 'nginx' || run == 'web')"),
        [],
    ),
    "an unreadable ipBlock": (
        NGINX.replace("podSelector: {matchLabels: {run: access}}", "ipBlock: {cidr: 10.0.0.1}"),
        ["open-cidr"],
    ),
    "an unreadable exception": (
        NGINX.replace("podSelector: {matchLabels: {run: access}}", "ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.1]}"),
        ["open-except"],
    ),
    "a newline in a selector": (POLICY % 'selector: "has(a)\\n", order: 1', ["selector-newline"]),
    "an unreadable selector": (POLICY % "selector: a = b, order: 1", ["invalid"]),
    "an Allow without order": (POLICY % "ingress: [{action: Allow}]", ["behind-log"]),
    "an Allow behind 3000": (POLICY % "order: 4000, ingress: [{action: Allow}]", ["behind-log"]),
    "a Deny behind 3000": (POLICY % "order: 4000, ingress: [{action: Deny}]", []),
    "an Allow behind a Log policy of order 0": (
        NGINX + "---\n" + LOG.replace("order: 3000", "order: 0"),
        ["behind-log"],
    ),
    "an Allow before a Log policy without order": (NGINX + "---\n" + LOG.replace("order: 3000\n", "\n"), []),
    "an Allow before 3000": (POLICY % "order: 2999, ingress: [{action: Allow}]", []),
    "Log and then Allow": (POLICY % "order: 1, ingress: [{action: Log}, {action: Allow}]", ["log-then-allow"]),
    "Log and then a narrow Allow": (POLICY % "order: 1, ingress: [{action: Log}, {action: Allow, protocol: TCP}]", []),
    "a policy that selects no pod": (NGINX + "---\n" + POD % "run: access", ["selects-nothing"]),
    "a policy that selects a pod": (NGINX + "---\n" + POD % "run: nginx", []),
    "egress without DNS": (EGRESS % ("a", "{to: [{podSelector: {}}]}"), ["no-dns"]),
    "egress with DNS by port": (EGRESS % ("a", "{ports: [{protocol: UDP, port: 53}]}"), []),
    "egress with DNS by name": (
        EGRESS % ("a", "{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}]}"),
        [],
    ),
    "egress with DNS over TCP only": (EGRESS % ("a", "{ports: [{port: 53}]}"), ["no-dns"]),
    "egress with DNS in another policy": (
        EGRESS % ("a", "{to: [{podSelector: {}}]}") + "---\n" + EGRESS % ("b", "{ports: [{protocol: UDP, port: 53}]}"),
        [],
    ),
    "no egress at all": (EGRESS % ("a", ""), []),
}


@pytest.mark.parametrize("name", CASES)
def test_each_hazard_is_found_and_nothing_else(name: str, find: Find) -> None:
    """One finding for each hazard, none for its harmless neighbour."""
    text, wanted = CASES[name]
    assert codes(find(text)) == wanted


def test_a_selector_with_countless_alternatives_is_answered_at_once(find: Find) -> None:
    """Forty pairs of alternatives stand for a million million: lint does not count them."""
    selector = " && ".join(f"(has(a{i}) || has(b{i}))" for i in range(40))
    log = POLICY % f"order: 3000, ingress: [{{action: Log}}], selector: '{selector}'"
    assert codes(find(log)) == ["log-isolates"]


def test_thousands_of_egress_policies_are_read_in_seconds(find: Find) -> None:
    """Only policies that can meet are compared."""
    policies = (EGRESS % (f"p{i}, namespace: n{i // 4}", "{to: [{podSelector: {}}]}") for i in range(2_000))
    start = time.perf_counter()
    assert codes(find("---\n".join(policies))) == ["no-dns"] * 2_000
    assert time.perf_counter() - start < 20


def test_findings_are_sorted_by_place(find: Find) -> None:
    """File, line, column: the output is stable."""
    places = [(each.place.line, each.place.column) for each in lint(find(ACROSS + "---\n" + FRONTEND + "---\n" + LOG))]
    assert places == sorted(places)


def test_published_policies_have_only_the_findings_that_were_read() -> None:
    """IBM's isolation sets: two placeholders that nobody filled in, twice, and one policy without DNS."""
    samples = SHARED / "kube-samples"
    if not samples.exists():
        pytest.skip(f"{samples} is not here: published policies are kept outside the repository")
    findings = lint(find_files([str(samples)]))
    assert [(Path(each.place.file).name, each.code, each.path) for each in findings] == [
        ("generic-privatehostendpoint.yaml", "invalid", "metadata.name"),
        ("generic-privatehostendpoint.yaml", "value", "spec.expectedIPs[0]"),
        ("generic-privatehostendpoint.yaml", "invalid", "metadata.name"),
        ("generic-privatehostendpoint.yaml", "value", "spec.expectedIPs[0]"),
        ("allow-k8s-master-to-dashboard.yaml", "no-dns", "spec.egress"),
    ]


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ("{podSelector: {matchExpressions: [{key: a, operator: in, values: [b]}]}}", "matchExpressions[0].operator"),
        ("{podSelector: {matchExpressions: [{key: a, operator: In}]}}", "matchExpressions[0].values"),
        ("{podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}", "matchExpressions[0].values"),
        ("{podSelector: {matchExpressions: [{key: 'a b', operator: Exists}]}}", "matchExpressions[0].key"),
        ("""{podSelector: {matchLabels: {a: "it's"}}}""", "podSelector.matchLabels.a"),
        (
            "{podSelector: {matchExpressions: [{key: a, operator: In, values: [b, c d]}]}}",
            "matchExpressions[0].values[1]",
        ),
        ("{podSelector: {}, policyTypes: [ingress]}", "policyTypes[0]"),
        ("{podSelector: {}, policyTypes: [Ingress, Egress, Ingress]}", "policyTypes"),
        ("{podSelector: {}, ingress: [{ports: [{port: 80, protocol: tcp}]}]}", "ports[0].protocol"),
        ("{podSelector: {}, ingress: [{ports: [{port: 0}]}]}", "ports[0].port"),
        ("{podSelector: {}, ingress: [{ports: [{port: '80'}]}]}", "ports[0].port"),
        ("{podSelector: {}, ingress: [{ports: [{port: 80, endPort: 79}]}]}", "ports[0].endPort"),
        ("{podSelector: {}, ingress: [{from: [{}]}]}", "from[0]"),
        ("{podSelector: {}, egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}]}", "to[0].ipBlock"),
        (
            "{podSelector: {}, egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]}]}",
            "to[0].ipBlock.except[0]",
        ),
    ],
)
def test_what_the_api_server_refuses_is_found(spec: str, path: str) -> None:
    """Calico's converter would pass over most of it without a word."""
    text = f"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: a}}\nspec: {spec}\n"
    paths = [problem.path for problem in validate(found_in([("p.yaml", text)]))]
    assert any(each.endswith(path) for each in paths), paths
