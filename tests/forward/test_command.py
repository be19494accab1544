"""The command as a person meets it: `denylog forward` and `collect --forward` in processes of their own."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from analytics import Reader
from tests.collector.live import lines, wait_until
from tests.forward.conftest import make_store
from tests.forward.receivers import ROOT, Certificates, free_port, missing_rsyslog, rsyslog

needs_rsyslog = pytest.mark.skipif(bool(missing_rsyslog()), reason=missing_rsyslog())
DENYLOG = (sys.executable, str(ROOT / "cli.py"))


def run(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    """A run of the command with a state folder of its own."""
    environment = {**os.environ, "TZ": "UTC", "XDG_STATE_HOME": str(home)}
    return subprocess.run(
        [*DENYLOG, *arguments], capture_output=True, text=True, env=environment, timeout=60, check=False, cwd=ROOT
    )


@pytest.mark.parametrize(
    "url", ["relps://logs.example.org", "tls://[2001:db8::7]:601", "tcp://h", "udp://h", "relp://h"]
)
@needs_rsyslog
def test_rsyslog_takes_its_configuration(url: str, tmp_path: Path, certificates: Certificates) -> None:
    """What --rsyslog-config prints is valid to rsyslog itself, with all that the URL can say."""
    files = {"ca": "ca.pem", "cert": "client.pem", "key": "client.key"}
    settings = "&".join(f"{name}={certificates.path(file)}" for name, file in files.items())
    secure = url.startswith(("tls", "relps"))
    found = run("forward", "--rsyslog-config", f"{url}?{settings}&min-tls=1.3" if secure else url, home=tmp_path)
    assert (found.returncode, found.stderr) == (0, "")
    config = tmp_path / "denylog.conf"
    config.write_text(f'global(workDirectory="{tmp_path}")\n{found.stdout}')
    checked = subprocess.run(["rsyslogd", "-N1", "-f", str(config)], capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0
    assert "error" not in checked.stderr
    assert "warning" not in checked.stderr


@needs_rsyslog
@pytest.mark.system
def test_rsyslog_configuration_forwards_the_right_lines(tmp_path: Path, certificates: Certificates) -> None:
    """An rsyslog with that configuration forwards the kernel's lines with our prefix and no other line."""
    with rsyslog(tmp_path, "relp", certificates) as server:
        drop_in = run("forward", "--rsyslog-config", f"relp://127.0.0.1:{server.port}", home=tmp_path).stdout
        socket, config = tmp_path / "log.sock", tmp_path / "node.conf"
        config.write_text(f'global(workDirectory="{tmp_path}")\nmodule(load="imuxsock" sysSock.use="off")\n'
                          f'input(type="imuxsock" socket="{socket}" parseTrusted="off" useSpecialParser="off")\n'
                          f"{drop_in}")  # fmt: skip
        node = subprocess.Popen(["rsyslogd", "-n", "-f", str(config), "-i", str(tmp_path / "node.pid")])
        try:
            deadline = time.monotonic() + 10
            while not socket.exists() and time.monotonic() < deadline:
                time.sleep(0.1)
            for priority, text in (
                (5, "calico-packet: IN=eth0 OUT=cali1 SRC=10.0.0.1"),
                (5, "usb 1-1: new device"),
                (13, "calico-packet: IN=eth0 forged by a user"),
            ):
                send(socket, f"<{priority}>Nov 22 13:05:43 kernel: {text}")
            found = server.wait_for(1, 10)
            time.sleep(0.5)
            found = server.messages()
        finally:
            node.terminate()
            node.wait(20)
    assert [message["msg"].strip() for message in found] == ["calico-packet: IN=eth0 OUT=cali1 SRC=10.0.0.1"]


def send(path: Path, line: str) -> None:
    """A datagram to a Unix socket, as libc's syslog(3) sends it."""
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(line.encode(), str(path))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["http://h"], "'http://h': is no target; expected udp://, tcp://, tls://, relp:// or relps:// and a host"),
        (["tcp://h?ca=/x"], "'tcp://h': ca contradicts tcp://; it goes with tls:// and relps:// only"),
        (["tls://h?ca=/nowhere"], "tls://h:6514: /nowhere: No such file or directory; name a file that can be read"),
        (["--from-ip", "x", "tcp://h"], "--from-ip 'x': expected an address or a CIDR"),
        (["--rate", "0", "tcp://h"], "Invalid value for '--rate'"),
        (["--since", "2999-01-01", "tcp://h"], "--since '2999-01-01' is in the future"),
        (["--since", "!2h", "tcp://h"], "--since '!2h': expected 5m, 1h30m or 7d ago, or ISO 8601"),
        (["--rsyslog-config", "tcp://h?format=cef"], "format=cef is not one that rsyslog writes"),
        (["--state", "/proc/x/s", "tcp://h"], "/proc/x/s: cannot be written"),
    ],
)
def test_what_will_not_do(arguments: list[str], said: str, tmp_path: Path) -> None:
    """A wrong target, setting, filter or state file is told in one sentence, with exit code 2."""
    found = run("forward", "--store", str(tmp_path / "store"), *arguments, home=tmp_path)
    assert found.returncode == 2
    assert said in found.stderr
    assert "Traceback" not in found.stderr


