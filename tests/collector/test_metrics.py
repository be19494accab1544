"""The metrics of a running collector: they balance, they are bounded, and Prometheus' own tools accept them."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.parser import text_string_to_metric_families

from analytics import Reader, Writer
from analytics.inventory import observe
from analytics.store import resolve
from collector import server
from collector.address import Address, address
from collector.health import Health
from collector.metrics import LAG_BUCKETS, Metrics
from collector.series import OTHER, Labels, Places, Spread
from collector.server import serving
from tests.collector.clock import packet_piece, position
from tests.collector.live import REPOSITORY, line, lines
from tests.system.kernel import missing, network, run

DENYLOG = (sys.executable, str(REPOSITORY / "cli.py"))
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@dataclass(frozen=True)
class Running:
    """A collector with metrics."""

    process: subprocess.Popen[str]
    port: int
    log: Path
    store: Path

    def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        """Status and body of a path."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def scrape(self) -> Samples:
        """All samples, by name and labels."""
        return samples(self.get("/metrics")[1])

    def until(self, name: str, value: float, **labels: str) -> Samples:
        """Scrape until a sample has reached a value."""
        deadline = time.monotonic() + 30
        while (found := self.scrape()).get(key(name, **labels), -1.0) < value:
            assert time.monotonic() < deadline, {name: found.get(key(name, **labels))}
            time.sleep(0.2)
        return found


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    """How a sample is found."""
    return name, frozenset(labels.items())


