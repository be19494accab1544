"""Reading files once, in bulk: explicit files, archives, standard input.

Rule: a content is read once ever. A file that was followed before, or is a later rotation of one that was, yields only
what is new in it. An unfinished last line waits in a plain file, which may go on; in an archive and on standard input
it is a line.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from analytics import Writer
from collector import names
from collector.book import Book
from collector.committer import Committer, Sink
from collector.identity import Mark
from collector.rows import Piece
from collector.settings import INGEST_CHUNK, LOCK_WAIT_S, CollectorError, Settings, Summary
from collector.tail import Rewritten, Tail
from collector.texts import PlainText, StreamText, Text, open_text

STDIN = "-"
_BATCH_ROWS = 60_000
"""Rows of one commit: its fixed cost, a tenth of a second, no longer counts, and the rows fit into 150 MB."""
_BATCH_BYTES = 512 * 1024 * 1024
"""Bytes of log of one commit, so that a log with few denied packets is accounted for now and then, too."""
_BATCH_AGE_S = 5.0
"""Standard input may be slow and without end."""

Progress = Callable[[int, int], None]
"""Called with the bytes that are done and the bytes that there are, as the files lie on the disk."""


def ingest(
    files: Sequence[str],
    store: str,
    settings: Settings,
    *,
    stop: threading.Event | None = None,
    progress: Progress = lambda done, total: None,
) -> Summary:
    """Store what `files` hold (`-` is standard input) and say what came of it; `stop` ends it after a commit.

    A file that cannot be read is in `failed` of the summary and does not keep the others from being read. Raises
    StoreError when the store cannot be opened or takes no rows.
    """
    stop = stop or threading.Event()
    with Writer(store, wait_s=LOCK_WAIT_S, bulk=True) as writer:
        summary = read_files(files, Book(writer.positions()), writer, settings, stop, progress)
        if not stop.is_set():
            writer.add_up()
        return summary


def read_files(
    files: Sequence[str], book: Book, store: Sink, settings: Settings, stop: threading.Event, progress: Progress
) -> Summary:
    """Read the files, oldest first, into an open store."""
    run = _Run(book, replace(settings, chunk_bytes=INGEST_CHUNK), progress, files)
    committer = Committer(store, settings, stop, patient=False)
    try:
        for batch in _batches(run.pieces()):
            committer.put(batch)
            if stop.is_set():
                break
        summary = committer.close()
    except BaseException:
        committer.abandon()
        raise
    summary.skipped, summary.waiting, summary.failed = run.skipped, run.waiting, run.failed
    return summary


class _Run:
    """One pass over files."""

    def __init__(self, book: Book, settings: Settings, progress: Progress, files: Sequence[str]) -> None:
        self.skipped: list[str] = []
        self.waiting: list[str] = []
        self.failed: list[tuple[str, str]] = []
        self._book = book
        self._settings = settings
        self._progress = progress
        self._files = names.in_time_order(dict.fromkeys(STDIN if f == STDIN else os.path.abspath(f) for f in files))
        self._sizes = {path: _size(path) for path in self._files}
        self._done = 0

    def pieces(self) -> Iterator[Piece]:
        """Everything that is new, file by file."""
        for path in self._files:
            try:
                with contextlib.closing(_open(path)) as text:
                    yield from self._text(text)
            except CollectorError as error:
                self.failed.append((path, error.what))
            except OSError as error:
                self.failed.append((path, error.strerror or str(error)))
            except Rewritten:
                self.failed.append((path, "was truncated while it was read"))
            self._done += self._sizes[path]
            self._progress(self._done, sum(self._sizes.values()))

    def _text(self, text: Text) -> Iterator[Piece]:
        known = self._book.find(text, strictly=False) if text.path != STDIN else None
        position, mark = known or (None, Mark())
        tail = Tail(text, text.path, self._settings, self._book.name, mark=mark, known=position)
        plain = isinstance(text, PlainText)
        found = False
        for piece in _whole(tail, final=not plain):
            self._book.note(piece.position)
            self._progress(self._done + self._place(text, tail), sum(self._sizes.values()))
            found = True
            yield piece
        yield from self._end(tail, found=found)

    def _end(self, tail: Tail, *, found: bool) -> Iterator[Piece]:
        path = tail.text.path
        if isinstance(tail.text, PlainText):
            if tail.unread:
                self.waiting.append(path)
        elif tail.text.damage or (tail.position is not None and (found or not tail.position.closed)):
            piece = tail.close_position()
            self._book.note(piece.position)
            yield piece
        if tail.text.damage:
            self.failed.append((path, f"damaged: {tail.text.damage}"))
        elif not found and tail.mark.offset:
            self.skipped.append(path)

    def _place(self, text: Text, tail: Tail) -> int:
        """Bytes of the file on the disk that were read; of a compressed one a guess that never exceeds its size."""
        return min(tail.mark.offset, self._sizes[text.path])


def _whole(tail: Tail, *, final: bool) -> Iterator[Piece]:
    while True:
        piece = tail.read(final=final)
        if piece is not None:
            yield piece
        elif not tail.behind:
            return


def _batches(pieces: Iterator[Piece]) -> Iterator[list[Piece]]:
    batch: list[Piece] = []
    since = time.monotonic()
    for piece in pieces:
        batch.append(piece)
        rows = sum(frame.height for held in batch for frame in held.packets)
        text = sum(held.bytes for held in batch)
        if rows >= _BATCH_ROWS or text >= _BATCH_BYTES or time.monotonic() - since >= _BATCH_AGE_S:
            yield batch
            batch, since = [], time.monotonic()
    if batch:
        yield batch


def _open(path: str) -> Text:
    if path == STDIN:
        return StreamText(STDIN, sys.stdin.buffer)
    return open_text(path)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size if path != STDIN else 0
    except OSError:
        return 0
