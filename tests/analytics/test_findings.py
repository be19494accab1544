"""Findings: on the labelled sample day, at the edges of each rule, and as a person or a cron job asks for them.

Rule: packets are written into a real store; whoever is known is known from an inventory, as in a cluster.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from analytics import Commit, LossRow, Reader, Writer, engine
from analytics.filters import Where
from analytics.findings import Finding, findings, length
from analytics.findings_rules import RULE, RulesError, Settings, rules_markdown, settings, shown
from analytics.findings_store import compare, record
from analytics.guard import QueryError
from analytics.inbox import deposit
from analytics.inventory import observe
from analytics.store import StoreError
from cli import cli
from samples.cluster import CLEAN_DAYS, DAY
from tests.analytics.cluster import node
from tests.analytics.conftest import make_commit

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "samples"
START = datetime(2026, 11, 20, 12, tzinfo=UTC)
STRANGER = "203.0.113.9"
PORT = 40_000

Row = dict[str, Any]
Fill = Callable[[Iterable[Row]], str]


def attempt(second: float, **more: Any) -> Row:
    """One SYN from a stranger to a pod, from a source port of its own."""
    global PORT
    PORT = 32768 + (PORT - 32767) % 28_000
    known = {"time": START + timedelta(seconds=second), "source_ip": STRANGER, "source_port": PORT}
    return {**known, "destination_ip": "10.1.0.1", **more}


def from_pod(second: float, **more: Any) -> Row:
    """One SYN from a pod of which only the interface is known."""
    mine = {"source_ip": "10.1.0.7", "in_interface": "cali7777777777a", "out_interface": "eth0", "direction": "egress"}
    return attempt(second, **{**mine, **more})


def retried(rows: Iterable[Row]) -> list[Row]:
    """The same with each SYN sent four times."""
    return [{**row, "time": row["time"] + timedelta(seconds=later)} for row in rows for later in (0, 1, 3, 7)]


def shifted(rows: Iterable[Row], seconds: float) -> list[Row]:
    """The same so many seconds later."""
    return [{**row, "time": row["time"] + timedelta(seconds=seconds)} for row in rows]


def inside(rows: Iterable[Row]) -> list[Row]:
    """The same from a pod."""
    return [{**row, "source_ip": "10.1.0.7", "in_interface": "cali7777777777a"} for row in rows]


def find(
    store: str, chosen: Settings | None = None, since: datetime | None = None, until: datetime | None = None
) -> list[Finding]:
    """All findings of a store."""
    with Reader(store) as reader:
        return findings(reader, settings=chosen or Settings(), since=since, until=until)


def rules(store: str, chosen: Settings | None = None) -> list[str]:
    """The rules that found something."""
    return [finding.rule for finding in find(store, chosen)]


def pod_object(namespace: str, name: str, address: str, start: str = "2026-11-01T00:00:00Z") -> dict[str, Any]:
    """A pod of a Deployment, as kubectl prints it."""
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name.rsplit("-", 1)[0], "controller": True}
    hashed = {"pod-template-hash": name.rsplit("-", 2)[1]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "uid": name, "ownerReferences": [owner], "labels": hashed},
        "spec": {"nodeName": "node-1"},
        "status": {"podIPs": [{"ip": address}], "startTime": start, "phase": "Running"},
    }


# The labelled day.


def sample_store(folder: Path, *logs: str) -> str:
    """A store with sample logs and the inventory."""
    store = str(folder / "store")
    command = [sys.executable, str(ROOT / "cli.py"), "ingest", "--store", store, *(str(SAMPLES / log) for log in logs)]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    deposit(store, observe([json.loads((SAMPLES / "inventory.json").read_text())], at=DAY + timedelta(days=1)))
    return store


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with the clean days and the labelled one."""
    return sample_store(tmp_path_factory.mktemp("day"), "syslog.1.gz", "syslog")


def overlaps(label: dict[str, str], finding: Finding) -> bool:
    """Does the finding tell of this planted behaviour?"""
    first, last = datetime.fromisoformat(label["first"]), datetime.fromisoformat(label["last"])
    same = (finding.rule, finding.subject.name) == (label["rule"], label["subject"])
    return same and finding.first <= last and first <= finding.last


