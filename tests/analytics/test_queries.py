"""The questions: every filter against a plain Python model, counts by brute force, order, cuts and following."""

from __future__ import annotations

import ipaddress
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics import Commit, LossRow, Reader, RejectRow, Writer, filters, queries
from analytics.filters import FilterError, Where, where
from analytics.schema import TABLE
from analytics.status import status

Fill = Callable[[Iterable[dict[str, Any]]], str]
START = datetime(2026, 11, 20, 12, tzinfo=UTC)

ADDRESSES = [
    "10.0.0.1", "10.0.0.2", "10.0.1.255", "10.1.2.3", "100.1.1.1", "172.16.0.1", "172.31.255.255", "192.168.7.9",
    "255.255.255.255", "0.0.0.0", "fd00::1", "fd00::1:0:0:1", "2001:db8::7", "fe80::1", "::1", "::",
    "::ffff:a00:1", None,
]  # fmt: skip
NETWORKS = [
    "10.0.0.0/8", "10.0.0.0/9", "10.0.0.0/23", "10.0.0.0/31", "10.0.0.1", "172.16.0.0/12", "1.0.0.0/8", "0.0.0.0/0",
    "192.168.7.9/32", "192.168.7.77/20", "fd00::/8", "fd00::/96", "2001:db8::/32", "::/0", "fe80::1/128",
    "::ffff:0:0/96",
]  # fmt: skip

VALUES: dict[str, list[Any]] = {
    "time": [None, *(START + timedelta(minutes=minutes) for minutes in range(0, 100, 3))],
    "node": [None, "node-1", "node-22", "Node-1", "a[1]"],
    "direction": [None, "ingress", "egress", "host"],
    "in_interface": [None, "eth0", "cali12345"],
    "out_interface": [None, "eth1", "cali99"],
    "ip_version": [None, 4, 6],
    "source_ip": ADDRESSES,
    "destination_ip": ADDRESSES,
    "protocol": [None, "tcp", "udp", "icmpv6", "132", "2"],
    "source_port": [None, 0, 53, 1024, 65535],
    "destination_port": [None, 0, 53, 443, 8080, 65535],
    "tcp_flags": [None, [], ["SYN"], ["ACK", "SYN"], ["RST"]],
    "prefix": [None, "calico-packet", "calico-drop"],
    "policy_namespace": [None, "shop"],
    "policy_name": [None, "log-all", "log-web"],
    "follow_up": [None, None, None, "rst"],
    "repeat_count": [0, 0, 1, 5],
}

CHOICES = {
    "since": ["30m", "1h30m", "2026-11-20T12:10:00Z", "2026-11-20 18:00"],
    "until": ["30m", "10s", "2026-11-20 13:00+00:00"],
    "ip": NETWORKS,
    "from_ip": NETWORKS,
    "to_ip": NETWORKS,
    "port": ["53", "0", "1-1024", "65535", "0-65535"],
    "from_port": ["53", "1000-2000"],
    "to_port": ["443", "8000-8999", "53-53"],
    "protocol": ["tcp", "UDP", "6", "58", "sctp", "132", "2"],
    "tcp_flags": ["SYN", "syn,ack", "RST"],
    "direction": ["ingress", "EGRESS", "host"],
    "ip_version": ["4", "6"],
    "node": ["node-*", "node-?", "*", "a*"],
    "interface": ["cali*", "eth0"],
    "prefix": ["calico-*", "calico-drop"],
    "policy": ["log-*", "shop/*", "shop/log-web"],
}
# Those that ask who had an address are tested with an inventory, in test_attribution.py.
# About who had an address; all others can be asked of packets alone.
BY_HOLDER = {f"{end}{what}" for end in ("", "from_", "to_") for what in ("namespace", "pod", "workload", "class")} | {
    "from_service", "to_service", "from_node", "to_node"
}  # fmt: skip
assert set(CHOICES) == {entry.name for entry in filters.FILTERS} - BY_HOLDER
CHOSEN = st.dictionaries(
    st.sampled_from(sorted(CHOICES)), st.lists(st.integers(0, 99), min_size=1, max_size=2), max_size=3
)

