"""The kernel's ring buffer through /dev/kmsg: one record a read, numbered by the kernel.

Rule: a gap in the numbers is a loss, with its count. Records at or below the committed number are passed over after a
restart in the same boot; a new boot is read from its oldest record. See Documentation/ABI/testing/dev-kmsg.
The time of a record is the boot time plus its stamp. The stamp stands still while the machine is suspended, so records
from before a suspend appear later than they were by the time slept since; `uptime_s` is always what the kernel said.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from analytics import LossRow, Position
from collector.book import Book
from collector.records import piece_of, start
from collector.rows import Piece
from collector.settings import CollectorError, End, Settings
from collector.tail import loss_row

_SOURCE = "kmsg"
_RECORD = 8192  # bytes; no record is longer (kernel/printk/printk.c, PRINTK_MESSAGE_MAX is 2048)


class Kmsg:
    """Follows /dev/kmsg."""

    def __init__(self, book: Book, settings: Settings, device: str = "/dev/kmsg") -> None:
        """Raises CollectorError where the device cannot be read."""
        self.behind = True
        self._book, self.settings = book, settings
        self._boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        try:
            self._descriptor = os.open(device, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise CollectorError(device, error.strerror or str(error), "needs root, or CAP_SYSLOG") from error
        family = book.family(_SOURCE)
        this_boot = [position for position in family if position.file == self._boot]
        self._position: Position = this_boot[-1] if this_boot else start(_SOURCE, self._boot, device)
        # Nobody promised the records from before the first start; those of a later boot were missed.
        self._sequence = int(self._position.cursor.rpartition(":")[2]) if this_boot else (-1 if family else None)
        if not family and isinstance(settings.read_from, End):
            os.lseek(self._descriptor, 0, os.SEEK_END)

    def read(self, budget: int) -> Iterator[Piece]:
        """The records that are there, at most about `budget` bytes of them."""
        records: list[bytes] = []
        stamps: list[int] = []
        gaps: list[LossRow] = []
        size = 0
        boot = time.time() - time.clock_gettime(time.CLOCK_MONOTONIC)
        for number, stamp, line in self._records():
            gaps += self._gap(number, boot + stamp / 1e6)
            self._sequence = number
            records.append(line)
            stamps.append(stamp)
            size += len(line)
            if size >= budget:
                break
        if records:
            yield self._piece(records, stamps, boot, gaps)
        self.behind = size >= budget

    def descriptors(self) -> Iterable[int]:
        """The device."""
        return [self._descriptor]

    def folders(self) -> Iterable[str]:
        """None."""
        return ()

    def waiting(self) -> list[str]:
        """The kernel hands out whole records."""
        return []

    def failed(self) -> list[tuple[str, str]]:
        """None: a device that cannot be read is refused at the start."""
        return []

    def close(self) -> None:
        """Close the device."""
        os.close(self._descriptor)

    def _records(self) -> Iterator[tuple[int, int, bytes]]:
        """Number, stamp in microseconds, and the record's first line (what follows are its KEY=value pairs)."""
        while True:
            try:
                record = os.read(self._descriptor, _RECORD)
            except BlockingIOError:
                return
            except BrokenPipeError:
                continue  # overwritten before it was read; the gap in the numbers tells how many
            line = record.split(b"\n", 1)[0]
            _, number, stamp, _ = line.split(b";", 1)[0].split(b",", 3)
            if self._sequence is None or int(number) > self._sequence:
                yield int(number), int(stamp), line

    def _gap(self, number: int, when: float) -> Sequence[LossRow]:
        if self._sequence is None or number == self._sequence + 1:
            return ()
        count = number - self._sequence - 1
        row = loss_row(self._position, self.settings.node, f"kmsg: {count} records before {number} were overwritten")
        return (replace(row, source=_SOURCE, count=count, time=datetime.fromtimestamp(when, UTC)),)

    def _piece(self, records: list[bytes], stamps: list[int], boot: float, gaps: list[LossRow]) -> Piece:
        origin = datetime.fromtimestamp(boot, UTC)
        piece = piece_of(
            records,
            self._position,
            f"{self._boot}:{self._sequence}",
            self.settings,
            when=lambda index: origin + timedelta(microseconds=stamps[index]),
            gaps=gaps,
        )
        self._position = piece.position
        self._book.note(piece.position)
        return replace(piece, packets=tuple(_timed(frame, origin) for frame in piece.packets))


def _timed(packets: pl.DataFrame, origin: datetime) -> pl.DataFrame:
    """Give packets their time: that of the boot and the kernel's stamp."""
    uptime = (pl.col("uptime_s") * 1e6).round().cast(pl.Int64).cast(pl.Duration("us"))
    return packets.with_columns(pl.col("time").fill_null(pl.lit(origin, pl.Datetime("us", "UTC")) + uptime))
