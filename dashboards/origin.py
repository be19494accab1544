"""The line behind a packet, read again from the log where it still stands.

Rule: a line is shown only from the very file it was read from, which the position's fingerprint proves; else the page
says where it stood. At most one line is read, and nothing is opened but the path that the collector recorded.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass

from analytics.position import Position

# The longest line that the collector takes for one; longer ones are cut here.
_LONGEST = 16_384


@dataclass(frozen=True, slots=True)
class Line:
    """A line and where it stands; the text is empty where it cannot be read."""

    text: str
    where: str


def line_of(position: Position | None, offset: int) -> Line:
    """The line at an offset of the file that a position is of."""
    if position is None:
        return Line("", "the store does not say which file it was read from")
    if position.cursor:
        return Line("", f"record {offset:,} of {position.source}")
    place = f"byte {offset:,} of {position.path}"
    try:
        # O_NONBLOCK: a named pipe put in the file's place must not make the page wait.
        with open(os.open(position.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode) or not _same(
                file.read(position.head_length), position
            ):
                return Line("", f"{place}, which has been rotated or compressed since")
            file.seek(offset)
            found = file.readline(_LONGEST)
    except OSError as error:
        return Line("", f"{place}, which cannot be read here ({error.strerror})")
    return Line(found.decode(errors="replace").rstrip("\r\n"), place)


def _same(head: bytes, position: Position) -> bool:
    """Does the file begin with the bytes that the collector saw?"""
    return position.head_length > 0 and _digest(head) == position.head


def _digest(head: bytes) -> str:
    return hashlib.blake2b(head, digest_size=16).hexdigest()
