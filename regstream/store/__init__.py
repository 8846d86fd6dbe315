"""The store: PostgreSQL keeps every event once, and gives them back to whoever asks.

Everything is written to a spool on disk first (with Kafka, the topics are that for events), so streaming never waits
for the database, and what it did not take while it was away it takes later.

``spooled_queue`` takes what comes, ``recorder`` writes it with ``writer``, ``reader`` answers queries, ``persistence``
is what streams go on with after a restart. ``pool`` has the connections and all SQL by name, ``schema`` the migrations,
the partitions by day and how long they stay.
"""

from __future__ import annotations

from regstream.store.store import MOST, Moments, Source, Store, StoreStatus

__all__ = [
    "MOST",
    "Moments",
    "Source",
    "Store",
    "StoreStatus",
]
