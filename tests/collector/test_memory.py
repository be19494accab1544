"""Memory of the collector: what it gives back after its start, whoever owns the libraries."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from collector.memory import _library_pages
from tests.collector.live import REPOSITORY

_PROGRAM = """
import ctypes, os, re, sys
from collector.memory import give_back, prepare
prepare(frugal=True)
import polars

def resident():
    return int(re.search(r"RssFile:\\s+(\\d+)", open("/proc/self/status").read())[1])

frame = polars.DataFrame({"line": ["SRC=10.0.0.1 DST=10.0.0.2"] * 1000})
if len(sys.argv) > 1:
    os.setuid(int(sys.argv[1]))
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: else nobody may read its /proc/self/smaps
before = resident()
give_back()
after = resident()
found = frame.select(polars.col("line").str.extract("SRC=([0-9.]+)")).unique().item()
print(before, after, found)
"""


@pytest.mark.parametrize("user", [(), ("65534",)], ids=["owner", "stranger"])
def test_pages_of_libraries_are_given_back(user: tuple[str, ...]) -> None:
    """More than half of them go, also where the libraries are another user's, and the program goes on as before."""
    if user and os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    command = [sys.executable, "-c", _PROGRAM, *user]
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY).stdout.split()
    assert int(found[1]) < int(found[0]) / 2
    assert found[2] == "10.0.0.1"


SMAPS = """\
7f00-7f10 r-xp 00000000 fe:00 12      /lib/whole file.so
Size:                 64 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
7f10-7f20 r--p 00001000 fe:00 12      /lib/relocated.so
Size:                 64 kB
Anonymous:             4 kB
7f20-7f30 rw-p 00002000 fe:00 12      /lib/data.so
Size:                 64 kB
Anonymous:             0 kB
7f30-7f40 r--p 00000000 00:00 0
Anonymous:             0 kB
"""


def test_what_the_loader_has_written_is_never_dropped() -> None:
    """A mapping with pages that are in no file is only paged out; what may be written to is left alone."""
    assert list(_library_pages(SMAPS)) == [(0x7F00, 0x10, True), (0x7F10, 0x10, False)]
