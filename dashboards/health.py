"""How the store is doing: is every line accounted for, how far behind is each file, what was rejected, lost, forwarded.

Rule: the sum is shown beside the claim; what is wrong stands first.
"""

from __future__ import annotations

from typing import Any

from analytics.filters import Where
from analytics.reader import Reader, Rows
from analytics.status import Source, Status, status
from dashboards.look import Look
from dashboards.markup import heading, notice, tiles
from dashboards.tables import Download, ago, amount, downloads, table

_EXAMPLES = """
SELECT time, node, reason, detail, line FROM rejects ORDER BY stored_at DESC, source_file, source_offset DESC LIMIT 50
"""
_LOSS_EXAMPLES = """
SELECT time, node, source, count, line FROM losses ORDER BY stored_at DESC, source_file, source_offset DESC LIMIT 50
"""
_FORWARDING = """
SELECT * EXCLUDE (sequence) FROM forwarded
QUALIFY row_number() OVER (PARTITION BY target ORDER BY sequence DESC) = 1 ORDER BY target
"""
_FILES = ("file", "behind", "bytes_behind", "lines", "stored", "not_ours", "rejected", "bytes_lost", "last_commit")


def show(look: Look) -> None:
    """Draw the page."""
    # Growth of a file makes no snapshot: what is asked here is asked anew each time.
    with look.desk.reader(look.zone_name) as reader:
        found = status(reader)
    _verdict(look, found)
    _files(look, found)
    _rejects(look, found)
    _losses(look, found)
    _forwarding(look)
    downloads(
        [Download("files", lambda: _file_rows(look, found)), Download("rejects", lambda: _rows(look, _EXAMPLES))],
        look.zone,
    )


def _verdict(look: Look, found: Status) -> None:
    lines, packets, others, rejects = (
        sum(getattr(source.position, name) for source in found.sources)
        for name in ("lines", "packets", "others", "rejects")
    )
    if not found.sources:
        notice(
            "Nothing has been read into this store yet",
            "Start `denylog collect` or `denylog ingest` on it.",
            kind="empty",
        )
    if not found.balanced:
        notice(
            "The accounts do not balance",
            "Lines were read that are neither stored, nor not ours, nor rejected. This is a defect; please report it.",
            kind="error",
        )
    behind = sum(source.lag_bytes for source in found.sources)
    lost = sum(loss.lines for loss in found.losses)
    tiles((
        ("Lines read", f"{lines:,}", f"= {packets:,} + {others:,} + {rejects:,}"),
        ("Stored", f"{packets:,}", f"{found.rows:,} rows in the store now"),
        ("Not ours", f"{others:,}", "other messages of the log"),
        ("Rejected", f"{rejects:,}", "kept below, with the reason"),
        ("Behind", amount(behind), "read all there is" if not behind else "not read yet"),
        ("Reported lost", f"{lost:,}", "lines that the kernel or syslog dropped"),
        ("On disk", amount(found.catalog_bytes + found.data_bytes), f"of it catalog {amount(found.catalog_bytes)}"),
        ("Last commit", ago(found.last_commit, look.now) if found.last_commit else "–",
         f"{look.local(found.last_commit):%d %b %Y %H:%M:%S}" if found.last_commit else ""),
    ))  # fmt: skip


def _file_rows(look: Look, found: Status) -> Rows:
    types = ("VARCHAR", "VARCHAR", *["BIGINT"] * 6, "TIMESTAMP WITH TIME ZONE")
    return Rows(_FILES, types, [_file_row(source) for source in found.sources])


def _file_row(source: Source) -> tuple[Any, ...]:
    position = source.position
    behind = "up to date" if not source.lag_bytes else f"{amount(source.lag_bytes)} for {source.lag_s:,.0f} s"
    state = "read to its end, rotated away" if position.closed else behind
    numbers = (
        source.lag_bytes,
        position.lines,
        position.packets,
        position.others,
        position.rejects,
        position.bytes_lost,
    )
    return (position.path, state if source.balanced else f"DOES NOT BALANCE; {state}", *numbers, position.time)


def _files(look: Look, found: Status) -> None:
    if not found.sources:
        return
    heading("Files", "lines read = stored + not ours + rejected, for each")
    titles = {
        "file": "File",
        "behind": "State",
        "lines": "Lines",
        "stored": "Stored",
        "not_ours": "Not ours",
        "rejected": "Rejected",
        "bytes_lost": "Bytes lost",
        "last_commit": "Last commit",
    }
    table(_file_rows(look, found), look.zone, key="files", titles=titles)


def _rows(look: Look, sql: str) -> Rows:
    def ask(reader: Reader, _: Where) -> Rows:
        return reader.rows(sql)

    return look.ask(sql, ask)


def _rejects(look: Look, found: Status) -> None:
    heading("Rejected lines", "lines that carry our prefix and were not believed")
    if not found.rejects:
        notice("None.", kind="empty")
        return
    counts = [(entry.reason, entry.kept, entry.beyond) for entry in found.rejects]
    titles = {"reason": "Reason", "kept": "Kept", "beyond": "Only counted"}
    table(
        Rows(("reason", "kept", "beyond"), ("VARCHAR", "BIGINT", "BIGINT"), counts),
        look.zone,
        key="reasons",
        titles=titles,
    )
    titles = {"time": "Time", "node": "Node", "reason": "Reason", "detail": "Expected", "line": "Line"}
    table(_rows(look, _EXAMPLES), look.zone, key="rejects", titles=titles)


def _losses(look: Look, found: Status) -> None:
    heading("Losses", "what programs admit to have dropped; counts above are lower bounds then")
    if not found.losses:
        notice("None reported.", kind="empty")
        return
    titles = {"time": "Time", "node": "Node", "source": "Reported by", "count": "Lines", "line": "Line"}
    table(_rows(look, _LOSS_EXAMPLES), look.zone, key="losses", titles=titles)


def _forwarding(look: Look) -> None:
    heading("Forwarding", "how far each target has got; a packet is passed once the target took it")
    found = _rows(look, _FORWARDING)
    if not found.rows:
        notice("Nothing is forwarded from this store.", kind="empty")
        return
    titles = {
        "target": "Target",
        "messages": "Sent",
        "passed": "Passed over",
        "dropped": "Dropped",
        "row_stored_at": "Up to packets stored at",
        "time": "Last progress",
    }
    table(found, look.zone, key="forwarding", titles=titles)
