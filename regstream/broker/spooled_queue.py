"""The way of events out: written to the spool first, sent in order, acknowledged there when the cluster has them."""

from __future__ import annotations

import asyncio
import collections
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from regstream import errors
from regstream.broker import kafka, spool
from regstream.event import Event

CHUNK = 2_000
LIMIT = 20_000
MARGIN = 200
_log = logging.getLogger("regstream.broker.outbox")


class DeclaredTopics:
    """The topics that there are to be, with their partitions; a cluster that comes back is told of them again.

    ``refused`` has those that it does not make, and why.
    """

    def __init__(self) -> None:
        self.topics: dict[str, int] = {}
        self.refused: Mapping[str, str] = {}
        self.replication = 1
        self.batch_bytes: int | None = None

    async def on(self, one: kafka.KafkaBroker, more: Collection[str] = ()) -> dict[str, int]:
        """Have them made, and ``more`` like the others; gives all of them.

        Raises BrokerError, but not for topics that are refused: their events will be, and the others must not wait.
        """
        topics = self.topics
        if more:
            topics = {**dict.fromkeys(more, max(topics.values(), default=1)), **topics}
        try:
            await one.declare(topics, self.replication, batch_bytes=self.batch_bytes)
            self.refused = {}
        except errors.BrokerError as error:
            if not (error.final and error.topics):
                raise
            self.refused = error.topics
        return topics


class SpooledQueue:
    """What is to be sent. ``refused`` is told of events that the cluster takes on no account.

    ``errors`` counts those, and ``refused_by`` those of each reason; ``dropped`` by stream what was lost for want of
    disk space; ``refusals`` has by topic why its last events were refused. ``room`` is set whenever something has gone.
    Full: ``until_room`` waits while ``LIMIT`` events wait for a cluster that answers; what waits for one that does not
    is bounded by the spool.
    """

    def __init__(
        self,
        kept: spool.Spool,
        declared: DeclaredTopics,
        room: asyncio.Event,
        refused: Callable[[Sequence[Event]], None],
    ) -> None:
        self._spool = kept
        self._declared = declared
        self._room = room
        self._refused = refused
        self._pending: collections.deque[tuple[int, Sequence[Event]]] = collections.deque()
        self._filled = asyncio.Event()
        self._doubt = 0
        self.ahead = 0
        self.errors = 0
        self.refused_by: collections.Counter[str] = collections.Counter()
        self.dropped: collections.Counter[str] = collections.Counter()
        self.refusals: dict[str, str] = {}

    def open(self) -> spool.Spool:
        """Take the spool. Raises StartError."""
        self._spool.open()
        # Of a daemon that was killed nobody knows how much of this it had under way
        self._doubt = min(2 * CHUNK, self._spool.waiting)
        return self._spool

    def close(self) -> None:
        """Leave the spool to others; what is not on disk is lost by that."""
        self._count(self._spool.release())
        self._spool.close()

    @property
    def is_open(self) -> bool:
        """Whether it takes events."""
        return self._spool.is_open

    @property
    def waiting(self) -> int:
        """Events in the spool."""
        return self._spool.waiting

    @property
    def waiting_bytes(self) -> int:
        """The bytes that they take."""
        return self._spool.waiting_bytes

    def put(self, events: Sequence[Event], live: bool) -> None:
        """Take events; ``live``: they are sent from memory, and not when the spool is drained."""
        kept = self._spool.append(events, held=live)
        self._count(kept.lost)
        if not live:
            return
        self._pending.append((kept.last, events))
        self.ahead += len(events)
        self._filled.set()

    def fall(self) -> None:
        """The cluster is away: from now on only the spool has what was not acknowledged."""
        self._pending.clear()
        self._count(self._spool.release())
        self.ahead = 0
        self._room.set()

    def _count(self, lost: Iterable[spool.Loss]) -> None:
        for one in lost:
            if one.stream not in self.dropped:
                _log.error(
                    "the spool is full or cannot be written: events of %s are lost",
                    one.stream,
                    extra={"stream": one.stream},
                )
            self.dropped[one.stream] += one.events

    async def send(self, one: kafka.KafkaBroker) -> None:
        """Send what is pending, for ever; raises BrokerError when the connection is lost."""
        while True:
            while not self._pending:
                self._filled.clear()
                await self._filled.wait()
            upto, chunk = self._take()
            await self._deliver(one, upto, chunk)
            self._room.set()

    def _take(self) -> tuple[int, list[Event]]:
        """The next events to send, with the mark of the last."""
        chunk: list[Event] = []
        upto = 0
        while self._pending and len(chunk) < CHUNK:
            upto, events = self._pending.popleft()
            chunk += events
        self.ahead -= len(chunk)
        return upto, chunk

    async def drain(self, one: kafka.KafkaBroker) -> None:
        """Send what waits in the spool, in order; a send that was in doubt is looked up before it is repeated."""
        landed: set[tuple[str, str, int]] | None = None
        for upto, events in self._spool.unacknowledged(CHUNK):
            if landed is None:
                landed = await self._landed(one, events)
            await self._deliver(one, upto, [event for event in events if _name(event) not in landed])

    async def _landed(self, one: kafka.KafkaBroker, chunk: Sequence[Event]) -> set[tuple[str, str, int]]:
        """What is on the topics already of a send that was not acknowledged: only one is ever under way.

        It may reach beyond ``chunk``, into topics that are not in there.
        """
        topics = await self._declared.on(one, {event.head.topic for event in chunk})
        if not self._doubt:
            return set()
        return {_name(record.event) for record in await one.tail(topics, self._doubt + MARGIN)}

    async def _deliver(self, one: kafka.KafkaBroker, upto: int, events: Sequence[Event]) -> None:
        """Have the cluster acknowledge events, the last of which has the mark ``upto`` in the spool."""
        self._spool.hold(upto)
        self._doubt = len(events)
        refusal: errors.BrokerError | None = None
        try:
            await self._declared.on(one)
            await one.publish(events)
        except errors.BrokerError as error:
            if not (error.final and error.refused):
                raise
            refusal = error
        self._judge(events, refusal)
        self._doubt = 0
        self._spool.acknowledge(upto)

    def _judge(self, events: Iterable[Event], refusal: errors.BrokerError | None) -> None:
        if self.refusals:
            # A topic whose events are taken again has no fault any more
            for topic in {event.head.topic for event in events}:
                self.refusals.pop(topic, None)
        if refusal is not None:
            # They will not come back from the topic, and those behind them are not held up for them
            self.errors += refusal.count
            for event in refusal.refused:
                topic = event.head.topic
                reason = refusal.topics.get(topic, refusal.reason)
                self.refused_by[reason] += 1
                # Of one that is not there it is said elsewhere, until it is there
                if topic not in self._declared.refused:
                    self.refusals[topic] = reason
            self._refused(refusal.refused)


def _name(event: Event) -> tuple[str, str, int]:
    return event.head.stream, event.head.epoch, event.seq
