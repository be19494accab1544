"""The command `doctor`: looks at everything between a Log policy and the store, and says what is wrong and what to do.

Rule: standard output is the findings; exit code 1 where one of them is a failure.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from analytics.options import Exit, store_option
from collector.commands import options_of, parse_options
from policies.console import cluster_options

if TYPE_CHECKING:
    from collector.facts import Unknown
    from collector.felix import Felix
    from collector.findings import Finding
    from policies.cluster_source import LiveCluster

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red", "skip": "bright_black"}


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE]...")
@store_option
@parse_options
@click.option("--journal", is_flag=False, flag_value="", metavar="[FOLDER]", help="Look at journald instead of a file.")
@click.option("--kmsg", is_flag=True, help="Look at /dev/kmsg instead of a file.")
@click.option("--forward", multiple=True, metavar="URL", help="A server to forward to; may be given again.")
@click.option(
    "--node",
    envvar="NODE_NAME",
    show_envvar=True,
    metavar="NAME",
    help="This node in the cluster.  [default: hostname]",
)
@cluster_options
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="Form.")
def doctor(
    files: tuple[str, ...], store: str, journal: str | None, kmsg: bool, forward: tuple[str, ...], **given: Any
) -> None:
    """Find out why denied packets do not arrive: rules, kernel, syslog, file, prefix, clock, store, targets.

    Without FILE it looks at what the configuration of `collect` names, else at the usual log of this machine. What
    Felix is told (FelixConfiguration: prefix, rate limit, data plane) it knows from the store's inventory, or with
    --cluster from the cluster. It changes nothing; what it may not look at it says (root sees everything). Exit code 1
    where something failed.

    \b
    sudo denylog doctor
    denylog doctor /var/log/syslog --forward tls://siem.example.com -o json
    """
    from collector.doctor import examine
    from collector.facts import gather
    from collector.storefacts import store_facts

    output, felix = given.pop("output"), felix_facts(store, given.pop("node"), given.pop("cluster"))
    facts = gather(
        files, store_facts(store), options_of(given), forward, felix=felix, journal=journal is not None, kmsg=kmsg
    )
    findings = examine(facts)
    if output == "json":
        click.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2, ensure_ascii=False))
    else:
        show(findings)
    failed = sum(finding.status == "fail" for finding in findings)
    click.echo(f"{len(findings)} findings, {failed} failures", err=True)
    sys.exit(Exit.FINDINGS if failed else Exit.OK)


def felix_facts(store: str, node: str | None, cluster: LiveCluster | None) -> Felix | Unknown:
    """What Felix is told on this node: by the cluster where one is named, else by the store's inventory."""
    from collector.facts import Unknown
    from collector.felix import felix_of
    from collector.storefacts import stored_felix
    from policies.errors import ClusterError

    node = node or os.uname().nodename
    if cluster is None:
        return stored_felix(store, node)
    try:
        found = felix_of(cluster.felix(), node, f"of {cluster}")
    except ClusterError as error:
        return Unknown(f"FelixConfiguration is not known: {error}")
    return found or Unknown(f"{cluster} has no FelixConfiguration: Felix' own settings hold")


def show(findings: list[Finding]) -> None:
    """One line for each finding, and one for what to do; names and prefixes may hold anything, so they are escaped."""
    from analytics.values import harmless

    for finding in findings:
        status = click.style(f"{finding.status:<4}", fg=_COLOURS[finding.status], bold=finding.status == "fail")
        click.echo(f"{status}  {finding.check:<10}  {harmless(finding.found)}")
        if finding.fix:
            click.echo(f"{'':<18}do: {harmless(finding.fix)}")
