"""One packet of the store, found by the place of its line.

Rule: the place is SOURCE_FILE:SOURCE_OFFSET, as the command line writes it.
"""

from __future__ import annotations

from typing import Any

from analytics.filters import Where
from analytics.reader import Reader
from dashboards.look import Look

# A reply that Calico logged after a denial is a packet and no denial: it has no attribution.
_ONE = "SELECT * FROM {table} WHERE source_file = $file AND source_offset = $offset LIMIT 1"


def one_packet(look: Look, place: str) -> dict[str, Any] | None:
    """The packet at a place, with who it was from and to where it is a denial; None where there is none."""
    file, _, offset = place.rpartition(":")

    def ask(reader: Reader, _: Where) -> dict[str, Any] | None:
        for table in ("denied", "packets"):
            found = reader.rows(_ONE.format(table=table), {"file": file, "offset": int(offset)}).dicts()
            if found:
                return found[0]
        return None

    return look.ask("packet", ask, place)
