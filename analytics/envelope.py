"""A deposit as a file in the inbox of a store: how it is written, found, read, and set aside where it is damaged.

Rule: a file has its name only when all of it is on the disk, and says by its digest whether it is still whole.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, fields
from datetime import datetime
from pathlib import Path
from typing import Any, get_type_hints

from analytics.additions import ROWS, Additions
from analytics.store import Store, StoreError, private_files, unusable

SUFFIX = ".deposit"
DAMAGED = ".damaged"
UNFINISHED = ".unfinished"
# A file of another form is left to the denylog that knows it: see `open_envelope`.
_FORM = 1
_UNFINISHED_FOR_S = 86_400


class DamagedError(Exception):
    """A file that is no whole deposit: `path`, and `what` is wrong with it."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(path, what)
        self.path = path
        self.what = what

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


def new_name() -> str:
    """A name that no other deposit has; names sort by the time at which they were given."""
    return f"{time.time_ns():020d}-{uuid.uuid4().hex}{SUFFIX}"


def seal(store: Store, name: str, additions: Additions) -> None:
    """Leave `additions` in the inbox under `name`; when this returns they survive a power cut. Raises StoreError."""
    unfinished = store.inbox / f"{name}{UNFINISHED}"
    try:
        with private_files():
            store.inbox.mkdir(mode=0o750, exist_ok=True)
            with open(unfinished, "wb") as file:
                file.write(_packed(additions))
                file.flush()
                os.fsync(file.fileno())
        os.replace(unfinished, store.inbox / name)
        _sync_folder(store.inbox)
    except OSError as error:
        raise unusable(store.inbox, error) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def waiting(store: Store) -> list[Path]:
    """The deposits in the inbox, oldest first; raises StoreError where it cannot be listed."""
    try:
        return sorted(path for path in store.inbox.iterdir() if path.name.endswith(SUFFIX))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unusable(store.inbox, error) from error


def open_envelope(path: Path) -> Additions:
    """What a deposit holds. Raises DamagedError where it is not whole, StoreError where it cannot be read at all."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StoreError(path, error.strerror or str(error), retryable=True) from error
    digest, _, packed = data.partition(b"\n")
    if hashlib.blake2b(packed).hexdigest().encode() != digest:
        raise DamagedError(path, "is damaged: its digest is another one")
    try:
        return _unpacked(json.loads(gzip.decompress(packed)))
    except (OSError, EOFError, ValueError, TypeError, KeyError) as error:
        raise DamagedError(path, f"is no deposit that this denylog knows ({error})") from error


def set_aside(path: Path) -> None:
    """Keep a damaged deposit under a name that nobody takes in."""
    path.rename(path.with_name(path.name + DAMAGED))


def tidy(store: Store) -> None:
    """Remove what depositors that were killed long ago left unfinished."""
    for path in store.inbox.glob(f"*{UNFINISHED}"):
        if time.time() - path.stat().st_mtime > _UNFINISHED_FOR_S:
            path.unlink(missing_ok=True)


def _packed(additions: Additions) -> bytes:
    rows = {name: [asdict(row) for row in getattr(additions, name)] for name in ROWS}
    text = json.dumps({"form": _FORM, **rows}, default=datetime.isoformat, separators=(",", ":"))
    packed = gzip.compress(text.encode(), compresslevel=1)
    return hashlib.blake2b(packed).hexdigest().encode() + b"\n" + packed


def _unpacked(document: dict[str, Any]) -> Additions:
    if document.pop("form") != _FORM:
        raise ValueError("its form is another one")
    return Additions(**{name: tuple(_records(ROWS[name], rows)) for name, rows in document.items()})


def _records(kind: type[Any], rows: list[dict[str, Any]]) -> Iterator[Any]:
    hints = get_type_hints(kind)
    moments = {field.name for field in fields(kind) if hints[field.name] in (datetime, datetime | None)}
    for row in rows:
        yield kind(**{name: _value(value, name in moments) for name, value in row.items()})


def _value(value: Any, moment: bool) -> Any:
    if isinstance(value, list):
        return tuple(value)
    return datetime.fromisoformat(value) if moment and value is not None else value
