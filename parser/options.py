"""What the reader of a log must know that the log does not say: prefixes, trust, the writer's zone.

Rule: options are values given from outside; the parser looks at no clock and no environment.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, tzinfo

DEFAULT_PREFIXES = ("calico-packet", "calico-drop")
"""Felix' default logPrefix (felix/rules/policy.go), and the one Calico Enterprise uses for drops."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to read lines.

    `prefixes`: words before `IN=`, or Calico logPrefix formats such as `calico-packet %k %p`.
    `any_prefix`: take every netfilter line, whatever its prefix. `any_tag`: also lines without the kernel's tag.
    `zone`: zone of the program that wrote RFC 3164 time stamps. `interface_prefix`: Felix' InterfacePrefix.
    """

    prefixes: tuple[str, ...] = DEFAULT_PREFIXES
    any_prefix: bool = False
    any_tag: bool = False
    zone: tzinfo = UTC
    interface_prefix: str = "cali"
