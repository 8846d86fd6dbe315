"""Events sent again, into topics where no stream is: apart from what is live, which must not wait for it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence

from regstream import errors, model
from regstream.broker.kafka import connection, ending, faults, sender
from regstream.broker.kafka import topics as kafka_topics

PIECE = 2_000
READY_SECONDS = 5.0
HEADERS = [*sender.HEADERS, ("replay", b"true")]

Make = Callable[[Mapping[str, int], int], Awaitable[kafka_topics.Made]]


def moved(events: Iterable[model.Event], topic_of: Mapping[str, str] | str) -> Iterator[model.Event]:
    """The same events on other topics: all on one, or each where its stream leads.

    Raises BrokerError, ``final``, for a stream that leads nowhere.
    """
    for head, group in itertools.groupby(events, lambda event: event.head):
        topic = topic_of if isinstance(topic_of, str) else topic_of.get(head.stream)
        if topic is None:
            raise errors.BrokerError(f"no topic is named for stream {head.stream}", final=True)
        there = head._replace(topic=topic)
        yield from (event._replace(head=there) for event in group)


class Resender:
    """Has a producer of its own from the first events on. ``make`` creates topics.

    One piece of at most ``PIECE`` events is under way at a time; whoever else sends waits for that one, no longer.
    """

    def __init__(self, reach: connection.Connection, make: Make) -> None:
        self._connection = reach
        self._make = make
        self._partitions: dict[str, int] = {}
        self._sender: sender.Sender | None = None
        self._turn = asyncio.Lock()
        self._closed = False

    async def send(self, events: Sequence[model.Event], partitions: int, replication: int) -> None:
        """Returns when all are acknowledged; a topic that is missing gets so many partitions and copies.

        Raises BrokerError: when the cluster is away, which is seen after some seconds without progress, and
        then ``count`` events, from the end of ``events``, may be on the topics or not; ``final`` when some are refused.
        """
        refusals: list[errors.BrokerError] = []
        for first in range(0, len(events), PIECE):
            piece = events[first : first + PIECE]
            async with self._turn:
                try:
                    refusals += await self._piece(piece, partitions, replication)
                except errors.BrokerError as error:
                    # What the producer still holds would come when nobody wants it any more
                    await self._discard()
                    raise errors.BrokerError(error.reason, len(events) - first, final=error.final) from error
        if refusals:
            raise errors.BrokerError(refusals[0].reason, sum(one.count for one in refusals), final=True)

    async def _piece(self, piece: Sequence[model.Event], partitions: int, replication: int) -> list[errors.BrokerError]:
        if self._closed:
            raise errors.BrokerError("the broker is closed")
        async with faults.bounded(READY_SECONDS, self._connection.servers):
            through = await self._ready()
            await self._know({event.head.topic for event in piece}, partitions, replication)
        sent = await through.send(piece, self._partitions)
        if sent.unsure:
            raise errors.BrokerError("; ".join(sent.reasons))
        return [errors.BrokerError("; ".join(sent.reasons), len(sent.never))] if sent.never else []

    async def _ready(self) -> sender.Sender:
        if self._sender is None:
            self._sender = sender.Sender(self._connection, HEADERS)
            await self._sender.producer.start()
        return self._sender

    async def _know(self, topics: Iterable[str], partitions: int, replication: int) -> None:
        missing = dict.fromkeys((one for one in topics if one not in self._partitions), partitions)
        if missing:
            made = await self._make(missing, replication)
            if made.refused:
                raise errors.BrokerError("; ".join(made.refused.values()), final=True, topics=made.refused)
            self._partitions.update({**missing, **made.there})

    async def _discard(self) -> None:
        through, self._sender = self._sender, None
        self._partitions.clear()
        if through is not None:
            through.end()
            await ending.discard(through.producer)

    async def close(self) -> None:
        """Give everything up; what is under way is not acknowledged."""
        self._closed = True
        await self._discard()
