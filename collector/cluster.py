"""Following a cluster: what lists and watches of the Kubernetes API say goes into the store as versions of objects.

Rule: nothing is missed and nothing is stored twice. Each resource is listed, then watched from the version of the list;
a watch that ends is taken up where it ended, and one whose version has expired (410 Gone) begins with a new list, which
also tells what is gone. What is seen waits about a second, so that one transaction holds many changes; a store that
takes nothing makes the watches wait.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from analytics import StoreError
from analytics.additions import Additions, Listing, ObjectRow
from analytics.inbox import deposit
from analytics.intake import group_of
from analytics.inventory import departed, observe
from analytics.kinds import BY_GROUP
from policies.cluster_source import LiveCluster, is_imported
from policies.errors import ClusterError
from policies.kube import GONE, Cluster, Event
from policies.resources import READS, Resource

_LOG = logging.getLogger(__name__)

_WAITING = 512
"""Changes that may wait for the store; a list counts as one. Memory holds no more, whatever the cluster does."""
_TICK_S = 0.25
_SHORT_S = 1.0
"""A watch begins no sooner after the one before, in case a server ends each at once."""
_END_S = 2.0
"""How long the end waits for a watch; it is a daemon thread, so one that hangs ends with the program."""
_TOLD_AFTER = 2
"""Failures in a row that are worth a word: connections end all the time, and the next attempt works."""
WATCHED = tuple(each for each in READS if (group_of(each.api_version), each.kind) in BY_GROUP)
"""What an inventory holds of all that can be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cadence:
    """Seconds: between two deposits, between two looks at which APIs there are, and of pauses after a failure."""

    batch_s: float = 1.0
    discover_s: float = 600.0
    first_pause_s: float = 0.5
    longest_pause_s: float = 60.0


@dataclass(slots=True)
class Tally:
    """What a run stored: deposits and rows; `queued`: rows that wait for the process that holds the store."""

    deposits: int = 0
    rows: int = 0
    queued: int = 0


class Connection:
    """One connection for all watches, made anew after a failure: certificates and addresses in a kubeconfig change."""

    def __init__(self, live: LiveCluster) -> None:
        self._live = live
        self._lock = threading.Lock()
        self._newest: Cluster | None = None
        self._users: Counter[Cluster] = Counter()
        self._wrong: ClusterError | None = None

    @contextmanager
    def borrowed(self) -> Iterator[Cluster]:
        """The cluster; after a ClusterError the next one to ask gets a new connection. Raises ClusterError."""
        with self._lock:
            cluster = self._newest = self._newest or self._live.connect()
            self._users[cluster] += 1
        try:
            yield cluster
        except ClusterError as error:
            if error.code != GONE:
                self._retire(cluster)
            raise
        finally:
            self._give_back(cluster)

    def _retire(self, cluster: Cluster) -> None:
        with self._lock:
            self._newest = None if self._newest is cluster else self._newest

    def _give_back(self, cluster: Cluster) -> None:
        with self._lock:
            self._users[cluster] -= 1
            if not self._users[cluster] and cluster is not self._newest:
                del self._users[cluster]
                cluster.close()

    def complain(self, error: ClusterError) -> None:
        """Say it, unless it was said: when an API server stops, every watch has the same to say."""
        with self._lock:
            if self._wrong is None or self._wrong.what != error.what:
                _LOG.warning("%s; it is tried again", error)
            self._wrong = error

    def works(self) -> None:
        """Say that it works again, if there was a complaint."""
        with self._lock:
            if self._wrong is not None:
                _LOG.warning("%s is watched again", self._wrong.where)
            self._wrong = None

    def close(self) -> None:
        """End every watch and close all that is open."""
        with self._lock:
            for cluster in {*self._users, *([self._newest] if self._newest else [])}:
                cluster.close()


class Pauses:
    """How long to wait after each failure in a row: twice as long each time, and never all at the same moment."""

    def __init__(self, cadence: Cadence) -> None:
        self._cadence = cadence
        self._next = cadence.first_pause_s

    def longer(self) -> float:
        """Seconds to wait now."""
        pause, self._next = self._next, min(2 * self._next, self._cadence.longest_pause_s)
        return pause * random.uniform(0.5, 1.5)

    def reset(self) -> None:
        """It worked."""
        self._next = self._cadence.first_pause_s


