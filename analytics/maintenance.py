"""What keeps a store small and quick: merge small files, trim positions, drop old days and files that nobody needs.

Rule: maintenance never takes away what a reader's transaction of some minutes may still want, its memory is bounded,
and each part is a transaction of its own, so it can be stopped at any moment. DuckLake's CHECKPOINT would do most of
it, but with a SQLite catalog it compares times as texts of two forms ('2026-11-22 21:00' < '2026-11-22T09:00'), and
so takes every snapshot and file of the same day for older than the limit; the limits are therefore computed here.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb

from analytics import envelope
from analytics.daily import add_up
from analytics.engine import METADATA
from analytics.schema import LARGE_BYTES
from analytics.store import Store

# A question that is being answered needs the files that it found at its beginning: they are left alone for so long
# after something newer has replaced them. What looks for files while they are replaced may miss them (`engine.moves`).
READER_TIME = timedelta(minutes=30)
# Older snapshots cannot be read any more (nobody asks for them), which lets replaced files be forgotten.
SNAPSHOT_TIME = timedelta(minutes=15)
# Two tiers, so that merging neither rewrites a day again and again nor needs much memory: a follower's files of some
# 50 kB are merged up to 1 MB in each round; files beyond it wait until there are enough to fill one of the target size.
SMALL_BYTES = 1_000_000
_ENOUGH = 16
# The most packets whose sums are made at once and in one round: a follower has little memory, and rows to commit.
_SUMMED = 100_000
_SUMMED_IN_ROUND = 8 * _SUMMED
_SUMMED_IN_PARTS = 4
# The clock is in doubt after a jump of so much, and for as long.
_DOUBT_S = 3600.0

# Rows that grow old, by the columns that tell their age. `time` is what the line says (null where it says nothing, and
# forged or wrong clocks may say anything), `stored_at` is what this machine knows: a row goes when either is too old.
_AGING = {
    "packets": ("time", "stored_at"),
    "rejects": ("time", "stored_at"),
    "losses": ("time", "stored_at"),
    "rejects_beyond": ("hour",),
    "verdicts": ("valid_until",),
    "findings": ("last",),
    # Of the day that goes, and of the days when packets of no or a wrong time were stored.
    "flow_days": ("last", "upto"),
}
# Versions of objects that ended before the day: a newer one of the same object had begun by then.
_OUTLIVED = """
DELETE FROM objects WHERE (kind, name, coalesce(namespace, ''), split_part(api_version, '/', 1), observed_at) IN (
    SELECT (kind, name, coalesce(namespace, ''), split_part(api_version, '/', 1), observed_at) FROM objects
    QUALIFY lead(greatest(observed_at, valid_from)) OVER (
        PARTITION BY kind, name, namespace, split_part(api_version, '/', 1) ORDER BY observed_at, gone) < $day
)
"""
# The name of a deposit is of use only while its file may be there.
_TAKEN_FOR = timedelta(days=1)
_TAKEN = "DELETE FROM taken WHERE stored_at < $before AND NOT list_contains($waiting::VARCHAR[], name)"

_SUPERSEDED = (
    "DELETE FROM positions WHERE (file, sequence) NOT IN (SELECT (file, max(sequence)) FROM positions GROUP BY file)",
    "DELETE FROM forwarded WHERE (target, sequence) NOT IN "
    "(SELECT (target, max(sequence)) FROM forwarded GROUP BY target)",
)

_OLD_SNAPSHOTS = f"""
SELECT list(snapshot_id) FROM {METADATA}.ducklake_snapshot
WHERE snapshot_time::TIMESTAMPTZ < $before AND snapshot_id < (SELECT max(snapshot_id) FROM {METADATA}.ducklake_snapshot)
"""

# The most files of one partition that wait for the second tier.
_WAITING = f"""
WITH waiting AS (
    SELECT data_file_id FROM {METADATA}.ducklake_data_file
    WHERE end_snapshot IS NULL AND file_size_bytes >= $small AND file_size_bytes < $large
), placed AS (
    SELECT data_file_id, list(partition_value ORDER BY partition_key_index) AS place
    FROM {METADATA}.ducklake_file_partition_value SEMI JOIN waiting USING (data_file_id) GROUP BY data_file_id
)
SELECT coalesce(max(files), 0) FROM (SELECT count(*) AS files FROM placed GROUP BY place)
"""

_REPLACED = f"""
SELECT data_file_id, path, path_is_relative::BOOLEAN FROM {METADATA}.ducklake_files_scheduled_for_deletion
WHERE schedule_start::TIMESTAMPTZ < $before
"""
_FORGET = f"DELETE FROM {METADATA}.ducklake_files_scheduled_for_deletion WHERE data_file_id IN (SELECT unnest($files))"


class Clock:
    """Can the clock be believed when it says that rows are old?

    A machine that starts with a wrong clock, or a clock server that errs, must not make a whole store look old. After
    the clock went ahead of the time that passed, nothing is dropped for an hour: long enough for it to be set right.
    """

    def __init__(self, last: datetime) -> None:
        """`last`: when the store was written to last."""
        self._last = last.timestamp(), time.clock_gettime(time.CLOCK_BOOTTIME)
        self._ahead_since: float | None = None

    def steady(self) -> bool:
        """True unless the clock went ahead within the last hour."""
        now, ticks = time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)
        ahead = (now - self._last[0]) - (ticks - self._last[1])
        self._last = now, ticks
        if ahead > _DOUBT_S:
            self._ahead_since = ticks
        elif ahead < -_DOUBT_S:
            self._ahead_since = None  # set right again, or too slow, which makes nothing look old
        return self._ahead_since is None or ticks - self._ahead_since >= _DOUBT_S


def maintain(connection: duckdb.DuckDBPyConnection, store: Store, keep: timedelta | None) -> None:
    """One round; `keep` is how long rows stay (None: for ever), applied in whole UTC days."""
    now = datetime.now(UTC)
    if keep is not None:
        _retire(connection, now - keep)
    for statement in _SUPERSEDED:
        connection.execute(statement)
    waiting = [path.name for path in envelope.waiting(store)]
    connection.execute(_TAKEN, {"before": now - _TAKEN_FOR, "waiting": waiting})
    envelope.tidy(store)
    for _ in range(0, _SUMMED_IN_ROUND, _SUMMED):
        if not add_up(connection, _SUMMED, _SUMMED_IN_PARTS):
            break
    connection.execute("CALL ducklake_flush_inlined_data('denylog')")
    _expire(connection, now - SNAPSHOT_TIME)
    _merge(connection)
    connection.execute("CALL ducklake_rewrite_data_files('denylog')")
    _remove_replaced(connection, store, now - READER_TIME)
    # What a killed writer left behind belongs to no snapshot; here DuckLake goes by the age of the file itself.
    connection.execute(
        "CALL ducklake_delete_orphaned_files('denylog', older_than => $before)", {"before": now - READER_TIME}
    )


def _retire(connection: duckdb.DuckDBPyConnection, moment: datetime) -> None:
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    for table, columns in _AGING.items():
        for column in columns:
            connection.execute(f"DELETE FROM {table} WHERE {column} < $day", {"day": day})
    connection.execute(_OUTLIVED, {"day": day})


def _expire(connection: duckdb.DuckDBPyConnection, before: datetime) -> None:
    found = connection.execute(_OLD_SNAPSHOTS, {"before": before}).fetchone()
    if found and found[0]:
        connection.execute("CALL ducklake_expire_snapshots('denylog', versions => $old)", {"old": found[0]})


def _merge(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("CALL ducklake_merge_adjacent_files('denylog', max_file_size => $small)", {"small": SMALL_BYTES})
    found = connection.execute(_WAITING, {"small": SMALL_BYTES, "large": LARGE_BYTES // 2}).fetchone()
    if found and found[0] >= _ENOUGH:
        connection.execute(
            "CALL ducklake_merge_adjacent_files('denylog', min_file_size => $small, max_file_size => $large)",
            {"small": SMALL_BYTES, "large": LARGE_BYTES // 2},
        )


def _remove_replaced(connection: duckdb.DuckDBPyConnection, store: Store, before: datetime) -> None:
    """Delete files that merging or deletion has replaced; a file that is gone already was removed by a killed round."""
    rows = connection.execute(_REPLACED, {"before": before}).fetchall()
    for _, path, relative in rows:
        (store.data / path if relative else Path(path)).unlink(missing_ok=True)
    if rows:
        connection.execute(_FORGET, {"files": [row[0] for row in rows]})
