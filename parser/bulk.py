"""The fast path: a chunk of whole lines becomes columns; what it does not fully recognise goes to the reference.

Rule: it says of every line what `parser.line.parse` says of it; a property test keeps the two equal.
Lines are found as candidates by the words they must contain; frames that most nodes write are read by pattern, other
frames one by one; message bodies column by column (`parser.columns`); and what is left line by line by the reference.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

import polars as pl

from parser.columns import SCHEMA, bodies, keep, mapped, match
from parser.frame import frame
from parser.line import parse
from parser.options import Options
from parser.outcome import Loss, Outcome, Reject
from parser.packet import Packet
from parser.prefix import match as prefix
from parser.records import is_multiline, records
from parser.when import instant

_WORDS = (  # a line that matters holds one of these, or the word of a prefix
    "callbacks suppressed",
    "messages lost",
    "drop messages due to rate-limiting",
    "kernel messages",
    "Suppressed ",
    "increase S_SIZE",
    "message repeated",
    "policy DENIED",
)
_ANY_PREFIX_WORDS = ("IN=", "PROTO=")  # the second finds records whose beginning is missing
_ASCII = bytes(range(128)) + b"\x7f" * 128
"""Keeps offsets and makes text of any bytes; DEL is in no pattern, so such a line goes to the reference as it is."""
_TAG = r"(?P<node>[!-~]+) kernel: (?P<bracket>\[ *(?P<uptime_s>[0-9]+\.[0-9]{6})\] )?"
_ISO = (  # RFC 3339, as rsyslog's file format writes it
    r"^(?P<stamp>[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.(?P<fraction>[0-9]{1,6}))?"
    rf"(?P<zone>Z|[+-][0-9]{{2}}:[0-9]{{2}}) {_TAG}"
)
_BSD = rf"^(?P<stamp>[A-Z][a-z]{{2}} [ 0-9][0-9] [0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}) {_TAG}"  # RFC 3164
_FRAME = {"offset": pl.Int64, "time": SCHEMA["time"], "uptime_s": pl.Float64, "node": pl.String, "message": pl.String}
_REPEATED = b"last message repeated"
_REPETITIONS = 64
"""How many of them in a row are followed back: an old syslogd writes a few, a forger any number."""
_LONGEST_MESSAGE = 900  # characters; a longer one may have been cut by the kernel (992, 1016): the reference judges
_PREFIX = ("prefix", "policy_tier", "policy_kind", "policy_namespace", "policy_name", "follow_up")
COLUMNS: dict[str, Any] = {**SCHEMA, "source_offset": pl.Int64}
"""Name and Polars type of each column of `Batch.packets`, in order."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A rejected line and where it starts, in bytes from the beginning of the chunk."""

    offset: int
    line: bytes
    reject: Reject
    time: datetime | None
    node: str | None


@dataclass(frozen=True, slots=True)
class Lost:
    """A line that reports a loss and where it starts, in bytes from the beginning of the chunk."""

    offset: int
    line: bytes
    loss: Loss
    time: datetime | None
    node: str | None


@dataclass(frozen=True, slots=True)
class Batch:
    """What a chunk held: `lines == packets.height + others + len(rejects)`.

    `consumed`: bytes that were whole records. `packets`: the columns of `FIELDS`, then `source_offset` (bytes from the
    beginning of the chunk).
    """

    consumed: int
    lines: int
    packets: pl.DataFrame
    others: int
    rejects: tuple[Rejected, ...]
    losses: tuple[Lost, ...]


def read(data: bytes, options: Options, *, anchor: datetime, final: bool = False, before: bytes = b"") -> Batch:
    """Read the whole records at the head of `data`, which starts at the beginning of a line.

    `anchor`: the newest time the chunk can hold (the file's mtime), aware. `final`: nothing follows, so that a last
    line without newline counts. `before`: some of the text before `data`, which "last message repeated" refers to.
    Raises nothing, whatever the bytes.
    """
    text = data if final else data[: data.rfind(b"\n") + 1]
    count, candidates = _candidates(text, options)
    lines = _Lines(text, options, anchor, before)
    if any(is_multiline(lines.at(offset)) for offset in (0, *candidates["offset"].head(1))):
        return _multiline(data, options, anchor, final)
    columns = _columns(lines, candidates)
    for offset in candidates.join(columns, on="offset", how="anti")["offset"]:
        lines.judge(offset, offset + len(lines.at(offset)))
    return lines.batch(len(text), count, columns)


