"""A finding of the doctor, and the words that several checks use.

Rule: every finding says what was looked at, what was found, and what puts it right.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from collector.facts import Facts
from collector.rules import LogRule
from parser.prefix import match

Status = Literal["ok", "warn", "fail", "skip"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was found, and the command or the step that puts it right ("" where nothing has to be done)."""

    check: str
    status: Status
    found: str
    fix: str = ""


Check = Callable[[Facts], Iterator[Finding]]


def ours(facts: Facts) -> list[LogRule]:
    """The rules whose prefix denylog takes."""
    return [rule for rule in facts.rules.found if match(rule.prefix, facts.options) is not None]


def prefixes(facts: Facts) -> str:
    return " or ".join(map(repr, facts.options.prefixes))


def word(prefix: str) -> str:
    return shlex.quote(prefix.rstrip(": "))


def span(length: timedelta) -> str:
    """A length of time in the largest unit that is not too coarse."""
    seconds = abs(length).total_seconds()
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size or (unit == "days" and seconds >= 0.9 * size):
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
