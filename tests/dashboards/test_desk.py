"""The desk: questions are asked once, and no longer than somebody waits for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from analytics import Writer
from analytics.guard import QueryError
from analytics.reader import Reader
from dashboards.desk import Desk

ENDLESS = "SELECT count(*) FROM range(1000000000) a, range(1000000000) b WHERE a.range + b.range = 7"
# An endless question that was left must have ended by then, on however busy a machine.
SOON_S = 30


class Gone(BaseException):
    """Somebody does not wait any more."""


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """The desk of an empty store."""
    store = tmp_path / "store"
    with Writer(str(store)):
        pass
    made = Desk(str(store))
    yield made
    made.close()


def endless(reader: Reader) -> object:
    """A question without an end."""
    return reader.rows(ENDLESS).rows


def leaving(after_s: float) -> Callable[[], None]:
    """What to heed for somebody who leaves after so many seconds."""
    end = time.monotonic() + after_s

    def heed() -> None:
        if time.monotonic() >= end:
            raise Gone

    return heed


def wait_for(reached: Callable[[], bool]) -> None:
    """Until it is so; fails where it is not soon."""
    end = time.monotonic() + SOON_S
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_question_ends_when_nobody_waits(desk: Desk) -> None:
    """Who leaves is let go at once, the question ends, and its reader answers the next one."""
    desk.moment("UTC", datetime.now(UTC))
    before = desk._idle[-1][1]
    with pytest.raises(Gone):
        desk.ask(1, "UTC", "endless", endless, leaving(0.2))
    wait_for(lambda: bool(desk._idle))
    assert desk.ask(1, "UTC", "short", lambda reader: reader is before)
    assert desk.ask(1, "UTC", "endless", lambda reader: reader.rows("SELECT 1").rows) == [(1,)]


def test_question_goes_on_while_somebody_waits(desk: Desk) -> None:
    """Of two who wait for the same answer one leaves: the other gets it."""
    end = time.monotonic() + 1

    def second(reader: Reader) -> int:
        while time.monotonic() < end:
            reader.rows("SELECT 1")
        return 7

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(desk.ask, 1, "UTC", "slow", second, lambda: None)
        wait_for(lambda: bool(desk._answers))
        with pytest.raises(Gone):
            desk.ask(1, "UTC", "slow", endless, leaving(0.1))
        assert other.result() == 7


def test_question_asked_for_nobody_ends_with_the_one_who_waited(desk: Desk) -> None:
    """Who asks ahead does not keep a question going: it ends when the one who came for the answer leaves."""
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(desk.ask, 1, "UTC", "endless", endless)
        wait_for(lambda: bool(desk._answers))
        with pytest.raises(Gone):
            desk.ask(1, "UTC", "endless", endless, leaving(0.3))
        with pytest.raises(CancelledError):
            ahead.result(timeout=SOON_S)


def test_moment_does_not_queue_behind_questions(desk: Desk) -> None:
    """With more endless questions than are asked at once, a page still begins at once; who waited in the queue and
    leaves is let go at once, too."""
    over = threading.Event()

    def until_over() -> None:
        if over.is_set():
            raise Gone

    with ThreadPoolExecutor(2) as pool:
        busy = [pool.submit(desk.ask, 1, "UTC", name, endless, until_over) for name in ("a", "b")]
        try:
            wait_for(lambda: len(desk._answers) == 2 and all(asked.reader for asked in desk._answers.values()))
            assert desk.moment("UTC", datetime.now(UTC)).newest is None
            begin = time.monotonic()
            with pytest.raises(Gone):
                desk.ask(1, "UTC", "queued", endless, leaving(0))
            assert time.monotonic() - begin < 1
            assert not any(asked.done() for asked in busy)
        finally:
            over.set()
        for asked in busy:
            with pytest.raises(Gone):
                asked.result(timeout=SOON_S)


def test_same_question_is_asked_once(desk: Desk) -> None:
    """Eight who ask the same at the same time get one answer; a failure is not kept."""
    asked = []

    def question(reader: Reader) -> int:
        time.sleep(0.2)
        asked.append(reader)
        return len(asked)

    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(desk.ask, 1, "UTC", "same", question) for _ in range(8)]
    assert [answer.result() for answer in answers] == [1] * 8
    with pytest.raises(QueryError):
        desk.ask(1, "UTC", "wrong", lambda reader: reader.rows("SELECT nothing"))
    assert desk.ask(1, "UTC", "wrong", lambda reader: reader.rows("SELECT 1").rows) == [(1,)]


def test_what_is_kept_has_its_age(desk: Desk) -> None:
    """What was kept is there for everybody, with the time since; the newest counts."""
    assert desk.kept("hints") is None
    desk.keep("hints", 1)
    time.sleep(0.05)
    first = desk.kept("hints")
    assert first
    assert first.age_s >= 0.05
    desk.keep("hints", 2)
    second = desk.kept("hints")
    assert second
    assert second.value == 2
    assert second.age_s < first.age_s
