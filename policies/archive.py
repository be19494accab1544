"""What the commands of `denylog policies` may ask a store: packets that were denied, and the objects of their time.

Rule: policies know no store. Whoever puts the two together (`collector.archive`) hands an `Opener` to the commands as
click's `obj`; without it they work on files alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Protocol, TypeAlias

from policies.logged import Packet
from policies.past import Version


class Archive(Protocol):
    """An open store, and the packets in it that the user chose."""

    now: datetime
    """The time at which it was opened: policies that are in force are those of now."""

    def flows(self, *, source_ports: bool) -> Iterable[Packet]:
        """The chosen packets, one row for each flow: its newest packet, with `packets` for their number; the newest
        flow first. A flow is direction, interfaces, addresses, protocol, destination port, ICMP type and code, and the
        source port only where it is asked for."""

    def packet(self, which: str) -> Packet | None:
        """One of the chosen packets: `last`, or `FILE:OFFSET` as in `source_file` and `source_offset`; None where there
        is none. Raises PolicyError for another text."""

    def versions(self) -> Iterable[Version]:
        """Every version of every object that a policy can name."""


Opener: TypeAlias = Callable[[str, Mapping[str, Any]], AbstractContextManager[Archive]]
"""From the store's folder and the filters given, by the names of their options."""
