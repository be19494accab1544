"""What counts as a finding: one table of rules and thresholds, and the ways to change them (--set, --rules, --mute).

Rule: each figure has its source beside it; a name or a value that nobody knows is an error that names the nearest.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from analytics.filters import FILTERS, Context, duration

SEVERITIES = ("low", "medium", "high", "critical")
Value = int | float | timedelta | str | tuple[int, ...]


class RulesError(ValueError):
    """A setting of a rule that cannot be used: `where` it stands, and `what` is wrong with it."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(where, what)
        self.where = where
        self.what = what

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True, slots=True)
class Threshold:
    """One figure of a rule: its name, its default, what it means, and who found it good."""

    name: str
    default: Value
    meaning: str
    source: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of finding; `techniques`: MITRE ATT&CK ids for a source inside the cluster and for one outside, or -.

    For `first_seen`, whose sources are all inside, the target decides.
    """

    name: str
    meaning: str
    severity: str
    techniques: tuple[str, str]
    thresholds: tuple[Threshold, ...] = ()


def _default(text: str) -> Value:
    if text.isdigit():
        return int(text)
    if "," in text:
        return tuple(int(number) for number in text.split(","))
    try:
        return duration(text)
    except ValueError:
        return float(text)


# A rule: name | what it finds | severity | technique inside | technique outside; below it its settings:
# name | default | meaning | source. "Zeek" is policy/misc/scan.zeek or ncsa/bro-simple-scan, "psad" psad.conf, "Sigma"
# net_firewall_susp_network_scan_by_ip and _by_port, "Elastic" the rules of elastic/detection-rules, "OSSEC"
# firewall_rules.xml, "RITA" activecm/rita; "ours" means that no such figure is published.
_TABLE = """
vertical_scan | one source tries many ports of a host or workload | high | T1046 | T1595.001
    ports | 15 | distinct ports of one target within window | Zeek misc/scan port_scan_threshold
    window | 5m | | Zeek misc/scan port_scan_interval
    slow_ports | 25 | the same within slow_window, for a slow scan | Zeek simple-scan scan_threshold
    pod_ports | 10 | the same for a pod, whose peers are few and known | Sigma network scan by port
    slow_window | 24h | | Sigma timeframe
    cooldown | 2h | tries with pauses up to this are one finding | ours: slow_window / pod_ports
horizontal_sweep | one source tries one port of many hosts | high | T1046 | T1595.001
    hosts | 25 | distinct addresses on one port within window | Zeek misc/scan addr_scan_threshold
    window | 5m | | Zeek misc/scan addr_scan_interval
    slow_hosts | 50 | the same within slow_window; outside the cluster not on ports 80 and 443 | psad DANGER_LEVEL3
    pod_hosts | 10 | the same for a pod and addresses inside the cluster | Sigma network scan by ip
    slow_window | 24h | | Sigma timeframe
    tries | 3 | a host that is tried more often is a peer, not a guess | ours: more than one nmap run sends
    cooldown | 2h | tries with pauses up to this are one finding | ours: slow_window / pod_hosts
spoofed_source | a pod's interface sends with an address that is not the pod's | high | T1036 | T1036
    packets | 3 | packets with the foreign address | ours: a pod that is just replaced may send one or two
    cooldown | 1h | packets with pauses up to this are one finding | ours
beaconing | regular calls to one address outside the cluster | high | T1071 | T1071
    attempts | 12 | connections to one address and port | ours: RITA takes 4, and looks at sizes too
    span | 1h | from the first to the last of them | ours
    regularity | 0.9 | 1 - half the spread of four fifths of the intervals / their median | RITA score for medium
    shortest | 10s | shorter intervals are retries of a client | ours
    ignore_ports | 53,123 | names and time are asked for regularly by design | ours
    cooldown | 24h | calls with pauses up to this are one finding | ours
misconfigured_client | a client inside the cluster that keeps trying one port | medium | - | -
    attempts | 15 | attempts on one port within window | psad DANGER_LEVEL2
    slots | 6 | stretches of five minutes in which there are some | ours: half an hour is no hiccup
    window | 24h | | ours: a job of every hour counts
    cooldown | 24h | attempts with pauses up to this are one finding | ours
repeated_offender | a source outside the cluster that does not give up or comes back | medium | T1595 | T1595
    attempts | 16 | attempts within burst, or within window and over several slots | OSSEC rule 4151
    burst | 45s | | OSSEC rule 4151
    slots | 6 | stretches of five minutes in which there are some | ours
    window | 24h | | ours
    cooldown | 24h | visits with pauses up to this are one finding | ours
