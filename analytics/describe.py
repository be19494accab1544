"""The page that describes the tables: `docs/schema.md`, and what `denylog schema` prints.

Rule: every word of it comes from `parser.FIELDS`, `schema.TABLES` and `views.VIEWS`; a test holds the file equal to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from analytics.schema import TABLES, Table
from analytics.views import VIEWS, kernel_names
from parser import FIELDS

_INTRODUCTION = """# Schema

Tables and views of a store. `packets` has a row for each line that shows a packet; a column is null where the line does
not show it. Counts of packets are sums of `packet_count` in `denied`: a line such as "message repeated 3 times" stands
for three. Addresses are text in canonical form; `source_ip::INET <<= '10.0.0.0/8'::INET` asks for a network.
Times are stored in UTC and shown in the zone of the session. The files of `packets` are kept apart by day (UTC).

This page is made by `denylog schema`; do not edit it.
"""


def schema_markdown() -> str:
    """The page, in Markdown."""
    return "\n".join([_INTRODUCTION, *_packets(), *_tables(), *_views()])


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _packets() -> Iterator[str]:
    table = TABLES[0]
    yield f"## {table.name}\n\n{_sentence(table.meaning)}\n"
    yield "Kernel: what the kernel prints; ECS: the name in `-o ecs` (Elastic Common Schema).\n"
    yield _row(("column", "type", "kernel", "ECS", "meaning"))
    yield _row(["---"] * 5)
    for field in FIELDS:
        yield _row((_code(field.name), field.sql, field.kernel, _code(field.ecs), field.meaning))
    for column in table.columns[len(FIELDS) :]:
        yield _row((_code(column.name), column.sql, "", _code(f"denylog.{column.name}"), column.meaning))
    yield ""


def _tables() -> Iterator[str]:
    for table in TABLES[1:]:
        yield from _table(table)


def _table(table: Table) -> Iterator[str]:
    yield f"## {table.name}\n\n{_sentence(table.meaning)}\n"
    yield _row(("column", "type", "meaning"))
    yield _row(["---"] * 3)
    for column in table.columns:
        yield _row((_code(column.name), column.sql, column.meaning))
    yield ""


def _views() -> Iterator[str]:
    yield "## Views\n"
    yield _row(("view", "meaning"))
    yield _row(["---"] * 2)
    for view in VIEWS:
        yield _row((_code(view.name), view.meaning))
    yield "\n### calico_packet\n"
    yield _row(("column", "from packets"))
    yield _row(["---"] * 2)
    for name, expression in kernel_names():
        yield _row((_code(name), _code(expression)))
    yield ""


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."
