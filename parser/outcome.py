"""What one line turned out to be: a packet, somebody else's line, a reject with its reason, or a report of loss.

Rule: every line has exactly one outcome, and a reject always says why and where.
"""

from __future__ import annotations

from dataclasses import dataclass

from parser.packet import Packet


@dataclass(frozen=True, slots=True)
class Other:
    """A line that is not ours: no denied packet, nothing lost."""


@dataclass(frozen=True, slots=True)
class Reject:
    """A line that carries our prefix and is not believed.

    `reason` is one of the names in `REASONS`; `position` is the index of the character in the decoded line
    where reading stopped (0 where the whole line is meant); `detail` says what was expected there.
    """

    reason: str
    position: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Loss:
    """A line by which a program admits that log lines are missing; `count` is None where it does not say how many."""

    source: str
    count: int | None = None


Outcome = Packet | Other | Reject | Loss

NOT_FROM_THE_KERNEL = "not from the kernel"
MALFORMED = "malformed"
SPLICED = "spliced"
NO_HEAD = "no IN= and OUT="
HEAD_CUT = "head cut"
FOREIGN_FORMAT = "foreign format"
BAD_ADDRESS = "bad address"
OUT_OF_RANGE = "number out of range"
TOO_LONG = "line too long"
REASONS: dict[str, str] = {
    NOT_FROM_THE_KERNEL: "the line has our prefix, but its tag or transport is not the kernel's",
    MALFORMED: "the text leaves the kernel's grammar at the position given",
    SPLICED: "two records run into each other; neither can be trusted",
    NO_HEAD: "our prefix is there, IN= and OUT= are not",
    HEAD_CUT: "the beginning of the record is missing, and with it the addresses",
    FOREIGN_FORMAT: "another logger's format (ulogd2, pve-firewall): like the kernel's, but not it",
    BAD_ADDRESS: "an address that is none (redacted, or edited)",
    OUT_OF_RANGE: "a number that its field cannot hold",
    TOO_LONG: "the line is longer than the limit",
}