spike | far more denials of a namespace than in this quarter of an hour of earlier days | medium | T1498 | T1498
    attempts | 50 | attempts in a quarter of an hour | ours: a tenth of what one busy scanner sends
    factor | 3 | times the highest of the earlier days | ours
    days | 3 | days that the store must hold before | ours: a weekend is not a baseline
    history | 7d | how far back days are compared | ours: each weekday once
    cooldown | 1h | stretches with pauses up to this are one finding | Elastic asks every 15 minutes over 30
first_seen | a workload is denied a destination that it never tried before | low | T1021 | T1071
    history | 5d | for so long the workload must have been seen before | Elastic newly observed alert
    cooldown | 24h | new destinations with pauses up to this are one finding | ours
"""


def _rules() -> tuple[Rule, ...]:
    found: list[Rule] = []
    for line in _TABLE.strip().splitlines():
        name, *cells = (cell.strip() for cell in line.split("|"))
        if line.startswith(" "):
            default, meaning, source = cells
            threshold = Threshold(name, _default(default), meaning, source)
            found[-1] = replace(found[-1], thresholds=(*found[-1].thresholds, threshold))
        else:
            meaning, severity, inside, outside = cells
            found.append(Rule(name, meaning, severity, (inside, outside)))
    return tuple(found)


RULES = _rules()
RULE = {rule.name: rule for rule in RULES}
LOOKBACK = timedelta(days=30)
"""How far before the time asked for packets are looked at; a pair that was not seen for longer is new again."""


@dataclass(frozen=True, slots=True)
class Mute:
    """A source that a rule (None: every rule) passes over: addresses in `network`, a `namespace`, or a `workload`."""

    rule: str | None
    kind: str
    value: str


@dataclass(frozen=True, slots=True)
class Settings:
    """The thresholds and severities in force, what is muted, and Calico's logActionRateLimit ("10/second") if set."""

    values: Mapping[str, Mapping[str, Value]] = field(
        default_factory=lambda: {rule.name: {t.name: t.default for t in rule.thresholds} for rule in RULES}
    )
    severities: Mapping[str, str] = field(default_factory=lambda: {rule.name: rule.severity for rule in RULES})
    mutes: tuple[Mute, ...] = ()
    rate_limit: str = ""

    def changed(self, where: str, key: str, value: object) -> Settings:
        """These settings with one figure changed: `key` is RULE.NAME; raises RulesError, which names `where`."""
        name, dot, threshold = key.partition(".")
        if not dot:
            raise RulesError(where, f"{key!r}: expected RULE.NAME=VALUE, for example vertical_scan.ports=20")
        rule = RULE[_known(where, "rule", name, RULE)]
        known = {entry.name: entry for entry in rule.thresholds}
        _known(where, f"setting of {name}", threshold, [*known, "severity"])
        if threshold == "severity":
            severity = _known(where, "severity", str(value), SEVERITIES)
            return replace(self, severities={**self.severities, name: severity})
        changed = {**self.values[name], threshold: _value(f"{where}: {key}", known[threshold].default, value)}
        return replace(self, values={**self.values, name: changed})


def settings(
    assignments: Iterable[str] = (),
    mutes: Iterable[str] = (),
    file: str | None = None,
    text: str = "",
    rate_limit: str = "",
) -> Settings:
    """The settings that a TOML file (`file` is its name, `text` what is in it), `--set` and `--mute` ask for, the
    later over the earlier; raises RulesError."""
    found = _from_toml(Settings(), file, text) if file else Settings()
    for assignment in assignments:
        key, _, value = assignment.partition("=")
        found = found.changed("--set", key.strip(), value.strip())
    if rate_limit:
        found = replace(found, rate_limit=_rate("--rate-limit", rate_limit))
    return replace(found, mutes=(*found.mutes, *(mute("--mute", value) for value in mutes)))


def _from_toml(found: Settings, file: str, text: str) -> Settings:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RulesError(file, f"is no TOML: {error}") from error
    muted = _texts(file, "mute", document.pop("mute", []))
    if limit := document.pop("rate_limit", ""):
        found = replace(found, rate_limit=_rate(file, limit))
    for name, table in document.items():
        _known(file, "rule", name, [*RULE, "mute", "rate_limit"])
        if not isinstance(table, dict):
            raise RulesError(file, f"{name}: expected a table, [{name}]")
        muted += [f"{name}:{value}" for value in _texts(file, f"{name}.mute", table.pop("mute", []))]
        for key, value in table.items():
            found = found.changed(file, f"{name}.{key}", value)
    return replace(found, mutes=tuple(mute(file, value) for value in muted))


