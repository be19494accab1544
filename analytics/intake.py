"""Which rows of a deposit are new: a version of an object that says nothing new is not stored again.

Rule: the order in which dumps are imported does not matter: a version is compared with the one that was seen just
before it, and what a complete list lacks is gone only if it was seen before the list was made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

import duckdb
import polars as pl

from analytics.additions import Listing, ObjectRow
from analytics.engine import ArrowStream

ENDED = "ended "
"""What the digest of a gone row begins with that an object brought along itself (a pod that has terminated)."""

Key = tuple[str, str, str | None, str]

# The version of each object that was seen last, no later than the incoming one.
_BEFORE = """
SELECT i.position, max_by(o.digest, (o.observed_at, o.gone, o.stored_at)) AS digest
FROM incoming AS i JOIN objects AS o ON o.kind = i.kind AND o.name = i.name
    AND coalesce(o.namespace, '') = i.namespace AND split_part(o.api_version, '/', 1) = i.api_group
    AND o.observed_at <= i.observed_at
GROUP BY i.position
"""
# What was there when a list was made, as far as it had been seen before.
_KNOWN = """
SELECT kind, split_part(api_version, '/', 1), namespace, name, max_by(uid, seen), max_by(api_version, seen)
FROM (SELECT *, (observed_at, gone, stored_at) AS seen FROM objects WHERE kind = $kind AND observed_at <= $at
    AND split_part(api_version, '/', 1) = $group AND ($namespace IS NULL OR namespace = $namespace))
GROUP BY ALL HAVING NOT max_by(gone, seen)
"""


def fresh(
    connection: duckdb.DuckDBPyConnection, objects: Iterable[ObjectRow], listings: Iterable[Listing]
) -> list[ObjectRow]:
    """The rows to store: those of `objects` that say something new, and a gone row for what the lists lack."""
    arrived = sorted(objects, key=lambda row: (row.observed_at, row.gone))
    return [*_changed(arrived, _before(connection, arrived)), *_missing(connection, arrived, listings)]


def _key(row: ObjectRow) -> Key:
    return row.kind, group_of(row.api_version), row.namespace, row.name


def group_of(api_version: str | None) -> str:
    """The API group of "group/version"; for the core group, which has no name, its version."""
    return (api_version or "").partition("/")[0]


def _changed(arrived: list[ObjectRow], before: dict[Key, str]) -> Iterator[ObjectRow]:
    for row in arrived:
        known = before.get(_key(row))
        # A terminated pod comes as a version and a gone row: of the version the gone row that is known speaks too.
        same = known in (row.digest, f"{ENDED}{row.digest}")
        if not same and (known is not None or not row.gone):
            yield row
        if not same or row.gone:
            before[_key(row)] = row.digest


def _before(connection: duckdb.DuckDBPyConnection, arrived: list[ObjectRow]) -> dict[Key, str]:
    """The digests of the versions that were seen just before the first incoming version of each object."""
    first: dict[Key, ObjectRow] = {}
    for row in arrived:
        first.setdefault(_key(row), row)
    if not first:
        return {}
    keys = list(first)
    incoming = pl.DataFrame(
        {
            "position": range(len(keys)),
            "kind": [key[0] for key in keys],
            "api_group": [key[1] for key in keys],
            "namespace": [key[2] or "" for key in keys],
            "name": [key[3] for key in keys],
            "observed_at": [row.observed_at for row in first.values()],
        }
    )
    connection.register("incoming", ArrowStream(incoming))
    try:
        return {keys[position]: digest for position, digest in connection.execute(_BEFORE).fetchall()}
    finally:
        connection.unregister("incoming")


def _missing(
    connection: duckdb.DuckDBPyConnection, arrived: list[ObjectRow], listings: Iterable[Listing]
) -> Iterator[ObjectRow]:
    listed = {(_key(row), row.observed_at) for row in arrived}
    told: set[Key] = set()
    for listing in listings:
        for row in _known(connection, listing):
            if (_key(row), listing.at) not in listed and _key(row) not in told:
                told.add(_key(row))
                yield row


def _known(connection: duckdb.DuckDBPyConnection, listing: Listing) -> list[ObjectRow]:
    parameters = {
        "kind": listing.kind,
        "group": listing.group,
        "at": listing.at,
        "namespace": listing.namespace,
    }
    found = connection.execute(_KNOWN, parameters).fetchall()
    return [
        gone(kind, namespace, name, listing.at, uid=uid, api_version=api_version)
        for kind, _, namespace, name, uid, api_version in found
    ]


def gone(
    kind: str, namespace: str | None, name: str, at: datetime, *, uid: str | None = None, api_version: str | None = None
) -> ObjectRow:
    """The row which says that an object was seen no more at `at`."""
    return ObjectRow(
        kind=kind, namespace=namespace, name=name, uid=uid, api_version=api_version, observed_at=at, valid_from=at,
        gone=True, digest="gone",
    )  # fmt: skip
