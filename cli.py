"""The `denylog` command: the sub-commands of the packages under one name, and the way an error is told.

Rule: standard output is data, standard error is narration, exit codes are an enum (`analytics.options.Exit`). Nothing
heavy (duckdb, polars, the grammar) is imported before a command runs, so that `denylog --help` answers at once.
"""

from __future__ import annotations

import logging
import os
import sys
from importlib.metadata import version
from typing import Any

import click

from analytics import commands as asking
from analytics.filters import FilterError
from analytics.options import Exit
from collector import commands as writing
from policies.commands import policies

STDIN_BLOCK = 1024 * 1024


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
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


for command in (*writing.COMMANDS, *asking.COMMANDS, policies):
    cli.add_command(command)


def main() -> None:
    """Run the command; whatever goes wrong is one sentence and an exit code, never a traceback."""
    logging.basicConfig(level=logging.WARNING, format="denylog: %(message)s", stream=sys.stderr)
    try:
        cli(prog_name="denylog")
    except FilterError as error:
        fail(str(error), Exit.USAGE)
    except KeyboardInterrupt:
        raise SystemExit(Exit.INTERRUPTED) from None
    except BrokenPipeError:
        # The reader of our output has seen enough (`denylog top | head`): nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(Exit.OK) from None
    except Exception as error:
        if not told(error):
            raise


def told(error: Exception) -> bool:
    """Was this a problem of a package that can be told in a sentence? Then it is told, and the program ends."""
    from analytics import QueryError, StoreError
    from collector import CollectorError

    if isinstance(error, StoreError):
        fail(str(error), Exit.TRY_AGAIN if error.retryable else Exit.USAGE)
    if isinstance(error, QueryError | CollectorError):
        fail(str(error), Exit.USAGE)
    return False


def fail(message: str, code: Exit) -> None:
    """One sentence on standard error, and the end."""
    click.echo(f"denylog: {message}", err=True)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
