"""`policies explain`, `what-if` and `allow` about the packets of a store, as a person calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from policies.commands import policies
from tests.attribution.cluster import Store, line, pod, policy

DENY = {"podSelector": {}, "policyTypes": ["Ingress"]}
OPEN_DB = {"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"ports": [{"port": 5432}]}]}
DNS = "UDP SPT=40000 DPT=53 LEN=40"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """An isolated shop, with packets to its database, from two replicas and from outside, and to DNS."""
    store = Store(tmp_path_factory.mktemp("stored"))
    replicas = [pod(f"shop/web-{n}", f"10.1.0.{n}", {"app": "web", "pod-template-hash": "1"}) for n in (1, 2, 3)]
    store.ingest(
        line("10.1.0.1", "10.1.0.9", leaves="shop/db"),
        line("10.1.0.1", "10.1.0.9", leaves="shop/db", after_s=1),
        line("10.1.0.2", "10.1.0.9", leaves="shop/db", after_s=2),
        line("192.0.2.7", "10.1.0.9", leaves="shop/db", after_s=3),
        line("10.1.0.8", "10.2.0.5", DNS, enters="shop/batch", after_s=4),
        line("10.1.0.1", "10.1.0.77", leaves="shop/gone", after_s=5),
    )
    no_egress = {"podSelector": {"matchLabels": {"app": "batch"}}, "policyTypes": ["Egress"]}
    pods = (*replicas, pod("shop/db", "10.1.0.9"), pod("shop/batch", "10.1.0.8"), pod("kube-system/dns", "10.2.0.5"))
    store.snapshot(*pods, policy("shop/deny", DENY), policy("shop/batch", no_egress))
    return store


def _policies(store: Store, *words: str, text: str | None = None) -> Result:
    return store.run("policies", *words, text=text)


def test_the_newest_packet_that_filters_choose_is_explained(world: Store) -> None:
    """Text has the walk; standard error says which packet it is."""
    result = _policies(world, "explain", "--from-ip", "192.0.2.7")
    assert result.exit_code == 0
    assert result.stdout.startswith("192.0.2.7 to shop/db, TCP port 5432: DENIED\n")
    assert "KubernetesNetworkPolicy shop/deny (order 1000)" in result.stdout
    assert "of 2026-11-20 12:00:03+00:00" in result.stderr


def test_a_packet_is_named_by_its_place_in_the_log(world: Store) -> None:
    """SOURCE_FILE:SOURCE_OFFSET as `packets` shows them; the beginning of the file's name will do."""
    columns = "source_file, source_offset, source_ip"
    place = next(each for each in world.denied(columns) if each["source_ip"] == "10.1.0.8")
    which = f"{place['source_file'][:12]}:{place['source_offset']}"
    result = _policies(world, "explain", "--packet", which, "-o", "json")
    data = json.loads(result.stdout)
    assert data["packet"] == f"{place['source_file']}:{place['source_offset']}"
    assert [each["name"] for each in data["denied_by"]] == ["batch"]
    assert "digraph" in _policies(world, "explain", "--packet", which, "-o", "dot").stdout


def test_files_stand_in_for_the_policies_of_the_store(world: Store, tmp_path: Path) -> None:
    """The packet of then under other policies: these would have let it through."""
    changed = tmp_path / "open.yaml"
    changed.write_text(yaml.safe_dump(policy("shop/db", OPEN_DB)))
    result = _policies(world, "explain", "--from-ip", "10.1.0.2", str(changed))
    assert result.exit_code == 0
    assert "these policies allow it, though it was logged" in result.stderr


def test_a_packet_that_cannot_be_judged_says_why(world: Store) -> None:
    """Exit code 1, nothing on standard output."""
    result = _policies(world, "explain", "--packet", "last")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "not judged: no pod known behind cali" in result.stderr


@pytest.mark.parametrize("which", ["first", "f00d:7", ":1", "f00d:", "f00d:99999999999999999999"])
def test_a_packet_that_is_not_there_is_one_sentence(world: Store, which: str) -> None:
    """Neither a traceback nor another packet."""
    result = _policies(world, "explain", "--packet", which)
    assert (result.exit_code, result.stdout) == (2, "")
    assert which in result.stderr


def test_explain_wants_either_a_flow_or_a_packet(world: Store) -> None:
    """Half a flow, or both, is bad usage."""
    for words in (("--from", "shop/db"), ("--from", "shop/db", "--to", "shop/web-1:80", "--packet", "last")):
        assert _policies(world, "explain", *words).exit_code == 2


