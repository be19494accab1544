"""The program that writes: follows log files, the journal and /dev/kmsg, and commits what they say.

`collector.follow.follow` and `collector.ingest.ingest` load Polars and DuckDB, so they are not imported here.
"""

from collector.settings import Beginning, Checkpoint, CollectorError, End, ReadFrom, Settings, Summary

__all__ = ["Beginning", "Checkpoint", "CollectorError", "End", "ReadFrom", "Settings", "Summary"]
