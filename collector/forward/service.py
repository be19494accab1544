"""Forwarding beside collecting, in the process that writes the store: one thread for each target.

Rule: the marks go into the store with the next commit, or with one of their own a second later; collecting never waits
for a target. A thread, not a process: another one would load everything a second time (docs/forwarding.md has figures).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

from analytics import Commit, StoreError, Writer
from analytics.additions import ForwardedRow
from analytics.capacity import Dropped
from analytics.options import local_zone
from collector.forward.counters import Counters
from collector.forward.marks import Ledger
from collector.forward.outage import Unreachable
from collector.forward.runner import Forwarder, Order
from collector.forward.target import parse_target
from collector.forward.tls import make_context
from collector.settings import CollectorError

_LOG = logging.getLogger(__name__)
_LEAVE_S = 5.0
"""Told to stop, a forwarder that is stuck (in the resolver, say) is left behind after so long."""
_AGAIN_S = 30.0
_TICK_S = 0.25


def forwarding_of(urls: Sequence[str], store: str, *, once: bool) -> Forwarding:
    """What `collect --forward URL` asks for; raises CollectorError."""
    return Forwarding(store, [Order(target=parse_target(url), zone=local_zone(), once=once) for url in urls])


class Forwarding:
    """The targets of one collector. `counters` tells how each of them is going; `failed` what `once` could not send."""

    def __init__(self, store: str, orders: Sequence[Order]) -> None:
        """Nothing is opened yet; raises CollectorError where two targets are one, or a certificate will not do."""
        names = [order.target.name for order in orders]
        for name in names:
            if names.count(name) > 1:
                raise CollectorError(name, "is named twice", "each server is forwarded to once")
        for order in orders:
            make_context(order.target)
        self.counters = tuple(Counters(name) for name in names)
        self.failed: list[tuple[str, str]] = []
        self._store = store
        self._orders = orders
        self._once = any(order.once for order in orders)

    @contextmanager
    def beside(self, writer: Writer, stop: threading.Event) -> Iterator[ForwardingSink]:
        """Forward while this lasts, with `once` at its end; then commit the last marks. The sink stands in for the
        writer."""
        known = writer.forwarded()
        ledgers = [Ledger(order.target.name, known.get(order.target.name)) for order in self._orders]
        sink = ForwardingSink(writer, ledgers)
        over = threading.Event()
        threads = [
            threading.Thread(target=self._work, args=(number, ledger, over), name="forwarder", daemon=True)
            for number, ledger in enumerate(ledgers)
        ]
        try:
            if not self._once:
                _start(threads)
            yield sink
            if self._once:
                _start(threads)
                while any(thread.is_alive() for thread in threads) and not stop.wait(_TICK_S):
                    continue
        finally:
            over.set()
            _leave(threads)
            _store_marks(sink)

    def _work(self, number: int, ledger: Ledger, over: threading.Event) -> None:
        """Forward to one target; what must not happen is told, and tried again: nobody else would."""
        while not over.is_set():
            try:
                Forwarder(self._store, self._orders[number], ledger, self.counters[number]).run(over)
                return
            except Unreachable as error:
                self.failed.append((error.target, error.reason))
                return
            except Exception as error:
                _LOG.error("forwarding to %s failed: %s", self.counters[number].target, error)
                over.wait(_AGAIN_S)


def _start(threads: Iterable[threading.Thread]) -> None:
    for thread in threads:
        thread.start()


def _leave(threads: Iterable[threading.Thread]) -> None:
    until = time.monotonic() + _LEAVE_S
    for thread in threads:
        if thread.ident is not None:
            thread.join(max(0.0, until - time.monotonic()))


def _store_marks(sink: ForwardingSink) -> None:
    try:
        sink.commit(Commit())
    except StoreError as error:
        _LOG.error("%s; what was forwarded since the last commit is sent again next time", error)


class ForwardingSink:
    """The writer of a store, with the marks of the targets in each commit."""

    def __init__(self, writer: Writer, ledgers: Sequence[Ledger]) -> None:
        self._writer = writer
        self._ledgers = ledgers
        self._taken: dict[str, ForwardedRow] = {}

    def commit(self, commit: Commit) -> None:
        """All or nothing; raises StoreError. A mark that was not stored goes into the next commit."""
        self._taken |= {row.target: row for ledger in self._ledgers if (row := ledger.take())}
        self._writer.commit(replace(commit, forwarded=tuple(self._taken.values())))
        self._taken.clear()

    def shrink(self, limit: int) -> Dropped:
        """Drop old days; what a target has not got of them is told as lost."""
        return self._writer.shrink(limit)

    def maintain(self, keep: timedelta | None = None) -> None:
        """Tidy up; raises StoreError."""
        self._writer.maintain(keep)

    def take_in(self) -> int:
        """Store what waits in the inbox, and marks for which no commit came; raises StoreError."""
        if any(ledger.waits for ledger in self._ledgers):
            self.commit(Commit())
        return self._writer.take_in()
