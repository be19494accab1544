"""Why packets were denied: the flows, who denied them, and for one of them the policies, the evidence and the remedy.

Rule: what is said rests on the policies that the store knows of the packet's time; where it knows none, that is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import streamlit as st

from analytics.filters import Where
from analytics.inventory import objects_at
from analytics.reader import Reader, Rows
from dashboards.empty import nothing
from dashboards.look import Look, go
from dashboards.markup import facts, heading, literal, notice, tiles
from dashboards.stored import one_packet
from dashboards.tables import Download, downloads, table
from policies.denial import Explanation, Selecting, explain_denial

_SHOWN = 200
_FLOWS = """
SELECT coalesce(source_namespace || '/' || coalesce(source_workload, source_pod), source_name, source_ip) AS source,
    coalesce(destination_namespace || '/' || coalesce(destination_workload, destination_pod), destination_name,
        destination_ip) AS destination,
    protocol, destination_port, array_to_string(any_value(denied_by), ', ') AS denied_by, any_value(why) AS why,
    sum(packet_count)::BIGINT AS packets, max(time) AS last,
    arg_max(source_file || ':' || source_offset, time) AS packet
FROM denied WHERE {where} GROUP BY source, destination, protocol, destination_port
ORDER BY packets DESC, source, destination, protocol, destination_port LIMIT $wanted
"""
_TITLES = {
    "source": "Source",
    "destination": "Destination",
    "protocol": "Protocol",
    "destination_port": "Port",
    "packets": "Packets",
    "denied_by": "Denied by",
    "last": "Last",
    "why": "Why",
}
_IMPORT = "kubectl get networkpolicies,pods,namespaces -A -o yaml | denylog policies snapshot -"


def show(look: Look) -> None:
    """Draw the page."""
    found = look.ask("flows", _flows)
    if not found.rows and not look.view.place("packet"):
        nothing(look)
        return
    if look.view.place("packet"):
        _explained(look)
    heading("Denied flows", "choose one to see which policies denied it, and what would allow it")
    rows = found.dicts()
    pick = partial(_open, look, rows)
    table(found, look.zone, key="flows", titles=_TITLES, on_pick=pick, height=480)
    downloads([Download("flows", lambda: found)], look.zone)


def _open(look: Look, rows: list[dict[str, Any]], number: int) -> None:
    go(look.view.at(packet=rows[number]["packet"]))


def _flows(reader: Reader, where: Where) -> Rows:
    return reader.rows(_FLOWS.format(where=where.sql), {**where.parameters, "wanted": _SHOWN})


def _explained(look: Look) -> None:
    """The packet that the link names, explained."""
    packet = one_packet(look, look.view.place("packet"))
    with st.container(border=True, key="explained"):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            heading("Why it was denied")
            st.button("Close", type="tertiary", on_click=lambda: go(look.view.at(packet="")), key="close")
        if packet is None:
            notice("This packet is not in the store", "It may have been removed with others of its age.", kind="empty")
            return
        told = look.ask("explanation", lambda reader, _: _explain(reader, packet), look.view.place("packet"))
        _verdict(look, told, packet)


def _explain(reader: Reader, packet: Mapping[str, Any]) -> Explanation:
    objects = objects_at(reader, packet["time"]) if packet["time"] else []
    return explain_denial(packet, objects)


def _verdict(look: Look, told: Explanation, packet: Mapping[str, Any]) -> None:
    verdicts = {None: "cannot be judged", True: "denied", False: "allowed by the known policies"}
    when = f"{look.local(packet['time']):%d %b %Y %H:%M:%S}" if packet["time"] else "no time on the line"
    tiles((
        ("Flow", told.flow, when),
        ("Verdict", verdicts[told.denied], f"policies that select the pod: {len(told.policies)}"),
        ("Denied by", ", ".join(told.denied_by) or "–", ""),
    ))  # fmt: skip
    if told.denied is None:
        notice(told.why, "The store needs the pods and policies of that time:", kind="warning", command=_IMPORT)
        return
    notice(told.why, *told.notes, kind="info")
    for selecting in told.policies:
        _policy(selecting)
    if told.proposal:
        heading("What would allow it", "the smallest policy; read it before you apply it")
        literal(told.proposal)
        st.download_button("Download the policy", told.proposal, "allow.yaml", "application/yaml", on_click="ignore")
        if told.opens:
            notice("It would also open", *told.opens, kind="warning")
    elif told.refused:
        notice("No policy is proposed", told.refused, kind="warning")
    if told.walk:
        with st.expander("The whole evidence"):
            literal(told.walk)


def _policy(selecting: Selecting) -> None:
    heading(
        selecting.policy, f"tier {selecting.tier}, order {'–' if selecting.order is None else f'{selecting.order:g}'}"
    )
    facts((rule.partition(": ")[0], rule.partition(": ")[2] or rule) for rule in selecting.rules)
