"""Is the collector alive, is it ready, has the log gone silent?

Rule: alive means that the reading thread goes round, or waits for the store, which a restart would not help. Ready
means that every source can be read and that what was read is committed in time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from analytics import Position, StoreError
from collector.rows import Piece
from collector.silence import Silence, Verdict
from collector.watch import Lookup, Watch

if TYPE_CHECKING:
    from collector.metrics import Metrics

_LOG = logging.getLogger(__name__)
STUCK_S = 120.0
"""The reading thread goes round every five seconds; a network file system may hold it up for a while."""
_AHEAD_S = 300.0  # clocks of one node do not differ more
UNCOMMITTED_S = 30.0
"""What was read waits about a second for its commit."""


class Health(Watch):
    """Hears what a run does and judges it; warns when the log goes silent and when packets return."""

    def __init__(self, metrics: Metrics | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._clock = clock
        self._silence = Silence()
        self._silent = False
        self._closed = "the store is not open yet"
        self._beaten = clock()
        self._waiting: list[float] = []
        self._failed: Sequence[tuple[str, str]] = ()
        self._refused = ""
        self._lock = threading.Lock()

    def alive(self) -> str:
        """Why the collector is to be restarted, "" where it is not."""
        quiet = self._clock() - self._beaten
        return f"the reading thread has not moved for {quiet:.0f} s" if quiet > STUCK_S else ""

    def ready(self) -> str:
        """Why the collector does not do its work now, "" where it does."""
        return next(self._reasons(), "")

    def _reasons(self) -> Iterator[str]:
        if self._closed:
            yield self._closed
        with self._lock:
            waited = self._clock() - self._waiting[0] if self._waiting else 0.0
            refused, failed = self._refused, self._failed
        if refused:
            yield f"the store takes no rows: {refused}"
        if waited > UNCOMMITTED_S:
            yield f"what was read has waited for its commit for {waited:.0f} s"
        for path, reason in failed:
            yield f"{path}: {reason}"
        if stuck := self.alive():
            yield stuck

    def held(self, error: StoreError) -> None:
        self._closed = f"the store is not open yet: {error.where} {error.what}"
        self.beat()

    def opened(self, positions: Sequence[Position], seconds: float, namespaces: Lookup) -> None:
        self._closed = ""
        self.beat()

    def beat(self) -> None:
        self._beaten = self._clock()

    def handed_over(self) -> None:
        self.beat()
        with self._lock:
            self._waiting.append(self._clock())

    def looked(self, failed: Sequence[tuple[str, str]]) -> None:
        self.beat()
        with self._lock:
            self._failed = failed
            verdict = self._silence.verdict(self._clock())
        self._tell(verdict)

    def refused(self, error: StoreError) -> None:
        with self._lock:
            self._refused = str(error)

    def committed(self, pieces: Sequence[Piece], seconds: float) -> None:
        now, ahead = self._clock(), time.time() + _AHEAD_S
        stamps = [
            stamp.timestamp()
            for piece in pieces
            for frame in piece.packets
            for stamp in frame["time"].drop_nulls().dt.truncate("1s").unique().to_list()
            if stamp.timestamp() <= ahead  # a forged one would be the last for ever
        ]
        with self._lock:
            self._refused = ""
            self._waiting = self._waiting[1:]
            if any(piece.packets for piece in pieces):
                self._silence.packets(stamps, now)
            elif any(piece.lines for piece in pieces):
                self._silence.grew(now)

    def _tell(self, verdict: Verdict) -> None:
        if self._metrics is not None:
            self._metrics.silent.set(verdict.silent)
            self._metrics.usual.set(verdict.limit)
        if verdict.silent and not self._silent:
            _LOG.warning(
                "no denied packet for %s although the log grows; until now the longest silence was half of %s; "
                "`denylog doctor` looks for the cause", _length(verdict.seconds), _length(verdict.limit)
            )  # fmt: skip
        elif self._silent and not verdict.silent:
            _LOG.warning("denied packets are logged again")
        self._silent = verdict.silent


def _length(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
