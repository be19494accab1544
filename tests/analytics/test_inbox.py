"""Deposits: each is in the store exactly once, whoever holds it, and whenever somebody is killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from analytics import Reader, StoreError, Writer, engine, envelope, schema
from analytics.additions import Additions, FindingRow
from analytics.export import export
from analytics.inbox import deposit
from analytics.inventory import observe
from analytics.store import prepare, resolve
from tests.analytics.cluster import at, listed, node, pod
from tests.collector.live import collecting

ROOT = Path(__file__).parents[2]
DENYLOG = str(Path(sys.executable).parent / "denylog")
Ask = Callable[..., list[tuple[Any, ...]]]


def finding(name: str) -> Additions:
    """Additions of one row that can be told apart."""
    row = FindingRow(id=name, rule="r", severity="low", subject="{}", first=at(1), last=at(2), title="t", body="{}")
    return Additions(findings=(row,))


def test_waits_while_the_store_is_held(folder: str, ask: Ask) -> None:
    """While another holds the store a deposit waits in the inbox; the holder takes it in once, then nothing is left."""
    with Writer(folder) as writer:
        assert deposit(folder, finding("a")).queued
        assert [writer.take_in(), writer.take_in()] == [1, 0]
        assert ask("SELECT id FROM findings") == [("a",)]
    assert list((Path(folder) / "inbox").iterdir()) == []
    assert not deposit(folder, finding("b")).queued
    assert ask("SELECT id FROM findings ORDER BY id") == [("a",), ("b",)]


def test_killed_between_commit_and_removal(folder: str, ask: Ask) -> None:
    """A file whose rows are in the store already, since its holder was killed before removing it, adds nothing."""
    with Writer(folder) as writer:
        deposit(folder, finding("a"))
        (path,) = envelope.waiting(writer._store)
        data = path.read_bytes()
        writer.take_in()
        path.write_bytes(data)
        assert writer.take_in() == 0
        assert not path.exists()
    assert ask("SELECT count(*) FROM findings") == [(1,)]


@pytest.mark.parametrize(
    "harm",
    [lambda data: data[:-3], lambda data: b"", lambda data: data.replace(b"\n", b"", 1)],
    ids=["cut", "empty", "joined"],
)
def test_damaged_file_is_set_aside(
    folder: str, harm: Callable[[bytes], bytes], ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    """A damaged deposit is told of once, kept under another name, and does not hold up the others."""
    with Writer(folder) as writer:
        deposit(folder, finding("a"))
        (path,) = envelope.waiting(writer._store)
        path.write_bytes(harm(path.read_bytes()))
        deposit(folder, finding("b"))
        assert [writer.take_in(), writer.take_in()] == [1, 0]
        assert path.with_name(path.name + ".damaged").exists()
    assert len(caplog.messages) == 1
    assert ask("SELECT id FROM findings") == [("b",)]


DEPOSITOR = """
import sys
from analytics.inbox import deposit
from tests.analytics.test_inbox import finding
for number in range(10_000):
    print(number, flush=True)
    deposit(sys.argv[1], finding(f"{sys.argv[2]}-{number}"))
"""
HOLDER = """
import sys, time
from analytics import Writer
while True:
    with Writer(sys.argv[1], wait_s=60) as writer:
        for _ in range(40):
            writer.take_in()
            time.sleep(0.02)
