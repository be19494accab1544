"""Where a store is: its address, its folder, its one writer's lock, and what is said when any of them will not do.

Rule: exactly one process writes to a store at a time (an exclusive `flock`, which the kernel releases when its holder
dies); readers never take it. Nothing is created in a folder that holds something else.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

CATALOG = "catalog.sqlite"
DATA = "data"
LOCK = "writer.lock"
# Deposits that wait for the process that holds the store.
INBOX = "inbox"
# Scratch space of a writer that runs out of its memory limit; emptied whenever a writer opens the store.
SCRATCH = "scratch"
_OURS = {CATALOG, f"{CATALOG}-wal", f"{CATALOG}-shm", f"{CATALOG}-journal", DATA, LOCK, INBOX, SCRATCH}
# Denied traffic tells who talks to whom: the owner writes, the group reads, others see nothing.
_FOLDER_MODE = 0o750
_FILE_MASK = 0o027
_LOCK_POLL_S = 0.1
# Enough to notice a disk on which some blocks are left, but not as many as a commit needs.
_PROBE_BYTES = 1024 * 1024
# What open(2) says of O_TMPFILE on a file system, or a kernel, that does not have it.
_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)
_ACCESS = "check its owner, mode and mount"
_SPACE = "free some space there, or keep fewer days (--keep)"
_FILES = "raise the limit of open files (ulimit -n, LimitNOFILE=)"
REMEDIES = {
    errno.EACCES: _ACCESS,
    errno.EPERM: _ACCESS,
    errno.EROFS: _ACCESS,
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
}
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")


class StoreError(Exception):
    """The store cannot do what was asked: `where`, `what`, what to `do` next, and whether trying again can help."""

    def __init__(self, where: str | Path, what: str, do: str = "", *, retryable: bool = False) -> None:
        super().__init__(str(where), what, do)
        self.where = str(where)
        self.what = what
        self.do = do
        self.retryable = retryable

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f"; {self.do}" if self.do else "")


class StoreHeldError(StoreError):
    """Another process has the store open for writing."""


@dataclass(frozen=True, slots=True)
class Store:
    """A store in a local folder."""

    folder: Path

    @property
    def catalog(self) -> Path:
        return self.folder / CATALOG

    @property
    def data(self) -> Path:
        return self.folder / DATA

    @property
    def lock(self) -> Path:
        return self.folder / LOCK

    @property
    def inbox(self) -> Path:
        return self.folder / INBOX

    @property
    def scratch(self) -> Path:
        return self.folder / SCRATCH


def resolve(address: str | os.PathLike[str]) -> Store:
    """The store at `address`, a path to a folder (`~` is the home folder); raises StoreError for what is not one."""
    text = os.fspath(address)
    if _URL.match(text):
        raise StoreError(text, "stores at a URL are not supported", "give the path of a local folder")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise StoreError(repr(text), "the store's path is not in UTF-8", "name a folder whose path is") from None
    if not text:
        raise StoreError("''", "the store has no address", "give the path of a local folder")
    return Store(Path(text).expanduser().absolute())


def prepare(store: Store) -> None:
    """Make the folder fit to be written to; raises StoreError where it is a file, holds other things, or is closed."""
    folder = store.folder
    try:
        folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        strangers = sorted(entry.name for entry in folder.iterdir() if entry.name not in _OURS)
        if strangers and not store.catalog.exists():
            raise StoreError(
                folder, f"is not a store and holds other files ({strangers[0]!r})", "name a new or an empty folder"
            )
        store.data.mkdir(mode=_FOLDER_MODE, exist_ok=True)
    except OSError as error:
        raise unusable(folder, error) from error
    if not os.access(folder, os.W_OK | os.X_OK) or not os.access(store.data, os.W_OK | os.X_OK):
        do = REMEDIES[errno.EACCES]
        raise StoreError(folder, "the store's folder cannot be written to", do, retryable=True)


def unusable(folder: Path, error: OSError) -> StoreError:
    """What an operating system error on the store's folder means to a person."""
    if isinstance(error, FileExistsError | NotADirectoryError):
        return StoreError(folder, "is a file, not a store's folder", "name a folder")
    return StoreError(folder, error.strerror or str(error), REMEDIES.get(error.errno or 0, ""), retryable=True)


def obstacle(store: Store) -> StoreError | None:
    """What keeps a writer from making files in the store, found by trying; None where nothing does.

    DuckDB and SQLite call a full disk, a read-only mount and a lack of descriptors alike "unable to open".
    """
    for folder in (store.folder, store.data):
        try:
            file = os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            try:
                left = _PROBE_BYTES
                while left:  # the last free blocks are filled without an error
                    left -= os.write(file, bytes(left))
            finally:
                os.close(file)
        except OSError as error:
            if error.errno not in _NO_TMPFILE:
                return unusable(folder, error)
    return None


def require(store: Store) -> None:
    """Raise StoreError unless there is a store to read."""
    try:
        if store.folder.exists() and not store.folder.is_dir():
            raise StoreError(store.folder, "is a file, not a store's folder", "name a folder")
        if not store.folder.exists():
            raise StoreError(store.folder, "there is no store", "`denylog collect` and `denylog ingest` create one")
        if not store.catalog.exists():
            raise StoreError(store.folder, f"is not a store: it has no {CATALOG}", "name the folder of a store")
        if not os.access(store.catalog, os.R_OK):
            raise StoreError(store.catalog, "cannot be read", "become its owner or a member of its group")
    except OSError as error:
        raise unusable(store.folder, error) from error


@contextmanager
def private_files() -> Iterator[None]:
    """While this lasts, new files of the process are the owner's to write and the group's to read."""
    before = os.umask(_FILE_MASK)
    try:
        yield
    finally:
        os.umask(before)


class WriterLock:
    """The exclusive right to write to a store, held until `release` or the end of the process."""

    def __init__(self, store: Store, wait_s: float = 0) -> None:
        """Take the lock, waiting at most `wait_s` seconds; raises StoreError naming the holder."""
        with private_files():
            self._fd = _open_lock(store)
        deadline = time.monotonic() + wait_s
        while not self._take(store):
            if time.monotonic() >= deadline:
                holder = _holder(self._fd)
                os.close(self._fd)
                raise StoreHeldError(
                    store.folder,
                    f"is being written to by {holder}",
                    "stop that one, or name another store",
                    retryable=True,
                )
            time.sleep(_LOCK_POLL_S)
        self._sign()

    def _take(self, store: Store) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            os.close(self._fd)
            raise StoreError(
                store.lock, f"cannot be locked ({error.strerror})", "keep the store on a file system with flock"
            ) from error
        return True

    def _sign(self) -> None:
        started = datetime.now(UTC).isoformat(timespec="seconds")
        who = {"pid": os.getpid(), "host": socket.gethostname(), "command": " ".join(sys.argv), "started": started}
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, json.dumps(who).encode(), 0)

    def release(self) -> None:
        """Let the next writer in."""
        with suppress(OSError):  # on a full or read-only disk the signature stays; the lock goes with the descriptor
            os.ftruncate(self._fd, 0)
        os.close(self._fd)


def _open_lock(store: Store) -> int:
    try:
        # What is opened is written to, so it must not be a link that the folder's owner has put there for root.
        return os.open(store.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise unusable(store.lock, error) from error


def _holder(fd: int) -> str:
    try:
        who = json.loads(os.pread(fd, 4096, 0))
        return f"process {who['pid']} on {who['host']} ({who['command']}, since {who['started']})"
    except (ValueError, KeyError, TypeError):
        return "another process"