NOW = START + timedelta(minutes=100)
ZONE = ZoneInfo("Asia/Kathmandu")
PROTOCOLS = {"udp": "udp", "6": "tcp", "58": "icmpv6", "sctp": "132"}


def _model_time(text: str) -> datetime:
    known = {"30m": 30, "1h30m": 90, "10s": 1 / 6}
    if text in known:
        return NOW - timedelta(minutes=known[text])
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=ZONE)


def _in_network(address: str | None, text: str) -> bool:
    if address is None:
        return False
    network = ipaddress.ip_network(text, strict=False)
    return ipaddress.ip_address(address) in network


def _in_range(port: int | None, text: str) -> bool:
    low, _, high = text.partition("-")
    return port is not None and int(low) <= port <= int(high or low)


def _like(value: str | None, pattern: str) -> bool:
    return value is not None and fnmatchcase(value, pattern)


MODEL: dict[str, Callable[[dict[str, Any], str], bool]] = {
    "since": lambda row, text: row["time"] is not None and row["time"] >= _model_time(text),
    "until": lambda row, text: row["time"] is not None and row["time"] < _model_time(text),
    "ip": lambda row, text: _in_network(row["source_ip"], text) or _in_network(row["destination_ip"], text),
    "from_ip": lambda row, text: _in_network(row["source_ip"], text),
    "to_ip": lambda row, text: _in_network(row["destination_ip"], text),
    "port": lambda row, text: _in_range(row["source_port"], text) or _in_range(row["destination_port"], text),
    "from_port": lambda row, text: _in_range(row["source_port"], text),
    "to_port": lambda row, text: _in_range(row["destination_port"], text),
    "protocol": lambda row, text: row["protocol"] == PROTOCOLS.get(text.lower(), text),
    "tcp_flags": lambda row, text: (
        row["tcp_flags"] is not None and set(text.upper().split(",")) <= set(row["tcp_flags"])
    ),
    "direction": lambda row, text: row["direction"] == text.lower(),
    "ip_version": lambda row, text: row["ip_version"] == int(text),
    "node": lambda row, text: _like(row["node"], text),
    "interface": lambda row, text: _like(row["in_interface"], text) or _like(row["out_interface"], text),
    "prefix": lambda row, text: _like(row["prefix"], text),
    "policy": lambda row, text: (
        _like(row["policy_name"], text)
        or (
            row["policy_namespace"] is not None
            and _like(f"shop/{row['policy_name']}", text)
            and bool(row["policy_name"])
        )
    ),
}


