"""Where lines end in a chunk: the part that is whole lines of bearable length, and what cannot be one.

Rule: memory does not depend on what the file holds. A line over the limit is passed over, one chunk at a time.
"""

from __future__ import annotations

from collector.settings import LINE_LIMIT

_NUL = b"\0"


def whole(data: bytes, limit: int = LINE_LIMIT) -> int:
    """Bytes at the start of `data` that are whole lines, none with more than `limit` bytes before its newline."""
    end = 0
    while (newline := data.rfind(b"\n", end, end + limit + 1)) >= 0:
        end = newline + 1
    return end


def nuls(data: bytes) -> int:
    """NULs at the start of `data`: a hole that a writer left after a truncation, or a crash; never text."""
    return len(data) - len(data.lstrip(_NUL))
