"""What the tests of attribution share: a store that is not there yet."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attribution.cluster import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store that is not there yet, and the commands on it."""
    return Store(tmp_path)