def _values(chosen: dict[str, list[int]]) -> dict[str, list[str]]:
    """Numbers from Hypothesis as values: odd ones are negated."""
    return {
        name: [("!" if number % 2 else "") + CHOICES[name][number // 2 % len(CHOICES[name])] for number in numbers]
        for name, numbers in chosen.items()
    }


def _holds(row: dict[str, Any], chosen: dict[str, list[str]]) -> bool:
    for name, values in chosen.items():
        wanted = [value for value in values if not value.startswith("!")]
        if wanted and not any(MODEL[name](row, value) for value in wanted):
            return False
        if any(MODEL[name](row, value[1:]) for value in values if value.startswith("!")):
            return False
    return True


@dataclass(frozen=True)
class Many:
    """One store with many packets, open to be asked, and the packets."""

    reader: Reader
    rows: list[dict[str, Any]]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, commit: Callable[..., Commit]) -> Iterator[Many]:
    """A store with 600 packets of random values."""
    chance = random.Random(11)
    rows = [{name: chance.choice(values) for name, values in VALUES.items()} for _ in range(600)]
    store = str(tmp_path_factory.mktemp("many") / "store")
    with Writer(store) as writer:
        writer.commit(commit(rows[:300]))
        writer.commit(commit({"source_offset": 100 * number, **row} for number, row in enumerate(rows[300:], 300)))
    with Reader(store, zone="Asia/Kathmandu") as reader:
        yield Many(reader, rows)


@settings(max_examples=60, deadline=None)
@given(chosen=CHOSEN.map(_values))
def test_filters_agree_with_a_plain_model(many: Many, chosen: dict[str, list[str]]) -> None:
    """Any combination of filters finds exactly the packets that a plain Python reading of them finds."""
    found = where(chosen, now=NOW, zone=ZONE)
    sql = f"SELECT source_offset // 100 FROM attributed WHERE {found.sql} ORDER BY 1"
    expected = [number for number, row in enumerate(many.rows) if _holds(row, chosen)]
    assert [row[0] for row in many.reader.rows(sql, found.parameters).rows] == expected


@pytest.mark.parametrize("name", sorted(CHOICES))
def test_each_value_of_each_filter(many: Many, name: str) -> None:
    """Each value alone, and its negation, finds what the model finds."""
    for value in (sign + choice for choice in CHOICES[name] for sign in ("", "!")):
        found = where({name: value}, now=NOW, zone=ZONE)
        sql = f"SELECT count(*) FROM attributed WHERE {found.sql}"
        expected = sum(_holds(row, {name: [value]}) for row in many.rows)
        assert (value, many.reader.rows(sql, found.parameters).rows) == (value, [(expected,)])


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("since", "yesterday"), ("since", "5 minutes"), ("since", ""), ("until", "9" * 400 + "d"),
        ("since", "999999999w"),
        ("ip", "10.0.0"), ("from-ip", "host.example"), ("to-ip", "10.0.0.0/33"), ("ip", "fe80::1/x"), ("ip", "!"),
        ("port", "65536"), ("from-port", "http"), ("to-port", "90-80"), ("port", "-1"), ("port", "٣"),
        ("protocol", "quic"), ("protocol", "256"), ("tcp-flags", "SYN,XYZ"), ("tcp-flags", ""),
        ("direction", "up"), ("ip-version", "5"), ("node", "!"), ("policy", ""),
    ],
)  # fmt: skip
def test_bad_values_are_one_sentence(flag: str, value: str) -> None:
    """A value that a filter cannot use is named with its flag, and what was expected."""
    if not value:
        with pytest.raises(FilterError):
            where({flag: [value]}, now=NOW, zone=UTC)
        return
    with pytest.raises(FilterError) as caught:
        where({flag: value}, now=NOW, zone=UTC)
    assert str(caught.value).startswith(f"--{flag} {value!r}: expected ")
    assert "\n" not in str(caught.value)


def test_values_never_become_sql(many: Many) -> None:
    """A value with quotes is a value."""
    found = where({"node": "x' OR 'a' = 'a"}, now=NOW, zone=UTC)
    assert many.reader.rows(f"SELECT count(*) FROM attributed WHERE {found.sql}", found.parameters).rows == [(0,)]


def test_no_filter_is_every_packet() -> None:
    """Flags that were not given do not count."""
    assert where({"ip": None, "node": [], "port": ()}, now=NOW, zone=UTC) == Where()


PREFIXED: dict[str, Any] = {"policy_tier": None, "policy_kind": None}


def _brute_top(rows: list[dict[str, Any]], keys: tuple[str, ...]) -> list[tuple[Any, ...]]:
    packets: dict[tuple[Any, ...], int] = defaultdict(int)
    for row in rows:
        if row["follow_up"] is None:
            packets[tuple({**PREFIXED, **row}[key] for key in keys)] += max(row["repeat_count"], 1)
    return sorted(
        ((*key, count) for key, count in packets.items()),
        key=lambda entry: (-entry[-1], [(value is None, value) for value in entry[:-1]]),
    )


