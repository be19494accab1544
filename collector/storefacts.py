"""How a store is, seen from outside: who writes to it, whether it can be read, and how much room is left.

Rule: looking takes no lock, not even for a moment: a collector that starts meanwhile must not be refused.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

from analytics import Reader, StoreError
from analytics.inventory import objects_at
from analytics.store import Store, resolve
from collector.facts import StoreFacts, Unknown
from collector.felix import Felix, felix_of


def stored_felix(address: str, node: str) -> Felix | Unknown:
    """What the inventory of a store knows of Felix' settings on a node."""
    try:
        with Reader(address) as reader:
            objects = objects_at(reader, datetime.now(UTC), ("FelixConfiguration",))
    except StoreError as error:
        return Unknown(f"FelixConfiguration is not known: {error.where}: {error.what}")
    return felix_of(objects, node, "as the store has it") or Unknown("the store has no FelixConfiguration")


def store_facts(address: str) -> StoreFacts:
    """Everything about the store at an address."""
    try:
        return _facts(resolve(address))
    except StoreError as error:
        return StoreFacts(address, error=error.what)
    except OSError as error:
        return StoreFacts(address, error=f"{error.filename}: {error.strerror}")


def _facts(store: Store) -> StoreFacts:
    folder = store.folder
    standing = next(path for path in (folder, *folder.parents) if path.exists())
    room = os.statvfs(standing)
    pid, holder = _holder(store.lock)
    exists = store.catalog.exists()
    trouble, commit = _look(str(folder)) if exists else ("", None)
    return StoreFacts(
        str(folder),
        exists=exists,
        error=trouble or _writable(folder, standing),
        holder=holder,
        holder_pid=pid,
        following=" collect" in holder,
        last_commit=commit,
        free_bytes=room.f_bavail * room.f_frsize,
        free_inodes=room.f_favail if room.f_files else None,
    )


def _holder(lock: Path) -> tuple[int, str]:
    """Process id and a sentence about who holds the writer's lock; 0 and "" where nobody does.

    /proc/locks is asked, since trying the lock would take it for a moment; it shows locks of this pid namespace's
    processes and, without their number, those of others.
    """
    try:
        inode = os.stat(lock).st_ino
        held = [line.split() for line in Path("/proc/locks").read_text().splitlines() if f":{inode} " in line]
    except OSError:
        return 0, ""
    owners = [int(words[4]) for words in held if words[1] == "FLOCK" and "->" not in words]
    if not owners:
        return 0, ""
    try:
        who = json.loads(lock.read_text())
        return int(who["pid"]), f"process {who['pid']} on {who['host']} ({who['command']}, since {who['started']})"
    except (OSError, ValueError, KeyError, TypeError):
        return max(owners[0], 0), f"process {owners[0]}" if owners[0] > 0 else "another process"


def _look(folder: str) -> tuple[str, datetime | None]:
    """What keeps it from being read, and when it was last committed to."""
    try:
        with Reader(folder) as reader:
            return "", reader.rows("SELECT max(stored_at) FROM positions").rows[0][0]
    except StoreError as error:
        return error.what, None


def _writable(folder: Path, standing: Path) -> str:
    """What keeps a writer from its files."""
    if not standing.is_dir():
        return f"{standing} is a file"
    places = [place for place in (folder, folder / "data", folder / "catalog.sqlite") if place.exists()] or [standing]
    for place in places:
        if not os.access(place, os.W_OK | (os.X_OK if place.is_dir() else 0)):
            return f"{place} cannot be written to"
    if folder.exists() and not (folder / "catalog.sqlite").exists() and any(folder.iterdir()):
        return "is not a store and holds other files"
    return ""
