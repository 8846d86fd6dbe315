"""The fan-out: every event is encoded once, kept in its stream's ring, and offered to each subscriber's bounded queue.

Nothing here awaits, so a subscription is atomic: what is in the ring when ``subscribe`` runs is replayed, what comes
later is live, and nothing lies between. Nothing here knows a wire: a server takes entries from a subscriber's queue
when its ``wake`` was called, and writes them in its own framing.

``recovered`` is never a guess. A stream is served after a position only when everything behind that position is in the
ring; otherwise nothing of the gap is sent and the subscriber is told.
"""

from __future__ import annotations

from regstream.hub.delivery import Delivery, DeliveryOptions
from regstream.hub.feed import (
    Feed,
)
from regstream.hub.frame import (
    Entry,
    reply,
)
from regstream.hub.hub import MAX_FORGOTTEN, Hub, HubCounts
from regstream.hub.ring import (
    Subscribed,
)
from regstream.hub.subscriber import (
    Subscriber,
)
from regstream.hub.subscription import SubscriptionRequest

__all__ = [
    "MAX_FORGOTTEN",
    "Delivery",
    "DeliveryOptions",
    "Entry",
    "Feed",
    "Hub",
    "HubCounts",
    "Subscribed",
    "Subscriber",
    "SubscriptionRequest",
    "reply",
]
