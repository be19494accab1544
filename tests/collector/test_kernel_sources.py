"""/dev/kmsg and the journal: records with a number or a cursor, each once, across restarts and gaps."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from analytics import Position, Reader, Writer
from collector import Settings, Summary
from collector.book import Book
from collector.follow import follow
from collector.journal import Journal
from collector.kmsg import Kmsg
from tests.collector.live import wait_until

KMSG = Path("/dev/kmsg")
REMOTE = Path("/lib/systemd/systemd-journal-remote")
BODY = (
    "IN=cali0123456789a OUT=eth0 MAC=ee:ee:ee:ee:ee:ee:aa:bb:cc:dd:ee:ff:08:00 SRC=10.0.0.1 DST=10.0.0.2 LEN=60 "
    "TOS=0x00 PREC=0x00 TTL=63 ID=7 DF PROTO=TCP SPT=1 DPT=%d WINDOW=64240 RES=0x00 SYN URGP=0 "
)


def once(store: Path, **sources: object) -> Summary:
    """Read what is there."""
    return follow([], str(store), Settings(once=True, node="node-1"), threading.Event(), **sources)  # type: ignore[arg-type]


def position(store: Path) -> Position:
    """The one position of the store."""
    with Writer(str(store)) as writer:
        (found,) = writer.positions()
    return found


def forge(text: str) -> None:
    """Write a record as root may: its facility is `user`, never `kern`."""
    KMSG.write_text(f"<5>{text}\n")


@pytest.fixture
def kmsg() -> Path:
    """/dev/kmsg, where it can be read and written."""
    if os.geteuid() != 0 or not os.access(KMSG, os.R_OK | os.W_OK):
        pytest.skip("needs root and /dev/kmsg")
    return KMSG


@pytest.mark.system
def test_kmsg_is_read_once(tmp_path: Path, kmsg: Path) -> None:
    """Records are read once; a restart in the same boot goes on behind the last one."""
    store = tmp_path / "store"
    forge("calico-packet: " + BODY % 80)
    first = once(store, kmsg=True)
    before = position(store)
    assert first.lines == before.lines == before.packets + before.others + before.rejects
    assert once(store, kmsg=True).lines == 0
    forge("a line of somebody else")
    assert once(store, kmsg=True).lines == 1
    assert position(store).cursor.startswith(before.file + ":")


@pytest.mark.system
def test_kmsg_forgeries_are_rejects(tmp_path: Path, kmsg: Path) -> None:
    """What root writes into /dev/kmsg is not from the kernel."""
    store = tmp_path / "store"
    once(store, kmsg=True)
    forge("calico-packet: " + BODY % 4711)
    assert once(store, kmsg=True).rejects == 1
    with Reader(str(store)) as reader:
        found = reader.rows("SELECT reason, node FROM rejects ORDER BY time DESC LIMIT 1").rows
    assert found == [("not from the kernel", "node-1")]


@pytest.mark.system
def test_kmsg_gap(tmp_path: Path, kmsg: Path) -> None:
    """Numbers that were never seen are a loss, with their count."""
    store = tmp_path / "store"
    once(store, kmsg=True)
    for number in range(3):
        forge(f"record {number}")
    with Writer(str(store)) as writer:  # as if two of them had been overwritten: the ring buffer is too large to fill
        found = writer.positions()[0]
    lost = 2
    boot, _, sequence = found.cursor.rpartition(":")

    source = Kmsg(Book([found]), Settings())
    source._records = lambda: iter([(int(sequence) + lost + 1, 1_000_000, b"6,1,1000000,-;x")])  # type: ignore[method-assign]
    (piece,) = source.read(1000)
    source.close()
    assert [(row.source, row.count) for row in piece.losses] == [("kmsg", lost)]
    assert piece.position.cursor == f"{boot}:{int(sequence) + lost + 1}"


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A folder for journal files."""
    if not REMOTE.exists() or not shutil.which("journalctl"):
        pytest.skip("needs systemd-journal-remote")
    folder = tmp_path / "journal"
    folder.mkdir()
    return folder


def write(folder: Path, name: str, numbers: range) -> None:
    """A journal file with one kernel record a number."""
    export = "".join(
        f"__REALTIME_TIMESTAMP={1_795_352_860_000_000 + number}\n__MONOTONIC_TIMESTAMP={5_000_000 + number}\n"
        f"_BOOT_ID=0123456789abcdef0123456789abcdef\n_TRANSPORT=kernel\nPRIORITY=5\nSYSLOG_IDENTIFIER=kernel\n"
        f"_HOSTNAME=node-2\n_SOURCE_MONOTONIC_TIMESTAMP={5_000_000 + number}\n"
        f"MESSAGE=calico-packet: {BODY % number}\n\n"
        for number in numbers
    )
    command = [str(REMOTE), f"--output={folder / name}", "-"]
    subprocess.run(command, input=export.encode(), check=True, capture_output=True, timeout=60)


