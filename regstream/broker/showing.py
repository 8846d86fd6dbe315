"""What dashboards get of a broker that comes and goes: each event once and in its turn, whichever way it came."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import AsyncIterator, Callable, Iterable

from regstream import broker, model
from regstream.broker import order

LIMIT = 20_000
PIECE = 500


class Showing:
    """Takes events from the cluster and from here, and gives out what was not given out before.

    ``tick`` gives seconds of a steady clock; ``room`` is set whenever something has gone. Full: who reads from the
    cluster waits while ``LIMIT`` events are not fetched; of events that are awaited the oldest are forgotten.
    """

    def __init__(self, tick: Callable[[], float], room: asyncio.Event) -> None:
        self.order = order.Order()
        self.consumed = 0
        self._tick = tick
        self._room = room
        self._awaited: collections.deque[model.Event] = collections.deque(maxlen=5 * LIMIT)
        self._out: collections.deque[model.Event] = collections.deque()
        self._filled = asyncio.Event()
        self._ended = False

    @property
    def awaited(self) -> int:
        """How many events were sent and did not come back yet."""
        return len(self._awaited)

    def oldest(self) -> model.Event | None:
        """The first of those."""
        return self._awaited[0] if self._awaited else None

    def expect(self, events: Iterable[model.Event]) -> None:
        """They are sent, and will come back."""
        self._awaited.extend(events)

    def take(self, events: Iterable[model.Event]) -> None:
        """Show what was not shown, in its turn."""
        now = self._tick()
        self.put(one for event in events for one in self.order.offer(event, now))
        self._arrived()

    def put(self, events: Iterable[model.Event]) -> None:
        """Show events that are in their turn already."""
        self._out.extend(events)
        self._filled.set()

    def expire(self) -> None:
        """Give up what is missing for too long, and show what waits for it."""
        self.put(self.order.expire(self._tick()))

    def give_up(self) -> None:
        """Show what is awaited; when it comes, it is not shown again."""
        self.take(self._awaited)
        self._awaited.clear()

    def _arrived(self) -> None:
        while self._awaited:
            head = self._awaited[0]
            shown = self.order.position(head.head.stream)
            if shown is None or shown < head.position:
                return
            self._awaited.popleft()
        self._room.set()

    async def until_fetched(self) -> None:
        """Return when fewer than ``LIMIT`` events were not fetched."""
        while len(self._out) > LIMIT:
            self._room.clear()
            await self._room.wait()

    async def records(self) -> AsyncIterator[list[broker.Record]]:
        """See ``broker.Broker.consume``. Partition and offset are -1: dashboards do not care where one came from."""
        while True:
            while not self._out and not self._ended:
                self._filled.clear()
                await self._filled.wait()
            if not self._out:
                return
            taken = [self._out.popleft() for _ in range(min(PIECE, len(self._out)))]
            self.consumed += len(taken)
            self._room.set()
            yield [broker.Record(event, event.head.topic, -1, -1) for event in taken]

    def end(self) -> None:
        """``records`` ends when everything is fetched."""
        self._ended = True
        self._filled.set()
