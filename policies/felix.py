"""The FelixConfiguration patch that fits a Calico release: what the log prefix can say, and what limiting costs.

Rule: only what that release understands is written; an older one would print `%n` as it stands or refuse the field.
Releases are those of felix/rules/policy.go and api/pkg/apis/projectcalico/v3/felixconfig.go.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from policies.errors import PolicyError, Problem
from policies.model import Place
from policies.render import Data

Version = tuple[int, int, int]

_FIRST: dict[tuple[int, int], int] = {(3, 30): 6, (3, 31): 4}
"""First patch release of a minor one that knows prefix specifiers and rate limits; from 3.32 on all do."""

_RATE = re.compile(r"[1-9][0-9]{0,3}/(second|minute|hour|day)")


@dataclass(frozen=True, slots=True)
class Advice:
    """A patch for `kubectl patch felixconfiguration default --type merge`, and what it means."""

    patch: Data
    notes: tuple[str, ...]


def _trouble(message: str, advice: str) -> PolicyError:
    return PolicyError([Problem("felix", Place("command line"), "", message, advice)])


def parse_version(text: str) -> Version:
    """`3.31`, `v3.31.4`: three numbers, the last 0 where it is not given. Raises PolicyError."""
    found = re.fullmatch(r"v?(\d+)\.(\d+)(?:\.(\d+))?(?:[-+].*)?", text)
    if found is None:
        raise _trouble(f"{text!r} is no Calico release", "write it as 3.31.4")
    return int(found[1]), int(found[2]), int(found[3] or 0)


def names_policies(version: Version) -> bool:
    """Whether the release puts tier, kind and name of the policy into the prefix, and can limit the rate."""
    minor = version[:2]
    return minor >= (3, 32) or (minor in _FIRST and version[2] >= _FIRST[minor])


def _glued(version: Version) -> bool:
    return (3, 29) <= version[:2] <= (3, 31) and not names_policies(version)


def advise(text: str, rate: str | None) -> Advice:
    """The patch for a release. Raises PolicyError for a release or rate that cannot be."""
    version = parse_version(text)
    if rate is not None and not _RATE.fullmatch(rate):
        raise _trouble(f"{rate!r} is no rate", "write 1 to 9999 and a unit, such as 10/second or 100/minute")
    if rate is not None and not names_policies(version):
        raise _trouble(f"Calico {text} cannot limit the rate of Log actions", "3.30.6, 3.31.4 and 3.32 can")
    known = names_policies(version)
    spec: Data = {"logPrefix": "calico-packet %n" if known else "calico-packet"}
    notes = list(_prefix_notes(version))
    if rate:
        spec["logActionRateLimit"] = rate
        notes.append("a limit counts for each rule and node; beyond it packets are denied without a line")
        notes.append("so that a gap in the log no longer shows that nothing was denied")
    return Advice({"spec": spec}, tuple(notes))


def _prefix_notes(version: Version) -> list[str]:
    if names_policies(version):
        return ["%n prints the Log policy's name: on iptables 13 characters of it survive, so use --per-policy names"]
    notes = ["this release prints no policy names: a line tells the pod by its interface, not the policy"]
    if _glued(version):
        notes.append("with nftables this release leaves out ': ', so lines start with 'calico-packetIN='")
    return notes