def test_every_planted_behaviour_is_found_and_nothing_else(day: str) -> None:
    """On the labelled day precision and recall are 1."""
    labels = json.loads((SAMPLES / "labels.json").read_text())
    found = find(day)
    told = [label for label in labels if any(overlaps(label, finding) for finding in found)]
    right = [finding for finding in found if any(overlaps(label, finding) for label in labels)]
    precision, recall = len(right) / len(found), len(told) / len(labels)
    sys.stdout.write(f"\n{len(labels)} planted, {len(found)} found: precision {precision:.2f}, recall {recall:.2f}\n")
    missed = [label for label in labels if label not in told]
    assert (precision, recall) == (1, 1), (missed, [f.title for f in found if f not in right])
    assert len(found) == len(labels)
    assert {label["rule"] for label in labels} == set(RULE)


def test_clean_days_give_no_finding(tmp_path: Path) -> None:
    """Days that hold what every cluster shows give nothing, with and without an inventory."""
    store = sample_store(tmp_path, "syslog.1.gz")
    assert find(store) == []
    with Reader(store) as reader:
        assert reader.rows("SELECT count(DISTINCT day) FROM packets").rows == [(CLEAN_DAYS,)]


def test_evidence_shows_the_packets(day: str) -> None:
    """The SQL of each finding gives exactly its packets; of a spike or a first time, also what came before."""
    with Reader(day) as reader:
        for finding in findings(reader):
            rows = reader.rows(finding.evidence)
            counted = "packets" in rows.columns
            shown = sum(row[rows.columns.index("packets")] for row in rows.rows) if counted else len(rows.rows)
            if finding.rule in ("spike", "first_seen"):
                assert shown > finding.packets, finding
            else:
                assert shown == finding.packets, finding


def test_technique_of_a_first_time_is_that_of_its_target(day: str) -> None:
    """A workload that tries an address outside for the first time does not move within the cluster."""
    assert [finding.technique for finding in find(day) if finding.rule == "first_seen"] == ["T1071"]


def test_node_is_named(filled: Fill) -> None:
    """Probes of a node that are denied are its finding, and the title says which node it is."""
    store = filled(steady(60, 60, source_ip="192.0.2.11", in_interface=None, destination_port=8080))
    deposit(store, observe([node("worker-1", "192.0.2.11")], at=START))
    [finding] = find(store)
    assert finding.title.startswith("node worker-1 (192.0.2.11) is denied tcp/8080 on 10.1.0.1: 60 attempts")
    assert finding.subject.name == "192.0.2.11"


def test_losses_make_lower_bounds(day: str) -> None:
    """Findings in whose time lines were lost on their node say so, others do not."""
    bounds = {finding.subject.name: finding.lower_bound for finding in find(day)}
    assert bounds["203.0.113.66"] == "net_ratelimit left out 37 lines"
    assert bounds["203.0.113.88"] is None


def test_period_chooses_findings_not_baselines(day: str) -> None:
    """--since chooses by the time of the packets; the spike is still compared with the days before."""
    since = DAY + timedelta(hours=18, minutes=30)
    found = {finding.rule for finding in find(day, since=since)}
    assert {"spike", "first_seen"} <= found
    assert "horizontal_sweep" not in found
    assert [f.rule for f in find(day, until=DAY + timedelta(minutes=5))] == []


def test_address_reuse(day: str) -> None:
    """The address that batch gave up at six is the runner's afterwards: the batch's finding has no line of it."""
    with Reader(day) as reader:
        rows = reader.rows(
            "SELECT source_workload, count(*) FROM denied WHERE source_ip = '198.51.100.27' AND time >= $day "
            "GROUP BY 1 ORDER BY 1",
            {"day": DAY},
        ).rows
    assert [name for name, _ in rows] == ["batch", "runner"]
    batch = next(finding for finding in find(day) if finding.subject.name == "shop/batch")
    assert batch.subject.addresses == ("198.51.100.27", "198.51.100.75")
    assert batch.ports == (53,)


