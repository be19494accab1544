"""A list of the Kubernetes API while it arrives: its items one by one, so that memory holds no whole list.

Rule: text in, values out, no I/O of its own. The order of the fields does not matter: typed lists have `metadata`
before `items`, lists of custom resources have it behind them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

_BLANKS = " \t\r\n"
_ENDS = frozenset(",:]}" + _BLANKS)


class Streamed:
    """One JSON object with a list named `items`, in chunks of text."""

    def __init__(self, chunks: Iterator[str]) -> None:
        self.fields: dict[str, Any] = {}
        """The other fields, as far as they have come; all of them once `items` has ended."""
        self._chunks = chunks
        self._text, self._at = "", 0
        self._decoder = json.JSONDecoder()

    def items(self) -> Iterator[Any]:
        """The items in turn. Raises ValueError for what is no JSON object, or ends too early."""
        self._take("{")
        while not self._closes("}"):
            key = self._value()
            self._take(":")
            if key == "items" and self._peek() == "[":
                self._take("[")
                while not self._closes("]"):
                    yield self._value()
            else:
                self.fields[key] = self._value()

    def _peek(self) -> str:
        """The next character that is no blank."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _BLANKS:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                raise ValueError("the answer ends too early")

    def _take(self, wanted: str) -> None:
        if self._peek() != wanted:
            raise ValueError(f"{wanted!r} expected")
        self._at += 1

    def _closes(self, closing: str) -> bool:
        """Whether the object or list ends here; else at the next key or value."""
        if self._peek() == ",":
            self._at += 1
        if self._peek() != closing:
            return False
        self._at += 1
        return True

    def _value(self) -> Any:
        """The next value; it has come whole where something follows that ends one, as something always does."""
        self._peek()
        while True:
            with suppress(json.JSONDecodeError):
                value, end = self._decoder.raw_decode(self._text, self._at)
                if self._text[end : end + 1] in _ENDS:
                    self._at = end
                    return value
            if not self._more():
                raise ValueError("the answer ends too early, or is no JSON")

    def _more(self) -> bool:
        chunk = next(self._chunks, None)
        if chunk is None:
            return False
        self._text, self._at = self._text[self._at :] + chunk, 0
        return True
