"""docs/policies.md is executed: its files are written, its commands run, and what it says they print is compared."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from cli import cli
from collector.attribution.commands import policies
from tests.policies.apiserver import ApiServer

GUIDE = Path(__file__).parents[2] / "docs" / "policies.md"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# (\S+\.(?:yaml|jsonl|log))\n")
_IDENTITY = re.compile(r"\b[0-9a-f]{32}\b")


def _commands(block: str) -> Iterator[tuple[str, str]]:
    """Each command of a console block with the output that follows it."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, output


def _run(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a command shows on a terminal; `> file` is honoured. The identity of a log file is never the same."""
    line, _, target = command.partition(" > ")
    if line.startswith("cat "):
        return (folder / line.removeprefix("cat ")).read_text()
    words = shlex.split(line)
    assert words[0] == "denylog", command
    monkeypatch.chdir(folder)
    result = CliRunner().invoke(cli, words[1:])
    if not target:
        return _IDENTITY.sub("0123456789abcdef0123456789abcdef", result.output)
    (folder / target).write_text(result.stdout)
    return result.stderr


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """A cluster to which the guide's first policy was applied (a stand-in, see there)."""
    with ApiServer() as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "kubeconfig")))
        block = next(text for _, text in _BLOCK.findall(GUIDE.read_text()) if text.startswith("# access-nginx.yaml"))
        policy = yaml.safe_load(block)
        api.put(policy | {"metadata": policy["metadata"] | {"namespace": "default"}})
        yield api


@pytest.mark.usefixtures("cluster")
def test_the_guide_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file and command of the guide, in order; commands in `sh` blocks are only read."""
    ran = 0
    for kind, text in _BLOCK.findall(GUIDE.read_text()):
        if kind in ("yaml", "json", "text") and (named := _FILE.match(text)):
            (tmp_path / named[1]).write_text(text.removeprefix(named[0]))
        if kind == "console":
            for command, expected in _commands(text):
                assert _run(command, tmp_path, monkeypatch) == expected, command
                ran += 1
    assert ran >= 8


def test_the_guide_names_every_command() -> None:
    """No command of the group is missing in the guide."""
    text = GUIDE.read_text()
    assert [name for name in policies.commands if f"policies {name}" not in text] == []
