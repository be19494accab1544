"""Sums of packets by flow and day answer as the packets do, whoever was where in the meantime.

Rule: every question is asked twice, with sums and without, of stores in which everything happens: pods that come, go
and pass their addresses on, services and network sets, verdicts, packets without a time, lines that stand for several.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from analytics import Reader, Writer, daily, maintenance
from analytics.export import export
from analytics.filters import Where, where
from analytics.inbox import deposit
from analytics.inventory import observe
from analytics.queries import GROUPINGS, overview, top, values
from tests.analytics.cluster import DAY, at, node, pod, service, thing
from tests.analytics.conftest import make_commit

ADDRESSES = ("10.244.0.5", "10.244.0.6", "10.244.1.7", "192.0.2.1", "8.8.8.8", "fd00::5", None)
INTERFACES = ("eth0", None)
TIMES: tuple[dict[str, str], ...] = (
    {},
    {"since": "2026-11-20"},
    {"until": "2026-11-22"},
    {"since": "2026-11-20T07:30", "until": "2026-11-23T01:00"},
    {"since": "2026-11-20T07:30+05:30", "until": "2026-11-20T09:00"},
    {"since": "!2026-11-21"},
)
CHOSEN: tuple[dict[str, Any], ...] = (
    {},
    {"protocol": "tcp"},
    {"namespace": "shop"},
    {"from-namespace": "!shop"},
    {"to-class": "public"},
    {"policy": "shop/deny"},
    {"from-port": "1000"},
    {"ip": "10.244.0.0/16"},
)


def _flows(dice: random.Random, interfaces: list[str]) -> list[dict[str, Any]]:
    """What all packets of a store have in common with some others."""
    return [
        {
            "source_ip": dice.choice(ADDRESSES),
            "destination_ip": dice.choice(ADDRESSES),
            "in_interface": dice.choice([*interfaces, *INTERFACES]),
            "out_interface": dice.choice([*interfaces, *INTERFACES]),
            "direction": dice.choice(["ingress", "egress", "host", None]),
            "destination_port": dice.choice([53, 443, None]),
            "protocol": dice.choice(["tcp", "udp"]),
            "policy_name": dice.choice([None, "deny"]),
        }
        for _ in range(20)
    ]


def _packets(dice: random.Random, flows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Packets of these flows at any time of four days."""
    return [
        {
            **dice.choice(flows),
            "time": None if dice.random() < 0.05 else DAY + timedelta(seconds=dice.randrange(4 * 86_400)),
            "source_port": dice.choice([1000, 2000]),
            "repeat_count": dice.choice([0, 0, 0, 3]),
            "follow_up": dice.choice([None, None, None, True]),
        }
        for _ in range(200)
    ]


def _things(dice: random.Random) -> list[dict[str, Any]]:
    pods = [
        pod(f"web-{number}", dice.choice(ADDRESSES[:3]), dice.uniform(-10, 90), labels={"app": "web"})
        for number in range(6)
    ]
    networks = thing("NetworkSet", "partners", "shop", "projectcalico.org/v3", spec={"nets": ["8.8.0.0/16"]})
    return [
        *pods,
        service("front", "10.96.0.1", {"app": "web"}),
        node("node-1", "192.0.2.1", "10.244.0.0/24"),
        networks,
    ]


@pytest.fixture(scope="module", params=range(2))
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with sums of most of its packets, in several slices, and some that came after them."""
    dice = random.Random(request.param)
    folder = str(tmp_path_factory.mktemp("daily") / "store")
    things = _things(dice)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(daily, "ENOUGH", 1)
        deposit(folder, observe(things[:4], at=at(20)))
        deposit(folder, observe(things[2:], at=at(60)))
        with Writer(folder) as writer:
            writer.take_in()
        with Reader(folder) as reader:
            interfaces = [row[0] for row in reader.rows("SELECT DISTINCT interface FROM objects").rows if row[0]]
        flows = _flows(dice, interfaces)
        with Writer(folder) as writer:
            for number in range(4):
                writer.commit(make_commit(_packets(dice, flows), lines=number + 1))
                if number < 3:
                    writer.add_up()
    return folder


def _asked(reader: Reader, condition: Where, groupings: Sequence[str]) -> dict[str, object]:
    found: dict[str, object] = {by: top(reader, by, condition, 1000).rows.rows for by in groupings}
    keys = [(), ("source_ip", "direction"), ("namespace", "workload"), ("denied_by",), ("destination_class",)]
    for grouping, rows in zip(keys, overview(reader, condition, keys, 1000), strict=True):
        found[f"overview {grouping}"] = sorted(rows.rows, key=str)
    found["values"] = values(reader, "source_pod", condition, 1000).rows.rows
    return found


@pytest.mark.parametrize("chosen", CHOSEN, ids=str)
def test_sums_answer_as_packets_do(store: str, chosen: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """No question can tell a store with sums from one without."""
    dice = random.Random(f"{store[-7:]} {chosen}")
    marks = daily._MARK, "SELECT 1 WHERE false"
    with Reader(store) as reader:
        for times in dice.sample(TIMES, 3):
            condition = where({**chosen, **times}, now=DAY, zone=UTC)
            some = dice.sample(list(GROUPINGS), 3)
            answers = []
            for mark in marks:
                monkeypatch.setattr(daily, "_MARK", mark)
                answers.append(_asked(reader, condition, some))
            assert answers[0] == answers[1], (chosen, times)


def test_sums_are_what_is_asked(store: str) -> None:
    """The stores above have sums of three of four commits, and questions do use them."""
    with Reader(store) as reader:
        assert reader.rows("SELECT count(DISTINCT upto), max(upto) < (SELECT max(stored_at) FROM packets) "
                           "FROM flow_days").rows == [(3, True)]  # fmt: skip
        for text in ("source_ip", "source_pod, namespace"):
            assert "flow_days" in daily.counted(reader, Where(), text)
        for text in ("source_port", "denied_by", "time"):
            assert "flow_days" not in daily.counted(reader, Where(), text)
        assert "flow_days" not in daily.counted(reader, where({"since": "9999-12-31T10:00"}, now=DAY, zone=UTC), "node")
        restless = reader.restless(["source_pod"], reader.rows("SELECT max(upto) FROM flow_days").rows[0][0])
        assert restless, "somebody must have moved, or the hardest case is not tested"


def _totals(folder: str) -> list[tuple[Any, ...]]:
    with Reader(folder) as reader:
        sql = "SELECT coalesce(sum(packet_count), 0), min(first), max(last) FROM {}"
        return reader.rows(sql.format(daily.counted(reader, Where(), ""))).rows


def test_sums_go_with_their_packets(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What retention takes from the packets it takes from the sums, and the mark below which sums count stays."""
    monkeypatch.setattr(daily, "ENOUGH", 1)
    dice = random.Random(7)
    with Writer(folder) as writer:
        writer.commit(make_commit(_packets(dice, _flows(dice, []))))
        writer.add_up()
        before = _totals(folder)
        writer.maintain(datetime.now(UTC) - at(50))
    after = _totals(folder)
    assert 0 < after[0][0] < before[0][0]
    monkeypatch.setattr(daily, "_MARK", "SELECT 1 WHERE false")
    assert after == _totals(folder)


