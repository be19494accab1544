"""An answer on its way out: a table for a terminal, JSON, JSON lines, CSV, key and value blocks, or ECS documents.

Rule: JSON and CSV carry every row and column as it is; only what a terminal or a spreadsheet would act on is defused.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from datetime import tzinfo
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from analytics.ecs import event
from analytics.reader import Rows
from analytics.values import cell, plain, records

_NUMBERS = ("BIGINT", "INTEGER", "SMALLINT", "DOUBLE", "HUGEINT", "UBIGINT", "DECIMAL", "FLOAT", "TINYINT", "UINTEGER")
# What makes a spreadsheet take a cell for a formula (OWASP, "CSV Injection").
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

# The columns that a packet is shown with in a table; all others are in the other forms.
PACKET_COLUMNS = (
    "time",
    "node",
    "direction",
    "in_interface",
    "out_interface",
    "source_ip",
    "source_port",
    "destination_ip",
    "destination_port",
    "protocol",
    "tcp_flags",
    "policy_name",
)


def _table(rows: Rows, stream: TextIO, zone: tzinfo | None) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, kind in zip(rows.columns, rows.types, strict=True):
        number = kind.startswith(_NUMBERS)
        table.add_column(Text(name), justify="right" if number else "left", no_wrap=number, overflow="fold")
    for row in rows.rows:
        table.add_row(*(Text(cell(value, zone)) for value in row))
    Console(file=stream, highlight=False, soft_wrap=False).print(table)


def _json(rows: Rows, stream: TextIO, zone: tzinfo | None) -> None:
    lines = (json.dumps(record, ensure_ascii=False) for record in records(rows, zone))
    stream.write("[" + ",\n ".join(lines) + "]\n")


def _jsonl(rows: Rows, stream: TextIO, zone: tzinfo | None) -> None:
    stream.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records(rows, zone))


def _ecs(rows: Rows, stream: TextIO, zone: tzinfo | None) -> None:
    stream.writelines(json.dumps(event(record), ensure_ascii=False) + "\n" for record in records(rows, zone))


def _csv(rows: Rows, stream: TextIO, zone: tzinfo | None) -> None:
    """RFC 4180 but for the line ends; lists are JSON, null is empty. Text that a spreadsheet would take for a formula
    gets an apostrophe in front, since names in a log line may be chosen by an attacker; `denylog export` writes CSV
    that is left as it is."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(rows.columns)
    writer.writerows([_csv_cell(plain(value, zone)) for value in row] for row in rows.rows)


def _csv_cell(value: object) -> object:
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _dict(rows: Rows, stream: TextIO, zone: tzinfo | None) -> None:
    """One block for each row, one line for each value that is not null."""
    width = max(map(len, rows.columns), default=0)
    for number, row in enumerate(rows.rows):
        stream.write("\n" if number else "")
        stream.writelines(
            f"{name:>{width}}: {cell(value, zone)}\n"
            for name, value in zip(rows.columns, row, strict=True)
            if value is not None
        )


FORMATS: dict[str, Callable[[Rows, TextIO, tzinfo | None], None]] = {
    "table": _table,
    "json": _json,
    "jsonl": _jsonl,
    "csv": _csv,
    "dict": _dict,
    "ecs": _ecs,
}


def write(rows: Rows, form: str, stream: TextIO, *, zone: tzinfo | None = None) -> None:
    """Write `rows` to `stream` in one of FORMATS; times are shown in `zone` (None: that of the system)."""
    FORMATS[form](rows, stream, zone)
