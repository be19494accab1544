"""Which SQL of a person is run: one statement that only asks.

Rule: what is allowed is listed; everything else is refused with a sentence. A read-only attachment is not enough:
COPY and ATTACH write files, and maintenance functions of DuckLake, called from a reader, would delete a writer's files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb

from analytics.engine import first_line

# Functions in FROM that only read. Reading files is further limited to the paths that the reader was opened with.
_READING = """
generate_series range unnest json_each json_tree glob read_blob read_csv read_csv_auto read_json
read_json_auto read_ndjson read_ndjson_auto read_ndjson_objects read_json_objects read_parquet parquet_scan
read_text sniff_csv parquet_metadata parquet_schema pragma_table_info duckdb_columns duckdb_databases
duckdb_functions duckdb_keywords duckdb_schemas duckdb_settings duckdb_tables duckdb_types duckdb_views
ducklake_current_snapshot ducklake_last_committed_snapshot ducklake_list_files ducklake_options
ducklake_snapshots ducklake_table_changes ducklake_table_deletions ducklake_table_info
ducklake_table_insertions
"""
TABLE_FUNCTIONS = frozenset(_READING.split())
# The views of which the reader makes only the columns that a question names.
ATTRIBUTED = frozenset(("denied", "attributed"))
_EXPLAIN = re.compile(r"\s*explain\s+(analyze\s+)?(?!analyze\b)", re.IGNORECASE)
_ONLY_SELECT = "only a single SELECT (or EXPLAIN SELECT, DESCRIBE, SHOW TABLES, SUMMARIZE) is run here"


class QueryError(Exception):
    """A question that was not answered: the `sql`, and `what` is wrong with it."""

    def __init__(self, sql: str, what: str) -> None:
        super().__init__(sql, what)
        self.sql = sql
        self.what = what

    def __str__(self) -> str:
        return self.what


@dataclass(frozen=True, slots=True)
class Question:
    """A statement that only reads: its `text`, the `tables` and `columns` that it names, and whether it asks for `all`
    columns of an attributed view."""

    text: str
    tables: frozenset[str]
    columns: frozenset[str]
    all: bool


def check(connection: duckdb.DuckDBPyConnection, sql: str) -> Question:
    """The statement to run; raises QueryError where `sql` is not one statement that only reads."""
    try:
        statements = connection.extract_statements(sql)
    except (UnicodeEncodeError, TypeError) as error:
        raise QueryError(sql, "the query is not in UTF-8") from error
    except duckdb.Error as error:
        raise QueryError(sql, first_line(error)) from error
    if not statements:
        raise QueryError(sql, f"there is no statement; {_ONLY_SELECT}")
    if len(statements) > 1:
        raise QueryError(sql, f"{len(statements)} statements; {_ONLY_SELECT}")
    text = statements[0].query.strip().rstrip(";")
    tree = _tree(connection, _EXPLAIN.sub("", text, count=1))
    if tree is None:
        raise QueryError(sql, f"{statements[0].type.name} is refused; {_ONLY_SELECT}")
    for name in _table_functions(tree):
        if name.lower() not in TABLE_FUNCTIONS:
            raise QueryError(sql, f"the table function {name!r} is refused: it is not one of those that only read")
    tables = frozenset(str(node.get("table_name", "")).lower() for node in _nodes(tree, "BASE_TABLE"))
    named = [str(part).lower() for node in _nodes(tree, "COLUMN_REF") for part in node.get("column_names", ())]
    aliases = {str(node.get("alias", "")).lower() for node in _nodes(tree, "BASE_TABLE")} | tables
    last = {str(node["column_names"][-1]).lower() for node in _nodes(tree, "COLUMN_REF")}
    # A bare name of a table stands for all its columns, and so does what is no plain SELECT (DESCRIBE, SUMMARIZE).
    selects = list(_nodes(tree, "SELECT_NODE"))
    everything = any(map(_takes_all, selects)) or bool(last & aliases) or not selects
    return Question(text, tables, frozenset(named), everything or any(_nodes(tree, "SHOW_REF")))


def _takes_all(select: dict[str, Any]) -> bool:
    """Whether a SELECT has a star over one of ATTRIBUTED itself. One over a subquery stands for what that names, and
    ORDER BY ALL, which DuckDB writes as a star too, for what is selected anyway."""
    own = {name: _own(part) for name, part in select.items() if name not in ("modifiers", "cte_map")}
    tables = {str(node.get("table_name", "")).lower() for node in _nodes(own, "BASE_TABLE")}
    return any(_nodes(own, "STAR")) and bool(tables & ATTRIBUTED)


def _own(node: object) -> object:
    """The tree without the SELECTs within it."""
    if isinstance(node, dict):
        return {name: _own(child) for name, child in node.items() if node.get("type") != "SELECT_NODE"}
    return [_own(child) for child in node] if isinstance(node, list) else node


def _nodes(node: object, kind: str) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if node.get("type") == kind:
            yield node
        for child in node.values():
            yield from _nodes(child, kind)
    elif isinstance(node, list):
        for child in node:
            yield from _nodes(child, kind)


def _tree(connection: duckdb.DuckDBPyConnection, sql: str) -> object | None:
    """DuckDB's own syntax tree; None where it is not a SELECT."""
    found = connection.execute("SELECT json_serialize_sql($sql::VARCHAR)", {"sql": sql}).fetchone()
    tree = json.loads(found[0]) if found else {"error": True}
    return None if tree.get("error") else tree


def _table_functions(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if node.get("type") == "TABLE_FUNCTION":
            yield str(node["function"].get("function_name", ""))
        for child in node.values():
            yield from _table_functions(child)
    elif isinstance(node, list):
        for child in node:
            yield from _table_functions(child)
