"""What the follower costs on a node: CPU, memory and disk at a given rate of denied packets.

    python bench/resources.py [--rate 1000] [--seconds 20] [--plain 0]

A writer appends lines at the rate, as a syslog daemon does, and the real command follows them. CPU time is what the
kernel charged the process for, so other load on the machine changes it little; memory is what /proc says at the end
and at its highest. The start is not counted. `--plain`: so many lines of other programs for each denied packet.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.collector.live import line

_TICKS = os.sysconf("SC_CLK_TCK")
_PAUSE_S = 0.1
_OTHER = "2026-11-22T15:00:00.000000+00:00 node-1 systemd[1]: Started session of a user that nobody denied anything.\n"


def cpu_s(pid: int) -> float:
    """User and system time of a process, in seconds (proc(5), fields 14 and 15 of stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory_mb(pid: int) -> dict[str, float]:
    """Resident memory now and at its highest, in MB of 1 000 000 bytes."""
    found = dict(row.split(":", 1) for row in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: int(found[name].split()[0]) * 1024 / 1e6 for name in ("VmRSS", "VmHWM")}


def disk_mb(folder: Path) -> float:
    """What the files of a folder take, in MB."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def write(log: Path, rate: int, seconds: float, plain: int, first: int) -> int:
    """Append lines at the rate for so long; the number after the last."""
    began, number = time.monotonic(), first
    with log.open("a") as file:
        while (now := time.monotonic() - began) < seconds:
            due = first + int(now * rate)
            file.write("".join(line(at) + _OTHER * plain for at in range(number, due)))
            file.flush()
            number = due
            time.sleep(_PAUSE_S)
    return number


def measure(rate: int, seconds: float, plain: int) -> None:
    """One run, printed as one line."""
    with tempfile.TemporaryDirectory() as folder:
        log, store = Path(folder, "syslog"), Path(folder, "store")
        log.touch()
        command = [sys.executable, "-c", "from cli import main; main()", "collect", f"--store={store}", str(log)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
            number = write(log, rate, 5, plain, 0)
            before, counted, began = cpu_s(process.pid), number, time.monotonic()
            number = write(log, rate, seconds, plain, number)
            used, passed = cpu_s(process.pid) - before, time.monotonic() - began
            time.sleep(3)
            memory = memory_mb(process.pid)
            process.terminate()
        packets = number - counted
        print(
            f"{packets / passed:7,.0f} packets/s, {plain} other lines each: "
            f"{100 * used / passed:5.1f} % of one CPU, {1e6 * used / packets:5.0f} us a packet, "
            f"{memory['VmRSS']:4.0f} MB resident, {memory['VmHWM']:4.0f} MB at most, "
            f"store {disk_mb(store) * 1e6 / number:4.0f} bytes a packet, log {log.stat().st_size / number:4.0f}"
        )


def main() -> None:
    """Measure the rates that were asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rate", type=int, action="append", help="denied packets a second; may be given again")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--plain", type=int, default=0)
    given = parser.parse_args()
    for rate in given.rate or (1000, 5000):
        measure(rate, given.seconds, given.plain)


if __name__ == "__main__":
    main()
