"""One question from a notebook or a script, without anything to open or to close.

Rule: the store is attached read-only for the one question; who asks many opens a `Reader`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from analytics.reader import Reader

if TYPE_CHECKING:
    import pandas as pd


def query(store: str, sql: str, parameters: Mapping[str, object] = {}, *, zone: str = "UTC") -> pd.DataFrame:
    """The answer to one SELECT with named parameters (`$name`) as a pandas frame, times in `zone`.

    Raises QueryError for what is no such SELECT, StoreError where the store cannot be read.
    """
    with Reader(store, zone=zone) as reader:
        return reader.pandas(sql, parameters)
