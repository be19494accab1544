"""What a page says where there is nothing to show: how to fill an empty store, or which filter to take away.

Rule: never an empty page, never only "no data".
"""

from __future__ import annotations

from dashboards.look import Look
from dashboards.markup import notice
from dashboards.settings import current


def nothing(look: Look) -> None:
    """There are no packets to show."""
    if look.moment.newest is None:
        store = current().store
        notice(
            "The store is empty",
            "Fill it from logs that are there, or follow one as it grows; this page shows packets as they are stored.",
            kind="empty",
            command=f"denylog ingest --store {store} /var/log/syslog*\ndenylog collect --store {store} /var/log/syslog",
        )
        return
    newest = f"{look.local(look.moment.newest):%d %b %Y %H:%M:%S}"
    what = "matches the filters in this time" if look.view.filters else "was denied in this time"
    notice(
        "Nothing to show",
        f"No packet {what}. Take a filter away or choose a longer time; the newest packet in the store is of {newest}.",
        kind="empty",
    )
