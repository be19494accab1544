"""The views: each packet once, by brute force and pair by pair, and the kernel's own names."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from analytics import Reader

Fill = Callable[[Iterable[dict[str, Any]]], str]


def _brute_distinct(rows: list[dict[str, Any]]) -> int:
    """One packet for each millisecond, from its first line on, of a run of lines that are within 1 ms of each other."""
    stamps: dict[Any, list[int]] = defaultdict(list)
    for row in rows:
        if row["uptime_s"] is not None:
            stamps[row["ip_id"]].append(round(row["uptime_s"] * 1e6))
    count = sum(row["uptime_s"] is None for row in rows)
    for own in stamps.values():
        run = previous = -(10**9)
        slots: set[tuple[int, int]] = set()
        for stamp in sorted(own):
            run = stamp if stamp - previous > 1000 else run
            previous = stamp
            slots.add((run, (stamp - run) // 1001))
        count += len(slots)
    return count


def test_distinct_packets_by_brute_force(filled: Fill) -> None:
    """Lines of one packet within 1 ms count once; other packets, later lines and lines without a stamp do not merge."""
    chance = random.Random(5)
    rows = [
        {"uptime_s": chance.choice([None, 7e6 + chance.randrange(9000) / 1e6]), "ip_id": chance.randrange(4)}
        for _ in range(80)
    ]
    with Reader(filled(rows)) as reader:
        assert reader.rows("SELECT count(*) FROM distinct_packets").rows == [(_brute_distinct(rows),)]


PAIRS: list[tuple[dict[str, Any], int]] = [
    ({}, 1),
    ({"prefix": "other", "policy_name": "other"}, 1),
    ({"uptime_s": 1.001}, 1),
    ({"uptime_s": 1.001001}, 2),
    ({"node": "another"}, 2),
    ({"ip_id": 8}, 2),
    ({"source_port": 1}, 2),
    ({"length": 61}, 2),
    ({"ip_version": 6, "ip_id": None}, 2),
    ({"uptime_s": None}, 2),
]


def test_distinct_packets_pairs(filled: Fill) -> None:
    """What two log lines must share to be one packet: `mark` tells the pairs apart and is no part of the rule."""
    rows = [
        {"mark": number, "destination_ip": f"10.9.9.{number}", **changes}
        for number, (more, _) in enumerate(PAIRS)
        for changes in ({}, more)
    ]
    with Reader(filled(rows)) as reader:
        found = reader.rows("SELECT mark, count(*) FROM distinct_packets GROUP BY mark ORDER BY mark").rows
        assert found == [(number, count) for number, (_, count) in enumerate(PAIRS)]
        everything = reader.rows("SELECT * FROM distinct_packets")
        assert everything.columns == reader.rows("SELECT * FROM packets").columns


def test_kernel_names(filled: Fill) -> None:
    """`calico_packet` shows what the kernel printed, under its names and in its units."""
    rows = [
        {"tos": 0xE2, "ttl": 63, "fragment_offset": 1480, "mark": 5},
        {"ip_version": 6, "tos": 1, "ttl": 9, "protocol": "icmpv6", "tcp_flags": None, "icmp_type": 128},
    ]
    with Reader(filled(rows)) as reader:
        first, second = reader.rows('SELECT * FROM calico_packet ORDER BY "TC" NULLS FIRST').dicts()
    shown = {
        name: first[name]
        for name in ("IN", "SRC", "TOS", "PREC", "TTL", "HOPLIMIT", "FRAG", "PROTO", "SYN", "ACK", "MARK")
    }
    assert shown == {
        "IN": "eth0", "SRC": "10.0.0.1", "TOS": 2, "PREC": 0xE0, "TTL": 63, "HOPLIMIT": None, "FRAG": 185,
        "PROTO": "TCP",
        "SYN": True, "ACK": False, "MARK": 5,
    }  # fmt: skip
    assert (second["PROTO"], second["TC"], second["HOPLIMIT"], second["TYPE"]) == ("ICMPv6", 1, 9, 128)
