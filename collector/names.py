"""Which files? Paths and patterns become files, and a file's rotated siblings are found by their names, oldest first.

Rule: a name only tells which files to look at and in which order; whether one was read before is a matter of its
content. Naming schemes: logrotate(8) (`start`, `dateext`, `dateformat`, `extension`), newsyslog, Debian's savelog.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

_NAME = re.compile(
    r"(?P<stem>.+?)"
    r"(?:[-._](?P<date>(?:19|20)\d\d-?[01]\d-?[0-3]\d(?:[-_T.]?\d{2,10})?))?"
    r"(?:\.(?P<number>\d{1,4}))?"
    r"(?P<extension>\.(?!(?:gz|zst|xz|bz2)$)[A-Za-z]\w*)?"
    r"(?P<compressed>\.(?:gz|zst|xz|bz2))?",
    re.ASCII,
)
_NOT_DIGIT = re.compile(r"\D")


@dataclass(frozen=True, slots=True)
class Named:
    """A file by its name: `family` is the path of the live file, `date` (digits) and `number` tell which rotation."""

    path: str
    family: str
    date: str
    number: int | None
    compressed: bool

    @property
    def rotated(self) -> bool:
        return bool(self.date) or self.number is not None

    @property
    def rotation(self) -> tuple[str, int | None]:
        return self.date, self.number


def name(path: str) -> Named:
    """Read what the name of a file says."""
    folder, base = os.path.split(path)
    found = _NAME.fullmatch(base)
    if found is None:
        return Named(path, path, "", None, False)
    family = os.path.join(folder, found["stem"] + (found["extension"] or ""))
    number = None if found["number"] is None else int(found["number"])
    return Named(path, family, _NOT_DIGIT.sub("", found["date"] or ""), number, bool(found["compressed"]))


def in_time_order(paths: Iterable[str]) -> list[str]:
    """Files in the order in which they were written, family by family: rotated oldest first, the live one last."""
    families: dict[str, list[Named]] = {}
    for path in paths:
        named = name(path)
        families.setdefault(named.family, []).append(named)
    return [named.path for members in families.values() for named in _by_age(members)]


def siblings(path: str) -> list[str]:
    """The rotated files that belong to the live file at `path`, oldest first; of a rotation that is there both plain
    and compressed (logrotate is at work) only the plain one."""
    folder = os.path.dirname(path)
    try:
        entries = os.listdir(folder)
    except OSError:
        return []
    found = [name(os.path.join(folder, entry)) for entry in entries]
    rotated = [named for named in found if named.family == path and named.rotated]
    plain = {named.rotation for named in rotated if not named.compressed}
    return [named.path for named in _by_age(rotated) if not (named.compressed and named.rotation in plain)]


def expand(patterns: Iterable[str], known: Iterable[str] = ()) -> list[str]:
    """The live files that paths and glob patterns name, in a stable order: absolute, each once, no archives.

    What a pattern finds is left out where it is a rotated sibling of another file found, or of one in `known`. A path
    without wildcards is always there, whether or not the file exists yet.
    """
    exact = {os.path.abspath(pattern): None for pattern in patterns if not glob.has_magic(pattern)}
    matched = [
        name(os.path.abspath(path))
        for pattern in patterns
        if glob.has_magic(pattern)
        for path in sorted(glob.glob(pattern))
        if os.path.isfile(path)
    ]
    live = {named.path for named in matched} | set(exact) | set(known)
    followed = [
        named.path for named in matched if not named.compressed and not (named.rotated and named.family in live)
    ]
    return list(exact | dict.fromkeys(followed))


def _by_age(members: list[Named]) -> list[Named]:
    rotated = [named for named in members if named.rotated]
    live = [named for named in members if not named.rotated]
    if len({bool(named.date) for named in rotated}) > 1:  # the scheme was changed: the names do not compare
        return sorted(rotated, key=lambda named: _modified(named.path)) + live
    return sorted(rotated, key=lambda named: (named.date, -(named.number or 0), named.path)) + live


def _modified(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0
