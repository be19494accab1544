"""The commands as a user calls them: output, exit codes, help, and no traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies.commands import policies

NGINX = """\
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata: {name: access-nginx}
spec:
  podSelector: {matchLabels: {run: nginx}}
  ingress:
  - from: [{podSelector: {matchLabels: {run: access}}}]
"""


def run(*arguments: str, stdin: str | bytes = "") -> Result:
    return CliRunner().invoke(policies, arguments, input=stdin)


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    found = []
    for name, command in group.commands.items():
        found.append(((*path, name), command))
        found += commands(command, (*path, name)) if isinstance(command, click.Group) else []
    return found


@pytest.mark.parametrize("command", commands(policies), ids=lambda each: " ".join(each[0]))
def test_every_command_has_help_with_an_example(command: tuple[tuple[str, ...], click.Command]) -> None:
    """`--help` shows how it is used."""
    path, found = command
    shown = run(*path, "--help")
    assert shown.exit_code == 0
    assert "Example:" in shown.output or isinstance(found, click.Group)


def test_help_answers_without_loading_what_commands_need() -> None:
    """Neither the grammar nor the YAML reader is imported."""
    heavy = ("yaml", "pyparsing", "polars", "duckdb")
    program = f"import sys, policies.commands; print([name for name in {heavy} if name in sys.modules])"
    root = Path(__file__).parents[2]
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root, check=True)
    assert ran.stdout == "[]\n"


def test_convert_prints_yaml_documents_or_json() -> None:
    """The same object in both; several are several documents or a List."""
    alone = run("convert", "-", "-o", "json", stdin=NGINX)
    assert alone.exit_code == 0
    assert json.loads(alone.stdout) == yaml.safe_load(run("convert", "-", stdin=NGINX).stdout)
    two = NGINX + "---\n" + NGINX.replace("nginx", "web")
    assert len(list(yaml.safe_load_all(run("convert", "-", stdin=two).stdout))) == 2
    assert len(json.loads(run("convert", "-", "-o", "json", stdin=two).stdout)["items"]) == 2


def test_convert_names_what_it_leaves_out_and_prints_the_rest() -> None:
    """Exit code 1, the sentence on standard error, the policy on standard output."""
    result = run("convert", "-", "-o", "json", stdin=NGINX + "  - ports: [{port: 70000}]\n")
    assert result.exit_code == 1
    assert "error with rule" in result.stderr
    assert len(json.loads(result.stdout)["spec"]["ingress"]) == 1


def test_convert_is_the_converter_and_can_play_the_api_server() -> None:
    """Without policyTypes Calico's converter says Ingress; --as-served adds Egress where egress rules are."""
    text = NGINX + "  egress: [{}]\n"
    exact = run("convert", "-", "-o", "json", stdin=text)
    assert json.loads(exact.stdout)["spec"]["types"] == ["Ingress"]
    assert "--as-served" in exact.stderr
    served = run("convert", "-", "-o", "json", "--as-served", stdin=text)
    assert json.loads(served.stdout)["spec"]["types"] == ["Ingress", "Egress"]
    assert served.stderr == ""


def test_convert_goes_on_after_a_bad_object() -> None:
    """Exit code 2, and the good policy is still printed."""
    result = run("convert", "-", "-o", "json", stdin=NGINX + "---\nkind: NetworkPolicy\n---\n" + NGINX)
    assert result.exit_code == 2
    assert "no 'apiVersion'" in result.stderr
    assert len(json.loads(result.stdout)["items"]) == 2


def test_convert_hands_calico_policies_on_and_counts_the_rest() -> None:
    """Its own output is its input again; other kinds are named."""
    once = run("convert", "-", "-o", "json", stdin=NGINX).stdout
    assert run("convert", "-", "-o", "json", stdin=once).stdout == once
    other = run("convert", "-", stdin=NGINX + "---\napiVersion: apps/v1\nkind: Deployment\n")
    assert "1 objects of other kinds passed over: 1 apps/v1 Deployment" in other.stderr


def test_validate_says_valid_or_lists_the_errors() -> None:
    """JSON is {"valid": …, "errors": […]}; the exit code says the same."""
    good = run("validate", "-", "-o", "json", stdin=NGINX)
    assert (good.exit_code, json.loads(good.stdout)) == (0, {"valid": True, "errors": []})
    bad = run("validate", "-", "-o", "json", stdin=NGINX.replace("podSelector: {m", "PodSelector: {m"))
    assert bad.exit_code == 1
    assert json.loads(bad.stdout)["valid"] is False
    assert "write 'podSelector'" in json.loads(bad.stdout)["errors"][0]


