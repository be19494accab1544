"""What the commands do with packets that a store holds: explain one, and try policies on many.

Rule: who sent and who received is settled by the objects of the packet's time; what the policies of now or changed ones
would do is asked of the same pods. Packets that cannot be judged are counted with the reason, never left out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC

from policies.actions import Exit, Result
from policies.allow import allow
from policies.archive import Archive
from policies.denial import disagreement
from policies.errors import PolicyError, Problem
from policies.explain import as_data, as_dot, as_text
from policies.flow import Directory, Flow
from policies.load import Source
from policies.log_actions import (
    applied,
    change_data,
    flow_text,
    inventory_of,
    pods_of_both,
    proposal_result,
    table,
    unseen_notes,
)
from policies.logged import Open, Packet, placed
from policies.match import asks_source_port
from policies.model import Inventory, Place
from policies.past import Past, Version
from policies.reach import what_if


@dataclass(frozen=True, slots=True)
class Asked:
    """Flows of stored packets, how many packets each stands for, and those that could not be placed, by reason."""

    flows: list[Flow]
    packets: dict[int, int]
    unplaced: Counter[str]

    def notes(self) -> list[str]:
        """What the reader should know about what was left out."""
        told = [f"not judged: {_packets(n)}: {why}" for why, n in self.unplaced.most_common()]
        return told if self.flows or told else ["no denied packet in the store is chosen by these filters"]


def _packets(number: int) -> str:
    return f"{number:,} packet{'' if number == 1 else 's'}"


def _asked(archive: Archive, past: Past, *judges: Inventory) -> Asked:
    """The flows that the filters choose; the first of those who will judge them gives their ends the labels."""
    ports = past.by_source_port or any(asks_source_port(policy) for each in judges for policy in each.policies)
    return asked(archive.flows(source_ports=ports), past, Directory(judges[0]))


def asked(packets: Iterable[Packet], past: Past, directory: Directory) -> Asked:
    """The flows of packets, each once, with the labels that `directory` gives their ends."""
    found: dict[tuple[object, ...], Flow] = {}
    counts: Counter[tuple[object, ...]] = Counter()
    unplaced: Counter[str] = Counter()
    for packet in packets:
        logged = placed(packet, past)
        if isinstance(logged, Open):
            unplaced[logged.cause.value] += packet["packets"]
            continue
        flow = logged.flow
        key = (flow.source.name, flow.destination.name, flow.ip_version, flow.service, flow.icmp_code, flow.source_port)
        counts[key] += packet["packets"]
        if key not in found:
            source, destination = directory.again(flow.source), directory.again(flow.destination)
            found[key] = replace(flow, source=source, destination=destination)
    return Asked([*found.values()], {id(flow): counts[key] for key, flow in found.items()}, unplaced)


def _is_policy(version: Version) -> bool:
    kind = str(version.written.get("kind"))
    return kind.endswith("NetworkPolicy") or kind == "Tier"


def _merged(files: Inventory, stored: Inventory) -> Inventory:
    """The policies of files where they hold some, else those of the store; everything else of both."""
    chosen = files if files.policies else replace(files, policies=stored.policies)
    return pods_of_both(stored, chosen)


def _problems(past: Past) -> list[str]:
    left_out = [str(problem) for problem in past.problems[:3]]
    more = len(past.problems) - len(left_out)
    return left_out + ([f"and {more} more objects of the store that cannot be read"] if more > 0 else [])


# -- explain ---------------------------------------------------------------------------------------------------------


def explain_packet(sources: Sequence[Source], which: str, archive: Archive, output: str) -> Result:
    """The walk of one stored packet over the policies of its time, or over those of files."""
    files = inventory_of(sources)
    packet = archive.packet(which)
    if packet is None:
        advice = "`denylog packets` lists them"
        raise PolicyError([Problem("packet", Place("store"), "", f"no denied packet {which!r} is chosen", advice)])
    versions = (each for each in archive.versions() if not (files.policies and _is_policy(each)))
    past = Past(versions, files)
    notes = [f"packet {_place(packet)} of {_time(packet)}", *_problems(past)]
    logged = placed(packet, past)
    if isinstance(logged, Open):
        advice = logged.cause.advice(_time(packet))
        return Result("", (*notes, f"not judged: {logged.why}", *([advice] if advice else [])), Exit.FINDINGS)
    verdict = logged.judged()
    notes += logged.notes
    if verdict.allowed:
        notes.append(f"these policies allow it, though it was logged: {disagreement(verdict)}")
    match output:
        case "json":
            data = {"packet": _place(packet), "time": packet["time"].astimezone(UTC).isoformat(), **as_data(verdict)}
            return Result(json.dumps(data, indent=2) + "\n", tuple(notes))
        case "dot":
            return Result(as_dot(verdict), tuple(notes))
    return Result(as_text(verdict), tuple(notes))


def _place(packet: Packet) -> str:
    return f"{packet['source_file']}:{packet['source_offset']}"


def _time(packet: Packet) -> str:
    time = packet.get("time")
    return time.astimezone(UTC).isoformat(sep=" ", timespec="seconds") if time else "no known time"


# -- what if, allow --------------------------------------------------------------------------------------------------


def what_if_stored(
    sources: Sequence[Source], current: Sequence[Source], archive: Archive, output: str, *, over: bool
) -> Result:
    """What changed policies would do to stored denied flows, and what else they open or close.

    The present policies are the `current` ones, else those that the store has of now. The sources are all policies as
    they would be; with `over`, only those that would be applied over the present ones.
    """
    changed, past = inventory_of(sources), Past(archive.versions())
    before = _merged(inventory_of(current), past.inventory(archive.now))
    merged = pods_of_both(before, applied(changed, before) if over else changed)
    given = _asked(archive, past, merged, before)
    changes, beside = what_if(given.flows, before, merged)
    around = sorted(beside.changes, key=lambda change: (change.kind, str(change.after.flow)))
    notes = (*_problems(past), *given.notes(), *unseen_notes(beside.unseen))
    counts = [given.packets[id(flow)] for flow in given.flows]
    if output == "json":
        data = {
            "flows": [change_data(change) | {"packets": n} for change, n in zip(changes, counts, strict=True)],
            "beside": [*map(change_data, around)],
            "not_judged": dict(given.unplaced),
        }
        return Result(json.dumps(data, indent=2) + "\n", notes)
    rows = [(c.kind, f"{n:,}", str(c.after.flow), c.after.why) for c, n in zip(changes, counts, strict=True)]
    rows += [(f"{c.kind} beside", "", flow_text(c), c.after.why) for c in around]
    return Result("\n".join(table([("CHANGE", "PACKETS", "FLOW", "WHY"), *rows])) + "\n", notes)


def allow_stored(sources: Sequence[Source], archive: Archive, *, calico: bool, output: str) -> Result:
    """Policies that would allow the stored denied flows that were chosen, with the difference that they make."""
    past = Past(archive.versions())
    inventory = _merged(inventory_of(sources), past.inventory(archive.now))
    given = _asked(archive, past, inventory)
    result = proposal_result(allow(given.flows, inventory, calico=calico), output)
    return replace(result, notes=(*_problems(past), *given.notes(), *result.notes))
