"""The command as a person meets it: real processes, their output, what they say and their exit codes.

Rule: each test runs `denylog` on `samples/` or on what a caller can get wrong; none looks inside.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import cli
from analytics import commands, options, output, queries

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "samples" / "syslog"
EARLIER = ROOT / "samples" / "syslog.1.gz"
READ = "5,286 lines: 4,420 packets stored, 865 not ours, 1 rejected\n"
READ_BOTH = "10,261 lines: 5,075 packets stored, 5,185 not ours, 1 rejected\n"
README = (ROOT / "README.md").read_text()
DENYLOG = (sys.executable, str(ROOT / "cli.py"))
HEAVY = (
    "duckdb",
    "polars",
    "streamlit",
    "pandas",
    "pyparsing",
    "yaml",
    "lightkube",
    "parser",
    "policies",
    "dashboards",
)


def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """A run of the command in UTC, with further environment variables."""
    environment = {**os.environ, "TZ": "UTC", **more}
    return subprocess.run(
        [*DENYLOG, *arguments], capture_output=True, text=True, env=environment, timeout=60, check=False, cwd=ROOT
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store that holds the sample logs."""
    folder = str(tmp_path_factory.mktemp("cli") / "store")
    found = run("ingest", "--store", folder, str(EARLIER), str(SAMPLE))
    assert (found.returncode, found.stderr) == (0, READ_BOTH)
    return folder


def walk(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """A command and all those under it."""
    yield name, command
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for below in command.list_commands(ctx):
            child = command.get_command(ctx, below)
            assert child is not None
            yield from walk(child, f"{name} {below}")


@pytest.mark.parametrize(
    "name", [name for name, found in walk(cli.cli, "denylog") if not isinstance(found, click.Group)]
)
def test_help_has_an_example(name: str) -> None:
    """The help of every command shows a line that can be typed."""
    found = CliRunner().invoke(cli.cli, [*name.split()[1:], "--help"])
    assert found.exit_code == 0
    assert re.search(r"^(?!Usage).*\bdenylog \w+", found.output, re.MULTILINE)


def test_import_is_light() -> None:
    """The list of commands loads nothing heavy and no command, so that it answers at once."""
    assert loaded("--help") & {*HEAVY, "collector.commands", "analytics.commands"} == set()


def test_a_command_loads_no_other() -> None:
    """What runs for months, and what is asked often, carries no other command's modules."""
    assert loaded("collect", "--help") & {*HEAVY, "analytics.commands", "collector.doctor_commands"} == {"parser"}
    assert loaded("top", "--help") & {*HEAVY, "collector.commands", "analytics.findings_rules"} == set()


def loaded(*arguments: str) -> set[str]:
    """The modules that a run of the command has loaded by its end."""
    code = (
        "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        f"sys.argv[1:] = {arguments!r}\nimport cli; cli.main()"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return set(found.stderr.split())


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_lines_of_the_help_are_the_commands_own(name: str) -> None:
    """The list of commands says of each what its own help begins with."""
    command = cli.cli.get_command(click.Context(cli.cli), name)
    assert command is not None
    assert command.name == name
    assert click.Command(name, help=cli.COMMANDS[name][1]).get_short_help_str(999) == command.get_short_help_str(999)


def test_a_misspelt_command_is_answered_with_the_nearest() -> None:
    """Commands that were not loaded are proposed, too."""
    found = run("colect", "/var/log/syslog")
    assert (found.returncode, found.stdout) == (2, "")
    assert "collect" in found.stderr


def test_names_are_those_of_the_tables() -> None:
    """What the options offer is what the modules that load later know."""
    assert tuple(queries.GROUPINGS) == commands.GROUPINGS
    assert tuple(output.FORMATS) == (*options.FORMATS, "ecs")


def test_picture_in_readme(store: str) -> None:
    """The picture of `denylog top` in the README is what it prints."""
    picture = README.partition("$ denylog top\n")[2].partition("```")[0]
    assert picture == run("top", "--store", store).stdout


def readme_commands() -> list[list[str]]:
    """The README's commands that need neither a cluster nor a log of this machine."""
    lines = re.findall(r"^denylog (?:top|packets|sql|status).*", README, re.MULTILINE)
    split = [re.findall(r'"[^"]*"|\S+', re.split(r"\s{2,}", line)[0])[1:] for line in lines]
    return [[word.strip('"') for word in words if word != "-f"] for words in split]


@pytest.mark.parametrize("words", readme_commands(), ids=" ".join)
def test_commands_in_readme(store: str, words: list[str]) -> None:
    """The commands that the README shows run."""
    found = run(*words, DENYLOG_STORE=store)
    assert found.returncode == 0, found.stderr
    assert found.stdout


def test_parse_gives_one_object_a_line() -> None:
    """`parse` prints an object for each line of the sample, in order."""
    with SAMPLE.open("rb") as log:
        found = subprocess.run([*DENYLOG, "parse"], stdin=log, capture_output=True, check=True)
    kinds = [json.loads(line)["kind"] for line in found.stdout.splitlines()]
    assert Counter(kinds) == {"packet": 4420, "other": 864, "reject": 1, "loss": 1}
    shown = [b"calico-packet: IN=" in line for line in SAMPLE.read_bytes().splitlines()]
    assert [kind in ("packet", "reject") for kind in kinds] == shown


@pytest.mark.parametrize(
    ("text", "count"), [(b"", 0), (b"a", 1), (b"a\r\n\n\x00\xff\n", 3), (b"x" * 70_000 + b"\nb", 2)]
)
def test_parse_of_odd_input(text: bytes, count: int) -> None:
    """An empty stream, no last newline, bytes that are no text, and a line over the limit: one object a line."""
    found = subprocess.run([*DENYLOG, "parse"], input=text, capture_output=True, check=True)
    assert len([json.loads(line) for line in found.stdout.splitlines()]) == count


def test_output_forms(store: str) -> None:
    """Each form has all of the rows."""
    query = ("sql", "SELECT source_ip, 1 AS n, 2 AS n FROM packets LIMIT 3", "--store", store, "-o")
    rows = json.loads(run(*query, "json").stdout)
    assert [list(row) for row in rows] == [["source_ip", "n", "n_1"]] * 3
    assert [json.loads(line) for line in run(*query, "jsonl").stdout.splitlines()] == rows
    assert len(run(*query, "csv").stdout.splitlines()) == 4
    assert len(run(*query, "dict").stdout.split("\n\n")) == 3
    assert json.loads(run("sql", "FROM packets LIMIT 0", "--store", store, "-o", "json").stdout) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("top", "--port", "x"), "--port 'x'"),
        (("top", "--since", ""), "--since ''"),
        (("top", "--by", "x"), "--by"),
        (("sql", "DELETE FROM packets"), "DELETE is refused"),
        (("sql", "FROM read_csv('/etc/passwd')"), "/etc/passwd"),
        (("sql", "SELECT '\udcff'"), "not in UTF-8"),
        (("top", "--node", "\udcff"), "UTF-8"),
        (("export", "denied.xyz"), ".xyz"),
        (("export", f"{SAMPLE}/denied.csv"), "no such folder"),
    ],
)
def test_bad_input_is_one_sentence(store: str, words: tuple[str, ...], says: str) -> None:
    """What a caller got wrong is said on standard error, with exit code 2 and no traceback."""
    found = run(*words, DENYLOG_STORE=store)
    assert (found.returncode, found.stdout) == (2, "")
    assert says in found.stderr
    assert "Traceback" not in found.stderr


