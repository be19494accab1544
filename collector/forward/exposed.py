"""The counters of forwarding as Prometheus metrics.

Rule: a target is labelled by its scheme and its number on the command line (`relps-1`), never by its address. The
numbers are read when somebody asks; the queue is as of the last look into the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from collector.forward.counters import Counters

Values = Callable[[Counters], Mapping[str, float]]
# Name (counters end in _total when they are shown), kind, meaning, second label or "", and its values.
_METRICS: tuple[tuple[str, type[CounterMetricFamily | GaugeMetricFamily], str, str, Values], ...] = (
    ("messages", CounterMetricFamily, "Messages that arrived (sent), and attempts that failed and are made again.",
     "result", lambda found: {"sent": found.sent, "failed": found.failed}),
    ("dropped", CounterMetricFamily, "Packets that left the store before they were sent.",
     "reason", lambda found: found.dropped),
    ("shortened_messages", CounterMetricFamily, "Messages longer than their target takes.",
     "", lambda found: {"": found.cut}),
    ("sent_bytes", CounterMetricFamily, "Bytes of messages that arrived.", "", lambda found: {"": found.octets}),
    ("outages", CounterMetricFamily, "Times a target was away.", "", lambda found: {"": found.outages}),
    ("queue_rows", GaugeMetricFamily, "Packets that are still to be sent.", "", lambda found: {"": found.queue_rows}),
    ("connected", GaugeMetricFamily, "1 while the target is connected.", "", lambda found: {"": found.connected}),
)  # fmt: skip


class ForwardMetrics(Collector):
    """What all targets of a collector have counted."""

    def __init__(self, counters: Sequence[Counters], registry: CollectorRegistry) -> None:
        self._counters = {
            f"{found.target.partition(':')[0]}-{number}": found for number, found in enumerate(counters, start=1)
        }
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """The metrics as they stand."""
        for name, kind, meaning, label, values in _METRICS:
            family = kind(f"denylog_forward_{name}", meaning, labels=["target", label] if label else ["target"])
            for target, counters in self._counters.items():
                for value, number in values(counters).items():
                    family.add_metric([target, value] if label else [target], float(number))
            yield family
