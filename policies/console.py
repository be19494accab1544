"""What all commands of `denylog policies` share: files or a cluster, the `-o` option, and how a command ends.

Rule: standard output is data, standard error is narration. Exit codes: 0 ok, 1 findings, 2 bad usage or input, 3 the
cluster does not answer.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from policies.actions import Result
    from policies.archive import Archive, Opener
    from policies.cluster_source import LiveCluster

NO_CLIENT = "a cluster needs the Kubernetes client: pip install 'denylog[cluster]'"

Command = Callable[..., None]

_FILES = "FILE|FOLDER|-..."
MISSING = f"Missing argument '{_FILES}', or --cluster"
_CLUSTER = click.option("--cluster", is_flag=True, help="Read the cluster of your kubeconfig, beside any FILES.")
_WHICH = (
    click.option("--context", metavar="NAME", help="Context of the kubeconfig.  [default: the current one]"),
    click.option(
        "--kubeconfig", metavar="FILE", help="[default: $KUBECONFIG, ~/.kube/config, or the account of this pod]"
    ),
)


def which_cluster(command: Command) -> Command:
    """`--context` and `--kubeconfig`."""
    for option in reversed(_WHICH):
        command = option(command)
    return command


def this_cluster(command: Command) -> Command:
    """The same options where nothing but a cluster can be meant: the command is given `cluster`, a `LiveCluster`."""

    @functools.wraps(command)
    def run(*args: Any, context: str | None, kubeconfig: str | None, **given: Any) -> None:
        given.pop("is_cluster")
        command(*args, cluster=live_cluster(context, kubeconfig), **given)

    flag = click.option(
        "--cluster", "is_cluster", is_flag=True, help="The cluster of your kubeconfig; may be left out."
    )
    return flag(which_cluster(run))


def cluster_options(command: Command) -> Command:
    """`--cluster`, `--context` and `--kubeconfig`: the command is given `cluster`, a `LiveCluster` or None."""

    @functools.wraps(command)
    def run(*args: Any, cluster: bool, context: str | None, kubeconfig: str | None, **given: Any) -> None:
        if not cluster and (context or kubeconfig):
            raise click.UsageError("--context and --kubeconfig go with --cluster")
        command(*args, cluster=live_cluster(context, kubeconfig) if cluster else None, **given)

    return _CLUSTER(which_cluster(run))


def live_cluster(context: str | None, kubeconfig: str | None) -> LiveCluster:
    """The cluster that these options name; a usage error where the client for it is not installed."""
    try:
        from policies.cluster_source import LiveCluster
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] in ("lightkube", "httpx2", "msgspec"):
            raise click.UsageError(NO_CLIENT) from error
        raise
    return LiveCluster(context, kubeconfig)


def sources(*, pods: bool, metavar: str = f"[{_FILES}]", needed: bool = True) -> Callable[[Command], Command]:
    """Files, folders, standard input and `--cluster`: the command is given `sources`, as `policies.load` takes them.

    `pods`: whether it asks about single pods and services, of which a cluster has thousands. Not `needed`: the command
    itself says when there have to be some.
    """

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def run(*args: Any, sources: tuple[str, ...], cluster: LiveCluster | None, **given: Any) -> None:
            if needed and not sources and not cluster:
                raise click.UsageError(MISSING)
            if sources.count("-") > 1:
                raise click.UsageError("standard input ('-') can be read only once; name a file for one of them")
            live = (replace(cluster, pods=pods),) if cluster else ()
            command(*args, sources=(*sources, *live), **given)

        return click.argument("sources", nargs=-1, metavar=metavar)(cluster_options(run))

    return decorate


SOURCES = sources(pods=True)
POLICY_SOURCES = sources(pods=False)
MAYBE_SOURCES = sources(pods=True, needed=False)


def output(*choices: str, default: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The `-o` option with these choices."""
    kind = click.Choice(choices)
    return click.option("-o", "--output", type=kind, default=default, show_default=True, help="Form of the output.")


def opened(
    store: str | None, chosen: Mapping[str, Any], *, asked: bool = False
) -> AbstractContextManager[Archive] | None:
    """The store, where it was named (`--store`, DENYLOG_STORE), or a filter chooses packets, or it is `asked` for.

    `--store` and the filters are given to the command by whoever puts an `Opener` into click's context; a usage error
    where it is asked for and nobody did.
    """
    context = click.get_current_context()
    named = context.get_parameter_source("store") in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
    if not (asked or named or any(chosen.values())):
        return None
    if context.obj is None or store is None:
        raise click.UsageError("there is no store here to take packets from")
    opener: Opener = context.obj
    return opener(store, chosen)


def unfiltered(chosen: Mapping[str, Any]) -> None:
    """A usage error where filters of stored packets are given beside flows that are named otherwise."""
    if any(chosen.values()):
        flags = ", ".join(f"--{name.replace('_', '-')}" for name, value in chosen.items() if value)
        raise click.UsageError(f"{flags}: filters choose stored packets; leave them out, or the flows given otherwise")


def finish(run: Callable[[], Result]) -> NoReturn:
    """Run, print and exit; input that cannot be used is one sentence a problem on standard error and exit code 2."""
    from policies.actions import Exit
    from policies.errors import ClusterError, PolicyError

    try:
        result = run()
    except PolicyError as error:
        click.echo(str(error), err=True)
        sys.exit(Exit.TRY_AGAIN if isinstance(error, ClusterError) and error.retryable else Exit.BAD_INPUT)
    for note in result.notes:
        click.echo(note, err=True)
    click.echo(result.text, nl=False)
    sys.exit(result.exit)
