"""The command `inventory watch`: the inventory of a store, kept in step with a live cluster.

Rule: standard error tells what was done; nothing heavy is imported before the command runs. The group with all its
commands is `inventory` of this module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from analytics.inventory_commands import inventory
from analytics.options import store_option
from collector import logs
from collector.commands import stopping
from policies.console import live_cluster, which_cluster

if TYPE_CHECKING:
    from collector.cluster import Tally


@inventory.command()
@store_option
@which_cluster
@logs.log_options
@click.option("--once", is_flag=True, help="Store what there is now, then stop.")
@click.option("--spread", type=click.FloatRange(0, 3600), metavar="SECONDS", default=0, show_default=True,
              help="Begin at a random moment within this time, where each node of a cluster runs one.")  # fmt: skip
@click.option("--interface-prefix", metavar="TEXT", default="cali", show_default=True,
              help="What the interfaces of pods begin with (Felix' InterfacePrefix).")  # fmt: skip
def watch(
    store: str,
    context: str | None,
    kubeconfig: str | None,
    once: bool,
    spread: float,
    interface_prefix: str,
    log_format: str,
    log_level: str,
) -> None:
    """Keep the inventory in step with a live cluster: pods, nodes, services, namespaces, policies and their like.

    Each version of an object is kept with the time from which it held. It only reads the cluster (get, list, watch);
    one process for each store is enough. Where a collector holds the store, it takes the changes in within seconds.
    Stop it with Ctrl-C or SIGTERM.

    \b
    denylog inventory watch --store /var/lib/denylog
    denylog inventory watch --context production --once
    """
    logs.configure(log_format, log_level)
    live = live_cluster(context, kubeconfig)
    with stopping() as (stop, _):
        from collector.cluster import watch as follow

        _tell(follow(live, store, stop, once=once, spread_s=spread, interface_prefix=interface_prefix, ready=_ready))


def _ready(resources: int) -> None:
    logs.tell(f"watching {resources} kinds of objects")


def _tell(tally: Tally) -> None:
    queued = f", {tally.queued:,} of them wait for the process that writes to the store" if tally.queued else ""
    logs.tell(f"{tally.rows:,} versions of objects in {tally.deposits:,} deposits{queued}")
