"""What comes into a store beside packets: objects of the cluster, verdicts, findings, and how far was forwarded.

Rule: one frozen record for each row, under the names of the table's columns; the store adds `stored_at` (and to
`forwarded` its `sequence`). All of one `Additions` is stored in one transaction, or nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectRow:
    """One version of an object (table `objects`); `labels` and `body` are JSON text, `body` None in a `gone` row."""

    kind: str
    namespace: str | None
    name: str
    uid: str | None = None
    api_version: str | None = None
    observed_at: datetime
    valid_from: datetime
    gone: bool = False
    node: str | None = None
    addresses: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    host_network: bool = False
    interface: str | None = None
    workload_kind: str | None = None
    workload: str | None = None
    labels: str | None = None
    selects: tuple[str, ...] = ()
    body: str | None = None
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """All objects of a kind (of one namespace, or of all) were listed at `at`: what is known and missing is gone.

    `group`: what comes before the slash in their apiVersion, or all of it ("v1", "networking.k8s.io").
    """

    kind: str
    group: str
    at: datetime
    namespace: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictRow:
    """Which policies denied a flow (table `verdicts`); `source_port` None stands for every source port.

    For one flow give either verdicts for every source port or verdicts for single ones: they may not overlap.
    """

    direction: str | None
    in_interface: str | None
    out_interface: str | None
    source_ip: str | None
    destination_ip: str | None
    protocol: str | None
    source_port: int | None = None
    destination_port: int | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    valid_from: datetime
    valid_until: datetime | None = None
    denied_by: tuple[str, ...]
    decided_by: str = "engine"
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingRow:
    """One finding (table `findings`); `subject` and `body` are JSON text."""

    id: str
    rule: str
    severity: str
    subject: str
    first: datetime
    last: datetime
    title: str
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardedRow:
    """How far packets were forwarded to `target` (table `forwarded`): the last acknowledged row, by its place.

    `messages`, `passed`, `dropped`: see the columns of these names.
    """

    target: str
    row_stored_at: datetime
    row_source_file: str
    row_source_offset: int
    messages: int
    passed: int | None = None
    dropped: int = 0
    time: datetime


@dataclass(frozen=True, slots=True)
class Additions:
    """Rows for several tables; an object that the store knows unchanged is left out when they are stored."""

    objects: tuple[ObjectRow, ...] = ()
    listings: tuple[Listing, ...] = ()
    verdicts: tuple[VerdictRow, ...] = ()
    findings: tuple[FindingRow, ...] = ()
    forwarded: tuple[ForwardedRow, ...] = ()


@dataclass(frozen=True, slots=True)
class Deposited:
    """What became of additions: rows that were stored (or wait in the inbox), and whether they wait (`queued`)."""

    rows: int
    queued: bool


ROWS: dict[str, type[object]] = {
    "objects": ObjectRow,
    "listings": Listing,
    "verdicts": VerdictRow,
    "findings": FindingRow,
    "forwarded": ForwardedRow,
}
"""The record of each part of `Additions`; all but `listings` are the rows of the table of that name."""


def count(additions: Additions) -> int:
    """How many rows these are."""
    return sum(len(getattr(additions, name)) for name in ROWS if name != "listings")
