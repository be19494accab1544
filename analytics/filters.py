"""Which packets a question is about: one table of filters, each a flag, its help and the SQL condition behind it.

Rule: a value is checked here, with one sentence about what is wrong, and reaches DuckDB as a parameter, never as text.
Values of one flag are alternatives, different flags must all hold, and a value that begins with `!` must not hold.
The names of the flags follow Hubble's (Cilium's `hubble observe`).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, tzinfo

from analytics.ranges import CLASSES


class FilterError(ValueError):
    """A value that a filter cannot use: the `flag`, the `value`, and what was `expected`."""

    def __init__(self, flag: str, value: str, expected: str) -> None:
        super().__init__(flag, value, expected)
        self.flag = flag
        self.value = value
        self.expected = expected

    def __str__(self) -> str:
        return f"--{self.flag} {self.value!r}: expected {self.expected}"


@dataclass(frozen=True, slots=True)
class Where:
    """A condition over the columns of `packets`, and the values of its parameters; `Where()` holds for every packet.

    `sql` is the whole of it. Where it is bounded in time, `since` (inclusive) and `until` say so once more, and `rest`
    is the condition without them; else `rest` is empty.
    """

    sql: str = "true"
    parameters: dict[str, object] = field(default_factory=dict)
    since: datetime | None = None
    until: datetime | None = None
    rest: str = ""

    @property
    def timeless(self) -> str:
        """The condition without `since` and `until`."""
        return self.rest or self.sql

    @property
    def times(self) -> list[str]:
        """`since` and `until` as conditions."""
        bounds = ((">=", self.since), ("<", self.until))
        return [_compared(operator, found) for operator, found in bounds if found]

    def during(self, since: datetime | None, until: datetime | None) -> Where:
        """The condition for the packets of a shorter time."""
        later = max(filter(None, (self.since, since)), default=None)
        earlier = min(filter(None, (self.until, until)), default=None)
        found = Where("", self.parameters, later, earlier, self.timeless)
        return replace(found, sql=" AND ".join([f"({self.timeless})", *found.times]))


@dataclass(slots=True)
class Context:
    """What a filter may know besides its value: the time now, the zone of times without one; it collects parameters."""

    now: datetime
    zone: tzinfo
    parameters: dict[str, object] = field(default_factory=dict)

    def bind(self, value: object) -> str:
        """The name under which the condition refers to `value`."""
        name = f"filter_{len(self.parameters)}"
        self.parameters[name] = value
        return f"${name}"


class _Unusable(ValueError):
    """What a value should have been."""


Condition = Callable[[str, Context], str]


@dataclass(frozen=True, slots=True)
class Filter:
    """One flag: its name without dashes, the shape of its value, its help, and its condition."""

    flag: str
    metavar: str
    help: str
    condition: Condition
    repeats: bool = True

    @property
    def name(self) -> str:
        """The flag as the name of a Python parameter."""
        return self.flag.replace("-", "_")


_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhdw]))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])")
_TIME = "a time ('2026-11-22T10:00', '2026-11-22 10:00+01:00') or a time ago ('30s', '5m', '1h30m', '7d')"


def duration(text: str) -> timedelta:
    """The length of '30s', '5m', '1h30m', '7d' or '2w'; raises ValueError for anything else."""
    if not _DURATION.fullmatch(text):
        raise ValueError(text)
    try:
        return timedelta(seconds=sum(float(count) * _UNITS[unit] for count, unit in _PART.findall(text)))
    except OverflowError:
        raise ValueError(text) from None


def moment(text: str, now: datetime, zone: tzinfo) -> datetime:
    """The time that `text` names, so long before `now` or in ISO 8601; raises ValueError for anything else."""
    if _DURATION.fullmatch(text):
        try:
            return now - duration(text)
        except OverflowError:
            raise ValueError(text) from None
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=zone)


def _time(operator: str) -> Condition:
    def condition(text: str, context: Context) -> str:
        try:
            return _compared(operator, moment(text, context.now, context.zone))
        except ValueError:
            raise _Unusable(_TIME) from None

    return condition


def _compared(operator: str, found: datetime) -> str:  # written out, since a question may leave it out where it holds
    return f"time {operator} TIMESTAMPTZ '{found.isoformat()}'"


def _address(*columns: str) -> Condition:
    def condition(text: str, context: Context) -> str:
        try:
            network = ipaddress.ip_network(text.partition("%")[0], strict=False)
        except ValueError:
            raise _Unusable("an address or a CIDR ('10.0.0.7', '10.1.0.0/16', 'fd00::/8')") from None
        return " OR ".join(_within(column, network, context) for column in columns)

    return condition


def _within(column: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network, context: Context) -> str:
    """Stored addresses are text in canonical form, so one address is an equality, and an IPv4 network is a prefix of
    the text and a range of the first octet that it does not fill; only IPv6 networks need a conversion."""
    if network.prefixlen == network.max_prefixlen:
        return f"{column} = {context.bind(str(network.network_address))}"
    if isinstance(network, ipaddress.IPv6Network):
        return (
            f"CASE WHEN contains({column}, ':') "
            f"THEN try_cast({column} AS INET) <<= {context.bind(str(network))}::INET ELSE false END"
        )
    whole, bits = divmod(network.prefixlen, 8)
    octets = str(network.network_address).split(".")
    start = "".join(f"{octet}." for octet in octets[:whole])
    low = int(octets[whole])
    high = low + (1 << (8 - bits)) - 1
    octet = f"try_cast(split_part({column}, '.', {whole + 1}) AS USMALLINT)"
    inside = f"starts_with({column}, {context.bind(start)}) AND contains({column}, '.')"
    return f"({inside} AND {octet} BETWEEN {context.bind(low)} AND {context.bind(high)})"


_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)


def _port(*columns: str) -> Condition:
    def condition(text: str, context: Context) -> str:
        found = _PORT.fullmatch(text)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if not first <= last <= 65535:
            raise _Unusable("a port or a range of ports, 0 to 65535 ('443', '8000-8999')")
        low, high = context.bind(first), context.bind(last)
        return " OR ".join(f"{column} BETWEEN {low} AND {high}" for column in columns)

    return condition


# The kernel names these (nf_log_syslog.c, dump_ipv4_packet and dump_ipv6_packet) and prints others as numbers.
_NAMED = {"1": "icmp", "6": "tcp", "17": "udp", "50": "esp", "51": "ah", "58": "icmpv6", "136": "udplite"}
_NUMBERED = {
    "igmp": "2",
    "ipip": "4",
    "dccp": "33",
    "gre": "47",
    "ospf": "89",
    "pim": "103",
    "vrrp": "112",
    "sctp": "132",
}


def _protocol(text: str, context: Context) -> str:
    word = text.lower()
    number = str(int(word)) if word.isascii() and word.isdigit() else ""
    stored = _NAMED.get(number, number) or _NUMBERED.get(word, word)
    if not (number and int(number) <= 255) and word not in _NUMBERED and word not in _NAMED.values():
        raise _Unusable(f"{', '.join(sorted([*_NAMED.values(), *_NUMBERED]))} or a protocol number, 0 to 255")
    return f"protocol = {context.bind(stored)}"


_TCP_FLAGS = ("AE", "CWR", "ECE", "URG", "ACK", "PSH", "RST", "SYN", "FIN")


def _tcp_flags(text: str, context: Context) -> str:
    flags = text.upper().split(",")
    if not set(flags) <= set(_TCP_FLAGS):
        raise _Unusable(f"flags that must all be set, out of {','.join(_TCP_FLAGS)} ('SYN', 'SYN,ACK')")
    return f"list_has_all(tcp_flags, {context.bind(flags)})"


def _one_of(column: str, values: Sequence[str], kind: type[str] | type[int] = str) -> Condition:
    def condition(text: str, context: Context) -> str:
        if text.lower() not in values:
            raise _Unusable(" or ".join(values))
        return f"{column} = {context.bind(kind(text.lower()))}"

    return condition


def _glob(*expressions: str) -> Condition:
    def condition(text: str, context: Context) -> str:
        if not text:
            raise _Unusable("a name, or a pattern with * and ?")
        pattern = context.bind(text)
        return " OR ".join(f"{expression} GLOB {pattern}" for expression in expressions)

    return condition


_SIDES = ("source", "destination")


def _named(column: str, sides: Sequence[str] = _SIDES, *, beginning: bool = False) -> Condition:
    """NAME or NAMESPACE/NAME of what a side was; `beginning`: a name without * and ? is how it begins, as in Hubble."""

    def condition(text: str, context: Context) -> str:
        namespace, slash, name = text.rpartition("/")
        if not name and not namespace:
            raise _Unusable("a name or NAMESPACE/NAME, or a pattern with * and ?")
        ending = "*" if beginning and not set(name) & set("*?[") else ""
        pattern = context.bind(f"{name}{ending}")
        parts = [f"{side}_{column} GLOB {pattern}" for side in sides]
        if slash:
            space = context.bind(namespace)
            parts = [f"({side}_namespace GLOB {space} AND {part})" for side, part in zip(sides, parts, strict=True)]
        return " OR ".join(parts)

    return condition


def _both(column: str) -> tuple[str, ...]:
    return tuple(f"{side}_{column}" for side in _SIDES)


def _service(*sides: str) -> Condition:
    """A side may belong to several services: their names stand in one text with commas between."""

    def condition(text: str, context: Context) -> str:
        namespace, slash, name = text.rpartition("/")
        if not name:
            raise _Unusable("the name of a service or NAMESPACE/NAME, or a pattern with * and ?")
        pattern = context.bind(name)
        parts = [
            f"len(list_filter(string_split({side}_service, ','), lambda one: one GLOB {pattern})) > 0" for side in sides
        ]
        if slash:
            space = context.bind(namespace)
            parts = [f"({side}_namespace GLOB {space} AND {part})" for side, part in zip(sides, parts, strict=True)]
        return " OR ".join(parts)

    return condition


def _class(*sides: str) -> Condition:
    def condition(text: str, context: Context) -> str:
        found = {name.lower().replace(" ", "-"): name for name in CLASSES}.get(text.lower().replace(" ", "-"))
        if found is None:
            raise _Unusable(", ".join(CLASSES))
        value = context.bind(found)
        return " OR ".join(f"{side}_class = {value}" for side in sides)

    return condition


def _policy(text: str, context: Context) -> str:
    """A policy that denied the packet ("NetworkPolicy shop/db", shop/db or db), or whose name its log prefix shows."""
    if not text:
        raise _Unusable("the name of a policy or NAMESPACE/NAME, or a pattern with * and ?")
    pattern = context.bind(text)
    spellings = ("one", "split_part(one, ' ', 2)", "regexp_extract(one, '[^/ ]*$')")
    matches = " OR ".join(f"{spelling} GLOB {pattern}" for spelling in spellings)
    logged = f"policy_name GLOB {pattern} OR (policy_namespace || '/' || policy_name) GLOB {pattern}"
    return f"len(list_filter(denied_by, lambda one: {matches})) > 0 OR {logged}"


_INTERFACES = ("in_interface", "out_interface", "physical_in_interface", "physical_out_interface")

FILTERS = (
    Filter("since", "TIME", "Packets from TIME on: 5m, 1h30m, 7d ago, or ISO 8601.", _time(">="), repeats=False),
    Filter("until", "TIME", "Packets before TIME.", _time("<"), repeats=False),
    Filter(
        "ip", "ADDRESS", "Source or destination is ADDRESS, or in this CIDR.", _address("source_ip", "destination_ip")
    ),
    Filter("from-ip", "ADDRESS", "Source is ADDRESS, or in this CIDR.", _address("source_ip")),
    Filter("to-ip", "ADDRESS", "Destination is ADDRESS, or in this CIDR.", _address("destination_ip")),
    Filter(
        "port", "PORT", "Source or destination port, or a range: 8000-8999.", _port("source_port", "destination_port")
    ),
    Filter("from-port", "PORT", "Source port, or a range.", _port("source_port")),
    Filter("to-port", "PORT", "Destination port, or a range.", _port("destination_port")),
    Filter("protocol", "NAME", "tcp, udp, icmp, icmpv6, sctp, … or a number.", _protocol),
    Filter("tcp-flags", "FLAGS", "All of these TCP flags are set: SYN or SYN,ACK.", _tcp_flags),
    Filter(
        "direction",
        "DIRECTION",
        "ingress (to a pod), egress (from a pod) or host.",
        _one_of("direction", ("ingress", "egress", "host")),
    ),
    Filter("ip-version", "VERSION", "4 or 6.", _one_of("ip_version", ("4", "6"), int)),
    Filter("node", "PATTERN", "Name of the node; * and ? stand for anything.", _glob("node")),
    Filter("interface", "PATTERN", "Any interface of the packet: 'cali*'.", _glob(*_INTERFACES)),
    Filter("prefix", "PATTERN", "The log prefix: 'calico-packet*'.", _glob("prefix")),
    Filter("policy", "PATTERN", "Policy that denied or logged the packet: NAME or NAMESPACE/NAME.", _policy),
    Filter("namespace", "PATTERN", "Source or destination is in this namespace.", _glob(*_both("namespace"))),
    Filter("from-namespace", "PATTERN", "Source is in this namespace.", _glob("source_namespace")),
    Filter("to-namespace", "PATTERN", "Destination is in this namespace.", _glob("destination_namespace")),
    Filter(
        "pod", "POD", "Source or destination is this pod: [NAMESPACE/]NAME or its beginning.",
        _named("pod", beginning=True),
    ),
    Filter("from-pod", "POD", "Source is this pod.", _named("pod", ("source",), beginning=True)),
    Filter("to-pod", "POD", "Destination is this pod.", _named("pod", ("destination",), beginning=True)),
    Filter("workload", "NAME", "Source or destination belongs to [NAMESPACE/]NAME.", _named("workload")),
    Filter("from-workload", "NAME", "Source belongs to this workload.", _named("workload", ("source",))),
    Filter("to-workload", "NAME", "Destination belongs to this workload.", _named("workload", ("destination",))),
    Filter("from-service", "NAME", "Source is behind the service [NAMESPACE/]NAME.", _service("source")),
    Filter("to-service", "NAME", "Destination is the service, or behind it.", _service("destination")),
    Filter("class", "CLASS", "Source or destination is: pod, unknown-pod, node, private, public, …", _class(*_SIDES)),
    Filter("from-class", "CLASS", "Source is of this class.", _class("source")),
    Filter("to-class", "CLASS", "Destination is of this class.", _class("destination")),
    Filter("from-node", "PATTERN", "Source is this node, or a pod on it.", _glob("source_node")),
    Filter("to-node", "PATTERN", "Destination is this node, or a pod on it.", _glob("destination_node")),
)  # fmt: skip
_BY_NAME = {entry.name: entry for entry in FILTERS}


def where(chosen: Mapping[str, str | Sequence[str] | None], *, now: datetime, zone: tzinfo) -> Where:
    """The condition for the flags that were given (flag name with or without dashes -> value or values).

    `now` is what relative times are relative to, `zone` that of times without one. Raises FilterError.
    """
    context = Context(now, zone)
    given = {
        name.replace("-", "_"): [values] if isinstance(values, str) else list(values)
        for name, values in chosen.items()
        if values or values == ""
    }
    parts = {name: _all_values(_BY_NAME[name], values, context) for name, values in given.items()}
    bounds: dict[str, datetime | None] = {name: _bound(given.get(name, []), context) for name in ("since", "until")}
    rest = " AND ".join(part for name, part in parts.items() if not bounds.get(name)) or "true"
    rest = rest if any(bounds.values()) else ""
    whole = " AND ".join(parts.values()) or "true"
    return Where(whole, context.parameters, bounds["since"], bounds["until"], rest)


def _bound(values: list[str], context: Context) -> datetime | None:
    """The one time that packets are since, or until; None where the values are no simple bound."""
    (value,) = values if len(values) == 1 else ("!",)
    return None if value.startswith("!") else moment(value.strip(), context.now, context.zone)


def _all_values(entry: Filter, values: list[str], context: Context) -> str:
    found = [(value.startswith("!"), _condition(entry, value, context)) for value in values]
    wanted = [condition for negated, condition in found if not negated]
    parts = [f"({' OR '.join(wanted)})"] if wanted else []
    # A packet without the field is not one with the value: null counts as "does not hold".
    parts += [f"NOT coalesce({condition}, false)" for negated, condition in found if negated]
    return " AND ".join(parts)


def _condition(entry: Filter, value: str, context: Context) -> str:
    try:
        value.encode()
        return f"({entry.condition(value.removeprefix('!').strip(), context)})"
    except UnicodeEncodeError:
        raise FilterError(entry.flag, value, "text in UTF-8") from None
    except _Unusable as error:
        raise FilterError(entry.flag, value, str(error)) from None
