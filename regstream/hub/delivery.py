"""The ways in which events reach a reader that is slower than they are made, or wants fewer of them.

Each way that a subscriber has asked for is a lane beside its queue. Nothing here has a timer: a lane says when
something can be taken, and the server comes back then.
"""

from __future__ import annotations

import abc
import collections
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from regstream import spec
from regstream.hub.frame import Entry

# So many seconds may be saved up: a fast rate then leaves in a few writes and not in one for each event
SAVED = 0.05
# Of the sums of times and rates only so much is exact
EPSILON = 1e-6


class Delivery(NamedTuple):
    """How the events of a channel are delivered; ``max_rate`` in events a second, None for all of them.

    With ``conflate``, ``max_rate`` is how often a second the newest event of each key leaves. ``replay`` is for events
    that are sent again.
    """

    policy: spec.Policy = spec.Policy.DISCONNECT
    max_rate: float | None = None
    replay: bool = False

    @property
    def again(self) -> Delivery:
        """How the same reader gets what is replayed: all of it, at no rate, in no queue with live events of a lane.

        There is nothing to conflate in the past: who wants that has the oldest dropped, when there is no room.
        """
        if self == PLAIN:
            return PLAIN
        keeps = self.policy is spec.Policy.DISCONNECT
        return Delivery(spec.Policy.DISCONNECT if keeps else spec.Policy.DROP_OLDEST, None, replay=True)


class DeliveryOptions(NamedTuple):
    """What a subscriber asks for; None leaves it to what is declared for the channel."""

    policy: spec.Policy | None = None
    max_rate: float | None = None

    def over(self, declared: Delivery) -> Delivery:
        """The delivery that comes of it."""
        return Delivery(self.policy or declared.policy, self.max_rate or declared.max_rate)


PLAIN = Delivery()
ANY = DeliveryOptions()


class EventSink(Protocol):
    """What the hub offers entries to."""

    def offer(self, entry: Entry) -> None:
        """Take ``entry``; never waits, never raises."""


class Owner(Protocol):
    """The subscriber to which a lane belongs."""

    slow: bool

    def wake(self) -> None:
        """Something came into a lane that was empty."""

    def passed_over(self, entry: Entry) -> None:
        """``entry`` will not be delivered, as was asked for."""

    def dropped(self, entry: Entry) -> None:
        """``entry`` will not be delivered, and the reader has to be told."""

    def give_up(self) -> None:
        """The reader is too slow: it gets nothing more, and its lanes are thrown away."""


class TokenBucket:
    """Lets ``rate`` events a second through, evenly, after some that may be saved up; None: all."""

    def __init__(self, rate: float | None) -> None:
        self._rate = math.inf if rate is None else rate
        self._most = max(1.0, math.floor(self._rate * SAVED)) if rate else math.inf
        self._saved, self._at = self._most, -math.inf

    def allows(self, now: float) -> bool:
        """Whether one may leave now."""
        if now > self._at and self._saved < self._most:
            self._saved = min(self._most, self._saved + (now - self._at) * self._rate)
        self._at = max(self._at, now)
        return self._saved + EPSILON >= 1

    def spend(self) -> None:
        """One left."""
        self._saved -= 1

    def wait(self, now: float) -> float:
        """Seconds until the next may leave; after a pause of a fast rate several may."""
        return 0.0 if self.allows(now) else (self._most - self._saved) / self._rate


class DeliveryQueue(abc.ABC):
    """What waits for one subscriber to be delivered in one way, at most ``limit`` frames and ``size`` bytes of it."""

    def __init__(self, owner: Owner, limit: int, size: int) -> None:
        self._owner, self._limit, self._size = owner, limit, size
        self.bytes = self.waiting = 0

    @property
    def fill(self) -> float:
        """How much of what may wait does, from 0 to 1."""
        return min(1.0, max(self.waiting / self._limit, self.bytes / self._size))

    def offer(self, entry: Entry) -> None:
        """Take ``entry``, by whatever has to go for it; never waits, never raises."""
        if self._owner.slow:
            return
        idle = not self.waiting
        self._count(entry, 1)
        replaced = self._insert(entry)
        if replaced is not None:
            self._count(replaced, -1)
            self._owner.passed_over(replaced)
        while self.waiting > self._limit or (self.bytes > self._size and self.waiting > 1):
            if not self._shrink():
                return
        if idle:
            self._owner.wake()

    def take(self, taken: list[Entry], count: int, size: int, now: float) -> int:
        """Move what can be taken to ``taken``, until that has ``count`` or ``size`` bytes more; gives what is left."""
        while size > 0 and len(taken) < count and (entry := self._next(now)) is not None:
            self._count(entry, -1)
            size -= entry.size
            taken.append(entry)
        return size

    def clear(self) -> list[Entry]:
        """Everything that waits, in order; the lane is empty then."""
        entries = sorted(self._all(), key=lambda entry: entry.order)
        self._empty()
        self.bytes = self.waiting = 0
        return entries

    def _count(self, entry: Entry, change: int) -> None:
        self.waiting += change
        self.bytes += change * entry.size

    def _drop(self, entry: Entry) -> bool:
        self._count(entry, -1)
        self._owner.dropped(entry)
        return True

    @abc.abstractmethod
    def wait(self, now: float) -> float:
        """In how many seconds something can be taken, as something waits."""

    @abc.abstractmethod
    def _insert(self, entry: Entry) -> Entry | None:
        """Hold ``entry`` too; gives the one that it stands in for."""

    @abc.abstractmethod
    def _next(self, now: float) -> Entry | None:
        """Give the first out, if one can be taken."""

    @abc.abstractmethod
    def _shrink(self) -> bool:
        """Make room for one; false when the subscriber was given up."""

    @abc.abstractmethod
    def _all(self) -> Iterable[Entry]:
        """What waits."""

    @abc.abstractmethod
    def _empty(self) -> None:
        """Hold nothing any more."""


