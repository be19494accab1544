"""A store in memory for tests that restart the follower thousands of times: like `analytics.Writer`, a commit is taken
whole or not at all, and positions come back in the order in which their files first appeared."""

from __future__ import annotations

from datetime import timedelta

from analytics import Commit, LossRow, Position, RejectRow
from analytics.capacity import Dropped


class MemoryStore:
    """Rows and positions that were committed."""

    def __init__(self) -> None:
        self.packets = 0
        self.rejects: list[RejectRow] = []
        self.losses: list[LossRow] = []
        self._positions: dict[str, Position] = {}

    def commit(self, commit: Commit) -> None:
        """Take everything in `commit`."""
        self.packets += sum(frame.height for frame in commit.packets)
        self.rejects.extend(commit.rejects)
        self.losses.extend(commit.losses)
        self._positions.update({position.file: position for position in commit.positions})

    def maintain(self, keep: timedelta | None = None) -> None:
        """Nothing to tidy up."""

    def shrink(self, limit: int) -> Dropped:
        """Memory has no limit."""
        return Dropped((), 0, 0)

    def take_in(self) -> int:
        """Nothing waits."""
        return 0

    def positions(self) -> list[Position]:
        """The newest position of each file."""
        return list(self._positions.values())

    @property
    def lines(self) -> int:
        """Lines that the positions account for."""
        return sum(position.lines for position in self._positions.values())
