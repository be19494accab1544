"""The policies of now, and the pods and namespaces beside them, kept in the store for the packets of their time.

Rule: only what can be read is kept: a policy that is missing would blame others. A list of policies is taken to be
whole, so what the store knows and the list lacks is gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from analytics.additions import Listing
from analytics.inbox import deposit
from analytics.inventory import examine, listings
from analytics.kinds import BY_GROUP
from policies.actions import Exit, Result
from policies.errors import PolicyError, Problem
from policies.fields import KINDS
from policies.load import Found, Source, assembled, find, selector_problem
from policies.model import Place

_CORE = {"": "v1"}
"""How the store calls the group that has no name."""


@dataclass(frozen=True, slots=True)
class Taken:
    """When a snapshot was taken, since when its objects held (None: as they tell), and whether it is a part of all."""

    at: datetime
    valid_from: datetime | None = None
    partial: bool = False


def snapshot(sources: Sequence[Source], store: str, taken: Taken) -> Result:
    """Keep what the sources hold. Raises PolicyError where something cannot be read, StoreError."""
    found = _readable(find(sources))
    objects = [dict(each.document) for each in found.objects]
    examined = examine(objects, at=taken.at, valid_from=taken.valid_from)
    live = not all(isinstance(source, str) for source in sources)
    whole = () if taken.partial else tuple(_whole(objects, taken.at, live=live))
    done = deposit(store, replace(examined.additions, listings=whole))
    return Result("", (*_told(found, done.rows, queued=done.queued), *examined.problems), Exit.OK)


def _readable(found: Found) -> Found:
    """What was found, where every object can be read and a policy is among them."""
    loaded = assembled(found)
    problems = loaded.problems or tuple(filter(None, map(selector_problem, loaded.inventory.policies)))
    if problems:
        raise PolicyError(problems)
    if not loaded.inventory.policies:
        advice = "name files that hold some, or --cluster; `denylog inventory import` takes everything else"
        raise PolicyError([Problem("no-policies", Place("snapshot"), "", "no network policy in it", advice)])
    return found


def _whole(objects: Sequence[Mapping[str, Any]], at: datetime, *, live: bool) -> list[Listing]:
    """The kinds of policies that are listed completely: those in the files, or every kind of a cluster."""
    if live:
        groups = [(_CORE.get(group, group), name) for group, name in KINDS]
        return [Listing(name, group, at) for group, name in groups if (group, name) in BY_GROUP]
    policies = [each for each in objects if str(each.get("kind")).endswith("NetworkPolicy") or each["kind"] == "Tier"]
    return list(listings({"apiVersion": "v1", "kind": "List", "items": policies}, at))


def _told(found: Found, rows: int, *, queued: bool) -> tuple[str, ...]:
    kinds = Counter(each.kind.name for each in found.objects)
    listed = ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))
    others = sum(found.skipped.values())
    notes = [f"snapshot of {listed}"]
    notes.append(
        f"{rows:,} versions wait for the process that holds the store, which takes them in within seconds"
        if queued
        else f"{rows:,} versions are new to the store"
    )
    return (*notes, *([f"{others:,} objects of other kinds passed over"] if others else []))
