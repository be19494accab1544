"""How far a forwarder is: where it reads, what is acknowledged for good, and what retention took before it was sent.

Rule: the mark never goes back. Packets that are sent again (a replay) move only the place of reading, until they reach
the mark.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from analytics.queries import Cursor
from collector.forward.backlog import Look, Page
from collector.forward.counters import Counters
from collector.forward.formats import Message
from collector.forward.marks import Mark, Marks

_LOG = logging.getLogger(__name__)


class Progress:
    """`at` is the place after which the next packet is read; raises StoreError where a mark cannot be kept now."""

    def __init__(self, marks: Marks, counters: Counters, *, replay: bool) -> None:
        self._marks = marks
        self._mark = marks.load()
        self._unsaved = False
        self._counters = counters
        self.at = None if replay else self._mark.cursor
        counters.dropped["retention"] = self._mark.dropped

    def account(self, look: Look) -> None:
        """Note how much waits, and what retention has taken since the last look."""
        self._counters.queue_rows = look.wanted
        if self._unsaved:
            self._keep(self._mark)
        if self.at != self._mark.cursor:
            return
        gone = 0 if self._mark.passed is None else max(0, look.passed - self._mark.passed)
        if gone:
            self._counters.dropped["retention"] += gone
            _LOG.warning(
                "%s: %d packets were removed from the store before they were sent", self._counters.target, gone
            )
        if look.passed != self._mark.passed:
            self._keep(replace(self._mark, passed=look.passed, dropped=self._mark.dropped + gone))

    def arrived(self, messages: Sequence[Message], page: Page) -> None:
        """These messages have arrived, and everything up to the end of `page` is done with."""
        counters = self._counters
        counters.sent += len(messages)
        counters.octets += sum(len(message.data) for message in messages)
        counters.cut += sum(message.cut for message in messages)
        counters.queue_rows = max(0, counters.queue_rows - len(messages))
        before, self.at = self.at, page.end
        mark = self._mark
        if mark.cursor is not None and _key(page.end) <= _key(mark.cursor):
            return
        # After a replay, or in the middle of a page with a filter, the packets between are not known: the next look
        # counts them anew.
        known = before == mark.cursor and mark.passed is not None and page.passed is not None
        passed = (mark.passed or 0) + (page.passed or 0) if known else None
        self._keep(replace(mark, cursor=page.end, messages=mark.messages + len(messages), passed=passed))

    def _keep(self, mark: Mark) -> None:
        """What cannot be saved now (a full disk) is saved at the next look: it has arrived all the same."""
        self._mark, self._unsaved = mark, True
        self._marks.save(mark)
        self._unsaved = False


def _key(cursor: Cursor) -> tuple[object, ...]:
    return cursor.stored_at, cursor.source_file, cursor.source_offset
