"""The commands of `denylog policies` that need a store, and the store's options on those that may use one.

Rule: nothing heavy is imported before a command runs; the group with all its commands is `policies` of this module.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from analytics.filters import moment
from analytics.options import Exit, filter_options, local_zone, store_option
from policies.commands import policies
from policies.console import finish, output, sources

if TYPE_CHECKING:
    from collector.attribution.attribute import Account
    from policies.archive import Archive
    from policies.load import Source

ASKING = ("explain", "what-if", "allow")
"""Commands of policies that take packets from a store where one is named."""


@click.command()
@sources(pods=True)
@store_option
@click.option("--at", metavar="TIME", help="When FILES were written, if not now: 5m, 2h ago, or ISO 8601.")
@click.option("--valid-from", metavar="TIME", help="Since when the policies are in force, where you know better.")
@click.option(
    "--partial", is_flag=True, help="These are not all policies: others that the store knows are still there."
)
def snapshot(sources: tuple[Source, ...], store: str, at: str | None, valid_from: str | None, partial: bool) -> None:
    """Keep the policies of now in the store, so that packets are judged by the policies of their time.

    Pods, namespaces, services and the like are kept too where the files hold them ('denylog inventory watch' follows
    them better). A policy holds from when it was last edited, as far as it tells, else from when it was seen; it ends
    when a later snapshot of its kind (in its namespace, where all of them are of one) lacks it. Take one whenever
    policies change, or every hour; what has not changed is not stored again.

    \b
    Example:
      kubectl get networkpolicies,pods,namespaces -A -o yaml | denylog policies snapshot -
      denylog policies snapshot --cluster
      denylog policies snapshot monday.yaml --at '2026-11-16 08:00'
    """
    from collector.attribution.snapshot import Taken
    from collector.attribution.snapshot import snapshot as run

    now = datetime.now(UTC)
    taken = past_time("--at", at, now) or now
    since = past_time("--valid-from", valid_from, taken)
    finish(lambda: run(sources, store, Taken(taken, since, partial)))


def past_time(flag: str, text: str | None, latest: datetime) -> datetime | None:
    """The time that an option names; a usage error where it names none, or one after `latest`."""
    if text is None:
        return None
    try:
        found = moment(text, datetime.now(UTC), local_zone())
    except ValueError:
        raise click.UsageError(f"{flag} {text!r}: expected a time ('2026-11-22 10:00') or a time ago (2h)") from None
    if found > latest:
        raise click.UsageError(f"{flag} {text!r}: the files were written before, at {latest:%Y-%m-%d %H:%M:%S %Z}")
    return found


@click.command()
@store_option
@click.option("--again", is_flag=True, help="Judge also the packets that have a verdict.")
@output("text", "json", default="text")
@filter_options
def attribute(store: str, again: bool, output: str, **filters: Any) -> None:
    """Find out which policies denied the stored packets, and keep it in the store.

    Each flow is judged by the pods and policies that the store has of its time ('denylog policies snapshot' and
    'denylog inventory import' bring them there). A policy denies a packet when it selects the pod and no rule allows
    it, or when a rule of it says Deny. Where Calico's log prefix names the policy, nothing is judged, unless it is a
    Log policy of 'denylog policies generate', which itself denies nothing. Run it as often as you like: only what is
    new is judged, and what changed since. Afterwards 'denylog top --by policy' knows.

    Exit code 1: of some packets it cannot be said; standard error tells how many and why.

    \b
    Example:
      denylog policies attribute --since 1d
    """
    from collector.attribution.attribute import attribute as run

    account = run(store, filters, again=again)
    click.echo(json.dumps(as_data(account), indent=2) if output == "json" else as_text(account))
    for note in (*advice(account), *(f"left out: {problem}" for problem in account.problems)):
        click.echo(note, err=True)
    raise SystemExit(Exit.FINDINGS if account.unattributed else Exit.OK)


def advice(account: Account) -> Iterator[str]:
    """For each reason why packets got no verdict, what to do about it, from the earliest of them on."""
    for cause, left in account.left.items():
        time = left.first.astimezone(UTC).isoformat(sep=" ", timespec="seconds") if left.first else "TIME"
        if told := cause.advice(time):
            yield f"{cause}: {told}"


def as_text(account: Account) -> str:
    """The account in lines: how many packets each way, and what is left."""
    lines = [
        f"{account.by_prefix:12,} packets attributed by the log prefix",
        f"{account.by_engine:12,} packets attributed by evaluating the policies of their time",
        f"{account.unattributed:12,} packets not attributed",
    ]
    for cause, left in account.left.items():
        flows = f"{len(left.flows):,} flow{'' if len(left.flows) == 1 else 's'}"
        lines += [f"{left.packets:12,}   {cause} ({flows})", f"{'':14} for instance {left.example}"]
    wait = "; they wait for the process that holds the store, which takes them in within seconds" * account.queued
    return "\n".join([*lines, f"{account.verdicts:12,} verdicts written{wait}"])


def as_data(account: Account) -> dict[str, Any]:
    """The account as plain data."""
    left = [
        {"cause": cause.value, "packets": each.packets, "flows": len(each.flows), "example": each.example}
        for cause, each in account.left.items()
    ]
    return {
        "packets": {"prefix": account.by_prefix, "engine": account.by_engine, "none": account.unattributed},
        "not_attributed": left,
        "verdicts": account.verdicts,
        "queued": account.queued,
        "left_out": list(account.problems),
    }


def opener(store: str, filters: Mapping[str, Any]) -> AbstractContextManager[Archive]:
    """A `policies.archive.Opener`."""
    from collector.attribution.archive import open_archive

    return open_archive(store, filters)


policies.context_settings["obj"] = opener
for _name in ASKING:
    filter_options(store_option(policies.commands[_name]))
for _command in (snapshot, attribute):
    policies.add_command(_command)
