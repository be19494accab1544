"""Single packets: the newest first as they come, and one of them with everything that is known of it.

Rule: the packet that is opened is named by its place in the log, so that it stays open while others come, and its link
finds it again.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import streamlit as st

from analytics.filters import Where
from analytics.queries import Answer
from analytics.queries import packets as ask_packets
from analytics.reader import Reader, Rows
from dashboards.empty import nothing
from dashboards.look import Look, go
from dashboards.markup import facts, heading, literal, notice
from dashboards.origin import line_of
from dashboards.stored import one_packet
from dashboards.tables import Download, downloads, shown, table

_SHOWN = 300
_DOWNLOADED = 10_000
_TITLES = {
    "time": "Time",
    "node": "Node",
    "direction": "Direction",
    "source": "Source",
    "source_holder": "From",
    "destination": "Destination",
    "destination_holder": "To",
    "protocol": "Protocol",
    "what": "Detail",
    "policy": "Logged by",
}


def show(look: Look) -> None:
    """Draw the page."""
    if look.view.place("packet"):
        _opened(look)
    answer = _answer(look, _SHOWN)
    if not answer.rows.rows:
        nothing(look)
        return
    note = f"the newest {len(answer.rows.rows):,} of more" if answer.cut else f"{len(answer.rows.rows):,}, newest first"
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        heading("Packets", note)
        _pause(look)
    rows = answer.rows.dicts()
    table(
        _brief(rows),
        look.zone,
        key="packets",
        titles=_TITLES,
        height=520,
        on_pick=lambda number: _open(look, rows[number]),
    )
    downloads([Download("packets", lambda: _answer(look, _DOWNLOADED).rows)], look.zone)


def _pause(look: Look) -> None:
    """Stop what moves while it is read, and go on."""
    if look.view.refresh == "off":
        st.button("Resume", icon=":material/play_arrow:", on_click=lambda: go(replace(look.view, refresh="")), key="go")
    else:
        pause = replace(look.view, refresh="off")
        st.button("Pause", icon=":material/pause:", on_click=lambda: go(pause), key="pause")


def _answer(look: Look, limit: int) -> Answer:
    return look.ask("packets", lambda reader, where: ask_packets(reader, where, limit), limit)


def _brief(packets: list[dict[str, Any]]) -> Rows:
    """The columns of the table: what tells packets apart at a glance."""
    types = ("TIMESTAMP WITH TIME ZONE", *["VARCHAR"] * (len(_TITLES) - 1))
    return Rows(tuple(_TITLES), types, [_brief_row(packet) for packet in packets])


def _brief_row(packet: dict[str, Any]) -> tuple[Any, ...]:
    return (
        packet["time"],
        packet["node"],
        packet["direction"],
        _end(packet, "source"),
        _holder(packet, "source"),
        _end(packet, "destination"),
        _holder(packet, "destination"),
        packet["protocol"],
        _detail(packet),
        packet["policy_name"] or packet["prefix"],
    )


def _end(packet: dict[str, Any], side: str) -> str:
    address, port = packet[f"{side}_ip"] or "", packet[f"{side}_port"]
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _holder(packet: dict[str, Any], side: str) -> str:
    """Who the address was: NAMESPACE/POD, else another name, else its class."""
    names = (packet.get(f"{side}_namespace"), packet.get(f"{side}_pod") or packet.get(f"{side}_name"))
    return "/".join(filter(None, names)) or packet.get(f"{side}_class") or ""


def _detail(packet: dict[str, Any]) -> str:
    kind = f"type {packet['icmp_type']} code {packet['icmp_code']}" if packet["icmp_type"] is not None else ""
    times = f"and {packet['repeat_count']} more" if packet["repeat_count"] else ""
    return " ".join(filter(None, (" ".join(packet["tcp_flags"] or ()), kind, packet["follow_up"], times)))


def _open(look: Look, packet: dict[str, Any]) -> None:
    go(look.view.at(packet=f"{packet['source_file']}:{packet['source_offset']}"))


def _opened(look: Look) -> None:
    """One packet with all its fields and its line."""
    found = one_packet(look, look.view.place("packet"))
    with st.container(border=True, key="opened"):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            heading("One packet")
            with st.container(horizontal=True, width="content"):
                st.button("Why was it denied?", type="tertiary", on_click=lambda: go(look.view, "policies"), key="why")
                st.button("Close", type="tertiary", on_click=lambda: go(look.view.at(packet="")), key="close")
        if found:
            _packet(look, found)
        else:
            notice("This packet is not in the store", "It may have been removed with others of its age.", kind="empty")


def _packet(look: Look, packet: dict[str, Any]) -> None:
    facts(
        (name.replace("_", " "), shown_field(name, value, look)) for name, value in packet.items() if not _absent(value)
    )
    line = look.ask("line", partial(_line, packet=packet), packet["source_file"], packet["source_offset"])
    heading("The line in the log", line.where)
    if line.text:
        literal(line.text)


def _line(reader: Reader, _: Where, packet: dict[str, Any]) -> Any:
    position = next((found for found in reader.positions() if found.file == packet["source_file"]), None)
    return line_of(position, packet["source_offset"])


# Numbers that name something are not counted in thousands.
_PLAIN = ("port", "id", "seq", "offset", "ack", "mark", "label", "type", "code", "day")


def shown_field(name: str, value: Any, look: Look) -> str:
    """One field for a person."""
    if isinstance(value, int) and name.endswith(_PLAIN):
        return str(value)
    return ", ".join(map(str, value)) if isinstance(value, list) else shown(value, look.zone)


def _absent(value: Any) -> bool:
    return value is None or value == [] or value is False
