"""How far behind the readers are that keep reading: what whoever replays stored events goes by."""

from __future__ import annotations

from collections.abc import Iterable

from regstream.hub.subscriber import Subscriber

PATIENCE = 1.0
"""Seconds after which a reader that takes nothing is not waited for any more."""


class Backpressure:
    """Remembers of those that have something waiting how much they had taken, and since when it is so much."""

    def __init__(self) -> None:
        self._taken: dict[Subscriber, tuple[int, float]] = {}

    def measure(self, subscribers: Iterable[Subscriber], now: float) -> float:
        """How full the fullest queue is of those that were read from in the last ``PATIENCE`` seconds, from 0 to 1."""
        before, self._taken = self._taken, {}
        fullest = 0.0
        for one in subscribers:
            fill = one.fill
            if fill:
                taken, since = before.get(one, (one.taken, now))
                since = since if taken == one.taken else now
                self._taken[one] = one.taken, since
                fullest = max(fullest, fill if now - since < PATIENCE else 0.0)
        return fullest

    def forget(self, subscriber: Subscriber) -> None:
        """It is gone."""
        self._taken.pop(subscriber, None)
