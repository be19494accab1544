"""The `denylog policies` commands about Log policies and verdicts; `policies.commands` puts them into its group.

Rule: nothing heavy is imported before a command runs; what they do is in `policies.log_actions`.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import click

from policies.console import (
    MAYBE_SOURCES,
    MISSING,
    POLICY_SOURCES,
    SOURCES,
    Command,
    cluster_options,
    finish,
    opened,
    output,
    sources,
    unfiltered,
)

if TYPE_CHECKING:
    from policies.cluster_source import LiveCluster
    from policies.load import Source

_FLOWS = click.option(
    "--flows",
    metavar="FILE|-",
    help="Flows as JSON lines: source_ip, destination_ip, protocol, destination_port; or from and to.  "
    "[default: the packets of --store that the filters choose, else -]",
)


def _order(context: click.Context, parameter: click.Parameter, value: str) -> float | None:
    if value == "auto":
        return None
    try:
        order = float(value)
    except ValueError:
        order = math.nan
    if not math.isfinite(order):
        raise click.BadParameter(f"{value!r} is neither a number nor 'auto'")
    return order


def _name(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?", value):
        raise click.BadParameter(f"{value!r} is not a name of at most 50 lower-case letters, digits and inner hyphens")
    return value


def generating(command: Command) -> Command:
    """`--per-policy`, `--name` and `--order`: how Log policies are made."""
    for option in (
        click.option(
            "--order", default="3000", show_default=True, callback=_order, metavar="NUMBER|auto", help="Its order."
        ),
        click.option(
            "--name",
            callback=_name,
            help="Name of the Log policy, or start of the names.  [default: log-denied-packets]",
        ),
        click.option(
            "--per-policy", is_flag=True, help="One Log policy for each policy, so that a line names its policy."
        ),
    ):
        command = option(command)
    return command


@click.command()
@POLICY_SOURCES
@output("yaml", "json", default="yaml")
@generating
@click.option(
    "--dataplane",
    type=click.Choice(["iptables", "nftables", "ebpf"]),
    help="Calico's data plane in the cluster.  [default: what --cluster says, else iptables]",
)
def generate(
    sources: tuple[Source, ...],
    output: str,
    per_policy: bool,
    name: str | None,
    order: float | None,
    dataplane: str | None,
) -> None:
    """Log policies that make the kernel write exactly the packets that these policies deny.

    Give it ALL policies of the cluster: the proof is about what it sees. It is proved that no verdict changes and that
    a packet is logged if and only if a policy denies it; where that cannot be, nothing is printed, the reason is given
    and the exit code is 1. Standard error has a table of what each Log policy is for, and the proof.

    By default the policies of one namespace share one Log policy for each direction, so a denied packet makes one line.
    With --per-policy each gets its own, with a short name that Calico 3.32 can print in the line; a pod under several
    policies then makes several lines. A policy with Deny rules gets a Log policy just before it. An order of 'auto'
    comes after every policy that allows.

    \b
    Example:
      kubectl get networkpolicies -A -o yaml | denylog policies generate - > log.yaml
      kubectl apply -f log.yaml
      denylog policies generate --cluster > log.yaml
    """
    from policies.generate import Options
    from policies.log_actions import generate_sources

    finish(lambda: generate_sources(sources, output, Options(name, order, per_policy), dataplane))


@click.command()
@sources(pods=False, metavar="[SOURCES]... GENERATED")
def verify(sources: tuple[Source, ...]) -> None:
    """Prove that GENERATED, applied beside SOURCES, only logs what SOURCES deny.

    The proof is over every endpoint, peer, protocol and port that the policies can tell apart, not over samples. Exit
    code 0: proved. 1: not so, with a packet for which it fails. 2: the input cannot be read.

    \b
    Example:
      denylog policies verify cluster.yaml log.yaml
      denylog policies verify --cluster log.yaml
    """
    from policies.log_actions import verify_sources

    files = [source for source in sources if isinstance(source, str)]
    if not files or len(sources) < 2:
        raise click.UsageError("Missing argument 'GENERATED': name the policies, then the Log policies made for them")
    *given, generated = files
    live = [source for source in sources if not isinstance(source, str)]
    finish(lambda: verify_sources([*given, *live], generated))


@click.command()
@MAYBE_SOURCES
@click.option("--from", "source", metavar="PODorIP", help="Who sends: namespace/pod, pod or address.")
@click.option("--to", "target", metavar="PODorIP:PORT/PROTO", help="Where to; for ICMP POD/icmp.")
@click.option("--packet", metavar="WHICH", help="A stored packet: 'last', or SOURCE_FILE:SOURCE_OFFSET.")
@output("text", "json", "dot", default="text")
def explain(
    sources: tuple[Source, ...],
    source: str | None,
    target: str | None,
    packet: str | None,
    output: str,
    store: str | None = None,
    **chosen: Any,
) -> None:
    """Why a flow is allowed or denied: every tier, policy and rule that was looked at.

    Both ends are walked as Calico does, egress before ingress. For each rule that does not match, the first field that
    fails is named. The files have to hold the pods (and namespaces) that are named, besides the policies.

    With --packet or filters a stored packet is explained (the newest that the filters choose), by the pods and policies
    that the store has of its time, or by the policies of FILES. It is judged at the places that its node saw: egress of
    the sender where it came in by a pod's interface, ingress of the receiver where it would have left by one.

    \b
    Example:
      kubectl get networkpolicies,pods,namespaces -A -o yaml > cluster.yaml
      denylog policies explain --from web/client --to web/server:80/tcp cluster.yaml
      denylog policies explain --from web/client --to web/server:80/tcp --cluster
      denylog policies explain --from 192.0.2.7 --to '[2001:db8::1]:53/udp' cluster.yaml -o dot | dot -Tsvg > why.svg
      denylog policies explain --packet last --to-port 5432
    """
    from policies.log_actions import explain_sources
    from policies.stored import explain_packet

    if source is not None and target is not None and packet is None:
        unfiltered(chosen)
        if not sources:
            raise click.UsageError(MISSING)
        finish(lambda: explain_sources(sources, source, target, output))
    archive = opened(store, chosen, asked=packet is not None)
    if archive is None or source is not None or target is not None:
        raise click.UsageError("name a flow with --from and --to, or a stored packet with --packet")
    with archive as held:
        finish(lambda: explain_packet(sources, packet or "last", held, output))


@click.command("who-can")
@click.argument("target", metavar="PODorSERVICE:PORT[/PROTO]")
@SOURCES
@output("text", "json", default="text")
def who_can(target: str, sources: tuple[Source, ...], output: str) -> None:
    """Who can reach a port: every pod, and every kind of outside address that the policies tell apart.

    A Service stands for its pods, each at the port that the Service sends to.

    \b
    Example:
      denylog policies who-can web/server:80 cluster.yaml
    """
    from policies.log_actions import who_can_sources

    finish(lambda: who_can_sources(sources, target, output))


@click.command("what-if")
@SOURCES
@click.option("--current", multiple=True, metavar="FILE", help="The policies as they are, with the pods.")
@_FLOWS
@output("text", "json", default="text")
def what_if(
    sources: tuple[Source, ...],
    current: tuple[str, ...],
    flows: str | None,
    output: str,
    store: str | None = None,
    **chosen: Any,
) -> None:
    """What a changed set of policies would do to flows that were denied.

    FILES are the policies as they would be, all of them. Says which flows they open, which stay denied and by what, and
    what else they open or close at the same ports between the pods that are known ("beside"). With --cluster the
    policies as they are come from there, and FILES are only what would be applied over them; so also with --store,
    whose denied packets are the flows (as many as the filters choose), unless --current or --cluster say what there is.

    \b
    Example:
      denylog policies what-if new.yaml --since 1h
      denylog policies what-if new.yaml --current cluster.yaml --flows denied.jsonl
      denylog policies what-if change.yaml --cluster --flows denied.jsonl
    """
    from policies.log_actions import what_if_sources
    from policies.stored import what_if_stored

    files = [source for source in sources if isinstance(source, str)]
    live = [source for source in sources if not isinstance(source, str)]
    if flows is not None:
        unfiltered(chosen)
    archive = opened(store, chosen) if flows is None else None
    if not files or not (current or live or archive):
        raise click.UsageError("name the changed policies, and the present ones with --current FILE or --cluster")
    if [*files, *current].count("-") > 1:
        raise click.UsageError("standard input ('-') can be read only once; name a file for one of them")
    if archive is None:
        finish(lambda: what_if_sources(files, [*current, *live], flows or "-", output, over=bool(live)))
    with archive as held:
        finish(lambda: what_if_stored(files, [*current, *live], held, output, over=bool(live) or not current))


@click.command()
@MAYBE_SOURCES
@click.option("--from", "source", metavar="PODorIP", help="Who sends, for a single flow.")
@click.option("--to", "target", metavar="PODorIP:PORT/PROTO", help="Where to, for a single flow.")
@_FLOWS
@click.option("--calico", is_flag=True, help="Write Calico policies: they also allow ICMP and what a Deny rule drops.")
@output("yaml", "json", default="yaml")
def allow(
    sources: tuple[Source, ...],
    source: str | None,
    target: str | None,
    flows: str | None,
    calico: bool,
    output: str,
    store: str | None = None,
    **chosen: Any,
) -> None:
    """The smallest policy that would allow denied flows, checked before it is printed.

    Pods are named by their workload's labels, in their namespace; only what is no pod is named by address. Standard
    error lists what the policy changes: the flows, and flows of other pods that carry the same labels. A flow that
    cannot be allowed this way is refused with the reason, and the exit code is 1. With --store or filters the flows are
    the denied packets that the filters choose, and pods and policies are those that the store knows, unless FILES hold
    policies.

    \b
    Example:
      denylog policies allow --since 1h --to-port 5432 > allow.yaml
      denylog policies allow --from web/client --to web/server:80/tcp cluster.yaml
      denylog policies allow --flows denied.jsonl cluster.yaml > allow.yaml
    """
    from policies.log_actions import allow_sources
    from policies.stored import allow_stored

    if (source is None) != (target is None):
        raise click.UsageError("--from and --to go together")
    ends = (source, target) if source is not None and target is not None else None
    given = ends is not None or flows is not None
    if given:
        unfiltered(chosen)
    archive = None if given else opened(store, chosen)
    if archive:
        with archive as held:
            finish(lambda: allow_stored(sources, held, calico=calico, output=output))
    if not sources:
        raise click.UsageError(MISSING)
    finish(lambda: allow_sources(sources, ends, flows or "-", calico=calico, output=output))


@click.command()
@click.option("--calico", "version", metavar="RELEASE", help="Calico's release, such as 3.31.4.")
@cluster_options
@click.option("--rate-limit", "rate", metavar="N/UNIT", help="Most lines for each rule and node, such as 100/minute.")
def felix(version: str | None, rate: str | None, cluster: LiveCluster | None) -> None:
    """The FelixConfiguration patch that names the policy in each line, where the release can.

    \b
    Example:
      kubectl patch felixconfiguration default --type merge -p "$(denylog policies felix --calico 3.32.1)"
      kubectl patch felixconfiguration default --type merge -p "$(denylog policies felix --cluster)"
    """
    from policies.log_actions import felix_patch

    if (version is None) == (cluster is None):
        raise click.UsageError("name Calico's release with --calico, or ask the cluster with --cluster")
    finish(lambda: felix_patch(version, rate, cluster))


COMMANDS: tuple[click.Command, ...] = (generate, verify, explain, who_can, what_if, allow, felix)
"""The commands, in the order in which one meets them."""
