"""Series that need more than adding one: many values at once, and what is looked up when somebody asks.

Rule: asking is cheap and never fails: what cannot be looked up is absent. A file that grows is seen to grow even while
nobody reads it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

import polars as pl
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from analytics import Position, StoreError
from analytics.status import catalog_bytes, data_bytes
from analytics.store import Store
from collector.rules import read_rules
from collector.watch import Lookup
from parser import Options
from parser.prefix import match

_LOG = logging.getLogger(__name__)
OTHER = "other"
_LOOK_AGAIN_S = 60.0  # a pod that the inventory does not know yet may be in it then
_STORE_LOOK_S = 30.0  # adding up the files of a store, or listing a node's rules, may take a moment
PATHS = 100
"""Followed files that have series of their own; patterns may find any number, the rest is counted under `other`."""


class Spread(Collector):
    """A histogram that takes many values at once; prometheus_client's takes one at a time."""

    def __init__(self, name: str, meaning: str, bounds: Sequence[float], registry: CollectorRegistry) -> None:
        self._name, self._meaning, self._bounds = name, meaning, bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()
        registry.register(self)

    def observe(self, values: pl.Series) -> None:
        """Count values, in seconds; those below zero, a clock that runs ahead, count as zero."""
        found = values.drop_nulls().clip(lower_bound=0.0).sort()
        if not found.len():
            return
        below = [int(found.search_sorted(bound, side="right")) for bound in self._bounds]
        with self._lock:
            self._sum += float(found.sum())
            for at, (low, high) in enumerate(pairwise((0, *below, found.len()))):
                self._counts[at] += high - low

    def collect(self) -> Iterator[Metric]:
        """The buckets, cumulative."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        ends = [*map(str, self._bounds), "+Inf"]
        buckets = [(end, float(sum(counts[: at + 1]))) for at, end in enumerate(ends)]
        yield HistogramMetricFamily(self._name, self._meaning, buckets=buckets, sum_value=total)


class Places(Collector):
    """How far each followed file was read and committed, against how long it is now."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._open: dict[str, Position] = {}
        self._lock = threading.Lock()
        registry.register(self)

    def note(self, positions: Iterable[Position]) -> None:
        """The newest positions of files."""
        with self._lock:
            for position in positions:
                if position.closed or not position.inode:  # the journal and kmsg count records and have no size
                    self._open.pop(position.file, None)
                else:
                    self._open[position.file] = position

    def collect(self) -> Iterator[Metric]:
        """Size and position of what is open, added up by path; their difference is what is left to read."""
        with self._lock:
            positions = list(self._open.values())
        size = GaugeMetricFamily("denylog_file_size_bytes", "Bytes in the followed file now.", labels=["path"])
        place = GaugeMetricFamily("denylog_file_position_bytes", "Bytes of it that are committed.", labels=["path"])
        for path, (length, offset) in _behind(positions).items():
            size.add_metric([path], length)
            place.add_metric([path], offset)
        yield size
        yield place


def _behind(positions: Iterable[Position]) -> dict[str, tuple[int, int]]:
    """Size and offset of each path, rotated files that are still being read included."""
    sums: dict[str, tuple[int, int]] = {}
    live = _Live()
    names = Labels(PATHS)
    for position in positions:
        length, offset = sums.get(name := names(position.source), (0, 0))
        sums[name] = length + live.size(position), offset + position.offset
    for path, length in live.unseen(positions):
        before, offset = sums.get(name := names(path), (0, 0))
        sums[name] = before + length, offset
    return sums


class _Live:
    """The files that the followed paths lead to now, each looked at once."""

    def __init__(self) -> None:
        self._found: dict[str, os.stat_result | None] = {}

    def size(self, position: Position) -> int:
        """How long the file of a position is: it may have grown since, and may have a successor at its path."""
        found = self._stat(position.path)
        same = found is not None and (found.st_dev, found.st_ino) == (position.device, position.inode)
        return max(found.st_size if same and found else position.size, position.offset)

    def unseen(self, positions: Iterable[Position]) -> Iterator[tuple[str, int]]:
        """Followed paths that lead to a file of which nothing was read yet, and how long it is."""
        known = {(position.device, position.inode) for position in positions}
        for path in {position.source for position in positions}:
            found = self._stat(path)
            if found is not None and (found.st_dev, found.st_ino) not in known:
                yield path, found.st_size

    def _stat(self, path: str) -> os.stat_result | None:
        if path not in self._found:
            try:
                self._found[path] = os.stat(path)
            except OSError:
                self._found[path] = None
        return self._found[path]