OWN = {column.name for column in TABLE["packets"].columns}
PLAIN_GROUPINGS = [by for by, grouping in queries.GROUPINGS.items() if set(grouping.keys) <= OWN]


@pytest.mark.parametrize("by", sorted(set(queries.GROUPINGS) - set(PLAIN_GROUPINGS)))
def test_top_of_what_an_inventory_tells(many: Many, by: str) -> None:
    """Without an inventory each grouping by it still counts every packet once."""
    expected = sum(count for *_, count in _brute_top(many.rows, ()))
    found = queries.top(many.reader, by, Where(), 10_000).rows
    assert sum(row[found.columns.index("packets")] for row in found.rows) == expected


@pytest.mark.parametrize("by", PLAIN_GROUPINGS)
def test_top_by_brute_force(many: Many, by: str) -> None:
    """Each grouping counts packets as a plain loop does, in a stable order, with and without a filter."""
    keys = queries.GROUPINGS[by].keys
    for chosen in ({}, {"direction": ["ingress"], "protocol": ["!udp"]}):
        expected = _brute_top([row for row in many.rows if _holds(row, chosen)], keys)
        answer = queries.top(many.reader, by, where(chosen, now=NOW, zone=UTC), 10_000)
        width = len(keys)
        assert [row[: width + 1] for row in answer.rows.rows] == expected
        assert answer.rows.columns[width : width + 3] == ("packets", "first", "last")
        assert not answer.cut


def test_top_counts_counterparts(many: Many) -> None:
    """Beside the packets stand the first and last time and the distinct counterparts."""
    answer = queries.top(many.reader, "source", where({"ip": "10.0.0.1"}, now=NOW, zone=UTC), 1)
    (first,) = answer.rows.dicts()
    own = [
        row
        for row in many.rows
        if row["source_ip"] == first["source_ip"] and row["follow_up"] is None and _holds(row, {"ip": ["10.0.0.1"]})
    ]
    times = [row["time"] for row in own if row["time"]]
    assert (first["first"], first["last"]) == (min(times), max(times))
    assert first["destinations"] == len({row["destination_ip"] for row in own} - {None})
    assert first["ports"] == len(
        {(row["protocol"], row["destination_port"]) for row in own if row["destination_port"] is not None}
    )
    assert first["nodes"] == len({row["node"] for row in own} - {None})


def test_cut_answers_say_so(many: Many) -> None:
    """An answer of exactly as many rows as there are is not cut; one row less is."""
    total = len(_brute_top(many.rows, ("node",)))
    assert not queries.top(many.reader, "node", Where(), total).cut
    assert queries.top(many.reader, "node", Where(), total - 1).cut
    assert not queries.packets(many.reader, Where(), 600).cut
    assert queries.packets(many.reader, Where(), 599).cut


