"""The collector as a service: it follows, and meanwhile answers how it is doing.

Rule: whoever follows is watched, with metrics or without; the port is taken before the store is, so that a wrong one
is told at once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from analytics.store import resolve
from collector.address import Address
from collector.follow import Job, Reload, follow
from collector.health import Health
from collector.settings import Summary
from collector.watch import Watch, Watches

if TYPE_CHECKING:
    from collector.forward.service import Forwarding

_LOG = logging.getLogger(__name__)


def serve(
    job: Job,
    store: str,
    stop: threading.Event,
    *,
    metrics: Address | None = None,
    rule_counters: bool = False,
    reload: Reload | None = None,
    forward: Sequence[str] = (),
) -> Summary:
    """Do the job until `stop` is set, and forward to the syslog servers at the URLs `forward`.

    Raises what `follow` raises, and CollectorError where nobody can listen or a URL is no target.
    """
    with ExitStack() as stack:
        forwarding = _forwarding(forward, store, once=job.settings.once)
        watch: Watch = Health()
        if metrics is not None:
            from collector.metrics import Metrics
            from collector.server import serving

            counts = Metrics(resolve(store), rule_options=job.settings.options if rule_counters else None)
            health = Health(counts)
            where = stack.enter_context(serving(metrics, counts, health))
            _LOG.info("metrics at http://%s/metrics", where)
            watch = Watches(counts, health)
            if forwarding is not None:
                from collector.forward.exposed import ForwardMetrics

                ForwardMetrics(forwarding.counters, counts.registry)
        settings = job.settings
        summary = follow(
            job.patterns, store, settings, stop, journal=job.journal, kmsg=job.kmsg, watch=watch, reload=reload,
            forwarding=forwarding,
        )  # fmt: skip
        summary.failed.extend(forwarding.failed if forwarding is not None else ())
        return summary


def _forwarding(urls: Sequence[str], store: str, *, once: bool) -> Forwarding | None:
    """Forwarding to these servers; what it needs loads only where there are some."""
    if not urls:
        return None
    from collector.forward.service import forwarding_of

    return forwarding_of(urls, store, once=once)
