"""Answers on their way out: each form by example, JSON-safe values, and nothing that acts on a terminal."""

from __future__ import annotations

import csv
import io
import json
import os
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pytest

from analytics import Reader, StoreError, output, queries
from analytics.export import export, format_of
from analytics.filters import Where, where
from analytics.reader import Rows
from analytics.values import harmless, plain

Fill = Callable[[Iterable[dict[str, Any]]], str]
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)

ANSWER = Rows(
    ("time", "name", "count", "flags", "inner"),
    ("TIMESTAMP WITH TIME ZONE", "VARCHAR", "BIGINT", "VARCHAR[]", "JSON"),
    [(NOON, "a,b", 3, ["SYN", "ACK"], '{"ttl":3}'), (None, '=cmd("x")\x1b[31m', -1, None, None)],
)


def _written(form: str, rows: Rows = ANSWER, zone: Any = UTC) -> str:
    stream = io.StringIO()
    output.write(rows, form, stream, zone=zone)
    return stream.getvalue()


def test_json_is_a_list_of_rows() -> None:
    """JSON is one list of objects with every column; JSON columns are nested; times carry their offset."""
    assert json.loads(_written("json", zone=ZoneInfo("Asia/Kathmandu"))) == [
        {"time": "2026-11-20T17:45:00+05:45", "name": "a,b", "count": 3, "flags": ["SYN", "ACK"], "inner": {"ttl": 3}},
        {"time": None, "name": '=cmd("x")\x1b[31m', "count": -1, "flags": None, "inner": None},
    ]
    assert _written("json", Rows(("a",), ("BIGINT",), [])) == "[]\n"


def test_json_lines_are_the_same_rows() -> None:
    """JSON lines hold the same objects, one on each line."""
    assert [json.loads(line) for line in _written("jsonl").splitlines()] == json.loads(_written("json"))


def test_csv_is_read_back() -> None:
    """CSV is quoted as needed, null is empty, numbers stay, a formula gets an apostrophe, escapes are shown."""
    header, first, second = csv.reader(io.StringIO(_written("csv")))
    assert header == ["time", "name", "count", "flags", "inner"]
    assert first == ["2026-11-20T12:00:00+00:00", "a,b", "3", '["SYN", "ACK"]', '{"ttl":3}']
    assert second == ["", '\'=cmd("x")\\x1b[31m', "-1", "", ""]


def test_dict_shows_what_is_there() -> None:
    """One block for each row, aligned, without nulls, defused."""
    assert _written("dict") == (
        " time: 2026-11-20T12:00:00+00:00\n name: a,b\ncount: 3\nflags: SYN,ACK\ninner: {\"ttl\":3}\n"
        "\n name: =cmd(\"x\")\\x1b[31m\ncount: -1\n"
    )  # fmt: skip


def test_table_is_defused() -> None:
    """A table shows escapes and rich's own markup as text."""
    hostile = Rows(("[red]x",), ("VARCHAR",), [("[bold]a\x1b]0;owned\x07\u202eb",)])
    shown = _written("table", hostile)
    assert shown.splitlines() == ["[red]x                         ".rstrip(), "[bold]a\\x1b]0;owned\\x07\\u202eb"] or [
        line.rstrip() for line in shown.splitlines()
    ] == ["[red]x", "[bold]a\\x1b]0;owned\\x07\\u202eb"]
    assert not set(shown) & {"\x1b", "\x07", "\u202e"}


@pytest.mark.parametrize(
    "text", [*map(chr, [*range(32), *range(127, 160)]), "\u2028", "\u202e", "\u2066", "\ufeff\u200f"]
)
def test_acting_characters_are_escaped(text: str) -> None:
    """Every control character, line separator and direction mark becomes printable."""
    assert harmless(f"ä{text}").startswith("ä")
    assert text[-1] not in harmless(text)


def test_plain_values() -> None:
    """Whatever DuckDB hands out has a JSON form; what JSON cannot say is null."""
    key = uuid.uuid4()
    cases = [
        (float("nan"), None),
        (float("inf"), None),
        (1.5, 1.5),
        (Decimal("1.50"), 1.5),
        (Decimal("7"), 7),
        (Decimal("NaN"), None),
        (2**100, 2**100),
        (True, True),
        (b"\x00\xff", "00ff"),
        (date(2026, 1, 2), "2026-01-02"),
        (datetime(2026, 1, 2, 3), "2026-01-02T03:00:00"),  # noqa: DTZ001 - a TIMESTAMP has no zone
        (timedelta(minutes=2), 120.0),
        (key, str(key)),
        ({1: [NOON]}, {"1": ["2026-11-20T12:00:00+00:00"]}),
        ((1, None), [1, None]),
    ]
    for value, expected in cases:
        assert plain(value, UTC) == expected
        json.dumps(plain(value, UTC), allow_nan=False)