"""


def test_kills(folder: str, ask: Ask) -> None:
    """After kill -9 of depositors and holders at random moments each deposit that returned is there, and none twice."""
    dice = random.Random(7)
    Writer(folder).close()
    returned: set[str] = set()
    for number in range(4):
        start = [sys.executable, "-c"]
        holder = subprocess.Popen([*start, HOLDER, folder], cwd=ROOT)
        giver = subprocess.Popen([*start, DEPOSITOR, folder, str(number)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert giver.stdout is not None
        begun = [giver.stdout.readline().strip() for _ in range(dice.randrange(2, 6))]
        time.sleep(dice.uniform(0, 0.3))
        for process in dice.sample([holder, giver], 2):
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            time.sleep(dice.uniform(0, 0.2))
        begun += giver.stdout.read().split()
        giver.stdout.close()
        returned |= {f"{number}-{each}" for each in begun[:-1]}
    with Writer(folder, wait_s=10) as writer:
        writer.take_in()
    found = [row[0] for row in ask("SELECT id FROM findings")]
    assert len(found) == len(set(found))
    assert returned <= set(found)
    assert returned


def dump(path: Path, *objects: dict[str, Any]) -> str:
    """A file as kubectl writes it."""
    path.write_text(json.dumps(listed(*objects)))
    return str(path)


def command(*words: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """`denylog inventory …`."""
    return subprocess.run([DENYLOG, "inventory", *words], input=text, capture_output=True, text=True, check=False)


def test_two_imports_at_once(folder: str, tmp_path: Path, ask: Ask) -> None:
    """Imports of the same dump at the same time, and again afterwards, store each object once."""
    file = dump(
        tmp_path / "dump.json", *(pod(f"web-{n}", f"10.244.0.{n}", 1) for n in range(50)), node("n", "192.0.2.1")
    )
    words = [DENYLOG, "inventory", "import", "--store", folder, file]
    processes = [subprocess.Popen(words, stderr=subprocess.DEVNULL) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert command("import", "--store", folder, file).returncode == 0
    with Writer(folder) as writer:
        writer.take_in()
    assert ask("SELECT count(*), count(DISTINCT name) FROM objects") == [(51, 51)]


def test_import_while_a_collector_runs(tmp_path: Path) -> None:
    """A dump that is imported while a collector holds the store is there within seconds."""
    log, store = tmp_path / "syslog", tmp_path / "store"
    log.touch()
    with collecting(store, log):
        deadline = time.monotonic() + 60
        while not (store / "catalog.sqlite").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        done = command("import", "--store", str(store), dump(tmp_path / "dump.json", pod("web-1", "10.0.0.1", 1)))
        assert done.returncode == 0, done.stderr
        names: list[tuple[Any, ...]] = []
        while not names and time.monotonic() < deadline:
            time.sleep(0.2)
            try:
                with Reader(str(store)) as reader:
                    names = reader.rows("SELECT name FROM objects").rows
            except StoreError:
                continue  # the collector is still making the store
    assert names == [("web-1",)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("{", "not JSON"),
        ("a: [", "neither JSON nor YAML"),
        ("just text", "holds no Kubernetes object"),
        ('{"kind": "Pod"}', "holds no Kubernetes object"),
        ("Error from server (Forbidden): pods is forbidden: no", "standard input:1: neither JSON nor YAML"),
        ('{"kind": "Status", "apiVersion": "v1", "message": "pods is forbidden"}', "not objects: pods is forbidden"),
    ],
)
def test_unusable_dump(folder: str, text: str, says: str) -> None:
    """What is no dump is refused with one sentence and code 2, and no store is made."""
    done = command("import", "--store", folder, "-", text=text)
    assert (done.returncode, says in done.stderr, done.stderr.count("\n")) == (2, True, 1)
    assert not Path(folder).exists()


def test_bad_objects_are_named(folder: str, ask: Ask) -> None:
    """An object that is not as Kubernetes writes it is left out by name, the others are stored, the code is 1."""
    bad = [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "labels": 7}}, pod("odd", "10.0.0.300", 1)]
    text = json.dumps(listed(*bad, pod("web-1", "10.0.0.1", 1), {"apiVersion": "apps/v1", "kind": "Deployment"}))
    done = command("import", "--store", folder, "-", text=text)
    assert done.returncode == 1
    assert "Pod x: left out" in done.stderr
    assert "Pod shop/odd: '10.0.0.300' is no address" in done.stderr
    assert "1 Deployment" in done.stderr
    assert ask("SELECT name FROM objects ORDER BY name") == [("odd",), ("web-1",)]


def test_version_1_store_is_migrated(folder: str, frame: Callable[..., Any]) -> None:
    """A store of schema version 1 with packets gets the inventory and attributes the packets that it had."""
    store = resolve(folder)
    prepare(store)
    connection = engine.open_writer(store, engine.FOLLOW)
    for statement in (*schema.STEPS[0](), "INSERT INTO meta VALUES ('schema_version', '1')"):
        connection.execute(statement)
    connection.register("incoming", engine.ArrowStream(frame([{"source_ip": "10.0.0.1", "time": at(2)}])))
    connection.execute("INSERT INTO packets BY NAME FROM incoming")
    connection.close()
    with pytest.raises(StoreError, match="schema version 1, this denylog needs"):
        Reader(folder)
    deposit(folder, observe([pod("web-1", "10.0.0.1", 1)], at=at(3)))
    with Reader(folder) as reader:
        assert reader.rows("SELECT source_pod FROM denied").rows == [("web-1",)]


def test_first_step_is_frozen() -> None:
    """The step that made version 1 makes the same tables as it did when it was released."""
    names = [text.split()[2] for text in schema.STEPS[0]() if text.startswith("CREATE")]
    assert names == ["packets", "rejects", "rejects_beyond", "losses", "positions", "meta"]


def test_export_holds_the_inventory(filled: Callable[..., str], tmp_path: Path) -> None:
    """An exported database has the inventory and attributes by itself, without denylog."""
    import duckdb

    store = filled([{"source_ip": "10.0.0.1", "time": at(2)}])
    deposit(store, observe([pod("web-1", "10.0.0.1", 1)], at=at(3)))
    export(store, str(tmp_path / "copy.duckdb"))
    with duckdb.connect(str(tmp_path / "copy.duckdb"), read_only=True) as connection:
        assert connection.execute("SELECT source_pod FROM denied").fetchall() == [("web-1",)]
        assert connection.execute("SELECT name FROM objects").fetchall() == [("web-1",)]


def test_retention_keeps_what_still_holds(folder: str, ask: Ask) -> None:
    """Old versions of objects go with the days that they were about; the newest of each object stays."""
    for hour, version in ((1, "1"), (4, "2"), (8, "3")):
        deposit(
            folder, observe([pod("web-1", "10.0.0.1", 1, labels={"v": version}), node("n", "192.0.2.1")], at=at(hour))
        )
    with Writer(folder) as writer:
        writer.maintain(datetime.now(UTC) - at(30))
    assert ask("SELECT name, labels FROM objects ORDER BY name") == [("n", "{}"), ("web-1", '{"v":"3"}')]