class Follower:
    """Lists and watches one resource in a thread of its own and puts what is new into a queue.

    `listed` is set after the first list; until then `failure` is what stands in its way.
    """

    def __init__(self, resource: Resource, connection: Connection, cadence: Cadence, prefix: str) -> None:
        self.resource = resource
        self.stop = threading.Event()
        self.listed = threading.Event()
        self.failure: ClusterError | None = None
        self._connection = connection
        self._prefix = prefix
        self._pauses = Pauses(cadence)
        self._failures = 0
        self._version = ""
        self._known: dict[tuple[str | None, str], tuple[str, ...]] = {}

    def start(self, news: queue.Queue[Additions]) -> None:
        """Follow until `stop` is set and the connection is closed."""
        self._thread = threading.Thread(target=self._run, args=(news,), name=f"watch {self.resource}", daemon=True)
        self._thread.start()

    def join(self, seconds: float) -> None:
        """Wait for its end, but no longer than this."""
        self._thread.join(seconds)

    def list(self, cluster: Cluster) -> Additions:
        """Every object that there is, and that there are no others. Raises ClusterError."""
        rows: list[ObjectRow] = []
        at, version = None, ""
        for page in cluster.pages(self.resource):
            at, version = at or datetime.now(UTC), page.version
            rows += observe(_named(page.objects), at=at, interface_prefix=self._prefix).objects
        self._known = {}
        for row in rows:
            key = row.namespace, row.name
            self._known[key] = (*self._known.get(key, ()), row.digest)
        self._version = version
        return Additions(tuple(rows), (listing(self.resource, at or datetime.now(UTC)),))

    def _run(self, news: queue.Queue[Additions]) -> None:
        while not self.stop.is_set():
            began = time.monotonic()
            try:
                with self._connection.borrowed() as cluster:
                    self._follow(cluster, news)
            except ClusterError as error:
                if not self.stop.is_set():
                    self._failed(error)
            else:
                self.stop.wait(max(0.0, began + _SHORT_S - time.monotonic()))

    def _follow(self, cluster: Cluster, news: queue.Queue[Additions]) -> None:
        """One watch, after a list where there is no version to go on from."""
        if not self._version:
            self._put(news, self.list(cluster))
            self.listed.set()
        for event in cluster.watch(self.resource, self._version):
            self._put(news, self._seen(event))
            self._version = event.version or self._version
            self._worked()
            if self.stop.is_set():
                return

    def _seen(self, event: Event) -> Additions:
        """What an event says that was not known: most tell only that something about the status has changed."""
        at = datetime.now(UTC)
        objects = _named([event.object]) if event.type in ("ADDED", "MODIFIED", "DELETED") else ()
        if event.type == "DELETED":
            found = departed(objects, at=at)
            for row in found.objects:
                self._known.pop((row.namespace, row.name), None)
            return found
        found = observe(objects, at=at, interface_prefix=self._prefix)
        for row in found.objects[:1]:
            key, digests = (row.namespace, row.name), tuple(each.digest for each in found.objects)
            if self._known.get(key) == digests:
                return Additions()
            self._known[key] = digests
        return found

    def _put(self, news: queue.Queue[Additions], found: Additions) -> None:
        while (found.objects or found.listings) and not self.stop.is_set():
            try:
                news.put(found, timeout=_TICK_S)
                return
            except queue.Full:
                continue

    def _worked(self) -> None:
        if self._failures >= _TOLD_AFTER:
            self._connection.works()
        self._failures, self.failure = 0, None
        self._pauses.reset()

    def _failed(self, error: ClusterError) -> None:
        if error.code == GONE:
            self._version = ""
        else:
            self.failure = error
            self._failures += 1
        if self._failures == _TOLD_AFTER:
            self._connection.complain(error)
        self.stop.wait(self._pauses.longer())


def _named(objects: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return (each for each in objects if (each.get("metadata") or {}).get("name") and not is_imported(each))


def listing(resource: Resource, at: datetime) -> Listing:
    """That all objects of the resource were listed at this time."""
    return Listing(resource.kind, group_of(resource.api_version), at)


# -- all resources ----------------------------------------------------------------------------------------------------


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
        self._news: queue.Queue[Additions] = queue.Queue(_WAITING)
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
        due, told = time.monotonic(), False
        while not self._stop.is_set():
            if time.monotonic() >= due:
                due = time.monotonic() + self._discover()
            self._check()
            if batch := self._gather(self._cadence.batch_s):
                self._deposit(batch)
            if not told and self._followers and all(each.listed.is_set() for each in self._followers.values()):
                ready(len(self._followers))
                told = True
        self._end()
        if batch := self._gather(0):
            self._deposit(batch)

    def _end(self) -> None:
        for each in self._followers.values():
            each.stop.set()
        self._connection.close()
        for each in self._followers.values():
            each.join(_END_S)

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
        self._news.put(_absent(served))
        for resource in served:
            if resource not in self._followers:
                self._followers[resource] = self._follower(resource)
                self._followers[resource].start(self._news)
        return self._cadence.discover_s

    def _check(self) -> None:
        for each in self._followers.values():
            if each.failure is not None and not each.failure.retryable and not each.listed.is_set():
                raise each.failure

    def _gather(self, seconds: float) -> Additions | None:
        """What comes within the time, from the first of it on; None where nothing comes."""
        found: list[Additions] = []
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
            last = self._stop.is_set()
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
    ready: Callable[[int], None] = lambda resources: None,
) -> Tally:
    """Keep the inventory of a store in step with a cluster until `stop` is set (`once`: list what there is, and end).

    Raises ClusterError where the cluster cannot be used at all, StoreError where the store cannot.
    """
    connection = Connection(live)
    watching = Watching(connection, store, stop, cadence or Cadence(), interface_prefix)
    try:
        watching.once() if once else watching.run(ready)
    finally:
        connection.close()
    return watching.tally