def test_ecs_document(filled: Fill) -> None:
    """A packet as Elasticsearch takes it: nested names, ECS' own forms of MAC, version and identifiers, no nulls."""
    row = {"source_mac": "ee:ee:ee:ee:ee:ee", "uid": 0, "vlan_id": 7, "repeat_count": 3, "protocol": "icmpv6"}
    with Reader(filled([{**row, "inner": '{"ttl":1}', "tcp_flags": None}, {"follow_up": "rst"}])) as reader:
        first, second = map(
            json.loads, _written("ecs", queries.packets(reader, Where(), 9, oldest_first=True).rows).splitlines()
        )
    assert first["@timestamp"] == "2026-11-20T12:00:00+00:00"
    assert first["event"]["type"] == ["connection", "denied"]
    assert second["event"]["type"] == ["connection", "info"]
    assert first["network"] == {
        "direction": "ingress", "type": "ipv4", "bytes": 60, "transport": "ipv6-icmp", "vlan": {"id": "7"},
        "packets": 3,
    }  # fmt: skip
    assert first["source"] == {"mac": "EE-EE-EE-EE-EE-EE", "ip": "10.0.0.1", "port": 40000}
    assert first["user"] == {"id": "0"}
    assert first["host"] == {"name": "node-1"}
    assert first["iptables"]["inner"] == {"ttl": 1}
    assert first["denylog"]["source_file"] == "f00d"
    assert "tcp" not in first["iptables"]


def test_every_column_has_its_own_place_in_ecs(filled: Fill) -> None:
    """No two columns share an ECS name, and none is a parent of another."""
    from analytics.ecs import _NAMES

    names = sorted(_NAMES.values())
    assert len(set(names)) == len(names)
    assert [name for name in names if any(other.startswith(f"{name}.") for other in names)] == []


ROWS = [
    {"ip_id": number, "inner": '{"ttl":1}' if number == 1 else None, "time": None if number == 2 else NOON}
    for number in range(150)
]


def test_export_to_duckdb(filled: Fill, tmp_path: Path) -> None:
    """The native file holds all tables, views and comments, and needs no extension."""
    target = tmp_path / "copy.duckdb"
    assert export(filled(ROWS), str(target)) == 150
    with duckdb.connect(str(target), read_only=True) as copy:
        assert copy.execute("SELECT count(*), sum(packet_count)::INT FROM denied").fetchall() == [(150, 150)]
        assert copy.execute('SELECT DISTINCT "SRC" FROM calico_packet').fetchall() == [("10.0.0.1",)]
        assert copy.execute("SELECT count(*) FROM positions").fetchall() == [(1,)]
        assert copy.execute("SELECT comment FROM duckdb_tables() WHERE table_name = 'losses'").fetchall()[0][0]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("name", ["copy.parquet", "copy.csv", "copy.jsonl", "it's.csv"])
def test_export_to_files(filled: Fill, tmp_path: Path, name: str) -> None:
    """Parquet, CSV and JSON lines hold the same packets, filtered as asked."""
    target = tmp_path / name
    chosen = Where("ip_id < $most", {"most": 100})
    assert export(filled(ROWS), str(target), where=chosen) == 100
    reader = {".parquet": "read_parquet", ".csv": "read_csv", ".jsonl": "read_json"}[target.suffix]
    asked = f"SELECT count(*), sum(ip_id)::INT, count(time), count(DISTINCT source_ip) FROM {reader}(?)"
    assert duckdb.execute(asked, [str(target)]).fetchall() == [(100, sum(range(100)), 99, 1)]


def test_export_takes_filters(filled: Fill, tmp_path: Path) -> None:
    """The same filters as elsewhere choose what is exported."""
    chosen = where({"ip": "10.0.0.0/9", "until": "1h"}, now=NOON + timedelta(hours=2), zone=UTC)
    assert export(filled(ROWS), str(tmp_path / "x.csv"), where=chosen) == 149


def test_export_overwrites_only_when_told(filled: Fill, tmp_path: Path) -> None:
    """A file that is there stays as it is, unless it may be overwritten."""
    store, target = filled(ROWS), tmp_path / "x.csv"
    target.write_text("mine")
    with pytest.raises(StoreError, match="exists already"):
        export(store, str(target))
    assert target.read_text() == "mine"
    export(store, str(target), force=True)
    assert target.read_text().startswith("time,")


@pytest.mark.parametrize(
    ("target", "says"),
    [("missing/x.csv", "there is no such folder"), ("x.xlsx", "'.xlsx' names no format"), (".", "names no format")],
)
def test_export_refusals(filled: Fill, tmp_path: Path, target: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A target that cannot be written is one sentence, and nothing is left behind."""
    monkeypatch.chdir(tmp_path)
    store = filled(ROWS)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(StoreError, match=says):
        export(store, target)
    assert sorted(os.listdir(tmp_path)) == before


def test_failed_export_leaves_nothing(filled: Fill, tmp_path: Path) -> None:
    """An export that fails half-way leaves no file under any name."""
    target = tmp_path / "x.parquet"
    with pytest.raises(StoreError):
        export(filled(ROWS), str(target), where=Where("ip_id / (ip_id - ip_id)::VARCHAR::INET = 1"))
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_format_of_names() -> None:
    """The name of the file chooses the format."""
    assert [format_of(f"a.{end}") for end in ("duckdb", "db", "parquet", "CSV", "ndjson")] == [
        "duckdb",
        "duckdb",
        "parquet",
        "csv",
        "jsonl",
    ]
