"""What counts as a log gone silent: learned from the gaps there were, said once, taken back when packets return."""

from __future__ import annotations

import logging

import polars as pl
import pytest

from analytics import Position, StoreError
from collector.health import STUCK_S, UNCOMMITTED_S, Health
from collector.rows import Piece
from collector.silence import FLOOR_S, FRESH_S, Silence
from tests.collector.clock import Clock, packet_piece, plain_piece

HOUR = 3600.0
DAY = 24 * HOUR


def learned(gap: float, count: int = 100) -> Silence:
    """A log with a packet every `gap` seconds, the last one heard of at moment 0."""
    silence = Silence()
    silence.packets([1e9 + number * gap for number in range(count)], 1.0)
    return silence


@pytest.mark.parametrize(("gap", "usual"), [(60.0, FLOOR_S), (HOUR, 2 * HOUR)])
def test_usual_is_twice_the_longest_gap(gap: float, usual: float) -> None:
    """Silence is unusual beyond twice the longest gap seen, and never below a quarter of an hour."""
    silence = learned(gap)
    silence.grew(usual - 60)
    assert not silence.verdict(usual - 10).silent
    silence.grew(usual + 60)
    assert silence.verdict(usual + 61).silent
    assert silence.verdict(usual + 61).limit == usual


def test_nothing_is_said_while_learning() -> None:
    """Few packets, or packets of less than an hour, teach nothing about silence."""
    for silence in (learned(HOUR, count=15), learned(1.0)):
        silence.grew(30 * DAY)
        assert silence.verdict(30 * DAY + 1).limit == 0
        assert not silence.verdict(30 * DAY + 1).silent


def test_a_log_that_does_not_grow_is_not_silent() -> None:
    """Where nothing at all is logged, denied packets are not what is missing."""
    silence = learned(60.0)
    silence.grew(HOUR)
    assert silence.verdict(HOUR + 1).silent
    assert not silence.verdict(HOUR + FRESH_S + 1).silent


def test_a_night_is_learned_and_forgotten_after_eight_days() -> None:
    """The longest gap of each of the last eight days counts, and one of longer ago no more."""
    silence = learned(60.0)
    night = 1e9 + 99 * 60 + 8 * HOUR
    silence.packets([night], 2.0)
    assert silence.verdict(3.0).limit == 16 * HOUR
    for day in range(1, 10):
        silence.packets([night + day * DAY + minute * 60 for minute in range(24 * 60)], 3.0)
    assert silence.verdict(4.0).limit < 16 * HOUR


def test_stamps_out_of_order_teach_no_gaps() -> None:
    """A forged or wrong time stamp before the last one is no gap."""
    silence = learned(60.0)
    before = silence.verdict(2.0).limit
    silence.packets([1.0, 5e8], 3.0)
    assert silence.verdict(4.0).limit == before


def test_a_stamp_from_the_future_teaches_nothing() -> None:
    """A forged time stamp of next year neither becomes the last packet nor makes a gap of a year usual."""
    health = Health(clock=Clock())
    health.committed([packet_piece([1e9 + 60.0 * number for number in range(100)])], 0.1)
    before = health._silence.verdict(0.0).limit
    health.committed([packet_piece([4e9])], 0.1)
    assert health._silence.verdict(0.0).limit == before


def test_warned_once_and_taken_back(caplog: pytest.LogCaptureFixture) -> None:
    """The warning comes once, names the doctor, and ends when packets return."""
    clock = Clock()
    health = Health(clock=clock)
    health.opened([], 0.0, lambda names: {})
    health.committed([packet_piece([1e9 + 60.0 * number for number in range(100)])], 0.1)
    with caplog.at_level(logging.WARNING):
        for _ in range(200):
            clock.now += 60
            health.committed([plain_piece(5)], 0.1)
            health.looked(())
        assert [record.message for record in caplog.records if "no denied packet" in record.message] == [
            caplog.records[0].message
        ]
        assert "denylog doctor" in caplog.records[0].message
        health.committed([packet_piece([1e9 + 99 * 60 + 12_000])], 0.1)
        health.looked(())
    assert caplog.records[-1].message == "denied packets are logged again"


def test_ready_names_what_is_wrong() -> None:
    """Not ready before the store is open, while it refuses, while a commit is overdue, while a file is unreadable."""
    clock = Clock()
    health = Health(clock=clock)
    assert health.ready() == "the store is not open yet"
    health.opened([], 0.0, lambda names: {})
    assert health.ready() == ""
    health.handed_over()
    clock.now += UNCOMMITTED_S + 1
    assert "waited for its commit" in health.ready()
    health.refused(StoreError("/store", "No space left on device"))
    assert health.ready() == "the store takes no rows: /store: No space left on device"
    health.committed([plain_piece(1)], 31.0)
    health.looked([("/var/log/syslog", "Permission denied")])
    assert health.ready() == "/var/log/syslog: Permission denied"


def test_alive_while_waiting_for_the_store() -> None:
    """A reader that waits for the store is alive; one that does nothing for two minutes is not."""
    clock = Clock()
    health = Health(clock=clock)
    for _ in range(10):
        clock.now += STUCK_S - 1
        health.beat()
    assert health.alive() == ""
    clock.now += STUCK_S + 1
    assert "has not moved" in health.alive()
    assert "has not moved" in [*health._reasons()][-1]


def test_pieces_of_the_tests_are_as_the_collector_makes_them() -> None:
    """The columns that health looks at are those of a real packet."""
    piece = packet_piece([1.0])
    assert isinstance(piece, Piece)
    assert isinstance(piece.position, Position)
    assert piece.packets[0].schema["time"] == pl.Datetime("us", "UTC")
