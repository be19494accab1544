"""What all commands of `denylog policies` share: the sources argument, the `-o` option, and how a command ends.

Rule: standard output is data, standard error is narration. Exit codes: 0 ok, 1 findings, 2 bad usage or input.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from policies.actions import Result

SOURCES = click.argument("sources", nargs=-1, required=True, metavar="FILE|FOLDER|-...")
BAD_INPUT = 2


def output(*choices: str, default: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The `-o` option with these choices."""
    kind = click.Choice(choices)
    return click.option("-o", "--output", type=kind, default=default, show_default=True, help="Form of the output.")


def finish(run: Callable[[], Result]) -> None:
    """Run, print and exit; input that cannot be used is one sentence a problem on standard error and exit code 2."""
    from policies.errors import PolicyError

    try:
        result = run()
    except PolicyError as error:
        click.echo(str(error), err=True)
        sys.exit(BAD_INPUT)
    for note in result.notes:
        click.echo(note, err=True)
    click.echo(result.text, nl=False)
    sys.exit(result.exit)
