"""The collector as a service: it follows, and meanwhile answers how it is doing.

Rule: whoever follows is watched, with metrics or without; the port is taken before the store is, so that a wrong one
is told at once.
"""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack

from analytics.store import resolve
from collector.address import Address
from collector.follow import Job, Reload, follow
from collector.health import Health, serving
from collector.settings import Summary
from collector.watch import Watch, Watches

_LOG = logging.getLogger(__name__)


def serve(
    job: Job,
    store: str,
    stop: threading.Event,
    *,
    metrics: Address | None = None,
    rule_counters: bool = False,
    reload: Reload | None = None,
) -> Summary:
    """Do the job until `stop` is set; raises what `follow` raises, and CollectorError where nobody can listen."""
    with ExitStack() as stack:
        watch: Watch = Health()
        if metrics is not None:
            from collector.metrics import Metrics

            counts = Metrics(resolve(store), rule_options=job.settings.options if rule_counters else None)
            health = Health(counts)
            where = stack.enter_context(serving(metrics, counts, health))
            _LOG.info("metrics at http://%s/metrics", where)
            watch = Watches(counts, health)
        settings = job.settings
        return follow(
            job.patterns, store, settings, stop, journal=job.journal, kmsg=job.kmsg, watch=watch, reload=reload
        )
