"""A broker in this process: topics, partitions, keys and offsets as Kafka has them, without its network or its disk.

All partitions share one queue, so the order of publishing is kept across partitions too; a reader must not count on
that, since Kafka does not promise it.
"""

from __future__ import annotations

import asyncio
import collections
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence

from regstream import broker, errors
from regstream.event import Event


class SimulatedBroker(broker.StatelessBroker):
    """Meets ``broker.Broker``; nothing outlives this process.

    At most ``limit`` events wait for the consumer, which gets at most ``batch`` at a time. ``partitions`` is for topics
    that were never declared; ``reason`` is shown in the status.
    """

    def __init__(self, limit: int = 10_000, batch: int = 500, partitions: int = 1, reason: str = "") -> None:
        self._limit, self._batch, self._partitions, self._reason = limit, batch, partitions, reason
        self._state = "new"
        self._topics: dict[str, list[int]] = {}
        self._queue: collections.deque[broker.Record] = collections.deque()
        self._turn = asyncio.Lock()
        self._room = asyncio.Event()
        self._filled = asyncio.Event()
        self._consuming = False
        self._produced = self._consumed = self._errors = 0

    @property
    def status(self) -> broker.BrokerStatus:
        """See ``broker.Broker``."""
        counts = (self._produced, self._consumed, self._errors)
        return broker.BrokerStatus("simulated", self._state, True, *counts, self._reason)

    async def declare(
        self,
        topics: Mapping[str, int],
        replication: int = 1,
        streams: Mapping[str, str] | None = None,
        batch_bytes: int | None = None,
    ) -> None:
        """See ``broker.Broker``."""
        for topic, partitions in topics.items():
            self._topics.setdefault(topic, [0] * partitions)

    async def start(self) -> None:
        """See ``broker.Broker``; never fails the first time."""
        if self._state != "new":
            raise errors.BrokerError(f"the broker was started before and is {self._state}")
        self._state = "live"

    async def publish(self, events: Sequence[Event]) -> None:
        """See ``broker.Broker``."""
        # The lock is fair: whoever waits for room keeps the place of the whole batch, and later batches queue behind.
        async with self._turn:
            done = 0
            while done < len(events):
                await self._until_room(len(events) - done)
                done += self._accept(events[done : done + self._limit - len(self._queue)])

    async def _until_room(self, waiting: int) -> None:
        while self._state == "live" and len(self._queue) >= self._limit:
            self._room.clear()
            await self._room.wait()
        if self._state != "live":
            self._errors += waiting
            raise errors.BrokerError(f"the broker is {self._state}", waiting)

    def _accept(self, events: Sequence[Event]) -> int:
        for event in events:
            self._queue.append(self._place(event))
        self._produced += len(events)
        self._filled.set()
        return len(events)

    def _place(self, event: Event) -> broker.Record:
        topic = event.head.topic
        offsets = self._topics.get(topic) or self._topics.setdefault(topic, [0] * self._partitions)
        # Not hash(): it is salted, and a key would change its partition at every start.
        key = event.head.stream if event.key is None else event.key
        partition = zlib.crc32(key.encode(*broker.KEYS)) % len(offsets) if len(offsets) > 1 else 0
        offset = offsets[partition]
        offsets[partition] = offset + 1
        return broker.Record(event, topic, partition, offset)

    async def consume(self) -> AsyncIterator[list[broker.Record]]:
        """See ``broker.Broker``."""
        if self._consuming:
            raise errors.BrokerError("the broker has a consumer already")
        self._consuming = True
        try:
            while await self._until_filled():
                yield self._take()
        finally:
            self._consuming = False

    async def _until_filled(self) -> bool:
        while not self._queue and self._state != "closed":
            self._filled.clear()
            await self._filled.wait()
        return bool(self._queue)

    def _take(self) -> list[broker.Record]:
        records = [self._queue.popleft() for _ in range(min(self._batch, len(self._queue)))]
        self._consumed += len(records)
        self._room.set()
        return records

    async def close(self) -> None:
        """See ``broker.Broker``; returns at once."""
        self._state = "closed"
        self._room.set()
        self._filled.set()