class _Lines:
    """The lines of a chunk, and what the reference says of those that it is asked about."""

    def __init__(self, text: bytes, options: Options, anchor: datetime, before: bytes = b"") -> None:
        self.text = text
        self.options = options
        self.anchor = anchor
        self.before = before
        self.packets: list[dict[str, Any]] = []
        self.rejects: list[Rejected] = []
        self.losses: list[Lost] = []

    def at(self, offset: int) -> bytes:
        """The line that begins at `offset`, without its newline."""
        end = self.text.find(b"\n", offset)
        return self.text[offset:] if end < 0 else self.text[offset:end]

    def judge(self, start: int, end: int) -> None:
        """Keep what the reference says of the record between two offsets."""
        record = self.text[start:end]
        match self._parse(record, self._repeated(start) if _REPEATED in record else None):
            case Packet() as packet:
                self.packets.append({**_row(packet), "source_offset": start})
            case Reject() as reject:
                self.rejects.append(Rejected(start, record, reject, *self._place(record)))
            case Loss() as loss:
                self.losses.append(Lost(start, record, loss, *self._place(record)))

    def batch(self, consumed: int, count: int, columns: pl.DataFrame) -> Batch:
        """All that is known of the chunk: the rows of `columns` and what was judged."""
        known = columns.rename({"offset": "source_offset"}).sort("source_offset")
        missing = [pl.lit(None, kind).alias(name) for name, kind in COLUMNS.items() if name not in known.columns]
        packets = known.with_columns(missing).select(list(COLUMNS))
        if self.packets:
            judged = pl.DataFrame(self.packets, schema=COLUMNS, orient="row")
            packets = pl.concat([packets, judged]).sort("source_offset")
        others = count - packets.height - len(self.rejects)
        return Batch(consumed, count, packets, others, tuple(self.rejects), tuple(self.losses))

    def _parse(self, record: bytes, previous: Packet | None = None) -> Outcome:
        return parse(record, self.options, anchor=self.anchor, previous=previous)

    def _repeated(self, offset: int) -> Packet | None:
        """The packet that a "last message repeated" at `offset` repeats: of the line before, if it is one."""
        for line in islice(self._backwards(offset), _REPETITIONS):
            if _REPEATED not in line:
                outcome = self._parse(line)
                return outcome if isinstance(outcome, Packet) else None
        return None

    def _backwards(self, offset: int) -> Iterator[bytes]:
        for text, end in ((self.text, offset), (self.before, len(self.before))):
            while end > 0:
                start = text.rfind(b"\n", 0, end - 1) + 1
                yield text[start:end].removesuffix(b"\n")
                end = start

    def _place(self, record: bytes) -> tuple[datetime | None, str | None]:
        found = frame(record, self.options, anchor=self.anchor)
        return found.time, found.node


def _row(packet: Packet) -> dict[str, Any]:
    inner = packet.inner
    return {**{name: getattr(packet, name) for name in SCHEMA}, "inner": inner and inner.as_json()}


def _multiline(data: bytes, options: Options, anchor: datetime, final: bool) -> Batch:
    """A chunk of a format whose records have several lines; all but one line of a record are not ours."""
    lines = _Lines(data, options, anchor)
    words = re.compile(_words(options).encode())
    consumed = 0
    for start, end in records(data, final):
        if words.search(data, start, end):
            lines.judge(start, end)
        consumed = end
    text = data[:consumed]
    count = text.count(b"\n") + (not text.endswith(b"\n") and bool(text))
    return lines.batch(consumed, count, pl.DataFrame(schema={"offset": pl.Int64}))


def _candidates(text: bytes, options: Options) -> tuple[int, pl.DataFrame]:
    """The number of lines, and those that may matter: `offset` in bytes, and `line`."""
    if not text:
        return 0, pl.DataFrame(schema={"offset": pl.Int64, "line": pl.String})
    lines = _text(text).str.split("\n").explode()
    if text.endswith(b"\n"):
        lines = lines.head(-1)
    sizes = lines.str.len_bytes().cast(pl.Int64) + 1
    frame = pl.DataFrame({"offset": sizes.cum_sum() - sizes, "line": lines})
    return frame.height, frame.filter(pl.col("line").str.contains(_words(options)))


def _text(data: bytes) -> pl.Series:
    """The chunk as one text with as many bytes; of bytes that are no UTF-8 all beyond ASCII become DEL."""
    try:
        return pl.Series("line", [data], dtype=pl.Binary).cast(pl.String)
    except pl.exceptions.ComputeError:  # invalid UTF-8; asking Polars is faster than decoding first
        return pl.Series("line", [data.translate(_ASCII).decode("ascii")])


def _words(options: Options) -> str:
    own = [*(prefix.partition("%")[0] for prefix in options.prefixes), *(_ANY_PREFIX_WORDS * options.any_prefix)]
    return "|".join(re.escape(word) for word in (*_WORDS, *own))


