"""What the collector counts, as Prometheus metrics: reading, parsing, denials, the store, and how far behind it is.

Rule: base units, `_total` on counters, and labels from closed sets (transports, directions, reasons, namespaces of the
node's pods, followed paths up to a limit); never an address, a pod or a port. What is counted was committed, so that
after a restart nothing is counted twice that is stored once. Sizes are looked up when somebody asks: a reader that
hangs does not hide that the log grows. https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version

import polars as pl
from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, disable_created_metrics
from prometheus_client import generate_latest as exposition

from analytics import Position, StoreError
from analytics.store import Store
from collector.rows import Piece
from collector.series import OTHER, PATHS, Labels, Places, Pods, RuleCounters, Spread, StoreSize
from collector.watch import Lookup, Watch
from parser import REASONS, Options

NAMESPACES = 500
"""Namespaces with series of their own; a node has some dozens, the rest is counted under `other`."""
TRANSPORTS = {
    "tcp": "tcp", "udp": "udp", "udplite": "udplite", "icmp": "icmp", "icmpv6": "icmpv6", "ah": "ah", "esp": "esp",
    "132": "sctp", "4": "ipip", "47": "gre", "2": "igmp",  # the kernel prints those that it does not know as numbers
}  # fmt: skip
LOSERS = ("denylog", "kernel", "kmsg", "net_ratelimit", "netfilter", "printk", "rsyslogd", "imklog", "imuxsock",
          "imjournal", "systemd-journald")  # fmt: skip
"""Who is known to say that lines are missing; the kernel may name any of its functions."""
LAG_BUCKETS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
COMMIT_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0)


class Metrics(Watch):
    """Hears what a run does, and counts it in a registry of its own."""

    def __init__(self, store: Store, *, rule_options: Options | None = None) -> None:
        """`rule_options`: also tell how often the kernel's LOG rules with these prefixes matched."""
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        self._pods = Pods()
        self._path, self._namespace = Labels(PATHS), Labels(NAMESPACES)
        self._newest, self._counting = 0.0, threading.Lock()

        def counter(name: str, meaning: str, *labels: str) -> Counter:
            return Counter(f"denylog_{name}", meaning, labels, registry=registry)

        def gauge(name: str, meaning: str, *labels: str) -> Gauge:
            return Gauge(f"denylog_{name}", meaning, labels, registry=registry)

        self._lines = counter("lines_read", "Lines read: packets, parse errors and skipped lines.", "path")
        self._bytes = counter("bytes_read", "Bytes of log text read.", "path")
        self._lost = counter("unread_bytes_lost", "Bytes that were gone before they were read.", "path")
        self._rotations = counter("rotations", "Rotations seen while following.", "kind")
        self._packets = counter("packets_parsed", "Lines that were packets.", "transport")
        self._rejects = counter("parse_errors", "Lines with our prefix that were not believed.", "reason")
        self._others = counter("lines_skipped", "Lines that were not ours.", "reason")
        self._denied = counter(
            "denied_packets", "Denied packets, repetitions included.", "namespace", "direction", "transport"
        )
        self._reports = counter("loss_reports", "Reports that log lines are missing.", "source")
        self._missing = counter("lines_lost", "Lines that those reports admit to.", "source")
        self._rows = counter("store_rows_written", "Rows committed to the store.", "table")
        self._retries = counter("store_commit_retries", "Commits that the store did not take at once.")
        self._put_off = counter("store_maintenance_failures", "Rounds of maintenance that were put off.")
        self._dropped = counter("store_packets_dropped", "Packets dropped since the store took more than --keep-size.")
        self._last = gauge("last_event_timestamp_seconds", "Time stamp of the newest denied packet.")
        self._checkpoint = gauge("checkpoint_timestamp_seconds", "When rows and positions were last committed.")
        self._opening = gauge("store_lock_wait_seconds", "Time from asking for the store to holding it.")
        self.ready = gauge("ready", "1 while the collector follows and commits.")
        self.silent = gauge("gone_silent", "1 while the log grows without denied packets, longer than usual.")
        self.usual = gauge("silence_limit_seconds", "Silence beyond which gone_silent is raised; 0 while learning.")
        self.reloaded_well = gauge("config_last_reload_successful", "1 where the configuration was read as it is now.")
        self.reload_time = gauge("config_last_reload_timestamp_seconds", "When the configuration was last read.")
        gauge("build_info", "The version that runs.", "version").labels(version("denylog")).set(1)
        self._lag = Spread("denylog_event_lag_seconds", "From a packet's time stamp to its commit.", LAG_BUCKETS,
                           registry)  # fmt: skip
        self._commit = Spread("denylog_store_commit_duration_seconds", "From handing rows over to their commit.",
                              COMMIT_BUCKETS, registry)  # fmt: skip
        self._upkeep = Spread("denylog_store_maintenance_duration_seconds", "Time of a round of maintenance.",
                              COMMIT_BUCKETS, registry)  # fmt: skip
        self._places = Places(registry)
        self._looked_up: list[StoreSize | RuleCounters] = [StoreSize(store, registry)]
        if rule_options is not None:
            self._looked_up.append(RuleCounters(rule_options, registry))
        self._start()

    def _start(self) -> None:
        """Series that must be there before anything happens, so that rates and alerts have something to compare."""
        ProcessCollector(registry=self.registry)
        for kind in ("rename", "truncate"):
            self._rotations.labels(kind)
        for table in ("packets", "rejects", "losses"):
            self._rows.labels(table)
        for reason in REASONS:
            self._rejects.labels(reason)
        self._others.labels("not_calico")
        self.reloaded_well.set(1)
        self.reload_time.set(time.time())

    def text(self) -> bytes:
        """All metrics in Prometheus' text format 0.0.4, between two commits: the accounts balance in each scrape."""
        for series in self._looked_up:  # takes its time: not while commits wait
            series.look()
        with self._counting:
            return exposition(self.registry)

    def opened(self, positions: Sequence[Position], seconds: float, namespaces: Lookup) -> None:
        self._opening.set(seconds)
        self._pods.lookup = namespaces
        self._places.note(positions)

    def reloaded(self, *, taken: bool) -> None:
        self.reloaded_well.set(taken)
        self.reload_time.set_to_current_time()

    def rotated(self, kind: str) -> None:
        self._rotations.labels(kind).inc()

    def refused(self, error: StoreError) -> None:
        self._retries.inc()

    def dropped(self, packets: int) -> None:
        self._dropped.inc(packets)

    def maintained(self, seconds: float, error: StoreError | None) -> None:
        self._upkeep.observe(pl.Series([seconds]))
        self._put_off.inc(error is not None)

    def committed(self, pieces: Sequence[Piece], seconds: float) -> None:
        frames = [frame for piece in pieces for frame in piece.packets]
        kinds = [row for frame in frames for row in self._kinds(frame)]
        with self._counting:
            self._commit.observe(pl.Series([seconds]))
            self._checkpoint.set_to_current_time()
            self._places.note(piece.position for piece in pieces)
            for piece in pieces:
                self._count(piece)
            for namespace, direction, transport, lines, packets in kinds:
                self._packets.labels(transport).inc(lines)
                self._denied.labels(namespace, direction, transport).inc(packets)
            for frame in frames:
                self._note_times(frame["time"])

    def _count(self, piece: Piece) -> None:
        path = self._path(piece.position.source)
        packets = sum(frame.height for frame in piece.packets)
        self._lines.labels(path).inc(piece.lines)
        self._bytes.labels(path).inc(piece.bytes)
        self._lost.labels(path).inc(piece.bytes_lost)
        self._others.labels("not_calico").inc(piece.lines - packets - len(piece.rejects))
        for reject in piece.rejects:
            self._rejects.labels(reject.reason).inc()
        for loss in piece.losses:
            source = loss.source if loss.source in LOSERS else OTHER
            self._reports.labels(source).inc()
            self._missing.labels(source).inc(loss.count or 0)
        for table, count in (("packets", packets), ("rejects", len(piece.rejects)), ("losses", len(piece.losses))):
            self._rows.labels(table).inc(count)

    def _kinds(self, frame: pl.DataFrame) -> Iterator[tuple[str, str, str, int, int]]:
        """Namespace, direction and transport of packets with the number of their lines and of the packets."""
        found = frame.group_by("direction", "in_interface", "out_interface", "protocol").agg(
            lines=pl.len(), packets=(pl.col("repeat_count").fill_null(0) + 1).sum()
        )
        rows = found.rows()
        self._pods.learn(name for _, incoming, outgoing, *_ in rows for name in (incoming, outgoing) if name)
        for direction, incoming, outgoing, protocol, lines, packets in rows:
            namespace = self._namespace(self._pods.namespace(direction, incoming, outgoing))
            yield namespace, direction or "", TRANSPORTS.get(protocol, OTHER), lines, packets

    def _note_times(self, times: pl.Series) -> None:
        now = pl.lit(datetime.now(UTC), pl.Datetime("us", "UTC"))
        self._lag.observe(pl.select(lag=(now - times).dt.total_microseconds() / 1e6)["lag"])
        newest = times.max()
        if isinstance(newest, datetime) and newest.timestamp() > self._newest:
            self._newest = min(newest.timestamp(), time.time())
            self._last.set(self._newest)
