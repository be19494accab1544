"""The `denylog policies` commands: names, options and help; what they do is in `policies.actions` and its neighbours.

Rule: nothing heavy is imported before a command runs, so that `--help` answers at once. The commands about Log policies
and verdicts are in `policies.log_commands`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from policies import cluster_commands, log_commands
from policies.console import POLICY_SOURCES, SOURCES, finish, output

if TYPE_CHECKING:
    from policies.load import Source


@click.group()
def policies() -> None:
    """Read, check, log and explain network policies, with or without a cluster.

    Every command takes files, folders (all .yaml, .yml and .json below them) or '-' for standard input: what you apply
    with kubectl or calicoctl, or what they print with '-o yaml'. Kubernetes and Calico policies may be mixed with the
    Pods, Namespaces and HostEndpoints that they select. With --cluster it reads all that from a live cluster.

    \b
    Start with what you have:
      kubectl get networkpolicies,pods,namespaces -A -o yaml > cluster.yaml
      denylog policies lint cluster.yaml        what does not do what it seems to
      denylog policies validate policy.yaml     would Calico accept it?
      denylog policies convert policy.yaml      what Calico makes of a Kubernetes policy

    \b
    Log what is denied, and nothing else:
      denylog policies generate cluster.yaml > log.yaml    Log policies, proved before they are printed
      denylog policies verify cluster.yaml log.yaml        the proof again, whenever something changed
      kubectl apply -f log.yaml                            or: calicoctl apply -f log.yaml

    \b
    The same against a live cluster (pip install 'denylog[cluster]'):
      denylog policies diff                          what would change
      denylog policies apply --ttl 24h               a dry run; --no-dry-run applies
      denylog policies prune --no-dry-run            delete those that expired or are no longer needed

    \b
    Understand a denied packet, and allow it:
      denylog policies explain --from web/client --to web/server:80/tcp cluster.yaml
      denylog policies who-can web/server:80 cluster.yaml
      denylog policies allow --from web/client --to web/server:80/tcp cluster.yaml

    \b
    Ask about the packets in the store, by the policies of their time:
      denylog policies snapshot cluster.yaml           keep the policies of now beside them
      denylog policies attribute --since 1d            which policies denied what
      denylog policies explain --packet last           why, rule by rule
      denylog policies what-if new.yaml --since 1d     what would these policies let through
      denylog policies allow --since 1h --to-port 80   the smallest policy that would

    Exit codes: 0 ok, 1 findings, 2 bad usage or input, 3 the cluster does not answer.
    """


@policies.command()
@POLICY_SOURCES
@output("yaml", "json", default="yaml")
@click.option(
    "--as-served",
    is_flag=True,
    help="Fill in policyTypes first, as the API server does: Egress where egress rules are written.",
)
def convert(sources: tuple[Source, ...], output: str, as_served: bool) -> None:
    """Kubernetes policies as the Calico policies that Calico makes of them.

    Same names, order, selectors and rules as Calico's own converter ('calicoctl convert' was removed in 3.32), from
    NetworkPolicy, ClusterNetworkPolicy, AdminNetworkPolicy and BaselineAdminNetworkPolicy. Calico policies are passed
    on. YAML is one document each, JSON the object itself, or a List where there are several. A rule that Calico cannot
    convert is left out, named on standard error, and the exit code is 1.

    \b
    Example:
      kubectl get networkpolicy access-nginx -o yaml | denylog policies convert -
    """
    from policies.actions import convert_sources

    finish(lambda: convert_sources(sources, output, served=as_served))


@policies.command()
@POLICY_SOURCES
@output("text", "json", default="text")
def validate(sources: tuple[Source, ...], output: str) -> None:
    """Whether Calico and the API server would accept the objects.

    Checks what calicoctl and the Calico API check: unknown or misspelt fields, names, selectors, ports and protocols,
    networks, combinations that exclude each other. Each error names file, line, column and field. JSON is
    {"valid": true, "errors": []}. Exit code 1 when something would be refused.

    \b
    Example:
      denylog policies validate policies/ && calicoctl apply -f policies/
    """
    from policies.actions import validate_sources

    finish(lambda: validate_sources(sources, output))


@policies.command()
@SOURCES
@output("text", "json", default="text")
def lint(sources: tuple[Source, ...], output: str) -> None:
    """What does not do what it seems to, and what it does instead.

    Finds what 'validate' finds, and what is valid but surprising: a label name in the wrong case, an ipBlock that
    cannot be read and so lets everyone through, a Log policy that turns on deny or is followed by an Allow, an allowing
    policy behind the Log policy, a policy that selects none of the given pods, restricted egress without DNS. The more
    objects you give (pods, namespaces), the more it can tell. Exit code 1 with findings.

    \b
    Example:
      kubectl get networkpolicies,pods,namespaces -A -o yaml | denylog policies lint -
    """
    from policies.actions import lint_sources

    finish(lambda: lint_sources(sources, output))


@policies.group()
def selector() -> None:
    """Try out Calico's selector language.

    \b
    A selector compares labels:    app == 'web', tier != "db", name starts with 'kube-'
    asks for sets and presence:    app in {'a', 'b'}, zone not in {'x'}, has(app), all()
    and joins terms:               has(app) && !(tier == 'db' || tier == 'cache')
    """


_DASHES: dict[str, Any] = {"ignore_unknown_options": True, "help_option_names": ["--help"]}
"""A selector may start with a dash, as a label may: it is no option."""


@selector.command(context_settings=_DASHES)
@click.argument("expression", metavar="SELECTOR")
def match(expression: str) -> None:
    """Which label maps a selector picks: a JSON list of maps on standard input, a JSON list of booleans out.

    \b
    Example:
      echo '[{"app": "web"}, {"app": "db"}, {}]' | denylog policies selector match "app != 'db'"
      [true, false, true]
    """
    from policies.actions import selector_match

    finish(lambda: selector_match(expression))


@selector.command(context_settings=_DASHES)
@click.argument("expression", metavar="SELECTOR")
def canonical(expression: str) -> None:
    """The one spelling that Calico reduces a selector to; equal selectors print the same line.

    \b
    Example:
      denylog policies selector canonical "tier in {'b', 'a', 'b'} && ! has(app)"
      (tier in {"a", "b"} && !has(app))
    """
    from policies.actions import selector_canonical

    finish(lambda: selector_canonical(expression))


for _command in (*log_commands.COMMANDS, *cluster_commands.COMMANDS):
    policies.add_command(_command)
