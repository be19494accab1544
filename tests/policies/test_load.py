"""Reading: every form of input, every mistake with its place, nothing lost."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.document import MAX_DEPTH, nodes, scalar
from policies.errors import PolicyError
from policies.load import Found, Loaded, assembled, find, found_in
from policies.load import load as load_sources
from policies.model import PolicyKind

Find = Callable[[str], Found]
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


def problems(loaded: Found | Loaded) -> list[str]:
    return [str(problem) for problem in loaded.problems]


# -- forms of input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        CALICO % "a" + "---\n" + CALICO % "b",
        "---\n\n---\n" + CALICO % "a" + "...\n---\n" + CALICO % "b" + "---\n",
        "\n".join(["- " + (CALICO % name).replace("\n", "\n  ").rstrip() for name in "ab"]),
        "apiVersion: v1\nkind: List\nitems:\n"
        + "".join("- " + (CALICO % name).replace("\n", "\n  ").rstrip() + "\n" for name in "ab"),
    ],
    ids=["documents", "empty documents", "bare list", "List"],
)
def test_several_objects_may_come_in_any_of_the_usual_forms(text: str, load: Load) -> None:
    """Documents, a bare list and a v1 List are the same two policies."""
    loaded = load(text)
    assert problems(loaded) == []
    assert [policy.name for policy in loaded.inventory.policies] == ["a", "b"]


def test_items_of_a_typed_list_inherit_its_kind(load: Load) -> None:
    """`kubectl get --raw` leaves kind and apiVersion out of the items."""
    items = [{"metadata": {"name": "a"}, "spec": {}}]
    text = json.dumps({"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicyList", "items": items})
    (policy,) = load(text).inventory.policies
    assert policy.kind is PolicyKind.GLOBAL_NETWORK_POLICY


def test_what_kubectl_get_prints_is_read(load: Load) -> None:
    """Managed metadata, a null time and an old status are no unknown fields."""
    metadata = {
        "name": "web",
        "creationTimestamp": None,
        "uid": "30316465-6365-4463-ad63-3564622d3638",
        "resourceVersion": "46888598/",
        "generation": 2,
        "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
    }
    kubernetes = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata}
    loaded = load(json.dumps(kubernetes | {"spec": {"podSelector": {}}, "status": {}}))
    assert problems(loaded) == []
    assert loaded.inventory.policies[0].uid == metadata["uid"]


def test_json_may_be_indented_with_tabs_and_hold_escaped_pairs(load: Load) -> None:
    """YAML readers stumble over both."""
    text = json.dumps(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "labels": {"x": "😀"}}}, indent="\t"
    )
    assert load(text).inventory.namespaces[0].labels == {"x": "😀"}


def test_folders_are_read_in_order_and_standard_input_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All .yaml, .yml and .json files below a folder, sorted; `-` is standard input."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.yml").write_text(CALICO % "b")
    (tmp_path / "a.yaml").write_text(CALICO % "a")
    (tmp_path / "README.md").write_text("# not YAML: [")
    stdin = io.TextIOWrapper(io.BytesIO((CALICO % "c").encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    loaded = load_sources([str(tmp_path), "-"])
    assert [policy.name for policy in loaded.inventory.policies] == ["a", "b", "c"]
    assert [str(policy.source.place) for policy in loaded.inventory.policies if policy.source][-1] == "-:1:1"


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("absent.yaml", None, "cannot be read: No such file or directory"),
        ("latin.yaml", b"name: \xe9", "not UTF-8 text: byte 0xe9 at offset 6; save it as UTF-8"),
    ],
)
def test_a_source_that_cannot_be_read_is_one_sentence(
    name: str, content: bytes | None, sentence: str, tmp_path: Path
) -> None:
    """With the file's name and the reason."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PolicyError) as caught:
        find([str(path)])
    assert str(caught.value) == f"{path}: {sentence}"


def test_a_folder_without_policies_is_refused(tmp_path: Path) -> None:
    """An empty result would look like success."""
    with pytest.raises(PolicyError, match=r"no \.yaml, \.yml or \.json file"):
        find([str(tmp_path)])


