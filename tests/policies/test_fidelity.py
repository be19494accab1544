"""Calico's own behaviour, recorded from its code, against ours; `docs/fidelity.md` is the table of the outcome."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from policies import convert
from policies.build import default_types
from policies.errors import SelectorError
from policies.labels import selector_text
from policies.load import found_in
from policies.model import Pod, Policy, Rule
from policies.ports import joined, parse_port, port_value
from policies.render import policy_object
from policies.scope import peer_term, policy_term
from policies.selector import And, Term, canonical, matches, parse, unique_id
from policies.validate import validate
from policies.written import Written

TABLE = Path(__file__).parents[2] / "docs" / "fidelity.md"
Vectors = Callable[[str], Any]
Outcome = tuple[str, bool]
"""The name of a case, and whether we agree with Calico."""

API = {
    "NetworkPolicy": "networking.k8s.io/v1",
    "ClusterNetworkPolicy": "policy.networking.k8s.io/v1alpha2",
}


def written(document: Mapping[str, Any]) -> Written:
    """The one object of a document."""
    found = found_in([("vector", json.dumps(document))])
    assert not found.problems, [str(problem) for problem in found.problems]
    return found.objects[0]


def kubernetes(case: Mapping[str, Any]) -> Written:
    return written({"apiVersion": API[case["kind"]], "kind": case["kind"], **case["k8s"]})


# -- selectors -------------------------------------------------------------------------------------------------------


def selector_agrees(case: Mapping[str, Any]) -> bool:
    text = case["selector"]
    try:
        term = parse(text)
    except SelectorError:
        return not case["valid"]
    same = (canonical(term), unique_id(term)) == (case.get("canonical"), case.get("unique_id"))
    picked = [matches(text, labels) for labels in (*case["matches"], *case["non_matches"])]
    return bool(case["valid"]) and same and picked == [True] * len(case["matches"]) + [False] * len(case["non_matches"])


def selectors(vectors: Vectors) -> Iterator[Outcome]:
    for case in vectors("selectors"):
        yield case["selector"], selector_agrees(case)


# -- conversion ------------------------------------------------------------------------------------------------------


def shown(policy: Policy | None) -> Any:
    """A converted policy as the vectors spell it."""
    if policy is None:
        return None
    rendered = policy_object(policy)
    spec = rendered["spec"]
    lists = {name: spec.get(name, []) for name in ("types", "ingress", "egress")}
    texts = {name: spec.get(name) for name in ("tier", "order", "selector", "namespaceSelector")}
    metadata = rendered["metadata"]
    return {"name": metadata["name"], "namespace": metadata.get("namespace"), **texts, **lists}


def expected(calico: Mapping[str, Any] | None) -> Any:
    if calico is None:
        return None
    names = ("name", "namespace", "tier", "order", "selector", "namespaceSelector")
    lists = {name: calico.get(name) or [] for name in ("types", "ingress", "egress")}
    return {name: calico.get(name) for name in names} | lists


def conversions(vectors: Vectors) -> Iterator[Outcome]:
    for case in vectors("k8s_to_calico"):
        yield case["name"], shown(convert.to_calico(kubernetes(case))) == expected(case["calico"])


def without_addresses(text: str | None) -> str | None:
    return text and re.sub(r"0x[0-9a-f]+", "0x0", text)


def conversion_errors(vectors: Vectors) -> Iterator[Outcome]:
    for case in vectors("k8s_to_calico"):
        policy = convert.to_calico(kubernetes(case))
        error = convert.error_text(policy) if policy else None
        yield case["name"], error == without_addresses(case.get("error"))


def normal(term: Term) -> Term:
    """The same condition with its conjunctions flat and sorted: Felix adds its terms in another order."""
    if not isinstance(term, And):
        return term
    parts: list[Term] = []
    for part in map(normal, term.terms):
        parts += part.terms if isinstance(part, And) else [part]
    return And(tuple(sorted(set(parts), key=canonical)))


def same_condition(ours: Term | None, felix: str | None) -> bool:
    return (ours is None) == (felix is None) and (ours is None or normal(ours) == normal(parse(felix or "")))


def rules_agree(rules: Iterable[Rule], felix: list[Mapping[str, Any]], namespace: str | None) -> bool:
    pairs = list(zip(rules, felix, strict=True))
    return all(
        same_condition(peer_term(rule.source, namespace), other.get("src_selector_canonical"))
        and same_condition(peer_term(rule.destination, namespace), other.get("dst_selector_canonical"))
        for rule, other in pairs
    )


def felix_selectors(vectors: Vectors) -> Iterator[Outcome]:
    for case in vectors("k8s_to_calico"):
        policy = convert.to_calico(kubernetes(case))
        if policy is not None:
            felix = case["felix"]
            yield (
                case["name"],
                same_condition(policy_term(policy), felix["selector_canonical"])
                and rules_agree(policy.ingress, felix["inbound_rules"], policy.namespace)
                and rules_agree(policy.egress, felix["outbound_rules"], policy.namespace),
            )


# -- smaller things --------------------------------------------------------------------------------------------------


def selector_texts(vectors: Vectors) -> Iterator[Outcome]:
    for case in vectors("k8s_misc")["selector_conversion"]:
        text = selector_text(case["selector"], pods=case["type"] == "pod")
        yield case["expected"], text == case["expected"]


def joined_ports(vectors: Vectors) -> Iterator[Outcome]:
    for before, after in vectors("k8s_misc")["simplify_ports"]:
        ports = joined([parse_port(port) for port in before.split(",") if port])
        yield before, ",".join(str(port_value(port)) for port in ports) == after


def interfaces(vectors: Vectors) -> Iterator[Outcome]:
    for case in vectors("k8s_misc")["veth_name"]:
        yield case["pod"], Pod(name=case["pod"], namespace=case["namespace"]).interface == case["interface"]


def defaults(vectors: Vectors) -> Iterator[Outcome]:
    for case in vectors("k8s_misc")["policy_types_defaulting"]:
        rules = {name: [{"action": "Allow"} for _ in case[name]] for name in ("ingress", "egress")}
        policy = {
            "apiVersion": "projectcalico.org/v3",
            "kind": "NetworkPolicy",
            "metadata": {"name": "p"},
            "spec": rules,
        }
        yield str(case), [each.value for each in default_types(written(policy))] == case["go_default"]


def validations(vectors: Vectors) -> Iterator[Outcome]:
    for case in vectors("validation"):
        problems = validate(found_in([("vector", json.dumps(case["resource"]))]))
        yield case["name"], (not problems) == case["valid"]


SUITES: Mapping[str, Callable[[Vectors], Iterator[Outcome]]] = {
    "selectors: validity, canonical form, unique id, matches": selectors,
    "Kubernetes policy to Calico policy: every field": conversions,
    "Kubernetes policy to Calico policy: text of the error": conversion_errors,
    "Kubernetes policy to Calico policy: selectors as Felix widens them": felix_selectors,
    "label selector to selector text": selector_texts,
    "joining of ports": joined_ports,
    "name of a pod's interface": interfaces,
    "default of `types`": defaults,
    "validation: accepted or refused, both layers": validations,
}


@pytest.mark.parametrize("suite", SUITES)
def test_every_recorded_case_comes_out_as_in_calico(suite: str, vectors: Vectors) -> None:
    """No case of the suite differs from what Calico's code did."""
    assert [name for name, agrees in SUITES[suite](vectors) if not agrees] == []


