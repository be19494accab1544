"""Country and network of an address in words, from the MaxMind-format file that the user supplies.

Rule: nothing is looked up on the network; an address that the file does not have has no place.
"""

from __future__ import annotations

from functools import cache

from analytics.geo import NOWHERE, Geo
from analytics.store import StoreError
from dashboards.settings import current


@cache
def _geo(path: str) -> Geo:
    return Geo([path])


def place_of(address: str) -> str:
    """'Germany, AS64500 Example': what the file says of an address; empty where it says nothing, or there is none."""
    path = current().geoip
    try:
        place = _geo(path).lookup(address.partition("%")[0]) if path else NOWHERE
    except StoreError:
        return ""
    network = (f"AS{place.asn}" if place.asn else "", place.organization or "")
    return ", ".join(filter(None, (place.country_name or place.country, " ".join(filter(None, network)))))
