"""Country and network of an address, from the MaxMind-format file that the user supplied.

Rule: nothing is looked up on the network; an address that the file does not have has no place.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from functools import cache
from typing import Any

import maxminddb

from dashboards.settings import current


@cache
def _database(path: str) -> maxminddb.Reader:
    return maxminddb.open_database(path)


def place_of(address: str) -> str:
    """'Germany, AS64500 Example': what the file says of an address; empty where it says nothing, or there is none."""
    path = current().geoip
    if not path:
        return ""
    try:
        found = _database(path).get(ipaddress.ip_address(address.partition("%")[0]))
    except (ValueError, OSError, maxminddb.InvalidDatabaseError):
        return ""
    return ", ".join(filter(None, (_country(found), _network(found)))) if isinstance(found, Mapping) else ""


def _country(record: Mapping[str, Any]) -> str:
    """GeoLite2 has a tree with names in many languages, others have plain text."""
    country = record.get("country")
    if isinstance(country, Mapping):
        names = country.get("names")
        return str((names.get("en") if isinstance(names, Mapping) else "") or country.get("iso_code", ""))
    return str(country or record.get("country_name") or "")


def _network(record: Mapping[str, Any]) -> str:
    number = record.get("autonomous_system_number") or record.get("asn") or ""
    name = record.get("autonomous_system_organization") or record.get("as_name") or ""
    label = str(number) if str(number).upper().startswith("AS") else f"AS{number}" if number else ""
    return " ".join(filter(None, (label, str(name))))