def _columns(lines: _Lines, candidates: pl.DataFrame) -> pl.DataFrame:
    """The packets among the candidates that the patterns recognise; `offset` tells the line."""
    framed = _framed(lines, keep(candidates, ~pl.col("line").str.contains("message repeated", literal=True)))
    split = framed.get_column("message").str.strip_chars_end(" ").str.split_exact("IN=", 1).struct.unnest()
    rows = framed.drop("message").hstack(split.rename({"field_0": "before", "field_1": "body"}))
    rows = rows.join(_prefixes(rows.get_column("before"), lines.options), on="before", maintain_order="left")
    packets = bodies(rows.drop("before"))
    if packets.is_empty():
        return packets.select("offset")
    pod_in, pod_out = (
        pl.col(f"{way}_interface").str.starts_with(lines.options.interface_prefix).fill_null(False)
        for way in ("in", "out")
    )
    return packets.with_columns(
        pl.when(pod_in & pod_out).then(None).when(pod_out).then(pl.lit("ingress"))
        .when(pod_in).then(pl.lit("egress")).otherwise(pl.lit("host")).alias("direction"),
        pl.lit(0, pl.Int32).alias("repeat_count"),
        pl.lit(False).alias("truncated"),
    )  # fmt: skip


def _prefixes(texts: pl.Series, options: Options) -> pl.DataFrame:
    """What each of the few different texts before `IN=` says, for those that are ours."""
    known = [
        (text, found)
        for text in texts.unique()
        if text is not None and text.isprintable() and (found := prefix(text, options))
    ]
    rows = [(text, p.text, p.tier, p.kind, p.namespace, p.name, p.follow_up) for text, p in known]
    return pl.DataFrame(rows, schema={"before": pl.String} | {name: SCHEMA[name] for name in _PREFIX}, orient="row")


def _framed(lines: _Lines, candidates: pl.DataFrame) -> pl.DataFrame:
    """The candidates that the kernel wrote, with `time`, `uptime_s`, `node` and `message`."""
    framed = candidates.with_columns(pl.col("line").alias("text"))
    iso = match(framed, "text", _ISO)
    bsd = match(framed, "text", _BSD) if iso.height < candidates.height else iso.clear()
    known = [_message(iso, _iso_times(iso)), _message(bsd, _bsd_times(bsd, lines))]
    fast = keep(pl.concat(known), pl.col("time").is_not_null())
    rest = candidates.join(fast, on="offset", how="anti").get_column("offset")
    slow = [row for offset in rest if (row := _slow_frame(lines, offset))]
    both = pl.concat([fast, pl.DataFrame(slow, schema=_FRAME, orient="row")])
    return keep(both, pl.col("message").str.len_bytes() < _LONGEST_MESSAGE)


def _message(rows: pl.DataFrame, times: pl.Series) -> pl.DataFrame:
    """Cut off the frame: a slice is a view of the text, a group of the pattern would be a copy."""
    parts = ("stamp", "node", *(name for name in ("fraction", "zone") if name in rows.columns), "bracket")
    fixed = len("  kernel: ") + ("fraction" in rows.columns and pl.col("fraction").is_not_null().cast(pl.UInt32))
    length = pl.sum_horizontal(pl.col(name).str.len_bytes() for name in parts) + fixed
    message = pl.col("line").str.slice(length).alias("message")
    rows = rows.with_columns(times.alias("time"), pl.col("uptime_s").cast(pl.Float64), message)
    doubtful = pl.col("message").str.contains("^ ") | (
        pl.col("message").str.contains(r"^\[") & pl.col("uptime_s").is_null()
    )
    return keep(rows, ~doubtful).select(list(_FRAME))


def _iso_times(rows: pl.DataFrame) -> pl.Series:
    """The instants of RFC 3339 stamps: seconds, which repeat, and fractions and zones apart, for speed."""
    shift = mapped(rows.get_column("zone"), _minutes, pl.Int64) * 60_000_000
    micros = rows.get_column("fraction").str.pad_end(6, "0").cast(pl.Int64).fill_null(0)
    local = rows.get_column("stamp").str.to_datetime("%Y-%m-%dT%H:%M:%S", time_unit="us", strict=False)
    return (local + (micros - shift).cast(pl.Duration("us"))).dt.replace_time_zone("UTC")


def _minutes(zone: str) -> int:
    """Minutes east of Greenwich: `Z` or `+hh:mm`."""
    return 0 if zone == "Z" else 60 * int(zone[:3]) + int(zone[0] + zone[4:])


def _bsd_times(rows: pl.DataFrame, lines: _Lines) -> pl.Series:
    """The instants of RFC 3164 stamps, by the reference: a chunk has few different ones."""
    zone = lines.options.zone
    return mapped(rows.get_column("stamp"), lambda stamp: instant(stamp, lines.anchor, zone), _FRAME["time"])


def _slow_frame(lines: _Lines, offset: int) -> tuple[int, datetime | None, float | None, str | None, str] | None:
    """The frame of a line as the reference reads it, where the kernel wrote it and it stands for one packet."""
    found = frame(lines.at(offset), lines.options, anchor=lines.anchor)
    if not found.trusted or found.repeat_count:
        return None
    return offset, found.time, found.uptime_s, found.node, found.message