def ports(store: Path) -> list[int]:
    """What the rows say."""
    with Reader(str(store)) as reader:
        return [port for (port,) in reader.rows("SELECT destination_port FROM packets ORDER BY 1").rows]


@pytest.mark.system
def test_journal_is_read_once(tmp_path: Path, journal: Path) -> None:
    """Records are read once, in a new file too; a restart goes on behind the cursor."""
    store = tmp_path / "store"
    write(journal, "a.journal", range(1, 31))
    assert once(store, journal=str(journal)).packets == 30
    assert once(store, journal=str(journal)).lines == 0
    write(journal, "b.journal", range(31, 36))
    assert once(store, journal=str(journal)).packets == 5
    assert ports(store) == list(range(1, 36))
    assert position(store).offset == 35


@pytest.mark.system
def test_journal_vacuumed(tmp_path: Path, journal: Path) -> None:
    """Where the record read last is gone, a loss row says so, and reading goes on."""
    store = tmp_path / "store"
    write(journal, "a.journal", range(1, 6))
    once(store, journal=str(journal))
    (journal / "a.journal").unlink()
    write(journal, "b.journal", range(10, 13))
    summary = once(store, journal=str(journal))
    assert (summary.packets, summary.losses) == (3, 1)
    assert ports(store) == [*range(1, 6), *range(10, 13)]


@pytest.mark.system
def test_journalctl_dies(tmp_path: Path, journal: Path) -> None:
    """A journalctl that is killed is started again behind the last record."""
    store, stop = tmp_path / "store", threading.Event()
    write(journal, "a.journal", range(1, 6))
    settings = Settings(poll_s=0.2, batch_age_s=0.1)
    run = threading.Thread(target=follow, args=([], str(store), settings, stop), kwargs={"journal": str(journal)})
    run.start()
    try:
        wait_for(store, 5)
        for child in children():
            os.kill(child, signal.SIGKILL)
        write(journal, "b.journal", range(6, 9))
        wait_for(store, 8)
    finally:
        stop.set()
        run.join()
    assert ports(store) == list(range(1, 9))


def children() -> list[int]:
    """The journalctl processes that this one started."""
    tasks = Path("/proc/self/task").glob("*/children")
    found = [int(child) for task in tasks for child in task.read_text().split()]
    return [child for child in found if "journalctl" in Path(f"/proc/{child}/cmdline").read_text()]


def wait_for(store: Path, count: int) -> None:
    """Wait until so many rows are there."""

    assert len(wait_until(store, count)) == count


@pytest.mark.system
def test_journal_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """While journalctl ends again and again the journal counts as failed, which `/readyz` shows."""
    if shutil.which("journalctl") is None:
        pytest.skip("needs journalctl")
    folder = tmp_path / "journal"
    folder.mkdir()
    journal = Journal(str(folder), Book([]), Settings())
    folder.rmdir()
    try:
        assert journal.failed() == []
        deadline = time.monotonic() + 20
        while not journal.failed() and time.monotonic() < deadline:
            list(journal.read(1024))
        ((name, reason),) = journal.failed()
        assert name == f"journal:{folder}"
        assert "No such file" in reason
        folder.mkdir()
        deadline = time.monotonic() + 20
        while journal.failed() and time.monotonic() < deadline:
            list(journal.read(1024))
            time.sleep(0.1)
        assert journal.failed() == []
    finally:
        journal.close()


@pytest.mark.system
def test_journal_is_followed_over_a_reboot(tmp_path: Path) -> None:
    """What the last boot wrote behind the record read last is read before what this boot writes."""
    if shutil.which("journalctl") is None or not REMOTE.exists():
        pytest.skip("needs journalctl and systemd-journal-remote")
    folder = tmp_path / "journal"
    folder.mkdir()
    append(folder, ("a" * 32, 1))
    (before,) = records(folder, Book([]), 1)
    append(folder, ("a" * 32, 2), ("b" * 32, 3))
    after = records(folder, Book([before]), 2)
    assert after[-1].lines == 3


def append(folder: Path, *entries: tuple[str, int]) -> None:
    """Add kernel records to a journal, each of a boot and at a second."""
    text = "".join(
        f"__REALTIME_TIMESTAMP={1_700_000_000 + second}000000\n__MONOTONIC_TIMESTAMP={second}000000\n"
        f"_BOOT_ID={boot}\n_TRANSPORT=kernel\nMESSAGE=record {second}\n\n"
        for boot, second in entries
    )
    command = [str(REMOTE), f"--output={folder}/x.journal", "-"]
    subprocess.run(command, input=text.encode(), check=True, capture_output=True)


def records(folder: Path, book: Book, wanted: int) -> list[Position]:
    """The positions after each piece of a followed journal, until so many records were read."""
    journal, found, lines = Journal(str(folder), book, Settings()), [], 0
    deadline = time.monotonic() + 20
    try:
        while lines < wanted and time.monotonic() < deadline:
            for piece in journal.read(1024 * 1024):
                lines += piece.lines
                found.append(piece.position)
            time.sleep(0.05)
    finally:
        journal.close()
    assert lines == wanted
    return found
