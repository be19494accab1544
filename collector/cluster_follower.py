"""One resource of a cluster, listed and watched: what is new of it, as rows for the store.

Rule: nothing is missed: a watch that ends is taken up where it ended, and one whose version has expired (410 Gone)
begins with a new list, which also tells what is gone. Failures are waited out, longer each time, and told once.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from analytics.additions import Additions, Listing, ObjectRow
from analytics.intake import group_of
from analytics.inventory import departed, observe
from collector.cluster_owners import Owners
from policies.cluster_source import LiveCluster, is_imported
from policies.errors import ClusterError
from policies.kube import GONE, Cluster, Event
from policies.resources import Resource

_LOG = logging.getLogger(__name__)

_TICK_S = 0.25
_SHORT_S = 1.0
"""A watch begins no sooner after the one before, in case a server ends each at once."""
_TOLD_AFTER = 2
"""Failures in a row that are worth a word: connections end all the time, and the next attempt works."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cadence:
    """Seconds: between two deposits, between two looks at which APIs there are, and of pauses after a failure."""

    batch_s: float = 1.0
    discover_s: float = 600.0
    first_pause_s: float = 1.0
    longest_pause_s: float = 60.0


class Connection:
    """One connection for all watches, made anew after a failure: certificates and addresses in a kubeconfig change."""

    def __init__(self, live: LiveCluster) -> None:
        self._live = live
        self._lock = threading.Lock()
        self._newest: Cluster | None = None
        self._users: Counter[Cluster] = Counter()
        self._wrong: ClusterError | None = None
        self._closed = False

    @contextmanager
    def borrowed(self) -> Iterator[Cluster]:
        """The cluster; after a ClusterError the next one to ask gets a new connection. Raises ClusterError."""
        with self._lock:
            if self._closed:
                raise ClusterError("cluster", "the connection was closed", retryable=True)
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

    def interrupt(self) -> None:
        """End every watch that is open."""
        with self._lock:
            for cluster in self._users:
                cluster.interrupt()

    def close(self) -> None:
        """Close all that is open; there is no new connection afterwards."""
        with self._lock:
            self._closed = True
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

    `listed` is set after the first list. `failure`: what stands in its way now, or, where it is no ClusterError, what
    has ended the thread.
    """

    def __init__(self, resource: Resource, connection: Connection, cadence: Cadence, prefix: str) -> None:
        self.resource = resource
        self.stop = threading.Event()
        self.listed = threading.Event()
        self.failure: Exception | None = None
        self._connection = connection
        self._prefix = prefix
        self._pauses = Pauses(cadence)
        self._failures = 0
        self._version = ""
        self._known: dict[tuple[str | None, str], tuple[str, ...]] = {}
        self._owners = Owners() if resource.kind == "Pod" else None

    def start(self, news: queue.Queue[Additions]) -> None:
        """Follow until `stop` is set and the connection is closed."""
        self._thread = threading.Thread(target=self._run, args=(news,), name=f"watch {self.resource}", daemon=True)
        self._thread.start()

    def is_running(self) -> bool:
        """Whether the thread has not ended yet."""
        return self._thread.is_alive()

    def list(self, cluster: Cluster, *, cached: bool = False) -> Additions:
        """Every object that there is, and that there are no others; `cached` as `Cluster.pages` has it.

        Raises ClusterError.
        """
        rows: list[ObjectRow] = []
        at, version = None, ""
        if self._owners:
            self._owners.learn(cluster, cached=cached)
        for page in cluster.pages(self.resource, cached=cached):
            at, version = at or datetime.now(UTC), page.version
            rows += self._rows(cluster, page.objects, at).objects
        self._known = {}
        for row in rows:
            key = row.namespace, row.name
            self._known[key] = (*self._known.get(key, ()), row.digest)
        self._version = version
        return Additions(tuple(rows), (listing(self.resource, at or datetime.now(UTC)),))

    def _rows(self, cluster: Cluster, objects: Iterable[dict[str, Any]], at: datetime) -> Additions:
        named = [*_named(objects)]
        owners = self._owners.of(cluster, named) if self._owners else ()
        return observe(named, at=at, interface_prefix=self._prefix, owners=owners)

    def _run(self, news: queue.Queue[Additions]) -> None:
        while not self.stop.is_set():
            began = time.monotonic()
            try:
                with self._connection.borrowed() as cluster:
                    self._follow(cluster, news)
            except ClusterError as error:
                if not self.stop.is_set():
                    self._failed(error)
            except Exception as error:
                self.failure = error
                return
            else:
                self.stop.wait(max(0.0, began + _SHORT_S - time.monotonic()))

    def _follow(self, cluster: Cluster, news: queue.Queue[Additions]) -> None:
        """One watch, after a list where there is no version to go on from.

        The first list may come from the server's memory, as every client does it. After that the server has to ask
        etcd, since its memory may be older than what was seen.
        """
        if not self._version:
            self._put(news, self.list(cluster, cached=not self.listed.is_set()))
            self.listed.set()
        for event in cluster.watch(self.resource, self._version):
            self._put(news, self._seen(cluster, event))
            self._version = event.version or self._version
            self._worked()
            if self.stop.is_set():
                return

    def _seen(self, cluster: Cluster, event: Event) -> Additions:
        """What an event says that was not known: most tell only that something about the status has changed."""
        at = datetime.now(UTC)
        objects = [event.object] if event.type in ("ADDED", "MODIFIED", "DELETED") else ()
        if event.type == "DELETED":
            found = departed(_named(objects), at=at)
            for row in found.objects:
                self._known.pop((row.namespace, row.name), None)
            return found
        found = self._rows(cluster, objects, at)
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
