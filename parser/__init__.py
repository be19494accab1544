"""What one log line means: no I/O, no clock, no environment."""

from parser.line import parse
from parser.options import Options
from parser.outcome import REASONS, TOO_LONG, Loss, Other, Outcome, Reject
from parser.packet import FIELDS, Field, Packet

__all__ = [
    "FIELDS",
    "REASONS",
    "TOO_LONG",
    "Field",
    "Loss",
    "Options",
    "Other",
    "Outcome",
    "Packet",
    "Reject",
    "parse",
]