def test_kinds_that_are_no_policies_are_counted(find: Find) -> None:
    """They are passed over, not lost."""
    text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n---\n" * 2 + KUBERNETES
    found = find(text)
    assert (len(found.objects), dict(found.skipped)) == (1, {"apps/v1 Deployment": 2})


# -- mistakes --------------------------------------------------------------------------------------------------------

MISTAKES = {
    "empty item": (
        CALICO % "a" + "  types:\n  -\n",
        "p.yaml:9:4: spec.types[0]: nothing where text is needed",
    ),
    "unknown field": (
        KUBERNETES + "  podSelectr: {}\n",
        "p.yaml:8:3: spec.podSelectr: unknown field 'podSelectr'; did you mean 'podSelector'?",
    ),
    "wrong case": (
        KUBERNETES.replace("namespace:", "Namespace:"),
        "p.yaml:5:3: metadata.Namespace: unknown field 'Namespace'; write 'namespace': names count with their case",
    ),
    "no list": (
        KUBERNETES + "  ingress:\n  - ports:\n      port: 3111\n",
        "p.yaml:10:7: spec.ingress[0].ports: a mapping where a list is needed; start each item with '- '",
    ),
    "rules in metadata": (
        KUBERNETES.replace("spec:", "  ingress: []\nspec:"),
        "p.yaml:6:3: metadata.ingress: unknown field 'ingress'; it belongs below 'spec': check the lines and"
        " indentation around metadata",
    ),
    "boolean label": (
        KUBERNETES.replace("{}", "{matchLabels: {on-call: yes}}"),
        "p.yaml:7:40: spec.podSelector.matchLabels.on-call: the boolean true where text is needed; put it in quotes",
    ),
    "order as text": (
        CALICO % "a" + "  order: '3000'\n",
        "p.yaml:8:10: spec.order: the text '3000' where a number is needed",
    ),
    "port": (
        CALICO % "a" + "  ingress:\n  - action: Allow\n    destination:\n      ports: [80-90, '90:80']\n",
        "p.yaml:11:22: spec.ingress[0].destination.ports[1]: minimum port number (90) is greater than maximum port"
        " number (80) in port range",
    ),
    "kind": (
        KUBERNETES.replace("NetworkPolicy", "Networkpolicy"),
        "p.yaml:2:7: unknown kind 'Networkpolicy' with apiVersion 'networking.k8s.io/v1'; did you mean kind"
        " 'NetworkPolicy' with apiVersion 'networking.k8s.io/v1'?",
    ),
    "group": (
        KUBERNETES.replace("networking.k8s.io/v1", "extensions/v1beta1"),
        "p.yaml:2:7: unknown kind 'NetworkPolicy' with apiVersion 'extensions/v1beta1'; did you mean kind"
        " 'NetworkPolicy' with apiVersion 'projectcalico.org/v3'?",
    ),
    "version": (
        CALICO.replace("/v3", "/v1") % "a",
        "p.yaml:1:13: apiVersion 'projectcalico.org/v1' is not read; use projectcalico.org/v3",
    ),
    "no kind": (
        "Kind: x\napiVersion: v1\n",
        "p.yaml:1:1: no 'kind'; write 'kind' instead of 'Kind': names count with their case",
    ),
    "kind of a number": (
        "kind: 7\napiVersion: v1\n",
        "p.yaml:1:1: no 'kind'; its value must be text: put it in quotes, or write what was meant",
    ),
    "no name": (
        KUBERNETES.replace("  name: web\n", ""),
        "p.yaml:4:3: this NetworkPolicy has no metadata.name; give it a name",
    ),
    "no object": ("hello\n", "p.yaml:1:1: no object: a mapping with 'apiVersion' and 'kind' is needed"),
    "twice": (
        KUBERNETES + "  podSelector: {}\n",
        "p.yaml:8:3: the key 'podSelector' is written twice in one mapping; keep one of them",
    ),
    "address": (
        "apiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {name: a}\nspec:\n  expectedIPs: [<ip>]\n",
        "p.yaml:5:17: spec.expectedIPs[0]: invalid IP address: <ip>",
    ),
    "action": (
        CALICO % "a" + "  ingress:\n  - action: log\n",
        "p.yaml:9:13: spec.ingress[0].action: 'log' is not one of Allow, Deny, Log, Pass",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_with_its_place_its_field_and_what_to_write(name: str, load: Load) -> None:
    """File, line, column, path and advice."""
    text, sentence = MISTAKES[name]
    assert problems(load(text)) == [sentence]


def test_one_bad_object_does_not_hide_the_others(load: Load) -> None:
    """The good policies of the same file are loaded."""
    loaded = load(MISTAKES["unknown field"][0] + "---\n" + CALICO % "good")
    assert len(loaded.problems) == 1
    assert [policy.name for policy in loaded.inventory.policies] == ["good"]


@pytest.mark.parametrize(
    "text",
    ["a: b: c", "[" * (MAX_DEPTH + 1), "a: *nothing", "\x00", "{", "a: &a [*a]", "? [a]\n: b", "%YAML 9.9\n---\na"],
)
def test_what_is_no_yaml_is_a_problem_in_the_file(text: str, find: Find) -> None:
    """Never a traceback."""
    (problem,) = find(text).problems
    assert problem.place.file == "p.yaml"


def test_aliases_cannot_grow_without_end(find: Find) -> None:
    """A few lines that stand for billions of values are refused."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    (problem,) = find("\n".join(lines)).problems
    assert "once aliases are followed" in problem.message


@given(st.text(alphabet="ab:-{}[]&*!|>'\"#?,\n\t ", max_size=60))
def test_any_text_ends_as_objects_or_problems(text: str) -> None:
    """Loading raises nothing, whatever is written."""
    assembled(found_in([("p.yaml", text)]))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=10,
    )
)
def test_json_is_read_as_json(value: object) -> None:
    """The YAML reader gives what a JSON reader gives."""
    text = json.dumps({"document": value})
    if "<<" not in text:
        assert [node.plain() for node in nodes(text, "j")] == [{"document": value}]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("30:45", "30:45"),
        ("30000:32767", "30000:32767"),
        ("yes", True),
        ("off", False),
        ("~", None),
        ("0o17", 15),
        ("017", 15),
        ("0x1F", 31),
        ("1_000", 1000),
        ("1e3", 1000.0),
        ("1.5", 1.5),
        ("2024-01-02", "2024-01-02"),
        ("-", "-"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("1.2.3", "1.2.3"),
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", 2.0**64),
        ("1e999", "1e999"),
        ("9" * 400, "9" * 400),
    ],
)
def test_a_bare_scalar_means_what_kubernetes_yaml_library_makes_of_it(text: str, value: object) -> None:
    """Not what YAML 1.1 says: port ranges are no sexagesimal numbers."""
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)


def test_merge_keys_are_followed(find: Find) -> None:
    """`<<` fills in what the mapping does not say itself."""
    text = "a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\n"
    assert [node.plain() for node in nodes(text, "p")] == [{"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}]


TWICE = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: a, annotations: {from: here}}
spec: {podSelector: {}}
"""


def test_a_policy_that_is_written_twice_counts_once() -> None:
    """Two dumps of one cluster may hold the same policy, with other metadata."""
    loaded = assembled(found_in([("a.yaml", TWICE), ("b.yaml", TWICE.replace("here", "there"))]))
    assert (len(loaded.inventory.policies), loaded.problems) == (1, ())


def test_two_policies_of_one_name_are_a_problem() -> None:
    """A Log policy made for both would isolate what only the one that is not in force selects."""
    other = TWICE.replace("podSelector: {}", "podSelector: {matchLabels: {run: nginx}}")
    (problem,) = assembled(found_in([("a.yaml", TWICE), ("b.yaml", other)])).problems
    assert "KubernetesNetworkPolicy default/a is written twice, and otherwise at a.yaml:1:1" in str(problem)
