"""Objects of a cluster (dumps, watch events) to rows with the time from which each held.

Rule: pure: what an object does not say is not made up. A pod's times are those in its status; an object that may have
changed since it was made holds from the newest time that it names, else from when it was seen.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from analytics.additions import Additions, Listing, ObjectRow
from analytics.intake import ENDED, gone, group_of
from analytics.kinds import (
    BY_GROUP,
    INTERFACE_PREFIX,
    MAKERS,
    Kind,
    Object,
    Sight,
    ended,
    identity,
    namespace_of,
    text_of,
    title,
)

if TYPE_CHECKING:
    from analytics.reader import Reader, Rows

# A copy of the object in one of its own annotations.
_SAID_BY_KUBECTL = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass(frozen=True, slots=True)
class Examined:
    """The rows, a sentence for each object or address that is unusable, and how many objects of which kinds are none
    that an inventory reads."""

    additions: Additions
    problems: tuple[str, ...]
    passed: Mapping[str, int]


def observe(
    objects: Iterable[Object],
    *,
    at: datetime,
    valid_from: datetime | None = None,
    complete_kinds: Iterable[str] = (),
    interface_prefix: str = INTERFACE_PREFIX,
    owners: Iterable[Object] = (),
) -> Additions:
    """The rows for objects that were seen at `at`, as `deposit` takes them; lists are opened.

    `valid_from`: since when they held, where the caller knows better than the objects. `complete_kinds`: kinds of which
    `objects` holds every one of the cluster ("Pod"; "NetworkPolicy.networking.k8s.io" where two groups have the kind),
    so that those which the store knows and which are missing are gone. Unusable objects are left out: see `examine`.
    `owners`: ReplicaSets and Jobs that are not among `objects`, or nothing but their metadata.
    """
    found = examine(objects, at=at, valid_from=valid_from, interface_prefix=interface_prefix, owners=owners).additions
    return replace(found, listings=tuple(_complete(complete_kinds, found.objects, at)))


def departed(objects: Iterable[Object], *, at: datetime) -> Additions:
    """The rows for objects that were deleted at `at` (DELETED events of a watch)."""
    seen = examine(objects, at=at).additions.objects
    return Additions(
        tuple(gone(row.kind, row.namespace, row.name, at, uid=row.uid, api_version=row.api_version) for row in seen)
    )


def examine(
    objects: Iterable[Object],
    *,
    at: datetime,
    valid_from: datetime | None = None,
    interface_prefix: str = INTERFACE_PREFIX,
    owners: Iterable[Object] = (),
) -> Examined:
    """Like `observe`, with what was left out and why."""
    opened = [each for given in objects for each in items(given)]
    makers = {identity(each): each for each in (*owners, *opened) if _is_maker(each)}
    sight = Sight(at, valid_from, interface_prefix, makers, [])
    passed: Counter[str] = Counter()
    rows: list[ObjectRow] = []
    for each in opened:
        kind = BY_GROUP.get((group_of(each.get("apiVersion")), str(each.get("kind"))))
        if kind is None and not _is_maker(each):
            passed[str(each.get("kind") or "object without a kind")] += 1
        elif kind is not None:
            rows.extend(_rows(each, kind, sight))
    return Examined(Additions(tuple(rows)), tuple(sight.problems), dict(passed))


def _is_maker(each: Object) -> bool:
    return group_of(each.get("apiVersion")) in MAKERS.get(str(each.get("kind")), ())


def items(document: Object) -> Iterator[Object]:
    """The objects in a document: itself, or those of a `List` (or `PodList`, …), however deep."""
    kind, within = str(document.get("kind", "")), document.get("items")
    if not kind.endswith("List") or not isinstance(within, list):
        yield document
        return
    for item in within:
        if isinstance(item, Mapping):
            # The items of a typed list from the API itself do not say what they are.
            named = {"apiVersion": document.get("apiVersion"), "kind": kind.removesuffix("List")}
            yield from items(item if "kind" in item else {**named, **item})


def listings(document: Object, at: datetime) -> Iterator[Listing]:
    """Which kinds a document lists completely: none, unless it is a list.

    A list of objects of one namespace is taken to be complete for that namespace (`kubectl get pods -n shop`), one of
    several namespaces for the whole cluster (`-A`).
    """
    listed = [] if document.get("items") is None else list(items(document))
    spaces = {namespace_of(each) for each in listed} - {None}
    kinds = {(str(each.get("kind")), group_of(each.get("apiVersion"))) for each in listed}
    for name, group in sorted(kinds):
        if kind := BY_GROUP.get((group, name)):
            one = next(iter(spaces)) if kind.namespaced and len(spaces) == 1 else None
            yield Listing(name, group, at, one)


def _complete(kinds: Iterable[str], rows: Iterable[ObjectRow], at: datetime) -> Iterator[Listing]:
    seen = {(row.kind, group_of(row.api_version)) for row in rows}
    for text in kinds:
        kind, _, group = text.partition(".")
        known = [each for each, name in BY_GROUP if name == kind and group in ("", each)]
        found = [each for each in known if (kind, each) in seen]
        yield from (Listing(kind, each, at) for each in found or known[:1])


# -- one object ------------------------------------------------------------------------------------------------------


def _rows(each: Object, kind: Kind, sight: Sight) -> Iterator[ObjectRow]:
    try:
        row = _row(each, kind, sight)
        end = ended(each, sight) if row.kind == "Pod" else None
    except (AttributeError, TypeError, ValueError, KeyError) as error:
        sight.problems.append(f"{title(each)}: left out, it is not as Kubernetes writes it ({error})")
        return
    yield row
    if end is not None:
        left = gone(row.kind, row.namespace, row.name, sight.at, uid=row.uid, api_version=row.api_version)
        yield replace(left, valid_from=end, digest=f"{ENDED}{row.digest}")


def _row(each: Object, kind: Kind, sight: Sight) -> ObjectRow:
    metadata = each["metadata"]
    labels = metadata.get("labels") or {}
    said: dict[str, Any] = {
        "kind": each["kind"],
        "namespace": namespace_of(each) or ("default" if kind.namespaced else None),
        "name": text_of(metadata["name"]),
        "uid": metadata.get("uid"),
        "api_version": each["apiVersion"],
        "labels": _json({str(key): str(value) for key, value in labels.items()}),
        "body": _json(_pared(each, kind)),
        **kind.fields(each, sight),
    }
    digest = hashlib.blake2b(_json(said).encode("utf-8", "replace"), digest_size=16).hexdigest()
    since = sight.valid_from or kind.since(each) or sight.at
    return ObjectRow(**said, observed_at=sight.at, valid_from=since, digest=digest)


def _pared(each: Object, kind: Kind) -> dict[str, Any]:
    """The object without what changes all the time, and what neither policies nor people need."""
    metadata = each["metadata"]
    kept: dict[str, Any] = {
        name: metadata[name]
        for name in ("name", "namespace", "uid", "labels", "creationTimestamp")
        if metadata.get(name) is not None
    }
    annotations = {key: value for key, value in (metadata.get("annotations") or {}).items() if key != _SAID_BY_KUBECTL}
    if annotations and kind.spec is None:
        kept["annotations"] = annotations
    body: dict[str, Any] = {"apiVersion": each["apiVersion"], "kind": each["kind"], "metadata": kept}
    for name, fields in (("spec", kind.spec), ("status", kind.status)):
        part = each.get(name) or {}
        chosen = part if fields is None else {key: part[key] for key in fields if part.get(key) is not None}
        if chosen:
            body[name] = chosen
    for group in ("containers", "initContainers") if each["kind"] == "Pod" else ():
        if containers := (each.get("spec") or {}).get(group):
            body.setdefault("spec", {})[group] = [_only_ports(container) for container in containers]
    return body


def _only_ports(container: Object) -> dict[str, Any]:
    return {name: container[name] for name in ("name", "ports") if container.get(name)}


def objects_at(reader: Reader, time: datetime, kinds: Collection[str] = ()) -> list[dict[str, Any]]:
    """The objects (of these kinds; of all where none is named) that held at `time`, as `policies` loads them.

    They are pared to what policies and people need. Raises StoreError.
    """
    wanted = " AND kind IN (SELECT unnest($kinds))" if kinds else ""
    parameters = {"time": time, **({"kinds": list(kinds)} if kinds else {})}
    rows = reader.rows(_AT.format(wanted=wanted), parameters).rows
    return [json.loads(body) for (body,) in rows]


def holders(reader: Reader, address: str) -> Rows:
    """Who held an address, from when until when, in the order of time; for the networks that it is in, these.

    Raises ValueError for what is no address, and StoreError.
    """
    text = str(ipaddress.ip_address(address.strip()))
    return reader.rows(_HOLDERS, {"address": text})


_HOLDERS = """
SELECT address, class, namespace, name, workload_kind, workload, node, service, interface, valid_from,
    CASE WHEN valid_until < 'infinity' THEN valid_until END AS valid_until
FROM address_intervals WHERE address = $address ORDER BY valid_from
"""

_AT = """
SELECT body FROM object_intervals
WHERE valid_from <= $time AND (valid_until IS NULL OR $time < valid_until){wanted}
ORDER BY kind, namespace NULLS FIRST, name, api_version
"""


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