class Labels:
    """The first values of a label keep their names; those beyond the limit share one."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: set[str] = set()

    def __call__(self, value: str) -> str:
        """The value itself, or `other`."""
        if value not in self._seen and len(self._seen) >= self._limit:
            return OTHER
        self._seen.add(value)
        return value


class Pods:
    """The namespaces of this node's pods, by the names of their interfaces, as the inventory in the store has them."""

    def __init__(self) -> None:
        self.lookup: Lookup = lambda interfaces: {}
        self._known: dict[str, str] = {}
        self._due: dict[str, float] = {}

    def learn(self, interfaces: Iterable[str]) -> None:
        """Look up those that are not known, each at most once a minute."""
        now = time.monotonic()
        unknown = {name for name in interfaces if name not in self._known and self._due.get(name, 0.0) <= now}
        if not unknown:
            return
        try:
            self._known.update(self.lookup(unknown))
        except StoreError as error:
            _LOG.debug("namespaces: %s", error)
        self._due = {name: due for name, due in self._due.items() if due > now}
        self._due.update({name: now + _LOOK_AGAIN_S for name in unknown if name not in self._known})

    def namespace(self, direction: str | None, incoming: str | None, outgoing: str | None) -> str:
        """That of the pod that was denied: ingress is to the pod behind the outgoing interface, egress from the other.

        A packet from pod to pod (no direction) was denied at one of both: known where both are in one namespace.
        """
        source, destination = self._known.get(incoming or "", ""), self._known.get(outgoing or "", "")
        if direction is None:
            return source if source == destination else ""
        return {"ingress": destination, "egress": source}.get(direction, "")


class RuleCounters(Collector):
    """How many packets the kernel's LOG rules with our prefixes matched, which is what should be in the log."""

    def __init__(self, options: Options, registry: CollectorRegistry) -> None:
        self._options = options
        self._known: Mapping[str, int] = {}
        self._due = 0.0
        registry.register(self)

    def look(self) -> None:
        """Read the rules, unless that was done a moment ago."""
        if time.monotonic() >= self._due:
            self._known, self._due = self._read(), time.monotonic() + _STORE_LOOK_S

    def collect(self) -> Iterator[Metric]:
        """Packets by program; nothing where the rules cannot be read."""
        family = CounterMetricFamily(
            "denylog_kernel_log_rule_packets", "Packets that the kernel's LOG rules matched.", labels=["program"]
        )
        for program, packets in self._known.items():
            family.add_metric([program], packets)
        yield family

    def _read(self) -> Mapping[str, int]:
        rules = read_rules()
        for trouble in rules.trouble:
            _LOG.debug("the LOG rules: %s", trouble)
        found: dict[str, int] = {}
        for rule in rules.found:
            if rule.packets is not None and match(rule.prefix, self._options) is not None:
                found[rule.program] = found.get(rule.program, 0) + rule.packets
        return found


class StoreSize(Collector):
    """How much the store takes on the disk, looked at now and then."""

    def __init__(self, store: Store, registry: CollectorRegistry) -> None:
        self._store = store
        self._known: Mapping[str, int] = {}
        self._due = 0.0
        registry.register(self)

    def look(self) -> None:
        """Add up the files, unless that was done a moment ago."""
        if time.monotonic() >= self._due:
            self._known = {"catalog": catalog_bytes(self._store), "data": data_bytes(self._store)}
            self._due = time.monotonic() + _STORE_LOOK_S

    def collect(self) -> Iterator[Metric]:
        """Bytes by part."""
        family = GaugeMetricFamily("denylog_store_size_bytes", "Bytes that the store takes.", labels=["part"])
        for part, size in self._known.items():
            family.add_metric([part], size)
        yield family
