"""Forwarding to one target: read a page, send it, note how far it came, for as long as it takes.

Rule: the mark moves only over packets that have arrived as far as the transport can know. While the server or the store
is away nothing is lost, since the store is the queue; both are tried again until somebody says stop.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, tzinfo

from analytics import Reader, StoreError
from analytics.filters import Where
from analytics.store import resolve
from collector.forward.backlog import Backlog, Page, chosen
from collector.forward.counters import Counters
from collector.forward.formats import encoder
from collector.forward.marks import Marks
from collector.forward.outage import Outage
from collector.forward.pace import Backoff, Pace
from collector.forward.progress import Progress
from collector.forward.target import RELP, Target
from collector.forward.tls import make_context
from collector.forward.transports import Transport, open_transport
from collector.forward.wire import Broken, Stopped

_LOG = logging.getLogger(__name__)
POLL_S = 0.5
"""How often to look for new packets; the collector commits once a second."""
_LOOK_S = 30.0
"""A look into the store at least so often, also where its files seem unchanged: not every file system tells."""
PAGE = 1000
"""Packets read and sent at once; what a kill makes come twice is at most as much (RELP: the window)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to forward and how.

    `where`: which packets. `zone`: that of time stamps which name none. `rate`: messages a second at most. `since`:
    also those from then on that were acknowledged before; where nothing was yet, none before it. `once`: end when
    everything stored has been sent.
    """

    target: Target
    where: Where = field(default_factory=Where)
    zone: tzinfo
    rate: float | None = None
    since: datetime | None = None
    once: bool = False


class Forwarder:
    """Brings the packets of a store to one target. `counters` tells how it goes, to any thread."""

    def __init__(self, store: str, order: Order, marks: Marks, counters: Counters | None = None) -> None:
        """Nothing is sent or opened yet; raises CollectorError where a certificate will not do."""
        self.counters = counters or Counters(order.target.name)
        self._context = make_context(order.target)
        self._store = store
        self._order = order
        self._where = order.where if order.since is None else chosen(order.where, order.since, marks.load().cursor)
        self._progress = Progress(marks, self.counters, replay=order.since is not None)
        self._outage = Outage(self.counters, patient=not order.once)
        self._encode = encoder(order.target, order.zone)
        self._pace = Pace(order.rate, time.monotonic())
        self._page = self._pace.batch(order.target.window if order.target.scheme in RELP else PAGE)
        self._look_by = 0.0

    def run(self, stop: threading.Event) -> None:
        """Forward until `stop` is set, or with `once` until everything is sent.

        Raises StoreError where the store cannot be read and trying again cannot help; with `once` also where the mark
        cannot be kept, and Unreachable.
        """
        pauses, found = Backoff(), False
        while not stop.is_set():
            try:
                with Reader(self._store, frugal=True) as reader:
                    pauses.reset()
                    found = True
                    return self._serve(Backlog(reader, self._where), stop)
            except StoreError as error:
                # A store that was there may come back: moved aside, made anew, on a disk that is mounted again.
                gone = found and not resolve(self._store).catalog.exists()
                if self._order.once or not (error.retryable or gone):
                    raise
                _LOG.warning("%s; forwarding to %s waits", error, self.counters.target)
                stop.wait(pauses.next())

    def _serve(self, backlog: Backlog, stop: threading.Event) -> None:
        """Connect, send, and connect again, until there is nothing more to do."""
        while not stop.is_set():
            backlog.rewind(self._progress.at)
            self._look_by = 0.0
            if self._order.once and self._next(backlog) is None:
                return
            backlog.rewind(self._progress.at)
            self._outage.attempt()
            try:
                with closing(open_transport(self._order.target, self._context, stop)) as transport:
                    self._outage.connected()
                    return self._pump(transport, backlog, stop)
            except Stopped:
                return
            except Broken as error:
                stop.wait(self._outage.failed(error.reason))
            finally:
                self.counters.connected = False

    def _pump(self, transport: Transport, backlog: Backlog, stop: threading.Event) -> None:
        """Send page after page until told to stop, with `once` until everything is sent. Raises Broken."""
        self._look_by = 0.0
        while not stop.is_set():
            page = self._next(backlog)
            if page is not None:
                self._send(transport, page, stop)
            elif self._order.once:
                return
            else:
                transport.idle()
                self._outage.over()
                stop.wait(POLL_S)

    def _next(self, backlog: Backlog) -> Page | None:
        """The next packets, if there are any; looks into the store where that may bring some."""
        page = backlog.page(self._page)
        if page is None and (backlog.changed() or time.monotonic() >= self._look_by):
            self._progress.account(backlog.look())
            self._look_by = time.monotonic() + _LOOK_S
            page = backlog.page(self._page)
        return page

    def _send(self, transport: Transport, page: Page, stop: threading.Event) -> None:
        messages = [self._encode(record) for record in page.records]
        if stop.wait(self._pace.wait_for(len(messages), time.monotonic())):
            raise Stopped
        try:
            transport.deliver([message.data for message in messages])
        except Broken as error:
            count = error.acknowledged
            self.counters.failed += len(messages) - count
            if count:
                self._outage.arrived()
                self._progress.arrived(messages[:count], page.up_to(count))
            raise
        self._progress.arrived(messages, page)
        self._outage.over()
