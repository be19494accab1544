"""The commands that read log lines: `collect` and `ingest`, which write to a store, and `parse`; and their options.

Rule: standard error tells what was done; nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from analytics.options import Command, Exit, Length, Size, Zone, store_option
from collector import descriptors, logs
from collector.address import Address, address
from collector.config import Listed
from collector.memory import prepare
from collector.settings import LOCK_WAIT_S
from parser.options import DEFAULT_PREFIXES, Options

if TYPE_CHECKING:
    from collector.follow import Job
    from collector.settings import Summary

_LOG = logging.getLogger(__name__)
_ARGUMENTS = "denylog.arguments"
_STDIN_BLOCK = 1024 * 1024


class Listen(click.ParamType[Address]):
    """An address to listen on."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        """The address that a text names."""
        try:
            return value if isinstance(value, Address) else address(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Url(Listed):
    """The URL of a syslog server, checked where it is given."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The URL as it is; fails for what is no target."""
        from collector.forward import parse_target
        from collector.settings import CollectorError

        try:
            parse_target(str(value))
        except CollectorError as error:
            self.fail(str(error), param, ctx)
        return str(value)


class Recallable(click.Command):
    """A command that can be read again as it was given, with the configuration as it is by then."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the arguments."""
        ctx.meta[_ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)

    @staticmethod
    def recall(ctx: click.Context) -> dict[str, Any]:
        """The parameters by now; raises click.ClickException where they will not do any more."""
        with ctx.command.make_context(ctx.info_name, list(ctx.meta[_ARGUMENTS]), parent=ctx.parent) as fresh:
            return fresh.params


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


@click.command(cls=Recallable)
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
@click.option("--keep-size", type=Size(), metavar="SIZE",
              help="Drop the oldest days of packets, never today's, where the store holds more: 5GiB.")  # fmt: skip
@click.option("--wait", type=Length(), default=f"{LOCK_WAIT_S:.0f}s", show_default=True, metavar="DURATION",
              help="How long another process may hold the store at the start.")  # fmt: skip
@click.option("--forward", type=Url(), metavar="URL", multiple=True,
              help="Also send packets to this syslog server (see denylog forward); may be given again.")  # fmt: skip
@click.option("--metrics", type=Listen(), metavar="HOST:PORT", help="Serve /metrics, /healthz and /readyz there.")
@click.option("--rule-counters", is_flag=True, help="Also tell how often the kernel's LOG rules matched; needs root.")
@logs.log_options
@click.pass_context
def collect(ctx: click.Context, /, store: str, metrics: Address | None, rule_counters: bool, **given: Any) -> None:
    """Follow log files, the journal or /dev/kmsg, and store each denied packet exactly once.

    FILE may be a pattern. Stop it with Ctrl-C or SIGTERM: what was read is committed first. SIGHUP makes it read its
    configuration again.

    \b
    denylog collect --store /var/lib/denylog /var/log/syslog
    denylog collect --journal --metrics 127.0.0.1:9843
    """
    logs.configure(given["log_format"], given["log_level"])
    require_source(given)
    prepare(frugal=True)
    descriptors.claim()
    with stopping(reloads=True) as (stop, reload):
        from collector.follow import Reload
        from collector.service import serve

        def again() -> Job | None:
            return reread(ctx)

        wanted = Reload(reload, again)
        summary = serve(
            job_of(given), store, stop,
            metrics=metrics, rule_counters=rule_counters, reload=wanted, forward=given["forward"],
        )  # fmt: skip
    tell(summary)


def require_source(given: dict[str, Any]) -> None:
    """Raise UsageError unless there is something to follow."""
    if not given["files"] and given["journal"] is None and not given["kmsg"]:
        raise click.UsageError("nothing to follow; name a FILE, --journal or --kmsg, for example /var/log/syslog")


def job_of(given: dict[str, Any]) -> Job:
    """What the arguments of `collect` ask for."""
    from collector.follow import Job
    from collector.settings import Beginning, End, Settings

    start = End() if given["read_from"] == "end" else Beginning()
    settings = Settings(
        options=options_of(given), read_from=start, node=given["node"], once=given["once"], keep=given["keep"],
        keep_bytes=given["keep_size"], wait_s=given["wait"].total_seconds(),
    )  # fmt: skip
    return Job(patterns=tuple(given["files"]), journal=given["journal"], kmsg=given["kmsg"], settings=settings)


FIXED = ("store", "metrics", "rule_counters", "once", "forward", "wait")
"""What a running collector cannot change."""


def reread(ctx: click.Context) -> Job | None:
    """The job that the configuration asks for by now; None, and a sentence, where it cannot be had."""
    try:
        given = Recallable.recall(ctx)
        require_source(given)
    except click.ClickException as error:
        _LOG.error("the configuration stays as it was: %s", error.format_message())
        return None
    for name in FIXED:
        if given[name] != ctx.params[name]:
            _LOG.warning("%s stays as it was: it takes a restart to change it", name.replace("_", "-"))
    logs.configure(given["log_format"], given["log_level"])
    _LOG.info("the configuration was read again")
    return job_of(given)


@contextmanager
def stopping(*, reloads: bool = False) -> Iterator[tuple[threading.Event, threading.Event]]:
    """An event that SIGTERM and SIGINT set, so that what was read is committed before the end; one that SIGHUP sets.

    SIGHUP asks a service for its configuration (`reloads`); on a terminal it says that the terminal is gone.
    """
    stop, reload = threading.Event(), threading.Event()
    hang_up = reload if reloads and not sys.stdin.isatty() else stop
    events = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: hang_up}
    before = {
        number: signal.signal(number, lambda number, _: events[signal.Signals(number)].set()) for number in events
    }
    try:
        yield stop, reload
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def tell(summary: Summary) -> None:
    """What a run did, on standard error."""
    logs.tell(
        f"{summary.lines:,} lines: {summary.packets:,} packets stored, {summary.others:,} not ours, "
        f"{summary.rejects:,} rejected"
    )
    if summary.bytes_lost:
        logs.tell(f"{summary.bytes_lost:,} bytes were gone before they could be read")
    for path in summary.waiting:
        logs.tell(f"{path}: the last line has no newline yet and waits for its end")
    for path in summary.skipped:
        logs.tell(f"{path}: was read before")
    for path, reason in summary.failed:
        logs.tell(f"{path}: {reason}", logging.ERROR)
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
    descriptors.claim()
    from collector.ingest import ingest
    from collector.settings import Settings

    settings = Settings(options=options_of(given), node=node)
    with stopping() as (stop, _), progress() as advance:
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


@click.command()
@parse_options
def parse(**given: Any) -> None:
    """Read log lines on standard input and print what each means, one JSON object a line.

    The key `kind` is packet, other (not ours), reject (with reason and position) or loss (lines are missing).

    \b
    denylog parse < /var/log/syslog | jq 'select(.kind == "packet")'
    """
    from collector.listing import list_lines

    blocks = iter(lambda: os.read(sys.stdin.fileno(), _STDIN_BLOCK), b"")
    for line in list_lines(blocks, options_of(given)):
        click.echo(line)
