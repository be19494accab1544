"""Who denied a packet, case by case: one cluster, each case in a namespace of its own, all judged in one run.

Rule: a case is what there is, what was logged, and who is to blame; None where nobody can be blamed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.attribution.cluster import Store, calico, line, pod, policy

INGRESS: dict[str, Any] = {"podSelector": {}, "policyTypes": ["Ingress"]}
EGRESS: dict[str, Any] = {"podSelector": {}, "policyTypes": ["Egress"]}


@dataclass(frozen=True, slots=True)
class Case:
    """Objects, lines of the log in the order of their time, and the denying policies of each (None: nobody known)."""

    objects: tuple[dict[str, Any], ...]
    lines: tuple[str, ...]
    expected: tuple[tuple[str, ...] | None, ...]


def every_policy_that_isolates_the_pod_is_named() -> Case:
    """Both that select it in that direction; neither that of another namespace nor one of the other direction."""
    only_web = {"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"from": [{"podSelector": {}}]}]}
    policies = (
        policy("a/deny", INGRESS),
        policy("a/db", only_web),
        policy("a/out", EGRESS),
        policy("aa/deny", INGRESS),
    )
    said = ("KubernetesNetworkPolicy a/db", "KubernetesNetworkPolicy a/deny")
    return Case((pod("a/db", "10.1.0.1"), *policies), (line("192.0.2.1", "10.1.0.1", leaves="a/db"),), (said,))


def an_explicit_deny_is_named_alone() -> Case:
    """The rule that says Deny decided, whatever comes after it."""
    rules = [{"action": "Deny", "protocol": "TCP", "destination": {"ports": [5432]}}]
    early = calico("NetworkPolicy", "b/early", {"order": 10, "types": ["Ingress"], "ingress": rules})
    objects = (pod("b/db", "10.2.0.1"), early, policy("b/deny", INGRESS))
    return Case(objects, (line("192.0.2.1", "10.2.0.1", leaves="b/db"),), (("NetworkPolicy b/early",),))


def between_pods_of_one_node_the_engine_finds_the_side() -> Case:
    """Both interfaces are pods', so the line does not say which side denied: egress comes first."""
    objects = (pod("c/api", "10.3.0.1"), pod("c/db", "10.3.0.2"), policy("c/out", EGRESS), policy("c/in", INGRESS))
    packet = line("10.3.0.1", "10.3.0.2", enters="c/api", leaves="c/db")
    return Case(objects, (packet,), (("KubernetesNetworkPolicy c/out",),))


def a_packet_from_another_node_is_judged_by_its_receiver_alone() -> Case:
    """It has left the sender's node: the sender's egress policies had let it go on, whatever they say now."""
    objects = (pod("d/api", "10.4.0.1"), pod("d/db", "10.4.0.2"), policy("d/out", EGRESS), policy("d/in", INGRESS))
    packet = line("10.4.0.1", "10.4.0.2", leaves="d/db")
    return Case(objects, (packet,), (("KubernetesNetworkPolicy d/in",),))


def the_interface_decides_before_the_address() -> Case:
    """A packet out of a pod's interface was that pod's, also with an address that is another's."""
    web = {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"]}
    objects = (pod("e/api", "10.5.0.1"), pod("e/web", "10.5.0.2"), policy("e/web", web))
    return Case(objects, (line("10.5.0.1", "192.0.2.1", enters="e/web"),), (("KubernetesNetworkPolicy e/web",),))


def an_address_means_the_pod_that_had_it_then() -> Case:
    """Where the interface tells nothing, the same address is another pod half an hour later."""
    first, second = pod("f/one", "10.6.0.1", {"app": "one"}), pod("f/two", "10.6.0.1", {"app": "two"})
    second["metadata"]["creationTimestamp"] = "2026-11-20T12:30:00Z"
    policies = [policy(f"f/{n}", EGRESS | {"podSelector": {"matchLabels": {"app": n}}}) for n in ("one", "two")]
    lines = [line("10.6.0.1", "192.0.2.1", enters="cali-unknown", after_s=after_s) for after_s in (0, 3600)]
    expected = (("KubernetesNetworkPolicy f/one",), ("KubernetesNetworkPolicy f/two",))
    return Case((first, second, *policies), tuple(lines), expected)


def source_ports_count_where_a_policy_asks_for_them() -> Case:
    """Two packets that differ only in their source port are denied by different policies."""
    rules = [{"action": "Deny", "protocol": "TCP", "source": {"ports": ["1:1023"]}}, {"action": "Pass"}]
    low = calico("NetworkPolicy", "g/low", {"tier": "first", "types": ["Ingress"], "ingress": rules})
    objects = (pod("g/db", "10.7.0.1"), calico("Tier", "first", {"order": 1}), low, policy("g/deny", INGRESS))
    kinds = [f"TCP SPT={port} DPT=22 WINDOW=64240 RES=0x00 SYN URGP=0" for port in (99, 40000)]
    lines = [line("192.0.2.1", "10.7.0.1", kind, leaves="g/db", after_s=n) for n, kind in enumerate(kinds)]
    return Case(objects, tuple(lines), (("NetworkPolicy g/low",), ("KubernetesNetworkPolicy g/deny",)))


def host_endpoints_are_found_by_node_and_interface() -> Case:
    """A packet for the node itself was denied by a policy of the interface that it came in by."""
    host = calico("HostEndpoint", "h", {"node": "node-1", "interfaceName": "eth0", "expectedIPs": ["10.8.0.1"]})
    host["metadata"]["labels"] = {"role": "node"}
    rules = [{"action": "Deny", "protocol": "TCP", "destination": {"ports": [22]}}, {"action": "Allow"}]
    no_ssh = calico("GlobalNetworkPolicy", "h", {"selector": "role == 'node'", "types": ["Ingress"], "ingress": rules})
    ssh = "TCP SPT=40000 DPT=22 WINDOW=64240 RES=0x00 SYN URGP=0"
    return Case((host, no_ssh), (line("192.0.2.1", "10.8.0.1", ssh, leaves=""),), (("GlobalNetworkPolicy h",),))


def icmp_is_told_by_type() -> Case:
    """Echo requests are denied by a rule about their type."""
    rules = [{"action": "Deny", "protocol": "ICMP", "icmp": {"type": 8}}, {"action": "Allow"}]
    no_ping = calico("NetworkPolicy", "i/ping", {"types": ["Ingress"], "ingress": rules})
    packet = line("192.0.2.1", "10.9.0.1", "ICMP TYPE=8 CODE=0 ID=1 SEQ=1", leaves="i/db")
    return Case((pod("i/db", "10.9.0.1"), no_ping), (packet,), (("NetworkPolicy i/ping",),))


def ipv6_packets_are_judged_by_ipv6_nets() -> Case:
    """A rule that allows the pod's IPv4 address says nothing about its IPv6 address."""
    db = pod("j/db", "10.10.0.1")
    db["status"]["podIPs"].append({"ip": "fd00::1"})
    only = policy("j/db", {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}]})
    return Case((db, only), (line("fd00::2", "fd00::1", leaves="j/db"),), (("KubernetesNetworkPolicy j/db",),))


