"""Events onto their partitions, whole batches at a time; what the cluster refuses is told apart event by event."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import operator
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import aiokafka
import aiokafka.codec
import aiokafka.partitioner
import aiokafka.record.default_records

from regstream import broker, errors, logs, spec
from regstream.broker import codec
from regstream.broker.kafka import admin, connection, delivery
from regstream.broker.kafka import errors as kafka_errors
from regstream.event import Event, Head

HEADERS = [("content-type", b"application/cloudevents+json")]
PATIENCE_SECONDS = 120.0
AGAIN_SECONDS = 0.2
_TOO_LARGE = {"MESSAGE_TOO_LARGE", "RECORD_LIST_TOO_LARGE"}
_refusals = logging.getLogger("regstream.broker.kafka.sender.refused")


class Sent(NamedTuple):
    """What was not acknowledged: ``unsure`` may be on the topic or not, ``never`` is not and never will be.

    ``reasons`` say why, each once, ``topics`` why of each topic of which events are in ``never``.
    """

    unsure: tuple[Event, ...]
    never: tuple[Event, ...]
    reasons: tuple[str, ...]
    topics: Mapping[str, str]


def compress_fast() -> None:
    """Have lz4 at its fast level.

    The library takes level 9, which is four times the CPU of the rest of a batch for a fifth fewer bytes, and has no
    setting for it. One that no longer looks here would compress as it likes; nothing else would change.
    """
    module = sys.modules[aiokafka.record.default_records.DefaultRecordBatchBuilder.__module__]
    vars(module)["lz4_encode"] = functools.partial(aiokafka.codec.lz4_encode, level=1)


class Producer:
    """Sends through one producer, each message with ``headers``.

    ``acknowledged`` says how far, as the offset behind the last, in each partition. At most ``batch_bytes`` of
    events are sent to one at once, or one event that is larger.
    """

    def __init__(self, reach: connection.Connection, headers: Sequence[tuple[str, bytes]] = HEADERS) -> None:
        self._servers = reach.servers
        self._headers = headers
        # How long an answer may take is decided by the window: a slow line needs more than a request is given
        options = {**reach.options(), "request_timeout_ms": int(PATIENCE_SECONDS * 1000)}
        self.producer: Any = aiokafka.AIOKafkaProducer(
            **options,
            acks="all",
            enable_idempotence=True,
            compression_type="lz4",
            max_batch_size=spec.MAX_BATCH_BYTES,
        )
        self.producer._sender._send_produce_req = self._request
        self.batch_bytes = spec.MAX_BATCH_BYTES
        self.acknowledged: dict[connection.Place, int] = {}
        self._window = delivery.SendWindow()
        self._troubles = delivery.Troubles()
        self._fitting: dict[connection.Place, int] = {}
        self._too_large: dict[connection.Place, int] = {}
        self._ended = False
        logs.limit_rate(_refusals.name)
        compress_fast()

    async def _request(self, node: Any, batches: Any) -> None:
        """What the library's sender does for each request, with answers judged by our table."""
        library = self.producer._sender
        try:
            await delivery.ProduceHandler(library, batches, self._window, self._troubles).do(node)
        finally:
            library._in_flight.remove(node)
            library._muted_partitions.difference_update(batches)

    def end(self) -> None:
        """From now on a send that is cancelled is one that was not acknowledged, and not one that nobody wants."""
        self._ended = True
        self._window.close()

    async def send(self, events: Sequence[Event], partitions: Mapping[str, int]) -> Sent:
        """Send events, each partition's in their order, whose topics have so many partitions; never raises for them.

        Of a partition nothing is sent behind the first event that is unsure.
        """
        groups = _grouped(events, partitions)
        results = await asyncio.gather(*(self._send(place, group) for place, group in groups.items()))
        return Sent(
            tuple(event for one in results for event in one.unsure),
            tuple(event for one in results for event in one.never),
            tuple(dict.fromkeys(reason for one in results for reason in one.reasons)),
            {topic: reason for one in results for topic, reason in one.topics.items()},
        )

    async def _send(self, place: connection.Place, events: list[Event]) -> Sent:
        queue = _Queue(events)
        unsure: tuple[str, ...] = ()
        # Twice what fitted last: its limit may have been raised since
        fitting = 2 * self._fitting.get(place, self.batch_bytes)
        try:
            while queue.next:
                await self._send_one(place, queue, min(self.batch_bytes, self._window.size, fitting))
                fitting = self._fitting.get(place, self.batch_bytes)
        except (*kafka_errors.FAULTS, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and not self._ended:
                raise
            unsure = (self._why(place[0], error),)
        refused = tuple(dict.fromkeys(queue.reasons))
        return Sent(
            tuple(queue.left),
            tuple(queue.refused),
            (*refused, *unsure),
            {place[0]: "; ".join(refused)} if refused else {},
        )

    async def _send_one(self, place: connection.Place, queue: _Queue, room: int) -> None:
        """Send one batch, and take out of the queue what was acknowledged or refused. Raises what ``FAULTS`` has."""
        batch, taken, size = self._batch(queue, room, self._too_large.get(place, sys.maxsize))
        try:
            end = await self._acknowledge(batch, place, taken, size)
        except delivery.ProduceRefusedError as refusal:
            if refusal.code.scope is kafka_errors.ErrorScope.CONNECTION:
                raise
            self._window.moved()
            if refusal.code.name in _TOO_LARGE:
                self._shrink(place, queue, taken, size)
            if not (refusal.code.name in _TOO_LARGE and taken > 1) and queue.refuse(refusal, taken, place[0]):
                await asyncio.sleep(AGAIN_SECONDS)
        else:
            self._window.moved()
            queue.acknowledge(taken)
            self.acknowledged[place] = end
            if place in self._fitting:
                self._fitting[place] = max(self._fitting[place], size)
            if taken == 1 and size >= self._too_large.get(place, size + 1):
                del self._too_large[place]

    def _shrink(self, place: connection.Place, queue: _Queue, taken: int, size: int) -> None:
        """A batch was too large: because of all together, or of one that is too large alone."""
        before = self._fitting.get(place, self.batch_bytes)
        if taken > 1:
            queue.fitting = queue.fitting or before
            self._fitting[place] = size // 2
            return
        # What was halved to find it says nothing about the others, but those of its size are tried alone from now on
        self._fitting[place] = queue.fitting or before
        self._too_large[place] = min(size, self._too_large.get(place, size))

    def _why(self, topic: str, error: BaseException) -> str:
        if not isinstance(error, TimeoutError):
            return kafka_errors.why(error, self._servers)
        code = self._troubles.codes.get(topic)
        cause = f": topic {topic} answers {code}" if code is not None else ""
        return f"no acknowledgement within {kafka_errors.STALL_SECONDS:g} s{cause}"

    async def _acknowledge(self, batch: Any, place: connection.Place, count: int, size: int) -> int:
        """Send a batch; gives the offset behind its last message."""
        async with self._window.under_way(size):
            sent = await self.producer.send_batch(batch, place[0], partition=place[1])
            try:
                return int((await sent).offset) + count
            except delivery.ProduceRefusedError:
                # The library has counted the messages of a batch that is refused, and the cluster has not: the next
                # one would be out of sequence
                partition = aiokafka.TopicPartition(*place)
                self.producer._txn_manager.increment_sequence_number(partition, -count)
                raise

    def _batch(self, queue: _Queue, room: int, alone: int) -> tuple[Any, int, int]:
        """A batch of the first events, how many these are, and their bytes: at most ``room``, or one event.

        One that has ``alone`` bytes is not sent with others.
        """
        batch, taken, size = self.producer.create_batch(), 0, 0
        append, headers = batch.append, self._headers
        head: Head | None = None
        stamp, traced = 0, False
        for event in queue.next:
            if event.head is not head:
                head, stamp = event.head, codec.milliseconds(event.head.time)
                traced, headers = codec.traceparent(event.value) is not None, self._headers
            if traced:
                headers = [*self._headers, ("traceparent", codec.traceparent(event.value) or b"")]
            length = len(event.value)
            if taken and (size + length > room or length >= alone):
                break
            if length >= alone:
                room = 0
            key = None if event.key is None else event.key.encode(*broker.KEYS)
            if append(timestamp=stamp, key=key, value=event.value, headers=headers) is None:
                break
            size += length
            taken += 1
        batch.close()
        return batch, taken, size


class _Queue:
    """Events for a partition, at most ``most`` of them sent at once, and those that were ``refused``, with ``reasons``.

    ``fitting`` is how large a batch could be before one was found too large.
    """

    def __init__(self, events: Sequence[Event]) -> None:
        self._events, self._done = events, 0
        self.most = len(events)
        self.fitting: int | None = None
        self.refused: list[Event] = []
        self.reasons: list[str] = []
        self._tries = 0
        self._unknown_before = False

    @property
    def left(self) -> Sequence[Event]:
        """Those that were neither acknowledged nor refused."""
        return self._events[self._done :]

    @property
    def next(self) -> Sequence[Event]:
        """Those that may be sent now."""
        return self._events[self._done : self._done + self.most]

    def acknowledge(self, count: int) -> None:
        """The first ones are on the topic."""
        self._done += count
        # What was halved to find an event is not halved again for each of its neighbours
        self.most = min(2 * self.most, len(self._events) - self._done or 1)
        self._tries, self._unknown_before = 0, False

    def refuse(self, refusal: delivery.ProduceRefusedError, count: int, topic: str) -> bool:
        """The first ``count`` were not taken together; gives whether to wait before what is sent next."""
        code = refusal.code
        culprits = [index for index in refusal.culprits if 0 <= index < count]
        if code.scope is kafka_errors.ErrorScope.TOPIC:
            self._drop(range(len(self._events) - self._done), refusal, topic)
        elif code.scope is kafka_errors.ErrorScope.EVENT and culprits:
            self._drop(culprits, refusal, topic)
        elif count > 1:
            self.most = count // 2
        elif code.scope is kafka_errors.ErrorScope.EVENT:
            self._drop(range(1), refusal, topic)
        else:
            return self._repeat(refusal, topic)
        return False

    def _repeat(self, refusal: delivery.ProduceRefusedError, topic: str) -> bool:
        """One event alone was answered a code that nobody knows."""
        self._tries += 1
        if self._tries < kafka_errors.TRIES:
            return True
        # The second in a row: it is not about the event
        self._drop(range(len(self._events) - self._done if self._unknown_before else 1), refusal, topic)
        self._tries, self._unknown_before = 0, True
        return False

    def _drop(self, indices: Iterable[int], refusal: delivery.ProduceRefusedError, topic: str) -> None:
        """Take out events that are refused."""
        gone, left = set(indices), self.left
        dropped = [event for index, event in enumerate(left) if index in gone]
        self._events, self._done = [event for index, event in enumerate(left) if index not in gone], 0
        self.refused += dropped
        self.reasons.append(_reason(topic, refusal.code))
        log_refused(dropped, self.reasons[-1], refusal.text or refusal.code.name)


def _reason(topic: str, code: kafka_errors.ErrorCode) -> str:
    if code.name == "TOPIC_AUTHORIZATION_FAILED":
        return f"topic {topic} may not be written to"
    if code.name in _TOO_LARGE:
        return f"topic {topic} takes no message of that size"
    return f"topic {topic} refuses {'events' if code.scope is kafka_errors.ErrorScope.EVENT else 'its events'}: {code}"


def log_refused(events: Sequence[Event], reason: str, detail: str) -> None:
    """Say that events are lost to their topic: each reason once a minute."""
    # What is in the format is said once a minute
    said = f"events are refused and not on their topic: {reason}".replace("%", "%%")
    first = events[0]
    _refusals.error(f"{said} (%d from %s of %d bytes on; %s)", len(events), first.id, len(first.value), detail)


def _grouped(events: Iterable[Event], partitions: Mapping[str, int]) -> dict[connection.Place, list[Event]]:
    """The events of each partition, in order; what has no key goes where its stream's name leads."""
    groups: dict[connection.Place, list[Event]] = {}
    for head, alike in itertools.groupby(events, operator.attrgetter("head")):
        count = partitions[head.topic]
        if count == 1:
            groups.setdefault((head.topic, 0), []).extend(alike)
            continue
        for event in alike:
            number = _partition(head.stream if event.key is None else event.key, count)
            groups.setdefault((head.topic, number), []).append(event)
    return groups


# The library's hash is plain Python and takes longer than all else that is done with an event; keys come back
@functools.lru_cache(maxsize=10_000)
def _partition(key: str, count: int) -> int:
    """Where every Kafka client puts a key."""
    everyone = list(range(count))
    return int(aiokafka.partitioner.DefaultPartitioner()(key.encode(*broker.KEYS), everyone, everyone))


PIECE = 2_000
READY_SECONDS = 5.0
REPLAY_HEADERS = [*HEADERS, ("replay", b"true")]

Make = Callable[[Mapping[str, int], int], Awaitable[admin.Made]]


def moved(events: Iterable[Event], topic_of: Mapping[str, str] | str) -> Iterator[Event]:
    """The same events on other topics: all on one, or each where its stream leads.

    Raises BrokerError, ``final``, for a stream that leads nowhere.
    """
    for head, group in itertools.groupby(events, lambda event: event.head):
        topic = topic_of if isinstance(topic_of, str) else topic_of.get(head.stream)
        if topic is None:
            raise errors.BrokerError(f"no topic is named for stream {head.stream}", final=True)
        there = head._replace(topic=topic)
        yield from (event._replace(head=there) for event in group)


class ReplayProducer:
    """Has a producer of its own from the first events on. ``make`` creates topics.

    One piece of at most ``PIECE`` events is under way at a time; whoever else sends waits for that one, no longer.
    """

    def __init__(self, reach: connection.Connection, make: Make) -> None:
        self._connection = reach
        self._make = make
        self._partitions: dict[str, int] = {}
        self._sender: Producer | None = None
        self._turn = asyncio.Lock()
        self._closed = False

    async def send(self, events: Sequence[Event], partitions: int, replication: int) -> None:
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

    async def _piece(self, piece: Sequence[Event], partitions: int, replication: int) -> list[errors.BrokerError]:
        if self._closed:
            raise errors.BrokerError("the broker is closed")
        async with kafka_errors.bounded(READY_SECONDS, self._connection.servers):
            through = await self._ready()
            await self._know({event.head.topic for event in piece}, partitions, replication)
        sent = await through.send(piece, self._partitions)
        if sent.unsure:
            raise errors.BrokerError("; ".join(sent.reasons))
        return [errors.BrokerError("; ".join(sent.reasons), len(sent.never))] if sent.never else []

    async def _ready(self) -> Producer:
        if self._sender is None:
            self._sender = Producer(self._connection, REPLAY_HEADERS)
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
            await connection.discard(through.producer)

    async def close(self) -> None:
        """Give everything up; what is under way is not acknowledged."""
        self._closed = True
        await self._discard()
