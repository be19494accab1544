"""A stream of log lines as a stream of JSON objects, one for each line, in order: `denylog parse`.

Rule: nothing is stored and nothing is left out; a line over the limit is passed over without being kept in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from collector.settings import LINE_LIMIT
from parser import FIELDS, TOO_LONG, Options, Reject
from parser.bulk import Batch, read

_NOT_OURS = json.dumps({"kind": "other"})
_NO_FIELDS: dict[str, Any] = {field.name: None for field in FIELDS}


def list_lines(blocks: Iterable[bytes], options: Options) -> Iterator[str]:
    """One JSON object for each line of the blocks, with the key `kind`: packet, other, reject or loss.

    The year of a time stamp without one is taken as of now, since a pipe has no time of its own.
    """
    rest = before = b""
    for block in blocks:
        if len(rest) > LINE_LIMIT and b"\n" not in block:
            continue
        if len(rest) > LINE_LIMIT:
            rest, block = b"", block[block.index(b"\n") + 1 :]
            yield _json("reject", None, None, asdict(Reject(TOO_LONG)))
        batch = read(rest + block, options, anchor=datetime.now(UTC), before=before)
        yield from _objects(rest + block, batch)
        before, rest = (rest + block)[: batch.consumed][-LINE_LIMIT:], (rest + block)[batch.consumed :]
    if rest:
        yield from _last(rest, options, before)


def _last(rest: bytes, options: Options, before: bytes) -> Iterator[str]:
    if len(rest) > LINE_LIMIT:
        yield _json("reject", None, None, asdict(Reject(TOO_LONG)))
    else:
        yield from _objects(rest, read(rest, options, anchor=datetime.now(UTC), final=True, before=before))


def _objects(data: bytes, batch: Batch) -> Iterator[str]:
    known = {row.pop("source_offset"): _packet(row) for row in batch.packets.iter_rows(named=True)}
    for rejected in batch.rejects:
        known[rejected.offset] = _json("reject", rejected.time, rejected.node, asdict(rejected.reject))
    for lost in batch.losses:
        known[lost.offset] = _json("loss", lost.time, lost.node, asdict(lost.loss))
    offset = 0
    for _ in range(batch.lines):
        yield known.get(offset, _NOT_OURS)
        offset = data.find(b"\n", offset) + 1


def _packet(row: dict[str, Any]) -> str:
    inner = row["inner"]
    row["inner"] = inner and {**_NO_FIELDS, "repeat_count": 0, "truncated": False, **json.loads(inner)}
    return _json("packet", row.pop("time"), row.pop("node"), row)


def _json(kind: str, time: datetime | None, node: str | None, rest: dict[str, Any]) -> str:
    return json.dumps({"kind": kind, "time": time and time.isoformat(), "node": node, **rest})
