"""The program that writes: follows log files, the journal and /dev/kmsg, and commits what they say."""

from collector.follow import follow
from collector.settings import Beginning, Checkpoint, CollectorError, End, ReadFrom, Settings, Summary

__all__ = ["Beginning", "Checkpoint", "CollectorError", "End", "ReadFrom", "Settings", "Summary", "follow"]
