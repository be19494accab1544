"""The pages' questions to the store: readers that stay open, and answers that are kept until the store changes.

Rule: the same question about the same snapshot is asked once, whoever asks and however many ask at the same time. A
question holds a reader only while it runs, and ends when nobody waits for its answer; nothing here writes or locks.
What may be a little old is kept apart, with its age.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import Any, TypeVar

from analytics.filters import Where
from analytics.guard import QueryError
from analytics.reader import Reader
from analytics.store import require, resolve

T = TypeVar("T")

# Each is a DuckDB of its own with two threads; more of them only wait for the same processor.
_READERS = 2
# One more is for the moment, which every page begins with: it does not queue behind long questions.
_OPEN = _READERS + 1
_ANSWERS = 256
# How long somebody who waits may not hear that they need not any more.
_HEED_EVERY_S = 0.05
# How often a question is told to end before others go on without waiting for that.
_INTERRUPTS = 20
# A clock that ran ahead must not make "the newest 24 hours" a day in which nothing happened.
_FUTURE = timedelta(hours=1)
_SNAPSHOT = "SELECT id FROM ducklake_current_snapshot('denylog')"
_NEWEST = "SELECT max(time) FROM packets WHERE time <= $latest"


@dataclass(frozen=True, slots=True)
class Moment:
    """The store at one moment: its snapshot, the time of its newest packet, and whether it holds any."""

    snapshot: int
    newest: datetime | None


@dataclass(frozen=True, slots=True)
class Kept:
    """Something that was found at a time, of which `since` is the monotonic clock's."""

    value: Any
    since: float

    @property
    def age_s(self) -> float:
        """Seconds since it was found."""
        return time.monotonic() - self.since


@dataclass(slots=True)
class _Asked:
    """A question and its answer, how many wait for it, and the reader while it is asked."""

    future: Future[Any] = field(default_factory=Future)
    waiting: int = 0
    reader: Reader | None = None
    left: bool = False


