"""`inventory watch`: a cluster's lists and watches become versions of objects. The API server is a stand-in."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest

from analytics import Reader, Writer
from analytics.inventory import objects_at
from collector import cluster as following
from collector.cluster import Tally, watch
from collector.cluster_follower import Cadence, Pauses
from collector.cluster_owners import Owners
from policies.cluster_source import LiveCluster
from policies.errors import ClusterError
from policies.kube import Cluster
from policies.resources import OWNERS, STORED
from tests.policies.apiserver import ApiServer

ROOT = Path(__file__).parents[2]
KINDS = len([each for each in following.WATCHED if each.group != STORED])
"""A cluster that serves both of Calico's groups is watched by one of them."""
QUICK = Cadence(batch_s=0.2, discover_s=600, first_pause_s=0.02, longest_pause_s=0.1)
PATIENCE_S = 120


def _pod(name: str, address: str = "", **more: Any) -> dict[str, Any]:
    status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]} if address else {"phase": "Pending"}
    metadata = {"name": name, "namespace": "shop", "labels": {"app": name.partition("-")[0]}}
    spec = {"nodeName": "worker-1", "containers": [{"name": "main", "image": "registry.example/app:1"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status | more}


def _policy(name: str, order: int) -> dict[str, Any]:
    spec = {"order": order, "selector": "app == 'web'", "types": ["Ingress"]}
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": spec,
    }


NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "worker-1"},
    "spec": {"podCIDR": "10.0.0.0/24"},
    "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]},
}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiServer]:
    with ApiServer(bookmark_s=1) as server:
        server.kubeconfig(tmp_path / "config", "reader")
        server.put(NODE, _pod("web-1", "10.0.0.1"))
        yield server


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ApiServer, str]]:
    """A cluster that is watched, and the store; for tests that only change objects of their own names."""
    folder = tmp_path_factory.mktemp("running")
    with ApiServer(bookmark_s=0.2) as server:
        server.kubeconfig(folder / "config", "reader")
        server.put(NODE)
        with watching(server, folder, str(folder / "store")):
            yield server, str(folder / "store")


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "store")


@contextmanager
def watching(api: ApiServer, tmp_path: Path, store: str, cadence: Cadence = QUICK) -> Iterator[Tally]:
    """The watch runs in a thread; on the way out it is stopped, and what it raised is raised here."""
    stop, ready, ended = threading.Event(), threading.Event(), []
    live = LiveCluster(None, str(tmp_path / "config"))
    tally = Tally()

    def run() -> None:
        try:
            done = watch(live, store, stop, cadence=cadence, ready=lambda resources: ready.set())
            tally.deposits, tally.rows, tally.queued = done.deposits, done.rows, done.queued
        except BaseException as error:
            ended.append(error)
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(PATIENCE_S)
        yield tally
    finally:
        stop.set()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    if ended:
        raise ended[0]


def rows(store: str, sql: str) -> list[Any]:
    with Reader(store) as reader:
        return list(reader.rows(sql).rows)


def until(store: str, sql: str, holds: Callable[[list[Any]], bool]) -> list[Any]:
    """Ask until the answer is as expected."""
    end = time.monotonic() + PATIENCE_S
    with Reader(store) as reader:
        while not holds(found := list(reader.rows(sql).rows)):
            assert time.monotonic() < end, found
            time.sleep(0.3)
    return found


def _is(count: int) -> Callable[[list[Any]], bool]:
    return lambda found: found == [(count,)]


HOLDERS = """
SELECT pod, valid_from, valid_until FROM address_intervals WHERE address = '10.0.3.1' AND pod IS NOT NULL
ORDER BY valid_from
"""
NAMED = """
SELECT uid, addresses, valid_from, valid_until FROM object_intervals WHERE kind = 'Pod' AND name = 'db-0'
ORDER BY valid_from
"""
COUNT = "SELECT name FROM object_intervals WHERE kind = 'Pod' AND valid_until IS NULL ORDER BY name"


