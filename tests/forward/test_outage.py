"""Servers and forwarders that are killed: RELP delivers each packet, and doubles only what a kill explains."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.collector.live import lines
from tests.forward.conftest import make_store
from tests.forward.receivers import ROOT, Certificates, Server, missing_rsyslog, rsyslog

pytestmark = [pytest.mark.system, pytest.mark.skipif(bool(missing_rsyslog()), reason=missing_rsyslog())]


@dataclass(frozen=True)
class Trial:
    """How much is sent how fast, and how often who is killed meanwhile."""

    messages: int
    window: int
    rate: int
    kills: int
    outages: int


def spawn(store: str, url: str, state: Path, *more: str) -> subprocess.Popen[bytes]:
    """`denylog forward` in a process of its own."""
    command = (sys.executable, str(ROOT / "cli.py"), "forward", "--store", store, "--state", str(state), *more, url)
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, env={**os.environ, "TZ": "UTC"})


def numbers(server: Server) -> Counter[str]:
    """How often each packet arrived, by its place in the log."""
    return Counter(message["parsed"]["rfc5424-sd"]["denylog@32473"]["source_offset"] for message in server.messages())


def alive(process: subprocess.Popen[bytes], condition: Callable[[], bool], seconds: float = 120) -> None:
    """Until the condition holds, or the time is over, or the forwarder has ended by itself."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)


SMALL = Trial(messages=1_500, window=50, rate=500, kills=2, outages=1)
LARGE = Trial(messages=100_000, window=500, rate=4_000, kills=10, outages=2)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("trial", [SMALL, pytest.param(LARGE, marks=pytest.mark.slow)], ids=["small", "large"])
def test_relp_delivers_at_least_once(trial: Trial, tmp_path: Path, certificates: Certificates) -> None:
    """With the server killed and restarted and the forwarder killed with SIGKILL, no packet is missing, and no more are
    doubled than one window for each kill."""
    store = make_store(tmp_path, lines(range(trial.messages)))
    events = sorted(
        [((number + 1) / (trial.kills + 1), "forwarder") for number in range(trial.kills)]
        + [((number + 0.5) / trial.outages, "server") for number in range(trial.outages)]
    )
    with rsyslog(tmp_path, "relp", certificates) as server:
        url = f"relp://127.0.0.1:{server.port}?window={trial.window}"
        options = ("--rate", str(trial.rate))
        process = spawn(store, url, tmp_path / "state", *options)
        for share, who in events:
            alive(process, lambda share=share: server.count() >= share * trial.messages)  # type: ignore[misc]
            if who == "server":
                server.stop(signal.SIGKILL)
                time.sleep(1)
                server.start()
            else:
                process.kill()
                process.communicate()
                process = spawn(store, url, tmp_path / "state", *options)
        alive(process, lambda: server.count() >= trial.messages and len(numbers(server)) == trial.messages)
        process.terminate()
        _, said = process.communicate(timeout=20)
        found = numbers(server)
    doubled = sum(found.values()) - len(found)
    print(f"{trial}: {len(found)} arrived, {doubled} of them twice")  # noqa: T201 - figures for docs/forwarding.md
    assert process.returncode == 0, said.decode()
    assert len(found) == trial.messages
    assert doubled <= (trial.kills + trial.outages) * trial.window
