"""The follower: reads what its sources have, commits it, and sleeps until there is more.

Rule: a line waits for its commit no longer than `batch_age_s`; a follower that is not behind commits no more often.
"""

from __future__ import annotations

import glob
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from analytics import Writer
from collector import names
from collector.book import Book
from collector.committer import Committer, Sink
from collector.journal import Journal
from collector.kmsg import Kmsg
from collector.memory import give_back_libraries
from collector.path import Path
from collector.rows import Piece
from collector.settings import Beginning, Settings, Summary
from collector.wake import Wake

_TICK_S = 0.5  # a signal is noticed within this time


class Source(Protocol):
    """Something that lines come from. `behind`: the last read was not all that is there."""

    behind: bool

    def read(self, budget: int) -> Iterator[Piece]:
        """What is there now, at most about `budget` bytes."""

    def descriptors(self) -> Iterable[int]:
        """Descriptors that become readable when there is more."""

    def folders(self) -> Iterable[str]:
        """Folders in which something changes when there is more."""

    def waiting(self) -> list[str]:
        """Files whose last line has no newline yet."""

    def failed(self) -> list[tuple[str, str]]:
        """What cannot be read now, and why."""

    def close(self) -> None:
        """Let go of everything open."""


class Files:
    """All files that paths and patterns name; patterns are looked at anew at every read."""

    def __init__(self, patterns: Sequence[str], book: Book, settings: Settings) -> None:
        self.behind = False
        self._patterns = patterns
        self._book = book
        self._settings = settings
        self._paths: dict[str, Path] = {}
        self._find(first=True)

    def read(self, budget: int) -> Iterator[Piece]:
        """Whole lines of every file, the files in turn."""
        if any(map(glob.has_magic, self._patterns)):
            self._find(first=False)
        for path in self._paths.values():
            yield from path.read(budget)
        self.behind = any(path.behind for path in self._paths.values())

    def waiting(self) -> list[str]:
        """Files whose last line has no newline yet."""
        return [name for name, path in self._paths.items() if path.waiting()]

    def failed(self) -> list[tuple[str, str]]:
        """Paths that lead to nothing that can be read, and why."""
        return [(name, reason) for name, path in self._paths.items() if (reason := path.failure())]

    def descriptors(self) -> Iterable[int]:
        """None: select(2) calls a file always readable."""
        return ()

    def folders(self) -> Iterable[str]:
        """The folders of the paths, and of the files that symbolic links lead to."""
        for path in [*self._paths, *self._patterns]:
            yield os.path.dirname(os.path.abspath(path))
            yield os.path.dirname(os.path.realpath(path))

    def close(self) -> None:
        """Close all files."""
        for path in self._paths.values():
            path.close()

    def _find(self, *, first: bool) -> None:
        start = self._settings.read_from if first else Beginning()
        for path in names.expand(self._patterns, self._paths):
            if path not in self._paths:
                self._paths[path] = Path(path, self._book, self._settings, start)


def follow(
    patterns: Sequence[str],
    store: str,
    settings: Settings,
    stop: threading.Event,
    *,
    journal: str | None = None,
    kmsg: bool = False,
) -> Summary:
    """Follow files until `stop` is set (or, with `settings.once`, until everything that is there was read).

    `journal`: also the journal in this directory, "" for the system's. `kmsg`: also /dev/kmsg.
    Raises CollectorError for a source that is not there; StoreError when the store cannot be opened, and, once `stop`
    is set or with `once`, when it takes no rows.
    """
    with Writer(store) as writer:
        book = Book(writer.positions())
        sources: list[Source] = [Files(patterns, book, settings)] if patterns else []
        if journal is not None:
            sources.append(Journal(journal, book, settings))
        if kmsg:
            sources.append(Kmsg(book, settings))
        give_back_libraries()
        return run(sources, writer, settings, stop)


def run(sources: Sequence[Source], store: Sink, settings: Settings, stop: threading.Event) -> Summary:
    """Read the sources and commit what they bring until `stop` is set, or with `once` until there is nothing more."""
    committer = Committer(store, settings, stop, patient=not settings.once)
    try:
        if settings.once:
            _drain(sources, committer, settings, stop)
        else:
            _follow(sources, committer, settings, stop)
        summary = committer.close()
        if settings.once:
            summary.waiting.extend(path for source in sources for path in source.waiting())
            summary.failed.extend(failure for source in sources for failure in source.failed())
        return summary
    except BaseException:
        committer.abandon()
        raise
    finally:
        for source in sources:
            source.close()


def _drain(sources: Sequence[Source], committer: Committer, settings: Settings, stop: threading.Event) -> None:
    while not stop.is_set() and (_cycle(sources, committer, settings) or any(source.behind for source in sources)):
        continue


def _follow(sources: Sequence[Source], committer: Committer, settings: Settings, stop: threading.Event) -> None:
    wake = Wake()
    try:
        while not stop.is_set():
            began = time.monotonic()
            _cycle(sources, committer, settings)
            if not any(source.behind for source in sources):
                _sleep(wake, sources, settings, stop, began)
    finally:
        wake.close()


def _cycle(sources: Sequence[Source], committer: Committer, settings: Settings) -> bool:
    """Read once what all sources have, handing it over batch by batch; True where there was something."""
    batch: list[Piece] = []
    found = size = 0
    for source in sources:
        for piece in source.read(settings.batch_bytes):
            batch.append(piece)
            found += 1
            size += piece.bytes
            if size >= settings.batch_bytes:
                committer.put(batch)
                batch, size = [], 0
    if batch:
        committer.put(batch)
    return found > 0


def _sleep(wake: Wake, sources: Sequence[Source], settings: Settings, stop: threading.Event, began: float) -> None:
    """Wait to be woken, at most for the poll time; then let the batch fill until its age is reached."""
    wake.watch(folder for source in sources for folder in source.folders())
    descriptors = [descriptor for source in sources for descriptor in source.descriptors()]
    until = began + settings.poll_s
    while not stop.is_set() and (left := until - time.monotonic()) > 0:
        if wake.wait(descriptors, min(left, _TICK_S)):
            stop.wait(began + settings.batch_age_s - time.monotonic())
            return