def _texts(file: str, key: str, value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise RulesError(file, f"{key}: expected a list of texts")
    return list(value)


def mute(where: str, text: str) -> Mute:
    """What `[RULE:]CIDR`, `[RULE:]namespace=NAME` or `[RULE:]workload=NAMESPACE/NAME` means; raises RulesError."""
    head, colon, tail = text.partition(":")
    rule, rest = (head, tail) if colon and (head in RULE or not _network(text)) else (None, text)
    if rule is not None:
        _known(where, "rule", rule, RULE)
    kind, equals, value = rest.partition("=")
    if equals and value and (kind != "workload" or "/" in value.strip("/")):
        return Mute(rule, _known(where, "kind of mute", kind, ("namespace", "workload")), value)
    if network := _network(rest):
        return Mute(rule, "network", network)
    raise RulesError(where, f"{text!r}: expected [RULE:] and a CIDR, namespace=NAME or workload=NAMESPACE/NAME")


def _rate(where: str, text: object) -> str:
    """A limit as Felix has it (felix/config/config_params.go, LogActionRateLimit)."""
    if isinstance(text, str) and re.fullmatch(r"[1-9]\d{0,3}/(?:second|minute|hour|day)", text):
        return text
    raise RulesError(where, f"rate limit {text!r}: expected a number and a unit, as in FelixConfiguration: 10/second")


def _network(text: str) -> str | None:
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        return None


def _known(where: str, what: str, name: str, names: Iterable[str]) -> str:
    """`name`, where it is one of `names`."""
    known = list(names)
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"expected {', '.join(known)}"
    raise RulesError(where, f"there is no {what} {name!r}; {hint}")


def _value(where: str, default: Value, value: object) -> Value:
    """`value` in the type of `default`; from a text or from what TOML has."""
    for kind, read, expected in _READERS:
        if isinstance(default, kind):
            try:
                found: Value = read(value)
                return found
            except (ValueError, TypeError, OverflowError):
                raise RulesError(where, f"{value!r}: expected {expected}") from None
    raise AssertionError(default)


def _count(value: Any) -> int:
    if isinstance(value, bool) or int(value) != float(value) or int(value) < 1:
        raise ValueError(value)
    return int(value)


def _ratio(value: Any) -> float:
    if isinstance(value, bool) or not 0 < float(value) <= 1:
        raise ValueError(value)
    return float(value)


def _length(value: Any) -> timedelta:
    found = duration(value)
    if not timedelta() < found <= timedelta(days=365):
        raise ValueError(value)
    return found


def _ports(value: Any) -> tuple[int, ...]:
    numbers = [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value
    found = tuple(int(number) for number in numbers)
    if not all(0 <= number <= 65535 for number in found):
        raise ValueError(value)
    return found


_READERS: Sequence[tuple[type, Any, str]] = (
    (int, _count, "a whole number from 1 on"),
    (float, _ratio, "a number above 0, at most 1"),
    (timedelta, _length, "a length of time (45s, 5m, 24h), at most a year"),
    (tuple, _ports, "ports with commas between them"),
)


def muted(settings: Settings, rule: str | None, context: Context) -> str:
    """The condition under which a source is muted for `rule` (None: for every rule)."""
    return " OR ".join(_silenced(mute, context) for mute in settings.mutes if mute.rule == rule) or "false"


_FROM_IP = next(entry.condition for entry in FILTERS if entry.flag == "from-ip")


def _silenced(mute: Mute, context: Context) -> str:
    if mute.kind == "network":
        return f"({_FROM_IP(mute.value, context)})"
    if mute.kind == "namespace":
        return f"source_namespace = {context.bind(mute.value)}"
    return f"source = {context.bind(mute.value)}"


def rules_markdown() -> str:
    """The table of rules and thresholds, in Markdown."""
    lines = [
        "| rule | what it finds | severity | ATT&CK inside / outside |",
        "|---|---|---|---|",
        *(f"| `{rule.name}` | {rule.meaning} | {rule.severity} | {' / '.join(rule.techniques)} |" for rule in RULES),
        "",
        "| setting | default | meaning | source of the figure |",
        "|---|---|---|---|",
    ]
    for rule in RULES:
        lines += [
            f"| `{rule.name}.{entry.name}` | {shown(entry.default)} | {entry.meaning} | {entry.source} |"
            for entry in rule.thresholds
        ]
    return "\n".join(lines) + "\n"


def shown(value: Value) -> str:
    """A setting as it is written."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if not isinstance(value, timedelta):
        return str(value)
    seconds = int(value.total_seconds())
    size, unit = next(
        (size, unit) for size, unit in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")) if seconds % size == 0
    )
    return f"{seconds // size}{unit}"