def test_lint_prints_findings_with_their_codes() -> None:
    """Text for people, JSON for programs, exit code 1."""
    text = NGINX.replace("run: access", "Run: access")
    shown = run("lint", "-", stdin=text)
    assert (shown.exit_code, shown.stdout.rstrip()[-12:]) == (1, "[label-case]")
    (finding,) = json.loads(run("lint", "-", "-o", "json", stdin=text).stdout)
    assert (finding["code"], finding["line"]) == ("label-case", 7)
    fine = run("lint", "-", stdin=NGINX)
    assert (fine.exit_code, fine.stdout) == (0, "no findings\n")


def test_selector_match_answers_for_each_label_map() -> None:
    """A JSON list of maps in, a JSON list of booleans out."""
    result = run("selector", "match", "app != 'db'", stdin='[{"app": "web"}, {"app": "db"}, {}]')
    assert (result.exit_code, json.loads(result.stdout)) == (0, [True, False, True])


@pytest.mark.parametrize("text", ["", "kind: Deployment\napiVersion: apps/v1\n", "a: [", "\x00"])
def test_validate_answers_in_json_whatever_it_is_given(text: str) -> None:
    """A program that reads it needs no second way to learn that something is wrong."""
    result = run("validate", "-", "-o", "json", stdin=text)
    answer = json.loads(result.stdout)
    assert (answer["valid"], len(answer["errors"]), result.exit_code > 0) == (False, 1, True)


def test_a_selector_may_start_with_a_dash() -> None:
    """So may a label, as far as Calico's tokenizer goes; `--help` still helps."""
    result = run("selector", "match", "-h == 'x'", stdin='[{"-h": "x"}]')
    assert (result.exit_code, result.stdout) == (0, "[true]\n")
    assert run("selector", "canonical", "--x in {}").stdout == "--x in {}\n"
    assert run("selector", "canonical", "--help").stdout.startswith("Usage")


def test_selector_canonical_prints_the_one_spelling() -> None:
    """Sorted sets, double quotes, parentheses."""
    result = run("selector", "canonical", "tier in {'b', 'a', 'b'} && ! has(app)")
    assert result.stdout == '(tier in {"a", "b"} && !has(app))\n'


@pytest.mark.parametrize(
    ("arguments", "stdin", "sentence"),
    [
        (("selector", "match", "a = 'b'"), "[]", "invalid selector \"a = 'b'\" at column 1"),
        (("selector", "canonical", "a =="), "", "invalid selector 'a ==' at column 1"),
        (("selector", "match", "all()"), "{}", "a list of label maps is needed"),
        (("selector", "match", "all()"), '[{"a": 1}]', "a list of label maps is needed"),
        (("selector", "match", "all()"), "nonsense", "not JSON"),
        (("lint", "absent.yaml"), "", "absent.yaml: cannot be read: No such file or directory"),
        (("validate", "-"), "", "no policy or other known object in it"),
        (("convert", "-"), "", "no policy or other known object in it"),
        (("convert", "-", "-o", "json"), "a: [", "not YAML"),
        (("validate",), "", "Missing argument"),
        (("convert", "-", "-o", "xml"), "", "Invalid value for '-o'"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments: tuple[str, ...], stdin: str, sentence: str) -> None:
    """On standard error, with nothing on standard output."""
    result = run(*arguments, stdin=stdin)
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


def test_bytes_that_are_no_text_are_one_sentence() -> None:
    """Also for label maps."""
    for arguments in (("lint", "-"), ("selector", "match", "all()")):
        result = run(*arguments, stdin=b"\xff\xfe")
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert "not UTF-8" in result.stderr


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from(["apiVersion", "kind", "metadata", "spec", "items"]),
        st.recursive(
            st.none() | st.sampled_from(["v1", "networking.k8s.io/v1", "NetworkPolicy", "List", "a", 1, 1.5, True]),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(
                    st.sampled_from(["name", "ingress", "from", "ports", "podSelector", "spec"]), inner, max_size=3
                )
            ),
            max_leaves=8,
        ),
    ),
    st.sampled_from(["lint", "validate", "convert"]),
)
def test_no_object_whatever_its_shape_makes_a_command_fail(document: object, command: str) -> None:
    """0, 1 or 2, never an exception."""
    result = run(command, "-", "-o", "json", stdin=json.dumps(document))
    assert result.exit_code in (0, 1, 2)
    assert result.exception is None or isinstance(result.exception, SystemExit)
