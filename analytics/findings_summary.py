"""Findings out of what the rules marked: one row for each, with its texts, in few passes and none of them in Python.

Rule: lists are made of values that were told apart by grouping before; of the long ones the first few are kept, beside
their number.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

SHOWN = 20
"""A finding names at most so many ports, targets and addresses, beside their number."""

# What is listed for a finding -> its value for each of the marks, and whether all of them are kept.
_LISTS = {
    "sources": ("here.name", False),
    "targets": ("CASE rule WHEN 'horizontal_sweep' THEN there.name ELSE destination.name END", False),
    "ports": ("o.port", False),
    "protocols": ("o.protocol", True),
    "nodes": ("node.name", True),
}
_JOINS = """
FROM marks JOIN source_ends AS s ON s.id = source_end JOIN destination_ends AS d ON d.id = destination_end
JOIN doors AS o ON o.id = door JOIN names AS here ON here.id = s.source_ip
JOIN names AS there ON there.id = d.destination_ip JOIN names AS destination ON destination.id = d.destination
LEFT JOIN names AS node ON node.id = o.node
""".strip()


def tables(rules: Collection[str]) -> dict[str, str]:
    """The tables that `summary` reads, in the order in which they can be made -> the SELECT of each."""
    marked = " UNION ALL ".join(f"FROM {rule}_marks" for rule in rules)
    return {
        "marks": f"SELECT *, hash(rule, subject, target, service, session) AS finding FROM ({marked})",
        **{f"finding_{name}": _listed(name) for name in _LISTS},
    }


def _listed(name: str) -> str:
    value, whole = _LISTS[name]
    listed = "list(value ORDER BY value)" if whole else f"min(value, {SHOWN})"
    return (
        f"SELECT finding, count(*) AS {name}_count, {listed} AS {name} FROM (SELECT DISTINCT finding, {value} AS value "
        f"{_JOINS}) WHERE value IS NOT NULL GROUP BY finding"
    )


def summary(since: datetime | None) -> str:
    """The query for the findings whose last packet is not before `since`."""
    recent = f"WHERE last >= TIMESTAMPTZ '{since.isoformat()}'" if since else ""
    lists = " ".join(f"LEFT JOIN finding_{name} USING (finding)" for name in _LISTS)
    return f"""
SELECT * FROM (
    SELECT rule, any_value(subject.name) AS subject, CASE rule
            WHEN 'beaconing' THEN any_value(there.name || ' ' || o.protocol || '/' || o.port)
            WHEN 'misconfigured_client' THEN any_value(o.protocol || '/' || o.port) ELSE '' END AS about,
        make_timestamptz(min(first)) AS first, make_timestamptz(max(last)) AS last,
        sum(packets)::BIGINT AS packets, sum(attempts)::BIGINT AS attempts, bool_or(known) AS known,
        bool_or(inside) AS inside, bool_or(to_inside) AS to_inside, min(source_node) AS source_node,
        bool_or(marks.subject = s.source_ip) AS own_address,
        CASE rule WHEN 'beaconing' THEN median(measure) ELSE max(measure) END AS measure, finding
    {_JOINS} JOIN names AS subject ON subject.id = marks.subject GROUP BY rule, finding
) {lists} {recent} ORDER BY first, rule, subject, about"""
