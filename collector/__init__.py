"""The program that writes: follows log files, the journal and /dev/kmsg, and commits what they say.

A name loads its module, and so the grammar, when first used. `collector.follow.follow` and `collector.ingest.ingest`
load Polars and DuckDB.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collector.settings import Beginning, Checkpoint, CollectorError, End, ReadFrom, Settings, Summary

__all__ = ["Beginning", "Checkpoint", "CollectorError", "End", "ReadFrom", "Settings", "Summary"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("collector.settings"), name)
