"""One address: when it was denied what, who had it at which time, and what kind of address it is.

Rule: an address is not a pod; who had it is shown with the times, and what is not known is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import streamlit as st

from analytics.filters import Where
from analytics.findings import Finding
from analytics.reader import Reader, Rows
from dashboards import questions
from dashboards.empty import nothing
from dashboards.findings import TITLES, gravest_first, rows_of
from dashboards.geo import place_of
from dashboards.look import Look, go
from dashboards.markup import heading, notice, tiles
from dashboards.panels import DESTINATIONS, PORTS, many, over_time, ranking
from dashboards.tables import Download, downloads, table

_CANDIDATES = 200
_IMPORT = "kubectl get pods,nodes,services,namespaces -A -o json | denylog inventory import -"
_HISTORY = """
SELECT namespace, pod, workload, node, coalesce(name, '') AS name, class, valid_from AS since,
    nullif(valid_until, 'infinity'::TIMESTAMPTZ) AS until
FROM address_intervals WHERE address = $address ORDER BY valid_from DESC LIMIT 200
"""
_HISTORY_TITLES = {
    "since": "From",
    "until": "Until",
    "namespace": "Namespace",
    "pod": "Pod",
    "workload": "Workload",
    "node": "Node",
    "name": "Name",
    "class": "Class",
}
_IDENTITY = """
SELECT source_class, source_namespace, coalesce(source_pod, source_name), source_workload,
    sum(CASE WHEN attribution_conflict THEN packet_count ELSE 0 END)::BIGINT
FROM denied WHERE {where} GROUP BY ALL ORDER BY sum(packet_count) DESC, 1, 2, 3, 4 LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Identity:
    """What is known of a source: its class, who it was most often, and packets whose interface says another pod."""

    kind: str | None
    namespace: str | None
    name: str | None
    workload: str | None
    conflicts: int


def show(look: Look) -> None:
    """Draw the page."""
    address = look.view.place("address") or (look.view.values("from-ip") or ("",))[0]
    _choice(look, address)
    if not address:
        _most(look)
        return
    mine = look.shown(look.view.filtered("from-ip", [address]))
    total = mine.ask("totals", questions.totals)
    if not total.packets:
        nothing(mine)
    else:
        _figures(mine, address, total)
        entries = [over_time(mine, total)]
        for column, entry in zip(st.columns(2, gap="large"), (DESTINATIONS, PORTS), strict=True):
            with column:
                entries.append(ranking(mine, entry))
        downloads(entries, look.zone)
    _findings(mine)
    _history(look, address)


def _findings(mine: Look) -> None:
    """What stands out of this address; a row leads to its evidence."""
    found = gravest_first(mine)
    if not found:
        return
    heading("Findings", "what stands out of what it tried; choose one for its evidence")
    pick = partial(_open_finding, mine, found)
    table(rows_of(found), mine.zone, key="source-findings", titles=TITLES, on_pick=pick)


def _open_finding(mine: Look, found: list[Finding], number: int) -> None:
    go(mine.view.at(address="", finding=found[number].id), "findings")


def _choice(look: Look, address: str) -> None:
    counts = look.ask("sources", _candidates)
    st.session_state["address"] = address or None
    st.selectbox(
        "Source address",
        list(dict.fromkeys([*([address] if address else []), *counts])),
        key="address",
        format_func=lambda value: f"{value}  ({counts[value]:,})" if value in counts else value,
        accept_new_options=True,
        placeholder="Choose or type an address",
        on_change=lambda: go(look.view.at(address=(st.session_state["address"] or "").strip())),
        width=360,
    )


def _candidate_rows(reader: Reader, where: Where) -> Rows:
    return questions.ranked(reader, where, ("source",), _CANDIDATES)["source"]


def _candidates(reader: Reader, where: Where) -> dict[str, int]:
    found = _candidate_rows(reader, where).dicts()
    return {row["source_ip"]: row["packets"] for row in found if row["source_ip"]}


def _most(look: Look) -> None:
    """No address was chosen: those that are denied most."""
    found = look.ask("top-sources", _candidate_rows)
    if not found.rows:
        nothing(look)
        return
    heading("Sources", "choose one to see what it tried")
    titles = {
        "source_ip": "Source",
        "packets": "Packets",
        "first": "First",
        "last": "Last",
    }
    rows = found.dicts()
    table(found, look.zone, key="sources", titles=titles, height=560,
          on_pick=lambda number: go(look.view.at(address=rows[number]["source_ip"] or "")))  # fmt: skip
    downloads([Download("sources", lambda: found)], look.zone)


def _figures(look: Look, address: str, total: questions.Totals) -> None:
    who = look.ask("identity", _identity)
    where = place_of(address)
    tiles((
        ("Who", who.name or "not known", " ".join(filter(None, (who.namespace, who.workload)))),
        ("Class", who.kind or "not known", where or "no country file was given"),
        ("Denied packets", f"{total.packets:,}", many(total.ports, "port")),
        ("Destinations", f"{total.destinations:,}", f"seen by {many(total.nodes, 'node')}"),
        ("First", f"{look.local(total.first):%d %b %H:%M:%S}" if total.first else "–", "in this time"),
        ("Last", f"{look.local(total.last):%d %b %H:%M:%S}" if total.last else "–", "in this time"),
    ))  # fmt: skip
    if who.conflicts:
        notice(
            "The address is not that of the pod it came from",
            f"{many(who.conflicts, 'packet')} came through the interface of another pod: the address was reused, "
            "or the source is spoofed.",
            kind="warning",
        )


def _identity(reader: Reader, where: Where) -> Identity:
    found = reader.rows(_IDENTITY.format(where=where.sql), where.parameters).rows
    return Identity(*found[0]) if found else Identity(None, None, None, None, 0)


def _history(look: Look, address: str) -> None:
    heading("Who had this address", "by what the cluster said about itself")

    def ask(reader: Reader, _: Where) -> Rows:
        return reader.rows(_HISTORY, {"address": address})

    found = look.ask("history", ask, address)
    if not found.rows:
        notice(
            "Nothing is known of it",
            "No inventory in the store names this address. Import what the cluster says about itself:",
            kind="empty",
            command=_IMPORT,
        )
        return
    table(found, look.zone, key="history", titles=_HISTORY_TITLES)
