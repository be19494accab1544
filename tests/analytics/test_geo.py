"""Country and network of addresses, from a file that the test writes by MaxMind's specification (format 2.0)."""

from __future__ import annotations

import ipaddress
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from analytics import StoreError
from analytics.geo import Geo, Place

DENYLOG = str(Path(sys.executable).parent / "denylog")


# Type and bytes of numbers: build_epoch is 64 bits wide, node_count 32, all else 16.
NUMBERS = {"build_epoch": (9, 8), "node_count": (6, 4)}


def control(kind: int, size: int) -> bytes:
    """The bytes that say type and size; types beyond 7 stand in a byte of their own, and so do sizes from 29 on."""
    first = (kind << 5 if kind <= 7 else 0) | min(size, 29)
    return bytes([first, *([kind - 7] if kind > 7 else []), *([size - 29] if size >= 29 else [])])


def encoded(value: Any, name: str = "") -> bytes:
    """A value of the data section: type and size, then the payload."""
    match value:
        case dict():
            return control(7, len(value)) + b"".join(encoded(key) + encoded(each, key) for key, each in value.items())
        case str():
            return control(2, len(value.encode())) + value.encode()
        case int():
            kind, width = NUMBERS.get(name, (5, 2))
            return control(kind, width) + value.to_bytes(width, "big")
        case list():
            return control(11, len(value)) + b"".join(map(encoded, value))
    raise TypeError(value)


def mmdb(networks: dict[str, dict[str, Any]]) -> bytes:
    """A file of IPv4 networks: a tree of nodes with two records of 24 bits, 16 zero bytes, data, metadata."""
    tree: list[list[Any]] = [[None, None]]
    for network, record in networks.items():
        found = ipaddress.ip_network(network)
        bits = f"{int(found.network_address):032b}"[: found.prefixlen]
        node = 0
        for bit in bits[:-1]:
            if tree[node][int(bit)] is None:
                tree[node][int(bit)] = len(tree)
                tree.append([None, None])
            node = tree[node][int(bit)]
        tree[node][int(bits[-1])] = record
    data, places = b"", []
    for record in networks.values():
        places.append(len(data))
        data += encoded(record)
    offset = {id(record): place for record, place in zip(networks.values(), places, strict=True)}
    count = len(tree)

    def pointer(entry: Any) -> bytes:
        if entry is None:
            return count.to_bytes(3, "big")
        return (entry if isinstance(entry, int) else count + 16 + offset[id(entry)]).to_bytes(3, "big")

    about = {
        "node_count": count, "record_size": 24, "ip_version": 4, "database_type": "Test", "languages": ["en"],
        "binary_format_major_version": 2, "binary_format_minor_version": 0, "build_epoch": 1, "description": {"en": ""},
    }  # fmt: skip
    nodes = b"".join(pointer(entry) for node in tree for entry in node)
    return nodes + bytes(16) + data + b"\xab\xcd\xefMaxMind.com" + encoded(about)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """A file of countries and one of networks."""
    (tmp_path / "country.mmdb").write_bytes(
        mmdb({"203.0.113.0/24": {"country": {"iso_code": "NZ"}}, "198.51.100.0/25": {"country": {"iso_code": "CL"}}})
    )
    asn = {"autonomous_system_number": 64500, "autonomous_system_organization": "Example"}
    (tmp_path / "asn.mmdb").write_bytes(mmdb({"203.0.113.64/26": asn}))
    return [str(tmp_path / "country.mmdb"), str(tmp_path / "asn.mmdb")]


def test_lookup(files: list[str]) -> None:
    """What the files say together; null for addresses that they do not have, and for what is no address."""
    with Geo(files) as geo:
        assert geo.lookup("203.0.113.66") == Place("NZ", 64500, "Example")
        assert geo.lookup("203.0.113.1") == Place("NZ")
        assert geo.lookup("198.51.100.200") == geo.lookup("2001:db8::1") == geo.lookup("x") == Place()


def test_unusable_file(tmp_path: Path) -> None:
    """A file of another format, and one that is not there, are refused with a sentence."""
    (tmp_path / "x.mmdb").write_text("nothing of that kind")
    with pytest.raises(StoreError, match="MaxMind's format"):
        Geo([str(tmp_path / "x.mmdb")])
    with pytest.raises(StoreError, match="cannot be read"):
        Geo([str(tmp_path / "y.mmdb")])


def test_top_with_countries(filled: Callable[[Iterable[dict[str, Any]]], str], files: list[str]) -> None:
    """`top --geoip` shows country and network after the counts."""
    store = filled([{"source_ip": "203.0.113.66"}])
    words = [DENYLOG, "top", "--store", store, "-o", "json", *(word for file in files for word in ("--geoip", file))]
    (row,) = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    assert (row["source_country"], row["source_asn"], row["source_organization"]) == ("NZ", 64500, "Example")
