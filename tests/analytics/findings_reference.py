"""The rules of findings once more, one packet after the other and each window by hand: slow, and easy to follow.

Rule: nothing is shared with the SQL but the attribution of packets and the thresholds; times are in microseconds.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from statistics import median
from typing import Any, TypeVar

from analytics.filters import Where
from analytics.findings_rules import LOOKBACK, Settings
from analytics.reader import Reader

T = TypeVar("T")
K = TypeVar("K")
Row = dict[str, Any]
MINUTE = 60_000_000
SLOT = 5 * MINUTE
DAY = 1440 * MINUTE
INSIDE = {
    "pod", "unknown pod", "node", "service", "host endpoint", "host-network pod", "private", "unique-local", "shared",
    "link-local", "loopback",
}  # fmt: skip
TO_ALL = {"multicast", "broadcast", "this network", "unspecified"}
HELD = """
SELECT interface, addresses, greatest(valid_from, TIMESTAMPTZ '1970-01-01 00:00:00+00') AS valid_from,
    least(valid_until, TIMESTAMPTZ '9000-01-01 00:00:00+00') AS valid_until
FROM interface_intervals
"""
SAME = (
    "node", "direction", "source_ip", "destination_ip", "protocol", "destination_port", "in_interface", "out_interface",
)  # fmt: skip


@dataclass(eq=False)
class Hit:
    """What came in five minutes the same way; `row` is its first packet with its attribution."""

    row: Row
    number: int
    first: int
    last: int
    packets: int
    attempts: int
    session: int = 0
    measure: float | None = None
    place: str = ""

    def __getattr__(self, name: str) -> Any:
        return self.row[name]

    @property
    def slot(self) -> int:
        return self.number * SLOT

    @property
    def pair(self) -> tuple[str, str]:
        return self.source, self.destination

    @property
    def service(self) -> tuple[str, int | None]:
        return self.protocol, self.destination_port


@dataclass
class World:
    """The packets that were asked for, the hits that they make, and the thresholds."""

    packets: list[Row]
    hits: list[Hit]
    settings: Settings
    held: list[Row]
    marks: dict[str, list[Hit]] = field(default_factory=dict)
    quiet: list[Hit] = field(default_factory=list)
    clients: list[tuple[Any, int, int, int]] = field(default_factory=list)

    def value(self, rule: str, name: str) -> Any:
        found = self.settings.values[rule][name]
        return found // timedelta(microseconds=1) if isinstance(found, timedelta) else found

    def heard(self, rule: str, hits: Iterable[Hit]) -> list[Hit]:
        return [hit for hit in hits if not muted(hit.row, self.settings, rule)]


def found(
    reader: Reader,
    where: Where,
    settings: Settings,
    since: datetime | None,
    until: datetime | None,
    rules: Collection[str],
) -> list[Row]:
    """A row for each finding, as `analytics.findings` makes its findings of them."""
    packets = [packet(row) for row in reader.rows(f"SELECT * FROM denied WHERE {where.sql}", where.parameters).dicts()]
    packets = [row for row in packets if row["source_ip"] and row["destination_ip"] and not reply(row)]
    packets = [row for row in packets if not since or row["time"] >= since - LOOKBACK]
    packets = [row for row in packets if not until or row["time"] < until]
    held = reader.rows(HELD).dicts()
    world = World(packets, [hit for hit in hits(packets) if not muted(hit.row, settings, None)], settings, held)
    for rule in (scans, sweeps, lies, beacons, clients, offenders, spikes, firsts):
        rule(world)
    told = [row for rule in rules for row in SUMMARIES[rule](rule, world.marks[rule])]
    told = [row for row in told if not since or row["last"] >= since]
    return sorted(told, key=lambda row: (row["first"], row["rule"], row["subject"], row["about"]))


def packet(row: Row) -> Row:
    """A packet with the names of its ends."""
    names = {
        side: f"{row[side + '_namespace']}/{row[side + '_workload']}"
        if row[f"{side}_namespace"] and row[f"{side}_workload"]
        else row[f"{side}_ip"]
        for side in ("source", "destination")
    }
    us = (row["time"] - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)
    return {**row, **names, "us": us, "inside": row["source_class"] in INSIDE,
            "to_inside": row["destination_class"] in INSIDE, "known": row["source_workload"] is not None,
            "from_pod": row["source_class"] in ("pod", "unknown pod"),
            "flow": (row["source_port"], row["icmp_id"], row["icmp_seq"])}  # fmt: skip


def reply(row: Row) -> bool:
    """Whether a packet is nobody's attempt."""
    if row["protocol"] in ("icmp", "icmpv6"):
        return row["icmp_type"] not in (8, 13, 17, 128, None)
    flags, source, destination = set(row["tcp_flags"] or ()), row["source_port"], row["destination_port"]
    if flags >= {"SYN", "ACK"} or "RST" in flags:
        return True
    if "SYN" in flags or source is None or destination is None:
        return False
    return bool(source < 32768 <= destination or source < 1024 <= destination)