def test_once_stores_what_a_dump_says(api: ApiServer, tmp_path: Path, store: str) -> None:
    """The same versions as `inventory import` of the same objects; a second run stores nothing new."""
    api.put(_policy("web", 100), {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    live = LiveCluster(None, str(tmp_path / "config"))
    assert watch(live, store, threading.Event(), once=True).rows == 4
    assert watch(live, store, threading.Event(), once=True).rows == 0
    dump = {
        "apiVersion": "v1",
        "kind": "List",
        "items": [each for held in api.objects.values() for each in held.values()],
    }
    (tmp_path / "dump.json").write_text(json.dumps(dump))
    other = str(tmp_path / "other")
    _cli("inventory", "import", "--store", other, str(tmp_path / "dump.json"))
    compared = "SELECT kind, namespace, name, uid, addresses, networks, body FROM object_intervals ORDER BY ALL"
    assert rows(store, compared) == rows(other, compared)


def test_a_pod_replaced_under_its_address_ends_in_two_intervals(running: tuple[ApiServer, str]) -> None:
    """The first ends where it was deleted, the second begins no earlier, and each moment has one holder."""
    api, store = running
    api.put(_pod("old-1", "10.0.3.1"), _pod("new-1"))
    time.sleep(1.1)  # API times have whole seconds
    api.remove("Pod", "old-1", "shop")
    api.put(_pod("new-1", "10.0.3.1", startTime=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")))
    first, second = until(store, HOLDERS, lambda found: len(found) == 2)
    assert (first[0], second[0]) == ("old-1", "new-1")
    assert first[2] <= second[1]


def test_the_same_name_with_another_uid_is_another_pod(running: tuple[ApiServer, str]) -> None:
    """A StatefulSet's pod that moved: deleted and made again, with another address."""
    api, store = running
    api.put(_pod("db-0", "10.0.4.1"))
    time.sleep(1.1)
    api.remove("Pod", "db-0", "shop")
    api.put(_pod("db-0", "10.0.4.2"))
    first, second = until(store, NAMED, lambda found: len(found) == 2)
    assert (list(first[1]), list(second[1])) == (["10.0.4.1"], ["10.0.4.2"])
    assert first[0] != second[0]
    assert first[3] is not None
    assert first[3] <= second[2]
    assert second[3] is None


@pytest.mark.parametrize("as_status", [False, True])
def test_an_expired_version_begins_with_a_new_list(api: ApiServer, tmp_path: Path, store: str, as_status: bool) -> None:
    """410 Gone, as an event or as an answer: what happened meanwhile is found, also what was deleted."""
    api.gone_as_status = as_status
    api.put(_pod("db-1", "10.0.0.5"))
    with watching(api, tmp_path, store):
        with api.changed:  # nobody hears of this: the history is gone before the watch comes back
            api.generation += 1
            api.remove("Pod", "web-1", "shop")
            api.put(_pod("cache-1", "10.0.0.6"))
            api.compact()
        assert until(store, COUNT, lambda found: len(found) == 2 and found[0][0] == "cache-1") == [
            ("cache-1",),
            ("db-1",),
        ]
        api.put(_pod("new-1", "10.0.0.7"))
        until(store, COUNT, lambda found: ("new-1",) in found)
    assert len([request for request in api.requests if request.startswith("GET /api/v1/pods?limit")]) == 2


def test_the_first_list_comes_from_memory_and_a_later_one_does_not(api: ApiServer, tmp_path: Path, store: str) -> None:
    """resourceVersion=0 spares etcd, but may be older than what was seen; so after 410 Gone it is pages of etcd's."""
    api.put(*(_pod(f"p{n}-1", f"10.8.{n // 250}.{n % 250 + 1}") for n in range(600)))
    with watching(api, tmp_path, store):
        until(store, "SELECT count(*) FROM objects WHERE kind = 'Pod'", _is(601))
        with api.changed:
            api.generation += 1
            api.remove("Pod", "web-1", "shop")
            api.compact()
        until(store, "SELECT count(*) FROM objects WHERE kind = 'Pod' AND gone", _is(1))
    lists = [each for each in api.requests if each.startswith("GET /api/v1/pods?limit")]
    assert lists[:2] == ["GET /api/v1/pods?limit=500&resourceVersion=0", "GET /api/v1/pods?limit=500"]
    assert [each.partition("&")[2].startswith("continue=") for each in lists[2:]] == [True]
    firsts = {each.partition("?")[0]: each for each in reversed(api.requests) if "?limit=" in each}
    assert all(each.endswith("?limit=500&resourceVersion=0") for each in firsts.values())
    assert len(firsts) == KINDS + len(OWNERS)


class Turned(LiveCluster):
    """A cluster that lets nobody in and remembers when it was asked."""

    times: ClassVar[list[float]] = []

    def connect(self) -> Cluster:
        self.times.append(time.monotonic())
        raise ClusterError("cluster", "does not let you in")


def test_many_that_start_together_are_spread(tmp_path: Path) -> None:
    """With --spread each begins at a moment of its own; SIGTERM ends also one that has not begun."""
    stop = threading.Event()

    def run() -> None:
        with pytest.raises(ClusterError):
            watch(Turned(), str(tmp_path / "store"), stop, spread_s=2)

    threads = [threading.Thread(target=run) for _ in range(12)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(PATIENCE_S)
    assert len(Turned.times) == 12
    assert 0.5 < max(Turned.times) - min(Turned.times) < 2.5
    stop.set()
    began = time.monotonic()
    assert watch(Turned(), str(tmp_path / "store"), stop, spread_s=3600) == Tally()
    assert time.monotonic() - began < 5


def test_watches_that_break_together_come_back_apart(api: ApiServer, tmp_path: Path, store: str) -> None:
    """An API server that restarts breaks every watch; none comes back at once, and not all at the same moment."""
    cadence = Cadence(batch_s=0.2)
    with watching(api, tmp_path, store, cadence):
        _watched(api, KINDS)
        dropped = time.monotonic()
        api.drop()
        _watched(api, 2 * KINDS)
    back = [
        at - dropped for at, each in zip(api.times, api.requests, strict=True) if "watch=true" in each and at > dropped
    ]
    assert min(back) > 0.4
    assert max(back) - min(back) > 0.3
    seconds = {int(each.partition("timeoutSeconds=")[2].partition("&")[0]) for each in api.requests if "watch=" in each}
    assert len(seconds) > 10
    assert seconds <= set(range(200, 291))


def _watched(api: ApiServer, number: int) -> None:
    end = time.monotonic() + PATIENCE_S
    while len([each for each in api.requests if "watch=true" in each]) < number:
        assert time.monotonic() < end, api.requests
        time.sleep(0.05)


def test_a_broken_connection_is_taken_up_where_it_ended(running: tuple[ApiServer, str]) -> None:
    """Ten breaks in the middle of the stream, with changes around each: nothing is missed, nothing is listed again."""
    api, store = running
    for number in range(10):
        api.put(_pod(f"before-{number}", f"10.0.1.{number}"))
        api.drop()
        api.put(_pod(f"behind-{number}", f"10.0.2.{number}"))
    until(store, "SELECT count(*) FROM objects WHERE kind = 'Pod' AND name LIKE 'be%-_'", _is(20))
    assert len([request for request in api.requests if request.startswith("GET /api/v1/pods?limit")]) == 1


def test_a_restart_finds_what_it_missed(api: ApiServer, tmp_path: Path, store: str) -> None:
    """What was deleted while nobody watched is gone, what stayed is not stored again."""
    api.put(_pod("db-1", "10.0.0.5"))
    with watching(api, tmp_path, store):
        pass
    api.remove("Pod", "web-1", "shop")
    api.put(_pod("cache-1", "10.0.0.6"))
    with watching(api, tmp_path, store):
        until(store, COUNT, lambda found: found == [("cache-1",), ("db-1",)])
    assert rows(store, "SELECT name, gone FROM objects WHERE kind = 'Pod' ORDER BY name, gone") == [
        ("cache-1", False), ("db-1", False), ("web-1", False), ("web-1", True),
    ]  # fmt: skip


def test_what_says_nothing_new_is_not_stored(running: tuple[ApiServer, str]) -> None:
    """The heartbeats of nodes and the conditions of pods change all the time."""
    api, store = running
    for number in range(20):
        api.put(_pod("calm-1", "10.0.5.1", conditions=[{"type": "Ready", "lastProbeTime": str(number)}]))
        api.put(NODE | {"status": {**NODE["status"], "conditions": [{"type": "Ready", "n": number}]}})
    api.put(_pod("calm-2", "10.0.5.2"))
    versions = "SELECT count(*) FROM objects WHERE kind = 'Node' OR name LIKE 'calm%'"
    until(store, "SELECT count(*) FROM objects WHERE name = 'calm-2'", _is(1))
    assert rows(store, versions) == [(3,)]


def test_policies_of_a_time_can_be_had_again(running: tuple[ApiServer, str]) -> None:
    """A snapshot is the objects of a moment: before the change, after it, after the end."""
    api, store = running

    def orders(at: datetime) -> list[Any]:
        with Reader(store) as reader:
            return [each["spec"]["order"] for each in objects_at(reader, at, ["NetworkPolicy"])]

    seen = []
    for order in (100, 200):
        api.put(_policy("web", order))
        until(store, "SELECT count(*) FROM objects WHERE kind = 'NetworkPolicy'", _is(len(seen) + 1))
        seen.append(datetime.now(UTC))
        time.sleep(1.1)
    api.remove("NetworkPolicy", "web", "shop")
    until(store, "SELECT count(*) FROM objects WHERE kind = 'NetworkPolicy' AND gone", _is(1))
    assert [orders(at) for at in seen] == [[100], [200]]
    assert orders(datetime.now(UTC) + timedelta(seconds=1)) == []


def test_a_store_that_is_held_gets_the_changes_too(api: ApiServer, tmp_path: Path, store: str) -> None:
    """They wait in its inbox until the holder takes them in."""
    with Writer(store) as writer:
        with watching(api, tmp_path, store) as tally:
            api.put(_pod("db-1", "10.0.0.5"))
            end = time.monotonic() + PATIENCE_S
            taken = 0
            while taken < 3:
                taken += writer.take_in()
                assert time.monotonic() < end
                time.sleep(0.05)
        assert tally.queued == tally.rows == 3
    assert rows(store, COUNT) == [("db-1",), ("web-1",)]


def test_an_api_that_goes_away_takes_its_objects_along(api: ApiServer, tmp_path: Path, store: str) -> None:
    """Calico's API server is removed: its storage is watched instead, and no policy is there twice."""
    stored = _policy("default.web", 100) | {"apiVersion": "crd.projectcalico.org/v1"}
    api.put(_policy("web", 100), stored)
    versions = "SELECT api_version FROM object_intervals WHERE kind = 'NetworkPolicy' AND valid_until IS NULL"
    cadence = Cadence(batch_s=0.05, discover_s=0.2, first_pause_s=0.02, longest_pause_s=0.1)
    with watching(api, tmp_path, store, cadence):
        until(store, versions, lambda found: found == [("projectcalico.org/v3",)])
        api.served -= {"projectcalico.org/v3"}
        until(store, versions, lambda found: found == [("crd.projectcalico.org/v1",)])


def test_a_cluster_that_is_not_there_yet_is_waited_for(
    tmp_path: Path, store: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The API server starts after the watch, which has said once that it waits; with --once there is no waiting."""
    with ApiServer() as gone:
        port = gone.port
        gone.kubeconfig(tmp_path / "config", "reader")
    live = LiveCluster(None, str(tmp_path / "config"))
    with pytest.raises(ClusterError, match="cannot be reached"):
        watch(live, store, threading.Event(), once=True)
    stop, ready = threading.Event(), threading.Event()
    waiting = threading.Thread(
        target=watch, args=(live, store, stop), kwargs={"cadence": QUICK, "ready": lambda resources: ready.set()}
    )
    waiting.start()
    _heard(caplog, "cannot be reached")
    with ApiServer(port=port) as late:
        late.put(_pod("web-1", "10.0.0.1"))
        assert ready.wait(PATIENCE_S)
        until(store, COUNT, lambda found: found == [("web-1",)])
        stop.set()
        waiting.join(PATIENCE_S)
    assert ["cannot be reached" in message for message in caplog.messages] == [True, False], caplog.messages


def test_what_no_waiting_mends_ends_the_watch(api: ApiServer, tmp_path: Path, store: str) -> None:
    """A resource that may not be listed; one that may no longer be watched later is only told."""
    api.forbidden.add(("list", "pods"))
    with pytest.raises(ClusterError, match="does not let you list pods"), watching(api, tmp_path, store):
        pass


def test_rights_that_are_taken_away_for_a_while_are_waited_for(
    running: tuple[ApiServer, str], caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, and once more when it works again."""
    api, store = running
    api.forbidden.add(("watch", "pods"))
    api.drop()
    api.put(_pod("late-1", "10.0.6.1"))
    _heard(caplog, "does not let you watch pods")
    api.forbidden.clear()
    until(store, "SELECT count(*) FROM objects WHERE name = 'late-1'", _is(1))
    _heard(caplog, "is watched again")
    assert len(caplog.messages) == 2, caplog.messages


def _made(kind: str, name: str, owner: tuple[str, str] | None = None) -> dict[str, Any]:
    """A ReplicaSet or Job, made by its owner if it has one."""
    metadata: dict[str, Any] = {"name": name, "namespace": "shop"}
    if owner:
        metadata["ownerReferences"] = [{"apiVersion": "x/v1", "kind": owner[0], "name": owner[1], "controller": True}]
    version = {"ReplicaSet": "apps/v1", "Job": "batch/v1"}[kind]
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": {"template": "large"}}


def _owned(name: str, address: str, maker: dict[str, Any], labels: dict[str, str] | None = None) -> dict[str, Any]:
    pod = _pod(name, address)
    reference = {"apiVersion": maker["apiVersion"], "kind": maker["kind"], "name": maker["metadata"]["name"]}
    pod["metadata"] |= {"ownerReferences": [reference | {"controller": True}], "labels": labels or {}}
    return pod


WORKLOADS = (
    "SELECT name, workload_kind, workload FROM object_intervals WHERE kind = 'Pod' AND name <> 'web-1' ORDER BY 1"
)
HASH = {"pod-template-hash": "7d4b"}
OWNED = _made("ReplicaSet", "shop-7d4b", ("Deployment", "front"))
ORPHAN = _made("ReplicaSet", "web-7d4b")
NIGHTLY = _made("Job", "report-29012345", ("CronJob", "report"))
ONCE = _made("Job", "import-29012345")


def _pods_of_all() -> list[dict[str, Any]]:
    pairs = ((OWNED, HASH), (ORPHAN, HASH), (NIGHTLY, None), (ONCE, None))
    return [_owned(f"p{n}", f"10.7.0.{n}", maker, labels) for n, (maker, labels) in enumerate(pairs, 1)]


def test_workloads_are_what_the_owners_say(api: ApiServer, tmp_path: Path, store: str) -> None:
    """Deployments and CronJobs from ReplicaSets and Jobs, listed at the start, asked for one by one, once, later."""
    api.put(OWNED, ORPHAN, NIGHTLY, *_pods_of_all()[:3])
    with watching(api, tmp_path, store):
        api.put(ONCE)
        api.put(_pods_of_all()[3], _owned("p5", "10.7.0.5", ONCE), _owned("p6", "10.7.0.6", OWNED, HASH))
        found = until(store, WORKLOADS, lambda found: len(found) == 6)
    assert found == [
        ("p1", "Deployment", "front"),
        ("p2", "ReplicaSet", "web-7d4b"),
        ("p3", "CronJob", "report"),
        ("p4", "Job", "import-29012345"),
        ("p5", "Job", "import-29012345"),
        ("p6", "Deployment", "front"),
    ]
    asked = [each for each in api.requests if "/replicasets" in each or "/jobs" in each]
    assert asked == [
        "GET /apis/apps/v1/replicasets?limit=500&resourceVersion=0",
        "GET /apis/batch/v1/jobs?limit=500&resourceVersion=0",
        "GET /apis/batch/v1/namespaces/shop/jobs/import-29012345",
    ]


def test_a_cluster_that_keeps_owners_to_itself_is_watched_all_the_same(
    api: ApiServer, tmp_path: Path, store: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One sentence, one request for each kind, and the workloads that the names of the pods tell."""
    api.forbidden |= {(verb, plural) for verb in ("get", "list") for plural in ("replicasets", "jobs")}
    api.put(OWNED, ORPHAN, NIGHTLY, ONCE, *_pods_of_all()[:2])
    with watching(api, tmp_path, store):
        api.put(*_pods_of_all()[2:])
        found = until(store, WORKLOADS, lambda found: len(found) == 4)
    assert [row[1:] for row in found] == [
        ("Deployment", "shop"),
        ("Deployment", "web"),
        ("CronJob", "report"),
        ("CronJob", "import"),
    ]
    assert len([each for each in api.requests if "/replicasets" in each or "/jobs" in each]) == 2
    assert caplog.messages == [
        "cluster test: no right to read replicasets.apps and jobs.batch, so pods' names tell their workloads; "
        "ask for the verbs get and list"
    ]


def test_a_cluster_without_such_apis_says_nothing(
    api: ApiServer, tmp_path: Path, store: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where nothing makes pods there is nothing to complain about; an owner that is gone already is asked for once."""
    api.served -= {"apps/v1"}
    api.put(_pods_of_all()[0], _owned("p2", "10.7.0.2", ONCE), _owned("p3", "10.7.0.3", ONCE))
    live = LiveCluster(None, str(tmp_path / "config"))
    watch(live, store, threading.Event(), once=True)
    assert [row[1:] for row in rows(store, WORKLOADS)] == [("Deployment", "shop"), *[("CronJob", "import")] * 2]
    assert len([each for each in api.requests if each.endswith("/jobs/import-29012345")]) == 1
    assert caplog.messages == []


def test_a_list_without_owners_does_not_become_thousands_of_questions(api: ApiServer, tmp_path: Path) -> None:
    """A few new ones are asked for; where a page of pods has many that no list had, their names will do."""
    made = [_made("ReplicaSet", f"r{n}", ("Deployment", "d")) for n in range(30)]
    api.put(*made)
    pods = [_owned(f"p{n}", f"10.7.0.{n}", each, HASH) for n, each in enumerate(made)]
    with LiveCluster(None, str(tmp_path / "config")).connect() as cluster:
        owners = Owners()
        assert owners.of(cluster, pods) == []
        assert api.requests == []
        assert len(owners.of(cluster, pods[:20])) == 20
        assert len(owners.of(cluster, pods)) == 30
        assert len(owners.of(cluster, pods)) == len(api.requests) == 30


def _heard(caplog: pytest.LogCaptureFixture, text: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not any(text in message for message in caplog.messages):
        assert time.monotonic() < end, caplog.messages
        time.sleep(0.05)


def test_pauses_grow_to_a_limit_and_differ() -> None:
    """Twice as long each time, up to half as much more or less, so that many clients do not come at once."""
    pauses = Pauses(Cadence(first_pause_s=1, longest_pause_s=8))
    random.seed(1)
    waits = [pauses.longer() for _ in range(50)]
    assert all(0.5 * wanted <= wait <= 1.5 * wanted for wait, wanted in zip(waits, [1, 2, 4] + [8] * 47, strict=True))
    assert len(set(waits)) == 50
    pauses.reset()
    assert pauses.longer() <= 1.5


def _cli(*arguments: str, **given: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, **given
    )


def test_sigterm_stores_what_was_seen_and_ends(api: ApiServer, tmp_path: Path, store: str) -> None:
    """Soon, with exit code 0, although its watches would last for minutes."""
    command = [
        sys.executable,
        "-m",
        "cli",
        "inventory",
        "watch",
        "--store",
        store,
        "--kubeconfig",
        str(tmp_path / "config"),
    ]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == f"watching {KINDS} kinds of objects\n" or process.kill()
        api.put(_pod("db-1", "10.0.0.5"))
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        sent = time.monotonic()
        assert process.wait(PATIENCE_S) == 0
        assert time.monotonic() - sent < 20
        assert "versions of objects in" in process.stderr.read()
    assert rows(store, COUNT) == [("db-1",), ("web-1",)]


def test_trouble_is_one_sentence(api: ApiServer, tmp_path: Path, store: str) -> None:
    """Exit code 2 for what a person has to mend, 3 for what may pass."""
    bad = _cli("inventory", "watch", "--store", store, "--kubeconfig", str(tmp_path / "absent"))
    assert (bad.returncode, bad.stderr.count("\n")) == (2, 1)
    assert "there is no kubeconfig" in bad.stderr
    api.busy = 10**6
    busy = _cli("inventory", "watch", "--once", "--store", store, "--kubeconfig", str(tmp_path / "config"))
    assert (busy.returncode, busy.stderr.count("\n")) == (3, 1), busy.stderr


@pytest.mark.slow
def test_ten_thousand_pods_stay_within_bounds(api: ApiServer, tmp_path: Path, store: str) -> None:
    """Listing 10 000 pods costs less than 150 MB more than listing one."""
    program = (
        "import sys, resource, threading; from collector.cluster import watch; from policies.cluster_source import"
        " LiveCluster; done = watch(LiveCluster(None, sys.argv[1]), sys.argv[2], threading.Event(), once=True);"
        " print(done.rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )

    def measured(store: str) -> tuple[int, int]:
        ran = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "config"), store],
            cwd=ROOT, capture_output=True, text=True, check=True, env=os.environ,
        )  # fmt: skip
        count, megabytes = map(int, ran.stdout.split())
        return count, megabytes

    few = measured(store + "-few")
    api.put(
        *(_pod(f"p{n}-1", f"10.{n // 62500}.{n // 250 % 250}.{n % 250 + 1}", padding="x" * 1000) for n in range(10_000))
    )
    many = measured(store)
    assert (few[0], many[0]) == (2, 10_002)
    assert many[1] - few[1] < 150, (few, many)


def test_the_watch_reads_only_what_an_inventory_holds() -> None:
    """Every watched resource is in the table of what is read; of configuration only that of Felix."""
    kinds = {resource.kind for resource in following.WATCHED}
    assert {"Pod", "Node", "Service", "Namespace", "NetworkPolicy", "HostEndpoint", "Tier", "IPPool"} <= kinds
    assert {kind for kind in kinds if kind.endswith(("Configuration", "Information"))} == {"FelixConfiguration"}
