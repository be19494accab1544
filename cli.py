"""The `denylog` command: the sub-commands of the packages under one name, and the way an error is told.

Rule: standard output is data, standard error is narration, exit codes are an enum (`analytics.options.Exit`). A command
is loaded when it is called, and what it needs when it runs: a collector carries no other command's modules for months,
and `denylog --help` answers at once.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any, NoReturn

import click

from analytics.options import Exit
from collector import logs
from collector.config_commands import config_option, configure

COMMANDS = {
    "collect": (
        "collector.commands:collect",
        "Follow log files, the journal or /dev/kmsg, and store each denied packet exactly once.",
    ),
    "config": (
        "collector.config_commands:config_group",
        "The settings: one TOML file, a variable for each key, and where each value comes from.",
    ),
    "dashboard": (
        "dashboards.commands:dashboard",
        "Show the store in a browser: who is denied, by which policy, and what to do.",
    ),
    "doctor": (
        "collector.doctor_commands:doctor",
        "Find out why denied packets do not arrive: rules, kernel, syslog, file, prefix, clock, store, targets.",
    ),
    "export": (
        "analytics.commands:export",
        "Write packets to a file: .duckdb (all tables), .parquet, .csv or .jsonl.",
    ),
    "findings": (
        "analytics.findings_commands:findings",
        "What the denied packets amount to: scans, sweeps, beacons, wrong policies.",
    ),
    "forward": (
        "collector.forward_commands:forward",
        "Send stored packets to a syslog server, each once, and go on where it stopped.",
    ),
    "ingest": (
        "collector.commands:ingest",
        "Store the denied packets of log files, archives (.gz, .zst) or standard input, each line only once ever.",
    ),
    "inventory": (
        "collector.cluster_commands:inventory",
        "Who has which address, and had it when: pods, nodes, services, policies.",
    ),
    "packets": ("analytics.commands:packets", "Single denied packets, oldest of those shown first."),
    "parse": (
        "collector.commands:parse",
        "Read log lines on standard input and print what each means, one JSON object a line.",
    ),
    "policies": (
        "collector.attribution.commands:policies",
        "Read, check, log and explain network policies, with or without a cluster.",
    ),
    "schema": ("analytics.commands:schema", "The tables, views and columns of a store, in Markdown."),
    "sql": ("analytics.commands:sql", "Ask one SELECT; `denylog schema` names the tables and columns."),
    "status": (
        "analytics.commands:status",
        "How far each file was read, whether the accounts balance, what was rejected or lost.",
    ),
    "top": ("analytics.commands:top", "Who is denied most."),
}
"""Where each command is, and its line in the help, which is the beginning of its own."""


class Later(click.Command):
    """A command that is not loaded yet."""

    def __init__(self, name: str, home: str, help: str) -> None:  # noqa: A002 - its name in the base class
        super().__init__(name, help=help)
        self._home = home

    def load(self) -> click.Command:
        """The command itself, with its variables and `--config`."""
        module, _, attribute = self._home.partition(":")
        found: click.Command = getattr(import_module(module), attribute)
        configure(str(self.name), found)
        return found


class Commands(click.Group):
    """The commands under one name; errors are told here: click would end a broken pipe or Ctrl-C with code 1."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, which is loaded now if it was not before."""
        found = super().get_command(ctx, cmd_name)
        if isinstance(found, Later):
            found = self.commands[cmd_name] = found.load()
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The names and the beginnings of the help, without loading anything."""
        width = formatter.width - 6 - max(map(len, self.commands))
        rows = [(name, command.get_short_help_str(width)) for name, command in sorted(self.commands.items())]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        with errors_told():
            return super().invoke(ctx)


@contextmanager
def errors_told() -> Iterator[None]:
    """What goes wrong meanwhile is told in one sentence and ends the program."""
    try:
        yield
        # A full disk shows itself here rather than when Python ends and nobody listens.
        sys.stdout.flush()
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except KeyboardInterrupt:
        raise SystemExit(Exit.INTERRUPTED) from None
    except BrokenPipeError:
        # The reader of our output has seen enough (`denylog top | head`): nothing is wrong.
        discard_output()
        raise SystemExit(Exit.OK) from None
    except Exception as error:
        if interrupted(error):
            raise SystemExit(Exit.INTERRUPTED) from None
        if isinstance(error, OSError):
            discard_output()
        fail(*sentence(error))
    except BaseException as error:
        fail_of_panic(error)
        raise


def fail_of_panic(error: BaseException) -> None:
    """Tell of a panic in Polars, which pyo3 makes no Exception; return for anything else."""
    if type(error).__name__ == "PanicException":
        fail(*sentence(error))


def interrupted(error: Exception) -> bool:
    """Is this what DuckDB makes of a Ctrl-C that comes while a statement runs?"""
    return isinstance(error, RuntimeError) and str(error) == "Query interrupted"


def sentence(error: BaseException) -> tuple[str, Exit]:
    """What to say of an error, and the exit code."""
    import traceback

    from analytics import QueryError, StoreError
    from analytics.filters import FilterError
    from analytics.findings_rules import RulesError
    from collector import CollectorError
    from policies.errors import ClusterError

    match error:
        case StoreError() | ClusterError():
            return str(error), Exit.TRY_AGAIN if error.retryable else Exit.USAGE
        case FilterError() | RulesError() | QueryError() | CollectorError():
            return str(error), Exit.USAGE
        case OSError():
            return f"{error.filename or 'output'}: {error.strerror or error}", Exit.TRY_AGAIN
        case MemoryError():
            return "out of memory; ask for less at once", Exit.TRY_AGAIN
    place = traceback.extract_tb(error.__traceback__)[-1]
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{what} ({place.filename}:{place.lineno}); this is a defect of denylog, please report it", Exit.DEFECT


def fail(message: str, code: Exit) -> NoReturn:
    """One sentence on standard error, and the end."""
    with suppress(OSError):
        logs.tell(message, logging.ERROR)
    raise SystemExit(code)


def discard_output() -> None:
    """Send what is still in the buffer of standard output nowhere, so that Python does not try again at its end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def replace_closed_streams() -> None:
    """Open /dev/null for each standard stream that the caller has closed (`denylog collect FILE >&-`).

    In the order of their numbers, since an open file takes the lowest number that is free. The characters that an
    encoding lacks are escaped.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - for the whole run
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="denylog", prog_name="denylog")
def cli() -> None:
    """Who is being denied, by which policy, and what to do about it.

    \b
    denylog collect /var/log/syslog       follow a log and store what Calico denied
    denylog top                           who is denied most
    denylog packets -f --to-port 5432     watch single packets
    denylog policies generate FILES       the Log policies that make the kernel write
    """


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes denylog's commands in a shell.

    \b
    denylog completion bash > /etc/bash_completion.d/denylog
    """
    from click.shell_completion import get_completion_class

    if kind := get_completion_class(shell):
        click.echo(kind(cli, {}, "denylog", "_DENYLOG_COMPLETE").source())


for _name, (_home, _help) in COMMANDS.items():
    cli.add_command(Later(_name, _home, _help))
cli.params.append(config_option())


def main() -> None:
    """Run the command; whatever goes wrong is one sentence and an exit code, never a traceback."""
    replace_closed_streams()
    logs.configure()
    with errors_told():
        cli(prog_name="denylog")


if __name__ == "__main__":
    main()
