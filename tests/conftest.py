"""Options and fixtures that all tests share."""

from __future__ import annotations

import pandas  # noqa: F401 - what `collector.memory.prepare` forbids in a process of its own, later tests may need here
import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Golden files are written by the tests that compare them, and read in the diff."""
    parser.addoption("--rewrite-golden", action="store_true", help="write the golden files anew; read the diff")


@pytest.fixture
def rewrite_golden(pytestconfig: pytest.Config) -> bool:
    """Is this run to write the golden files?"""
    return bool(pytestconfig.getoption("--rewrite-golden"))
