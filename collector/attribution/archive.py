"""The store as `policies` sees it: denied packets, each flow once, and every version of the objects of their time.

Rule: it is only read, and nothing about policies is decided here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from analytics import Reader
from analytics.filters import Where, where
from analytics.options import local_zone
from policies.errors import PolicyError, Problem
from policies.fields import KINDS
from policies.logged import Packet
from policies.model import Place
from policies.past import ALWAYS, Span, Version

FLOW = (
    "direction",
    "in_interface",
    "out_interface",
    "source_ip",
    "destination_ip",
    "protocol",
    "destination_port",
    "icmp_type",
    "icmp_code",
)
"""The columns by which packets are one flow; those of `verdicts`, but for the source port."""

_FLOWS = """
SELECT {key}, CASE WHEN $source_ports THEN source_port END AS source_port, max(time) AS time,
    arg_max(node, time) AS node, sum(packet_count)::BIGINT AS packets
FROM denied WHERE {where} GROUP BY ALL ORDER BY time DESC NULLS LAST, {key}, source_port
"""
_LAST = (
    "SELECT * FROM denied WHERE {where} ORDER BY time DESC NULLS LAST, uptime_s DESC NULLS LAST, stored_at DESC LIMIT 1"
)
_ONE = "SELECT * FROM denied WHERE {where} AND starts_with(source_file, $file) AND source_offset = $offset LIMIT 2"
_VERSIONS = """
SELECT body, valid_from, valid_until FROM object_intervals WHERE list_contains($kinds, kind) AND body IS NOT NULL
ORDER BY kind, namespace, name, valid_from
"""
RELEVANT = tuple(sorted({name for _, name in KINDS}))
"""Kinds of objects that policies read."""


class StoredArchive:
    """An open store and the packets that the filters choose; a `policies.archive.Archive`."""

    def __init__(self, reader: Reader, chosen: Where, now: datetime) -> None:
        self.reader = reader
        self.chosen = chosen
        self.now = now

    def flows(self, *, source_ports: bool) -> list[Packet]:
        """See `policies.archive.Archive`."""
        sql = _FLOWS.format(key=", ".join(FLOW), where=self.chosen.sql)
        return list(self.reader.rows(sql, {**self.chosen.parameters, "source_ports": source_ports}).dicts())

    def packet(self, which: str) -> Packet | None:
        """See `policies.archive.Archive`."""
        if which == "last":
            found = self.reader.rows(_LAST.format(where=self.chosen.sql), self.chosen.parameters).dicts()
            return found[0] if found else None
        file, _, offset = which.rpartition(":")
        if not file or not (offset.isascii() and offset.isdigit() and len(offset) < 19):
            raise _unusable(
                which, "neither 'last' nor SOURCE_FILE:SOURCE_OFFSET", "`denylog packets -o jsonl` shows both"
            )
        parameters = {**self.chosen.parameters, "file": file, "offset": int(offset)}
        found = self.reader.rows(_ONE.format(where=self.chosen.sql), parameters).dicts()
        if len(found) > 1:
            raise _unusable(which, "several files begin like this", "write more of the name")
        return found[0] if found else None

    def versions(self) -> list[Version]:
        """See `policies.archive.Archive`."""
        rows = self.reader.rows(_VERSIONS, {"kinds": list(RELEVANT)}).rows
        return [Version(json.loads(body), Span(since, until or ALWAYS.until)) for body, since, until in rows]


def _unusable(which: str, message: str, advice: str) -> PolicyError:
    return PolicyError([Problem("packet", Place("--packet"), "", f"{which!r}: {message}", advice)])


@contextmanager
def open_archive(store: str, filters: Mapping[str, Any]) -> Iterator[StoredArchive]:
    """A `policies.archive.Opener`. Raises StoreError, FilterError."""
    now, zone = datetime.now(UTC), local_zone()
    condition = where(filters, now=now, zone=zone)
    with Reader(store, zone=getattr(zone, "key", "UTC")) as reader:
        yield StoredArchive(reader, condition, now)
