"""What a run tells whoever wants to know how it is doing: metrics, health, warnings.

Rule: telling costs next to nothing and never stops a run. Calls come from the thread that reads and from the one that
commits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from analytics import Position, StoreError
from collector.rows import Piece

Lookup = Callable[[Collection[str]], Mapping[str, str]]
"""Interfaces of this node to the namespaces of their pods; raises StoreError. To be called while something is told."""


class Watch:
    """Hears everything and does nothing with it."""

    def held(self, error: StoreError) -> None:
        """Another process has the store, which is waited for."""

    def opened(self, positions: Sequence[Position], seconds: float, namespaces: Lookup) -> None:
        """The store is open after `seconds`; it holds these positions and knows these namespaces."""

    def reloaded(self, *, taken: bool) -> None:
        """The configuration was read again, and taken or not."""

    def beat(self) -> None:
        """The reading thread is alive, though it may have to wait for the store."""

    def looked(self, failed: Sequence[tuple[str, str]]) -> None:
        """All sources were looked at; path and reason of those that cannot be read now."""

    def handed_over(self) -> None:
        """There is something to commit."""

    def rotated(self, kind: str) -> None:
        """A file that is followed was renamed away (`rename`) or cut (`truncate`)."""

    def committed(self, pieces: Sequence[Piece], seconds: float) -> None:
        """The store took these pieces, after `seconds` of trying."""

    def refused(self, error: StoreError) -> None:
        """The store did not take a commit; it is tried again."""

    def dropped(self, packets: int) -> None:
        """So many packets went, since the store took more than it may."""

    def maintained(self, seconds: float, error: StoreError | None) -> None:
        """A round of maintenance is over; with the error where it was put off."""


class Watches(Watch):
    """Tells several."""

    def __init__(self, *watches: Watch) -> None:
        self._watches = watches

    def held(self, error: StoreError) -> None:
        for watch in self._watches:
            watch.held(error)

    def opened(self, positions: Sequence[Position], seconds: float, namespaces: Lookup) -> None:
        for watch in self._watches:
            watch.opened(positions, seconds, namespaces)

    def reloaded(self, *, taken: bool) -> None:
        for watch in self._watches:
            watch.reloaded(taken=taken)

    def beat(self) -> None:
        for watch in self._watches:
            watch.beat()

    def looked(self, failed: Sequence[tuple[str, str]]) -> None:
        for watch in self._watches:
            watch.looked(failed)

    def handed_over(self) -> None:
        for watch in self._watches:
            watch.handed_over()

    def rotated(self, kind: str) -> None:
        for watch in self._watches:
            watch.rotated(kind)

    def committed(self, pieces: Sequence[Piece], seconds: float) -> None:
        for watch in self._watches:
            watch.committed(pieces, seconds)

    def refused(self, error: StoreError) -> None:
        for watch in self._watches:
            watch.refused(error)

    def dropped(self, packets: int) -> None:
        for watch in self._watches:
            watch.dropped(packets)

    def maintained(self, seconds: float, error: StoreError | None) -> None:
        for watch in self._watches:
            watch.maintained(seconds, error)


NOBODY = Watch()