def test_sums_end_with_the_day(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packets that were stored on two days are in two sums, since retention may take one of them."""
    monkeypatch.setattr(daily, "ENOUGH", 1)
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=3)
    with Writer(folder) as writer:
        for number, moment in enumerate((midnight - timedelta(seconds=9), midnight, midnight + timedelta(seconds=9))):
            writer._stamp = moment  # as after a clock that was so far ahead
            writer.commit(make_commit([{}], lines=number + 1))
        writer.add_up()
    with Reader(folder) as reader:
        assert reader.rows("SELECT packets, upto < $day FROM flow_days ORDER BY upto", {"day": midnight}).rows == [
            (1, True), (2, False)
        ]  # fmt: skip


def test_few_packets_have_no_sums(folder: str) -> None:
    """A small store is asked packet by packet."""
    with Writer(folder) as writer:
        writer.commit(make_commit([{}, {}]))
        writer.add_up()
        writer.maintain()
    with Reader(folder) as reader:
        assert reader.rows("FROM flow_days").rows == []


def test_sums_in_slices(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A round of maintenance adds up some packets, and the next ones the others; each packet is in one sum."""
    monkeypatch.setattr(daily, "ENOUGH", 2)
    monkeypatch.setattr(maintenance, "_SUMMED", 3)
    monkeypatch.setattr(maintenance, "_SUMMED_IN_ROUND", 3)
    with Writer(folder) as writer:
        for number in range(4):
            writer.commit(make_commit([{}, {"source_ip": None}], lines=number + 1))
        for expected in (2, 4, 6, 8, 8):
            writer.maintain()
            with Reader(folder) as reader:
                assert reader.rows("SELECT sum(packets)::INTEGER FROM flow_days").rows == [(expected,)]
            assert _totals(folder)[0][0] == 8


def test_sums_in_sql_of_ones_own(store: str) -> None:
    """The statement that the page for analysts shows counts each packet once."""
    page = (Path(__file__).parents[2] / "docs" / "analysts.md").read_text()
    shown = next(block for block in page.split("```") if "FROM flow_days" in block)
    plain = "SELECT source_ip, sum(packet_count) AS packets FROM denied GROUP BY ALL ORDER BY packets DESC, source_ip"
    with Reader(store) as reader:
        assert reader.rows(shown).rows == reader.rows(plain).rows


def test_an_export_of_some_packets_has_no_sums(store: str, tmp_path: Path) -> None:
    """Sums that do not belong to the packets beside them are left out."""
    for name, chosen, expected in (("all", {}, True), ("some", {"protocol": "tcp"}, False)):
        target = tmp_path / f"{name}.duckdb"
        export(store, str(target), where=where(chosen, now=DAY, zone=UTC))
        with duckdb.connect(target) as connection:
            assert connection.execute("SELECT count(*) > 0 FROM flow_days").fetchone() == (expected,)


def test_sums_in_parts_are_stored_together(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one of several parts cannot be made, none is there, and the next round makes all."""
    monkeypatch.setattr(daily, "ENOUGH", 1)
    rows = [{"source_ip": address} for address in (*ADDRESSES, *(f"10.0.0.{number}" for number in range(20)))]
    with Writer(folder) as writer:
        writer.commit(make_commit(rows))
        with monkeypatch.context() as patch:
            patch.setattr(
                daily, "_ADD", daily._ADD.replace("greatest(", "CASE WHEN $part = 2 THEN error('cut') END, greatest(")
            )
            with pytest.raises(duckdb.Error):
                daily.add_up(writer._live(), 100, 4)
        assert _totals(folder)[0][0] == len(rows)
        with Reader(folder) as reader:
            assert reader.rows("FROM flow_days").rows == []
        assert daily.add_up(writer._live(), 100, 4)
    assert _totals(folder)[0][0] == len(rows)
    with Reader(folder) as reader:
        assert reader.rows("SELECT sum(packets)::INTEGER, count(DISTINCT upto) FROM flow_days").rows == [(len(rows), 1)]
