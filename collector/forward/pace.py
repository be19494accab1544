"""How fast and how often: messages a second at most, and the pauses between attempts to reach a server.

Rule: pure arithmetic on times that the caller gives; nothing here sleeps.
"""

from __future__ import annotations

import random

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 60.0
# A bucket holds what may be sent in this time, so that a pause is not followed by a burst.
_BUCKET_S = 1.0


class Pace:
    """A token bucket: `rate` messages a second, None for as fast as it goes."""

    def __init__(self, rate: float | None, now: float) -> None:
        self._rate = rate
        self._tokens = 0.0
        self._at = now

    def wait_for(self, count: int, now: float) -> float:
        """Take `count` messages out of the bucket; the seconds to wait before they may be sent."""
        if self._rate is None:
            return 0.0
        self._tokens = min(self._rate * _BUCKET_S, self._tokens + (now - self._at) * self._rate) - count
        self._at = now
        return max(0.0, -self._tokens / self._rate)

    def batch(self, limit: int) -> int:
        """How many messages to send at once: no more than may be sent in one second."""
        return limit if self._rate is None else max(1, min(limit, int(self._rate)))


class Backoff:
    """Pauses that double from 0.5 s to a minute, each shortened by up to a half at random.

    The jitter keeps a fleet of nodes from coming back to a server in step.
    """

    def __init__(self) -> None:
        self._pause_s = FIRST_PAUSE_S

    def next(self) -> float:
        """The pause after another failure, in seconds."""
        pause, self._pause_s = self._pause_s, min(2 * self._pause_s, LONGEST_PAUSE_S)
        return pause * random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Something went well."""
        self._pause_s = FIRST_PAUSE_S
