"""When is there something to do? The file system wakes the follower, other sources do by their descriptors.

Rule: being woken is a courtesy. inotify(7) says nothing on network file systems, so the follower looks by itself, too.
Folders are watched, not files: a file that is renamed away would take its watch with it.
"""

from __future__ import annotations

import logging
import os
import select
from collections.abc import Iterable

from watchdog.events import (
    DirModifiedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import ObservedWatch

_LOG = logging.getLogger(__name__)
# Opening and closing are left out: the follower's own reading would wake it.
_EVENTS: list[type[FileSystemEvent]] = [
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    DirModifiedEvent,
]


class Wake(FileSystemEventHandler):
    """Waits for a change in the watched folders, or for data on descriptors."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._observer = Observer()
        self._watches: dict[str, tuple[tuple[int, int], ObservedWatch]] = {}
        self._observer.start()

    def watch(self, folders: Iterable[str]) -> None:
        """Watch these folders from now on; one that was replaced by another is watched anew."""
        wanted = {folder: key for folder in set(folders) if (key := _key(folder)) is not None}
        for folder in [folder for folder, (key, _) in self._watches.items() if wanted.get(folder) != key]:
            self._leave(folder)
        for folder, key in wanted.items():
            if folder not in self._watches:
                self._enter(folder, key)

    def wait(self, descriptors: Iterable[int], timeout_s: float) -> bool:
        """Return when there is something to do, or after the time; True where somebody woke us."""
        ready, _, _ = select.select([self._read, *descriptors], [], [], max(0.0, timeout_s))
        if self._read in ready:
            while len(_drain(self._read)) == _PIPE:
                pass
        return bool(ready)

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Called by watchdog, in its thread."""
        try:
            os.write(self._write, b"!")
        except BlockingIOError:
            return  # woken often enough

    def close(self) -> None:
        """Stop watching."""
        self._observer.stop()
        self._observer.join()
        os.close(self._read)
        os.close(self._write)

    def _enter(self, folder: str, key: tuple[int, int]) -> None:
        try:
            self._watches[folder] = key, self._observer.schedule(self, folder, event_filter=_EVENTS)
        except OSError as error:  # fs.inotify.max_user_watches, or gone again
            _LOG.info("%s: cannot be watched (%s); it is looked at now and then instead", folder, error)

    def _leave(self, folder: str) -> None:
        _, watch = self._watches.pop(folder)
        try:
            self._observer.unschedule(watch)
        except (KeyError, OSError) as error:
            _LOG.debug("%s: watch was gone already (%s)", folder, error)


_PIPE = 65536


def _drain(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _PIPE)
    except BlockingIOError:
        return b""


def _key(folder: str) -> tuple[int, int] | None:
    try:
        found = os.stat(folder)
    except OSError:
        return None
    return found.st_dev, found.st_ino
