"""The text of one file, whatever holds it: a plain file, a compressed one, or a pipe.

Rule: `read(offset, length)` gives bytes of the uncompressed text by their place, like pread(2); a shorter answer is
the end for now. Whether a file is compressed is told by its first bytes, not by its name.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Protocol, cast

import zstandard

from collector.settings import CollectorError

Raw = IO[bytes]


class Stream(Protocol):
    """What a decompressor offers, and a buffered pipe."""

    def read1(self, size: int = -1, /) -> bytes: ...


_CODECS: tuple[tuple[bytes, Callable[[Raw], Stream]], ...] = (
    (b"\x1f\x8b\x08", lambda raw: cast(Stream, gzip.GzipFile(fileobj=raw))),
    (b"\x28\xb5\x2f\xfd", lambda raw: cast(Stream, _zstd(raw))),
    (b"\xfd7zXZ\x00", lambda raw: cast(Stream, lzma.LZMAFile(raw))),  # noqa: SIM115 (closing the raw file is enough)
    (b"BZh", lambda raw: cast(Stream, bz2.BZ2File(raw))),
)
_DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, zstandard.ZstdError, OSError)
_STEP = 1024 * 1024  # bytes asked of a decompressor at once


def _zstd(raw: Raw) -> zstandard.ZstdDecompressionReader:
    # zstd(1) --long and pzstd write several frames
    return zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the file system says of a file: `size` is None where the length of the text is not known beforehand;
    `changed` is when anything happened to the inode, a rename included (POSIX st_ctime), in seconds."""

    device: int
    inode: int
    size: int | None
    modified: datetime
    changed: float

    @property
    def key(self) -> tuple[int, int]:
        return self.device, self.inode


class Text(Protocol):
    """Bytes by their place. `damage` says why a compressed text ends before its end, "" where it does not."""

    path: str
    damage: str

    def read(self, offset: int, length: int) -> bytes: ...
    def facts(self) -> Facts: ...
    def close(self) -> None: ...


class PlainText:
    """A file as it is, through a descriptor that stays with it when it is renamed or deleted."""

    damage = ""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._descriptor, length, offset)

    def facts(self) -> Facts:
        found = os.fstat(self._descriptor)
        return facts_of(found, found.st_size)

    def close(self) -> None:
        os.close(self._descriptor)


class StreamText:
    """A text that can only be read forwards; going back reads it again from its start where that is possible.

    Only what lies between the last `offset` and the end of the last read is held.
    """

    def __init__(self, path: str, raw: Raw, codec: Callable[[Raw], Stream] | None = None) -> None:
        self.path = path
        self.damage = ""
        self._raw = raw
        self._codec = codec
        self._restart()

    def read(self, offset: int, length: int) -> bytes:
        if offset < self._start:
            self._raw.seek(0)
            self._restart()
        self._forget(offset)
        while len(self._held) < offset - self._start + length and self._more():
            self._forget(offset)
        at = offset - self._start
        return bytes(self._held[at : at + length])

    def facts(self) -> Facts:
        return facts_of(os.fstat(self._raw.fileno()), None)

    def close(self) -> None:
        self._raw.close()

    def _restart(self) -> None:
        self._stream = self._codec(self._raw) if self._codec else cast(Stream, self._raw)
        self._held = bytearray()
        self._start = 0
        self.damage = ""

    def _forget(self, offset: int) -> None:
        gone = min(offset - self._start, len(self._held))
        del self._held[:gone]
        self._start += gone

    def _more(self) -> bool:
        if self.damage:
            return False
        try:
            data = self._stream.read1(_STEP)  # `read` would drop what it has when damage follows
        except _DAMAGE as error:
            self.damage = str(error) or type(error).__name__
            return False
        self._held += data
        return bool(data)


def facts_of(found: os.stat_result, size: int | None) -> Facts:
    """The facts of a stat result."""
    modified = datetime.fromtimestamp(found.st_mtime, UTC)
    return Facts(found.st_dev, found.st_ino, size, modified, found.st_ctime)


def open_text(path: str) -> Text:
    """Open a file; raises OSError, and CollectorError where it is no regular file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # opening a pipe must not wait for a writer
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise CollectorError(path, "is not a regular file", "pipe other things into `denylog ingest -`")
        start = os.pread(descriptor, 6, 0)
    except BaseException:
        os.close(descriptor)
        raise
    codec = next((codec for magic, codec in _CODECS if start.startswith(magic)), None)
    if codec is None:
        return PlainText(path, descriptor)
    return StreamText(path, os.fdopen(descriptor, "rb", buffering=0), codec)
