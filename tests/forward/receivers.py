"""Real syslog servers for the tests: rsyslog and syslog-ng on loopback, with certificates made for the occasion.

Rule: a server writes each message as one JSON object on a line, with the structured data as the server itself parsed
it; rsyslog acknowledges a RELP message only when that line is written (a queue of type Direct).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
UNPACKED = ROOT / "var" / "syslog-ng"

_RSYSLOG = """
global(workDirectory="{folder}" maxMessageSize="64k" defaultNetstreamDriver="gtls"
  defaultNetstreamDriverCAFile="{ca}" defaultNetstreamDriverCertFile="{cert}" defaultNetstreamDriverKeyFile="{key}")
module(load="mmpstrucdata")
template(name="json" type="list") {{
  constant(value="{{") property(outname="raw" name="rawmsg" format="jsonf")
  constant(value=",") property(outname="msg" name="msg" format="jsonf")
  constant(value=",") property(outname="host" name="hostname" format="jsonf")
  constant(value=",") property(outname="app" name="app-name" format="jsonf")
  constant(value=",") property(outname="facility" name="syslogfacility-text" format="jsonf")
  constant(value=",\\"parsed\\":") property(name="$!all-json")
  constant(value="}}\\n")
}}
ruleset(name="all" queue.type="Direct") {{
  action(type="mmpstrucdata" sd_name.lowercase="off")
  action(type="omfile" file="{out}" template="json" asyncWriting="off" flushOnTXEnd="on")
}}
{inputs}
"""
_INPUTS = {
    "udp": 'module(load="imudp") input(type="imudp" port="{port}" address="127.0.0.1" ruleset="all")',
    "tcp": 'module(load="imtcp" streamDriver.mode="0" streamDriver.name="ptcp") '
    'input(type="imtcp" port="{port}" address="127.0.0.1" ruleset="all")',
    "tls": 'module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="x509/name" '
    'permittedPeer=["node-1"]) input(type="imtcp" port="{port}" address="127.0.0.1" ruleset="all")',
    "relp": 'module(load="imrelp" ruleset="all") input(type="imrelp" port="{port}" maxDataSize="64k")',
    "relps": 'module(load="imrelp" ruleset="all") input(type="imrelp" port="{port}" maxDataSize="64k" tls="on" '
    'tls.authMode="name" tls.permittedPeer=["node-1"] tls.caCert="{ca}" tls.myCert="{cert}" tls.myPrivKey="{key}")',
}

_SYSLOG_NG = """@version: 3.35
options {{ keep-hostname(yes); stats-freq(0); flush-lines(1); }};
source all {{ syslog(ip(127.0.0.1) port({port}) transport("{transport}") log-msg-size(65536) {tls}); }};
destination json {{ file("{out}" template(
  "$(format-json --key .SDATA.* --pair msg=\\"$MSG\\" --pair host=\\"$HOST\\" --pair app=\\"$PROGRAM\\")\\n")); }};