# The edges of each rule: all cases are in one store, each forty days after the one before.


@dataclass(frozen=True)
class Edge:
    """Packets, the rules that have to find something in them (of `only`, or of all), and facts of the first finding."""

    name: str
    rows: list[Row]
    rules: list[str]
    only: tuple[str, ...] = tuple(RULE)
    facts: Row = field(default_factory=dict)


def ports(count: int, pause: float, make: Callable[..., Row] = attempt, **more: Any) -> list[Row]:
    """So many ports of one host, one after the other."""
    return [make(number * pause, destination_port=1 + number, **more) for number in range(count)]


def hosts(count: int, pause: float, **more: Any) -> list[Row]:
    """One port of so many hosts, one after the other."""
    return [attempt(number * pause, destination_ip=f"10.1.0.{number + 1}", **more) for number in range(count)]


def steady(count: int, pause: float, make: Callable[..., Row] = attempt, **more: Any) -> list[Row]:
    """So many attempts at one port."""
    return [make(number * pause, **more) for number in range(count)]


def beats(count: int, jitter: float) -> list[Row]:
    """Calls to a stranger every ten minutes, a share of it sooner or later."""
    late = [600 * jitter * (-1) ** (number * number // 3) for number in range(count)]
    return [from_pod(number * 600 + late[number], destination_ip="203.0.113.77") for number in range(count)]


def replies(port: int = 40_000, **more: Any) -> list[Row]:
    """Packets to two hundred ports that clients use."""
    return [attempt(number * 0.1, destination_port=port + number, **more) for number in range(200)]


PING = {
    "protocol": "icmp",
    "tcp_flags": None,
    "source_port": None,
    "destination_port": None,
    "icmp_id": 7,
    "icmp_seq": 1,
}
SCAN, SWEEP, CLIENT, OFFENDER, BEACON = (
    "vertical_scan", "horizontal_sweep", "misconfigured_client", "repeated_offender", "beaconing",
)  # fmt: skip
EDGES = (
    Edge("14 ports, each SYN four times", retried(ports(14, 19)), []),
    Edge("15 ports, each SYN four times", retried(ports(15, 19)), [SCAN], facts={"attempts": 15, "packets": 60}),
    Edge("24 ports in a day", ports(24, 900), [], (SCAN,)),
    Edge("25 ports in a day", ports(25, 900), [SCAN], (SCAN,)),
    Edge("25 ports in more than a day", ports(25, 3700), [], (SCAN,)),
    Edge("nmap -T2", ports(200, 0.4, source_port=54321), [SCAN], facts={"port_count": 200, "technique": "T1595.001"}),
    Edge("a pod tries 9 ports in a day", ports(9, 600, from_pod), []),
    Edge("a pod tries 10 ports in a day", ports(10, 600, from_pod), [SCAN], facts={"technique": "T1046"}),
    Edge(
        "a scanner looks who is there, then tries many ports of many hosts",
        hosts(40, 0.1, destination_port=443)
        + [row for port in range(1, 30) for row in hosts(40, 0.01 * port, destination_port=port)],
        [SCAN],
        facts={"target_count": 40},
    ),
    Edge("two runs within the cooldown", [*ports(20, 1), *shifted(ports(20, 1), 5400)], [SCAN], (SCAN,)),
    Edge("two runs", [*ports(20, 1), *shifted(ports(20, 1), 10800)], [SCAN, SCAN], (SCAN,)),
    Edge("many clients behind the address of a node", ports(99, 1, source_ip="192.0.2.11"), [SCAN]),
    Edge("SYN with ACK", replies(tcp_flags=["ACK", "SYN"], source_port=443), []),
    Edge("RST", replies(tcp_flags=["RST"], source_port=443), []),
    Edge("ACK from a server", replies(tcp_flags=["ACK"], source_port=443), []),
    Edge("late answers of a name server", replies(protocol="udp", tcp_flags=None, source_port=53), []),
    Edge("late answers to any port", replies(protocol="udp", tcp_flags=None, source_port=53, port=1024), []),
    Edge("what a node forgot of its connections", replies(tcp_flags=["ACK"], source_port=443, port=20_000), []),
    Edge("one port of 24 hosts", retried(hosts(24, 1, destination_port=22)), [], (SWEEP,)),
    Edge("one port of 25 hosts", retried(hosts(25, 1, destination_port=22)), [SWEEP], (SWEEP,)),
    Edge("pings of 39 hosts", hosts(39, 0, icmp_type=8, **PING), [SWEEP], facts={"target_count": 39}),
    Edge("answers to pings", hosts(39, 0, icmp_type=0, **PING), []),
    Edge(
        "a scraper tries the same thirty hosts again and again",
        [row for at in range(0, 3600, 60) for row in shifted(inside(hosts(30, 1, destination_port=9100)), at)],
        [CLIENT],
        facts={"target_count": 30, "attempts": 1800},
    ),
    Edge("14 attempts of a client", retried(steady(14, 150, from_pod)), []),
    Edge("15 attempts of a client", retried(steady(15, 150, from_pod)), [CLIENT], facts={"attempts": 15}),
    Edge("15 attempts of a client within five slots", retried(steady(15, 80, from_pod)), []),
    Edge("an hourly job", retried(steady(24, 3600, from_pod)), [CLIENT], facts={"attempts": 24}),
    Edge(
        "retries over the edge of a slot",
        shifted(retried(steady(14, 300, from_pod)), 296),
        [],
    ),
    Edge(
        "a client that starts over and tries its three services",
        [row for port in (5432, 6379, 9092) for row in steady(180, 40, from_pod, destination_port=port)],
        [CLIENT] * 3,
    ),
    Edge(
        "a pod that scans again and again",
        [r for n in range(8) for r in shifted(ports(59, 1, from_pod), n * 300)],
        [SCAN],
    ),
    Edge(
        "what a scanner did wrong before and elsewhere",
        steady(70, 100, from_pod, destination_ip="10.1.0.9", destination_port=5432)
        + shifted(ports(59, 1, from_pod), 7200),
        [CLIENT, SCAN],
    ),
    Edge("15 drops in 45 s", retried(steady(15, 3)), []),
    Edge("16 drops in 45 s", retried(steady(16, 3)), [OFFENDER]),
    Edge("15 visits", retried(steady(15, 300)), []),
    Edge("16 visits", retried(steady(16, 300)), [OFFENDER]),
    Edge("one slow visit", retried(steady(16, 15)), []),
    Edge("11 calls", retried(beats(11, 0.01)), []),
    Edge("12 calls", retried(beats(12, 0.01)), [BEACON], facts={"about": "203.0.113.77 tcp/443"}),
    Edge("40 irregular calls", retried(beats(40, 0.3)), [CLIENT]),
    Edge("a client that asks its database every minute", steady(120, 60, from_pod, destination_port=5432), [CLIENT]),
    Edge("what goes to all neighbours", steady(120, 60, from_pod, destination_ip="239.255.255.250"), [CLIENT]),
    Edge("names", steady(120, 60, from_pod, destination_ip="203.0.113.53", destination_port=53), [CLIENT]),
)
APART = timedelta(days=40)


@pytest.fixture(scope="module")
def edges(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Finding]]:
    """The findings of each case."""
    store = str(tmp_path_factory.mktemp("edges") / "store")
    rows = [row for n, edge in enumerate(EDGES) for row in shifted(edge.rows, n * APART.total_seconds())]
    with Writer(store, bulk=True) as writer:
        writer.commit(make_commit(rows))
    found: dict[str, list[Finding]] = {edge.name: [] for edge in EDGES}
    for finding in find(store):
        found[EDGES[(finding.first - START + timedelta(days=1)) // APART].name].append(finding)
    return found


@pytest.mark.parametrize("edge", EDGES, ids=lambda edge: edge.name)
def test_edge(edges: dict[str, list[Finding]], edge: Edge) -> None:
    """On either side of each threshold, and where two rules might both claim the same packets."""
    found = [finding for finding in edges[edge.name] if finding.rule in edge.only]
    assert sorted(finding.rule for finding in found) == sorted(edge.rules), [finding.title for finding in found]
    assert {name: getattr(found[0], name) for name in edge.facts} == edge.facts
    assert len({finding.id for finding in found}) == len(found)


def test_spread_scan_is_one_workload(filled: Fill) -> None:
    """Ten pods of one Deployment that try two ports each are one scan, by the workload."""
    pods = [(f"worker-6d4cf56db6-{number:05}", f"10.1.0.{10 + number}") for number in range(10)]
    store = filled(
        attempt(number * 5 + port, source_ip=address, in_interface="eth0", destination_port=1 + 2 * number + port)
        for number, (_, address) in enumerate(pods)
        for port in range(2)
    )
    assert rules(store) == []
    deposit(store, observe([pod_object("shop", name, address) for name, address in pods], at=START))
    [finding] = find(store)
    assert (finding.rule, finding.subject.kind, finding.subject.name) == ("vertical_scan", "workload", "shop/worker")
    assert (finding.port_count, len(finding.subject.addresses)) == (20, 10)


def crowd(day: int, count: int, node: str) -> Iterator[Row]:
    """So many strangers at the same quarter of an hour of a day, each once."""
    for number in range(count):
        source = f"203.0.113.{number % 250}"
        yield attempt(day * 86400 + number * 3, source_ip=source, destination_port=443, node=node)


@pytest.mark.parametrize(
    ("days", "nodes", "found"),
    [
        (3, {"too few": (49, 5), "enough": (50, 5), "as many before": (50, 17)}, ["enough"]),
        (2, {"two days": (50, 5)}, []),
        (0, {"no day": (200, 0)}, []),
    ],
)
def test_spike_edge(filled: Fill, days: int, nodes: dict[str, tuple[int, int]], found: list[str]) -> None:
    """Fifty attempts, thrice as many as on the earlier days, of which there have to be three."""
    rows = [
        row
        for node, (today, before) in nodes.items()
        for day in range(days + 1)
        for row in crowd(day, before if day < days else today, node)
    ]
    assert [(finding.rule, finding.subject.name) for finding in find(filled(rows))] == [("spike", n) for n in found]


@pytest.mark.parametrize(("days", "found"), [(4.9, []), (5.1, ["first_seen"])])
def test_first_seen_edge(filled: Fill, days: float, found: list[str]) -> None:
    """A workload that has been denied the same for five days and is now denied something else."""
    mine = {"source_ip": "10.1.0.7", "in_interface": "eth0", "out_interface": "eth0"}
    old = [attempt(number * 43_000, destination_port=123, **mine) for number in range(10)]
    new = [attempt(days * 86400, destination_ip="203.0.113.44", destination_port=4444, **mine)]
    store = filled(old + new)
    deposit(store, observe([pod_object("shop", "cart-6d4cf56db6-abcde", "10.1.0.7")], at=START))
    assert rules(store) == found


@pytest.mark.parametrize(("packets", "found"), [(2, []), (3, ["spoofed_source"])])
def test_spoofed_source_edge(filled: Fill, packets: int, found: list[str]) -> None:
    """Three packets with an address that is not the pod's; the finding names the pod that sent them."""
    known = pod_object("shop", "cart-6d4cf56db6-abcde", "10.1.0.7")
    interface = next(iter(observe([known], at=START).objects)).interface
    store = filled(attempt(number, source_ip="10.1.0.99", in_interface=interface) for number in range(packets))
    deposit(store, observe([known], at=START))
    assert [(f.rule, f.subject.name) for f in find(store)] == [(rule, "shop/cart") for rule in found]


def test_rate_limit_makes_lower_bounds(filled: Fill) -> None:
    """With Calico's limit given, a finding on a node that reached it says so."""
    store = filled(attempt(port * 0.01, destination_port=port) for port in range(1, 60))
    assert [finding.lower_bound for finding in find(store)] == [None]
    chosen = settings(rate_limit="10/second")
    assert ["10/second" in (finding.lower_bound or "") for finding in find(store, chosen)] == [True]


def test_loss_without_a_count(filled: Fill) -> None:
    """A loss that does not say how many lines is told as such."""
    store = filled(attempt(port, destination_port=port) for port in range(1, 60))
    loss = LossRow(START + timedelta(seconds=30), "node-1", "f00d", 1, "netfilter", None, "netfilter please increase")
    with Writer(store) as writer:
        writer.commit(Commit(losses=(loss, replace(loss, node="node-2", source="printk"))))
    assert [finding.lower_bound for finding in find(store)] == ["netfilter left out lines"]


# What it takes.


def test_nothing_is_left_in_the_reader(scanned: str) -> None:
    """Asking leaves no table behind, and asking again gives the same."""
    with Reader(scanned) as reader:
        told = [findings(reader) for _ in range(2)]
        kept = reader.rows("SELECT table_name FROM duckdb_tables() WHERE temporary AND table_name NOT LIKE 'known_%'")
    assert told[0] == told[1]
    assert kept.rows == []


def test_fewer_rules(day: str) -> None:
    """What is found for one rule alone is what is found for it beside the others."""
    everything = find(day)
    with Reader(day) as reader:
        for rule in RULE:
            alone = [finding for finding in everything if finding.rule == rule]
            assert findings(reader, rules=[rule, rule]) == alone


def test_no_packets_and_odd_times(filled: Fill) -> None:
    """A store without packets has no findings; packets of the first and the last years of the calendar do no harm."""
    assert find(filled([])) == []
    ends = [datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)]
    rows = [attempt(0, time=time, destination_port=port) for time in ends for port in range(1, 30)]
    assert [finding.rule for finding in find(filled(rows))] == ["vertical_scan"] * 2


def test_too_much_for_the_memory(scanned: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory and scratch space are not enough, the error says what to do, and the reader goes on."""
    monkeypatch.setattr(engine, "READ", engine.Limits(memory_mb=64, threads=1))
    hungry = Where("(SELECT len(list(range)) FROM range(100_000_000)) > 0")
    with Reader(scanned) as reader:
        with pytest.raises(StoreError, match="--since, --until, --rule") as caught:
            findings(reader, hungry)
        assert caught.value.retryable
        assert len(findings(reader)) == 1


def test_interrupt(scanned: str) -> None:
    """Another thread can end the search, and the reader can be asked again."""
    endless = Where("(SELECT sum(a.range * b.range) FROM range(10_000_000) a, range(1_000_000) b) > 0")
    with Reader(scanned) as reader, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(findings, reader, endless)
        # One interrupt alone might come between two statements.
        while not answer.done():
            reader.interrupt()
            wait([answer], 0.5)
        assert isinstance(answer.exception(), QueryError)
        assert len(findings(reader)) == 1


# Settings.


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with one scan of 59 ports, which no test changes."""
    store = str(tmp_path_factory.mktemp("scanned") / "store")
    with Writer(store) as writer:
        writer.commit(make_commit(attempt(port, destination_port=port) for port in range(1, 60)))
    return store


@pytest.mark.parametrize(
    "mute",
    [STRANGER, "203.0.113.0/24", f"vertical_scan:{STRANGER}", "horizontal_sweep:203.0.113.0/24", "workload=shop/x"],
)
def test_mute(scanned: str, mute: str) -> None:
    """A muted source is passed over, by every rule or by the one that is named."""
    heard = mute.startswith(("horizontal", "workload"))
    assert ("vertical_scan" in rules(scanned, settings(mutes=[mute]))) == heard


def test_mute_of_a_workload(filled: Fill) -> None:
    """Namespaces and workloads are muted by name."""
    rows = [attempt(second, source_ip="10.1.0.7", in_interface="eth0") for second in range(0, 7200, 60)]
    store = filled(rows)
    deposit(store, observe([pod_object("shop", "cart-6d4cf56db6-abcde", "10.1.0.7")], at=START))
    assert rules(store) == ["misconfigured_client"]
    for mute in ("namespace=shop", "workload=shop/cart", "misconfigured_client:namespace=shop", "10.1.0.0/24"):
        assert rules(store, settings(mutes=[mute])) == []
    assert rules(store, settings(mutes=["namespace=other"])) == ["misconfigured_client"]


def test_thresholds_can_be_set(filled: Fill) -> None:
    """A changed threshold and severity are in force."""
    store = filled(attempt(port, destination_port=port) for port in range(1, 6))
    chosen = settings(["vertical_scan.ports=5", "vertical_scan.severity=critical"])
    assert [(finding.rule, finding.severity) for finding in find(store, chosen)] == [("vertical_scan", "critical")]


def test_toml() -> None:
    """A file sets what flags set, and flags win."""
    text = 'mute = ["192.0.2.9"]\nrate_limit = "5/minute"\n[spike]\nfactor = 5\nhistory = "14d"\n'
    text += 'mute = ["namespace=load"]\n'
    found = settings(["spike.factor=7"], [], "rules.toml", text)
    assert found.values["spike"]["factor"] == 7
    assert found.values["spike"]["history"] == timedelta(days=14)
    assert [(mute.rule, mute.value) for mute in found.mutes] == [(None, "192.0.2.9/32"), ("spike", "load")]
    assert found.rate_limit == "5/minute"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"assignments": ["vertcal_scan.ports=2"]}, "did you mean 'vertical_scan'"),
        ({"assignments": ["vertical_scan.prots=2"]}, "did you mean 'ports'"),
        ({"assignments": ["ports=2"]}, "expected RULE.NAME=VALUE"),
        ({"assignments": ["spike.factor=0"]}, "a whole number from 1 on"),
        ({"assignments": ["spike.factor=2.5"]}, "a whole number from 1 on"),
        ({"assignments": ["spike.history=fast"]}, "a length of time"),
        ({"assignments": ["beaconing.regularity=2"]}, "above 0, at most 1"),
        ({"assignments": ["beaconing.ignore_ports=x"]}, "ports with commas"),
        ({"assignments": ["spike.severity=hihg"]}, "did you mean 'high'"),
        ({"mutes": ["vertcal_scan:10.0.0.0/8"]}, "did you mean 'vertical_scan'"),
        ({"mutes": ["namespce=x"]}, "did you mean 'namespace'"),
        ({"mutes": ["10.0.0.0/99"]}, "a CIDR"),
        ({"mutes": ["workload=web"]}, "workload=NAMESPACE/NAME"),
        ({"rate_limit": "lots"}, "10/second"),
        ({"file": "f.toml", "text": "[spikes]\nfactor = 1"}, "f.toml: there is no rule 'spikes'; did you mean 'spike'"),
        ({"file": "f.toml", "text": "spike = 3"}, "expected a table"),
        ({"file": "f.toml", "text": "mute = 3"}, "expected a list of texts"),
        ({"file": "f.toml", "text": "spike = "}, "f.toml: is no TOML"),
        ({"file": "f.toml", "text": "[spike]\nhistory = 7"}, "a length of time"),
        ({"file": "f.toml", "text": "[beaconing]\nregularity = true"}, "above 0"),
    ],
)
def test_wrong_settings(words: dict[str, Any], says: str) -> None:
    """What nobody knows is an error that names the nearest; what cannot be read says what was expected."""
    with pytest.raises(RulesError) as caught:
        settings(**words)
    assert says in str(caught.value)


