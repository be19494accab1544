"""The commands that ask a store: `top`, `packets`, `sql`, `status`, `export` and `schema`.

Rule: standard output is data, standard error is narration; duckdb is imported when a command runs, not before.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any

import click

from analytics.filters import Where, where
from analytics.options import FORMATS, filter_options, geoip_option, local_zone, output_options, store_option

if TYPE_CHECKING:
    from analytics.queries import Answer, Cursor
    from analytics.reader import Reader, Rows

GROUPINGS = (
    "source", "destination", "port", "pair", "interface", "node", "policy", "log-policy", "namespace", "pod",
    "workload",
    "source-namespace", "source-pod", "source-workload", "source-service", "source-class", "source-node",
    "destination-namespace", "destination-pod", "destination-workload", "destination-service", "destination-class",
    "destination-node", "workload-pair",
)  # fmt: skip
"""The names of `analytics.queries.GROUPINGS`, which is not imported before a command runs."""
FOLLOW_EVERY_S = 1.0
"""How often `packets -f` asks the store; the collector commits once a second."""


@contextmanager
def asking(store: str, filters: Mapping[str, Any], *, utc: bool) -> Iterator[tuple[Reader, Where, tzinfo]]:
    """An open store, the condition for the filters given, and the zone for times."""
    from analytics.reader import Reader

    zone: tzinfo = UTC if utc else local_zone()
    condition = where(filters, now=datetime.now(UTC), zone=zone)
    with _without_frames(), Reader(store, zone=getattr(zone, "key", "UTC")) as reader:
        yield reader, condition, zone


@contextmanager
def _without_frames() -> Iterator[None]:
    """Keep duckdb from importing what it only needs for frames: it does when it is handed any Python object, and that
    takes longer than most questions."""
    hidden = [name for name in ("numpy", "pandas", "pyarrow") if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def show(rows: Rows, form: str, zone: tzinfo) -> None:
    """Print an answer."""
    from analytics.output import write

    write(rows, form, sys.stdout, zone=zone)
    sys.stdout.flush()
    if form == "table" and "TIMESTAMP WITH TIME ZONE" in rows.types and rows.rows:
        click.echo(f"times in {getattr(zone, 'key', zone)}", err=True)


def show_answer(answer: Answer, form: str, zone: tzinfo, more: str) -> None:
    """Print an answer, and say on standard error where it was cut."""
    show(answer.rows, form, zone)
    if answer.cut:
        click.echo(f"there are more; {more} shows them", err=True)


@click.command()
@store_option
@click.option("--by", type=click.Choice(GROUPINGS), default="source", show_default=True, help="What to count by.")
@click.option("-n", "--limit", type=click.IntRange(min=1), default=10, show_default=True, help="How many to show.")
@output_options(*FORMATS)
@geoip_option
@filter_options
def top(store: str, by: str, limit: int, output: str, utc: bool, geoip: tuple[str, ...], **filters: Any) -> None:
    """Who is denied most.

    \b
    denylog top --since 1h
    denylog top --by port --from-ip 10.1.0.0/16
    denylog top --by workload-pair --to-namespace shop
    """
    from analytics.queries import top as ask

    with asking(store, filters, utc=utc) as (reader, condition, zone):
        answer = ask(reader, by, condition, limit)
    show_answer(located(answer, geoip), output, zone, "a larger --limit")


def located(answer: Answer, files: tuple[str, ...]) -> Answer:
    """The answer with country and network of its addresses, where the user has files that tell."""
    if not files:
        return answer
    from analytics.geo import Geo

    with Geo(files) as geo:
        return replace(answer, rows=geo.widen(answer.rows))


@click.command()
@store_option
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="The N newest packets (default 20).")
@click.option("--first", type=click.IntRange(min=1), metavar="N", help="The N oldest packets.")
@click.option("-f", "--follow", is_flag=True, help="Go on with packets as they are stored.")
@output_options(*FORMATS, "ecs")
@geoip_option
@filter_options
def packets(
    store: str, last: int | None, first: int | None, follow: bool, output: str, utc: bool, **filters: Any
) -> None:
    """Single denied packets, oldest of those shown first.

    Country and network (--geoip) are in every form but the table.

    \b
    denylog packets --last 50 --to-port 5432
    denylog packets --from-pod shop/web --to-service shop/db
    denylog packets -f --direction egress -o jsonl
    """
    if first and (last or follow):
        raise click.UsageError("--first goes with neither --last nor --follow")
    from analytics.queries import newest
    from analytics.queries import packets as ask

    files = filters.pop("geoip")
    with asking(store, filters, utc=utc) as (reader, condition, zone):
        upto = newest(reader)
        answer = located(ask(reader, condition, first or last or 20, oldest_first=bool(first), upto=upto), files)
        rows = answer.rows if first else reverse(answer.rows)
        show(visible(rows, output), output, zone)
        if follow:
            watch(reader, condition, upto, output, zone, files)
    if answer.cut and (first or last is None):
        click.echo("there are more; --last N shows N packets, --since and the other filters choose", err=True)


def reverse(rows: Rows) -> Rows:
    """The rows in the opposite order."""
    from analytics.reader import Rows

    return Rows(rows.columns, rows.types, rows.rows[::-1])


def visible(rows: Rows, output: str) -> Rows:
    """What fits a terminal; all columns in any other form."""
    from analytics.output import packet_table

    return packet_table(rows) if output == "table" else rows


def watch(
    reader: Reader, condition: Where, after: Cursor | None, output: str, zone: tzinfo, geoip: tuple[str, ...]
) -> None:
    """Print packets as they come into the store, until interrupted."""
    from analytics.queries import packets_after

    pause = threading.Event()
    while True:
        answer, after = packets_after(reader, condition, 1000, after)
        if answer.rows.rows:
            show(visible(located(answer, geoip).rows, output), output, zone)
        if not answer.cut:
            pause.wait(FOLLOW_EVERY_S)


@click.command()
@click.argument("query", required=False)
@store_option
@click.option("--attach", is_flag=True, help="Print the statement that opens the store in any DuckDB shell.")
@click.option("--with", "files", multiple=True, metavar="PATH", help="A file or folder that the query may read too.")
@output_options(*FORMATS)
def sql(query: str | None, store: str, attach: bool, files: tuple[str, ...], output: str, utc: bool) -> None:
    """Ask one SELECT; `denylog schema` names the tables and columns. It cannot change anything.

    \b
    denylog sql "SELECT source_ip, count(*) FROM denied GROUP BY ALL ORDER BY 2 DESC"
    denylog sql --attach
    """
    from analytics.reader import Reader

    if not query and not attach:
        raise click.UsageError('a query is missing, for example: denylog sql "FROM denied LIMIT 5"')
    zone: tzinfo = UTC if utc else local_zone()
    with Reader(store, zone=getattr(zone, "key", "UTC"), files=files) as reader:
        if attach:
            click.echo(reader.attach_statement())
        if query:
            show(reader.rows(sys.stdin.read() if query == "-" else query), output, zone)


@click.command()
@store_option
@output_options("table", "json")
def status(store: str, output: str, utc: bool) -> None:
    """How far each file was read, whether the accounts balance, what was rejected or lost.

    \b
    denylog status
    denylog status -o json
    """
    from analytics.reader import Reader
    from analytics.report import report, summary
    from analytics.status import status as ask

    zone: tzinfo = UTC if utc else local_zone()
    with Reader(store) as reader:
        found = ask(reader)
    if output == "json":
        click.echo(summary(found, zone))
    else:
        report(found, sys.stdout, zone)


@click.command()
@click.argument("target", metavar="FILE")
@store_option
@click.option("--format", "form", type=click.Choice(["duckdb", "parquet", "csv", "jsonl"]), help="Else by its ending.")
@click.option("--force", is_flag=True, help="Overwrite the file.")
@filter_options
def export(target: str, store: str, form: str | None, force: bool, **filters: Any) -> None:
    """Write packets to a file: .duckdb (all tables), .parquet, .csv or .jsonl.

    Every text is exactly as it was logged. For a spreadsheet take `-o csv` of the other commands, which defuses what
    would be a formula there.

    \b
    denylog export denied.duckdb
    denylog export monday.parquet --since 2026-11-16 --until 2026-11-17
    """
    from analytics.export import export as write

    condition = where(filters, now=datetime.now(UTC), zone=local_zone())
    count = write(store, target, form, condition, force=force)
    click.echo(f"{count:,} packets written to {target}", err=True)


@click.command()
def schema() -> None:
    """The tables, views and columns of a store, in Markdown.

    \b
    denylog schema
    """
    from analytics.describe import schema_markdown

    click.echo(schema_markdown(), nl=False)
