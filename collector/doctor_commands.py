"""The command `doctor`: looks at everything between a Log policy and the store, and says what is wrong and what to do.

Rule: standard output is the findings; exit code 1 where one of them is a failure.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from analytics.options import Exit, store_option
from collector.commands import options_of, parse_options

if TYPE_CHECKING:
    from collector.findings import Finding

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red", "skip": "bright_black"}


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE]...")
@store_option
@parse_options
@click.option("--journal", is_flag=False, flag_value="", metavar="[FOLDER]", help="Look at journald instead of a file.")
@click.option("--kmsg", is_flag=True, help="Look at /dev/kmsg instead of a file.")
@click.option("--forward", multiple=True, metavar="URL", help="A server to forward to; may be given again.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="Form.")
def doctor(
    files: tuple[str, ...], store: str, journal: str | None, kmsg: bool, forward: tuple[str, ...], **given: Any
) -> None:
    """Find out why denied packets do not arrive: rules, kernel, syslog, file, prefix, clock, store, targets.

    Without FILE it looks at what the configuration of `collect` names, else at the usual log of this machine. It
    changes nothing; what it may not look at it says (root sees everything). Exit code 1 where something failed.

    \b
    sudo denylog doctor
    denylog doctor /var/log/syslog --forward tls://siem.example.com -o json
    """
    from collector.doctor import examine
    from collector.facts import gather
    from collector.storefacts import store_facts

    output = given.pop("output")
    facts = gather(files, store_facts(store), options_of(given), forward, journal=journal is not None, kmsg=kmsg)
    findings = examine(facts)
    if output == "json":
        click.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2, ensure_ascii=False))
    else:
        show(findings)
    failed = sum(finding.status == "fail" for finding in findings)
    click.echo(f"{len(findings)} findings, {failed} failures", err=True)
    sys.exit(Exit.FINDINGS if failed else Exit.OK)


def show(findings: list[Finding]) -> None:
    """One line for each finding, and one for what to do; names and prefixes may hold anything, so they are escaped."""
    from analytics.values import harmless

    for finding in findings:
        status = click.style(f"{finding.status:<4}", fg=_COLOURS[finding.status], bold=finding.status == "fail")
        click.echo(f"{status}  {finding.check:<10}  {harmless(finding.found)}")
        if finding.fix:
            click.echo(f"{'':<18}do: {harmless(finding.fix)}")