@pytest.mark.parametrize(
    "words",
    [
        ("explain", "-", "--from", "shop/db", "--to", "shop/web-1:80", "--since", "1h"),
        ("allow", "-", "--flows", "flows.jsonl", "--to-port", "80"),
        ("what-if", "-", "--current", "f.yaml", "--flows", "flows.jsonl", "--to-port", "80"),
    ],
)
def test_filters_beside_given_flows_are_bad_usage(world: Store, words: tuple[str, ...]) -> None:
    """They would choose nothing, and nobody would notice."""
    result = _policies(world, *words, text="{}")
    assert result.exit_code == 2
    assert "filters choose stored packets" in result.stderr


def test_what_if_tells_which_stored_flows_a_change_would_open(world: Store, tmp_path: Path) -> None:
    """Counted in packets, each flow once; what stays denied, by what; and what else would open."""
    changed = tmp_path / "open.yaml"
    changed.write_text(yaml.safe_dump(policy("shop/db", OPEN_DB)))
    result = _policies(world, "what-if", str(changed), "-o", "json")
    data = json.loads(result.stdout)
    told = {(each["source"], each["change"]): each["packets"] for each in data["flows"]}
    assert told == {
        ("shop/web-1", "opened"): 2,
        ("shop/web-2", "opened"): 1,
        ("192.0.2.7", "opened"): 1,
        ("shop/batch", "still denied"): 1,
    }
    denied = next(each for each in data["flows"] if each["change"] == "still denied")
    assert denied["denied_by"] == ["KubernetesNetworkPolicy shop/batch"]
    assert {each["source"] for each in data["beside"]} == {"shop/web-3", "kube-system/dns", "192.0.2.1"}
    assert data["not_judged"] == {"pod not known of that time": 1}
    text = _policies(world, "what-if", str(changed), "--to-port", "53")
    assert text.stdout.splitlines()[1].split()[:3] == ["still", "denied", "1"]


def test_what_if_over_given_policies_takes_the_files_as_the_whole_set(world: Store, tmp_path: Path) -> None:
    """With --current the present policies come from files, and FILES are all that would be."""
    present, changed = tmp_path / "present.yaml", tmp_path / "changed.yaml"
    present.write_text(yaml.safe_dump(policy("shop/other", DENY)))
    changed.write_text(yaml.safe_dump(policy("elsewhere/deny", DENY)))
    words = ("what-if", str(changed), "--current", str(present), "--to-port", "5432", "-o", "json")
    assert {each["change"] for each in json.loads(_policies(world, *words).stdout)["flows"]} == {"opened"}


def test_allow_proposes_the_smallest_policy_for_stored_flows(world: Store) -> None:
    """By the labels of workloads: the third replica would be let in too, and that is told."""
    result = _policies(world, "allow", "--to-port", "5432", "--from-ip", "10.1.0.0/24")
    (proposal,) = yaml.safe_load_all(result.stdout)
    assert result.exit_code == 0
    assert proposal["spec"]["ingress"] == [
        {"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"protocol": "TCP", "port": 5432}]}
    ]
    assert "opened beside: shop/web-3 to shop/db, TCP port 5432" in result.stderr
    assert "not judged: 1 packet: pod not known of that time" in result.stderr


def test_allow_opens_dns_to_the_dns_pods(world: Store) -> None:
    """An egress flow to port 53 names the DNS workload in its namespace."""
    (proposal,) = yaml.safe_load_all(_policies(world, "allow", "--port", "53").stdout)
    (peer,) = proposal["spec"]["egress"][0]["to"]
    assert peer["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}


def test_filters_that_choose_nothing_are_told(world: Store) -> None:
    """Nothing to allow is no proposal, and not an error."""
    result = _policies(world, "allow", "--to-port", "1")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no denied packet in the store is chosen" in result.stderr


def test_a_store_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    """The same sentence as of every command."""
    result = Store(tmp_path).run("policies", "allow", "--to-port", "1")
    assert result.exit_code == 2
    assert "there is no store" in result.stderr


@pytest.mark.parametrize("command", [["verify", "-", "-"], ["lint", "-", "-"], ["what-if", "-", "--current", "-"]])
def test_standard_input_is_read_once(command: list[str]) -> None:
    """Named twice it would be empty the second time: bad usage."""
    result = CliRunner().invoke(policies, command, input="{}")
    assert result.exit_code == 2
    assert "can be read only once" in result.stderr
