"""How fast `denylog ingest` goes from a file to committed rows, and how much memory `denylog collect` takes.

    python bench/ingest.py                     both, with the defaults
    python bench/ingest.py --lines 4000000     a longer file
    python bench/ingest.py --follow 300        follow for five minutes

Prints lines per second and peak memory for a log in which every line is a denied packet and for one in which every
tenth is, beside `grep -c` on the same file, whose speed tells what the machine is worth. Then a writer appends 5 000
lines a second and a collector follows: its resident memory at the most, as the kernel counts it (VmHWM).
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
RATE = 5_000
OTHER = (
    "worker-1 kubelet[812]: I1120 09:00:00.000000     812 prober.go:107] Probe succeeded for pod shop/web-7d4b",
    "worker-1 containerd[640]: time=2026-11-20T09:00:00Z level=info msg=image is up to date digest=sha256:0c8f",
    "worker-1 systemd[1]: run-containerd-runc-k8s.io-2f1c.mount: Deactivated successfully.",
    "worker-1 sshd[2201]: Accepted publickey for admin from 192.0.2.7 port 50122 ssh2: ED25519 SHA256:q3",
)


def stamp(number: int) -> str:
    """The time stamp of the line with this number: 5 000 lines a second."""
    second, part = divmod(number, RATE)
    minute, second = divmod(second, 60)
    return f"2026-11-20T{9 + minute // 60:02d}:{minute % 60:02d}:{second:02d}.{part * 200:06d}+00:00"


def denied(number: int, dice: random.Random) -> str:
    """A denied packet: of ten lines eight are TCP, one UDP, one a ping."""
    pod, target = dice.randrange(2, 200), dice.randrange(1, 250)
    head = (
        f"{stamp(number)} worker-1 kernel: [{421_337 + number / RATE:13.6f}] calico-packet: IN=cali{pod:011x} OUT=eth0 "
        f"MAC=ee:ee:ee:ee:ee:ee:02:00:5e:10:{pod:02x}:01:08:00 SRC=198.51.100.{pod} DST=203.0.113.{target} LEN=60 "
        f"TOS=0x00 PREC=0x00 TTL=63 ID={dice.randrange(65536)} DF PROTO="
    )
    kind = number % 10
    if kind == 8:
        return f"{head}UDP SPT={dice.randrange(32768, 60999)} DPT=53 LEN=40 \n"
    if kind == 9:
        return f"{head}ICMP TYPE=8 CODE=0 ID={dice.randrange(65536)} SEQ={number % 65536} \n"
    ports = f"SPT={dice.randrange(32768, 60999)} DPT={dice.choice((22, 80, 443, 5432))}"
    return f"{head}TCP {ports} WINDOW=64860 RES=0x00 SYN URGP=0 \n"


def lines(count: int, share: int) -> Iterator[str]:
    """So many lines, of which one in `share` is a denied packet."""
    dice = random.Random(20261120)
    for number in range(count):
        yield denied(number, dice) if number % share == 0 else f"{stamp(number)} {OTHER[number % 4]}\n"


def grep(log: Path) -> float:
    """Seconds of `grep -c`; through `cat`, since grep stops at the first match when nobody reads its output."""
    started = time.perf_counter()
    subprocess.run(["sh", "-c", 'grep -c calico-packet "$1" | cat', "grep", str(log)], check=True, capture_output=True)
    return time.perf_counter() - started


def bulk(count: int, folder: Path) -> None:
    """Ingest two files three times, each into a store of its own; the best time counts."""
    (folder / "one").write_text(denied(0, random.Random(1)))
    start_up = min(ingest(folder / "one", folder / f"store-one-{attempt}")[0] for attempt in range(3))
    print(f"one line    {start_up:.2f} s: what starting and creating a store take")
    for share, title in ((1, "all denied"), (10, "10 % denied")):
        log = folder / f"syslog-{share}"
        with log.open("w") as file:
            file.writelines(lines(count, share))
        runs = [(*ingest(log, folder / f"store-{share}-{attempt}"), grep(log)) for attempt in range(3)]
        seconds, peak, grepped = (min(column) for column in zip(*runs, strict=True))
        rates = f"{count / seconds:,.0f} lines/s, {count / (seconds - start_up):,.0f} once started"
        print(
            f"{title:12}{count:>10,} lines, {log.stat().st_size / 1e6:>4.0f} MB in {seconds:.2f} s: {rates}; "
            f"peak {peak:.0f} MB; grep -c {count / grepped:>11,.0f} lines/s, {seconds / grepped:.1f} times as fast"
        )
        log.unlink()


def ingest(log: Path, store: Path) -> tuple[float, float]:
    """Seconds and peak memory in MB of one `denylog ingest`."""
    command = [sys.executable, "-m", "cli", "ingest", "--store", str(store), str(log)]
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"denylog ingest: exit code {process.returncode}")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def follow(seconds: int, folder: Path) -> None:
    """Append 5 000 denied packets a second while a collector follows, and look at its memory."""
    log, store = folder / "syslog", folder / "store-follow"
    log.touch()
    command = [sys.executable, "-m", "cli", "collect", "--store", str(store), str(log)]
    collector = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    dice, number = random.Random(1), 0
    try:
        with log.open("a") as file:
            started = time.perf_counter()
            while (elapsed := time.perf_counter() - started) < seconds:
                while number < elapsed * RATE:
                    file.write(denied(number, dice))
                    number += 1
                file.flush()
                time.sleep(0.05)
        time.sleep(3)
        peak = highest_resident(collector.pid)
    finally:
        collector.terminate()
        collector.wait(timeout=60)
    sql = [sys.executable, "-m", "cli", "sql", "SELECT count(*) FROM packets", "--store", str(store), "-o", "csv"]
    stored = subprocess.run(sql, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()[-1]
    print(f"following   {number:>10,} lines at {RATE:,} lines/s, {stored} rows: peak {peak:.0f} MB resident")


def highest_resident(pid: int) -> float:
    """The most memory that a process has had resident, in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description="Speed of ingest, memory of collect.")
    parser.add_argument("--lines", type=int, default=1_000_000, help="lines of each file")
    parser.add_argument(
        "--follow", type=int, default=30, metavar="SECONDS", help="how long to follow; 0 for not at all"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="denylog-bench-") as name:
        if given.lines:
            bulk(given.lines, Path(name))
        if given.follow:
            follow(given.follow, Path(name))


if __name__ == "__main__":
    main()
