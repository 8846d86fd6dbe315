"""The flush: whom it serves, how often, and what one reader cannot do to the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from regstream import hub, spec
from regstream.event import Position
from regstream.server.transports import writer
from tests import test_feed

BOUND = 60.0
CONFLATE, DROP = hub.DeliveryOptions(spec.Policy.CONFLATE), hub.DeliveryOptions(spec.Policy.DROP_OLDEST)


class Reader(test_feed.Reader):
    """Counts how often it is looked at."""

    looked = 0
    broken = False

    def write(self, now: float) -> None:
        self.looked += 1
        super().write(now)

    def send(self, entries: list[hub.Entry]) -> None:
        if self.broken:
            raise MemoryError
        super().send(entries)


class World:
    """A hub with one stream, and readers with the real flush."""

    def __init__(self, count: int) -> None:
        self.hub, self.seq = hub.Hub(now=lambda: 0.0), 0
        self.hub.declare("ONE", "one-type", Position("E", 0))
        self.outlets: Any = writer.FlushScheduler()
        self.readers = [Reader(self.outlets, True) for _ in range(count)]

    def join(self, reader: Reader, wish: hub.DeliveryOptions = hub.DeliveryOptions()) -> None:  # noqa: B008 - it is never changed
        self.hub.subscribe(reader.subscriber, hub.SubscriptionRequest(["ONE"], wish=wish))

    def show(self) -> None:
        self.seq += 1
        self.hub.broadcast(test_feed.event("ONE", self.seq))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(BOUND):
            while not condition():
                await asyncio.sleep(0.001)

    async def shown_to(self, *readers: Reader) -> None:
        """Show an event, and wait until all of these have it."""
        self.show()
        await self.until(lambda: all(("one-type", self.seq) in reader.got for reader in readers))


async def test_a_stalled_reader_is_looked_at_once_a_round_however_often_it_was_woken() -> None:
    world = World(1)
    (reader,) = world.readers
    reader.room = False
    for number in range(50):
        # Each time there is an empty lane again, into which something comes
        world.join(reader, (CONFLATE, DROP)[number % 2])
        world.show()
    await world.until(lambda: len(world.outlets._stalled) > 0)
    reader.looked = 0
    await world.until(lambda: reader.looked > 0)
    assert reader.looked == 1
    reader.room = True
    await world.until(lambda: test_feed.seqs(reader) == list(range(1, 51)))


@pytest.mark.parametrize("sharing", [True, False])
async def test_a_fault_at_one_reader_ends_that_one_and_no_other(sharing: bool) -> None:
    world = World(3)
    for reader in world.readers:
        reader.takes_part = sharing
        world.join(reader)
    await world.shown_to(*world.readers)
    await world.shown_to(*world.readers)
    first, *others = world.readers
    first.broken = True
    await world.shown_to(*others)
    await world.shown_to(*others)
    await world.until(lambda: first.cut)
    assert not any(one.cut for one in others)
    assert [test_feed.seqs(one) for one in world.readers] == [[1, 2], [1, 2, 3, 4], [1, 2, 3, 4]]
