"""A log written by an enemy: what its lines can do to those who read the rows, by way of the real command."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli import cli
from dashboards import settings
from tests.collector.live import REPOSITORY
from tests.dashboards.test_pages import drawn

_NODE = "@sum\u009b31m"
_SCRIPT = "<script>alert(1)</script>"
_BODY = "IN=cali0123456789a OUT=eth0 SRC=10.0.0.1 DST=10.0.0.2 LEN=60 TOS=0x00 PREC=0x00 TTL=63 ID=7 DF PROTO=UDP"
_LINES = (
    f"2026-11-22T15:00:00.000000+00:00 {_NODE} kernel: [1.000000] calico-packet: {_BODY} SPT=1 DPT=2 LEN=40 \n"
    f"2026-11-22T15:00:01.000000+00:00 {_SCRIPT} kernel: [2.000000] calico-packet: {_BODY} SPT=3 DPT=4 LEN=40 \n"
    f"2026-11-22T15:00:02.000000+00:00 \x9b1mnode\u202e kernel: [3.000000] calico-packet: {_BODY} SPT=5 DPT=6 LEN=40\n"
    "2026-11-22T15:00:03.000000+00:00 n1 mallory: calico-packet: \x1b[2J\u009b2J IN=a OUT=b SRC=1.1.1.1 DST=2.2.2.2\n"
    f"2026-11-22T15:00:04.000000+00:00 'quoted kernel: [4.000000] calico-packet: {_BODY} SPT=7 DPT=8 LEN=40 \n"
)
_ACTING = {*map(chr, range(32)), *map(chr, range(0x7F, 0xA0)), "\u202e"} - {"\n"}


def denylog(*arguments: str) -> str:
    """What the command prints; it has to end well."""
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A store with the hostile lines."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "syslog").write_text(_LINES)
    # In a process of its own: a process that ingests does without pandas from then on, and the dashboard needs it.
    ingest = [sys.executable, "-c", "from cli import main; main()", "ingest", "--store", str(folder / "store")]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([*ingest, str(folder / "syslog")], env=environment, check=True, capture_output=True, timeout=60)
    yield str(folder / "store")
    settings.use(settings.Settings(store="/var/lib/denylog"))


@pytest.mark.parametrize("form", ["table", "json", "jsonl", "csv", "dict"])
@pytest.mark.parametrize("question", [("packets",), ("top", "--by", "node"), ("sql", "FROM rejects")], ids=str)
def test_nothing_acts_on_a_terminal(store: str, question: tuple[str, ...], form: str) -> None:
    """No form of any answer holds a character that a terminal acts on."""
    said = denylog(*question, "--store", store, "-o", form)
    assert said
    assert not set(said) & _ACTING


def test_json_loses_nothing(store: str) -> None:
    """JSON gives back the text of the line to the last character."""
    nodes = {json.loads(line)["node"] for line in denylog("packets", "--store", store, "-o", "jsonl").splitlines()}
    assert nodes == {_NODE, _SCRIPT, "\x9b1mnode\u202e", "'quoted"}


def test_csv_holds_no_formula(store: str) -> None:
    """No cell of `-o csv` begins like a formula, and an apostrophe in front is always ours to be taken off."""
    rows = list(csv.DictReader(io.StringIO(denylog("packets", "--store", store, "-o", "csv"))))
    assert len(rows) == 4
    assert not [cell for row in rows for cell in row.values() if cell.startswith(("=", "+", "@", "\t", "\r"))]
    assert {"'@sum\\x9b31m", "''quoted"} <= {row["node"] for row in rows}


def test_exported_csv_is_exact(store: str, tmp_path: Path) -> None:
    """`denylog export` writes the text as it is, for programs; the help says so."""
    denylog("export", "--store", store, str(tmp_path / "packets.csv"))
    with (tmp_path / "packets.csv").open(newline="") as file:
        assert _NODE in {row["node"] for row in csv.DictReader(file)}
    assert "spreadsheet" in denylog("export", "--help")


@pytest.mark.parametrize("page", ["overview", "packets"])
def test_dashboard_shows_text_as_text(store: str, page: str) -> None:
    """Markup in a log line is shown as text on a page, and control characters as escapes."""
    said = drawn(page, Path(store))
    assert said
    assert "<script>alert" not in said
    assert not set(said) & (_ACTING - {"\t"})


def test_forged_line_is_no_packet(store: str) -> None:
    """A line that some program wrote with the prefix is a reject with its reason."""
    rows = json.loads(denylog("sql", "SELECT reason FROM rejects", "--store", store, "-o", "json"))
    assert rows == [{"reason": "not from the kernel"}]
