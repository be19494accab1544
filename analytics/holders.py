"""The attribution of a reader: the relations behind `denied`, kept in the reader's memory while the store knows nothing
new, and views `denied` and `attributed` of its own that join only what a question names.

Rule: the answers are those of the store's view `denied`. It is for who attaches the store by hand; planning all its
joins takes longer than most questions, and DuckDB cannot estimate how small its relations are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import date, datetime

import duckdb

from analytics.attribution import COLUMNS, attribute, needs, select
from analytics.intervals import RELATIONS, closure, packet_addresses, renamed

_PREFIX = "known_"
# Relation -> by what a change of the table behind it is seen: rows are only added, but for retention.
_SEEN = {
    "object_intervals": "SELECT count(*), max(stored_at) FROM objects",
    "verdict_intervals": "SELECT count(*), max(stored_at) FROM verdicts",
}


# What is looked up in the relations that change with time.
_KEYS = {"interface_intervals": "interface", "address_intervals": "address", "set_intervals": "address"}
ENDS = ("source_ip", "destination_ip", "in_interface", "out_interface")
"""The columns of packets that tell who was at both ends."""
RESTLESS = f"{_PREFIX}restless"
_RESTLESS = " UNION ".join(
    f"SELECT day, {', '.join(ENDS)} FROM flow_days JOIN {_PREFIX}borders ON key = {end} "
    "AND moment > first AND moment <= last WHERE upto <= $upto"
    for end in ENDS
)


def local(sql: str) -> str:
    """SQL over the relations that the reader keeps."""
    return renamed(sql, _PREFIX)


def _borders(relations: Iterable[str]) -> str:
    """When which address or interface passed to somebody else; times before and after all packets left out."""
    parts = [
        f"SELECT {_KEYS[name]} AS key, {edge} AS moment FROM {_PREFIX}{name}"
        for name in relations
        for edge in ("valid_from", "valid_until")
    ]
    parts.append("SELECT NULL::VARCHAR, NULL::TIMESTAMPTZ WHERE false")
    return (
        f"SELECT * FROM ({' UNION '.join(parts)}) WHERE moment > (SELECT min(first) FROM flow_days) "
        "AND moment <= (SELECT max(last) FROM flow_days)"
    )


class Holders:
    """Makes the view `denied` fit for one question after the other; for one connection, by one thread at a time."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._made: dict[str, object] = {}
        self._stored_at: datetime | None = None

    def forget(self) -> None:
        """Make everything anew at the next question."""
        self._made.clear()
        self._stored_at = None

    def prepare(self, columns: Collection[str] | None) -> None:
        """Let `denied` and `attributed` have these columns beside those of `packets`; None stands for all."""
        names = [name for name in COLUMNS if columns is None or name in columns]
        marks: dict[str, object] = {}
        for name in closure(needs(names)):
            self._make(name, marks)
        for view, sql in (("attributed", attribute(names)), ("denied", select(names))):
            self._connection.execute(f"CREATE OR REPLACE TEMP VIEW {view} AS {local(sql)}")

    def restless(self, names: Collection[str], upto: datetime) -> list[date]:
        """Make what these columns need of sums, and RESTLESS: on which days which ends of the sums up to there had
        something change between their first and last packet. Returns these days; the sums of others have one holder.
        """
        marks: dict[str, object] = {}
        for name in closure(needs(names)):
            self._make(name, marks)
        changing = [name for name in needs(names) if name in _KEYS]
        state = (upto, *((name, marks[name]) for name in changing))
        if self._made.get(RESTLESS) != state:
            self._connection.execute(f"CREATE OR REPLACE TEMP TABLE {_PREFIX}borders AS {_borders(changing)}")
            self._connection.execute(f"CREATE OR REPLACE TEMP TABLE {RESTLESS} AS {_RESTLESS}", {"upto": upto})
            self._made[RESTLESS] = state
        days = self._connection.execute(f"SELECT DISTINCT day FROM {RESTLESS} WHERE day IS NOT NULL ORDER BY day")
        return [row[0] for row in days.fetchall()]

    def _make(self, name: str, marks: dict[str, object]) -> None:
        """Make one relation where it is not made, or was made of something older."""
        mark = self._mark(name, marks)
        if self._made.get(name) != mark:
            if name != "packet_addresses":
                self._connection.execute(
                    f"CREATE OR REPLACE TEMP TABLE {_PREFIX}{name} AS {local(RELATIONS[name].sql)}"
                )
            self._made[name] = mark

    def _mark(self, name: str, marks: dict[str, object]) -> object:
        """What tells one state of a relation from another: the state of all that it is made of."""
        if name not in marks:
            below = tuple(self._mark(other, marks) for other in RELATIONS[name].needs)
            if name == "packet_addresses":
                own = self._addresses()
            else:
                own = self._connection.execute(_SEEN[name]).fetchone() if name in _SEEN else None
            marks[name] = (own, *below)
        return marks[name]

    def _addresses(self) -> object:
        """Add the addresses of the packets that came since the last time, and count them."""
        if "packet_addresses" not in self._made:
            self._connection.execute(f"CREATE OR REPLACE TEMP TABLE {_PREFIX}packet_addresses AS {_NONE}")
        row = self._connection.execute("SELECT max(stored_at) FROM packets").fetchone()
        newest = row[0] if row else None
        if newest is not None and newest != self._stored_at:
            since = "true" if self._stored_at is None else f"stored_at > '{self._stored_at.isoformat()}'"
            fresh = packet_addresses(f"(FROM packets WHERE {since})")
            self._connection.execute(
                f"INSERT INTO {_PREFIX}packet_addresses FROM ({fresh}) "
                f"WHERE address NOT IN (SELECT address FROM {_PREFIX}packet_addresses)"
            )
            self._stored_at = newest
        return self._connection.execute(f"SELECT count(*) FROM {_PREFIX}packet_addresses").fetchone()


_NONE = f"FROM ({packet_addresses('(FROM packets LIMIT 0)')})"
