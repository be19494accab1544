"""How rows other than packets come into a store, also while another process holds it.

Rule: a deposit is in the store once, or in the inbox whole; a kill at any moment loses nothing and doubles nothing.
"""

from __future__ import annotations

from contextlib import suppress

from analytics import envelope
from analytics.additions import Additions, Deposited, count
from analytics.store import StoreHeldError, resolve
from analytics.writer import Writer


def deposit(store: str, additions: Additions) -> Deposited:
    """Store `additions` in one transaction, or leave them in the inbox for the process that holds the store.

    The holder takes them in within seconds. `Deposited.rows` are those that were new (all, where they wait). Creates
    the store where there is none. Raises StoreError.
    """
    name = envelope.new_name()
    with suppress(StoreHeldError), Writer(store) as writer:
        writer.take_in()
        return Deposited(writer.add(additions, name), queued=False)
    envelope.seal(resolve(store), name, additions)
    # The holder may have ended before it could see the file.
    with suppress(StoreHeldError), Writer(store) as writer:
        return Deposited(writer.take_in(), queued=False)
    return Deposited(count(additions), queued=True)