def test_the_table_of_fidelity_is_what_the_tests_found(vectors: Vectors, rewrite_golden: bool) -> None:
    """docs/fidelity.md holds the number of cases and of agreements of each suite."""
    table = fidelity_table(vectors)
    if rewrite_golden:
        TABLE.write_text(table)
    assert TABLE.read_text() == table


def fidelity_table(vectors: Vectors) -> str:
    rows = []
    for name, suite in SUITES.items():
        outcomes = [agrees for _, agrees in suite(vectors)]
        rows.append(f"| {name} | {len(outcomes)} | {sum(outcomes)} |\n")
    return HEAD + "".join(rows) + FOOT


HEAD = """# Fidelity to Calico

How much of Calico's recorded behaviour `denylog policies` reproduces. The cases were recorded by running Calico's own
Go packages (master of August 2026, before 3.34) on the inputs of its unit tests and on further ones; they are not part
of this repository. `pytest tests/policies/test_fidelity.py --rewrite-golden` writes this table, and a test holds it
equal.

| what | cases | passed |
|---|---:|---:|
"""
FOOT = """
Known differences, all outside the cases:

- `!`, `&&` and `||` in a selector may be nested 100 deep; Calico has no limit. Parentheses may be, to any depth.
- A ClusterNetworkPolicy whose port number does not fit into 16 bits is refused, while Calico's converter would wrap it
  (the API server refuses such a policy before).
- Error texts print `0x0` where Calico prints a memory address.
- A field written in the wrong case is an error here and for the API server; calicoctl's decoder would accept it.
- A number or a boolean where text is needed is an error here and for the API server; calicoctl's decoder would take it
  as text.
- A type that a policy lists twice is an error here and for the API server; Calico's own validation no longer asks.
- The order of the terms that Felix adds to a selector differs; the condition is the same.
"""
