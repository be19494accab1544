"""How much memory the process takes: what must be set before Polars and duckdb load, and what can be given back after.

Rule: everything here is advice to libraries and the kernel; where it is not heeded, nothing but memory changes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

_NOT_FOR_WRITING = ("numpy", "pandas", "pyarrow")
"""duckdb imports these when it is handed any Python object, if they are there; a collector that writes only Arrow
streams never needs them, and they would cost it 60 to 110 MB."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_MADV_PAGEOUT = 21  # linux/mman.h, since Linux 5.4
_GIGABYTE = 1 << 30


def prepare(*, frugal: bool) -> None:
    """Settings that must be made before Polars and duckdb are loaded.

    A program that runs for months (`frugal`) gives memory back at once; one that reads an archive keeps what it has,
    since fresh pages for every chunk would cost it a third of its time.
    """
    os.environ.setdefault("POLARS_MAX_THREADS", "1")  # one is faster on lines, and leaves a core to the commits
    decay = 0 if frugal else -1
    os.environ.setdefault("_RJEM_MALLOC_CONF", f"dirty_decay_ms:{decay},muzzy_decay_ms:{decay}")  # Polars' jemalloc
    for name in _NOT_FOR_WRITING:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    if not frugal and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):  # glibc has it, musl has not
        for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            mallopt(option, _GIGABYTE)


def give_back_libraries() -> None:
    """Let go of the pages of library files that only loading touched; those in use come back by themselves.

    Relocating 100 MB of libraries and checking the extensions' signatures touches nearly all of it; running needs half.
    The kernel heeds this for files that the process may write to or owns (mm/madvise.c, can_do_file_pageout).
    """
    library = ctypes.CDLL(None)
    with contextlib.suppress(OSError, AttributeError):
        for start, length in _library_pages(Path("/proc/self/maps").read_text()):
            library.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _MADV_PAGEOUT)


def _library_pages(maps: str) -> Iterator[tuple[int, int]]:
    """Start and length of each mapping of a file that is not written to."""
    for fields in (line.split() for line in maps.splitlines()):
        if len(fields) > 5 and fields[5].startswith("/") and fields[1].startswith("r-"):
            start, end = (int(address, 16) for address in fields[0].split("-"))
            yield start, end - start
