"""What a page will ask, asked while the browser still loads what draws it; and at the start what every page needs.

Rule: nothing depends on it. What goes wrong here the page finds again, and says.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import replace
from functools import cache

from analytics.filters import FilterError
from analytics.guard import QueryError
from analytics.store import StoreError
from dashboards import links
from dashboards.app import PAGES
from dashboards.controls import find_hints
from dashboards.look import look

# More at once would keep the pages themselves waiting.
_PLACES = threading.BoundedSemaphore(2)
# The last two are of a server that ends meanwhile.
_TROUBLE = (StoreError, QueryError, FilterError, RuntimeError, CancelledError)


def ask(name: str, parameters: Mapping[str, Sequence[str]]) -> None:
    """Ask what the page of this name will ask for these parameters of its link; the desk keeps the answers."""
    _settle()
    page = next(page for page in PAGES if page.name == name)
    if not page.filtered or not _PLACES.acquire(blocking=False):
        return
    try:
        with suppress(*_TROUBLE):
            seen = replace(look(links.read(parameters)[0]), heed=None)
            if hasattr(page.module, "ahead"):
                page.module.ahead(seen)
            find_hints(seen, {})
    finally:
        _PLACES.release()


@cache
def _settle() -> None:
    """Leave out of every later search for garbage what was loaded, which stays: Streamlit searches after each run."""
    gc.collect()
    gc.freeze()
