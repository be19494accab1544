"""How far each target is: the place of the last packet that it has acknowledged, and where that is kept.

Rule: a mark is durable when `save` returns or, in the process that writes the store, with its next commit; it never
goes back. A forwarder that may only read the store keeps its mark in a file of its own, replaced in one step.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from analytics import StoreError
from analytics.additions import ForwardedRow
from analytics.queries import Cursor
from collector.settings import CollectorError

_VERSION = 1
_MODE = 0o640


@dataclass(frozen=True, slots=True)
class Mark:
    """`cursor`: place of the last packet acknowledged, None before the first. `messages`: acknowledged so far.
    `passed`: packets ever stored up to the cursor, gone ones included; None until it was counted. `dropped`: packets
    that retention removed before they were sent.
    """

    cursor: Cursor | None = None
    messages: int = 0
    passed: int | None = None
    dropped: int = 0


class Marks(Protocol):
    """Where the mark of one target is kept."""

    def load(self) -> Mark:
        """The mark as it was saved last."""

    def save(self, mark: Mark) -> None:
        """Keep a mark; raises StoreError, retryable."""


class Ledger:
    """The marks of a process that writes the store itself: they go into its next commit."""

    def __init__(self, target: str, newest: ForwardedRow | None) -> None:
        self._target = target
        self._mark = _mark_of(newest)
        self._lock = threading.Lock()
        self._waiting: ForwardedRow | None = None

    def load(self) -> Mark:
        """The mark of the last commit that this process found, or what was saved since."""
        return self._mark

    def save(self, mark: Mark) -> None:
        """Hand the mark over to the next commit; one without a place is kept in memory only."""
        place = mark.cursor
        with self._lock:
            self._mark = mark
            if place is None:
                return
            self._waiting = ForwardedRow(
                target=self._target,
                row_stored_at=place.stored_at,
                row_source_file=place.source_file,
                row_source_offset=place.source_offset,
                messages=mark.messages,
                passed=mark.passed,
                dropped=mark.dropped,
                time=datetime.now(UTC),
            )

    @property
    def waits(self) -> bool:
        """Is there a mark that no commit has taken yet?"""
        return self._waiting is not None

    def take(self) -> ForwardedRow | None:
        """The mark that waits for a commit, if any; it is the committer's now."""
        with self._lock:
            waiting, self._waiting = self._waiting, None
            return waiting


def _mark_of(row: ForwardedRow | None) -> Mark:
    if row is None:
        return Mark()
    place = Cursor(row.row_stored_at, row.row_source_file, row.row_source_offset)
    return Mark(place, row.messages, row.passed, row.dropped)


class StateFile:
    """The mark of one target and one store in a file; a context manager that holds it exclusively."""

    def __init__(self, path: Path, store: str, target: str) -> None:
        """Take the file; raises CollectorError where another forwarder has it or it is not ours."""
        self.path = path
        self._identity = {"version": _VERSION, "store": os.path.realpath(store), "target": target}
        self._lock = _locked(path)
        try:
            self._mark = self._read()
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._lock)

    def load(self) -> Mark:
        """The mark as it stands in the file."""
        return self._mark

    def save(self, mark: Mark) -> None:
        """Replace the file by one with this mark, so that a crash leaves one of the two whole (rename(2), fsync(2))."""
        text = json.dumps({**self._identity, **_plain(mark), "time": datetime.now(UTC).isoformat()}, indent=1) + "\n"
        beside = self.path.with_name(f"{self.path.name}.new")
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _MODE)
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, self.path)
            _sync_folder(self.path.parent)
        except OSError as error:
            raise StoreError(self.path, f"cannot be written: {error.strerror}", retryable=True) from error
        self._mark = mark

    def _read(self) -> Mark:
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return Mark()
        except (OSError, ValueError, RecursionError) as error:
            raise CollectorError(str(self.path), f"is no state file: {error}", "name another with --state") from error
        for key, ours in self._identity.items():
            theirs = found.get(key) if isinstance(found, dict) else None
            if theirs != ours:
                what = f"belongs to {key} {theirs!r}, not {ours!r}"
                raise CollectorError(str(self.path), what, "name another with --state")
        return _restored(found, self.path)


def default_state(store: str, target: str) -> Path:
    """Where the state file of a target lies unless the user names one: not in the store, which may be read-only."""
    home = os.environ.get("XDG_STATE_HOME", "")
    if home.startswith("/"):
        folder = Path(home) / "denylog-forward"
    elif os.geteuid() == 0:
        folder = Path("/var/lib/denylog-forward")
    else:
        folder = Path("~/.local/state").expanduser() / "denylog-forward"
    which = hashlib.blake2b(os.fsencode(os.path.realpath(store)), digest_size=6).hexdigest()
    return folder / f"{re.sub('[^A-Za-z0-9.-]+', '-', target).strip('-')}-{which}.json"


def _plain(mark: Mark) -> dict[str, Any]:
    place = mark.cursor
    return {
        "stored_at": place.stored_at.astimezone(UTC).isoformat() if place else None,
        "source_file": place.source_file if place else None,
        "source_offset": place.source_offset if place else None,
        "messages": mark.messages,
        "passed": mark.passed,
        "dropped": mark.dropped,
    }


def _restored(found: Mapping[str, Any], path: Path) -> Mark:
    try:
        cursor = None
        if found["stored_at"] is not None:
            moment = datetime.fromisoformat(found["stored_at"])
            if moment.tzinfo is None:
                raise ValueError("stored_at names no zone")
            cursor = Cursor(moment, str(found["source_file"]), _count(found["source_offset"]))
        passed = found["passed"]
        return Mark(cursor, _count(found["messages"]), None if passed is None else _count(passed),
                    _count(found["dropped"]))  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise CollectorError(str(path), f"is no state file: {error!r}", "name another with --state") from error


def _count(value: Any) -> int:
    if not 0 <= int(value) < 2**63:
        raise ValueError(f"{value!r} is no count")
    return int(value)


def _locked(path: Path) -> int:
    """An exclusive lock beside the file, since the file itself is replaced; freed by the kernel if we die."""
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        descriptor = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
    except OSError as error:
        raise CollectorError(str(path), f"cannot be written: {error.strerror}", "name another with --state") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        what = "another forwarder is using it"
        raise CollectorError(str(path), what, "stop that one, or name another file with --state") from error
    return descriptor


def _sync_folder(folder: Path) -> None:
    """Make the new name durable, where the file system knows how."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
