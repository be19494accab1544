"""The samples: made by their script, coherent with each other, and with documentation addresses only.

Rule: what the labels say is looked up in the log itself, without the code that the labels will judge.
"""

from __future__ import annotations

import gzip
import ipaddress
import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from samples.cluster import PODS

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "samples"
DOCUMENTATION = ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
MADE = ("syslog", "syslog.1.gz", "inventory.json", "labels.json")


def text(name: str) -> str:
    """A sample, uncompressed."""
    data = (SAMPLES / name).read_bytes()
    return (gzip.decompress(data) if name.endswith(".gz") else data).decode()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the script has just written."""
    folder = tmp_path_factory.mktemp("made")
    subprocess.run([sys.executable, "-m", "samples.make", str(folder)], check=True, cwd=ROOT)
    return folder


@pytest.mark.parametrize("name", MADE)
def test_made_by_their_script(made: Path, name: str) -> None:
    """samples/make.py writes each file byte for byte; of a compressed one, what is in it (zlib's versions differ)."""
    data = (made / name).read_bytes()
    assert (gzip.decompress(data) if name.endswith(".gz") else data).decode() == text(name)


@pytest.mark.parametrize("name", MADE)
def test_documentation_addresses_only(name: str) -> None:
    """Every address is one that the RFCs set aside for documentation."""
    ranges = [ipaddress.ip_network(network) for network in DOCUMENTATION]
    words = set(
        re.findall(r"(?<![\w.:-])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-f]{1,4}(?::[0-9a-f]{0,4}){2,7})(?![\w:])", text(name))
    )
    found = {word for word in words if "." in word or "::" in word or word.count(":") == 7}
    strange = [word for word in found if not any(ipaddress.ip_address(word) in network for network in ranges)]
    assert found or name == "labels.json"
    assert strange == []


def test_labels_lie_in_the_log() -> None:
    """Each planted behaviour has packets of its subject at its first and at its last time."""
    lines = text("syslog").splitlines()
    for label in json.loads(text("labels.json")):
        pods = [pod for pod in PODS.values() if pod.workload == label["subject"] or pod.namespace == label["subject"]]
        addresses = {ip for pod in pods for ip in (pod.address, pod.address_v6) if ip} or {label["subject"]}
        for moment in (label["first"], label["last"]):
            stamp = datetime.fromisoformat(moment).astimezone(UTC).isoformat(timespec="microseconds")
            there = [line for line in lines if line.startswith(stamp)]
            interfaces = {pod.interface for pod in pods}
            ends = {word for line in there for word in re.findall(r"(?:IN|OUT|SRC|DST)=(\S+)", line)}
            ends |= {str(ipaddress.ip_address(word)) for word in ends if word.count(":") == 7}
            assert ends & (addresses | interfaces), label


def test_samples_stay_small() -> None:
    """A clone does not pay for them: less than three megabytes together."""
    assert sum((SAMPLES / name).stat().st_size for name in MADE) < 3_000_000
