"""What a forwarder counts, for whoever wants to show it: plain numbers that one thread writes and others may read.

Rule: every message is counted once in `sent` when its arrival is known, and each attempt that failed in `failed`.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Counters:
    """How forwarding to one target is going.

    `sent`: messages that arrived as far as the transport can know. `failed`: messages of batches that did not, each
    attempt counted. `cut`: messages that were longer than the target takes. `dropped`: packets never sent, by reason
    (`retention`: removed from the store before). `queue_rows`: packets in the store that are still to be sent.
    `octets`: bytes of the messages sent. `outages`: connections that were lost or could not be made.
    """

    target: str
    sent: int = 0
    failed: int = 0
    cut: int = 0
    octets: int = 0
    outages: int = 0
    queue_rows: int = 0
    connected: bool = False
    dropped: dict[str, int] = field(default_factory=lambda: {"retention": 0})
