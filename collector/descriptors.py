"""How many files the process may open: as many as it is allowed, and no start with too few.

Rule: a lack is told before anything is opened. SQLite calls it "unable to open database file", and Polars panics.
"""

from __future__ import annotations

import errno
import resource

LEAST = 64
"""A collector has about 20 files open, 10 more while it rotates or merges; each further log adds one to four."""
MOST = 1024
"""select(2) takes no descriptors beyond, and the follower waits by it."""


def claim() -> None:
    """Raise the soft limit as far as it is of use; raises OSError where the hard limit leaves too few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(MOST, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if wanted < LEAST:
        text = f"no more than {wanted} files may be open; raise the limit to {LEAST} or more (LimitNOFILE=)"
        raise OSError(errno.EMFILE, text, "ulimit -n")
