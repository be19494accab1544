"""What Felix is told to do with Log rules on this node, as FelixConfiguration says it.

Rule: what is set for the node goes before what is set for all (felix/config/config_params.go, Source); Felix' own
environment goes before both and cannot be seen from here, so everything said of it is said as "is set to".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

_ALL = "default"
_DEFAULT_PREFIX = "calico-packet"
_DEFAULT_INTERFACES = "cali"
_BURST = 5  # felix/config/config_params.go, LogActionRateLimitBurst
_SAMPLES = {"%t": "default", "%k": "gnp", "%n": "deny-all", "%p": "shop/deny-all"}
_SPECIFIER = re.compile("%[tknp]")


@dataclass(frozen=True, slots=True)
class Felix:
    """The settings of one node: `names` of the objects that they come from, and `source`, who told."""

    source: str
    names: tuple[str, ...]
    spec: Mapping[str, Any] = field(default_factory=dict)

    @property
    def prefix(self) -> str:
        """As the administrator wrote it; felix/rules/policy.go takes the default where it is empty."""
        return str(self.spec.get("logPrefix") or _DEFAULT_PREFIX)

    @property
    def speaks(self) -> bool:
        """True where the prefix names the policy."""
        return _SPECIFIER.search(self.prefix) is not None

    @property
    def printed(self) -> str:
        """The prefix as a line has it, of some policy."""
        return _SPECIFIER.sub(lambda found: _SAMPLES[found[0]], self.prefix) + ": "

    @property
    def rate(self) -> str:
        """Lines of one rule on one node, "" where there is no limit."""
        return str(self.spec.get("logActionRateLimit") or "")

    @property
    def burst(self) -> int:
        return int(self.spec.get("logActionRateLimitBurst") or _BURST)

    @property
    def bpf(self) -> bool:
        return self.spec.get("bpfEnabled") is True

    @property
    def nftables(self) -> bool:
        return self.spec.get("nftablesMode") == "Enabled"

    @property
    def legacy(self) -> bool:
        """True where its rules are in the tables of iptables-legacy."""
        return not self.nftables and str(self.spec.get("iptablesBackend")).lower() == "legacy"

    @property
    def interfaces(self) -> tuple[str, ...]:
        """What the interfaces of pods begin with."""
        found = str(self.spec.get("interfacePrefix") or _DEFAULT_INTERFACES).split(",")
        return tuple(filter(None, map(str.strip, found)))

    @property
    def severities(self) -> tuple[str, ...]:
        """How much Felix says of itself, which is not about packets: `logSeveritySys=Warning`."""
        return tuple(f"{name}={value}" for name, value in sorted(self.spec.items()) if name.startswith("logSeverity"))


def felix_of(objects: Iterable[Mapping[str, Any]], node: str, source: str) -> Felix | None:
    """The settings that hold on a node, None where there is no object that tells."""
    found = {str(each["metadata"]["name"]): each.get("spec") or {} for each in objects}
    names = tuple(name for name in (_ALL, f"node.{node}") if name in found)
    if not names:
        return None
    return Felix(source, names, {key: value for name in names for key, value in found[name].items()})