def test_no_store(tmp_path: Path) -> None:
    """Without a store there is one sentence."""
    found = run("forward", "--once", "--store", str(tmp_path / "none"), "tcp://127.0.0.1:9", home=tmp_path)
    assert found.returncode == 2
    assert "there is no store" in found.stderr


def test_unreachable_is_try_again(tmp_path: Path) -> None:
    """--once gives up a server that nobody runs after five seconds, with exit code 3 and two lines."""
    store = make_store(tmp_path, lines(range(3)))
    began = time.monotonic()
    found = run("forward", "--once", "--store", store, f"tcp://127.0.0.1:{free_port()}", home=tmp_path)
    assert found.returncode == 3
    assert 4 < time.monotonic() - began < 40
    assert [line.partition(": ")[2].partition(": ")[2][:18] for line in found.stderr.splitlines()] == [
        "Connection refused", "Connection refused",
    ]  # fmt: skip


@needs_rsyslog
@pytest.mark.system
def test_once_again_and_since(tmp_path: Path, certificates: Certificates) -> None:
    """A second run sends nothing, one with --since sends again, and a read-only store is enough."""
    store = make_store(tmp_path, lines(range(100)))
    with rsyslog(tmp_path, "relp", certificates) as server:
        url = f"relp://127.0.0.1:{server.port}"
        for more, count in (([], 100), ([], 100), (["--since", "2026-11-22T15:01:00Z"], 140), ([], 140)):
            found = run("forward", "--once", "--store", store, *more, url, home=tmp_path)
            assert (found.returncode, found.stdout, found.stderr) == (0, "", "")
            assert server.count() == count
        again = ("--since", "9999d", "--to-port", "1-3")
        found = run("forward", "--once", "-v", "--store", store, *again, url, home=tmp_path)
        assert found.stderr.splitlines()[-1] == f"3 messages sent to {url}, 0 of them shortened"


@needs_rsyslog
@pytest.mark.system
def test_collect_forwards(tmp_path: Path, certificates: Certificates) -> None:
    """collect --forward sends what it commits, goes on through an outage, stops within seconds, and keeps its mark in
    the store; the metrics say so without an address."""
    log, store, port = tmp_path / "syslog", str(tmp_path / "store"), free_port()
    log.write_text(lines(range(500)))
    with rsyslog(tmp_path, "relp", certificates) as server:
        url = f"relp://127.0.0.1:{server.port}"
        command = [*DENYLOG, "collect", "--store", store, "--forward", url, "--metrics", f"127.0.0.1:{port}", str(log)]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        try:
            assert len(server.wait_for(500, 30)) == 500
            server.stop(signal.SIGKILL)
            with log.open("a") as file:
                file.write(lines(range(500, 800)))
            assert len(wait_until(Path(store), 800)) == 800
            server.start()
            found = server.wait_for(800, 30)
            metrics = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
            began = time.monotonic()
            process.terminate()
            _, said = process.communicate(timeout=30)
        finally:
            process.kill()
            process.wait()
        assert time.monotonic() - began < 10
        assert process.returncode == 0, said
        offsets = {message["parsed"]["rfc5424-sd"]["denylog@32473"]["source_offset"] for message in found}
        assert len(offsets) == 800
        assert "packets wait in the store" in said
        assert "reachable again" in said
        shown = re.findall(r"^denylog_forward_\S+.*", metrics, re.MULTILINE)
        assert any(line.startswith('denylog_forward_messages_total{result="sent",target="relp-1"} ') for line in shown)
        assert "127.0.0.1" not in "".join(shown)
        before = server.count()
        once = run("collect", "--once", "--store", store, "--forward", url, str(log), home=tmp_path)
        assert once.returncode == 0, once.stderr
        assert server.count() == before
    with Reader(store) as reader:
        rows = reader.rows("SELECT target, max(passed) FROM forwarded GROUP BY target").rows
    assert rows == [(url, 800)]


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
def test_two_of_one_target_are_refused(tmp_path: Path) -> None:
    """The same server twice is refused before anything is followed."""
    found = run("collect", "--store", str(tmp_path / "s"), "--forward", "tcp://h", "--forward", "tcp://h:514?format=cef",
                str(tmp_path / "log"), home=tmp_path)  # fmt: skip
    assert (found.returncode, found.stderr) == (
        2, "denylog: tcp://h:514: is named twice; each server is forwarded to once\n",
    )  # fmt: skip
    assert not (tmp_path / "s").exists()
