"""Which columns of the attributed views a question asks for: more of them are more joins."""

from __future__ import annotations

import duckdb
import pytest

from analytics.guard import check


@pytest.mark.parametrize(
    ("sql", "everything"),
    [
        ("SELECT * FROM denied", True),
        ("FROM denied", True),
        ("SELECT d.* FROM attributed AS d", True),
        ("SELECT denied FROM denied", True),
        ("SELECT count(*) FROM (FROM denied)", True),
        ("WITH few AS (SELECT * FROM denied) SELECT pod FROM few", True),
        ("DESCRIBE denied", True),
        ("SELECT node FROM denied ORDER BY ALL", False),
        ("SELECT count(*), 2 * length FROM denied GROUP BY ALL", False),
        ("SELECT * FROM (SELECT node, pod FROM denied)", False),
        ("WITH few AS MATERIALIZED (SELECT node FROM denied) SELECT * FROM few ORDER BY ALL", False),
        ("SELECT * FROM packets", False),
    ],
)
def test_star_is_told_from_order_by_all(sql: str, everything: bool) -> None:
    """Only a star over an attributed view itself asks for all its columns."""
    with duckdb.connect() as connection:
        assert check(connection, sql).all is everything
