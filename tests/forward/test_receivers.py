"""Forwarding to real servers: every packet arrives, and the server's own parser gives back every field."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from analytics import Writer
from collector.forward import FORMATS, outage
from parser import Options
from parser.line import parse
from tests.analytics.conftest import make_commit
from tests.forward.conftest import Forward, stored
from tests.forward.receivers import (
    Certificates,
    Server,
    free_port,
    missing_rsyslog,
    missing_syslog_ng,
    rsyslog,
    syslog_ng,
)

pytestmark = pytest.mark.system
ID = "denylog@32473"


@contextmanager
def receiving(kind: str, folder: Path, certificates: Certificates) -> Iterator[tuple[Server, str]]:
    """One of the servers, and the URL that leads to it."""
    program, _, transport = kind.partition(" ")
    if reason := missing_rsyslog() if program == "rsyslog" else missing_syslog_ng():
        pytest.skip(reason)
    server = rsyslog if program == "rsyslog" else syslog_ng
    with server(folder, transport, certificates) as running:
        ours = {name: certificates.path(f"client.{ending}") for name, ending in (("cert", "pem"), ("key", "key"))}
        query = f"?ca={certificates.path('ca.pem')}&cert={ours['cert']}&key={ours['key']}"
        secure = transport in ("tls", "relps")
        yield running, f"{transport}://localhost:{running.port}{query if secure else ''}"


def text_of(value: Any) -> str:
    """How docs/forwarding.md says that a value is written."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return ",".join(value) if isinstance(value, list) else str(value)


