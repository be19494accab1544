"""Forwarding to real servers: every packet arrives, and the server's own parser gives back every field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.forward.conftest import Forward, stored
from tests.forward.receivers import Certificates, Server, missing_rsyslog, missing_syslog_ng, rsyslog, syslog_ng

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
