"""Country and network (autonomous system) of an address, from files in MaxMind's format that the user supplies.

Rule: nothing is shipped and nothing is asked of the network; what the files do not say is null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any, Self

import maxminddb

from analytics.reader import Rows
from analytics.store import StoreError


@dataclass(frozen=True, slots=True)
class Place:
    """Where an address is: `country` (ISO 3166 code), number of the autonomous system (`asn`), whose it is, and
    `country_name` in English where the file has names."""

    country: str | None = None
    asn: int | None = None
    organization: str | None = None
    country_name: str | None = None


NOWHERE = Place()


class Geo:
    """Open files (one for countries, one for networks, or one with both); a context manager.

    Raises StoreError for a file that is missing or of another format.
    """

    def __init__(self, files: Sequence[str]) -> None:
        self._stack = ExitStack()
        try:
            self._readers = [self._stack.enter_context(_open(file)) for file in files]
        except BaseException:
            self._stack.close()
            raise
        self.lookup = lru_cache(maxsize=65_536)(self._lookup)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _lookup(self, address: str) -> Place:
        found: dict[str, Any] = {}
        for reader in self._readers:
            try:
                record = reader.get(address)
            except ValueError:  # no address, or an IPv6 one in a file of IPv4 networks
                continue
            if isinstance(record, Mapping):
                found = {**_fields(record), **found}
        return Place(**found)

    def widen(self, rows: Rows) -> Rows:
        """The rows with country and network after each column of addresses (`source_ip`, `destination_ip`)."""
        sides = [side for side in ("source", "destination") if f"{side}_ip" in rows.columns]
        places = [rows.columns.index(f"{side}_ip") for side in sides]
        names = (f"{side}_{field}" for side in sides for field in ("country", "asn", "organization"))
        wide = [(*row, *(value for place in places for value in self._values(row[place]))) for row in rows.rows]
        return Rows((*rows.columns, *names), (*rows.types, *("VARCHAR", "BIGINT", "VARCHAR") * len(sides)), wide)

    def _values(self, address: str | None) -> tuple[str | None, int | None, str | None]:
        place = self.lookup(address) if address else NOWHERE
        return place.country, place.asn, place.organization


def _open(file: str) -> maxminddb.Reader:
    try:
        return maxminddb.open_database(file)
    except OSError as error:
        raise StoreError(file, f"cannot be read: {error.strerror or error}") from error
    except (maxminddb.InvalidDatabaseError, ValueError) as error:
        raise StoreError(file, "is no file in MaxMind's format (.mmdb)", "download GeoLite2 or DB-IP Lite") from error


def _fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """The names of GeoLite2 Country, City and ASN, which DB-IP and others share, and those of files without trees."""
    country = record.get("country") or record.get("registered_country") or {}
    told = {
        "country": country.get("iso_code") if isinstance(country, Mapping) else None,
        "country_name": _country_name(record),
        "asn": record.get("autonomous_system_number") or _number(record.get("asn")),
        "organization": record.get("autonomous_system_organization") or record.get("as_name"),
    }
    return {name: value for name, value in told.items() if value is not None}


def _country_name(record: Mapping[str, Any]) -> str | None:
    """GeoLite2 has names in many languages, others have plain text."""
    country = record.get("country")
    if not isinstance(country, Mapping):
        return country or record.get("country_name")
    names = country.get("names")
    return names.get("en") if isinstance(names, Mapping) else None


def _number(text: object) -> int | None:
    """The number of 'AS64500' or '64500'."""
    digits = str(text).upper().removeprefix("AS")
    return int(digits) if digits.isascii() and digits.isdigit() else None
