"""What all commands of `denylog policies` share: files or a cluster, the `-o` option, and how a command ends.

Rule: standard output is data, standard error is narration. Exit codes: 0 ok, 1 findings, 2 bad usage or input, 3 the
cluster does not answer.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from policies.actions import Result
    from policies.cluster_source import LiveCluster

BAD_INPUT = 2
TRY_AGAIN = 3
NO_CLIENT = "a cluster needs the Kubernetes client: pip install 'denylog[cluster]'"

Command = Callable[..., None]

_FILES = "FILE|FOLDER|-..."
_CLUSTER = click.option("--cluster", is_flag=True, help="Read the cluster of your kubeconfig, beside any FILES.")
_WHICH = (
    click.option("--context", metavar="NAME", help="Context of the kubeconfig.  [default: the current one]"),
    click.option(
        "--kubeconfig", metavar="FILE", help="[default: $KUBECONFIG, ~/.kube/config, or the account of this pod]"
    ),
)


def cluster_options(command: Command) -> Command:
    """`--cluster`, `--context` and `--kubeconfig`: the command is given `cluster`, a `LiveCluster` or None."""

    @functools.wraps(command)
    def run(*args: Any, cluster: bool, context: str | None, kubeconfig: str | None, **given: Any) -> None:
        if not cluster and (context or kubeconfig):
            raise click.UsageError("--context and --kubeconfig go with --cluster")
        command(*args, cluster=live_cluster(context, kubeconfig) if cluster else None, **given)

    for option in (*reversed(_WHICH), _CLUSTER):
        run = option(run)
    return run


def live_cluster(context: str | None, kubeconfig: str | None) -> LiveCluster:
    """The cluster that these options name; a usage error where the client for it is not installed."""
    try:
        from policies.cluster_source import LiveCluster
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] in ("lightkube", "httpx2", "msgspec"):
            raise click.UsageError(NO_CLIENT) from error
        raise
    return LiveCluster(context, kubeconfig)


def sources(*, pods: bool, metavar: str = f"[{_FILES}]") -> Callable[[Command], Command]:
    """Files, folders, standard input and `--cluster`: the command is given `sources`, as `policies.load` takes them.

    `pods`: whether it asks about single pods and services, of which a cluster has thousands.
    """

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def run(*args: Any, sources: tuple[str, ...], cluster: LiveCluster | None, **given: Any) -> None:
            if not sources and not cluster:
                raise click.UsageError(f"Missing argument '{_FILES}', or --cluster")
            live = (replace(cluster, pods=pods),) if cluster else ()
            command(*args, sources=(*sources, *live), **given)

        return click.argument("sources", nargs=-1, metavar=metavar)(cluster_options(run))

    return decorate


SOURCES = sources(pods=True)
POLICY_SOURCES = sources(pods=False)


def output(*choices: str, default: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The `-o` option with these choices."""
    kind = click.Choice(choices)
    return click.option("-o", "--output", type=kind, default=default, show_default=True, help="Form of the output.")


def finish(run: Callable[[], Result]) -> None:
    """Run, print and exit; input that cannot be used is one sentence a problem on standard error and exit code 2."""
    from policies.errors import ClusterError, PolicyError

    try:
        result = run()
    except PolicyError as error:
        click.echo(str(error), err=True)
        sys.exit(TRY_AGAIN if isinstance(error, ClusterError) and error.retryable else BAD_INPUT)
    for note in result.notes:
        click.echo(note, err=True)
    click.echo(result.text, nl=False)
    sys.exit(result.exit)
