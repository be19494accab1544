"""docs/security.md claims nothing without a test."""

from __future__ import annotations

import re

import pytest

from tests.collector.live import REPOSITORY

_TEXT = (REPOSITORY / "docs" / "security.md").read_text()
_NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", _TEXT)))


@pytest.mark.parametrize(("file", "test"), _NAMED)
def test_named_test_exists(file: str, test: str) -> None:
    """Each test that the document names exists."""
    assert re.search(rf"^def {test}\(", (REPOSITORY / file).read_text(), re.M)


def test_each_row_names_a_test() -> None:
    """Each row about hostile lines names a test."""
    table = _TEXT.partition("## What a hostile line can do")[2].partition("\n\n`denylog export`")[0]
    rows = [row for row in table.splitlines() if row.startswith("| ") and not row.startswith("| it tries")]
    assert len(rows) >= 8
    assert [row for row in rows if "`tests/" not in row] == []
