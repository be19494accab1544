"""The `denylog` command: the sub-commands of the packages under one name, and the way an error is told.

Rule: standard output is data, standard error is narration, exit codes are an enum (`analytics.options.Exit`). Nothing
heavy (duckdb, polars, the grammar) is imported before a command runs, so that `denylog --help` answers at once.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from typing import Any, NoReturn

import click

from analytics import commands as asking
from analytics import findings_commands as finding
from analytics.filters import FilterError
from analytics.findings_rules import RulesError
from analytics.inventory_commands import inventory
from analytics.options import Exit
from collector import cluster_commands as following
from collector import commands as writing
from collector import doctor_commands as diagnosing
from collector import forward_commands as forwarding
from collector import logs
from collector.attribution.commands import join
from collector.config_commands import configure
from dashboards import commands as showing
from policies.commands import policies

STDIN_BLOCK = 1024 * 1024


class Commands(click.Group):
    """The commands under one name; errors are told here: click would end a broken pipe or Ctrl-C with code 1."""

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
    from analytics import QueryError, StoreError
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
@click.version_option(version("denylog"), prog_name="denylog")
def cli() -> None:
    """Who is being denied, by which policy, and what to do about it.

    \b
    denylog collect /var/log/syslog       follow a log and store what Calico denied
    denylog top                           who is denied most
    denylog packets -f --to-port 5432     watch single packets
    denylog policies generate FILES       the Log policies that make the kernel write
    """


@cli.command()
@writing.parse_options
def parse(**given: Any) -> None:
    """Read log lines on standard input and print what each means, one JSON object a line.

    The key `kind` is packet, other (not ours), reject (with reason and position) or loss (lines are missing).

    \b
    denylog parse < /var/log/syslog | jq 'select(.kind == "packet")'
    """
    from collector.listing import list_lines

    blocks = iter(lambda: os.read(sys.stdin.fileno(), STDIN_BLOCK), b"")
    for line in list_lines(blocks, writing.options_of(given)):
        click.echo(line)


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


join(policies)
inventory.add_command(following.watch)
COMMANDS = (
    *writing.COMMANDS,
    *forwarding.COMMANDS,
    *diagnosing.COMMANDS,
    *asking.COMMANDS,
    finding.findings,
    *showing.COMMANDS,
    inventory,
    policies,
)
for command in COMMANDS:
    cli.add_command(command)
configure(cli)


def main() -> None:
    """Run the command; whatever goes wrong is one sentence and an exit code, never a traceback."""
    replace_closed_streams()
    logs.configure()
    with errors_told():
        cli(prog_name="denylog")


if __name__ == "__main__":
    main()
