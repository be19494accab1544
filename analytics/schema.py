"""The tables of a store, each column with its type and meaning, and the steps that bring an older store up to date.

Rule: `TABLES` is the one description of the tables; DDL, comments, Polars types and `docs/schema.md` come from it.
The columns of `packets` are `parser.FIELDS`, then where and when the row came into the store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb

from analytics.engine import FOLLOW
from analytics.store import StoreError
from analytics.views import VIEWS
from parser import FIELDS

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, slots=True)
class Column:
    """One column: name, SQL type, meaning."""

    name: str
    sql: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Table:
    """One table: name, meaning, columns, and the expressions by which its files are kept apart."""

    name: str
    meaning: str
    columns: tuple[Column, ...]
    partition: str = ""

    def frame_schema(self) -> dict[str, pl.DataType | type[pl.DataType]]:
        """The Polars type of each column."""
        from analytics.frames import POLARS  # noqa: PLC0415 - who only asks does not wait for Polars to load

        return {column.name: POLARS[column.sql] for column in self.columns}


def _columns(text: str) -> tuple[Column, ...]:
    return tuple(Column(*(cell.strip() for cell in line.split("|", 2))) for line in text.strip().splitlines())


_STORED_AT = "stored_at | TIMESTAMPTZ | when the transaction that holds this row was committed; grows with each commit"

_PLACE = _columns(f"""
source_file | VARCHAR | identity of the file (or journal, or boot) that the line was read from: positions.file
source_offset | BIGINT | where the line starts in it: bytes of uncompressed text (records for the journal and kmsg)
{_STORED_AT}
day | DATE | the UTC day of time, by which the files of this table are kept apart
""")

_REJECTS = _columns(f"""
time | TIMESTAMPTZ | the time on the line where it has one, else when it was read
node | VARCHAR | the node that the line names
source_file | VARCHAR | identity of the file that the line was read from: positions.file
source_offset | BIGINT | where the line starts in it
reason | VARCHAR | why it was not believed
position | INTEGER | index of the character where reading stopped
detail | VARCHAR | what was expected there
line | VARCHAR | the line, in UTF-8 with replacement characters, cut at 4096 characters
{_STORED_AT}
""")

_REJECTS_BEYOND = _columns(f"""
hour | TIMESTAMPTZ | the hour in which the lines were read
reason | VARCHAR | why they were not believed
count | BIGINT | how many rejected lines of this reason were counted and not kept
{_STORED_AT}
""")

_LOSSES = _columns(f"""
time | TIMESTAMPTZ | the time on the line where it has one, else when it was read
node | VARCHAR | the node that the line names
source_file | VARCHAR | identity of the file that the line was read from: positions.file
source_offset | BIGINT | where the line starts in it
source | VARCHAR | who reports the loss
count | BIGINT | how many lines are missing; null where it does not say
line | VARCHAR | the line, in UTF-8 with replacement characters, cut at 4096 characters
{_STORED_AT}
""")

_POSITIONS = _columns(f"""
source | VARCHAR | what the user named: a path, "journal" or "kmsg"
file | VARCHAR | identity of the file, fixed when its first bytes were read (journal: the machine, kmsg: the boot)
path | VARCHAR | where the file was last seen
device | UBIGINT | device number of the file
inode | UBIGINT | inode number of the file
head_length | BIGINT | bytes at its beginning that head covers
head | VARCHAR | blake2b of them
offset | BIGINT | bytes of uncompressed text consumed (records for the journal and kmsg)
tail_length | BIGINT | bytes just before offset that tail covers
tail | VARCHAR | blake2b of them
cursor | VARCHAR | journal cursor, or "<boot id>:<sequence>" for kmsg
size | BIGINT | bytes in the file when last seen: lag = size - offset
lines | BIGINT | lines read since the file's beginning = packets + others + rejects
packets | BIGINT | lines that became rows
others | BIGINT | lines that are not ours
rejects | BIGINT | lines that were not believed, also those beyond the cap
bytes_lost | BIGINT | bytes truncated, deleted or rotated away before they were read
closed | BOOLEAN | rotated away and read to its end
time | TIMESTAMPTZ | when the collector made this position
sequence | BIGINT | number of the commit; the newest row of a file is its position
{_STORED_AT}
""")

_OBJECTS = _columns(f"""
kind | VARCHAR | Pod, Node, Service, Namespace, HostEndpoint, (Global)NetworkSet, IPPool, or a kind of policy or tier
namespace | VARCHAR | its namespace; null for an object of the whole cluster
name | VARCHAR | its name
uid | VARCHAR | its identity: a new one each time an object of this name is made
api_version | VARCHAR | group and version, as "projectcalico.org/v3"
observed_at | TIMESTAMPTZ | when the cluster was seen to say so (a dump was taken, an event came)
valid_from | TIMESTAMPTZ | since when it held, as the object itself tells, else observed_at; a gone row: when it ended
gone | BOOLEAN | true: from valid_from on the object was not there any more
node | VARCHAR | pod: the node it runs on; node: itself; host endpoint: its node
addresses | VARCHAR[] | canonical addresses: of a pod, node, service (cluster, external, balancer), host endpoint
networks | VARCHAR[] | CIDRs: of the pods of a node, of an IP pool, of a network set
host_network | BOOLEAN | pod: it has the addresses of its node
interface | VARCHAR | pod: the host's end of its veth, as Calico names it
workload_kind | VARCHAR | pod: what made it: Deployment, StatefulSet, DaemonSet, CronJob, Job, …; Pod where nothing did
workload | VARCHAR | pod: the name of that
labels | JSON | its labels
selects | VARCHAR[] | service: the labels of its pods, each as "key=value"
body | JSON | the object, pared to what policies and people need; null in a gone row
digest | VARCHAR | blake2b of what this row says: an object that is seen again unchanged is not stored again
{_STORED_AT}
""")

_VERDICTS = _columns(f"""
direction | VARCHAR | at which side it was denied: ingress (at the destination), egress (at the source); null: not known
in_interface | VARCHAR | as in packets; so are the next eight columns
out_interface | VARCHAR | as in packets
source_ip | VARCHAR | as in packets
destination_ip | VARCHAR | as in packets
protocol | VARCHAR | as in packets
source_port | INTEGER | as in packets; null: whatever the source port
destination_port | INTEGER | as in packets
icmp_type | SMALLINT | as in packets
icmp_code | SMALLINT | as in packets
valid_from | TIMESTAMPTZ | the verdict holds for packets from this time on
valid_until | TIMESTAMPTZ | and before this one; null: until a later verdict on the same flow begins
denied_by | VARCHAR[] | the policies that denied it, as "NetworkPolicy shop/db" or "GlobalNetworkPolicy deny-all"
decided_by | VARCHAR | who found that: engine
why | VARCHAR | one sentence
{_STORED_AT}
""")

_FINDINGS = _columns(f"""
id | VARCHAR | identity of the finding: the same behaviour found again has the same
rule | VARCHAR | the rule that found it
severity | VARCHAR | low, medium, high or critical
subject | JSON | what it is about
first | TIMESTAMPTZ | time of the first packet
last | TIMESTAMPTZ | time of the last packet
title | VARCHAR | one sentence
body | JSON | the whole finding
{_STORED_AT}
""")

_FORWARDED = _columns(f"""
target | VARCHAR | where packets are forwarded to
row_stored_at | TIMESTAMPTZ | stored_at of the last packet that the target has acknowledged
row_source_file | VARCHAR | its source_file
row_source_offset | BIGINT | its source_offset
messages | BIGINT | messages acknowledged since the first one
passed | BIGINT | packets ever stored up to this place, sent or filtered out or gone; null: not counted yet
dropped | BIGINT | packets that retention took before they were sent, since the first message
time | TIMESTAMPTZ | when the forwarder made this row
sequence | BIGINT | the newest row of a target has the highest
{_STORED_AT}
""")

_FLOW_DAYS = _columns("""
day | DATE | the UTC day of the packets, by which the files of this table are kept apart
node | VARCHAR | as in packets; so are the next twelve columns
direction | VARCHAR | as in packets
in_interface | VARCHAR | as in packets
out_interface | VARCHAR | as in packets
source_ip | VARCHAR | as in packets
destination_ip | VARCHAR | as in packets
protocol | VARCHAR | as in packets
destination_port | INTEGER | as in packets
policy_tier | VARCHAR | as in packets
policy_kind | VARCHAR | as in packets
policy_namespace | VARCHAR | as in packets
policy_name | VARCHAR | as in packets
prefix | VARCHAR | as in packets
packets | BIGINT | denied packets: the sum of packet_count
first | TIMESTAMPTZ | time of the first of them
last | TIMESTAMPTZ | time of the last of them
upto | TIMESTAMPTZ | of the packets stored until then and after the next lower upto
""")

_TAKEN = _columns(f"""
name | VARCHAR | name of the file in the inbox, or of the deposit
{_STORED_AT}
""")

_META = _columns("""
key | VARCHAR | name of the fact
value | VARCHAR | the fact
""")

TABLES = (
    Table(
        "packets",
        "one row for each log line that shows a packet",
        tuple(Column(f.name, f.sql, f.meaning) for f in FIELDS) + _PLACE,
        "day",
    ),
    Table("rejects", "lines that carry our prefix and were not believed, at most 1000 an hour and reason", _REJECTS),
    Table("rejects_beyond", "how many rejected lines were counted and not kept", _REJECTS_BEYOND),
    Table("losses", "lines by which a program admits that log lines are missing", _LOSSES),
    Table("positions", "how far each file was read; append-only, the newest row of each file counts", _POSITIONS),
    Table("meta", "facts about the store", _META),
    Table("objects", "what the cluster said about itself; append-only versions of its objects", _OBJECTS),
    Table("verdicts", "which policies denied a flow, where policies were evaluated; the newest row counts", _VERDICTS),
    Table("findings", "what denied traffic amounts to, as recorded by `denylog findings --record`", _FINDINGS),
    Table("forwarded", "how far packets were forwarded; append-only, the newest row of each target counts", _FORWARDED),
    Table(
        "flow_days",
        "sums of denied packets by flow and day, added by maintenance where there are many; packets after the greatest "
        "upto are in no sum yet",
        _FLOW_DAYS,
        "day",
    ),
    Table("taken", "deposits that are in the store, so that each is taken in once", _TAKEN),
)
TABLE = {table.name: table for table in TABLES}

# Merging keeps files of up to this size (see `maintenance`).
LARGE_BYTES = 16_000_000

# Persisted in the catalog. The second version of Parquet's encodings takes half of the space. The two limits are for
# those who run CHECKPOINT by hand: see `maintenance` for why they must be days.
OPTIONS = {
    "parquet_compression": "zstd",
    "parquet_version": "2",
    "target_file_size": f"{LARGE_BYTES // 1_000_000}MB",
    "expire_older_than": "2 days",
    "delete_older_than": "2 days",
}


def identifier(name: str) -> str:
    """`name` as an SQL identifier; the names of the kernel and of positions are partly reserved words."""
    return '"' + name.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _create(table: Table) -> Iterable[str]:
    columns = ", ".join(f"{identifier(column.name)} {column.sql}" for column in table.columns)
    yield f"CREATE TABLE {table.name} ({columns})"
    if table.partition:
        yield f"ALTER TABLE {table.name} SET PARTITIONED BY ({table.partition})"


Step = Callable[[], Iterable[str]]


def _making(*names: str) -> Step:
    """A step that makes tables. Where a later step alters one of them, its columns of then have to be written here."""

    def step() -> Iterable[str]:
        for name in names:
            yield from _create(TABLE[name])

    return step


# Step n brings a store from version n - 1 to n. A released step is never edited; a change of `TABLES` adds one.
# Comments and views are no steps: they are made anew whenever they differ from what the store was given last.
STEPS: tuple[Step, ...] = (
    _making("packets", "rejects", "rejects_beyond", "losses", "positions", "meta"),
    _making("objects", "verdicts", "findings", "forwarded", "taken"),
    _making("flow_days"),
)


def descriptions() -> Iterable[str]:
    """Statements that describe the tables and make the views anew."""
    for table in TABLES:
        yield f"COMMENT ON TABLE {table.name} IS {_text(table.meaning)}"
        for column in table.columns:
            yield f"COMMENT ON COLUMN {table.name}.{identifier(column.name)} IS {_text(column.meaning)}"
    for view in VIEWS:
        yield f"CREATE OR REPLACE VIEW {view.name} AS {view.sql}"
        yield f"COMMENT ON VIEW {view.name} IS {_text(view.meaning)}"


def version(connection: duckdb.DuckDBPyConnection) -> int:
    """The schema version of the attached store; 0 where it has no tables yet."""
    known = connection.execute(
        "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'meta' AND schema_name = 'main'"
    )
    row = known.fetchone()
    if not row or not row[0]:
        return 0
    found = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
    return int(found[0]) if found else 0


def check_version(where: object, found: int, steps: tuple[Step, ...] = STEPS) -> None:
    """Raise StoreError where the store is newer than this program, or (for a reader) too old for it."""
    if found > len(steps):
        raise StoreError(
            str(where), f"the store has schema version {found}, this denylog knows {len(steps)}", "update denylog"
        )
    if found < len(steps):
        raise StoreError(
            str(where),
            f"the store has schema version {found}, this denylog needs {len(steps)}",
            "start `denylog collect` or `denylog ingest` on it once, which brings it up to date",
        )


def migrate(
    connection: duckdb.DuckDBPyConnection,
    where: object,
    steps: tuple[Step, ...] = STEPS,
    *,
    row_group: int = FOLLOW.row_group,
) -> None:
    """Bring the attached store up to date: each step in a transaction of its own, so a kill leaves a whole version."""
    found = version(connection)
    if found > len(steps):
        check_version(where, found, steps)
    for number in range(found, len(steps)):
        _run(connection, [*steps[number](), *_fact("schema_version", str(number + 1))])
    digest = f"{len(steps)} {hashlib.blake2b(''.join(descriptions()).encode(), digest_size=16).hexdigest()}"
    if connection.execute("SELECT value FROM meta WHERE key = 'descriptions'").fetchone() != (digest,):
        _run(connection, [*descriptions(), *_fact("descriptions", digest)])
    options = {**OPTIONS, "parquet_row_group_size": str(row_group)}
    for key, value in _missing_options(connection, options):
        connection.execute(f"CALL denylog.set_option({_text(key)}, {_text(value)})")


def _fact(key: str, value: str) -> tuple[str, str]:
    return f"DELETE FROM meta WHERE key = {_text(key)}", f"INSERT INTO meta VALUES ({_text(key)}, {_text(value)})"


@contextmanager
def transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """All that is done while this lasts, or nothing of it."""
    connection.execute("BEGIN")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(duckdb.Error):  # a failed COMMIT has already rolled back
            connection.execute("ROLLBACK")
        raise


def _run(connection: duckdb.DuckDBPyConnection, statements: Iterable[str]) -> None:
    with transaction(connection):
        for statement in statements:
            connection.execute(statement)


def _missing_options(connection: duckdb.DuckDBPyConnection, options: Mapping[str, str]) -> list[tuple[str, str]]:
    rows = connection.execute("SELECT option_name, value FROM ducklake_options('denylog')").fetchall()
    found = {str(name): str(value).removeprefix("V") for name, value in rows}
    return [(key, value) for key, value in options.items() if found.get(key) != value.replace("MB", "000000")]
