"""What the person who starts the dashboard decides, handed to the pages: which store, which zone, how to be reached.

Rule: set once before the server starts; pages only read it.
"""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8501


@dataclass(frozen=True, slots=True)
class Settings:
    """One dashboard: `zone` is the IANA name of the time zone that pages begin with, `geoip` a MaxMind-format file.

    `password` and `auth_header` are the two ways to let only some people in; empty where there is none.
    """

    store: str
    zone: str = "UTC"
    geoip: str = ""
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    password: str = ""
    auth_header: str = ""


_CURRENT = [Settings(store="/var/lib/denylog")]


def use(settings: Settings) -> None:
    """Make these the settings of this process."""
    _CURRENT[0] = settings


def current() -> Settings:
    """The settings of this process."""
    return _CURRENT[0]
