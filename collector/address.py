"""Where to listen: HOST:PORT as people write it, addresses of both families.

Rule: nothing is resolved here; without a host it is loopback, since metrics are nobody else's business by default.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: a host name or an address, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


_ADDRESS = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^\s:\[\]]*)):(?P<port>\d{1,5})")


def address(text: str) -> Address:
    """HOST:PORT, [IPv6]:PORT, or :PORT for loopback; raises ValueError with what is expected."""
    found = _ADDRESS.fullmatch(text)
    if found is None or int(found["port"]) > 65_535:
        raise ValueError(f"{text!r} is no address; expected HOST:PORT, for example 127.0.0.1:9843 or [::1]:9843")
    return Address(found["six"] or found["host"] or "127.0.0.1", int(found["port"]))
