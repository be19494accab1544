"""Attribution: who source and destination of a packet were at its time, in a real store with a real inventory."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Callable, Iterable
from datetime import UTC
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from analytics import Reader, Writer
from analytics.additions import Additions, VerdictRow
from analytics.filters import FilterError, where
from analytics.inbox import deposit
from analytics.inventory import examine, holders, objects_at, observe
from analytics.kinds import interface_name
from analytics.queries import overview, packets, timeline, top, values
from analytics.ranges import SPECIAL, bits, special_class
from tests.analytics.cluster import DAY, at, node, pod, service, thing
from tests.analytics.conftest import make_commit

Fill = Callable[[Iterable[dict[str, Any]]], str]
WEB, DB = interface_name("shop", "web-1"), interface_name("shop", "db-0")
SOURCE = "source_pod, source_class, source_by, attribution_conflict"


def told(store: str, columns: str, order: str = "source_offset") -> list[tuple[Any, ...]]:
    """These columns of `denied`, by the reader's own joins; the store's view, which others attach, says the same."""
    with Reader(store) as reader:
        found = reader.rows(f"SELECT {columns} FROM denied ORDER BY {order}").rows
        assert reader.rows(f"SELECT {columns} FROM denylog.denied ORDER BY {order}").rows == found
    return found


def leaving(hour: float, address: str, interface: str | None = "eth0", **more: Any) -> dict[str, Any]:
    """A packet from an address, so many hours into the day."""
    return {
        "time": at(hour), "source_ip": address, "in_interface": interface, "out_interface": "eth0",
        "direction": "egress", "destination_ip": "203.0.113.9", **more,
    }  # fmt: skip


def test_address_reuse(filled: Fill) -> None:
    """Two pods had one address one after the other: lines of both, stored before the inventory, go to the right one."""
    store = filled([leaving(2, "10.244.0.7"), leaving(5, "10.244.0.7"), leaving(0.5, "10.244.0.7")])
    assert told(store, "source_pod, source_class") == [(None, "private")] * 3
    first = pod("web-1", "10.244.0.7", 1)
    deposit(store, observe([first, node("node-1", "192.0.2.1", "10.244.0.0/24")], at=at(3)))
    deposit(store, observe([pod("db-0", "10.244.0.7", 4)], at=at(6), complete_kinds=["Pod"]))
    assert told(store, SOURCE) == [
        ("web-1", "pod", "address", False),
        ("db-0", "pod", "address", False),
        (None, "unknown pod", "address", False),
    ]


def test_interface_decides(filled: Fill) -> None:
    """Where interface and address are known the interface decides, and a pod without that address is a conflict."""
    store = filled(
        [
            leaving(2, "10.244.0.7", WEB),
            leaving(2, "10.244.0.8", WEB),
            leaving(2, "10.244.0.8", "cali00000000000"),
            leaving(2, "10.244.0.99", "cali00000000000"),
            leaving(9, "fe80::1", WEB, ip_version=6),
        ]
    )
    deposit(store, observe([pod("web-1", "10.244.0.7", 1), pod("db-0", "10.244.0.8", 1)], at=at(3)))
    assert told(store, SOURCE) == [
        ("web-1", "pod", "interface", False),
        ("web-1", "pod", "interface", True),
        ("db-0", "pod", "address", True),
        (None, "unknown pod", "interface", False),
        ("web-1", "pod", "interface", False),
    ]


def test_other_classes(filled: Fill) -> None:
    """Nodes, tunnels, services, host endpoints, host-network pods, network sets and ranges each have their class."""
    calico = "projectcalico.org/v3"
    tunnel = {"metadata": {"annotations": {"projectcalico.org/IPv4VXLANTunnelAddr": "10.244.0.0"}}}
    worker = node("node-1", "192.0.2.1", "10.244.0.0/24")
    worker["metadata"] |= tunnel["metadata"]
    things = [
        worker,
        service("db", "10.96.0.5", {"app": "db"}),
        thing("HostEndpoint", "edge", api=calico, spec={"node": "edge-1", "expectedIPs": ["192.0.2.50"]}),
        pod("proxy", "192.0.2.77", 1, spec={"hostNetwork": True, "nodeName": "node-7"}),
        thing("GlobalNetworkSet", "partners", api=calico, spec={"nets": ["203.0.113.0/24", "10.244.0.0/16"]}),
        thing("IPPool", "v6", api=calico, spec={"cidr": "fd00:10::/64"}),
    ]
    cases = {
        "192.0.2.1": ("node", "node-1", "address"),
        "10.244.0.0": ("node", "node-1", "address"),
        "10.96.0.5": ("service", "db", "address"),
        "192.0.2.50": ("host endpoint", "edge", "address"),
        "192.0.2.77": ("host-network pod", "node-7", "address"),
        "203.0.113.4": ("network set", "partners", "address"),
        "10.244.0.200": ("unknown pod", None, "address"),
        "10.244.9.1": ("network set", "partners", "address"),
        "fd00:10::5": ("unknown pod", None, "address"),
        "fd00:11::5": ("unique-local", None, None),
        "10.1.1.1": ("private", None, None),
        "8.8.8.8": ("public", None, None),
        "100.64.0.1": ("shared", None, None),
    }
    store = filled([leaving(2, address) for address in cases])
    deposit(store, observe(things, at=at(1)))
    found = told(
        store, "source_class, CASE WHEN source_class = 'unknown pod' THEN NULL ELSE source_name END, source_by"
    )
    assert dict(zip(cases, found, strict=True)) == cases


def test_special_ranges() -> None:
    """The class of random and of border addresses is that of the first range in the table that holds them."""
    import duckdb

    networks = [(name, ipaddress.ip_network(net)) for name, nets, _ in SPECIAL for net in nets]
    dice = random.Random(4)
    borders = {edge for _, net in networks for edge in (net[0], net[-1])}
    others = {type(edge)(dice.getrandbits(edge.max_prefixlen)) for edge in borders for _ in range(5)}
    addresses = [each for each in borders | others if "." not in str(each) or each.version == 4]
    expected = {
        str(address): next((name for name, net in networks if address in net), "public") for address in addresses
    }
    sql = f"SELECT a, {special_class('b')} FROM (SELECT a, {bits('a')} AS b FROM (SELECT unnest($all) AS a))"
    with duckdb.connect() as connection:
        assert dict(connection.execute(sql, {"all": list(expected)}).fetchall()) == expected


def test_workloads_and_services(filled: Fill) -> None:
    """A pod's workload comes from its owners or its name, its services from their selectors while both are there."""
    replica = {"controller": True, "kind": "ReplicaSet", "name": "web-7d4b"}
    labels = {"app": "web", "pod-template-hash": "7d4b"}
    job = {"controller": True, "kind": "Job", "name": "report-29012345"}
    things = [
        pod("web-7d4b-x", "10.244.0.1", 1, labels=labels, metadata={"ownerReferences": [replica]}),
        pod("report-29012345-q", "10.244.0.2", 1, metadata={"ownerReferences": [job]}),
        pod("db-0", "10.244.0.3", 1, metadata={"ownerReferences": [{"kind": "StatefulSet", "name": "db"}]}),
        pod("alone", "10.244.0.4", 1),
    ]
    store = filled([*(leaving(2, f"10.244.0.{number}") for number in (1, 2, 3, 4)), leaving(8, "10.244.0.1")])
    deposit(store, observe(things, at=at(1.5)))
    late = service("front", "10.96.0.1", {"app": "web"})
    late["metadata"]["creationTimestamp"] = at(4).isoformat()
    deposit(
        store,
        observe([late, service("all", "10.96.0.2", {}), service("front", "10.96.0.3", {"app": "web"}, "x")], at=at(5)),
    )
    assert told(store, "source_workload_kind, source_workload, source_service") == [
        ("Deployment", "web", None),
        ("CronJob", "report", None),
        ("StatefulSet", "db", None),
        ("Pod", "alone", None),
        ("Deployment", "web", "front"),
    ]


