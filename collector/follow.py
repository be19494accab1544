"""The follower: reads what its sources have, commits it, and sleeps until there is more.

Rule: a line waits for its commit no longer than `batch_age_s`; a follower that is not behind commits no more often.
A new job takes the place of the old one between two reads: what is followed by both stays open, so no line is missed.
"""

from __future__ import annotations

import fnmatch
import glob
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from analytics import Writer
from analytics.store import StoreHeldError
from collector import names
from collector.book import Book
from collector.committer import Committer, Sink
from collector.journal import Journal
from collector.kmsg import Kmsg
from collector.memory import give_back
from collector.path import Path
from collector.recall import Recall
from collector.rows import Piece
from collector.settings import LOCK_WAIT_S, Beginning, CollectorError, Settings, Summary
from collector.wake import Wake
from collector.watch import NOBODY, Watch

if TYPE_CHECKING:
    from collector.forward.service import Forwarding

_LOG = logging.getLogger(__name__)
_TICK_S = 0.5  # a signal is noticed within this time
_LOCK_STEP_S = 1.0  # and while the store is waited for within this


class Source(Protocol):
    """Something that lines come from. `behind`: the last read was not all that is there. `settings` may be replaced."""

    behind: bool
    settings: Settings

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to follow and how: files by path or pattern, the journal in a directory ("" is the system's), /dev/kmsg."""

    patterns: tuple[str, ...] = ()
    journal: str | None = None
    kmsg: bool = False
    settings: Settings


class Reload:
    """A wish for another job: `asked` is set by whoever has it; `job` then gives the job, None where there is none."""

    def __init__(self, asked: threading.Event, job: Callable[[], Job | None]) -> None:
        self.asked = asked
        self._job = job

    def take(self) -> Job | None:
        """The job that is wanted by now, None where it cannot be had; the wish is fulfilled."""
        self.asked.clear()
        return self._job()


class Files:
    """All files that paths and patterns name; patterns are looked at anew at every read."""

    def __init__(self, patterns: Sequence[str], book: Book, settings: Settings) -> None:
        self.behind = False
        self.settings = settings
        self._patterns = patterns
        self._book = book
        self._paths: dict[str, Path] = {}
        self._find(first=True)

    def adopt(self, patterns: Sequence[str], settings: Settings) -> None:
        """Follow what these patterns name from now on; what was followed before stays open as it is."""
        self._patterns, self.settings = patterns, settings
        for name in [name for name in self._paths if not _names(patterns, name)]:
            self._paths.pop(name).close()
        for path in self._paths.values():
            path.settings = settings
        for tail in self._book.tails:
            tail.settings = settings
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
        start = self.settings.read_from if first else Beginning()
        for path in names.expand(self._patterns, self._paths):
            if path not in self._paths:
                self._paths[path] = Path(path, self._book, self.settings, start)


def follow(
    patterns: Sequence[str],
    store: str,
    settings: Settings,
    stop: threading.Event,
    *,
    journal: str | None = None,
    kmsg: bool = False,
    watch: Watch = NOBODY,
    reload: Reload | None = None,
    forwarding: Forwarding | None = None,
) -> Summary:
    """Follow files until `stop` is set (or, with `settings.once`, until everything that is there was read).

    `journal`: also the journal in this directory, "" for the system's. `kmsg`: also /dev/kmsg. `watch` hears how it
    goes; `reload` brings another job meanwhile; `forwarding` sends what is stored to syslog servers.
    Raises CollectorError for a source that is not there; StoreError when the store cannot be opened, and, once `stop`
    is set or with `once`, when it takes no rows.
    """
    began = time.monotonic()
    with _opening(store, settings.wait_s, stop, watch) as writer, _beside(forwarding, writer, stop) as sink:
        positions = writer.positions()
        watch.opened(positions, time.monotonic() - began, writer.namespaces)
        job = Job(patterns=tuple(patterns), journal=journal, kmsg=kmsg, settings=settings)
        book = Book(positions, watch, Recall(store))
        sources = list(_opened((), None, job, book))
        renewal = Renewal(sources, job, book, reload) if reload is not None else None
        give_back()
        return run(sources, sink, settings, stop, watch, renewal)


def _opening(store: str, wait_s: float, stop: threading.Event, watch: Watch) -> Writer:
    """The store, once whoever holds it has let go; told once, and given up after `wait_s` or when `stop` is set."""
    deadline, said = time.monotonic() + wait_s, False
    while True:
        try:
            return Writer(store, wait_s=min(_LOCK_STEP_S, max(0.0, deadline - time.monotonic())))
        except StoreHeldError as error:
            if stop.is_set() or time.monotonic() >= deadline:
                raise
            if not said and time.monotonic() > deadline - wait_s + LOCK_WAIT_S:
                _LOG.warning("%s %s; waiting for it, at most %.0f s", error.where, error.what, wait_s)
                said = True
            watch.held(error)


def _beside(forwarding: Forwarding | None, writer: Writer, stop: threading.Event) -> AbstractContextManager[Sink]:
    return forwarding.beside(writer, stop) if forwarding is not None else nullcontext(writer)


class Renewal:
    """Puts other sources into the place of those that are read, when another job is wished for."""

    def __init__(self, sources: list[Source], job: Job, book: Book, reload: Reload) -> None:
        self._sources, self._job, self._book, self._reload = sources, job, book, reload

    @property
    def pending(self) -> bool:
        """True where a wish waits."""
        return self._reload.asked.is_set()

    def take(self) -> Settings | None:
        """The settings from now on, None where everything stays as it was."""
        wanted = self._reload.take()
        new = self._sources_of(wanted) if wanted is not None else None
        self._book.watch.reloaded(taken=new is not None)
        if wanted is None or new is None:
            return None
        for source in self._sources:
            if source not in new:
                source.close()
        self._sources[:], self._job = new, wanted
        return wanted.settings

    def _sources_of(self, wanted: Job) -> list[Source] | None:
        try:
            return list(_opened(self._sources, self._job, wanted, self._book))
        except CollectorError as error:
            _LOG.error("%s; what was followed before is followed on", error)
            return None


def _opened(sources: Sequence[Source], before: Job | None, job: Job, book: Book) -> Iterator[Source]:
    """The sources of a job. Those it shares with the job before stay open; the last to be asked for can still fail."""
    settings = job.settings
    kept: dict[type, Source] = {type(source): source for source in sources}
    if before is not None and before.journal != job.journal:
        kept.pop(Journal, None)
    if job.journal is not None:
        yield kept.get(Journal) or Journal(job.journal, book, settings)
    if job.kmsg:
        yield kept.get(Kmsg) or Kmsg(book, settings)
    files = kept.get(Files)
    if isinstance(files, Files) and job.patterns:
        files.adopt(job.patterns, settings)
    elif job.patterns:
        files = Files(job.patterns, book, settings)
    for source in kept.values():
        source.settings = settings
    if files is not None and job.patterns:
        yield files


def _names(patterns: Sequence[str], path: str) -> bool:
    named = [os.path.abspath(pattern) for pattern in patterns]
    return path in named or any(fnmatch.fnmatchcase(path, pattern) for pattern in named)


def run(
    sources: Sequence[Source],
    store: Sink,
    settings: Settings,
    stop: threading.Event,
    watch: Watch = NOBODY,
    renewal: Renewal | None = None,
) -> Summary:
    """Read the sources and commit what they bring until `stop` is set, or with `once` until there is nothing more."""
    committer = Committer(store, settings, stop, patient=not settings.once, watch=watch)
    try:
        if settings.once:
            _drain(sources, committer, settings, stop)
        else:
            _follow(sources, committer, settings, stop, watch, renewal)
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


def _follow(
    sources: Sequence[Source],
    committer: Committer,
    settings: Settings,
    stop: threading.Event,
    watch: Watch,
    renewal: Renewal | None,
) -> None:
    wake = Wake()
    try:
        while not stop.is_set():
            if renewal is not None and renewal.pending and (changed := renewal.take()) is not None:
                settings = committer.settings = changed
            began = time.monotonic()
            _cycle(sources, committer, settings)
            watch.looked([failure for source in sources for failure in source.failed()])
            if not any(source.behind for source in sources):
                _sleep(wake, sources, settings, stop, began, renewal)
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


def _sleep(
    wake: Wake,
    sources: Sequence[Source],
    settings: Settings,
    stop: threading.Event,
    began: float,
    renewal: Renewal | None,
) -> None:
    """Wait to be woken, at most for the poll time; then let the batch fill until its age is reached."""
    wake.watch(folder for source in sources for folder in source.folders())
    descriptors = [descriptor for source in sources for descriptor in source.descriptors()]
    until = began + settings.poll_s
    while not stop.is_set() and (left := until - time.monotonic()) > 0:
        if renewal is not None and renewal.pending:
            return
        if wake.wait(descriptors, min(left, _TICK_S)):
            stop.wait(began + settings.batch_age_s - time.monotonic())
            return
