"""The command `findings`: what denied traffic amounts to, for a person, a cron job, or a program that alerts.

Rule: exit code 1 says that there are findings; what was asked for is on standard output, all else on standard error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any

import click

from analytics.commands import asking, show
from analytics.filters import FilterError, moment
from analytics.findings_rules import RULE, SEVERITIES, Settings, rules_markdown, settings
from analytics.options import FORMATS, Exit, filter_options, local_zone, output_options, store_option

if TYPE_CHECKING:
    from analytics.findings import Finding
    from analytics.reader import Reader, Rows

_SHORT = ("severity", "rule", "first", "last", "attempts", "title")


@click.command()
@store_option
@click.option("--rule", "chosen", type=click.Choice(list(RULE)), multiple=True, help="Only findings of this rule.")
@click.option("--severity", type=click.Choice(SEVERITIES), default="low", help="Only findings of this and above.")
@click.option("--set", "assignments", metavar="RULE.NAME=VALUE", multiple=True, help="Change a threshold.")
@click.option("--mute", "mutes", metavar="[RULE:]SOURCE", multiple=True,
              help="Pass over a source: a CIDR, namespace=NAME or workload=NAMESPACE/NAME.")  # fmt: skip
@click.option("--rules", "file", type=click.File(), metavar="FILE", help="Thresholds and mutes in TOML.")
@click.option("--rate-limit", metavar="N/UNIT", default="", help="Calico's logActionRateLimit, where it is set.")
@click.option("--new", "only_new", is_flag=True, help="Only findings that are not recorded yet.")
@click.option("--record", "recording", is_flag=True, help="Record what is new in the store.")
@click.option("--thresholds", is_flag=True, help="Print the table of rules and thresholds, in Markdown, and end.")
@output_options(*FORMATS)
@filter_options
def findings(
    store: str, chosen: tuple[str, ...], severity: str, assignments: tuple[str, ...], mutes: tuple[str, ...],
    file: Any, rate_limit: str, only_new: bool, recording: bool, thresholds: bool, output: str, utc: bool,
    **filters: Any,
) -> None:  # fmt: skip
    """What the denied packets amount to: scans, sweeps, beacons, wrong policies. Exit code 1 where there are findings.

    --since and --until choose by the time of a finding's packets; earlier days are still compared with.

    \b
    denylog findings --since 24h
    denylog findings --new --record -o json || notify     for a cron job
    denylog findings --set vertical_scan.ports=20 --mute 192.0.2.9 --mute spike:namespace=load-test
    """
    if thresholds:
        click.echo(rules_markdown(), nl=False)
        return
    wanted = _settings(assignments, mutes, file, rate_limit)
    since, until = (_time(name, filters.pop(name), utc) for name in ("since", "until"))
    with asking(store, filters, utc=utc) as (reader, condition, zone):
        from analytics.findings import at_least
        from analytics.findings import findings as ask

        found = at_least(ask(reader, condition, wanted, since=since, until=until, rules=chosen or RULE), severity)
        found = _compared(reader, found, wanted, only_new, recording, zone)
        show(_rows(found, output), output, zone)
    _narrate(found, output)
    if found:
        raise SystemExit(Exit.FINDINGS)


def _settings(assignments: Sequence[str], mutes: Sequence[str], file: Any, rate_limit: str) -> Settings:
    if file is None:
        return settings(assignments, mutes, rate_limit=rate_limit)
    try:
        return settings(assignments, mutes, file.name, file.read(), rate_limit)
    except UnicodeDecodeError:
        raise click.UsageError(f"{file.name} is not in UTF-8") from None


def _time(flag: str, text: str | None, utc: bool) -> datetime | None:
    if text is None:
        return None
    try:
        return moment(text, datetime.now(UTC), UTC if utc else local_zone())
    except ValueError:
        raise FilterError(flag, text, "a time ('2026-11-22T10:00') or a time ago ('5m', '1h30m', '7d')") from None


def _compared(
    reader: Reader, found: list[Finding], wanted: Settings, only_new: bool, recording: bool, zone: tzinfo
) -> list[Finding]:
    """The findings to show; those to record are recorded."""
    from analytics.findings_store import compare, record

    if not (found and (only_new or recording)):
        return found
    compared = compare(reader, found, wanted)
    if recording and compared.recorded:
        queued = record(str(reader.store.folder), compared.recorded, zone).queued
        later = ", once the process that holds the store takes them in" if queued else ""
        click.echo(f"{len(compared.recorded)} recorded{later}", err=True)
    return compared.new if only_new else compared.all


def _rows(found: Sequence[Finding], output: str) -> Rows:
    from analytics.reader import Rows

    records = [finding.record() for finding in found]
    names = _SHORT if output == "table" else tuple(_TYPES)
    rows = [tuple(_shown(record, name, output) for name in names) for record in records]
    return Rows(names, tuple(_TYPES[name] for name in names), rows)


def _shown(record: Mapping[str, Any], name: str, output: str) -> Any:
    """In a table a count that is a lower bound says so."""
    if output == "table" and name == "attempts":
        return f"{'≥ ' if record['lower_bound'] else ''}{record['attempts']:,}"
    return record[name]


# The columns of a finding, in the order in which they are printed, with their types.
_TYPES = {
    **dict.fromkeys(("id", "rule", "severity", "title"), "VARCHAR"),
    "subject": "STRUCT",
    "about": "VARCHAR",
    **dict.fromkeys(("first", "last"), "TIMESTAMP WITH TIME ZONE"),
    **dict.fromkeys(("packets", "attempts"), "BIGINT"),
    "targets": "VARCHAR[]",
    "target_count": "BIGINT",
    "protocols": "VARCHAR[]",
    "ports": "VARCHAR[]",
    "port_count": "BIGINT",
    "nodes": "VARCHAR[]",
    "measure": "DOUBLE",
    **dict.fromkeys(("technique", "lower_bound", "evidence"), "VARCHAR"),
}


def _narrate(found: Sequence[Finding], output: str) -> None:
    if output != "table":
        return
    if not found:
        click.echo("no findings", err=True)
    for reason in sorted({finding.lower_bound for finding in found if finding.lower_bound}):
        click.echo(f"counts with ≥ are lower bounds: {reason}", err=True)
    if found:
        click.echo("-o json adds the SQL that shows each finding", err=True)