def samples(text: str) -> Samples:
    """What an exposition holds."""
    return {
        key(sample.name, **sample.labels): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@contextmanager
def running(folder: Path, *more: str) -> Iterator[Running]:
    """`denylog collect` with metrics on a free port, which has read what is in its log."""
    log, store = folder / "log", folder / "store"
    log.touch()
    command = [*DENYLOG, "collect", "--store", str(store), str(log), "--metrics", "127.0.0.1:0", "--log-level", "info"]
    process = subprocess.Popen([*command, *more], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        port = 0
        for said in process.stderr:
            if found := re.search(r"metrics at http://127\.0\.0\.1:(\d+)/metrics", said):
                port = int(found[1])
                break
        assert port
        running = Running(process, port, log, store)
        running.until("denylog_ready", 1)
        yield running
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 0, said
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A collector that has read 50 packets, a forged line, and 3 lines of others."""
    folder = tmp_path_factory.mktemp("metrics")
    (folder / "log").write_text(lines(range(50)) + line(50).replace("kernel:", "logger:") + "Nov 22 x cron: y\n" * 3)
    with running(folder) as found:
        found.until("denylog_lines_read_total", 54, path=str(found.log))
        yield found


def test_metrics_balance_and_agree_with_the_store(collector: Running) -> None:
    """Lines read = packets + parse errors + skipped lines, and as many rows are in the store."""
    found = collector.scrape()
    path = str(collector.log)
    packets = sum(value for (name, _), value in found.items() if name == "denylog_packets_parsed_total")
    errors = sum(value for (name, _), value in found.items() if name == "denylog_parse_errors_total")
    skipped = found[key("denylog_lines_skipped_total", reason="not_calico")]
    assert found[key("denylog_lines_read_total", path=path)] == packets + errors + skipped
    with Reader(str(collector.store)) as reader:
        assert reader.rows("SELECT count(*) FROM packets").rows == [(int(packets),)]
        assert reader.rows("SELECT count(*) FROM rejects").rows == [(int(errors),)]
    assert found[key("denylog_store_rows_written_total", table="packets")] == packets
    size = found[key("denylog_file_size_bytes", path=path)]
    assert size == found[key("denylog_file_position_bytes", path=path)] == collector.log.stat().st_size
    assert found[key("denylog_event_lag_seconds_count")] == packets


def test_promtool_finds_nothing(collector: Running) -> None:
    """`promtool check metrics` has nothing to say about a real scrape."""
    if not shutil.which("promtool"):
        pytest.skip("needs promtool")
    text = collector.get("/metrics")[1]
    found = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_labels_are_bounded(collector: Running) -> None:
    """No label carries an address, a port or a pod: their names are those agreed on, and no value looks like one."""
    allowed = {
        "path",
        "kind",
        "transport",
        "reason",
        "namespace",
        "direction",
        "source",
        "table",
        "part",
        "version",
        "le",
    }
    for _, labels in collector.scrape():
        assert {name for name, _ in labels} <= allowed
        for name, value in labels:
            if name not in ("version", "le"):
                assert not re.search(r"\d+\.\d+\.\d+\.\d+|[0-9a-f]+:[0-9a-f:]+|cali[0-9a-f]{3}", value), (name, value)


def test_health_over_http(collector: Running) -> None:
    """The four paths answer GET and HEAD, everything else is refused."""
    assert collector.get("/healthz") == (200, "ok\n")
    assert collector.get("/readyz") == (200, "ok\n")
    assert collector.get("/readyz", "HEAD") == (200, "")
    assert collector.get("/")[0] == 200
    assert collector.get("/etc/passwd")[0] == 404
    assert collector.get("/metrics", "POST")[0] == 501


def test_a_client_that_says_nothing_disturbs_nobody(collector: Running) -> None:
    """Fifty silent connections, three times as many as are served at once, keep out neither probes nor scrapes."""
    idle = [socket.create_connection(("127.0.0.1", collector.port)) for _ in range(50)]
    try:
        for path in ("/healthz", "/readyz", "/metrics") * 5:
            began = time.monotonic()
            assert collector.get(path)[0] == 200
            assert time.monotonic() - began < 2.0
    finally:
        for connection in idle:
            connection.close()


class HungMetrics(Metrics):
    """Stands in for a disk that does not answer when the size of the store is looked up."""

    answers = threading.Event()

    def text(self) -> bytes:
        """Nothing until it is allowed."""
        assert self.answers.wait(30)
        return super().text()


def test_scrapes_that_hang_leave_room_for_probes(tmp_path: Path) -> None:
    """Twenty scrapes that get no answer: four wait, the others are refused, and probes are answered at once."""
    metrics = HungMetrics(resolve(str(tmp_path)))
    health = Health(metrics)
    with serving(Address("127.0.0.1", 0), metrics, health) as where:
        scrapes = [http.client.HTTPConnection("127.0.0.1", where.port, timeout=10) for _ in range(20)]
        for scrape in scrapes:
            scrape.request("GET", "/metrics")
        for _ in range(5):
            with urllib.request.urlopen(f"http://127.0.0.1:{where.port}/healthz", timeout=2) as answer:
                assert answer.read() == b"ok\n"
        metrics.answers.set()
        found = Counter(scrape.getresponse().status for scrape in scrapes)
        for scrape in scrapes:
            scrape.close()
    assert found == {200: 4, 503: 16}


def test_requests_that_trickle_in_are_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that send a byte now and then, as many as are served at once, keep nobody out for long."""
    monkeypatch.setattr(server, "_ALTOGETHER_S", 1.0)
    metrics = Metrics(resolve(str(tmp_path)))
    with serving(Address("127.0.0.1", 0), metrics, Health(metrics)) as where:
        slow = [socket.create_connection(("127.0.0.1", where.port)) for _ in range(16)]
        deadline, answered = time.monotonic() + 4.0, False
        while not answered and time.monotonic() < deadline:
            for connection in slow:
                with suppress(OSError):
                    connection.send(b"G")
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{where.port}/", timeout=1) as answer:
                answered = answer.status == 200
            time.sleep(0.2)
        for connection in slow:
            connection.close()
    assert answered


def test_rotation_lag_and_readiness(tmp_path: Path) -> None:
    """Both kinds of rotation are counted; a log that goes away makes the collector unready and says why."""
    with running(tmp_path) as found:
        with found.log.open("a") as log:
            log.write(lines(range(10)))
        found.until("denylog_packets_parsed_total", 10, transport="tcp")
        found.log.rename(tmp_path / "log.1")
        found.log.write_text(lines(range(10, 15)))
        found.until("denylog_packets_parsed_total", 15, transport="tcp")
        os.truncate(found.log, 0)
        with found.log.open("a") as log:
            log.write(lines(range(20, 22)))
        after = found.until("denylog_packets_parsed_total", 17, transport="tcp")
        assert after[key("denylog_rotations_total", kind="rename")] == 1
        assert after[key("denylog_rotations_total", kind="truncate")] == 1
        found.log.rename(tmp_path / "away")
        deadline = time.monotonic() + 20
        while found.get("/readyz")[0] == 200:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert found.get("/readyz") == (503, f"{found.log}: No such file or directory\n")
        assert found.scrape()[key("denylog_ready")] == 0
        assert found.get("/healthz")[0] == 200
        (tmp_path / "away").rename(found.log)
        found.until("denylog_ready", 1)


def test_port_in_use_is_one_sentence(collector: Running, tmp_path: Path) -> None:
    """A port that is taken is told before anything is done, with exit code 2."""
    command = [*DENYLOG, "collect", "--store", str(tmp_path / "store"), str(collector.log)]
    where = f"127.0.0.1:{collector.port}"
    found = subprocess.run([*command, "--metrics", where], capture_output=True, text=True, check=False, timeout=60)
    assert found.returncode == 2
    assert found.stderr == (
        f"denylog: {where}: cannot listen (Address already in use); name another port, or stop what listens there\n"
    )
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("127.0.0.1:9843", Address("127.0.0.1", 9843)),
        (":9843", Address("127.0.0.1", 9843)),
        ("[::1]:0", Address("::1", 0)),
        ("localhost:1", Address("localhost", 1)),
    ],
)
def test_addresses(text: str, where: Address) -> None:
    """HOST:PORT with names and addresses of both families; without a host it is loopback."""
    assert address(text) == where
    assert address(str(where)) == where


