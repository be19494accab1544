"""The parser's tests run in a zone that is not UTC, and one with an odd offset: no result may depend on it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def foreign_zone() -> Iterator[None]:
    """The Chatham Islands: 12:45 or 13:45 ahead of UTC."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Pacific/Chatham"
    time.tzset()
    yield
    os.environ.pop("TZ") if before is None else os.environ.__setitem__("TZ", before)
    time.tzset()
