"""A clock that is moved by hand, and pieces as a follower reads them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from analytics import Position
from collector.records import piece_of, start
from collector.rows import Piece
from collector.settings import Settings


class Clock:
    """Seconds since some moment."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def position() -> Position:
    """Where a source stands before its first line."""
    return start("/var/log/syslog", "f" * 32, "/var/log/syslog")


def packet_piece(stamps: Sequence[float], *, interfaces: str = "IN=cali0123456789a OUT=eth0") -> Piece:
    """Packets with these times, seconds since 1970."""
    lines = [
        f"{datetime.fromtimestamp(stamp, UTC).isoformat()} node-1 kernel: [1.000000] calico-packet: {interfaces} "
        "MAC=ee:ee:ee:ee:ee:ee:aa:bb:cc:dd:ee:ff:08:00 SRC=10.0.0.1 DST=10.0.0.2 LEN=60 TOS=0x00 PREC=0x00 TTL=63 ID=7 "
        "DF PROTO=TCP SPT=1 DPT=2 WINDOW=64240 RES=0x00 SYN URGP=0 "
        for stamp in stamps
    ]
    return piece_of([line.encode() for line in lines], position(), "", Settings())


def plain_piece(count: int) -> Piece:
    """Lines that are not ours."""
    return piece_of([b"2026-11-22T15:00:00+00:00 node-1 cron[1]: hello"] * count, position(), "", Settings())
