"""When a server is away: how long to wait before the next attempt, and what is said about it.

Rule: an outage is two lines, its begin and its end, however long it lasts.
"""

from __future__ import annotations

import logging
import time

from collector.forward.counters import Counters
from collector.forward.pace import Backoff

_LOG = logging.getLogger(__name__)
ONCE_PATIENCE_S = 5.0
"""With `once`, a server that takes nothing for so long is given up."""


class Unreachable(Exception):
    """Nothing arrived at `target` for five seconds, and `once` was asked for; `reason` is that of the last attempt."""

    def __init__(self, target: str, reason: str) -> None:
        super().__init__(target, reason)
        self.target = target
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.target}: {self.reason}; what has not arrived is sent next time"


class Outage:
    """The state of the connection to one target; `patient` tries for ever."""

    def __init__(self, counters: Counters, *, patient: bool) -> None:
        self._counters = counters
        self._patient = patient
        self._backoff = Backoff()
        self._since: float | None = None
        self._heard: float | None = None

    def attempt(self) -> None:
        """A connection is about to be made; the patience of `once` begins with the first."""
        self._heard = self._heard or time.monotonic()

    def arrived(self) -> None:
        """The server has taken something, if not all that it was sent."""
        self._heard = time.monotonic()

    def connected(self) -> None:
        """A connection was made; whether it is of use shows when something arrives."""
        self._counters.connected = True
        if self._since is None:
            _LOG.info("%s: connected", self._counters.target)

    def over(self) -> None:
        """All that was sent arrived, or there was nothing to send."""
        self.arrived()
        self._backoff.reset()
        if self._since is not None:
            _LOG.warning("%s: reachable again after %.0f s", self._counters.target, time.monotonic() - self._since)
            self._since = None

    def failed(self, reason: str) -> float:
        """An attempt failed; the seconds to wait before the next. Raises Unreachable when it is time to give up."""
        self._counters.connected = False
        now = time.monotonic()
        if self._since is None:
            self._since = now
            self._counters.outages += 1
            _LOG.warning("%s: %s; packets wait in the store until it is back", self._counters.target, reason)
        if not self._patient and now - (self._heard or now) >= ONCE_PATIENCE_S:
            raise Unreachable(self._counters.target, reason)
        return self._backoff.next()
