"""Has the log gone silent? Denied packets that stop while the log itself goes on are more often a fault than a peace.

Rule: "usual" is learned. The longest gap between two denied packets (by their time stamps) of each of the last eight
days is kept, so that nights and weekends are known after the first; silence is unusual when it lasts twice the longest
of them, never less than a quarter of an hour. Nothing is said before there were 20 gaps over an hour, nor of a log that
does not grow itself. Times are given, no clock is looked at.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

FLOOR_S = 900.0
"""Pods retry within minutes; less than this is no silence."""
FACTOR = 2.0
GAPS, SPAN_S = 20, 3600.0
DAYS = 8
"""A week and a day: a gap that comes once a week is still known when it comes again."""
FRESH_S = 300.0
"""A log to which nothing was added for so long does not grow: then it is not silence, it is standstill."""
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Verdict:
    """`silent` for `seconds` where up to `limit` are usual; `limit` is 0 while that is being learned."""

    silent: bool
    seconds: float
    limit: float


class Silence:
    """Told of packets and of growth, it says whether the silence since is unusual."""

    def __init__(self) -> None:
        self._longest: OrderedDict[int, float] = OrderedDict()
        self._gaps = 0
        self._first = self._last = 0.0
        self._heard = self._grown = 0.0

    def packets(self, stamps: Sequence[float], now: float) -> None:
        """Packets with these time stamps (seconds since 1970) were stored; `now` is monotonic."""
        self._heard = self._grown = now
        for stamp in sorted(stamps):
            if not self._first:
                self._first = self._last = stamp
            if stamp > self._last:
                self._learn(stamp)

    def grew(self, now: float) -> None:
        """Lines were read, whatever they held."""
        self._grown = now

    def verdict(self, now: float) -> Verdict:
        """What there is to say at this moment."""
        seconds = now - self._heard if self._heard else 0.0
        limit = self._limit()
        talking = now - self._grown <= FRESH_S and self._grown > self._heard
        return Verdict(bool(limit) and talking and seconds > limit, seconds, limit)

    def _limit(self) -> float:
        if self._gaps < GAPS or self._last - self._first < SPAN_S:
            return 0.0
        return max(FLOOR_S, FACTOR * max(self._longest.values()))

    def _learn(self, stamp: float) -> None:
        gap, day = stamp - self._last, int(stamp // _DAY_S)
        self._gaps += 1
        self._last = stamp
        self._longest[day] = max(gap, self._longest.get(day, 0.0))
        while len(self._longest) > DAYS:
            self._longest.popitem(last=False)
