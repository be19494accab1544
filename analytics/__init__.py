"""The store (DuckLake) and the questions asked of it; a name loads its module, and so DuckDB, when first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analytics.guard import QueryError
    from analytics.notebook import query
    from analytics.position import Commit, LossRow, Position, RejectRow
    from analytics.reader import Reader, Rows
    from analytics.store import StoreError
    from analytics.writer import Writer

_HOME = {
    "Commit": "position",
    "LossRow": "position",
    "Position": "position",
    "QueryError": "guard",
    "Reader": "reader",
    "RejectRow": "position",
    "Rows": "reader",
    "StoreError": "store",
    "Writer": "writer",
    "query": "notebook",
}

__all__ = [
    "Commit",
    "LossRow",
    "Position",
    "QueryError",
    "Reader",
    "RejectRow",
    "Rows",
    "StoreError",
    "Writer",
    "query",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
