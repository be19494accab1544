"""What the person who starts the collector decides, and what it reports when it ends.

Rule: limits are named here once, each with its reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from parser import Options

LINE_LIMIT = 64 * 1024
"""Bytes. The kernel's longest log line has 1 024 characters; what is beyond this is not a log line, it is damage."""
FOLLOW_CHUNK = 512 * 1024
"""Bytes read at once when following: 2 000 lines, parsed in milliseconds, and memory stays small."""
INGEST_CHUNK = 32 * 1024 * 1024
"""Bytes read at once in bulk: enough that the cost of a call does not count."""
BATCH = 2 * 1024 * 1024
"""Bytes of log that one commit of the follower accounts for at most; more is waiting means more commits. Working off a
backlog takes 154 MB so, 168 MB with twice as much, and a few seconds less for a million lines."""

LOCK_WAIT_S = 3.0
"""Seconds to wait for the store at the start: a deposit of an inventory holds it for less than one. Who is to be
started again and again waits longer (`--wait`)."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """Read a file that was never seen before from its first byte."""


@dataclass(frozen=True, slots=True)
class End:
    """Skip what a file that was never seen before already holds; its unfinished last line is new."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Go on at a byte that is the start of a line."""

    offset: int


ReadFrom = Beginning | End | Checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to collect.

    `node`: name for lines that name no host. `read_from`: where to start in a file at the very first start.
    `once`: read what is there and stop. `batch_age_s`: a line waits no longer for its commit; also the least time
    between two commits of a follower that is not behind. `poll_s`: how often to look without being woken. `grace_s`:
    how long nothing may have happened to a rotated file before it is closed. `maintain_s`: time between two
    maintenances of the store. `keep`: age beyond which rows are dropped, None keeps all. `keep_bytes`: size
    of the store beyond which its oldest days go. `wait_s`: how long another
    process may hold the store at the start.
    """

    options: Options = field(default_factory=Options)
    node: str | None = None
    read_from: ReadFrom = field(default_factory=Beginning)
    once: bool = False
    batch_age_s: float = 1.0
    poll_s: float = 5.0
    grace_s: float = 30.0
    maintain_s: float = 30.0
    keep: timedelta | None = None
    keep_bytes: int | None = None
    wait_s: float = LOCK_WAIT_S
    chunk_bytes: int = FOLLOW_CHUNK
    batch_bytes: int = BATCH


@dataclass(slots=True)
class Summary:
    """What one run did: `lines == packets + others + rejects`.

    `bytes`: of log text accounted for. `bytes_lost`: gone before they were read. `skipped`: files of which every line
    was read before. `waiting`: files whose last line has no newline yet and is left for later. `failed`: path and
    reason of files that could not be read.
    """

    lines: int = 0
    packets: int = 0
    others: int = 0
    rejects: int = 0
    losses: int = 0
    bytes: int = 0
    bytes_lost: int = 0
    commits: int = 0
    skipped: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)


class CollectorError(Exception):
    """Something cannot be collected: `where`, `what` is wrong there, and what to `do` next."""

    def __init__(self, where: str, what: str, do: str = "") -> None:
        super().__init__(where, what, do)
        self.where = where
        self.what = what
        self.do = do

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f"; {self.do}" if self.do else "")