def test_owners_in_a_dump_decide(filled: Fill) -> None:
    """A ReplicaSet or Job of the dump says who made it; the name of the pod only where there is none, or another."""

    def made(kind: str, name: str, uid: str, *owners: dict[str, str]) -> dict[str, Any]:
        version = {"ReplicaSet": "apps/v1", "Job": "batch/v1"}[kind]
        return thing(kind, name, "shop", version, metadata={"uid": uid, "ownerReferences": list(owners)})

    def owned(name: str, number: int, version: str, kind: str, owner: str, uid: str) -> dict[str, Any]:
        reference = {"apiVersion": version, "kind": kind, "name": owner, "uid": uid, "controller": True}
        labels = {"pod-template-hash": owner.partition("-")[2]}
        return pod(name, f"10.244.0.{number}", 1, labels=labels, metadata={"ownerReferences": [reference]})

    seen = examine(
        [
            made("ReplicaSet", "a-1", "u1", {"kind": "Deployment", "name": "front"}),
            made("ReplicaSet", "b-1", "u2"),
            made("Job", "c-29012345", "u3"),
            owned("p1", 1, "apps/v1", "ReplicaSet", "a-1", "u1"),
            owned("p2", 2, "apps/v1", "ReplicaSet", "b-1", "u2"),
            owned("p3", 3, "batch/v1", "Job", "c-29012345", "u3"),
            owned("p4", 4, "batch/v1", "Job", "c-29012345", "of one before"),
            owned("p5", 5, "batch.volcano.sh/v1alpha1", "Job", "d-29012345", "u5"),
        ],
        at=at(2),
    )
    assert [(row.workload_kind, row.workload) for row in seen.additions.objects] == [
        ("Deployment", "front"),
        ("ReplicaSet", "b-1"),
        ("Job", "c-29012345"),
        ("CronJob", "c"),
        ("Job", "d-29012345"),
    ]
    assert seen.passed == {}, "what is read for its owner is not passed over"


