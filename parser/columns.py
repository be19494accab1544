"""Message bodies as columns: the common shapes of a netfilter line, read by anchored patterns over whole columns.

Rule: a body is taken only if a pattern recognises all of it and every number fits its field; anything else is left to
the reference grammar, which decides. So this file may know less than the grammar, and must never know better.

The patterns are "one-pass": at each character at most one way leads on, and none has more than sixteen groups. Rust's
regex engine then reads captures in a single scan, three to five times as fast as otherwise; that is why a body is read
in stages (network, transport, tail) and why options that begin alike are told apart in a stage of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import polars as pl

from parser.packet import FIELDS
from parser.patterns import compressed

_TYPES: dict[str, Any] = {
    "BIGINT": pl.Int64,
    "BOOLEAN": pl.Boolean,
    "DOUBLE": pl.Float64,
    "INTEGER": pl.Int32,
    "JSON": pl.String,
    "SMALLINT": pl.Int16,
    "TIMESTAMPTZ": pl.Datetime("us", "UTC"),
    "VARCHAR": pl.String,
    "VARCHAR[]": pl.List(pl.String),
}
SCHEMA: dict[str, Any] = {field.name: _TYPES[field.sql] for field in FIELDS}
"""Name and Polars type of every field, in order."""

_OCTET = "(?:0|1(?:[0-9][0-9]?)?|2(?:[0-4][0-9]?|5[0-5]?|[6-9])?|[3-9][0-9]?)"
_IP4 = rf"{_OCTET}\.{_OCTET}\.{_OCTET}\.{_OCTET}"
_IP6 = "[0-9a-f]{4}(?::[0-9a-f]{4}){7}"
_INTERFACE = "[!-.0-9;-~]{0,15}"  # at most 15 bytes, no blank, slash or colon (net/core/dev.c, dev_valid_name)
_NUMBER = "(?:0|[1-9][0-9]*)"
_HEX = "(?:0|[1-9a-f][0-9a-f]*)"
_MAC = "(?:[0-9a-f]{2}(?::[0-9a-f]{2})*)?"
_HEAD = rf"^(?P<in_interface>{_INTERFACE}) OUT=(?P<out_interface>{_INTERFACE}) (?:MAC=(?P<mac>{_MAC}) )?"
_HEADERS = {
    4: rf"{_HEAD}SRC=(?P<source_ip>{_IP4}) DST=(?P<destination_ip>{_IP4}) LEN=(?P<length>{_NUMBER}) "
    rf"TOS=0x(?P<tos>[01][02468ACE]) PREC=0x(?P<prec>[02468ACE]0) TTL=(?P<ttl>{_NUMBER}) ID=(?P<ip_id>{_NUMBER}) "
    rf"(?P<ce>CE )?(?P<df>DF )?(?P<mf>MF )?(?:FRAG:(?P<fragment_offset>{_NUMBER}) )?$",
    6: rf"{_HEAD}SRC=(?P<source_ip>{_IP6}) DST=(?P<destination_ip>{_IP6}) LEN=(?P<length>{_NUMBER}) "
    rf"TC=(?P<tos>{_NUMBER}) HOPLIMIT=(?P<ttl>{_NUMBER}) FLOWLBL=(?P<flow_label>{_NUMBER}) $",
}
_MARKERS = {4: " TTL=", 6: " HOPLIMIT="}  # found fast, so that a pattern is not tried on the other family's lines
_PORTS = rf"^SPT=(?P<source_port>{_NUMBER}) DPT=(?P<destination_port>{_NUMBER})"
_TAIL = "(?P<tail> [ -~]*)?$"
_TCP = (
    rf"{_PORTS} (?:SEQ=(?P<tcp_seq>{_NUMBER}) ACK=(?P<tcp_ack>{_NUMBER}) )?WINDOW=(?P<tcp_window>{_NUMBER}) "
    rf"RES=0x(?P<tcp_reserved>[0-3][048c]) (?P<flags>[A-Z ]*)=(?P<tcp_urgent>{_NUMBER}){_TAIL}"
)
_UDP = rf"{_PORTS} LEN=(?P<udp_length>{_NUMBER}){_TAIL}"
_ICMP = rf"^TYPE=(?P<icmp_type>{_NUMBER}) CODE=(?P<icmp_code>{_NUMBER}){_TAIL}"
_ECHO = rf"^ ID=(?P<icmp_id>{_NUMBER}) SEQ=(?P<icmp_seq>{_NUMBER}){_TAIL}"
_SPI = rf"^SPI=0x(?P<spi>{_HEX}){_TAIL}"
_MARKS = (
    r"^(?: OPT \((?P<tcp_options>(?:[0-9A-F]{2})*)\))?"
    rf"(?: UID=(?P<uid>{_NUMBER}) GID=(?P<gid>{_NUMBER}))?(?: MARK=0x(?P<mark>[1-9a-f][0-9a-f]*))?$"
)
_TRANSPORTS: dict[int, dict[str, str]] = {  # what the kernel prints after PROTO= -> pattern of what follows
    4: {"TCP": _TCP, "UDP": _UDP, "UDPLITE": _UDP, "ICMP": _ICMP, "AH": _SPI, "ESP": _SPI},
    6: {"TCP": _TCP, "UDP": _UDP, "UDPLITE": _UDP, "ICMPv6": _ICMP},
}
_ECHOES = {4: (0, 8), 6: (128, 129)}
_ERRORS = {4: (3, 4, 5, 11, 12), 6: (1, 2, 3, 4)}  # these quote a packet or carry more: left to the grammar
_NUMBERED = [str(n) for n in range(256) if n not in (1, 6, 17, 50, 51, 58, 136)]  # protocols printed as numbers
_FLAGS = ("AE", "CWR", "ECE", "URG", "ACK", "PSH", "RST", "SYN", "FIN")
_LIMITS = {  # the largest value of each field: the width of the header field, or of the kernel's variable
    "length": 2**32 - 1, "tos": 255, "ttl": 255, "ip_id": 65535, "flow_label": 2**20 - 1, "fragment_offset": 8191,
    "source_port": 65535, "destination_port": 65535, "tcp_window": 65535, "tcp_seq": 2**32 - 1, "tcp_ack": 2**32 - 1,
    "tcp_reserved": 0x3C, "tcp_urgent": 65535, "udp_length": 65535, "icmp_type": 255, "icmp_code": 255,
    "icmp_id": 65535, "icmp_seq": 65535, "spi": 2**32 - 1, "uid": 2**32 - 1, "gid": 2**32 - 1, "mark": 2**32 - 1,
}  # fmt: skip
_BASE_16 = ("tcp_reserved", "spi", "mark")
_ETHERNET_HEADER = 41  # characters of fourteen octets with colons between


def bodies(rows: pl.DataFrame) -> pl.DataFrame:
    """Read column `body`, the text after `IN=` with trailing blanks removed; all other columns travel along.

    Returns only the rows that were recognised to the last character, with the columns of the fields found in them
    (a subset of `SCHEMA`; the types are right, the order is not).
    """
    halves = rows.get_column("body").str.split_exact("PROTO=", 1).struct.unnest()
    rest = halves.get_column("field_1").str.splitn(" ", 2).struct.rename_fields(["protocol", "rest"]).struct.unnest()
    split = rows.drop("body").hstack([halves.get_column("field_0").alias("header"), *rest])
    parts = [part for version in (4, 6) for part in _packets(split, version) if part.height]
    return pl.concat(parts, how="diagonal") if parts else rows.clear().drop("body")


def _packets(rows: pl.DataFrame, version: int) -> Iterator[pl.DataFrame]:
    rows = keep(rows, pl.col("header").str.contains(_MARKERS[version], literal=True))
    if rows.is_empty():
        return
    network = _network(rows, version)
    later_fragment = (pl.col("fragment_offset") > 0).fill_null(False)
    transport = pl.col("rest").is_not_null() & ~later_fragment
    for name, pattern in _TRANSPORTS[version].items():
        part = keep(network, transport & (pl.col("protocol") == name))
        if part.height:
            yield _READERS[name](match(part, "rest", pattern), version)
    named = pl.col("protocol").is_in(list(_TRANSPORTS[version]))
    alone = network.filter(pl.col("protocol").is_in(_NUMBERED) | (later_fragment & named))
    if alone.height:
        yield _tail(alone.with_columns(tail=pl.lit(" ") + pl.col("rest")), version)


def _network(rows: pl.DataFrame, version: int) -> pl.DataFrame:
    found = _numbers(match(rows, "header", _HEADERS[version]), "length", "ttl", "ip_id", "flow_label")
    found = found.with_columns(_link()).drop("mac")
    if version == 4:
        return _numbers(found, "fragment_offset").with_columns(_ip4()).drop("prec", "ce", "df", "mf")
    addresses = [mapped(found.get_column(name), compressed, pl.String) for name in ("source_ip", "destination_ip")]
    return _numbers(found, "tos").with_columns(
        *addresses, pl.lit(6, pl.Int16).alias("ip_version"), pl.lit(None, pl.Int32).alias("fragment_offset")
    )


def match(rows: pl.DataFrame, column: str, pattern: str) -> pl.DataFrame:
    """The rows whose `column` matches, with a text column for each named group; the first group is always there."""
    groups = rows.get_column(column).str.extract_groups(pattern).struct.unnest()
    return keep(rows.drop(column).hstack(groups), pl.col(groups.columns[0]).is_not_null())


def keep(rows: pl.DataFrame, condition: pl.Expr) -> pl.DataFrame:
    """`rows.filter(condition)`, without the copy where all rows stay, as they mostly do."""
    mask = rows.select(condition).to_series()
    return rows if mask.all() else rows.filter(mask)


def _numbers(rows: pl.DataFrame, *names: str) -> pl.DataFrame:
    """Turn text columns into numbers and drop the rows in which one does not fit its field."""
    present = [name for name in names if name in rows.columns]
    wide = rows.with_columns(_integer(name) for name in present)
    wrong = [pl.col(name).is_null() & rows.get_column(name).is_not_null() for name in present]
    wrong += [(pl.col(name) > _LIMITS[name]).fill_null(False) for name in present]
    fitting = keep(wide, ~pl.any_horizontal(wrong))
    return fitting.with_columns(pl.col(name).cast(SCHEMA[name]) for name in present)


def _integer(name: str) -> pl.Expr:
    text = pl.col(name)
    return text.str.to_integer(base=16, strict=False) if name in _BASE_16 else text.cast(pl.Int64, strict=False)


def _link() -> list[pl.Expr]:
    mac = pl.col("mac")
    usual = mac.str.len_bytes() >= _ETHERNET_HEADER
    kind = (mac.str.slice(36, 2) + mac.str.slice(39, 2)).str.to_integer(base=16, strict=False)
    other = mac.str.len_bytes().is_in([0, _ETHERNET_HEADER])
    return [
        *(_or_null(pl.col(name), pl.col(name) != "").alias(name) for name in ("in_interface", "out_interface")),
        _or_null(mac.str.slice(18, 17), usual).alias("source_mac"),
        _or_null(mac.str.slice(0, 17), usual).alias("destination_mac"),
        _or_null(kind.cast(pl.Int32), usual).alias("ether_type"),
        _or_null(mac, ~other).alias("link_header"),
    ]


def _or_null(value: pl.Expr, condition: pl.Expr) -> pl.Expr:
    return pl.when(condition).then(value)


def _ip4() -> list[pl.Expr]:
    octet = (pl.col(name).str.to_integer(base=16, strict=False) for name in ("tos", "prec"))
    flags = {"reserved_bit": "ce", "dont_fragment": "df", "more_fragments": "mf"}
    return [
        pl.lit(4, pl.Int16).alias("ip_version"),
        pl.sum_horizontal(octet).cast(pl.Int16).alias("tos"),
        pl.col("fragment_offset") * 8,  # printed in units of eight octets
        *(pl.col(token).is_not_null().alias(name) for name, token in flags.items()),
    ]


def mapped(texts: pl.Series, function: Callable[[str], Any], kind: Any) -> pl.Series:
    """`function` of each text, computed once for each different text; `kind` is the Polars type of its result."""
    results = {text: function(text) for text in texts.unique() if text is not None}
    if not results:
        return pl.Series(texts.name, [None] * len(texts), dtype=kind)
    return texts.replace_strict(results, default=None, return_dtype=kind)


def _tcp(rows: pl.DataFrame, version: int) -> pl.DataFrame:
    names = ("source_port", "destination_port", "tcp_seq", "tcp_ack", "tcp_window", "tcp_reserved", "tcp_urgent")
    known = {text: flags for text in rows.get_column("flags").unique() if (flags := _flags(text)) is not None}
    lists = pl.DataFrame(
        {"flags": list(known), "tcp_flags": list(known.values())},
        schema={"flags": pl.String, "tcp_flags": pl.List(pl.String)},
    )
    return _tail(_numbers(rows, *names).join(lists, on="flags", maintain_order="left").drop("flags"), version)


def _flags(text: str) -> tuple[str, ...] | None:
    *flags, last = text.split(" ")
    expected = [flag for flag in _FLAGS if flag in flags]
    return tuple(flags) if last == "URGP" and flags == expected else None


def _udp(rows: pl.DataFrame, version: int) -> pl.DataFrame:
    return _tail(_numbers(rows, "source_port", "destination_port", "udp_length"), version)


def _icmp(rows: pl.DataFrame, version: int) -> pl.DataFrame:
    rows = _numbers(rows, "icmp_type", "icmp_code")
    kind = pl.col("icmp_type")
    echoes = match(rows.filter(kind.is_in(_ECHOES[version])), "tail", _ECHO)
    plain = rows.filter(~kind.is_in(_ECHOES[version] + _ERRORS[version]))
    parts = [_tail(_numbers(echoes, "icmp_id", "icmp_seq"), version), _tail(plain, version)]
    return pl.concat(parts, how="diagonal")


def _spi(rows: pl.DataFrame, version: int) -> pl.DataFrame:
    return _tail(_numbers(rows, "spi"), version)


_READERS: dict[str, Callable[[pl.DataFrame, int], pl.DataFrame]] = {
    "TCP": _tcp,
    "UDP": _udp,
    "UDPLITE": _udp,
    "ICMP": _icmp,
    "ICMPv6": _icmp,
    "AH": _spi,
    "ESP": _spi,
}


def _tail(rows: pl.DataFrame, version: int) -> pl.DataFrame:
    """Read TCP options, UID, GID and MARK, which few lines have, and put the name of the protocol in lower case."""
    rows = rows.drop("rest", strict=False).with_columns(pl.col("protocol").str.to_lowercase())
    nothing = pl.col("tail").is_null()
    parts = [keep(rows, nothing).drop("tail")]
    if parts[0].height < rows.height:
        some = rows.filter(~nothing & pl.col("tail").str.contains(_MARKS))
        marked = some.hstack(some.get_column("tail").str.extract_groups(_MARKS).struct.unnest()).drop("tail")
        if "tcp_window" not in rows.columns:
            marked = marked.filter(pl.col("tcp_options").is_null())
        parts.append(_numbers(marked, "uid", "gid", "mark"))
    return pl.concat(parts, how="diagonal")
