"""A small cluster for tests: objects as `kubectl get -o yaml` prints them, and the lines that its nodes log.

Rule: lines go through the real parser, objects through the real commands; nothing of the store is faked.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from cli import cli
from policies.model import Pod

MADE = "2026-11-01T00:00:00Z"
"""When everything in the cluster was made."""
START = datetime.fromisoformat("2026-11-20T12:00:00+00:00")


def pod(name: str, address: str, labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    """A running pod of the namespace before the slash."""
    namespace, _, own = name.partition("/")
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": own, "namespace": namespace, "labels": labels or {"app": own}, "creationTimestamp": MADE},
        "spec": {"nodeName": "node-1", "containers": [{"name": "c", "image": "i"}], **spec},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    }


def policy(name: str, spec: dict[str, Any], made: str = MADE) -> dict[str, Any]:
    """A Kubernetes NetworkPolicy."""
    namespace, _, own = name.partition("/")
    metadata = {"name": own, "namespace": namespace, "creationTimestamp": made, "generation": 1}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def calico(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """A Calico object; namespaced where there is a slash in its name."""
    namespace, _, own = name.rpartition("/")
    metadata = {"name": own, "creationTimestamp": MADE} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec}


def interface(name: str) -> str:
    """The host's end of a pod's veth."""
    namespace, _, own = name.partition("/")
    return Pod(name=own, namespace=namespace).interface


def line(
    source: str,
    destination: str,
    kind: str = "TCP SPT=40000 DPT=5432 WINDOW=64240 RES=0x00 SYN URGP=0",
    *,
    enters: str = "eth0",
    leaves: str = "eth0",
    after_s: float = 0,
    prefix: str = "calico-packet",
) -> str:
    """A kernel line of node-1; `enters` and `leaves` are interfaces, or the pods behind them."""
    time = START + timedelta(seconds=after_s)
    inward, outward = (interface(each) if "/" in each else each for each in (enters, leaves))
    body = f"SRC={source} DST={destination} LEN=60 TOS=0x00 PREC=0x00 TTL=63 ID=7 DF PROTO={kind}"
    if ":" in source:
        ends = [ip_address(each).exploded for each in (source, destination)]
        body = f"SRC={ends[0]} DST={ends[1]} LEN=80 TC=0 HOPLIMIT=63 FLOWLBL=0 PROTO={kind}"
    stamp = f"[{1000 + after_s:.6f}]"
    head = f"{time.isoformat(timespec='microseconds')} node-1 kernel: {stamp} {prefix}"
    return f"{head}: IN={inward} OUT={outward} {body} \n"


class Store:
    """A store on disk, and the commands on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = str(folder / "store")
        self._files = 0

    def run(self, *words: str, text: str | None = None) -> Result:
        """A command of denylog on this store."""
        return CliRunner().invoke(cli, [*words, "--store", self.path], input=text)

    def ingest(self, *lines: str, log_prefix: str | None = None) -> None:
        """Log lines, stored."""
        self._files += 1
        path = self.folder / f"log{self._files}"
        path.write_text("".join(lines))
        chosen = ("--log-prefix", log_prefix) if log_prefix else ()
        assert self.run("ingest", str(path), *chosen).exit_code == 0

    def snapshot(self, *objects: dict[str, Any], words: tuple[str, ...] = ()) -> Result:
        """A snapshot of these objects, which were seen when they were made unless `words` say otherwise."""
        chosen = words or ("--at", MADE)
        result = self.run(
            "policies", "snapshot", "-", *chosen, text=json.dumps({"kind": "List", "items": objects} | V1)
        )
        assert result.exit_code == 0, result.output
        return result

    def attribute(self, *words: str) -> dict[str, Any]:
        """What `policies attribute` says of itself."""
        result = self.run("policies", "attribute", "-o", "json", *words)
        assert result.exit_code in (0, 1), result.output
        found: dict[str, Any] = json.loads(result.stdout)
        assert bool(result.exit_code) is bool(found["packets"]["none"])
        return found

    def denied(self, columns: str = "denied_by") -> list[dict[str, Any]]:
        """The denied packets in the order of their time."""
        result = self.run("sql", "-o", "json", f"SELECT {columns} FROM denied ORDER BY time, source_ip, source_port")
        assert result.exit_code == 0, result.output
        rows: list[dict[str, Any]] = json.loads(result.stdout)
        return rows


V1 = {"apiVersion": "v1"}
