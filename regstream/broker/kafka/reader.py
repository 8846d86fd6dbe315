"""Looking aside: where topics end, and what is behind in them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import aiokafka

from regstream import broker, model
from regstream.broker import message
from regstream.broker.kafka import connection, ending

FETCH_MS = 200
PIECE = 1_000


class Reader:
    """Makes consumers. Each look has one of its own; the one that feeds dashboards must not lose its place."""

    def __init__(self, reach: connection.Connection) -> None:
        self._connection = reach

    def consumer(self) -> Any:
        """One that is not started."""
        return aiokafka.AIOKafkaConsumer(
            **self._connection.options(), group_id=None, enable_auto_commit=False, auto_offset_reset="earliest",
            fetch_max_wait_ms=FETCH_MS, max_partition_fetch_bytes=4 * 1024 * 1024,
        )  # fmt: skip

    @contextlib.asynccontextmanager
    async def _aside(self, tps: Sequence[Any]) -> AsyncIterator[Any]:
        consumer = self.consumer()
        await consumer.start()
        try:
            # All at once: asked one by one, the client would look each topic up with a wait of its own
            consumer.assign(tps)
            yield consumer
        finally:
            await ending.stop(consumer)

    async def ends(self, topics: Mapping[str, int]) -> dict[connection.Place, int]:
        """Where each partition of topics ends that exist, given with their number of partitions."""
        tps = _partitions(topics)
        if not tps:
            return {}
        async with self._aside(tps) as consumer:
            ends = await consumer.end_offsets(tps)
        return {(tp.topic, tp.partition): end for tp, end in ends.items()}

    async def back(
        self, topics: Mapping[str, int], count: int, wanted: Callable[[model.Event], bool]
    ) -> tuple[list[broker.Record], bool]:
        """The ``wanted`` ones of the last ``count`` records of each partition; and whether these are all there are."""
        tps = _partitions(topics)
        if not tps:
            return [], True
        found: list[broker.Record] = []
        async with self._aside(tps) as consumer:
            ends, begins = await consumer.end_offsets(tps), await consumer.beginning_offsets(tps)
            for tp in tps:
                consumer.seek(tp, max(begins[tp], ends[tp] - count))
            open_ = {tp for tp in tps if ends[tp] > begins[tp]}
            while open_:
                got = await consumer.getmany(*open_, timeout_ms=FETCH_MS, max_records=PIECE)
                for messages in got.values():
                    found += [one for one in message.ours(messages) if wanted(one.event)]
                open_ = {tp for tp in open_ if await consumer.position(tp) < ends[tp]}
                # There may be much to read, and others have work
                await asyncio.sleep(0)
        whole = all(ends[tp] - count <= begins[tp] for tp in tps)
        return sorted(found, key=lambda record: (record.topic, record.partition, record.offset)), whole


def _partitions(topics: Mapping[str, int]) -> list[Any]:
    return [aiokafka.TopicPartition(topic, number) for topic, count in topics.items() for number in range(count)]