def test_store_that_is_none(tmp_path: Path) -> None:
    """A folder without a store, a file and a catalog that is none are told, with exit code 2."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "catalog.sqlite").write_bytes(b"no database" * 1000)
    for folder in (tmp_path / "missing", tmp_path / "broken", SAMPLE):
        found = run("top", "--store", str(folder))
        assert (found.returncode, found.stdout) == (2, "")
        assert found.stderr.startswith(f"denylog: {folder}")


def test_locked_store_names_its_writer(tmp_path: Path) -> None:
    """A second writer is refused with exit code 3; SIGTERM lets the first commit and end with 0."""
    store = str(tmp_path / "store")
    first = subprocess.Popen([*DENYLOG, "collect", "--store", store, str(SAMPLE)], stderr=subprocess.PIPE, text=True)
    try:
        while not (found := run("sql", "FROM packets LIMIT 1", "--store", store, "-o", "jsonl")).stdout:
            assert first.poll() is None, found.stderr
        second = run("ingest", "--store", store, str(SAMPLE))
        assert second.returncode == 3
        assert f"is being written to by process {first.pid}" in second.stderr
    finally:
        first.send_signal(signal.SIGTERM)
        _, said = first.communicate(timeout=30)
    assert (first.returncode, said) == (0, READ)


@pytest.mark.parametrize("form", ["table", "json", "jsonl", "csv", "dict", "ecs"])
def test_broken_pipe_is_no_error(store: str, form: str) -> None:
    """`denylog packets | head` ends well in every form."""
    command = [*DENYLOG, "packets", "--store", store, "--last", "1400", "-o", form]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 0, said
    assert b"Traceback" not in said


def test_full_disk_is_told(store: str) -> None:
    """Output that cannot be written is one sentence and exit code 3."""
    with open("/dev/full", "w") as full:
        found = subprocess.run(
            [*DENYLOG, "top", "--store", store], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (found.returncode, found.stderr) == (3, "denylog: output: No space left on device\n")


def test_interrupted(store: str) -> None:
    """Ctrl-C ends `packets -f` with exit code 130 and without a traceback."""
    command = [*DENYLOG, "packets", "-f", "--store", store, "-o", "jsonl"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert (process.returncode, said) == (130, b"")