log {{ source(all); destination(json); }};
"""
_SYSLOG_NG_TLS = (
    'tls(key-file("{key}") cert-file("{cert}") ca-file("{ca}") peer-verify(required-trusted) '
    "ssl-options(no-sslv2, no-sslv3, no-tlsv1))"
)


def free_port() -> int:
    """A port of loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Certificates:
    """PEM files: an authority, a server's certificate for localhost, a client's for node-1, and a foreign authority."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Certificates:
        """Make them all with openssl."""
        made = cls(folder)
        made._authority("ca")
        made._authority("foreign")
        made._signed("server", "localhost", "DNS:localhost,IP:127.0.0.1")
        made._signed("client", "node-1", "DNS:node-1")
        return made

    def path(self, name: str) -> str:
        """`ca.pem`, `server.key` and so on, as text."""
        return str(self.folder / name)

    def fingerprint(self) -> str:
        """The server's, as openssl prints it."""
        said = self._openssl("x509", "-in", "server.pem", "-noout", "-fingerprint", "-sha256")
        return "SHA256:" + said.strip().partition("=")[2]

    def _authority(self, name: str) -> None:
        self._openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"),
            *("-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem"),
            *("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )

    def _signed(self, name: str, subject: str, names: str) -> None:
        self._openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={subject}"),
            *("-keyout", f"{name}.key", "-out", f"{name}.csr"),
        )
        (self.folder / f"{name}.ext").write_text(f"subjectAltName={names}\n")
        self._openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.pem"),
        )

    def _openssl(self, *arguments: str) -> str:
        done = subprocess.run(
            ["openssl", *arguments], cwd=self.folder, capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout


class Server:
    """A syslog daemon that can be killed and started again; what it has taken stays."""

    def __init__(self, command: list[str], out: Path, port: int, kind: str, environment: dict[str, str]) -> None:
        self.port = port
        self._command = command
        self._out = out
        self._kind = kind
        self._environment = environment
        self._counted = 0, 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 20
        while not self._listens():
            assert self._process.poll() is None, f"{self._command[0]} ended with {self._process.returncode}"
            assert time.monotonic() < deadline, f"{self._command[0]} does not listen"
            time.sleep(0.05)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it with a signal."""
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def messages(self) -> list[dict[str, Any]]:
        """What it has taken so far; a line that is being written does not count."""
        if not self._out.exists():
            return []
        data = self._out.read_bytes()
        return [json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]

    def count(self) -> int:
        """How many messages it has taken, without reading any line twice."""
        if self._out.exists():
            with self._out.open("rb") as file:
                file.seek(self._counted[0])
                data = file.read()
            self._counted = self._counted[0] + len(data), self._counted[1] + data.count(b"\n")
        return self._counted[1]

    def wait_for(self, count: int, seconds: float = 20) -> list[dict[str, Any]]:
        """What it has taken, once that is so much; what there is when the time is over."""
        deadline = time.monotonic() + seconds
        while len(found := self.messages()) < count and time.monotonic() < deadline:
            time.sleep(0.1)
        return found

    def _listens(self) -> bool:
        """Ask the kernel, not the server: a connection would count as a client."""
        table = "udp" if self._kind == "udp" else "tcp"
        rows = [
            row.split() for name in (table, f"{table}6") for row in Path(f"/proc/net/{name}").read_text().splitlines()
        ]
        port = f":{self.port:04X}"
        return any(row[1].endswith(port) and row[3] in ("0A", "07") for row in rows[1:] if len(row) > 3)


def missing_rsyslog() -> str:
    """Why rsyslog cannot serve here, or nothing."""
    modules = Path("/usr/lib")
    if not shutil.which("rsyslogd") or not shutil.which("openssl"):
        return "needs rsyslog and openssl"
    absent = [name for name in ("imrelp", "lmnsd_gtls") if not list(modules.glob(f"*/rsyslog/{name}.so"))]
    return f"needs rsyslog's {', '.join(absent)}" if absent else ""


def missing_syslog_ng() -> str:
    """Why syslog-ng cannot serve here, or nothing."""
    return "" if (UNPACKED / "usr/sbin/syslog-ng").exists() else "needs syslog-ng (bash tests/syslog-ng.sh)"


@contextmanager
def rsyslog(folder: Path, kind: str, certificates: Certificates, port: int | None = None) -> Iterator[Server]:
    """A running rsyslog that takes one kind of syslog (udp, tcp, tls, relp, relps)."""
    port = port or free_port()
    names = {name: certificates.path(f"{file}") for name, file in _SERVER_FILES.items()}
    inputs = _INPUTS[kind].format(port=port, **names)
    config, out = folder / f"rsyslog-{kind}.conf", folder / f"{kind}.jsonl"
    config.write_text(_RSYSLOG.format(folder=folder, out=out, inputs=inputs, **names))
    command = ["rsyslogd", "-n", "-f", str(config), "-i", str(folder / f"{kind}.pid")]
    yield from _running(Server(command, out, port, kind, dict(os.environ)))


_SERVER_FILES = {"ca": "ca.pem", "cert": "server.pem", "key": "server.key"}


@contextmanager
def syslog_ng(folder: Path, transport: str, certificates: Certificates) -> Iterator[Server]:
    """A running syslog-ng that takes RFC 5424 over tcp or tls."""
    port = free_port()
    names = {name: certificates.path(file) for name, file in _SERVER_FILES.items()}
    tls = _SYSLOG_NG_TLS.format(**names) if transport == "tls" else ""
    config, out = folder / f"syslog-ng-{transport}.conf", folder / f"syslog-ng-{transport}.jsonl"
    config.write_text(_SYSLOG_NG.format(port=port, transport=transport, tls=tls, out=out))
    library = UNPACKED / "usr/lib"
    command = [
        *(str(UNPACKED / "usr/sbin/syslog-ng"), "--foreground", "--no-caps", "--cfgfile", str(config)),
        *("--module-path", str(next(library.glob("syslog-ng/[0-9]*")))),
        *(
            "--persist-file",
            str(folder / "persist"),
            "--pidfile",
            str(folder / "pid"),
            "--control",
            str(folder / "ctl"),
        ),
    ]
    paths = [library / "syslog-ng", *library.glob("*-linux-*")]
    environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, paths))}
    yield from _running(Server(command, out, port, transport, environment))


def _running(server: Server) -> Iterator[Server]:
    server.start()
    try:
        yield server
    finally:
        server.stop(signal.SIGKILL)  # each line is on the disk already, and an end in order takes seconds