def test_terminated_pod_ends(filled: Fill) -> None:
    """A pod that has terminated held its address until its last container finished; importing it again adds nothing."""
    ended = {"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"finishedAt": at(3).isoformat()}}}]}
    seen = observe([pod("job", "10.244.0.7", 1, status=ended)], at=at(9))
    store = filled([leaving(2, "10.244.0.7"), leaving(4, "10.244.0.7")])
    assert [deposit(store, seen).rows, deposit(store, seen).rows] == [2, 0]
    assert told(store, "source_pod") == [("job",), (None,)]


def test_late_dump_in_any_order(filled: Fill) -> None:
    """Dumps of three times give the same intervals in whatever order they are imported, each once or twice."""
    dumps = [
        observe([pod("a", "10.0.0.1", 1), pod("b", "10.0.0.2", 1)], at=at(2), complete_kinds=["Pod"]),
        observe([pod("a", "10.0.0.1", 1, labels={"v": "2"})], at=at(4), complete_kinds=["Pod"]),
        observe(
            [pod("a", "10.0.0.1", 1, labels={"v": "2"}), pod("b", "10.0.0.2", 5)], at=at(6), complete_kinds=["Pod"]
        ),
    ]
    found = []
    for number, order in enumerate(([0, 1, 2], [0, 1, 2, 2, 1, 0])):
        store = filled([]).replace("store", f"store-{number}")
        for index in order:
            deposit(store, dumps[index])
        with Reader(store) as reader:
            sql = "SELECT name, labels, valid_from, valid_until FROM object_intervals ORDER BY name, valid_from"
            found.append(reader.rows(sql).rows)
    assert found[0] == found[1] == [
        ("a", "{}", at(1), at(4)),
        ("a", '{"v":"2"}', at(4), None),
        ("b", "{}", at(1), at(4)),
        ("b", "{}", at(5), None),
    ]  # fmt: skip


def test_objects_at(filled: Fill) -> None:
    """The objects of a time are those that held then, and load as the policies that they were."""
    policy = thing("NetworkPolicy", "deny", "shop", "networking.k8s.io/v1", spec={"podSelector": {}})
    changed = {**policy, "spec": {"podSelector": {"matchLabels": {"a": "b"}}}}
    changed["metadata"] = {**policy["metadata"], "generation": 2, "managedFields": [{"time": at(5).isoformat()}]}
    store = filled([])
    deposit(store, observe([policy, pod("web-1", "10.0.0.1", 1)], at=at(2)))
    deposit(store, observe([changed], at=at(9)))
    with Reader(store) as reader:
        specs = [objects_at(reader, at(hour), ["NetworkPolicy"])[0]["spec"] for hour in (1, 4.9, 5, 20)]
        assert specs == [policy["spec"], policy["spec"], changed["spec"], changed["spec"]]
        assert [each["kind"] for each in objects_at(reader, at(3))] == ["NetworkPolicy", "Pod"]
        assert objects_at(reader, DAY, ["Pod"]) == []
        assert [row[3] for row in holders(reader, "10.0.0.1").rows] == ["web-1"]


def verdict(**more: Any) -> VerdictRow:
    """A verdict on the flow of `leaving(…, "10.0.0.1")`."""
    flow = {"in_interface": "eth0", "out_interface": "eth0", "source_ip": "10.0.0.1", "destination_ip": "203.0.113.9"}
    rest: dict[str, Any] = {"direction": "egress", "protocol": "tcp", "destination_port": 443, "valid_from": DAY}
    return VerdictRow(**{**flow, **rest, "denied_by": ("NetworkPolicy shop/deny",), "why": "no rule allows it", **more})


def test_who_denied_it(filled: Fill) -> None:
    """The newest verdict of the time says it, else the policy in the log prefix; no packet is doubled by verdicts."""
    named = {"policy_kind": "gnp", "policy_name": "log-all"}
    store = filled(
        [
            leaving(2, "10.0.0.1", **named),
            leaving(2, "10.0.0.2", **named),
            leaving(7, "10.0.0.1"),
            leaving(2, "10.9.9.9"),
        ]
    )
    deposit(store, Additions(verdicts=(verdict(denied_by=("old",)),)))
    deposit(store, Additions(verdicts=(verdict(), verdict(valid_from=at(6), valid_until=at(8), denied_by=("later",)))))
    assert told(store, "denied_by, decided_by, why") == [
        (["NetworkPolicy shop/deny"], "engine", "no rule allows it"),
        (["GlobalNetworkPolicy log-all"], "prefix", "the log prefix names this policy"),
        (["later"], "engine", "no rule allows it"),
        (None, None, None),
    ]
    with Reader(store) as reader:
        assert top(reader, "policy", where({"policy": "shop/deny"}, now=DAY, zone=UTC), 5).rows.rows[0][3] == 1


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with three flows between a pod behind a service, a stranger and a node, which no test changes."""
    store = str(tmp_path_factory.mktemp("asked") / "store")
    ways = {"in_interface": "eth0", "out_interface": WEB, "direction": "ingress"}
    rows = [
        leaving(2, "10.244.0.7", WEB),
        leaving(3, "8.8.8.8", None, destination_ip="10.244.0.7", **ways | {"in_interface": None}),
        leaving(4.5, "192.0.2.1"),
    ]
    with Writer(store) as writer:
        writer.commit(make_commit(rows))
    labels = {"app": "web"}
    things = [
        pod("web-1", "10.244.0.7", 1, labels=labels),
        service("front", "10.96.0.1", labels),
        node("node-1", "192.0.2.1"),
    ]
    deposit(store, observe(things, at=at(2)))
    return store


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        ({"namespace": "shop"}, [0, 1]),
        ({"namespace": "!shop"}, [2]),
        ({"from-namespace": "sh*"}, [0]),
        ({"to-namespace": "shop"}, [1]),
        ({"pod": "shop/web"}, [0, 1]),
        ({"pod": "web-1"}, [0, 1]),
        ({"pod": "other/web"}, []),
        ({"from-pod": "web-?"}, [0]),
        ({"to-pod": "shop/"}, [1]),
        ({"workload": "shop/web-1"}, [0, 1]),
        ({"from-workload": "web"}, []),
        ({"to-workload": "web-1"}, [1]),
        ({"from-service": "front"}, [0]),
        ({"to-service": "shop/fro*"}, [1]),
        ({"class": "node"}, [2]),
        ({"from-class": "public"}, [1]),
        ({"to-class": ["pod", "documentation"]}, [0, 1, 2]),
        ({"from-node": "node-1"}, [0, 2]),
        ({"to-node": "node-1"}, [1]),
    ],
)
def test_filters(asked: str, chosen: dict[str, Any], found: list[int]) -> None:
    """Each filter of the inventory finds the packets that it is about, in counts and in single packets."""
    with Reader(asked) as reader:
        condition = where(chosen, now=DAY, zone=UTC)
        rows = packets(reader, condition, 10, oldest_first=True).rows.dicts()
        assert [row["source_offset"] // 100 for row in rows] == found
        assert sum(row[1] for row in top(reader, "source", condition, 10).rows.rows) == len(found)


@pytest.mark.parametrize("chosen", [{"class": "alien"}, {"pod": ""}, {"to-service": "shop/"}, {"workload": ""}])
def test_unusable_values(chosen: dict[str, str]) -> None:
    """A value that a filter cannot use is refused with what was expected."""
    with pytest.raises(FilterError, match="expected"):
        where(chosen, now=DAY, zone=UTC)


def test_overview_in_one_scan(asked: str) -> None:
    """Several groupings at once count as each of them alone; hints show the values that exist."""
    with Reader(asked) as reader:
        condition = where({}, now=DAY, zone=UTC)
        totals, pods, sources = overview(reader, condition, [(), ("source_pod", "direction"), ("source_ip",)], 2)
        assert totals.rows == [(3, at(2), at(4.5))]
        assert (
            sorted(pods.rows, key=str)
            == sorted([("web-1", "egress", 1, at(2), at(2)), (None, "egress", 1, at(4.5), at(4.5))], key=str)
            or len(pods.rows) == 2
        )
        assert (sources.columns, len(sources.rows)) == (("source_ip", "packets", "first", "last"), 2)
        assert values(reader, "source_class", condition, 9).rows.rows == [("node", 1), ("pod", 1), ("public", 1)]


def test_timeline_fills_gaps(asked: str) -> None:
    """Empty stretches between the first and the last packet are there with 0, and each series has rows of its own."""
    with Reader(asked, zone="Asia/Kathmandu") as reader:
        condition = where({}, now=DAY, zone=ZoneInfo("Asia/Kathmandu"))
        assert [row[1] for row in timeline(reader, "30m", condition).rows.rows] == [1, 0, 1, 0, 0, 1]
        split = timeline(reader, "1h", condition, by="direction").rows
        assert (split.columns, [row[1:] for row in split.rows]) == (
            ("start", "series", "packets"), [("egress", 1), ("ingress", 1), (None, 0), ("egress", 1)]
        )  # fmt: skip


def test_new_packets_are_attributed_too(filled: Fill) -> None:
    """An open reader attributes packets and uses objects that came after its first question."""
    store = filled([leaving(2, "10.244.0.7")])
    with Reader(store) as reader:
        sql = "SELECT source_pod, source_class FROM denied ORDER BY source_offset"
        assert reader.rows(sql).rows == [(None, "private")]
        deposit(store, observe([pod("web-1", "10.244.0.7", 1)], at=at(3)))
        assert reader.rows(sql).rows == [("web-1", "pod")]
        with Writer(store) as writer:
            writer.commit(make_commit([leaving(2, "8.8.4.4", source_offset=500)]))
        assert reader.rows(sql).rows == [("web-1", "pod"), (None, "public")]
