"""How much memory the process takes: what must be set before Polars and duckdb load, and what can be given back after.

Rule: everything here is advice to libraries and the kernel; where it is not heeded, nothing but memory changes.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

_NOT_FOR_WRITING = ("numpy", "pandas", "pyarrow")
"""duckdb imports these when it is handed any Python object, if they are there; a collector that writes only Arrow
streams never needs them, and they would cost it 60 to 110 MB."""
_NOT_FOR_FOLLOWING = ("_hashlib",)
"""OpenSSL, 4 MB, for hashes that hashlib has built in as well; who speaks TLS loads it by `ssl`."""
_FRUGAL = "narenas:1,lg_tcache_max:12"
"""jemalloc: one arena, since one thread at a time allocates much, and no large pieces kept for each thread. Together
with the settings below 10 MB of 170, at 5 000 lines/s; without any cache for threads it is slower and takes no less."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_MADV_DONTNEED, _MADV_PAGEOUT = 4, 21  # linux/mman.h, the second since Linux 5.4
_GIGABYTE = 1 << 30


def prepare(*, frugal: bool) -> None:
    """Settings that must be made before Polars and duckdb are loaded.

    A program that runs for months (`frugal`) gives memory back at once; one that reads an archive keeps what it has,
    since fresh pages for every chunk would cost it a third of its time.
    """
    os.environ.setdefault("POLARS_MAX_THREADS", "1")  # one is faster on lines, and leaves a core to the commits
    decay = 0 if frugal else -1
    polars = f"dirty_decay_ms:{decay},muzzy_decay_ms:{decay}"
    os.environ.setdefault("_RJEM_MALLOC_CONF", f"{polars},{_FRUGAL}" if frugal else polars)
    if frugal:
        os.environ.setdefault("DUCKDB_JE_MALLOC_CONF", _FRUGAL)
    for name in (*_NOT_FOR_WRITING, *(_NOT_FOR_FOLLOWING if frugal else ())):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    if not frugal and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):  # glibc has it, musl has not
        for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            mallopt(option, _GIGABYTE)


def give_back() -> None:
    """Let go of what only the start needed: garbage, free memory of the C library, and pages of library files.

    What is loaded by now stays for good, so no later search for garbage looks at it. Relocating 100 MB of libraries and
    checking the extensions' signatures touches nearly all of them; running needs half, and that comes back by itself.
    """
    library = ctypes.CDLL(None)
    gc.collect()
    gc.freeze()
    with contextlib.suppress(OSError, AttributeError):
        library.malloc_trim(0)
    with contextlib.suppress(OSError, AttributeError):
        for start, length, whole in _library_pages(Path("/proc/self/smaps").read_text()):
            for advice in (_MADV_PAGEOUT, *((_MADV_DONTNEED,) if whole else ())):
                library.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), advice)


_MAPPING = re.compile(
    r"^(?P<start>[0-9a-f]+)-(?P<end>[0-9a-f]+) r-\S+ \S+ \S+ \d+ +/.*\n"
    r"(?:[A-Z].*\n)*?Anonymous: +(?P<changed>\d+) kB",
    re.MULTILINE,
)


def _library_pages(smaps: str) -> Iterator[tuple[int, int, bool]]:
    """Start and length of each mapping of a file that is not written to, and whether all of it is as in the file.

    Paging out is heeded for files that the process owns or may write to (mm/madvise.c, can_do_file_pageout), dropping
    pages always; but it would also drop what the loader has written there, and that is in no file.
    """
    for found in _MAPPING.finditer(smaps):
        start, end = int(found["start"], 16), int(found["end"], 16)
        yield start, end - start, found["changed"] == "0"
