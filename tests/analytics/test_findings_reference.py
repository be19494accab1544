"""Findings of stores that were made at random, beside what a slow and plain reference finds in them.

Rule: thresholds are low, so that few packets lie on both sides of each; pieces are small, so that there are many.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from analytics import Reader, Writer, findings_facts
from analytics import findings as analytics_findings
from analytics.filters import where
from analytics.findings import Finding, findings
from analytics.findings_rules import RULE, Settings, settings
from analytics.inbox import deposit
from analytics.inventory import observe
from analytics.kinds import interface_name
from tests.analytics import findings_reference
from tests.analytics.cluster import node
from tests.analytics.conftest import make_commit
from tests.analytics.test_findings import pod_object

START = datetime(2026, 11, 20, 12, tzinfo=UTC)
DAYS = 3
LOW = """
[vertical_scan]
ports = 4
slow_ports = 6
pod_ports = 5
slow_window = "2h"
cooldown = "20m"
[horizontal_sweep]
hosts = 4
slow_hosts = 6
pod_hosts = 5
slow_window = "2h"
tries = 2
cooldown = "20m"
[spoofed_source]
packets = 2
[beaconing]
attempts = 4
span = "10m"
regularity = 0.7
cooldown = "2h"
[misconfigured_client]
attempts = 5
slots = 3
window = "3h"
cooldown = "3h"
[repeated_offender]
attempts = 5
slots = 3
cooldown = "2h"
[spike]
attempts = 4
factor = 2
days = 1
history = "2d"
[first_seen]
history = "12h"
cooldown = "2h"
"""
PODS = (
    ("shop", "cart-6d4cf56db6-aaaaa", "10.1.0.1", "2026-11-01T00:00:00Z"),
    ("shop", "cart-6d4cf56db6-bbbbb", "10.1.0.2", "2026-11-01T00:00:00Z"),
    ("shop", "web-6d4cf56db6-ccccc", "10.1.0.3", "2026-11-21T09:01:40Z"),
    ("jobs", "batch-6d4cf56db6-ddddd", "10.1.0.4", "2026-11-01T00:00:00Z"),
    ("jobs", "runner-6d4cf56db6-eeeee", "10.1.0.4", "2026-11-21T18:02:30Z"),
)
STRANGERS = tuple(f"203.0.113.{number}" for number in range(1, 9))
PAUSES = (0.2, 3, 19, 47, 100, 290, 299.5, 301, 600, 1500, 3700)
Period = tuple[datetime | None, datetime | None]
PERIODS: tuple[Period, ...] = (
    (None, None),
    (START + timedelta(days=1.4), None),
    (None, START + timedelta(days=1.9)),
    (START + timedelta(hours=9), START + timedelta(days=2.5)),
)
MUTES: tuple[tuple[str, ...], ...] = (
    (),
    ("203.0.113.2", "vertical_scan:10.1.0.1/32", "spike:namespace=jobs"),
    ("workload=shop/web", "horizontal_sweep:203.0.113.0/30", "misconfigured_client:workload=shop/cart"),
    ("repeated_offender:203.0.113.4/30", "beaconing:10.1.0.2", "first_seen:namespace=jobs", "spoofed_source:10.1.0.3"),
)
WORDS: tuple[dict[str, str], ...] = ({}, {}, {"from-class": "!node"}, {"direction": "egress"})
Row = dict[str, Any]


def packets(dice: random.Random) -> list[Row]:
    """What a few dozen sources do for three days: some try many ports or hosts, some the same again and again."""
    return [row for number in range(50) for row in (beats(dice) if number % 10 == 0 else act(dice))]


def beats(dice: random.Random) -> Iterator[Row]:
    """A pod that calls a stranger more or less regularly."""
    namespace, name, address, _ = dice.choice(PODS)
    begin, pause, late = dice.randrange(DAYS * 86400), dice.choice((47, 150, 301, 3700)), dice.choice((0, 0.02, 0.3))
    known: Row = {"source_ip": address, "in_interface": interface_name(namespace, name), "direction": "egress"}
    known |= {"destination_ip": dice.choice(STRANGERS), "destination_port": 8443, "out_interface": "eth0"}
    for number in range(dice.randrange(3, 25)):
        time = START + timedelta(seconds=begin + pause * (number + dice.uniform(-late, late)))
        yield {**known, "time": time, "source_port": 32768 + dice.randrange(20_000)}


def act(dice: random.Random) -> Iterator[Row]:
    """One source for a while, each SYN perhaps sent again, from a moment that is often near the edge of a slot."""
    begin = dice.randrange(DAYS * 288) * 300 + dice.choice((0, 150, 239, 241, 295, 299.9))
    pause, count, spread = dice.choice(PAUSES), dice.randrange(2, 14), dice.choice((0, 0, 0.05, 0.5))
    source, ways = sender(dice), (dice.random(), dice.random())
    again, own_port, aims = dice.choice(((0,), (0, 1, 3, 7), (0, 59, 61))), dice.random() < 0.2, receivers(dice)
    for number in range(count):
        port = 1 + number % 9 if ways[0] < 0.3 else dice.choice((80, 443)) if ways[0] < 0.5 else 5432
        aim = aims[number % len(aims)] if ways[1] < 0.4 else aims[0]
        at = begin + number * pause * (1 + dice.uniform(-spread, spread))
        flow = 32768 + (0 if own_port else dice.randrange(20_000))
        for later in again:
            time = START + timedelta(microseconds=int((at + later) * 1e6))
            known = {"time": time, "destination_ip": aim, "destination_port": port, "source_port": flow}
            yield {**known, **source, **dice.choice(KINDS), "repeat_count": dice.choice((0, 0, 0, 2))}


PING = {"protocol": "icmp", "tcp_flags": None, "source_port": None, "destination_port": None, "icmp_id": 3}
KINDS: tuple[Row, ...] = (
    *[{}] * 16,
    {"protocol": "udp", "tcp_flags": None},
    {"tcp_flags": ["ACK"]},
    {"tcp_flags": ["SYN", "ACK"]},
    {**PING, "icmp_type": 8, "icmp_seq": 1},
    {**PING, "icmp_type": 0, "icmp_seq": 2},
    {"node": "node-2"},
    {"direction": "egress"},
)


def sender(dice: random.Random) -> Row:
    """A pod by its interface, by its address, with an address that it does not have; a stranger; a node."""
    namespace, name, address, _ = dice.choice(PODS)
    pods = {"source_ip": address, "in_interface": interface_name(namespace, name), "direction": "egress"}
    pods["out_interface"] = dice.choice(("eth0", "cali0123456789a"))
    return dice.choice(
        (
            pods,
            {"source_ip": address, "in_interface": "eth0"},
            {**pods, "source_ip": dice.choice(("10.1.0.99", "203.0.113.3"))},
            {"source_ip": dice.choice(STRANGERS)},
            {"source_ip": "10.9.0.1", "in_interface": "cali0000000000a"},
            {"source_ip": "192.0.2.11"},
        )
    )


def receivers(dice: random.Random) -> list[str]:
    """Addresses inside, outside, or of everybody."""
    inside, outside = [entry[2] for entry in PODS] + [f"10.7.0.{n}" for n in range(6)], list(STRANGERS)
    chosen = dice.choice((inside, inside, outside, outside, ["239.1.1.1"]))
    return dice.sample(chosen, len(chosen))


def both(store: str, words: dict[str, str], chosen: Settings, period: Period,
         monkeypatch: pytest.MonkeyPatch) -> tuple[list[Finding], list[Finding]]:  # fmt: skip
    """What is found, and what the reference finds."""
    condition, (since, until) = where(words, now=START, zone=UTC), period
    with Reader(store) as reader:
        ours = findings(reader, condition, chosen, since=since, until=until)
        with monkeypatch.context() as patched:
            patched.setattr(analytics_findings, "_found", findings_reference.found)
            return ours, findings(reader, condition, chosen, since=since, until=until)


def made(folder: Path, seed: int) -> str:
    """A store with random packets, in two commits, and an inventory in which two pods have one address in turn."""
    store, rows = str(folder / f"store-{seed}"), packets(random.Random(seed))
    with Writer(store) as writer:
        for half in (rows[::2], rows[1::2]):
            writer.commit(make_commit(half, file=str(len(half)), lines=len(half)))
    deposit(store, observe([*(pod_object(*entry) for entry in PODS), node("worker-1", "192.0.2.11")], at=START))
    return store


# Seed -> the least number of rules that find something in its store.
SEEDS = {0: len(RULE), 1: 5, 2: 5, 3: 3}


@pytest.mark.parametrize("seed", SEEDS)
def test_same_as_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Each finding has the fields that the reference gives it, for any time and with sources passed over."""
    monkeypatch.setattr(findings_facts, "_PIECE", 60)
    chosen = settings((), MUTES[seed], "low.toml", LOW)
    ours, expected = both(made(tmp_path, seed), WORDS[seed], chosen, PERIODS[seed], monkeypatch)
    assert ours == expected
    assert len({finding.rule for finding in ours}) >= SEEDS[seed]
