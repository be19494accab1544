"""A store with many denied packets and an inventory, for benchmarks: the same at every run, made once and kept.

Rule: rows come in through `Writer.commit` as the collector's do; a few workloads make most, as in real clusters.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from analytics import Commit, Position, Writer
from analytics.inbox import deposit
from analytics.inventory import observe
from analytics.kinds import interface_name
from analytics.schema import TABLE

START = datetime(2026, 11, 16, tzinfo=UTC)
DAYS = 7
NODES = 50
PODS = 2_000
STRANGERS = 20_000
BATCH = 500_000
PORTS = (5432, 443, 80, 53, 6379, 9092, 3306, 22, 8080, 9200)
_COLUMNS = [name for name in TABLE["packets"].frame_schema() if name not in ("stored_at", "day")]


def store(rows: int) -> str:
    """The address of the store with so many packets; made where it is not there yet."""
    folder = Path(tempfile.gettempdir()) / "denylog-bench" / f"store-{rows}"
    if not (folder / "done").exists() and not (folder.parent / f"{folder.name}.done").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        deposit(str(folder), observe(objects(), at=START + timedelta(days=DAYS)))
        with Writer(str(folder), bulk=True) as writer:
            for number, frame in enumerate(frames(rows)):
                writer.commit(Commit(packets=(frame,), positions=(_position(number, frame.height),)))
            writer.add_up()
        (folder.parent / f"{folder.name}.done").touch()
    return str(folder)


def pod_address(number: int) -> str:
    """The address of a pod."""
    return f"10.244.{number // 40}.{number % 40 + 2}"


def objects() -> Iterator[dict[str, Any]]:
    """The cluster: nodes, pods of two hundred Deployments in twenty namespaces, a service for each."""
    made = (START - timedelta(days=30)).isoformat()
    for number in range(NODES):
        yield {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": f"node-{number}", "uid": f"n{number}", "creationTimestamp": made},
            "spec": {"podCIDRs": [f"10.244.{number}.0/24"]},
            "status": {"addresses": [{"type": "InternalIP", "address": f"192.168.1.{number + 10}"}]},
        }
    for number in range(200):
        app, space = f"app-{number}", f"team-{number % 20}"
        yield {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": app, "namespace": space, "uid": f"s{number}", "creationTimestamp": made},
            "spec": {"clusterIP": f"10.96.0.{number + 1}", "selector": {"app": app}},
        }
    yield from (_pod(number, made) for number in range(PODS))


def pod_name(number: int) -> tuple[str, str]:
    """Namespace and name of a pod."""
    app = number % 200
    return f"team-{app % 20}", f"app-{app}-5d9f-{number:05d}"


def _pod(number: int, made: str) -> dict[str, Any]:
    space, name = pod_name(number)
    app = f"app-{number % 200}"
    labels = {"app": app, "pod-template-hash": "5d9f"}
    owner = {"kind": "ReplicaSet", "name": f"{app}-5d9f", "controller": True}
    metadata = {"name": name, "namespace": space, "uid": f"p{number}", "labels": labels, "ownerReferences": [owner]}
    status = {"phase": "Running", "podIP": pod_address(number), "startTime": made}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**metadata, "creationTimestamp": made},
        "spec": {"nodeName": f"node-{number // 40}", "containers": []},
        "status": status,
    }


def frames(rows: int) -> Iterator[pl.DataFrame]:
    """The packets in batches, in the order of their time; of each three two go out of a pod and one comes in."""
    dice = np.random.default_rng(20261116)
    pods = np.array([pod_address(number) for number in range(PODS)])
    interfaces = np.array([interface_name(*pod_name(number)) for number in range(PODS)])
    strangers = np.array([f"{n % 60 + 30}.{n // 60 % 250}.{n % 250}.{n % 199 + 1}" for n in range(STRANGERS)])
    step = DAYS * 86_400_000_000 // rows
    for first in range(0, rows, BATCH):
        count = min(BATCH, rows - first)
        own = np.minimum(dice.zipf(1.3, count) - 1, PODS - 1)
        other = np.minimum(dice.zipf(1.2, count) - 1, PODS + STRANGERS - 1)
        egress = dice.random(count) < 0.67
        peer = np.where(other < PODS, pods[other % PODS], strangers[other % STRANGERS])
        times = int(START.timestamp() * 1e6) + (first + np.arange(count)) * step
        yield _frame(
            {
                "time": pl.Series(times).cast(pl.Datetime("us", "UTC")),
                "uptime_s": (first + np.arange(count)) * step / 1e6,
                "node": np.char.add("node-", (own // 40).astype(str)),
                "direction": np.where(egress, "egress", "ingress"),
                "in_interface": np.where(egress, interfaces[own], "eth0"),
                "out_interface": np.where(egress, "eth0", interfaces[own]),
                "source_ip": np.where(egress, pods[own], peer),
                "destination_ip": np.where(egress, peer, pods[own]),
                "source_port": dice.integers(32768, 60999, count),
                "destination_port": np.array(PORTS)[np.minimum(dice.zipf(1.6, count) - 1, len(PORTS) - 1)],
                "ip_id": dice.integers(0, 65536, count),
                "protocol": np.where(dice.random(count) < 0.9, "tcp", "udp"),
                "source_offset": (first + np.arange(count)) * 200,
            }
        )


def _frame(columns: dict[str, Any]) -> pl.DataFrame:
    frame = pl.DataFrame(columns).with_columns(
        ip_version=pl.lit(4), length=pl.lit(60), ttl=pl.lit(63), prefix=pl.lit("calico-packet"),
        repeat_count=pl.lit(0), truncated=pl.lit(False), source_file=pl.lit("bench"), dont_fragment=pl.lit(True),
    )  # fmt: skip
    schema = TABLE["packets"].frame_schema()
    return frame.select(
        (pl.col(name) if name in frame.columns else pl.lit(None)).cast(schema[name]).alias(name) for name in _COLUMNS
    )


def _position(number: int, lines: int) -> Position:
    return Position(
        source="bench", file="bench", path="bench", offset=(number + 1) * BATCH, lines=lines, packets=lines, time=START
    )


if __name__ == "__main__":
    print(json.dumps({"store": store(20_000_000)}))
