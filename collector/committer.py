"""Committing beside reading: a thread of its own, so that parsing and storing overlap on two cores.

Rule: a commit is tried until the store takes it; meanwhile reading stops by itself, since nothing more is accepted:
the log is the buffer. Maintenance of the store runs here, between commits.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from analytics import Commit, StoreError
from analytics.capacity import Dropped
from collector.rows import Piece, commit_of
from collector.settings import Settings, Summary
from collector.watch import NOBODY, Watch

_LOG = logging.getLogger(__name__)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_WAITING = 1  # batches that may wait: one is stored while the next one is read; memory holds no more
_TICK_S = 0.25
_LOOK_IN_S = 1.0  # how often the inbox of the store is looked into


class Sink(Protocol):
    """What the committer needs of `analytics.Writer`."""

    def commit(self, commit: Commit) -> None:
        """All or nothing; raises StoreError."""

    def maintain(self, keep: timedelta | None = None) -> None:
        """Tidy up; raises StoreError."""

    def shrink(self, limit: int) -> Dropped:
        """Drop the oldest days of packets where there are more bytes than this; raises StoreError."""

    def take_in(self) -> int:
        """Store what waits in the inbox; raises StoreError."""


class Committer:
    """Takes batches of pieces and commits them in order, counting what was committed in `summary`.

    `patient`: try for ever; otherwise the first StoreError ends it, and so it does once `stop` is set.
    """

    def __init__(
        self, store: Sink, settings: Settings, stop: threading.Event, *, patient: bool, watch: Watch = NOBODY
    ) -> None:
        self.summary = Summary()
        self._store = store
        self.settings = settings
        self._stop = stop
        self._patient = patient
        self._watch = watch
        self._batches: queue.Queue[Sequence[Piece] | None] = queue.Queue(_WAITING)
        self._error: BaseException | None = None
        self._trouble = ""
        self._full = False
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
        self._thread.start()

    def put(self, pieces: Sequence[Piece]) -> None:
        """Hand over a batch; waits while the store is busy or fails. Raises what ended the committer."""
        self._watch.handed_over()
        self._offer(pieces)

    def close(self) -> Summary:
        """Wait until everything is committed; raises what ended the committer instead."""
        self._offer(None)
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self.summary

    def abandon(self) -> None:
        """End the thread without caring for what is left: somebody else's error is on its way."""
        self._patient = False
        self._stop.set()
        try:
            self.close()
        except Exception as error:
            _LOG.debug("while giving up: %s", error)

    def _offer(self, item: Sequence[Piece] | None) -> None:
        while self._error is None:
            try:
                self._batches.put(item, timeout=_TICK_S)
                return
            except queue.Full:
                self._watch.beat()
        if item is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._error = error

    def _work(self) -> None:
        due, look = time.monotonic() + self.settings.maintain_s, time.monotonic()
        while True:
            try:
                pieces = self._batches.get(timeout=max(0.0, min(due, look) - time.monotonic()))
            except queue.Empty:
                pieces = ()
            if pieces:
                self._commit(pieces)
            if pieces is None or time.monotonic() >= look:
                self._take_in()
                look = time.monotonic() + _LOOK_IN_S
            if pieces is None:
                return
            if time.monotonic() >= due:
                self._maintain()
                due = time.monotonic() + self.settings.maintain_s

    def _commit(self, pieces: Sequence[Piece]) -> None:
        commit = commit_of(pieces)
        began = time.monotonic()
        pause, failed = _FIRST_PAUSE_S, False
        while True:
            try:
                self._store.commit(commit)
                break
            except StoreError as error:
                if not self._patient or self._stop.is_set():
                    raise
                if not failed:
                    _LOG.error("%s; reading stops until the store takes rows again, nothing is lost", error)
                failed = True
                self._watch.refused(error)
            self._stop.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
        if failed:
            _LOG.warning("the store takes rows again")
        self._count(pieces)
        self._watch.committed(pieces, time.monotonic() - began)

    def _take_in(self) -> None:
        """Store what others left in the inbox; what cannot be stored now waits there, and is spoken of once."""
        try:
            self._store.take_in()
            self._trouble = ""
        except StoreError as error:
            if str(error) != self._trouble:
                _LOG.warning("what waits in the inbox is put off: %s", error)
            self._trouble = str(error)

    def _maintain(self) -> None:
        began = time.monotonic()
        put_off = None
        try:
            if self.settings.keep_bytes is not None:
                self._shrink(self.settings.keep_bytes)
            self._store.maintain(self.settings.keep)
        except StoreError as error:
            _LOG.warning("maintenance is put off: %s", error)
            put_off = error
        self._watch.maintained(time.monotonic() - began, put_off)

    def _shrink(self, limit: int) -> None:
        found = self._store.shrink(limit)
        if found.days:
            _LOG.warning(
                "dropped %d packets of %s, since the store took more than %d MB", found.packets,
                " to ".join(map(str, sorted({found.days[0], found.days[-1]}))), limit // 1_000_000,
            )  # fmt: skip
            self._watch.dropped(found.packets)
        if found.held > limit and not self._full:
            _LOG.warning(
                "the store takes %d MB with nothing but today in it, more than the %d MB that it may",
                found.held // 1_000_000, limit // 1_000_000,
            )  # fmt: skip
        self._full = found.held > limit

    def _count(self, pieces: Sequence[Piece]) -> None:
        total = self.summary
        total.commits += 1
        for piece in pieces:
            total.lines += piece.lines
            total.packets += sum(frame.height for frame in piece.packets)
            total.others += piece.lines - sum(frame.height for frame in piece.packets) - len(piece.rejects)
            total.rejects += len(piece.rejects)
            total.losses += len(piece.losses)
            total.bytes += piece.bytes
            total.bytes_lost += piece.bytes_lost
