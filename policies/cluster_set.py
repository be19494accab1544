"""The Log policies of a cluster beside those that should be there: what differs, what is ours, what has expired.

Rule: only an object with our label is ours. Objects are compared as what they mean (through the model), so that what a
server adds (defaults, labels) is no difference. Pure: no requests, no clock.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeAlias

from policies.errors import PolicyError
from policies.load import found_as, record
from policies.model import Policy
from policies.output import as_yaml
from policies.pairing import MANAGED_BY
from policies.render import Data, policy_object
from policies.written import labels, mapping, text

Key: TypeAlias = tuple[str, str, str]
"""Kind, namespace ("" outside of one) and name."""

EXPIRES = "denylog/expires-at"
"""The annotation that says until when a Log policy is wanted (RFC 3339)."""
_OURS = "denylog/"
_UNPREFIXED_TIER = "default."
"""Releases 3.29 and 3.30 hand out the names of tier default with this in front (projectcalico/calico issue 10364)."""


class State(StrEnum):
    """What has to be done about one object."""

    CREATE = "create"
    CHANGE = "change"
    SAME = "same"
    DELETE = "delete"
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class Difference:
    """One object: as it is in the cluster and as it should be; None where it is not there."""

    key: Key
    live: Data | None
    wanted: Data | None

    @property
    def state(self) -> State:
        """What is to be done."""
        if self.live is None:
            return State.CREATE
        if not is_ours(self.live):
            return State.FOREIGN
        if self.wanted is None:
            return State.DELETE
        return State.SAME if comparable(self.live) == comparable(self.wanted) else State.CHANGE

    def __str__(self) -> str:
        kind, namespace, name = self.key
        return f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"


def is_ours(found: Mapping[str, Any]) -> bool:
    """Whether the object carries the label of everything that denylog makes."""
    return MANAGED_BY.items() <= labels(mapping(found, "metadata"), "labels").items()


def key_of(found: Mapping[str, Any]) -> Key:
    """What makes two objects the same one."""
    metadata = mapping(found, "metadata")
    return text(found, "kind"), text(metadata, "namespace"), text(metadata, "name").removeprefix(_UNPREFIXED_TIER)


def differences(live: Iterable[Data], wanted: Iterable[Data]) -> list[Difference]:
    """Every wanted object, and every one of ours that is not wanted, by key. Others are left out unless in the way."""
    there = {key_of(each): each for each in live}
    should = {key_of(each): each for each in wanted}
    unwanted = {key for key, each in there.items() if is_ours(each)} - should.keys()
    return [Difference(key, there.get(key), should.get(key)) for key in sorted(should.keys() | unwanted)]


def comparable(found: Data) -> Data:
    """What the object means, without what a server or anybody else adds to it; its expiry is no part of that."""
    meant = policy_object(policy) if (policy := _policy(found)) else dict(found)
    metadata = mapping(meant, "metadata")
    kind, namespace, name = key_of(found)
    kept: Data = {"name": name} | ({"namespace": namespace} if namespace else {})
    for field, ours in (("labels", MANAGED_BY.__contains__), ("annotations", _told)):
        if chosen := {key: value for key, value in labels(metadata, field).items() if ours(key)}:
            kept[field] = chosen
    return {"apiVersion": found.get("apiVersion"), "kind": kind, "metadata": kept, "spec": meant.get("spec")}


def _told(annotation: str) -> bool:
    return annotation.startswith(_OURS) and annotation != EXPIRES


def _policy(found: Data) -> Policy | None:
    """The policy that an object is; None where somebody has made something of it that cannot be read."""
    read = found_as([found], "cluster").objects
    try:
        policy = record(read[0]) if read else None
    except PolicyError:
        return None
    return policy if isinstance(policy, Policy) else None


def unified(found: Iterable[Difference]) -> str:
    """A unified diff, from the cluster to what should be there."""
    return "".join(_lines(each) for each in found if each.state is not State.SAME)


def _lines(each: Difference) -> str:
    before, after = (as_yaml([comparable(side)]) if side else "" for side in (each.live, each.wanted))
    here = f"cluster: {each}" if each.live else "/dev/null"
    there = f"generated: {each}" if each.wanted else "/dev/null"
    return "".join(difflib.unified_diff(before.splitlines(True), after.splitlines(True), here, there))


def expiring(wanted: Data, until: datetime | None) -> Data:
    """The object with the time until which it is wanted; as it is where that is for ever."""
    if until is None:
        return wanted
    metadata = wanted["metadata"]
    annotations = {**labels(metadata, "annotations"), EXPIRES: until.strftime("%Y-%m-%dT%H:%M:%SZ")}
    return wanted | {"metadata": metadata | {"annotations": annotations}}


def expiry(found: Data) -> datetime | None:
    """When the object expires; None for never. Raises ValueError for what is no time with a zone."""
    written = labels(mapping(found, "metadata"), "annotations").get(EXPIRES)
    if written is None:
        return None
    at = datetime.fromisoformat(written)
    if at.tzinfo is None:
        raise ValueError(f"{written!r} names no zone")
    return at