@pytest.mark.parametrize(("bucket", "minutes"), [("10m", 10), ("1h", 60), ("90s", 1.5)])
def test_timeline_by_brute_force(many: Many, bucket: str, minutes: float) -> None:
    """Each stretch of time has the packets that a plain loop puts there; rows without a time are in none."""
    expected: dict[datetime, int] = defaultdict(int)
    width = timedelta(minutes=minutes)
    midnight = datetime(2000, 1, 3, tzinfo=ZONE)
    for row in many.rows:
        if row["time"] and row["follow_up"] is None:
            expected[midnight + (row["time"] - midnight) // width * width] += max(row["repeat_count"], 1)
    for step in range(int((max(expected) - min(expected)) / width)):
        expected[min(expected) + step * width] += 0
    assert queries.timeline(many.reader, bucket, Where()).rows.rows == sorted(expected.items())


def test_days_begin_at_midnight_of_the_zone(filled: Fill) -> None:
    """A day of the timeline begins at midnight where the reader is, also on the day of a change of clocks."""
    times = [datetime(2026, 3, 29, hour, 30, tzinfo=UTC) for hour in (0, 12, 21, 23)]
    with Reader(filled({"time": time} for time in times), zone="Europe/Berlin") as reader:
        answer = queries.timeline(reader, "1d", Where())
        assert [(row[0].isoformat(), row[1]) for row in answer.rows.rows] == [
            ("2026-03-29T00:00:00+01:00", 3),
            ("2026-03-30T00:00:00+02:00", 1),
        ]
        with pytest.raises(ValueError, match="fortnight"):
            queries.timeline(reader, "fortnight", Where())


def test_packets_by_time(many: Many) -> None:
    """Newest first is by time, rows without one last; oldest first is the reverse."""
    rows = queries.packets(many.reader, Where(), 1000).rows.dicts()
    times = [row["time"] for row in rows]
    known = [time for time in times if time]
    assert known == sorted(known, reverse=True)
    assert times[len(known) :] == [None] * (600 - len(known))
    assert queries.packets(many.reader, Where(), 1000, oldest_first=True).rows.dicts() == rows[::-1]


def test_following_gives_each_packet_once(folder: str, commit: Callable[..., Commit]) -> None:
    """From a place on, each packet that comes later is given once, in pages, whatever its time says."""
    with Writer(folder) as writer:
        writer.commit(commit({"source_offset": number} for number in range(5)))
        with Reader(folder) as reader:
            place = queries.newest(reader)
            assert len(queries.packets(reader, Where(), 100, upto=place).rows.rows) == 5
            early = START - timedelta(days=300)
            for start in (5, 12):
                writer.commit(commit({"source_offset": number, "time": early} for number in range(start, start + 7)))
            assert len(queries.packets(reader, Where(), 100, upto=place).rows.rows) == 5
            seen = []
            cut = True
            while cut:
                answer, place = queries.packets_after(reader, Where(), 4, place)
                cut = answer.cut
                seen += [row["source_offset"] for row in answer.rows.dicts()]
            assert seen == list(range(5, 19))
            assert queries.packets_after(reader, Where(), 4, place)[0].rows.rows == []


def test_following_an_empty_store(folder: str, commit: Callable[..., Commit]) -> None:
    """Without any row there is no place, and following begins with the first row that comes."""
    with Writer(folder) as writer, Reader(folder) as reader:
        assert queries.newest(reader) is None
        assert queries.packets_after(reader, Where(), 4, None)[1] is None
        writer.commit(commit([{}]))
        assert len(queries.packets_after(reader, Where(), 4, None)[0].rows.rows) == 1


def test_status(folder: str, commit: Callable[..., Commit]) -> None:
    """Status tells position, lag, balance, rejects, losses, times and sizes, from committed rows only."""
    reject = RejectRow(START, None, "f00d", 1, "malformed", 0, "", "x")
    with Writer(folder) as writer:
        with Reader(folder) as reader:
            empty = status(reader)
        made = commit([{}] * 150, lines=160, others=9, rejects=1, packets=150, offset=1000, size=1500)
        writer.commit(
            Commit(made.packets, (reject,), (LossRow(START, None, "f00d", 1, "kernel", 7, ""),), made.positions)
        )
        writer.commit(commit([], file="bad", lines=3, packets=1))
        with Reader(folder) as reader:
            found = status(reader)
    assert (empty.sources, empty.rows, empty.last_commit, empty.balanced) == ((), 0, None, True)
    assert [(source.position.file, source.lag_bytes, source.balanced) for source in found.sources] == [
        ("f00d", 500, True),
        ("bad", 0, False),
    ]
    assert not found.balanced
    assert (found.rows, found.first_time, found.last_time) == (150, START, START)
    assert [(entry.reason, entry.kept, entry.beyond) for entry in found.rejects] == [("malformed", 1, 0)]
    assert [(entry.source, entry.reports, entry.lines) for entry in found.losses] == [("kernel", 1, 7)]
    assert found.catalog_bytes > 0
    assert found.data_bytes > 0
