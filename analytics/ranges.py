"""The address ranges that mean something to everybody, by name, and addresses as bits, so that SQL can tell who is in.

Rule: names and ranges are those of the IANA special-purpose address registries (RFC 6890) and of the RFC beside each.
"""

from __future__ import annotations

import ipaddress

# name | networks | source; the first that holds counts.
_TABLE = """
unspecified | 0.0.0.0/32 ::/128 | RFC 1122, RFC 4291
this network | 0.0.0.0/8 | RFC 791
broadcast | 255.255.255.255/32 | RFC 919
loopback | 127.0.0.0/8 ::1/128 | RFC 1122, RFC 4291
private | 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 | RFC 1918
unique-local | fc00::/7 | RFC 4193
shared | 100.64.0.0/10 | RFC 6598
link-local | 169.254.0.0/16 fe80::/10 | RFC 3927, RFC 4291
documentation | 192.0.2.0/24 198.51.100.0/24 203.0.113.0/24 2001:db8::/32 3fff::/20 | RFC 5737, RFC 3849, RFC 9637
benchmarking | 198.18.0.0/15 2001:2::/48 | RFC 2544, RFC 5180
multicast | 224.0.0.0/4 ff00::/8 | RFC 5771, RFC 4291
reserved | 240.0.0.0/4 | RFC 1112
IPv4-mapped | ::ffff:0:0/96 | RFC 4291
translation | 64:ff9b::/96 64:ff9b:1::/48 | RFC 6052, RFC 8215
discard | 100::/64 100:0:0:1::/64 | RFC 6666, RFC 9780
6to4 | 2002::/16 192.88.99.0/24 | RFC 3056, RFC 7526
Teredo | 2001::/32 | RFC 4380
ORCHID | 2001:10::/28 2001:20::/28 | RFC 4843, RFC 7343
protocol assignments | 192.0.0.0/24 2001::/23 | RFC 6890, RFC 2928
AS112 | 192.31.196.0/24 192.175.48.0/24 2001:4:112::/48 2620:4f:8000::/48 | RFC 7534, RFC 7535
segment routing | 5f00::/16 | RFC 9602
""".strip()

SPECIAL: tuple[tuple[str, tuple[str, ...], str], ...] = tuple(
    (name.strip(), tuple(networks.split()), source.strip())
    for name, networks, source in (line.split("|") for line in _TABLE.splitlines())
)
PUBLIC = "public"
"""The class of every other address."""
KNOWN = ("pod", "unknown pod", "node", "service", "host endpoint", "host-network pod", "network set")
"""The classes that an inventory tells."""
CLASSES = (*KNOWN, PUBLIC, *(name for name, _, _ in SPECIAL))


def bits(address: str) -> str:
    """SQL for the bits of `address` (an SQL expression of canonical text): 32 or 128 characters 0 and 1, else null."""
    octets = " || ".join(f"lpad(bin(split_part({address}, '.', {n})::UTINYINT), 8, '0')" for n in range(1, 5))
    left, right = (f"string_split(nullif(split_part({address}, '::', {n}), ''), ':')" for n in (1, 2))
    zeros = f"list_resize([]::VARCHAR[], 8 - coalesce(len({left}), 0) - coalesce(len({right}), 0), '0')"
    groups = f"list_transform(list_concat({left}, {zeros}, {right}), lambda word: lpad(word, 4, '0'))"
    return (
        f"CASE WHEN contains({address}, ':') THEN try(unhex(array_to_string({groups}, ''))::BIT::VARCHAR) "
        f"WHEN contains({address}, '.') THEN try({octets}) END"
    )


def network_bits(network: str) -> str:
    """The first bits of every address in `network`, as text."""
    found = ipaddress.ip_network(network)
    width = found.max_prefixlen
    return f"{int(found.network_address):0{width}b}"[: found.prefixlen]


def special_class(bits_of_address: str) -> str:
    """SQL for the class of an address by the registries alone, from its bits; null for what is no address."""
    cases = " ".join(f"WHEN {_within(bits_of_address, networks)} THEN '{name}'" for name, networks, _ in SPECIAL)
    return f"CASE {cases} WHEN {bits_of_address} IS NOT NULL THEN '{PUBLIC}' END"


def _within(bits_of_address: str, networks: tuple[str, ...]) -> str:
    parts = (
        f"(len({bits_of_address}) = {ipaddress.ip_network(network).max_prefixlen} "
        f"AND starts_with({bits_of_address}, '{network_bits(network)}'))"
        for network in networks
    )
    return f"({' OR '.join(parts)})"
