"""The commands of the inventory: `inventory import` stores dumps of the cluster, `inventory show` what held when.

Rule: standard error is narration; an object that is left out is named there and makes the exit code 1.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any

import click

from analytics.filters import moment
from analytics.options import FORMATS, Exit, local_zone, output_options, store_option

if TYPE_CHECKING:
    from analytics.additions import Additions, Deposited
    from analytics.inventory import Examined
    from analytics.reader import Reader, Rows


class Time(click.ParamType[datetime]):
    """A time in ISO 8601, or so long ago; without a zone it is in that of this machine."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """The time that a text names."""
        if isinstance(value, datetime):
            return value
        try:
            return moment(value, datetime.now(UTC), local_zone())
        except ValueError:
            self.fail(f"{value!r} is no time; expected 2026-11-22T10:00, or a time ago: 5m, 1h30m, 7d", param, ctx)


@click.group()
def inventory() -> None:
    """Who has which address, and had it when: pods, nodes, services, policies.

    \b
    kubectl get pods,nodes,services,namespaces,networkpolicies -A -o json | denylog inventory import -
    denylog inventory show --ip 10.244.1.7
    """


@inventory.command("import")
@click.argument("files", nargs=-1, required=True, metavar="FILE...|-")
@store_option
@click.option(
    "--at", type=Time(), metavar="TIME", help="When the dump was taken (default: when FILE was last written)."
)
@click.option("--valid-from", type=Time(), metavar="TIME", help="Since when all of it held, if not as it says.")
@click.option("--partial", is_flag=True, help="The dump lacks objects that are there: none of them is taken for gone.")
@click.option("--interface-prefix", metavar="TEXT", default="cali", show_default=True,
              help="What the interfaces of pods begin with (Felix' InterfacePrefix).")  # fmt: skip
def import_(files: tuple[str, ...], store: str, partial: bool, **given: Any) -> None:
    """Store what dumps of the cluster (JSON or YAML) say; what is known already is not stored again.

    A list from several namespaces is taken for complete: what the store knows and the list lacks is gone. So is one
    from a single namespace, for that namespace. Say --partial where a list was narrowed (by a label, by names).
    ReplicaSets and Jobs in a dump say to which Deployment or CronJob a pod belongs; else its name does.

    \b
    kubectl get pods,nodes,services,namespaces -A -o json > dump.json
    denylog inventory import dump.json
    """
    from analytics.inbox import deposit

    found = [_examined(file, partial=partial, **given) for file in files]
    for each in found:
        stored = deposit(store, each.additions)
        _tell(each, stored)
    if any(each.problems for each in found):
        raise SystemExit(Exit.FINDINGS)


def _examined(
    file: str, *, at: datetime | None, valid_from: datetime | None, partial: bool, interface_prefix: str
) -> Examined:
    from analytics.dumps import read
    from analytics.inventory import examine, listings

    documents = read(file)
    seen = at or (datetime.now(UTC) if file == "-" else datetime.fromtimestamp(os.stat(file).st_mtime, UTC))
    found = examine(documents, at=seen, valid_from=valid_from, interface_prefix=interface_prefix)
    lists = () if partial else tuple(each for document in documents for each in listings(document, seen))
    return replace(found, additions=replace(found.additions, listings=lists))


def _tell(found: Examined, stored: Deposited) -> None:
    for problem in found.problems:
        click.echo(f"denylog: {problem}", err=True)
    if found.passed:
        names = ", ".join(f"{count} {kind}" for kind, count in sorted(found.passed.items()))
        click.echo(f"passed over, an inventory does not hold them: {names}", err=True)
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(_kinds(found.additions).items())) or "no objects"
    what = "wait for the process that writes to the store" if stored.queued else "new versions"
    click.echo(f"{kinds}; {stored.rows:,} {what}", err=True)


def _kinds(additions: Additions) -> Counter[str]:
    return Counter(row.kind for row in additions.objects if not row.gone)


_POLICIES = "%NetworkPolicy"
# What people call the kinds -> the pattern of `kind`.
_NAMES = {
    "po": "Pod", "pod": "Pod", "no": "Node", "node": "Node", "svc": "Service", "service": "Service",
    "ns": "Namespace", "namespace": "Namespace", "sa": "ServiceAccount", "serviceaccount": "ServiceAccount",
    "hep": "HostEndpoint", "hostendpoint": "HostEndpoint", "networkset": "%NetworkSet",
    "globalnetworkset": "GlobalNetworkSet", "ippool": "IPPool", "tier": "Tier", "policy": _POLICIES,
    "netpol": "NetworkPolicy", "networkpolicy": "NetworkPolicy", "globalnetworkpolicy": "GlobalNetworkPolicy",
    "gnp": "GlobalNetworkPolicy", "clusternetworkpolicy": "ClusterNetworkPolicy",
}  # fmt: skip


def _pattern(text: str) -> str:
    word = text.lower()
    singular = word[:-3] + "y" if word.endswith("ies") else word.removesuffix("s")
    found = _NAMES.get(word) or _NAMES.get(singular)
    if found is None:
        raise click.UsageError(f"{text!r} is no kind of the inventory; one of {', '.join(_NAMES)}")
    return found


@inventory.command()
@click.argument("kinds", nargs=-1, metavar="[pods|nodes|services|policies|…]...")
@store_option
@click.option("--at", type=Time(), metavar="TIME", help="What held at this time (default: now).")
@click.option("--all", "ever", is_flag=True, help="Every version that ever held.")
@click.option("-n", "--namespace", metavar="NAME", help="Only objects of this namespace.")
@click.option("--ip", metavar="ADDRESS", help="Who held this address, from when until when.")
@output_options(*FORMATS)
def show(kinds: tuple[str, ...], store: str, ip: str | None, output: str, utc: bool, **given: Any) -> None:
    """What the inventory knows: the objects that held at a time, or all who ever held an address.

    \b
    denylog inventory show pods -n shop --at 2026-11-22T03:00
    denylog inventory show --ip 10.244.1.7
    """
    from analytics.commands import show as write
    from analytics.reader import Reader

    patterns = [_pattern(kind) for kind in kinds]
    zone: tzinfo = UTC if utc else local_zone()
    with Reader(store, zone=getattr(zone, "key", "UTC")) as reader:
        rows = _holders(reader, ip) if ip else _objects(reader, patterns, output == "table", **given)
        write(rows, output, zone)


def _holders(reader: Reader, ip: str) -> Rows:
    from analytics.inventory import holders

    try:
        return holders(reader, ip)
    except ValueError:
        raise click.UsageError(f"--ip {ip!r}: expected an address: 10.0.0.7, fd00::7") from None


_SHOWN = "kind, namespace, name, node, array_to_string(addresses, ' ') AS addresses, workload, valid_from, valid_until"
_OBJECTS = """
SELECT {columns} FROM object_intervals
WHERE ($namespace IS NULL OR namespace = $namespace)
    AND ($ever OR (valid_from <= $at AND (valid_until IS NULL OR $at < valid_until)))
    AND (len($patterns) = 0 OR len(list_filter($patterns, lambda pattern: kind LIKE pattern)) > 0)
ORDER BY kind, namespace NULLS FIRST, name, valid_from
"""


def _objects(
    reader: Reader, patterns: Iterable[str], narrow: bool, *, at: datetime | None, ever: bool, namespace: str | None
) -> Rows:
    parameters = {"namespace": namespace, "ever": ever, "at": at or datetime.now(UTC), "patterns": list(patterns)}
    return reader.rows(_OBJECTS.format(columns=_SHOWN if narrow else "*"), parameters)
