"""Tables on the page and as files: the same rows, shown, as CSV and as JSON.

Rule: a cell is text or a number, never markup; a CSV cell that a spreadsheet would take for a formula is defused.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from analytics.output import short, write
from analytics.reader import Rows

_ROW_PIXELS = 35
_MIME = {"csv": "text/csv", "json": "application/json"}
_NUMBERS = ("BIGINT", "INTEGER", "SMALLINT", "HUGEINT", "UBIGINT", "DOUBLE", "FLOAT", "DECIMAL")


@dataclass(frozen=True, slots=True)
class Download:
    """One table that can be taken home: its name, and its rows, which are only made when it is asked for."""

    name: str
    rows: Callable[[], Rows]


def file_of(rows: Rows, form: str, zone: tzinfo) -> str:
    """The rows as the text of a file: 'csv' or 'json', times in `zone` with their offset."""
    stream = io.StringIO()
    write(rows, form, stream, zone=zone)
    return stream.getvalue()


def downloads(entries: Iterable[Download], zone: tzinfo) -> None:
    """A menu with each table as CSV and as JSON."""
    with st.popover("Download", icon=":material/download:", width="content"):
        for entry in entries:
            with st.container(horizontal=True, vertical_alignment="center"):
                st.text(entry.name.replace("-", " ").capitalize(), width=150)
                for form in _MIME:
                    st.download_button(
                        form.upper(),
                        data=partial(_made, entry.rows, form, zone),
                        file_name=f"denylog-{entry.name}.{form}",
                        mime=_MIME[form],
                        on_click="ignore",
                        key=f"download-{entry.name}-{form}",
                    )


def _made(rows: Callable[[], Rows], form: str, zone: tzinfo) -> str:
    return file_of(rows(), form, zone)


def frame(rows: Rows, zone: tzinfo) -> pd.DataFrame:
    """The rows as they are shown: numbers stay numbers, all else is text in one line."""
    columns: dict[str, list[Any]] = {}
    for place, (name, kind) in enumerate(zip(rows.columns, rows.types, strict=True)):
        cells = [row[place] for row in rows.rows]
        columns[name] = cells if _counts(name, kind) else [short(cell, zone) for cell in cells]
    return pd.DataFrame(columns)


def _counts(name: str, kind: str) -> bool:
    """Is this a number that counts something? A port is a name."""
    return kind.startswith(_NUMBERS) and not name.endswith("port")


def shown(value: object, zone: tzinfo) -> str:
    """A value in one line for a person: numbers with thousands separators, times in the zone."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return short(value, zone)


def table(
    rows: Rows,
    zone: tzinfo,
    *,
    key: str,
    titles: Mapping[str, str] | None = None,
    on_pick: Callable[[int], None] | None = None,
    height: int | None = None,
) -> None:
    """The rows as a table; `titles` chooses and names the columns, `on_pick` hears the number of a chosen row."""
    named = titles or {name: name.replace("_", " ").capitalize() for name in rows.columns}
    data = frame(rows, zone)
    numbers = {name for name, kind in zip(rows.columns, rows.types, strict=True) if _counts(name, kind)}
    config = {
        name: st.column_config.NumberColumn(title, format="localized")
        if name in numbers
        else st.column_config.TextColumn(title)
        for name, title in named.items()
    }
    # A table that was answered gets a new name: a row that stays marked would look like a filter.
    turn = st.session_state.setdefault(f"{key}-turn", 0)
    name = f"{key}-{turn}"
    given: dict[str, Any] = {"height": height} if height and len(data) * _ROW_PIXELS > height else {}
    if on_pick:
        given |= {"on_select": partial(_picked, name, key, on_pick), "selection_mode": "single-row"}
    st.dataframe(data, hide_index=True, column_order=list(named), column_config=config, key=name, **given)


def _picked(name: str, key: str, on_pick: Callable[[int], None]) -> None:
    chosen = st.session_state[name]["selection"]["rows"]
    st.session_state[f"{key}-turn"] += 1
    if chosen:
        on_pick(int(chosen[0]))


def ago(moment: datetime, now: datetime) -> str:
    """How long before `now`: '12 s ago', '3 h ago'."""
    seconds = max(int((now - moment).total_seconds()), 0)
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def amount(size: int) -> str:
    """Bytes in a unit that people read."""
    value = float(size)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:,.0f} {unit}" if unit == "bytes" else f"{value:,.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"