def test_documented_table() -> None:
    """docs/findings.md has the table of rules and thresholds as it is."""
    assert rules_markdown() in (ROOT / "docs" / "findings.md").read_text()


def test_defaults_can_be_written_back() -> None:
    """What is shown of a threshold is what --set takes."""
    for rule in RULE.values():
        for threshold in rule.thresholds:
            found = settings([f"{rule.name}.{threshold.name}={shown(threshold.default)}"])
            assert found.values[rule.name][threshold.name] == threshold.default


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "1 second"), (59.5, "1 minute"), (61, "2 minutes"), (86400, "1 day")]
)
def test_length(seconds: float, said: str) -> None:
    """Lengths are rounded up to one unit."""
    assert length(timedelta(seconds=seconds)) == said


# Recorded findings.


def test_recorded_findings_are_not_new(filled: Fill) -> None:
    """A recorded finding that goes on keeps its id and is not new; after its cooldown there is a new one."""
    runs = [attempt(port, destination_port=port) for port in range(1, 30)]
    store = filled(runs)
    with Reader(store) as reader:
        [finding] = compare(reader, findings(reader), Settings()).recorded
    record(store, [finding], UTC)
    goes_on = replace(
        finding, id="other", first=finding.first + timedelta(minutes=1), last=finding.last + timedelta(hours=1)
    )
    later = replace(
        finding, id="other", first=finding.last + timedelta(hours=3), last=finding.last + timedelta(hours=4)
    )
    longer = replace(goes_on, last=finding.last + timedelta(hours=9))
    with Reader(store) as reader:
        assert reader.rows("SELECT id, rule, subject->>'name' FROM findings").rows == [
            (finding.id, "vertical_scan", STRANGER)
        ]
        compared = [compare(reader, [one], Settings()) for one in (finding, goes_on, later, longer)]
    assert [len(one.new) for one in compared] == [0, 0, 1, 0]
    assert [len(one.recorded) for one in compared] == [0, 0, 1, 1]
    assert [one.all[0].id for one in compared] == [finding.id, finding.id, "other", finding.id]