class Desk:
    """Readers and answers of one store, shared by all who look at it."""

    def __init__(self, store: str) -> None:
        self._store = store
        self._places = threading.BoundedSemaphore(_OPEN)
        self._lock = threading.Lock()
        self._idle: list[tuple[tuple[int, int], Reader]] = []
        self._pool = ThreadPoolExecutor(_READERS, "desk")
        self._answers: OrderedDict[Hashable, _Asked] = OrderedDict()
        self._kept: OrderedDict[Hashable, Kept] = OrderedDict()
        self._moment: Moment | None = None

    def moment(self, zone: str, now: datetime) -> Moment:
        """The store as it is now; raises StoreError."""
        with self.reader(zone, brief=True) as reader:
            snapshot = int(reader.rows(_SNAPSHOT).rows[0][0])
            known = self._moment
            if known is None or known.snapshot != snapshot:
                newest = reader.rows(_NEWEST, {"latest": now + _FUTURE}).rows[0][0]
                self._moment = known = Moment(snapshot, newest)
            return known

    def ask(
        self,
        snapshot: int,
        zone: str,
        key: Hashable,
        question: Callable[[Reader], T],
        heed: Callable[[], object] | None = None,
    ) -> T:
        """The answer to a question that `key` names fully beside snapshot and zone; raises what the question raises.

        Until it is there, `heed` is called again and again; what that raises ends the waiting, and the question too
        where nobody else waits for it. Who does not heed anything waits for nobody: they get CancelledError then.
        """
        place = (snapshot, zone, key)
        with self._lock:
            asked = self._answers.get(place)
            if asked is None:
                asked = self._answers[place] = _Asked()
                asked.future = self._pool.submit(self._answer, asked, zone, question)
            asked.waiting += heed is not None
            self._answers.move_to_end(place)
            while len(self._answers) > _ANSWERS:
                self._answers.popitem(last=False)
        try:
            while not asked.future.done():
                wait([asked.future], _HEED_EVERY_S)
                if heed:
                    heed()
            answer: T = asked.future.result()
            if asked.left:
                raise CancelledError
            return answer
        except BaseException:
            self._leave(place, asked)
            raise
        finally:
            with self._lock:
                asked.waiting -= heed is not None

    def _answer(self, asked: _Asked, zone: str, question: Callable[[Reader], T]) -> T | None:
        """Ask, in a thread of the pool."""
        with self.reader(zone) as reader:
            asked.reader = reader
            try:
                return question(reader)
            except QueryError:
                if asked.left:
                    return None
                raise
            finally:
                with self._lock:
                    asked.reader = None

    def _leave(self, place: Hashable, asked: _Asked) -> None:
        """Forget a question that failed or is not waited for any more, and end it where it was still being asked."""
        with self._lock:
            if asked.waiting > 1 and not asked.future.done():
                return
            if self._answers.get(place) is asked:
                del self._answers[place]
            asked.left = True
            asked.future.cancel()
        # The next question finds the reader free that has most at hand.
        if not self._press(asked, _INTERRUPTS):
            self._press_on(asked)

    def _press(self, asked: _Asked, times: int) -> bool:
        """Tell a question to end, as often as that; it may be between two statements. Says whether it has ended."""
        for _ in range(times):
            with self._lock:
                if asked.reader:
                    asked.reader.interrupt()
            # A question that was only queued is done without `wait` knowing.
            if asked.future.done() or wait([asked.future], _HEED_EVERY_S).done:
                return True
        return False

    def _press_on(self, asked: _Asked) -> None:
        """Tell a question to end until it has, while others go on."""
        threading.Thread(target=self._press, args=(asked, sys.maxsize), name="end").start()

    def keep(self, key: Hashable, value: Any) -> None:
        """Keep what was found now, for all who look, until something newer is found."""
        with self._lock:
            self._kept[key] = Kept(value, time.monotonic())
            self._kept.move_to_end(key)
            while len(self._kept) > _ANSWERS:
                self._kept.popitem(last=False)

    def kept(self, key: Hashable) -> Kept | None:
        """What was found last, however long ago."""
        with self._lock:
            return self._kept.get(key)

    def close(self) -> None:
        """Let go of the store, forget the answers, and ask no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            for asked in self._answers.values():
                asked.left = True
                if not asked.future.done():
                    self._press_on(asked)
            for _, reader in self._idle:
                reader.close()
            self._idle.clear()
            self._answers.clear()
            self._kept.clear()

    @contextmanager
    def reader(self, zone: str, *, brief: bool = False) -> Iterator[Reader]:
        """A reader of the store as it stands in its folder now; waits where all are busy. Raises StoreError.

        A `brief` question needs nothing at hand: it leaves the reader that was used last to the others.
        """
        with self._places:
            which = self._identity()
            reader = self._take(which, zone, brief) or Reader(self._store, zone=zone)
            try:
                yield reader
            except BaseException:
                # What failed may have left the reader unusable (a store that was moved away), and opening is cheap.
                reader.close()
                raise
            with self._lock:
                self._idle.insert(0 if brief else len(self._idle), (which, reader))

    def _take(self, which: tuple[int, int], zone: str, brief: bool) -> Reader | None:
        """An idle reader of this store in this zone; others are closed, so that no more are open than may be used."""
        with self._lock:
            # The one used last has most of what it needs at hand.
            fit = [entry for entry in self._idle if entry[0] == which and entry[1].zone == zone]
            found = fit[0 if brief else -1] if fit else None
            entry = found or (self._idle[0] if len(self._idle) >= _OPEN else None)
            if entry:
                self._idle.remove(entry)
        if entry and not found:
            entry[1].close()
        return found[1] if found else None

    def _identity(self) -> tuple[int, int]:
        """What tells a store from another one put in its place."""
        store = resolve(self._store)
        require(store)
        with suppress(OSError):
            found = os.stat(store.catalog)
            return found.st_dev, found.st_ino
        return 0, 0


def key_of(where: Where) -> Hashable:
    """What tells one condition from another."""
    return where.sql, tuple((name, str(value)) for name, value in sorted(where.parameters.items()))


@cache
def desk_of(store: str) -> Desk:
    """The desk of a store; one for the whole process."""
    return Desk(store)
