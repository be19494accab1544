"""Following a cluster: what lists and watches of the Kubernetes API say goes into the store as versions of objects.

Rule: what is seen waits about a second, so that one transaction holds many changes; memory holds a bounded number of
them, and a store that takes nothing makes the watches wait. How one resource is followed is in `cluster_follower`.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from analytics import StoreError
from analytics.additions import Additions
from analytics.inbox import deposit
from analytics.intake import group_of
from analytics.kinds import BY_GROUP
from collector.cluster_follower import Cadence, Connection, Follower, Pauses, listing
from policies.cluster_source import LiveCluster
from policies.errors import ClusterError
from policies.resources import READS, Resource

_LOG = logging.getLogger(__name__)

_WAITING = 512
"""Changes that may wait for the store; a list counts as one. Memory holds no more, whatever the cluster does."""
_TICK_S = 0.25
_END_S = 2.0
"""How long the end waits for the watches; they are daemon threads, so one that hangs ends with the program."""
_DUTY = 4
_LONGEST_BATCH_S = 5.0
"""A deposit is followed by _DUTY times as long a wait, but no longer than this: opening a large store takes a while."""
WATCHED = tuple(each for each in READS if (group_of(each.api_version), each.kind) in BY_GROUP)
"""What an inventory holds of all that can be read."""


@dataclass(slots=True)
class Tally:
    """What a run stored: deposits and rows; `queued`: rows that wait for the process that holds the store."""

    deposits: int = 0
    rows: int = 0
    queued: int = 0


class Watching:
    """Follows every resource of a cluster and deposits what they say."""

    def __init__(
        self, connection: Connection, store: str, stop: threading.Event, cadence: Cadence, prefix: str
    ) -> None:
        self.tally = Tally()
        self._connection = connection
        self._store = store
        self._stop = stop
        self._cadence = cadence
        self._prefix = prefix
        self._pauses = Pauses(cadence)
        self._rest_s = 0.0
        self._news: queue.Queue[Additions] = queue.Queue(_WAITING)
        self._pending: list[Additions] = []
        self._served: set[Resource] = set()
        self._followers: dict[Resource, Follower] = {}

    def once(self) -> None:
        """List everything and deposit it in one transaction. Raises ClusterError and StoreError."""
        with self._connection.borrowed() as cluster:
            served = cluster.served(WATCHED)
            lists = [self._follower(each).list(cluster) for each in served]
        self._deposit(_together([_absent(served), *lists]))

    def run(self, ready: Callable[[int], None]) -> None:
        """Follow until `stop` is set; `ready` is called with the number of resources once all of them were listed.

        Raises ClusterError for what no waiting mends before that, and StoreError.
        """
        try:
            self._follow(ready)
        finally:
            self._end()
        if batch := self._gather(0):
            self._deposit(batch)

    def _follow(self, ready: Callable[[int], None]) -> None:
        due, told = time.monotonic(), False
        while not self._stop.is_set():
            if time.monotonic() >= due:
                due = time.monotonic() + self._discover()
            self._check()
            listed = bool(self._followers) and all(each.listed.is_set() for each in self._followers.values())
            if batch := self._gather(max(self._cadence.batch_s, self._rest_s)):
                self._deposit(batch)
            if listed and not told:
                ready(len(self._followers))
                told = True

    def _end(self) -> None:
        for each in self._followers.values():
            each.stop.set()
        patience = time.monotonic() + _END_S
        while any(each.is_running() for each in self._followers.values()) and time.monotonic() < patience:
            self._connection.interrupt()
            time.sleep(_END_S / 100)

    def _follower(self, resource: Resource) -> Follower:
        return Follower(resource, self._connection, self._cadence, self._prefix)

    def _discover(self) -> float:
        """Follow what the cluster serves now, and no longer what it does not; seconds until the next look."""
        try:
            with self._connection.borrowed() as cluster:
                served = cluster.served(WATCHED)
        except ClusterError as error:
            if not error.retryable and not self._followers:
                raise
            self._connection.complain(error)
            return self._pauses.longer()
        self._connection.works()
        self._pauses.reset()
        for resource in self._followers.keys() - set(served):
            self._followers.pop(resource).stop.set()
        if set(served) != self._served:
            self._served = set(served)
            self._pending.append(_absent(served))
        for resource in served:
            if resource not in self._followers:
                self._followers[resource] = self._follower(resource)
                self._followers[resource].start(self._news)
        return self._cadence.discover_s

    def _check(self) -> None:
        for each in self._followers.values():
            if isinstance(each.failure, ClusterError) and (each.failure.retryable or each.listed.is_set()):
                continue
            if each.failure is not None:
                raise each.failure

    def _gather(self, seconds: float) -> Additions | None:
        """What comes within the time, from the first of it on; None where nothing comes."""
        found, self._pending = self._pending, []
        end = time.monotonic() + seconds
        while len(found) < _WAITING:
            try:
                found.append(self._news.get(timeout=min(_TICK_S, max(0.0, end - time.monotonic()))))
            except queue.Empty:
                if self._stop.is_set() or time.monotonic() >= end:
                    break
        return _together(found) if found else None

    def _deposit(self, additions: Additions) -> None:
        """Store it, however long the store takes; once `stop` is set it is tried one last time."""
        pauses, told = Pauses(self._cadence), False
        while True:
            last, began = self._stop.is_set(), time.monotonic()
            try:
                done = deposit(self._store, additions)
                break
            except StoreError as error:
                if not error.retryable or last:
                    raise
                if not told:
                    _LOG.error("%s; the watches wait until the store takes rows again, nothing is lost", error)
                told = True
            self._stop.wait(pauses.longer())
        if told:
            _LOG.warning("the store takes rows again")
        self._rest_s = min(_DUTY * (time.monotonic() - began), _LONGEST_BATCH_S)
        self.tally.deposits += 1
        self.tally.rows += done.rows
        self.tally.queued += done.rows if done.queued else 0


def _absent(served: Iterable[Resource]) -> Additions:
    """That there is nothing of the resources which a cluster does not serve: it may have served them before."""
    at, there = datetime.now(UTC), set(served)
    return Additions(listings=tuple(listing(each, at) for each in WATCHED if each not in there))


def _together(found: Iterable[Additions]) -> Additions:
    parts = list(found)
    objects = tuple(row for part in parts for row in part.objects)
    return Additions(objects, tuple(each for part in parts for each in part.listings))


def watch(
    live: LiveCluster,
    store: str,
    stop: threading.Event,
    *,
    once: bool = False,
    interface_prefix: str = "cali",
    cadence: Cadence | None = None,
    spread_s: float = 0,
    ready: Callable[[int], None] = lambda resources: None,
) -> Tally:
    """Keep the inventory of a store in step with a cluster until `stop` is set (`once`: list what there is, and end).

    `spread_s`: begin at a random moment within this time, so that many of them do not list at once.

    Raises ClusterError where the cluster cannot be used at all, StoreError where the store cannot.
    """
    stop.wait(random.uniform(0, spread_s))
    connection = Connection(live)
    watching = Watching(connection, store, stop, cadence or Cadence(), interface_prefix)
    try:
        watching.once() if once else watching.run(ready)
    finally:
        connection.close()
    return watching.tally
