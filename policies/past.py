"""What a cluster was at any time: versions of its objects, and for how long each answer about them holds.

Rule: pods come and go by the second and policies by the day, so they are kept apart: an `Epoch` is a time in which
nothing but pods changed, and pods are found by their interface or address. Nothing is carried over the edge of a
version: where no object is known for a time, the answer is that none is known.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from policies.errors import Problem
from policies.evaluate import Ruleset, selected
from policies.flow import Directory, Party
from policies.load import built, found_as, inventory, once, selector_problem
from policies.match import asks_source_port
from policies.model import Address, HostEndpoint, Inventory, Pod, Policy
from policies.pairing import is_ours


@dataclass(frozen=True, slots=True)
class Span:
    """From `since` on, and before `until`; both aware."""

    since: datetime
    until: datetime

    def __contains__(self, time: datetime) -> bool:
        return self.since <= time < self.until

    def __and__(self, other: Span) -> Span:
        return Span(max(self.since, other.since), min(self.until, other.until))


ALWAYS = Span(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))


@dataclass(frozen=True, slots=True)
class Version:
    """One object as it was for a while: a plain Kubernetes or Calico object, as YAML would load it."""

    written: Mapping[str, object]
    span: Span = ALWAYS


class Epoch:
    """A time in which no policy, tier, namespace, network set, service or host endpoint changed."""

    def __init__(self, records: Iterable[object], span: Span) -> None:
        self.inventory: Inventory = inventory(once(records, []))
        self.span = span
        self.directory = Directory(self.inventory)
        self.rules_for = selected(Ruleset.of(self.inventory))
        self._parties: dict[tuple[Pod, Address], Party] = {}

    def seen(self, pod: Pod, address: Address) -> Party:
        """The pod as the end of a packet that shows this address."""
        key = (pod, address)
        if key not in self._parties:
            self._parties[key] = self.directory.seen(pod, address)
        return self._parties[key]

    def host(self, node: str | None, interface: str | None, address: Address) -> Party | None:
        """The host endpoint of a node's interface: by its name, else the one for all interfaces, else by address."""
        own = [each for each in self.inventory.host_endpoints if _same_node(each.node, node)]
        wanted = (
            lambda each: each.interface == interface,
            lambda each: each.interface == "*",
            lambda each: not each.interface and address in each.addresses,
        )
        found: HostEndpoint | None = next((each for fits in wanted for each in own if fits(each)), None)
        return self.directory.host(found, address) if found else None


def _same_node(name: str, logged: str | None) -> bool:
    """Whether a node of Kubernetes is the host that a log names, which may be with or without its domain."""
    return bool(logged) and (name == logged or name.split(".")[0] == str(logged).split(".")[0])


class _Claims:
    """Who held one interface or address, and when; of two at once it is the one that came later."""

    def __init__(self) -> None:
        self._held: list[tuple[Span, Pod]] = []
        self._cuts: list[datetime] = []

    def add(self, span: Span, pod: Pod) -> None:
        self._held.append((span, pod))
        self._cuts = []

    def at(self, time: datetime, *, lasting: bool = False) -> tuple[Pod | None, Span]:
        """Who held it; with `lasting` also whoever held it last: nobody else can ever have it."""
        self._cuts = self._cuts or sorted({cut for span, _ in self._held for cut in (span.since, span.until)})
        holding = [
            (span.since, number)
            for number, (span, _) in enumerate(self._held)
            if time in span or (lasting and span.until <= time)
        ]
        return (self._held[max(holding)[1]][1] if holding else None), _between(self._cuts, time)


def _between(cuts: list[datetime], time: datetime) -> Span:
    """The time between two neighbouring cuts in which `time` lies."""
    place = bisect_right(cuts, time)
    return Span(
        cuts[place - 1] if place else ALWAYS.since,
        cuts[place] if place < len(cuts) else ALWAYS.until,
    )


class Past:
    """Versions of objects to ask about any time; `problems` tell of those that cannot be read, which are left out."""

    def __init__(self, versions: Iterable[Version], always: Inventory | None = None) -> None:
        """`always` is what is taken to have held all the time, besides."""
        self.problems: list[Problem] = []
        self._interfaces: defaultdict[str, _Claims] = defaultdict(_Claims)
        self._addresses: defaultdict[Address, _Claims] = defaultdict(_Claims)
        self._others: list[tuple[Span, object]] = []
        self.pods: list[tuple[Span, Pod]] = []
        for version in versions:
            records, problems = built(found_as([version.written], "store"))
            self.problems += problems
            self._add(records, version.span)
        if always:
            self._add((each for name in always.__slots__ for each in getattr(always, name)), ALWAYS)
        self._cuts = sorted({cut for span, _ in self._others for cut in (span.since, span.until)})
        self._epochs: dict[Span, Epoch] = {}

    def epoch(self, time: datetime) -> Epoch:
        """What held then, but for pods."""
        span = _between(self._cuts, time)
        if span not in self._epochs:
            self._epochs[span] = Epoch((each for held, each in self._others if time in held), span)
        return self._epochs[span]

    def behind(self, interface: str | None, time: datetime) -> tuple[Pod | None, Span]:
        """The pod whose interface it was, and for how long that is the answer.

        The name of the interface is made of the pod's, so it tells the pod also after its end, when its last packets
        are logged.
        """
        digest = _DIGEST.search(interface or "")
        claims = self._interfaces.get(digest[0]) if digest else None
        return claims.at(time, lasting=True) if claims else (None, ALWAYS)

    def at(self, address: Address, time: datetime) -> tuple[Pod | None, Span]:
        """The pod that had the address, and for how long that is the answer."""
        claims = self._addresses.get(address)
        return claims.at(time) if claims else (None, ALWAYS)

    def inventory(self, time: datetime) -> Inventory:
        """Everything that held at a time, pods as well."""
        return inventory(once((each for span, each in (*self._others, *self.pods) if time in span), []))

    def cuts(self, within: Span) -> list[datetime]:
        """The moments in a time at which something changed."""
        moments = {moment for span, _ in (*self._others, *self.pods) for moment in (span.since, span.until)}
        return sorted(moment for moment in moments if moment in within)

    @property
    def by_source_port(self) -> bool:
        """Whether a policy, at whatever time, asked for the port that packets come from."""
        return any(asks_source_port(each) for _, each in self._others if isinstance(each, Policy))

    @property
    def log_policies(self) -> list[str]:
        """What the log prefix shows of the policies that this tool generated, at whatever time: they log and deny
        nothing themselves."""
        ours = [each for _, each in self._others if isinstance(each, Policy) and is_ours(each)]
        return sorted({name for each in ours for name in (each.name, f"{each.namespace or ''}/{each.name}")})

    def _add(self, records: Iterable[object], span: Span) -> None:
        for each in records:
            if isinstance(each, Pod):
                self._add_pod(each, span)
            elif isinstance(each, Policy) and (problem := selector_problem(each)):
                self.problems.append(problem)
            else:
                self._others.append((span, each))

    def _add_pod(self, pod: Pod, span: Span) -> None:
        self.pods.append((span, pod))
        if not pod.is_endpoint:
            return
        self._interfaces[pod.interface[-_DIGITS:]].add(span, pod)
        for address in pod.addresses:
            self._addresses[address].add(span, pod)


_DIGITS = 11
_DIGEST = re.compile(rf"(?<=.)[0-9a-f]{{{_DIGITS}}}$")
"""What names a pod in the name of its interface, whatever Felix' InterfacePrefix (workload_endpoint_default.go)."""
