"""How long has nothing happened to a file?

Rule: the wall clock may be set at any time, and then the age of a time stamp is no age. It is believed for the moment
at which a file is opened; afterwards a change is never older than the last look, by a clock that nobody sets.
"""

from __future__ import annotations

import time

from collector.texts import Facts


class Idle:
    """Watches what the file system says of one file."""

    def __init__(self, facts: Facts) -> None:
        self._facts, self._looked = facts, time.monotonic()
        self._since = self._looked - _age(facts)

    def note(self, facts: Facts) -> float:
        """Seconds since something happened to the file, of which `facts` is the latest."""
        now = time.monotonic()
        if facts != self._facts:
            self._facts, self._since = facts, now - min(_age(facts), now - self._looked)
        self._looked = now
        return now - self._since


def _age(facts: Facts) -> float:
    return max(0.0, time.time() - facts.changed)
