"""The `denylog policies` commands that change a cluster: `diff`, `apply` and `prune`.

Rule: nothing heavy is imported before a command runs; nothing is changed without `--no-dry-run`. What they do is in
`policies.cluster_actions`.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from policies.console import finish, this_cluster
from policies.log_commands import generating

if TYPE_CHECKING:
    from policies.cluster_source import LiveCluster

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

_FILES = click.argument("files", nargs=-1, metavar="[FILE|FOLDER|-...]")
_DRY_RUN = click.option(
    "--dry-run/--no-dry-run", default=True, show_default=True, help="Let the server only say what would happen."
)


def _ttl(context: click.Context, parameter: click.Parameter, value: str | None) -> timedelta | None:
    if value is None:
        return None
    parts = re.findall(r"(\d{1,6})([smhdw])", value)
    length = sum((timedelta(**{_UNITS[unit]: int(number)}) for number, unit in parts), timedelta())
    if "".join(map("".join, parts)) != value or not length:
        raise click.BadParameter(f"{value!r} is no length of time; expected 30m, 24h, 1d12h or 7d")
    return length


@click.command()
@_FILES
@this_cluster
@generating
def diff(files: tuple[str, ...], cluster: LiveCluster, per_policy: bool, name: str | None, order: float | None) -> None:
    """How the Log policies in the cluster differ from those that belong there.

    These are generated from the policies that the cluster has now; with FILES, they are what 'generate' printed before.
    Objects without our label are left out. It only reads. Exit code 1 when there is a difference.

    \b
    Example:
      denylog policies diff
      denylog policies diff --context staging --per-policy
    """
    from policies.cluster_actions import diff_policies
    from policies.generate import Options

    finish(lambda: diff_policies(cluster, files, Options(name, order, per_policy)))


@click.command()
@_FILES
@this_cluster
@generating
@click.option(
    "--ttl", callback=_ttl, metavar="DURATION", help="Let them expire after this time, such as 24h; see prune."
)
@click.option("--force-conflicts", "force", is_flag=True, help="Take over fields of ours that somebody else changed.")
@_DRY_RUN
def apply(
    files: tuple[str, ...],
    cluster: LiveCluster,
    per_policy: bool,
    name: str | None,
    order: float | None,
    ttl: timedelta | None,
    force: bool,
    dry_run: bool,
) -> None:
    """Apply Log policies to the cluster, after proving them against the policies that it has now.

    They are generated, or, with FILES, what 'generate' printed before. Nothing is applied when the proof does not hold,
    and no object that lacks the label app.kubernetes.io/managed-by: denylog is ever touched. By default the server only
    tries it (a dry run). It is a server-side apply with field manager 'denylog': a field of ours that somebody else has
    changed is told as a conflict.

    Log policies cost, so give them an end: with --ttl they carry their expiry, and 'prune' deletes them after it.
    Applying again without --ttl takes the expiry away.

    \b
    Example:
      denylog policies apply
      denylog policies apply --ttl 24h --no-dry-run
      denylog policies apply reviewed.yaml --context production --no-dry-run
    """
    from policies.cluster_actions import apply_policies
    from policies.generate import Options

    options = Options(name, order, per_policy)
    finish(lambda: apply_policies(cluster, files, options, ttl=ttl, dry_run=dry_run, force=force))


@click.command()
@this_cluster
@generating
@click.option("--expired", "expired_only", is_flag=True, help="Only those whose time is over.")
@_DRY_RUN
def prune(
    cluster: LiveCluster, per_policy: bool, name: str | None, order: float | None, expired_only: bool, dry_run: bool
) -> None:
    """Delete our Log policies that have expired, or that would no longer be generated.

    Only objects with the label app.kubernetes.io/managed-by: denylog are deleted. Give the same --per-policy, --name
    and --order as to 'apply', since what they would not make counts as no longer generated. By default the server only
    tries it (a dry run).

    \b
    Example:
      denylog policies prune
      denylog policies prune --expired --no-dry-run      in a CronJob, say
    """
    from policies.cluster_actions import prune_policies
    from policies.generate import Options

    finish(
        lambda: prune_policies(cluster, Options(name, order, per_policy), expired_only=expired_only, dry_run=dry_run)
    )


COMMANDS: tuple[click.Command, ...] = (diff, apply, prune)
"""The commands, in the order in which one meets them."""
