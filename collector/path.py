"""One path that is followed: the live file, the rotated ones that are still being read, and what came in between.

Rule: files are read oldest first. When the live file is another one than before, every file between the last one known
and the live one is read whole; a file that was cut is looked for among its copies; what is nowhere is counted as lost.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator

from analytics import Position
from collector import names
from collector.book import Book
from collector.identity import PROOF, Mark, ends_at, first_mark, match
from collector.rows import Piece
from collector.settings import Beginning, Checkpoint, CollectorError, ReadFrom, Settings
from collector.tail import TICK_S, Rewritten, Tail, gone
from collector.texts import PlainText, StreamText, Text, open_text

_LOG = logging.getLogger(__name__)
_LISTINGS = 5  # a rotation at work renames files while they are listed: so often it is tried again
_COPY_PROOF = 64 * 1024  # bytes compared to see whether a file is a copy of one that is open and not named yet


class Path:
    """Follows one path through its rotations."""

    def __init__(self, path: str, book: Book, settings: Settings, start: ReadFrom) -> None:
        self.path = path
        self.behind = False
        self._book = book
        self.settings = settings
        self._start: ReadFrom = Beginning() if book.family(path) else start  # what came while it was down is new
        self._live: Tail | None = None
        self._drains: list[Tail] = []
        self._anchor: str | None = None  # identity of the youngest file that lines were read from
        self._began = time.time()
        self._arranged = False
        self._folder = 0
        self._news = self._news_before = 0  # rotated files opened ever, and before the live file was opened
        self._said = ""
        self._cut = b""  # how the live file began before it was cut, until it is known what is left of it

    def read(self, budget: int) -> Iterator[Piece]:
        """What is there now, at most about `budget` bytes of it; `behind` tells whether that was all."""
        self.behind = False
        for piece in self._read(budget):
            self._book.note(piece.position)
            yield piece

    def waiting(self) -> bool:
        """True where the live file ends in an unfinished line."""
        return self._live is not None and self._live.unread

    def failure(self) -> str:
        """Why the path cannot be read now, "" where it can."""
        try:
            if self._live is None:
                open_text(self.path).close()
        except CollectorError as error:
            return error.what
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def close(self) -> None:
        """Close all files; their positions stay as they are."""
        for tail in self._tails():
            self._drop(tail)

    def _tails(self) -> list[Tail]:
        return [*self._drains, *([self._live] if self._live else [])]

    def _read(self, budget: int) -> Iterator[Piece]:
        yield from self._look()
        for tail in self._tails():
            yield from self._read_tail(tail, budget)
            if tail is self._live or tail not in self._drains:
                continue
            yield from self._finish(tail)
            if tail in self._drains and tail.position is None and tail.unread:
                return  # not named yet: were a younger file named first, nobody would look for this one again

    def _look(self) -> Iterator[Piece]:
        """Notice that the path leads to another file than before, or to none."""
        try:
            found = os.stat(self.path)
            key = found.st_dev, found.st_ino
        except (FileNotFoundError, NotADirectoryError):
            key = None
        except OSError as error:  # nobody knows what is there now: what is open stays open
            self._say(f"{self.path}: {error.strerror}; trying again")
            return
        if self._live is not None and key != self._live.key and not self._live.intact():
            yield from self._rewritten(self._live, moved=True)  # cut, and then rotated
        elif self._live is not None and key != self._live.key:
            self._book.watch.rotated("rename")
            self._drains.append(self._live)
            self._live = None
        if self._live is None and (key is not None or not self._arranged):
            yield from self._arrange()
        elif self._live is not None and self._live.position is None and self._stirred():
            yield from self._arrange()  # nothing proves that the live file was not copied and cut before it was read

    def _stirred(self) -> bool:
        """True where the folder's entries may have changed since this was asked."""
        try:
            found = os.stat(os.path.dirname(self.path))
        except OSError:
            return False
        before, self._folder = self._folder, found.st_mtime_ns
        return before != self._folder or time.time() - found.st_mtime < TICK_S

    def _read_tail(self, tail: Tail, budget: int) -> Iterator[Piece]:
        if tail.unchanged():
            return
        try:
            for _ in range(max(1, budget // self.settings.chunk_bytes)):
                piece = tail.read()
                if piece is not None:
                    self._note_anchor(tail)
                    yield piece
                elif not tail.behind:
                    return
            self.behind |= tail.behind
        except Rewritten:
            yield from self._rewritten(tail)
        except OSError as error:  # the file system went away (ESTALE, EIO); the position stays
            self._say(f"{tail.text.path}: {error.strerror}; trying again")
            self._drop(tail)

    def _note_anchor(self, tail: Tail) -> None:
        if tail.position is not None and (
            tail is self._live or self._anchor is None or tail.position.file > self._anchor
        ):
            self._anchor = tail.position.file

    def _finish(self, tail: Tail) -> Iterator[Piece]:
        """Close a rotated file that is read to its end and that nothing happens to any more."""
        if tail.behind or not self._quiet(tail):
            return
        try:
            while tail.unread or tail.behind:
                if (piece := tail.read(final=True)) is not None:
                    yield piece
                elif not tail.behind:
                    break
        except (Rewritten, OSError):
            return  # seen again at the next look
        if tail.position is not None or tail.text.damage:
            yield tail.close_position()
        self._note_anchor(tail)
        self._drop(tail)

    def _quiet(self, tail: Tail) -> bool:
        """True where no writer is to be expected: a stale one (rsyslog before its HUP) goes on for a while."""
        return isinstance(tail.text, StreamText) or tail.idle_s() >= self.settings.grace_s

    def _rewritten(self, tail: Tail, *, moved: bool = False) -> Iterator[Piece]:
        """The file was cut: what was not read is in a copy, or lost. `moved`: the path leads to another file by now, so
        what was written after the cut is read through the descriptor that is still open."""
        _LOG.info("%s: was truncated or written anew", tail.text.path)
        self._book.watch.rotated("truncate")
        live, before = tail is self._live, self._news if tail.position else self._news_before
        self._forget(tail)
        rest = [self._tail(tail.text, Mark(), None)] if moved else []
        self._drains += rest
        if live:
            self._cut = b"" if moved else tail.mark.head
            self._anchor = tail.position.file if tail.position else self._anchor
            yield from self._arrange(cut=tail.position)
        copied = live and self._news > before
        self.behind |= copied
        if tail.unread and not copied:
            yield tail.lose(f"{tail.text.path}: truncated before it was read to its end")
        elif tail.position is not None and not self._book.busy(tail.position.file):
            yield tail.close_position()
        self._drains = [drain for drain in self._drains if drain not in rest] + rest  # younger than the copies
        if not moved:
            tail.text.close()

    def _arrange(self, cut: Position | None = None) -> Iterator[Piece]:
        """Find out what each file beside the path is, and open those that have something new.

        `cut`: the position whose content the live file no longer has.
        """
        live, others, sure = self._listing()
        family = self._book.family(self.path)
        known = self._book.positions.get(self._anchor or (family[-1].file if family else ""))
        texts = [*others, *([live] if live is not None and (cut is None or known is not cut) else [])]
        at = self._place(known, family, texts) if known else None
        if not sure and (live is None or (at is None and known is not None)):
            self._close([*others, *([live] if live else [])])
            return  # what cannot be opened now may be what is missing
        if live is None and not others and not self._arranged:
            self._start = Beginning()
            return  # nothing there yet, or the file system is not
        self._anchor = known.file if known else None
        if not self._arranged:
            yield from self._resume(family, known, texts, at)
        elif known is not None and known is cut and at is not None:
            self._drain(texts[at], known)
        self._unseen(others, texts, at, known)
        if live is not None:
            self._open_live(live, known if at is not None and texts[at] is live else None)
        if self._live is not None and self._live.position is None and self._live.mark.offset:
            yield self._live.begin()
        self._arranged = True
        self._close(text for text in others if all(tail.text is not text for tail in self._book.tails))

    def _listing(self) -> tuple[Text | None, list[Text], bool]:
        """The live file; its rotated siblings, oldest first; False where one is there and cannot be opened.

        The live file is opened before the others are listed: should it be rotated meanwhile, it is seen twice, never
        missed.
        """
        live, sure = self._open(self.path)
        for _ in range(_LISTINGS):
            found = [self._open(path) for path in names.siblings(self.path)]
            others = [text for text, _ in found if text is not None]
            if len(others) == len(found):
                break
            self._close(others if _ < _LISTINGS - 1 else [])
        sure = sure and all(sure for _, sure in found)
        key = live.facts().key if live else None
        self._close(text for text in others if text.facts().key == key)
        return live, [text for text in others if text.facts().key != key], sure

    def _open(self, path: str) -> tuple[Text | None, bool]:
        """The text at `path` or None, and whether that is certain: a file that is not readable may be any file."""
        try:
            return open_text(path), True
        except (FileNotFoundError, NotADirectoryError):
            return None, True
        except CollectorError as error:
            self._say(str(error))
            return None, path != self.path
        except OSError as error:
            self._say(f"{path}: {error.strerror}" + ("" if self.settings.once else "; trying again"))
            return None, False

    def _place(self, known: Position, family: list[Position], texts: list[Text]) -> int | None:
        """Which of the files is the one of `known`: by its open descriptor, else by content.

        Where the content fits several (they begin alike), the one that no other position is further into, whose elder
        is `known`'s elder, with the same inode, the youngest.
        """
        keys = [text.facts().key for text in texts]
        for tail in self._book.tails:
            if tail.position is not None and tail.position.file == known.file and tail.key in keys:
                return keys.index(tail.key)
        fits = [at for at, text in enumerate(texts) if self._book.reader(keys[at]) is None and self._fits(known, text)]
        if len(fits) < 2:
            return fits[0] if fits else None
        elders = [position for position in family if position.file < known.file]

        def score(at: int) -> tuple[bool, bool, bool, int]:
            own = not any(other.offset > known.offset and match(other, texts[at]) for other in family)
            aligned = bool(elders) and at > 0 and ends_at(elders[-1], texts[at - 1])
            return own, aligned, keys[at] == (known.device, known.inode), at

        return max(fits, key=score)

    def _resume(
        self, family: list[Position], known: Position | None, texts: list[Text], at: int | None
    ) -> Iterator[Piece]:
        """At the start: go on with every file that was not closed, and with closed ones that have grown since."""
        taken = set() if at is None else {at}
        for position in family:
            place = at if position is known else self._elder(position, texts, taken)
            if place is not None and texts[place].path != self.path:
                taken.add(place)
                self._drain(texts[place], position)
            elif place is None and not position.closed:
                yield gone(position, self.settings.node, youngest=position is known)

    def _elder(self, position: Position, texts: list[Text], taken: set[int]) -> int | None:
        """The file of an older position. Of a closed one only a file that has grown is of interest: same inode, and
        enough read of it that a reused inode is out of the question."""
        for place, text in enumerate(texts):
            same = text.facts().key == (position.device, position.inode) and position.offset >= PROOF
            if place not in taken and (same or not position.closed) and self._fits(position, text):
                return place
        return None

    def _fits(self, position: Position, text: Text) -> bool:
        """True where the text goes on from the position. A few equal bytes at the start of the live file may be a
        header that every file has: there the inode has to be the same, too."""
        if text.path == self.path and position.offset < PROOF and text.facts().inode != position.inode:
            return False
        return match(position, text) is not None

    def _drain(self, text: Text, position: Position | None) -> None:
        mark = match(position, text) if position else Mark()
        if mark is None or (position and position.closed and not text.read(mark.offset, 1)):
            return
        self._drains.append(self._tail(text, mark, position))
        self._news += 1

    def _unseen(self, others: list[Text], texts: list[Text], at: int | None, known: Position | None) -> None:
        """Open the siblings that came after the last known file; without it, those written to since it was known."""
        if at is not None:
            younger = [text for text in texts[at + 1 :] if text in others]
        elif known is not None or self._arranged:
            since = (known.time.timestamp() if known else self._began) - TICK_S
            if since > time.time():  # the clock was set back: whatever is not known may be new
                since = 0.0
            younger = [text for text in others if text.facts().modified.timestamp() > since]
            younger = [text for text in younger if self._book.find(text, strictly=False) is None]
        else:
            younger = []
        keys = [text.facts().key for text in others]
        for text in younger:
            if self._book.reader(text.facts().key) is None and not self._copied(text, keys) and not self._done(text):
                self._drain(text, None)
        self._drains.sort(key=lambda tail: keys.index(tail.key) if tail.key in keys else -1)

    def _done(self, text: Text) -> bool:
        """True where the very file, by inode and content, was read to its end."""
        key = text.facts().key
        return any(
            position.closed and (position.device, position.inode) == key and ends_at(position, text)
            for position in self._book.family(self.path)
        )

    def _copied(self, text: Text, keys: list[tuple[int, int]]) -> bool:
        """True where the text is a copy of a file that is open and not known by content yet: a deleted one, or the
        live one that is about to be cut."""
        for tail in self._tails():
            unnamed = tail.key not in keys if tail is not self._live else tail.position is None
            if unnamed and isinstance(tail.text, PlainText):
                body = tail.text.read(0, _COPY_PROOF)
                if body and text.read(0, max(len(body) + 1, _COPY_PROOF))[:_COPY_PROOF] == body:
                    self._folder = 0
                    return True
        return False

    def _open_live(self, text: Text, known: Position | None) -> None:
        if (reader := self._book.reader(text.facts().key)) is not None:
            text.close()
            self._take_back(reader)
            return
        found = self._book.find(text, strictly=True) if known is None else None
        if found is not None:
            known = found[0]
        if (kept := self._kept(text) if known is None else 0) is None:
            text.close()  # asked again at the next look
            return
        start = Checkpoint(kept) if kept else Beginning() if self._arranged else self._start
        mark = match(known, text) if known else first_mark(text, start)
        self._live = self._tail(text, mark or Mark(), known)
        self._news_before = self._news
        if known is not None:
            self._anchor = known.file

    def _kept(self, text: Text) -> int | None:
        """How much of the text is stored, where it is what is left of a file that was cut; None: not known yet."""
        if self._arranged and not self._cut:
            return 0
        kept = self._book.kept(text, self.path, self._cut, self.settings.options)
        self._cut = self._cut if kept is None else b""
        return kept

    def _take_back(self, reader: Tail) -> None:
        """The path leads to a file that is open already: to one of ours again, or to that of another path."""
        if reader in self._drains:
            self._drains.remove(reader)
            self._live = reader
        elif reader is not self._live:
            self._say(f"{self.path}: is the same file as {reader.text.path}, which is being read")

    def _tail(self, text: Text, mark: Mark, known: Position | None) -> Tail:
        tail = Tail(text, self.path, self.settings, self._book.name, mark=mark, known=known)
        self._book.tails.append(tail)
        return tail

    def _drop(self, tail: Tail) -> None:
        self._forget(tail)
        tail.text.close()

    def _forget(self, tail: Tail) -> None:
        self._book.tails.remove(tail)
        if tail is self._live:
            self._live = None
        else:
            self._drains.remove(tail)

    @staticmethod
    def _close(texts: Iterable[Text]) -> None:
        for text in texts:
            text.close()

    def _say(self, message: str) -> None:
        """Say what is wrong, once as long as it stays the same."""
        if message != self._said:
            _LOG.warning("%s", message)
            self._said = message