def expected(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The structured data of rows as it has to be read back."""
    fields = [{name: value for name, value in row.items() if name not in ("stored_at", "day")} for row in rows]
    return [{name: text_of(value) for name, value in row.items() if value is not None} for row in fields]


def structured(message: dict[str, Any]) -> dict[str, str]:
    """The structured data as rsyslog's mmpstrucdata or syslog-ng parsed it."""
    found = message.get("parsed", {}).get("rfc5424-sd") or message.get("_SDATA")
    assert found is not None, message
    return dict(found[ID])


def same(found: list[dict[str, str]], wanted: list[dict[str, str]]) -> None:
    """Both hold the same messages, in any order: UDP promises none."""
    assert len(found) == len(wanted)
    by_line = {(row["source_file"], row["source_offset"]): row for row in found}
    for row in wanted:
        other = by_line[(row["source_file"], row["source_offset"])]
        assert {**other, "inner": json.loads(other.get("inner", "null"))} == {
            **row,
            "inner": json.loads(row.get("inner", "null")),
        }


KINDS = ["rsyslog udp", "rsyslog tcp", "rsyslog tls", "rsyslog relp", "rsyslog relps", "syslog-ng tcp", "syslog-ng tls"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_arrives(
    kind: str, store: str, forward: Forward, tmp_path: Path, certificates: Certificates
) -> None:
    """2 000 packets arrive, each once, and the server's parse of the structured data gives back every field."""
    wanted = expected(stored(store))
    with receiving(kind, tmp_path, certificates) as (server, url):
        forwarder = forward(url)
        found = server.wait_for(len(wanted))
    same([structured(message) for message in found], wanted)
    counters = forwarder.counters
    assert (counters.sent, counters.failed, counters.cut, counters.queue_rows) == (len(wanted), 0, 0, 0)
    assert {message["app"] for message in found} == {"denylog"}


REFUSED = {
    "an authority that did not sign it": ("ca={foreign}", "the server's certificate is refused"),
    "another name than it carries": ("ca={ca}&server-name=elsewhere", "the server's certificate is refused"),
    "another fingerprint": ("fingerprint=" + "00" * 32, "another fingerprint"),
    "no certificate of ours": ("ca={ca}", ""),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("kind", ["tls", "relps"])
def test_tls_refuses(
    kind: str, case: str, store: str, forward: Forward, tmp_path: Path, certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """With the wrong authority, name or fingerprint, or without the certificate that the server asks for, nothing is
    sent or counted as sent, and --once says why."""
    if reason := missing_rsyslog():
        pytest.skip(reason)
    monkeypatch.setattr(outage, "ONCE_PATIENCE_S", 0.0)
    query, told = REFUSED[case]
    settings = query.format(ca=certificates.path("ca.pem"), foreign=certificates.path("foreign.pem"))
    with rsyslog(tmp_path, kind, certificates) as server:
        with pytest.raises(outage.Unreachable) as caught:
            forward(f"{kind}://localhost:{server.port}?{settings}")
        assert server.messages() == []
    assert told in caught.value.reason
    assert json.loads((tmp_path / f"{kind}.json").read_text())["messages"] == 0


def test_a_fingerprint_is_enough(store: str, forward: Forward, tmp_path: Path, certificates: Certificates) -> None:
    """A server is known by the fingerprint of its certificate alone, whoever signed it."""
    if reason := missing_rsyslog():
        pytest.skip(reason)
    ours = f"cert={certificates.path('client.pem')}&key={certificates.path('client.key')}"
    with rsyslog(tmp_path, "tls", certificates) as server:
        forward(f"tls://127.0.0.1:{server.port}?{ours}&min-tls=1.3&fingerprint={certificates.fingerprint()}")
        assert len(server.wait_for(2000)) == 2000


def test_nobody_listens(store: str, forward: Forward, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal is noticed over UDP as over TCP: nothing counts as sent."""
    monkeypatch.setattr(outage, "ONCE_PATIENCE_S", 0.0)
    for scheme in ("udp", "tcp"):
        with pytest.raises(outage.Unreachable, match="refused"):
            forward(f"{scheme}://127.0.0.1:{free_port()}")


@pytest.mark.parametrize("form", ["rfc3164", "cef", "ecs"])
def test_other_formats_arrive(
    form: str, store: str, forward: Forward, tmp_path: Path, certificates: Certificates
) -> None:
    """Every packet arrives in the other formats, under the node's name; RFC 3164 is read back as the packet it was."""
    if reason := missing_rsyslog():
        pytest.skip(reason)
    rows = stored(store)
    with rsyslog(tmp_path, "tcp", certificates) as server:
        forward(f"tcp://127.0.0.1:{server.port}?format={form}&framing=lines")
        found = server.wait_for(len(rows))
    assert [message["host"] for message in found] == [row["node"] for row in rows]
    if form == "ecs":
        assert [json.loads(message["msg"])["source"]["ip"] for message in found] == [row["source_ip"] for row in rows]
    if form == "rfc3164":
        lines = [message["raw"].partition(">")[2] for message in found]
        packets = [parse(line, Options(), anchor=datetime(2026, 11, 23, tzinfo=UTC)) for line in lines]
        assert [getattr(packet, "ip_id", None) for packet in packets] == [row["ip_id"] for row in rows]
        assert [getattr(packet, "uptime_s", None) for packet in packets] == [row["uptime_s"] for row in rows]


HOSTILE = ['a"]\n<5>1 - evil - - - - -', "x\0y", "\x1b[2J", "p\\", "\u202e]"]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with packets that carry such texts."""
    folder = str(tmp_path_factory.mktemp("hostile") / "store")
    with Writer(folder) as writer:
        writer.commit(make_commit([{"prefix": text, "node": text, "policy_name": text} for text in HOSTILE]))
    return folder


@pytest.mark.parametrize("form", FORMATS)
def test_hostile_text_is_one_message(
    form: str, hostile: str, forward: Forward, tmp_path: Path, certificates: Certificates
) -> None:
    """Line ends, quotes, brackets and NULs in a log do not make a second message at the server, nor end a field."""
    if reason := missing_rsyslog():
        pytest.skip(reason)
    with rsyslog(tmp_path, "tcp", certificates) as server:
        forward(f"tcp://127.0.0.1:{server.port}?framing=lines&format={form}", hostile)
        server.wait_for(len(HOSTILE))
        time.sleep(0.2)
        found = server.messages()
    assert len(found) == len(HOSTILE)
    if form == "rfc5424":
        assert [structured(message)["source_offset"] for message in found] == ["0", "100", "200", "300", "400"]
        assert structured(found[3])["prefix"] == "p\\"
