"""The commands that write to a store: `collect` and `ingest`, and the options by which lines are read.

Rule: standard error tells what was done; nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from analytics.options import Command, Exit, Length, Zone, store_option
from collector.memory import prepare
from parser.options import DEFAULT_PREFIXES, Options

if TYPE_CHECKING:
    from collector.settings import Summary


def parse_options(command: Command) -> Command:
    """How lines are read."""
    for option in (
        click.option(
            "--log-prefix", metavar="WORD", multiple=True, default=DEFAULT_PREFIXES, show_default=True,
            help="Prefix of the lines to take, or Calico's logPrefix with %t %k %n %p; may be given again.",
        ),
        click.option("--any-prefix", is_flag=True, help="Take every netfilter line, whatever its prefix."),
        click.option("--any-tag", is_flag=True, help="Also take lines that do not carry the kernel's tag."),
        click.option(
            "--zone", type=Zone(), default="local", show_default=True,
            help="Zone of the daemon that wrote time stamps without one.",
        ),
        click.option(
            "--interface-prefix", metavar="TEXT", default="cali", show_default=True,
            help="What the interfaces of pods begin with (Felix' InterfacePrefix).",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def options_of(given: dict[str, Any]) -> Options:
    """Take the parse options out of a command's arguments."""
    return Options(
        prefixes=tuple(given.pop("log_prefix")),
        any_prefix=given.pop("any_prefix"),
        any_tag=given.pop("any_tag"),
        zone=given.pop("zone"),
        interface_prefix=given.pop("interface_prefix"),
    )


@click.command()
@click.argument("files", nargs=-1, metavar="FILE...")
@store_option
@parse_options
@click.option("--journal", is_flag=False, flag_value="", metavar="[FOLDER]", help="Follow systemd's journal.")
@click.option("--kmsg", is_flag=True, help="Follow /dev/kmsg.")
@click.option("--once", is_flag=True, help="Read what is there, then stop.")
@click.option("--read-from", type=click.Choice(["beginning", "end"]), default="beginning", show_default=True,
              help="Where to start in a file that was never seen before.")  # fmt: skip
@click.option("--node", envvar="NODE_NAME", show_envvar=True, metavar="NAME", help="Node of lines that name none.")
@click.option("--keep", type=Length(), metavar="DURATION", help="Drop packets older than this: 30d.")
def collect(files: tuple[str, ...], store: str, journal: str | None, kmsg: bool, **given: Any) -> None:
    """Follow log files, the journal or /dev/kmsg, and store each denied packet exactly once.

    FILE may be a pattern. Stop it with Ctrl-C or SIGTERM: what was read is committed first.

    \b
    denylog collect --store /var/lib/denylog /var/log/syslog
    denylog collect --journal
    """
    if not files and journal is None and not kmsg:
        raise click.UsageError("nothing to follow; name a FILE, --journal or --kmsg, for example /var/log/syslog")
    prepare(frugal=True)
    with stopping() as stop:
        from collector.follow import follow
        from collector.settings import Beginning, End, Settings

        start = End() if given.pop("read_from") == "end" else Beginning()
        settings = Settings(options=options_of(given), read_from=start, **given)
        summary = follow(files, store, settings, stop, journal=journal, kmsg=kmsg)
    tell(summary)


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set, so that what was read is committed before the end."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def tell(summary: Summary) -> None:
    """What a run did, on standard error."""
    click.echo(
        f"{summary.lines:,} lines: {summary.packets:,} packets stored, {summary.others:,} not ours, "
        f"{summary.rejects:,} rejected",
        err=True,
    )
    if summary.bytes_lost:
        click.echo(f"{summary.bytes_lost:,} bytes were gone before they could be read", err=True)
    for path in summary.waiting:
        click.echo(f"{path}: the last line has no newline yet and waits for its end", err=True)
    for path in summary.skipped:
        click.echo(f"{path}: was read before", err=True)
    for path, reason in summary.failed:
        click.echo(f"denylog: {path}: {reason}", err=True)
    if summary.failed:
        raise SystemExit(Exit.TRY_AGAIN)


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...|-")
@store_option
@parse_options
@click.option("--node", metavar="NAME", help="Node of lines that name none.")
def ingest(files: tuple[str, ...], store: str, node: str | None, **given: Any) -> None:
    """Store the denied packets of log files, archives (.gz, .zst) or standard input, each line only once ever.

    \b
    denylog ingest /var/log/syslog*
    ssh node-7 cat /var/log/syslog | denylog ingest -
    """
    prepare(frugal=False)
    from collector.ingest import ingest
    from collector.settings import Settings

    settings = Settings(options=options_of(given), node=node)
    with stopping() as stop, progress() as advance:
        summary = ingest(files, store, settings, stop=stop, progress=advance)
    tell(summary)


@contextmanager
def progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal: call it with the bytes that are done and the bytes that there are."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading")
        yield lambda done, total: bar.update(task, completed=done, total=total)


COMMANDS = (collect, ingest)
