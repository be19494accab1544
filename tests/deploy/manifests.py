"""The manifests of `deploy/` as a cluster would get them: built by kubectl's kustomize, and what is in them.

Rule: nothing is rendered by hand; what the tests look at is what `kubectl apply -k` would send.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, cast

import click
import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"
BASES = ("daemonset", "daemonset-journal", "dashboard", "sidecar")
_SYSLOG = Path(__file__).parent / "syslog"
# kubectl 1.20, which Debian 12 has, builds with kustomize 2.0.3: it knows neither components nor overlays of folders.
_TOO_OLD = ("cannot unmarshal object into Go struct field Kustomization", 'unknown field "components"')

Object = dict[str, Any]


@cache
def build(name: str) -> tuple[Object, ...]:
    """The objects of one base; the sidecar comes with the workload that the tests give it. Skips without kubectl."""
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl (Debian: kubernetes-client)")
    folder = _SYSLOG if name == "sidecar" else DEPLOY / name
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    if any(sign in done.stderr for sign in _TOO_OLD):
        pytest.skip("this kubectl is older than 1.21")
    assert done.returncode == 0, done.stderr
    return tuple(entry for entry in yaml.safe_load_all(done.stdout) if entry)


def everything() -> list[Object]:
    """The objects of all bases that this kubectl can build."""
    found: list[Object] = []
    for name in BASES:
        try:
            found += build(name)
        except pytest.skip.Exception:
            if shutil.which("kubectl") is None:
                raise
    return found


def only(objects: tuple[Object, ...], kind: str) -> Object:
    """The one object of a kind."""
    (found,) = (entry for entry in objects if entry["kind"] == kind)
    return found


def pods(objects: list[Object] | tuple[Object, ...]) -> Iterator[tuple[str, Object]]:
    """The pod templates, with the names of their workloads."""
    for entry in objects:
        if "template" in entry.get("spec", {}):
            yield f"{entry['kind']}/{entry['metadata']['name']}", entry["spec"]["template"]["spec"]


def containers(pod: Object, *, ours: bool = True) -> list[Object]:
    """The containers of a pod, the first ones too; `ours`: only those that run denylog's image."""
    found = [*pod.get("initContainers", ()), *pod["containers"]]
    return [entry for entry in found if not ours or entry["image"].startswith("denylog:")]


def parsed(args: list[str]) -> None:
    """Let the real command line read the arguments, without running anything; raises click.ClickException."""
    from cli import cli

    context, command, rest = click.Context(cli), cast(click.Command, cli), list(args)
    while isinstance(command, click.Group):
        name, *rest = rest
        found = command.get_command(context, name)
        if found is None:
            raise click.UsageError(f"there is no command {name!r}")
        command = found
    command.make_context(name, rest, parent=context)
