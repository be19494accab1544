"""Small tools for text: regular expressions made from plain words, and the canonical form of an IPv6 address.

Rule: no knowledge of any log format here, and no import beyond the standard library.
"""

from __future__ import annotations

import re

_ZEROS = re.compile(r"(?:^|:)0(?::0)+(?::|$)")


def beginning(text: str) -> str:
    """A regular expression for the beginnings of `text`, from none of it to all of it."""
    pattern = ""
    for character in reversed(text):
        pattern = f"(?:{re.escape(character)}{pattern})?"
    return pattern


def compressed(address: str) -> str:
    """The RFC 5952 text of an IPv6 address that is printed in full (never with a dotted quad)."""
    short = ":".join(group.lstrip("0") or "0" for group in address.split(":"))
    runs = _ZEROS.findall(short)
    if not runs:
        return short
    longest = max(runs, key=lambda run: run.count("0"))
    return short.replace(longest, "::", 1)