# The command.


def run(store: str, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """`denylog findings`, in UTC, in a process of its own."""
    command = [sys.executable, str(ROOT / "cli.py"), "findings", "--store", store, *words]
    environment = {**os.environ, "TZ": "UTC"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False, **options)


def within(store: str, *words: str) -> Result:
    """The same within this process."""
    return CliRunner().invoke(cli, ["findings", "--utc", "--store", store, *words])


def test_command(scanned: str) -> None:
    """Exit code 1 and every field as JSON where there are findings; 0 and an empty list where there are none."""
    found = run(scanned, "-o", "json")
    [finding] = json.loads(found.stdout)
    assert (found.returncode, found.stderr) == (1, "")
    assert (finding["rule"], finding["severity"], finding["subject"]["name"]) == ("vertical_scan", "high", STRANGER)
    assert finding["first"] == "2026-11-20T12:00:01+00:00"
    assert set(finding) >= {"id", "title", "technique", "lower_bound", "evidence", "ports", "port_count"}
    for words in (
        ("--rule", "spike"),
        ("--severity", "critical"),
        ("--since", "2026-11-20T13:00"),
        ("--from-ip", "192.0.2.1"),
    ):
        none = within(scanned, "-o", "json", *words)
        assert (none.exit_code, json.loads(none.stdout)) == (0, [])
    assert json.loads(within(scanned, "-o", "json", "--from-ip", STRANGER).stdout) == [finding]
    assert "203.0.113.9 tried 59 ports of 10.1.0.1" in within(scanned).stdout
    assert len(within(scanned, "-o", "csv").stdout.splitlines()) == 2


def test_command_records(filled: Fill) -> None:
    """--new --record tells each finding once, as a cron job wants it."""
    store = filled(attempt(port, destination_port=port) for port in range(1, 30))
    assert [within(store, "--new", "--record").exit_code for _ in range(2)] == [1, 0]
    assert within(store).exit_code == 1


def test_command_records_while_a_collector_writes(filled: Fill) -> None:
    """With the store held by another process the findings wait in its inbox, and are taken in once."""
    store = filled(attempt(port, destination_port=port) for port in range(1, 30))
    with Writer(store) as writer:
        found = run(store, "--record")
        assert (found.returncode, "once the process that holds the store takes them in" in found.stderr) == (1, True)
        assert writer.take_in() == 1
    assert within(store, "--new").exit_code == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--set", "vertical.ports=3"), "did you mean 'vertical_scan'"),
        (("--since", "yesterday"), "--since 'yesterday'"),
        (("--rules", "/no/such/file"), "/no/such/file"),
        (("--rules", str(ROOT / "samples" / "syslog.1.gz")), "UTF-8"),
        (("--rules", str(ROOT / "README.md")), "is no TOML"),
    ],
)
def test_command_wrong_words(shared: str, words: tuple[str, ...], says: str) -> None:
    """What a caller got wrong is one sentence and exit code 2."""
    found = run(shared, *words)
    assert (found.returncode, found.stdout) == (2, "")
    assert says in found.stderr
    assert "Traceback" not in found.stderr
