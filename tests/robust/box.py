"""The real `denylog collect` in a world that misbehaves, and what it says about it.

Rule: the trouble is real (a file system, a limit of the kernel, a clock); nothing is made to fail inside the program.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.collector.live import REPOSITORY

_COLLECT = (sys.executable, "-c", "from cli import main; main()", "collect")


@dataclass(frozen=True)
class Collector:
    """A running collector and the file that its standard error goes to."""

    process: subprocess.Popen[bytes]
    errors: Path

    def said(self) -> str:
        """What it has said so far."""
        return self.errors.read_text()

    def hears(self, text: str, seconds: float = 40.0) -> bool:
        """Wait until it has said this."""
        deadline = time.monotonic() + seconds
        while text not in self.said() and time.monotonic() < deadline and self.process.poll() is None:
            time.sleep(0.1)
        return text in self.said()

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.terminate()
        return self.process.wait(timeout=60)


@contextmanager
def collector(
    store: Path,
    log: Path,
    *,
    prefix: Sequence[str] = (),
    environment: Mapping[str, str] = {},
    options: Sequence[str] = (),
    errors: Path | None = None,
) -> Iterator[Collector]:
    """A collector that follows `log`; killed at the end if it still runs. `errors`: where what it says is kept."""
    errors = errors or log.with_name(f"{log.name}.errors")
    with errors.open("wb") as stderr:
        process = subprocess.Popen(
            [*prefix, *_COLLECT, *options, f"--store={store}", str(log)],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "DENYLOG_CONFIG": "", **environment},
            stderr=stderr,
        )
    try:
        yield Collector(process, errors)
    finally:
        process.kill()
        process.wait()


def one_sentence(text: str) -> bool:
    """Is this no traceback, but lines that begin with the program's name?"""
    return bool(text) and all(line.startswith(("denylog: ", "level=")) for line in text.splitlines())
