"""`parser.read`, line by line through the reference parser: for tests that read thousands of tiny chunks, where the
column-wise path costs milliseconds a call. It reads no packets, only counts, rejects and losses."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from parser import Loss, Options, Reject
from parser.bulk import Batch, Lost, Rejected
from parser.line import parse


def read(data: bytes, options: Options, *, anchor: datetime, final: bool = False, before: bytes = b"") -> Batch:
    """The batch of all whole lines in `data`."""
    text = data if final else data[: data.rfind(b"\n") + 1]
    rejects: list[Rejected] = []
    losses: list[Lost] = []
    offset = lines = 0
    for line in text.splitlines(keepends=True):
        lines += 1
        match parse(line.removesuffix(b"\n"), options, anchor=anchor):
            case Reject() as reject:
                rejects.append(Rejected(offset, line.removesuffix(b"\n"), reject, None, None))
            case Loss() as loss:
                losses.append(Lost(offset, line.removesuffix(b"\n"), loss, None, None))
        offset += len(line)
    return Batch(len(text), lines, pl.DataFrame(), lines - len(rejects), tuple(rejects), tuple(losses))