class DisconnectQueue(DeliveryQueue):
    """Everything, no faster than the rate; a subscriber for whom too much waits is given up."""

    def __init__(self, owner: Owner, limit: int, size: int, rate: float | None) -> None:
        super().__init__(owner, limit, size)
        self._pace = TokenBucket(rate)
        self._items: collections.deque[Entry] = collections.deque()

    def wait(self, now: float) -> float:
        """See ``Pace.wait``."""
        return self._pace.wait(now)

    def _insert(self, entry: Entry) -> None:
        self._items.append(entry)

    def _next(self, now: float) -> Entry | None:
        if not self._items or not self._pace.allows(now):
            return None
        self._pace.spend()
        return self._items.popleft()

    def _shrink(self) -> bool:
        self._owner.give_up()
        return False

    def _all(self) -> Iterable[Entry]:
        return self._items

    def _empty(self) -> None:
        self._items = collections.deque()


class DropOldestQueue(DeliveryQueue):
    """The newest, no faster than the rate: of what waits, the oldest of the lowest priority is dropped."""

    def __init__(self, owner: Owner, limit: int, size: int, rate: float | None) -> None:
        super().__init__(owner, limit, size)
        self._pace = TokenBucket(rate)
        self._ranks: list[collections.deque[Entry]] = [collections.deque() for _ in spec.Priority]

    def wait(self, now: float) -> float:
        """See ``Pace.wait``."""
        return self._pace.wait(now)

    def _insert(self, entry: Entry) -> None:
        self._ranks[_rank(entry)].append(entry)

    def _next(self, now: float) -> Entry | None:
        filled = [queue for queue in self._ranks if queue]
        if not filled or not self._pace.allows(now):
            return None
        self._pace.spend()
        return min(filled, key=lambda queue: queue[0].order).popleft()

    def _shrink(self) -> bool:
        lowest = next(queue for queue in reversed(self._ranks) if queue)
        return self._drop(lowest.popleft())

    def _all(self) -> Iterable[Entry]:
        return [entry for queue in self._ranks for entry in queue]

    def _empty(self) -> None:
        self._ranks = [collections.deque() for _ in spec.Priority]


class ConflatingQueue(DeliveryQueue):
    """The newest event of each key, all of them at once and as often as the rate says.

    What a round has taken up is delivered, newer or not, before the next round: a key that changes all the time is
    delivered as often as the others, however slow the reader is. An event without a key stands for its stream.
    """

    def __init__(self, owner: Owner, limit: int, size: int, rate: float | None) -> None:
        super().__init__(owner, limit, size)
        self._period = 1 / rate if rate else 0.0
        self._due = -math.inf
        self._newest: dict[tuple[str, str | None], Entry] = {}
        self._round: collections.deque[Entry] = collections.deque()

    def wait(self, now: float) -> float:
        """0 within a round and when the next one is due."""
        return 0.0 if self._round else max(0.0, self._due - now)

    def _insert(self, entry: Entry) -> Entry | None:
        key = (entry.head.stream if entry.head else "", entry.key)
        # Taken out first, so that the order stays that of the events
        replaced = self._newest.pop(key, None)
        self._newest[key] = entry
        return replaced

    def _next(self, now: float) -> Entry | None:
        if not self._round and self._newest and now + EPSILON >= self._due:
            self._round.extend(self._newest.values())
            self._newest.clear()
            # A round that is a little late does not move the next one
            self._due = max(self._due + self._period, now) if now - self._due < self._period else now + self._period
        return self._round.popleft() if self._round else None

    def _shrink(self) -> bool:
        if not self._newest:
            return self._drop(self._round.popleft())
        # Several at once, because finding them takes a look at all
        lowest = sorted(self._newest.items(), key=lambda item: (-_rank(item[1]), item[1].order))
        for key, entry in lowest[: max(1, len(lowest) // 8)]:
            del self._newest[key]
            self._drop(entry)
        return True

    def _all(self) -> Iterable[Entry]:
        return [*self._round, *self._newest.values()]

    def _empty(self) -> None:
        self._round.clear()
        self._newest.clear()


_LANES: dict[spec.Policy, Callable[[Owner, int, int, float | None], DeliveryQueue]] = {
    spec.Policy.DISCONNECT: DisconnectQueue,
    spec.Policy.DROP_OLDEST: DropOldestQueue,
    spec.Policy.CONFLATE: ConflatingQueue,
}


def make(delivery: Delivery, owner: Owner, limit: int, size: int) -> DeliveryQueue:
    """The lane for a delivery."""
    return _LANES[delivery.policy](owner, limit, size, delivery.max_rate)


def _rank(entry: Entry) -> int:
    return entry.head.priority.rank if entry.head else 0
