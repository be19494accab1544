"""How long questions take on many packets, beside the same SQL in the bare duckdb library over the same store.

    python bench/queries.py                     20 million packets, an inventory of 2 000 pods
    python bench/queries.py --rows 2000000      fewer

The store is made once and kept in the folder for temporary files. For each question: the best of three (findings: one
try), in seconds of the clock and of the processor (on a busy machine only the latter mean something), by
`analytics.Reader` and by a bare connection with as many threads that has the store attached. Attributed questions have
no bare twin: theirs is the view.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])  # not this folder, where this file would hide a package

from analytics import Reader, engine, queries  # noqa: E402
from analytics.filters import where  # noqa: E402
from analytics.findings import findings  # noqa: E402
from analytics.store import resolve  # noqa: E402
from bench.world import store  # noqa: E402

LEAN = "(SELECT *, greatest(repeat_count, 1) AS packet_count FROM packets WHERE follow_up IS NULL)"
PLAIN = {
    "totals": "SELECT sum(packet_count), min(time), max(time) FROM denied",
    "top sources": "SELECT source_ip, sum(packet_count) AS n FROM denied GROUP BY 1 ORDER BY n DESC LIMIT 10",
    "top ports": "SELECT protocol, destination_port, sum(packet_count) AS n FROM denied GROUP BY 1, 2 ORDER BY n DESC",
    "one source": "SELECT count(*) FROM denied WHERE source_ip = '10.244.0.9'",
    "hours": "SELECT date_trunc('hour', time) AS h, direction, sum(packet_count) FROM denied GROUP BY ALL ORDER BY ALL",
}
ATTRIBUTED = {
    "top source namespaces": ("source-namespace", {}),
    "top destination workloads": ("destination-workload", {}),
    "one namespace's sources": ("source", {"from-namespace": "team-3"}),
}


def best(ask: Callable[[], Any], times: int = 3) -> tuple[float, float]:
    """Seconds of the clock and of the processor, of so many tries the best."""
    tries = []
    for _ in range(times):
        wall, cpu = time.perf_counter(), time.process_time()
        ask()
        tries.append((time.perf_counter() - wall, time.process_time() - cpu))
    return min(each[0] for each in tries), min(each[1] for each in tries)


def compare(reader: Reader, address: str) -> None:
    """The plain questions, ours beside the bare library."""
    print(f"{'question':28} {'ours':>14} {'bare duckdb':>14} {'ratio of cpu':>13}")
    with engine.reading(resolve(address), engine.READ) as bare:
        for title, sql in PLAIN.items():
            ours = best(lambda sql=sql: reader.rows(sql))  # type: ignore[misc]
            theirs = best(lambda sql=sql: bare.execute(sql.replace("denied", LEAN)).fetchall())  # type: ignore[misc]
            ratio = ours[1] / theirs[1]
            print(f"{title:28} {ours[0]:6.2f} {ours[1]:6.2f}c {theirs[0]:6.2f} {theirs[1]:6.2f}c {ratio:12.2f}")


def commands(reader: Reader) -> None:
    """What `denylog top` asks, and what a page of the dashboard needs."""
    everything = where({}, now=datetime.now(UTC), zone=UTC)
    print(f"{'command':28} {'ours':>14}")
    for by in ("source", "port"):
        wall, cpu = best(lambda by=by: queries.top(reader, by, everything, 10))  # type: ignore[misc]
        print(f"{'top --by ' + by:28} {wall:6.2f} {cpu:6.2f}c")
    for title, (by, chosen) in ATTRIBUTED.items():
        condition = where(chosen, now=datetime.now(UTC), zone=UTC)
        wall, cpu = best(lambda by=by, condition=condition: queries.top(reader, by, condition, 10))  # type: ignore[misc]
        print(f"{title:28} {wall:6.2f} {cpu:6.2f}c")
    wall, cpu = best(lambda: queries.timeline(reader, "1h", everything, by="direction"))
    print(f"{'timeline of hours':28} {wall:6.2f} {cpu:6.2f}c")
    groupings = [(), ("source_ip",), ("destination_ip",), ("protocol", "destination_port")]
    wall, cpu = best(lambda: queries.overview(reader, everything, groupings, 10))
    print(f"{'overview of four':28} {wall:6.2f} {cpu:6.2f}c")
    wall, cpu = best(lambda: findings(reader), 1)
    print(f"{'findings':28} {wall:6.2f} {cpu:6.2f}c")


def main() -> None:
    """Make the store where it is not there yet, and ask."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000)
    address = store(parser.parse_args().rows)
    with Reader(address) as reader:
        compare(reader, address)
        commands(reader)


if __name__ == "__main__":
    main()
