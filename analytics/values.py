"""Values of the store as other programs and people can take them: plain JSON values, and text that is safe to show.

Rule: nothing that came out of a log may act on a terminal or a spreadsheet; nothing is rounded or dropped for it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from typing import Any

from analytics.reader import Rows


def plain(value: Any, zone: tzinfo | None) -> Any:
    """`value` as JSON knows it: times in ISO 8601 with their offset, moved to `zone` (None: that of the system).

    NaN and infinity, which JSON lacks, become None; bytes become hexadecimal text; intervals become seconds.
    """
    if isinstance(value, datetime) and value.tzinfo:
        return value.astimezone(zone).isoformat()
    if isinstance(value, Mapping):
        return {str(key): plain(entry, zone) for key, entry in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(entry, zone) for entry in value]
    return next((form(value) for kinds, form in _FORMS if isinstance(value, kinds)), str(value))


def _number(value: Decimal) -> int | float | str | None:
    """A decimal with more digits than a float holds becomes text."""
    if not value.is_finite():
        return None
    if value == value.to_integral_value():
        return int(value)
    return float(value) if Decimal(repr(float(value))) == value else str(value)


def _same(value: Any) -> Any:
    return value


_FORMS: tuple[tuple[tuple[type, ...], Callable[[Any], Any]], ...] = (
    ((type(None), bool, int, str), _same),
    ((float,), lambda value: value if math.isfinite(value) else None),
    ((datetime, date, time), lambda value: value.isoformat()),
    ((timedelta,), timedelta.total_seconds),
    ((Decimal,), _number),
    ((bytes, bytearray, memoryview), lambda value: bytes(value).hex()),
)


def records(rows: Rows, zone: tzinfo | None) -> list[dict[str, Any]]:
    """One JSON-ready mapping for each row; columns of type JSON come as what they hold."""
    nested = [kind == "JSON" for kind in rows.types]
    return [
        {
            name: json.loads(value) if is_json and isinstance(value, str) else plain(value, zone)
            for name, value, is_json in zip(rows.columns, row, nested, strict=True)
        }
        for row in rows.rows
    ]


# C0, DEL, C1, line and paragraph separators, and the characters that turn the direction of text (Unicode TR 36).
_ACTING = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def harmless(text: str) -> str:
    """`text` with every character that could act on a terminal written as an escape (`\\x1b`, `\\u202e`)."""
    return _ACTING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def json_text(value: object) -> str:
    """`value` in one line of JSON; what could act on a terminal is escaped, which changes nothing for a JSON reader."""
    return _ACTING.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))


def cell(value: Any, zone: tzinfo | None) -> str:
    """`value` in one line for a person; null is empty."""
    found = plain(value, zone)
    if found is None:
        return ""
    if isinstance(found, list) and all(isinstance(entry, str) for entry in found):
        return harmless(",".join(found))
    if isinstance(found, str):
        return harmless(found)
    return json_text(found)
