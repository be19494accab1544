"""The questions of docs/analysts.md, asked of the samples: each answer is what the page shows.

Rule: the page is read as a person reads it; nothing of it is repeated here. `REWRITE=1` writes the answers anew.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path

import pytest

import analytics
from analytics import Reader
from analytics.output import write

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "analysts.md"
BLOCK = re.compile(r"(### \d+\. [^\n]+\n\n```sql\n(?P<sql>.*?)\n```\n\n```\n)(?P<answer>.*?)(?=\n```)", re.DOTALL)
BLOCKS = list(BLOCK.finditer(PAGE.read_text()))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store made with the commands of the page."""
    folder = str(tmp_path_factory.mktemp("analysts") / "store")
    commands = re.findall(r"^denylog ((?:ingest|inventory) .*)", PAGE.read_text(), re.MULTILINE)
    assert len(commands) == 2
    for words in commands:
        split = words.replace("var/store", folder).split()
        subprocess.run([sys.executable, str(ROOT / "cli.py"), *split], check=True, capture_output=True, cwd=ROOT)
    return folder


@pytest.fixture(scope="module")
def reader(store: str) -> Iterator[Reader]:
    """That store, to ask."""
    with Reader(store) as found:
        yield found


def answer(reader: Reader, sql: str) -> str:
    """What `denylog sql --utc` prints, without the spaces at the ends of lines."""
    stream = io.StringIO()
    write(reader.rows(sql), "table", stream, zone=UTC)
    return "\n".join(line.rstrip() for line in stream.getvalue().rstrip().splitlines())


def test_there_are_twenty() -> None:
    """No question slips through the pattern that finds them."""
    assert len(BLOCKS) == PAGE.read_text().count("```sql") == 20


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: re.sub(r"\W+", "-", block[1].splitlines()[0].strip("# ")))
def test_question(reader: Reader, block: re.Match[str]) -> None:
    """The page shows what the question gives."""
    found = answer(reader, block["sql"])
    if os.environ.get("REWRITE"):
        PAGE.write_text(PAGE.read_text().replace(block[0], block[1] + found))
    else:
        assert found == block["answer"]


def test_notebook(store: str) -> None:
    """Three lines give a pandas frame, and values go in as parameters."""
    frame = analytics.query(store, "SELECT time, source_ip, destination_port FROM denied")
    assert list(frame.columns) == ["time", "source_ip", "destination_port"]
    assert str(frame["time"].dtype).endswith("UTC]")
    one = analytics.query(store, "SELECT count(*) AS n FROM denied WHERE source_ip = $ip", {"ip": "203.0.113.66"})
    assert one["n"].tolist() == [400]
    with pytest.raises(analytics.QueryError):
        analytics.query(store, "DELETE FROM packets")


def test_attach_statement(store: str) -> None:
    """The statement that the page shows is the one that is printed."""
    command = [sys.executable, str(ROOT / "cli.py"), "sql", "--attach", "--store", store]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.strip()
    assert printed.replace(store, "/var/lib/denylog") in PAGE.read_text()