def a_log_rule_before_an_allow_blames_nobody() -> Case:
    """The packet was logged and not denied."""
    watch = calico(
        "NetworkPolicy", "k/watch", {"types": ["Ingress"], "ingress": [{"action": "Log"}, {"action": "Allow"}]}
    )
    return Case((pod("k/db", "10.11.0.1"), watch), (line("192.0.2.1", "10.11.0.1", leaves="k/db"),), (None,))


def an_unknown_pod_blames_nobody() -> Case:
    """A pod that nobody has seen may have any labels."""
    return Case((policy("l/deny", INGRESS),), (line("192.0.2.1", "10.12.0.1", leaves="l/gone"),), (None,))


CASES: tuple[Callable[[], Case], ...] = (
    every_policy_that_isolates_the_pod_is_named,
    an_explicit_deny_is_named_alone,
    between_pods_of_one_node_the_engine_finds_the_side,
    a_packet_from_another_node_is_judged_by_its_receiver_alone,
    the_interface_decides_before_the_address,
    an_address_means_the_pod_that_had_it_then,
    source_ports_count_where_a_policy_asks_for_them,
    host_endpoints_are_found_by_node_and_interface,
    icmp_is_told_by_type,
    ipv6_packets_are_judged_by_ipv6_nets,
    a_log_rule_before_an_allow_blames_nobody,
    an_unknown_pod_blames_nobody,
)


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, dict[str, Any], list[dict[str, Any]]]:
    """The store of all cases after one run, what the run told, and its denied packets."""
    store = Store(tmp_path_factory.mktemp("cases"))
    cases = [case() for case in CASES]
    store.ingest(*(text for case in cases for text in case.lines))
    store.snapshot(*(each for case in cases for each in case.objects), words=("--at", "2026-11-20T12:31:00Z"))
    told = store.attribute()
    return store, told, store.denied("destination_ip, source_ip, time, denied_by, decided_by, why, pod")


@pytest.mark.parametrize("number", range(len(CASES)), ids=[case.__name__ for case in CASES])
def test_case(judged: tuple[Store, dict[str, Any], list[dict[str, Any]]], number: int) -> None:
    """The policies that the case expects, and no others."""
    case, own = CASES[number](), (f"10.{number + 1}.", "fd00::" if number == 9 else "10.none")
    rows = [row for row in judged[2] if row["destination_ip"].startswith(own) or row["source_ip"].startswith(own)]
    found = [tuple(row["denied_by"]) if row["denied_by"] else None for row in rows]
    assert found == list(case.expected)


def test_the_run_tells_what_it_could_not_say(judged: tuple[Store, dict[str, Any], list[dict[str, Any]]]) -> None:
    """Packets without a verdict are counted by cause, each with an example that names what is in the way."""
    told = judged[1]
    examples = {each["cause"]: each["example"] for each in told["not_attributed"]}
    assert told["packets"]["none"] == 2
    assert "no pod known behind cali" in examples["pod not known of that time"]
    assert examples["the policies known of that time allow it"].endswith(
        "it is logged, not denied, by NetworkPolicy k/watch"
    )


def test_top_by_policy_counts_what_the_engine_found(
    judged: tuple[Store, dict[str, Any], list[dict[str, Any]]],
) -> None:
    """The denying policies are what `top --by policy` counts by."""
    shown = judged[0].run("top", "--by", "policy", "-n", "50").output
    assert all(
        name in shown for name in ("KubernetesNetworkPolicy f/two", "NetworkPolicy b/early", "GlobalNetworkPolicy h")
    )