def hits(packets: Iterable[Row]) -> Iterator[Hit]:
    """The packets by slot, with the attempts that are no retries of the slot before."""
    slots = grouped(packets, lambda row: (tuple(row[name] for name in SAME), row["us"] // SLOT))
    for (same, number), rows in slots.items():
        late = {row["flow"] for row in slots.get((same, number - 1), ()) if row["us"] % SLOT >= 4 * MINUTE}
        early = {row["flow"] for row in rows if row["us"] % SLOT < MINUTE}
        first = min(rows, key=lambda row: row["us"])
        attempts = len({row["flow"] for row in rows}) - len(late & early)
        total = sum(row["packet_count"] for row in rows)
        hit = Hit(first, number, first["us"], max(row["us"] for row in rows), total, attempts)
        sides = {"ingress": first["destination_namespace"], "egress": first["source_namespace"]}
        hit.place = (
            sides.get(first["direction"]) or first["destination_namespace"] or first["source_namespace"] or hit.node
        )
        yield hit


def muted(row: Row, settings: Settings, rule: str | None) -> bool:
    """Whether a source is passed over."""
    tests: dict[str, Callable[[str], bool]] = {
        "network": lambda value: ipaddress.ip_address(row["source_ip"]) in ipaddress.ip_network(value),
        "namespace": lambda value: row["source_namespace"] == value,
        "workload": lambda value: row["source"] == value,
    }
    return any(tests[mute.kind](mute.value) for mute in settings.mutes if mute.rule == rule)


def grouped(rows: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    made: defaultdict[K, list[T]] = defaultdict(list)
    for row in rows:
        made[key(row)].append(row)
    return dict(made)


def sessions(rows: Iterable[Hit], key: Callable[[Hit], Any], pause: int) -> list[Hit]:
    """The rows with the number of their session: rows of one key with pauses of at most `pause` between them."""
    told = []
    for group in grouped(rows, key).values():
        session, last = 0, None
        for hit in sorted(group, key=lambda hit: (hit.first, hit.last)):
            if last is None or hit.first - last > pause:
                session += 1
            last = max(hit.last, last or hit.last)
            told.append(copy(hit, session))
    return told


def copy(hit: Hit, session: int, measure: float | None = None) -> Hit:
    return Hit(hit.row, hit.number, hit.first, hit.last, hit.packets, hit.attempts, session, measure, hit.place)


def recent(rows: Sequence[T], at: Callable[[T], int], length: int) -> Iterator[list[T]]:
    """For each row those that lie at most `length` before it."""
    for row in rows:
        yield [other for other in rows if at(row) - length <= at(other) <= at(row)]


def most(rows: Sequence[Hit], length: int, value: Callable[[Hit], Any]) -> int:
    """How many different values there are at most within `length`."""
    return max(len({value(hit) for hit in near}) for near in recent(rows, lambda hit: hit.first, length))


def first_of(hit: Hit) -> tuple[int, int]:
    return id(hit.row), hit.number


def without(rows: Iterable[Hit], marks: Iterable[Hit]) -> list[Hit]:
    gone = {first_of(hit) for hit in marks}
    return [hit for hit in rows if first_of(hit) not in gone]


def scans(world: World) -> None:
    """Many ports of one destination, in a short or a long window."""
    value = partial(world.value, "vertical_scan")
    least = min(value("ports"), value("slow_ports"), value("pod_ports"))
    rows = [hit for hit in world.heard("vertical_scan", world.hits) if hit.destination_port is not None]
    pairs = {pair for pair, group in grouped(rows, lambda hit: hit.pair).items()
             if len({hit.service for hit in group}) >= least}  # fmt: skip
    tried = sessions((hit for hit in rows if hit.pair in pairs), lambda hit: hit.source, value("cooldown"))
    marks = []
    for group in grouped(tried, lambda hit: (hit.source, hit.session, hit.destination)).values():
        enough = value("pod_ports") if any(hit.from_pod for hit in group) else value("slow_ports")
        fast, slow = (most(group, value(name), lambda hit: hit.service) for name in ("window", "slow_window"))
        if fast >= value("ports") or slow >= enough:
            marks += group
    world.marks["vertical_scan"] = marks
    world.quiet = without(world.hits, marks)


def sweeps(world: World) -> None:
    """One port of many hosts; what is part of a scan is not told, and not quiet either."""
    value = partial(world.value, "horizontal_sweep")
    least = min(value("hosts"), value("slow_hosts"), value("pod_hosts"))
    rows = world.heard("horizontal_sweep", world.hits)
    pairs = {pair for pair, group in grouped(rows, lambda hit: (hit.source, hit.service)).items()
             if len({hit.destination_ip for hit in group}) >= least}  # fmt: skip
    tried = sessions((h for h in rows if (h.source, h.service) in pairs), lambda hit: hit.source, value("cooldown"))
    hot: list[Hit] = []
    guesses: list[Hit] = []
    for group in grouped(tried, lambda hit: (hit.source, hit.session, hit.service)).values():
        hosts = grouped(group, lambda hit: hit.destination_ip).values()
        few = [hit for host in hosts if sum(hit.attempts for hit in host) <= value("tries") for hit in host]
        if few and swept(few, value):
            hot += group
            guesses += few
    world.quiet = without(world.quiet, hot)
    spans = [span(group) for group in grouped(world.marks["vertical_scan"], lambda h: (h.source, h.session)).values()]
    world.marks["horizontal_sweep"] = [
        hit
        for group in grouped(guesses, lambda hit: (hit.source, hit.session)).values()
        if not any(who == group[0].source and first <= span(group)[2] and span(group)[1] <= last
                   for who, first, last in spans)
        for hit in group
    ]  # fmt: skip


def span(group: Sequence[Hit]) -> tuple[str, int, int]:
    return group[0].source, min(hit.first for hit in group), max(hit.last for hit in group)


def swept(few: Sequence[Hit], value: Callable[[str], Any]) -> bool:
    plain = [hit for hit in few if hit.to_inside or hit.destination_port not in (80, 443)]
    near = [hit for hit in few if hit.from_pod and hit.to_inside]
    tests = ((few, "window", "hosts"), (plain, "slow_window", "slow_hosts"), (near, "slow_window", "pod_hosts"))
    return any(
        rows and most(rows, value(length), lambda hit: hit.destination_ip) >= value(enough)
        for rows, length, enough in tests
    )


def lies(world: World) -> None:
    """Packets by a pod's interface with an address that the pod did not have."""
    rows = [hit for hit in world.heard("spoofed_source", world.hits) if lying(hit, world.held)]
    tried = sessions(rows, liar, world.value("spoofed_source", "cooldown"))
    groups = grouped(tried, lambda hit: (liar(hit), hit.session)).values()
    enough = world.value("spoofed_source", "packets")
    world.marks["spoofed_source"] = [
        hit for group in groups if sum(hit.packets for hit in group) >= enough for hit in group
    ]


def liar(hit: Hit) -> str:
    return str(hit.source if hit.source_by == "interface" else hit.in_interface)


def lying(hit: Hit, held: Iterable[Row]) -> bool:
    pods = hit.source_by == "interface" or (hit.in_interface or "").startswith("cali")
    own = any(
        row["interface"] == hit.in_interface
        and row["valid_from"] <= hit.time < row["valid_until"]
        and hit.source_ip in row["addresses"]
        for row in held
    )
    return bool(hit.attribution_conflict and pods and not own)


def beacons(world: World) -> None:
    """Regular calls of an inside address to an outside one."""
    value = partial(world.value, "beaconing")
    rows = [
        hit
        for hit in world.heard("beaconing", world.quiet)
        if hit.inside and not hit.to_inside and hit.destination_class not in TO_ALL
        and hit.destination_port is not None and hit.destination_port not in value("ignore_ports")
    ]  # fmt: skip
    marks: list[Hit] = []
    for key, group in grouped(rows, ends).items():
        _, first, last = span(group)
        if sum(hit.attempts for hit in group) < value("attempts") or last - first < value("span"):
            continue
        same = [row for row in world.packets if (row["source_ip"], row["destination_ip"], service(row)) == key]
        flows = grouped(same, lambda row: (row["flow"], row["us"] // SLOT)).values()
        for began, ended, every in regular(sorted(min(row["us"] for row in flow) for flow in flows), value):
            near = [h for h in world.quiet if ends(h) == key and h.first <= ended and h.last >= began - every * 2e6]
            marks += [copy(hit, 0, every) for hit in near]
    rows = sessions(marks, lambda hit: (hit.source, hit.destination_ip, hit.service), value("cooldown"))
    measures = {first_of(hit): hit.measure for hit in marks}
    world.marks["beaconing"] = [copy(hit, hit.session, measures[first_of(hit)]) for hit in rows]


def ends(hit: Hit) -> tuple[str, str, Any]:
    return hit.source_ip, hit.destination_ip, hit.service


def service(row: Row) -> tuple[str, int | None]:
    return row["protocol"], row["destination_port"]


def regular(calls: Sequence[int], value: Callable[[str], Any]) -> Iterator[tuple[int, int, float]]:
    """From when until when calls came regularly, and every how many seconds."""
    runs: list[list[tuple[float, int]]] = [[]]
    for before, call in pairwise(calls):
        if call - before > value("cooldown"):
            runs.append([])
        elif call - before >= value("shortest"):
            runs[-1].append(((call - before) / 1e6, call))
    for run in runs:
        pauses = sorted(pause for pause, _ in run)
        if len(pauses) + 1 < value("attempts") or sum(pauses) < value("span") / 1e6:
            continue
        if 1 - (quantile(pauses, 0.9) - quantile(pauses, 0.1)) / 2 / median(pauses) >= value("regularity"):
            yield run[0][1], run[-1][1], median(pauses)


def quantile(values: Sequence[float], share: float) -> float:
    """Between the two nearest of sorted values."""
    at = share * (len(values) - 1)
    low = int(at)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (at - low)


def stretches(world: World, rule: str, rows: Iterable[Hit], key: Callable[[Hit], Any]) -> Iterator[list[list[Hit]]]:
    """The slots of each session of each key, in their order."""
    whole = []
    for group in grouped(rows, lambda hit: (key(hit), hit.number)).values():
        _, first, last = span(group)
        whole.append(Hit({**group[0].row, "within": group}, group[0].number, first, last, 0, 0))
    tried = sessions(whole, key, world.value(rule, "cooldown"))
    for session in grouped(tried, lambda hit: (key(hit), hit.session)).values():
        yield [hit.within for hit in sorted(session, key=lambda hit: hit.number)]


def often(world: World, rule: str, slots: Sequence[list[Hit]]) -> bool:
    """Whether within some window there are enough attempts, in enough slots."""
    for near in recent(slots, lambda slot: slot[0].slot, world.value(rule, "window")):
        attempts = sum(hit.attempts for slot in near for hit in slot)
        if attempts >= world.value(rule, "attempts") and len(near) >= world.value(rule, "slots"):
            return True
    return False


def clients(world: World) -> None:
    """Somebody inside who keeps trying one port."""
    rule = "misconfigured_client"
    heard = world.heard(rule, world.quiet)
    rows = [hit for hit in heard if hit.inside and hit.destination_port is not None]
    pairs = {
        pair for pair, group in grouped(rows, wish).items()
        if sum(hit.attempts for hit in group) >= world.value(rule, "attempts")
        and len({hit.number for hit in group}) >= world.value(rule, "slots")
    }  # fmt: skip
    calm = without((hit for hit in heard if wish(hit) in pairs), world.marks["beaconing"])
    marks: list[Hit] = []
    for number, slots in enumerate(stretches(world, rule, calm, wish)):
        if often(world, rule, slots):
            inner = [hit for slot in slots for hit in slot]
            world.clients.append((wish(inner[0]), inner[0].slot, inner[-1].slot, min(hit.first for hit in inner)))
            marks += [copy(hit, number) for hit in inner]
    world.marks[rule] = marks


def wish(hit: Hit) -> tuple[str, Any]:
    return hit.source, hit.service


def offenders(world: World) -> None:
    """Somebody outside who keeps trying, or tries much at once."""
    rule = "repeated_offender"
    rows = [hit for hit in world.heard(rule, world.quiet) if not hit.inside]
    totals = grouped(rows, lambda hit: hit.source)
    many = {who for who, group in totals.items() if sum(hit.attempts for hit in group) >= world.value(rule, "attempts")}
    bursts = {(who, slot) for who in many for slot in busy(world, rule, who)}
    marks: list[Hit] = []
    for number, slots in enumerate(stretches(world, rule, (h for h in rows if h.source in many), lambda h: h.source)):
        if often(world, rule, slots) or any((slot[0].source, slot[0].slot) in bursts for slot in slots):
            marks += [copy(hit, number) for slot in slots for hit in slot]
    world.marks[rule] = marks


def busy(world: World, rule: str, who: str) -> Iterator[int]:
    """The slots in which a burst of a source ends."""
    mine = [row for row in world.packets if row["source_ip"] == who]
    flows = grouped(mine, lambda row: (row["destination_ip"], service(row), row["flow"], row["us"] // SLOT)).values()
    calls = sorted(min(row["us"] for row in flow) for flow in flows)
    for call, near in zip(calls, recent(calls, int, world.value(rule, "burst")), strict=True):
        if len(near) >= world.value(rule, "attempts"):
            yield call // SLOT * SLOT


def spikes(world: World) -> None:
    """Far more than in the same quarter of an hour of the days before, of what nothing else explains."""
    value = partial(world.value, "spike")
    rows = [
        hit
        for hit in without(
            world.heard("spike", world.quiet), world.marks["repeated_offender"] + world.marks["beaconing"]
        )
        if not any(key == (hit.source, hit.service) and began <= hit.slot <= ended and first > hit.slot - DAY
                   for key, began, ended, first in world.clients)
    ]  # fmt: skip
    quarters = {
        key: sum(hit.attempts for hit in group)
        for key, group in grouped(rows, lambda hit: (hit.place, hit.number // 3)).items()
    }
    began = min((hit.first for hit in world.hits), default=0)
    factors = {}
    for (place, quarter), attempts in quarters.items():
        days = range(quarter - 96, quarter - value("history") // (3 * SLOT) - 1, -96)
        highest = max((quarters.get((place, earlier), 0) for earlier in days), default=0)
        old = began <= quarter * 3 * SLOT - value("days") * DAY
        if old and attempts >= value("attempts") and attempts >= value("factor") * highest:
            factors[place, quarter] = attempts / highest if highest else None
    high = [hit for hit in rows if (hit.place, hit.number // 3) in factors]
    world.marks["spike"] = [
        copy(hit, hit.session, factors[hit.place, hit.number // 3])
        for hit in sessions(high, lambda hit: hit.place, value("cooldown"))
    ]


def firsts(world: World) -> None:
    """What somebody known tries for the first time."""
    rows = [
        hit
        for hit in world.heard("first_seen", world.quiet)
        if hit.known and hit.destination_port is not None
        and (hit.destination_workload is not None or hit.destination_class != "unknown pod")
    ]  # fmt: skip
    began = {key: min(hit.first for hit in group) for key, group in grouped(rows, aim).items()}
    there = {who: min(hit.first for hit in group) for who, group in grouped(rows, lambda hit: hit.source).items()}
    clients = {key for key, *_ in world.clients}
    history = world.value("first_seen", "history")
    new = {key for key, first in began.items()
           if first >= there[key[0]] + history and (key[0], key[2]) not in clients}  # fmt: skip
    fresh = without((hit for hit in world.quiet if aim(hit) in new), world.marks["beaconing"])
    world.marks["first_seen"] = sessions(fresh, lambda hit: hit.source, world.value("first_seen", "cooldown"))


def aim(hit: Hit) -> tuple[str, str, Any]:
    return hit.source, hit.destination, hit.service


def summaries(subject: Callable[[Hit], str], about: Callable[[Hit], str]) -> Callable[[str, list[Hit]], Iterator[Row]]:
    """What makes the rows of a rule's findings from its marks."""

    def rows(rule: str, marks: list[Hit]) -> Iterator[Row]:
        for group in grouped(marks, lambda hit: (subject(hit), about(hit), hit.session)).values():
            yield row_of(rule, subject(group[0]), about(group[0]), group)

    return rows


def row_of(rule: str, subject: str, about: str, group: Sequence[Hit]) -> Row:
    zero = datetime.fromtimestamp(0, UTC)
    told: Row = {name: any(getattr(hit, name) for hit in group) for name in ("known", "inside", "to_inside")}
    target = "destination_ip" if rule == "horizontal_sweep" else "destination"
    columns = {"sources": "source_ip", "targets": target, "ports": "destination_port", "protocols": "protocol",
               "nodes": "node"}  # fmt: skip
    for name, column in columns.items():
        values = sorted({getattr(hit, column) for hit in group} - {None})
        told |= {name: values if name in ("protocols", "nodes") else values[:20], f"{name}_count": len(values)}
    measures = [hit.measure for hit in group if hit.measure is not None]
    nodes = {hit.source_node for hit in group if hit.source_class in ("node", "host-network pod")} - {None}
    return told | {
        "rule": rule, "subject": subject, "about": about, "packets": sum(hit.packets for hit in group),
        "first": zero + timedelta(microseconds=min(hit.first for hit in group)),
        "last": zero + timedelta(microseconds=max(hit.last for hit in group)),
        "attempts": sum(hit.attempts for hit in group), "source_node": min(nodes, default=None),
        "own_address": any(hit.source_ip == subject for hit in group),
        "measure": (median if rule == "beaconing" else max)(measures) if measures else None,
    }  # fmt: skip


def by_source(hit: Hit) -> str:
    return str(hit.source)


def door(hit: Hit) -> str:
    return f"{hit.protocol}/{hit.destination_port}"


SUMMARIES: Mapping[str, Callable[[str, list[Hit]], Iterator[Row]]] = {
    **dict.fromkeys(
        ("vertical_scan", "horizontal_sweep", "repeated_offender", "first_seen"), summaries(by_source, lambda _: "")
    ),
    "spoofed_source": summaries(liar, lambda _: ""),
    "beaconing": summaries(by_source, lambda hit: f"{hit.destination_ip} {door(hit)}"),
    "misconfigured_client": summaries(by_source, door),
    "spike": summaries(lambda hit: hit.place, lambda _: ""),
}
