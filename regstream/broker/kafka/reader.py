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
FETCH_BYTES = 256 * 1024
FETCH_SECONDS = 40.0
"""So long may an answer take that has so many bytes: over a slow line it comes in time, if not soon."""
PIECE = 1_000
NEAREST = 50
LOOK_SECONDS = 12.0


class Reader:
    """Makes consumers. Each look has one of its own; the one that feeds dashboards must not lose its place."""

    def __init__(self, reach: connection.Connection) -> None:
        self._connection = reach

    def consumer(self) -> Any:
        """One that is not started."""
        options = {**self._connection.options(), "request_timeout_ms": int(FETCH_SECONDS * 1000)}
        return aiokafka.AIOKafkaConsumer(
            **options, group_id=None, enable_auto_commit=False, auto_offset_reset="earliest",
            fetch_max_wait_ms=FETCH_MS, fetch_max_bytes=FETCH_BYTES, max_partition_fetch_bytes=FETCH_BYTES,
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
        """The ``wanted`` ones of the last ``count`` records of each partition; and whether a longer look finds no more.

        It does not when these are all that there are, nor when the line is too slow for more in ``LOOK_SECONDS``: the
        last ones are read first.
        """
        tps = _partitions(topics)
        if not tps:
            return [], True
        found: list[broker.Record] = []
        async with self._aside(tps) as consumer:
            ends, begins = await consumer.end_offsets(tps), await consumer.beginning_offsets(tps)
            now = asyncio.get_running_loop().time
            upto, depth, began, slow = ends, min(NEAREST, count), now(), False
            while True:
                asked = now()
                since = {tp: max(begins[tp], ends[tp] - depth) for tp in tps}
                found += await _span(consumer, since, upto, wanted)
                if depth == count or all(since[tp] == begins[tp] for tp in tps):
                    break
                # Four times as many take four times as long
                slow = now() - began + 4 * (now() - asked) > LOOK_SECONDS
                if slow:
                    break
                upto, depth = since, min(count, 4 * depth)
        whole = slow or all(since[tp] == begins[tp] for tp in tps)
        return sorted(found, key=lambda record: (record.topic, record.partition, record.offset)), whole


async def _span(
    consumer: Any, since: Mapping[Any, int], upto: Mapping[Any, int], wanted: Callable[[model.Event], bool]
) -> list[broker.Record]:
    """The ``wanted`` ones of the records between two offsets of each partition."""
    found: list[broker.Record] = []
    for tp, offset in since.items():
        consumer.seek(tp, offset)
    open_ = {tp for tp in since if upto[tp] > since[tp]}
    while open_:
        got = await consumer.getmany(*open_, timeout_ms=FETCH_MS, max_records=PIECE)
        for tp, messages in got.items():
            ours = message.ours(messages)
            found += [one for one in ours if one.offset < upto[tp] and wanted(one.event)]
        open_ = {tp for tp in open_ if await consumer.position(tp) < upto[tp]}
        # There may be much to read, and others have work
        await asyncio.sleep(0)
    return found


def _partitions(topics: Mapping[str, int]) -> list[Any]:
    return [aiokafka.TopicPartition(topic, number) for topic, count in topics.items() for number in range(count)]