@pytest.mark.parametrize(
    "text", ["", "9843", "::1:9843", "host:", "host:x", "host:65536", "a b:1", "[::1]", "http://h:1"]
)
def test_addresses_that_are_none(text: str) -> None:
    """Anything else is refused with what is expected."""
    with pytest.raises(ValueError, match="expected HOST:PORT"):
        address(text)


def test_ipv6(tmp_path: Path) -> None:
    """Metrics are served on an IPv6 address, too."""
    metrics = Metrics(resolve(str(tmp_path)))
    with serving(Address("::1", 0), metrics, Health(metrics)) as where:
        connection = http.client.HTTPConnection("::1", where.port, timeout=10)
        connection.request("GET", "/metrics")
        assert b"denylog_build_info" in connection.getresponse().read()
        connection.close()


def test_many_values_at_once_count_as_one_by_one() -> None:
    """The histogram that takes a column has the buckets of prometheus_client's own, which takes single values."""
    values = [0.0, 0.1, 0.10001, 0.3, 2.5, 59.0, 4000.0, 1e9]
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    Spread("x_seconds", "x", LAG_BUCKETS, ours).observe(pl.Series([*values, None, -5.0]))
    single = Histogram("x_seconds", "x", buckets=LAG_BUCKETS, registry=theirs)
    for value in [*values, 0.0]:
        single.observe(value)

    def shown(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
        return {
            (sample.name, sample.labels.get("le", "")): sample.value
            for family in registry.collect()
            for sample in family.samples
        }

    assert shown(ours) == shown(theirs)


def test_a_file_that_nobody_reads_is_seen_to_grow(tmp_path: Path) -> None:
    """Sizes are looked up when asked for, also that of a successor which was not opened yet."""
    log = tmp_path / "log"
    log.write_text("x" * 100)
    found = os.stat(log)
    registry = CollectorRegistry()
    places = Places(registry)
    stand = position()
    known = {"source": str(log), "path": str(log), "device": found.st_dev, "inode": found.st_ino, "offset": 60}
    for name, value in known.items():
        object.__setattr__(stand, name, value)
    places.note([stand])

    def size() -> float | None:
        return registry.get_sample_value("denylog_file_size_bytes", {"path": str(log)})

    assert size() == 100
    log.write_text("x" * 300)
    assert size() == 300
    log.rename(tmp_path / "log.1")
    log.write_text("x" * 50)
    object.__setattr__(stand, "size", 300)
    assert size() == 350
    assert registry.get_sample_value("denylog_file_position_bytes", {"path": str(log)}) == 60


def test_labels_beyond_the_limit_share_one() -> None:
    """A hundred and one followed files have a hundred names."""
    names = Labels(100)
    assert len({names(str(number)) for number in range(200)}) == 101
    assert names("0") == "0"
    assert names("new") == OTHER


def test_namespace_of_the_pod_that_was_denied(tmp_path: Path) -> None:
    """Denials are counted by the namespace that the inventory gives to the pod's interface."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web-1", "namespace": "shop", "uid": "1", "creationTimestamp": "2026-11-22T00:00:00Z"},
        "spec": {"nodeName": "node-1"},
        "status": {"podIP": "10.0.0.2", "podIPs": [{"ip": "10.0.0.2"}], "phase": "Running"},
    }
    metrics = Metrics(resolve(str(tmp_path / "store")))
    with Writer(str(tmp_path / "store")) as writer:
        metrics.opened([], 0.0, writer.namespaces)
        additions = observe([pod], at=datetime(2026, 11, 22, tzinfo=UTC))
        writer.add(additions, "test")
        interface = additions.objects[0].interface
        metrics.committed([packet_piece([1.0], interfaces=f"IN=eth0 OUT={interface}")], 0.1)
        metrics.committed([packet_piece([1.0], interfaces=f"IN={interface} OUT=eth0")], 0.1)
        metrics.committed([packet_piece([1.0], interfaces="IN=eth0 OUT=cali00000000000")], 0.1)
    found = samples(metrics.text().decode())
    labels = {"transport": "tcp"}
    assert found[key("denylog_denied_packets_total", namespace="shop", direction="ingress", **labels)] == 1
    assert found[key("denylog_denied_packets_total", namespace="shop", direction="egress", **labels)] == 1
    assert found[key("denylog_denied_packets_total", namespace="", direction="ingress", **labels)] == 1


@pytest.mark.system
@pytest.mark.skipif(bool(missing("iptables")), reason=missing("iptables"))
def test_rule_counters_count_what_the_kernel_matched(tmp_path: Path) -> None:
    """Packets that real LOG rules with our prefix matched are counted by program; other rules do not count."""
    with network("cnt") as net:
        net.log_with_iptables()
        net.inside(net.pod, "iptables", "-I", "INPUT", "-j", "LOG", "--log-prefix", "other: ")
        run("ip", "netns", "exec", net.client, "ping", "-c", "3", "-i", "0.2", "-W", "1", "198.51.100.2", check=False)
        code = (
            "from analytics.store import resolve; from collector.metrics import Metrics; from parser import Options;"
            f"print(Metrics(resolve({str(tmp_path)!r}), rule_options=Options()).text().decode())"
        )
        found = samples(net.inside(net.pod, sys.executable, "-c", code).stdout)
    counted = {dict(labels)["program"]: value for (name, labels), value in found.items() if name == COUNTER}
    assert counted["iptables-nft"] == 3


COUNTER = "denylog_kernel_log_rule_packets_total"


def test_json_logs(tmp_path: Path) -> None:
    """With --log-format json every line on standard error is an object, the last one included."""
    command = [*DENYLOG, "collect", "--once", "--store", str(tmp_path / "store"), str(tmp_path / "none")]
    found = subprocess.run([*command, "--log-format", "json"], capture_output=True, text=True, check=False, timeout=60)
    said = [json.loads(entry) for entry in found.stderr.splitlines()]
    assert found.returncode == 3
    assert {"time", "level", "logger", "message"} <= set(said[0])
    assert said[-1]["level"] == "error"
