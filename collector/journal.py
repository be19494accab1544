"""The journal: `journalctl` follows it, its cursor is the position.

Rule: journalctl may die, be restarted, and find its cursor gone; what lies between is then reported as a loss.
All boots are read (`_TRANSPORT=kernel`; `-k` alone would mean this boot only), so the end of the last boot is not lost.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from analytics import LossRow, Position
from collector.book import Book
from collector.records import piece_of, start
from collector.rows import Piece
from collector.settings import CollectorError, End, Settings
from collector.tail import loss_row

_LOG = logging.getLogger(__name__)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_PIPE = 64 * 1024  # bytes that a pipe holds
_STOP_S = 5.0
_SETTLED_S = 2.0  # a journalctl that may not read anything, or is given nonsense, ends sooner


class Journal:
    """Follows the system's journal, or the one in a directory."""

    def __init__(self, directory: str, book: Book, settings: Settings) -> None:
        """`directory` "" is the system's journal; raises CollectorError where there is no journalctl."""
        program = shutil.which("journalctl")
        if program is None:
            raise CollectorError("journalctl", "is not installed", "install systemd, or follow a file or --kmsg")
        if directory and not os.path.isdir(directory):
            raise CollectorError(directory, "is no directory", "name a folder with journal files")
        self.behind = True
        self._command = [program, "--quiet", "--no-pager", "--output=json", "--all"]
        self._command += [f"--directory={directory}"] if directory else []
        # `--merge` brings what other machines have sent, too
        self._matches = ["_TRANSPORT=kernel", *([] if directory else [f"_MACHINE_ID={_identity('')}"])]
        self._book, self.settings = book, settings
        self._name = f"journal:{os.path.abspath(directory)}" if directory else "journal"
        self._position = self._known(directory)
        self._rest = b""
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed in `close`)
        self._pause, self._due = _FIRST_PAUSE_S, 0.0
        self._trouble, self._launched = "", 0.0

    def read(self, budget: int) -> Iterator[Piece]:
        """The records that journalctl has written, at most about `budget` bytes of them."""
        gaps: tuple[LossRow, ...] = ()
        if self._process is None:
            if time.monotonic() < self._due:
                return
            gaps = self._launch()
        data = self._take(budget)
        *records, self._rest = (self._rest + data).split(b"\n")
        if records or gaps:
            cursor = _cursor(records[-1]) if records else self._position.cursor
            piece = piece_of(records, self._position, cursor, self.settings, gaps=gaps)
            self._position = piece.position
            self._book.note(piece.position)
            self._pause, self._trouble = _FIRST_PAUSE_S, ""
            yield piece

    def descriptors(self) -> Iterable[int]:
        """journalctl's output."""
        return [self._output.fileno()] if self._process is not None else []

    def folders(self) -> Iterable[str]:
        """None: journalctl watches its files."""
        return ()

    def waiting(self) -> list[str]:
        """A journal has no unfinished records."""
        return []

    def failed(self) -> list[tuple[str, str]]:
        """What journalctl said when it ended, until one runs that does not end at once; with `once` it ends the run."""
        if self._process is not None and time.monotonic() - self._launched > _SETTLED_S:
            self._trouble = ""
        return [(self._name, self._trouble)] if self._trouble else []

    def close(self) -> None:
        """End journalctl."""
        self._end()
        self._errors.close()

    @property
    def _output(self) -> IO[bytes]:
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout

    def _known(self, directory: str) -> Position:
        family = self._book.family(self._name)
        return family[-1] if family else start(self._name, _identity(directory), directory or "journal")

    def _launch(self) -> tuple[LossRow, ...]:
        """Start journalctl behind the last record; a cursor that the journal no longer has is a loss."""
        cursor = self._position.cursor
        gone = bool(cursor) and not self._has(cursor)
        gaps = (self._vacuumed(),) if gone else ()
        command = [*self._command, *self._where(cursor, gone=gone), *self._matches]
        self._errors.seek(0)  # journalctl writes where this stands: both have the same description of the file
        self._errors.truncate()
        self._launched = time.monotonic()
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._errors, bufsize=0)
        os.set_blocking(self._output.fileno(), self.settings.once)
        self.behind = True
        return gaps

    def _where(self, cursor: str, *, gone: bool) -> list[str]:
        # `--follow` alone means this boot only, and finds nothing behind a cursor of the last one
        follow = [] if self.settings.once else ["--merge", "--follow", "--no-tail"]
        if cursor:
            # journalctl 252 passes over one record even where it is not the one of the cursor
            return [*follow, f"--cursor={cursor}" if gone else f"--after-cursor={cursor}"]
        if isinstance(self.settings.read_from, End) and not self._position.lines:
            return ["--lines=0"] if self.settings.once else ["--merge", "--follow", "--lines=0"]
        return follow

    def _has(self, cursor: str) -> bool:
        with subprocess.Popen(
            [*self._command, f"--cursor={cursor}"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            process.terminate()
        return _cursor(first) == cursor

    def _vacuumed(self) -> LossRow:
        text = f"{self._name}: the journal no longer has the record read last; what followed it may be gone, too"
        _LOG.warning("%s", text)
        return loss_row(self._position, self.settings.node, text)

    def _take(self, budget: int) -> bytes:
        found = bytearray()
        while len(found) < budget:
            try:
                data = os.read(self._output.fileno(), _PIPE)
            except BlockingIOError:
                self.behind = False
                break
            if not data:
                self._died()
                break
            found += data
        return bytes(found)

    def _died(self) -> None:
        """journalctl is at its end: as it should with `once`, otherwise it is started anew, later and later."""
        code = self._end()
        self._rest, self.behind = b"", False
        self._errors.seek(0)
        said = self._errors.read().decode("utf-8", "replace").strip()
        if self.settings.once:
            self._due = float("inf")
            if code:
                raise CollectorError("journalctl", said or f"ended with status {code}")
            return
        self._trouble = f"journalctl ended ({said or f'status {code}'})"
        _LOG.warning("%s; it is started again", self._trouble)
        self._due = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_S)

    def _end(self) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        if process.stdout is not None:
            process.stdout.close()
        if process.poll() is None and not self.settings.once:
            process.terminate()
        try:
            return process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def _cursor(record: bytes) -> str:
    try:
        return str(json.loads(record)["__CURSOR"])
    except (ValueError, KeyError, TypeError):
        return ""


def _identity(directory: str) -> str:
    """The machine id; for the journal in a directory a digest of its path, since it may be any machine's."""
    if directory:
        return hashlib.blake2b(os.path.abspath(directory).encode(), digest_size=16).hexdigest()
    try:
        return Path("/etc/machine-id").read_text().strip()
    except OSError as error:
        raise CollectorError("/etc/machine-id", error.strerror or str(error), "name the journal's directory") from error
