"""An answer on its way out: a table for a terminal, JSON, JSON lines, CSV, key and value blocks, or ECS documents.

Rule: JSON and CSV carry every row and column as it is; only what a terminal or a spreadsheet would act on is defused.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from datetime import datetime, tzinfo
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from analytics.ecs import event
from analytics.reader import Rows
from analytics.values import cell, harmless, json_text, plain, records

UNBOUNDED = 10_000
"""Columns of a stream that is no terminal: more than any row has."""
_PACKET_COLUMNS = ("time", "node", "interfaces", "source", "destination", "protocol", "detail", "policy")
_NUMBERS = ("BIGINT", "INTEGER", "SMALLINT", "DOUBLE", "HUGEINT", "UBIGINT", "DECIMAL", "FLOAT", "TINYINT", "UINTEGER")
# What makes a spreadsheet take a cell for a formula (OWASP, "CSV Injection").
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
# An apostrophe of the text's own is guarded as well, so that the first one of a cell can always be taken off again.
_GUARDED = (*_FORMULA, "'")


def _table(rows: Rows, stream: TextIO, zone: tzinfo | None) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, kind in zip(rows.columns, rows.types, strict=True):
        number = kind.startswith(_NUMBERS)
        table.add_column(Text(name), justify="right" if number else "left", no_wrap=number, overflow="fold")
    for row in rows.rows:
        table.add_row(*(Text(short(value, zone)) for value in row))
    # A file or a pipe has no width: columns there are as wide as what they hold.
    width = None if stream.isatty() else UNBOUNDED
    Console(file=stream, highlight=False, soft_wrap=False, width=width).print(table)


def short(value: object, zone: tzinfo | None) -> str:
    """A time as people write it, without its zone (the other forms have it) and without a fraction of zero."""
    if not (isinstance(value, datetime) and value.tzinfo):
        return cell(value, zone)
    return value.astimezone(zone).replace(tzinfo=None).isoformat(" ", "milliseconds").removesuffix(".000")


def packet_table(rows: Rows) -> Rows:
    """Packets with the columns that fit a terminal; all others are in the other forms."""
    packets = [_packet_row(packet) for packet in rows.dicts()]
    return Rows(_PACKET_COLUMNS, ("TIMESTAMP WITH TIME ZONE", *["VARCHAR"] * (len(_PACKET_COLUMNS) - 1)), packets)


def _packet_row(packet: dict[str, Any]) -> tuple[Any, ...]:
    interface = " > ".join(packet[f"{way}_interface"] or "" for way in ("in", "out")).strip()
    ends = (_end(packet, end) for end in ("source", "destination"))
    return (
        packet["time"],
        packet["node"],
        interface,
        *ends,
        packet["protocol"],
        _detail(packet),
        ", ".join(packet.get("denied_by") or ()) or packet["policy_name"],
    )


def _end(packet: dict[str, Any], end: str) -> str | None:
    """A pod, node, service … by its name where that is known, else the address; and the port."""
    name, namespace = packet.get(f"{end}_name"), packet.get(f"{end}_namespace")
    address, port = packet[f"{end}_ip"], packet[f"{end}_port"]
    who = address if name is None else "/".join(filter(None, (namespace, name)))
    if who is None or port is None:
        return who
    return f"[{who}]:{port}" if ":" in who else f"{who}:{port}"


def _detail(packet: dict[str, Any]) -> str:
    flags = ",".join(packet["tcp_flags"] or ())
    kind = f"type {packet['icmp_type']} code {packet['icmp_code']}" if packet["icmp_type"] is not None else ""
    times = f"x{packet['repeat_count']}" if packet["repeat_count"] else ""
    return " ".join(filter(None, (flags, kind, packet["follow_up"], times)))


def _json(rows: Rows, stream: TextIO, zone: tzinfo | None) -> None:
    lines = (json_text(record) for record in records(rows, zone))
    stream.write("[" + ",\n ".join(lines) + "]\n")


def _jsonl(rows: Rows, stream: TextIO, zone: tzinfo | None) -> None:
    stream.writelines(json_text(record) + "\n" for record in records(rows, zone))


def _ecs(rows: Rows, stream: TextIO, zone: tzinfo | None) -> None:
    stream.writelines(json_text(event(record)) + "\n" for record in records(rows, zone))


def _csv(rows: Rows, stream: TextIO, zone: tzinfo | None) -> None:
    """RFC 4180 but for the line ends; lists are JSON, null is empty. For people and spreadsheets: text that these would
    take for a formula, or that begins with an apostrophe, gets an apostrophe in front, and what acts on a terminal is
    escaped, since names in a log line may be chosen by an attacker. `denylog export` writes CSV for programs."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(rows.columns)
    writer.writerows([_csv_cell(plain(value, zone)) for value in row] for row in rows.rows)


def _csv_cell(value: object) -> object:
    if isinstance(value, list | dict):
        return json_text(value)
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return value
    return harmless(f"'{value}" if value.startswith(_GUARDED) else value)


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
