"""Looking aside: where topics end, and what is behind in them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import aiokafka
import aiokafka.admin
import aiokafka.errors

from regstream import broker, errors, logs
from regstream.broker import codec
from regstream.broker.kafka import connection
from regstream.broker.kafka import errors as kafka_errors
from regstream.event import Event

FETCH_MS = 200
FETCH_BYTES = 256 * 1024
FETCH_SECONDS = 40.0
"""So long may an answer take that has so many bytes: over a slow line it comes in time, if not soon."""
PIECE = 1_000
NEAREST = 50
LOOK_SECONDS = 12.0


class TailReader:
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
            await connection.stop(consumer)

    async def ends(self, topics: Mapping[str, int]) -> dict[connection.Place, int]:
        """Where each partition of topics ends that exist, given with their number of partitions."""
        tps = _partitions(topics)
        if not tps:
            return {}
        async with self._aside(tps) as consumer:
            ends = await consumer.end_offsets(tps)
        return {(tp.topic, tp.partition): end for tp, end in ends.items()}

    async def back(
        self, topics: Mapping[str, int], count: int, wanted: Callable[[Event], bool]
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
    consumer: Any, since: Mapping[Any, int], upto: Mapping[Any, int], wanted: Callable[[Event], bool]
) -> list[broker.Record]:
    """The ``wanted`` ones of the records between two offsets of each partition."""
    found: list[broker.Record] = []
    for tp, offset in since.items():
        consumer.seek(tp, offset)
    open_ = {tp for tp in since if upto[tp] > since[tp]}
    while open_:
        got = await consumer.getmany(*open_, timeout_ms=FETCH_MS, max_records=PIECE)
        for tp, messages in got.items():
            ours = codec.ours(messages)
            found += [one for one in ours if one.offset < upto[tp] and wanted(one.event)]
        open_ = {tp for tp in open_ if await consumer.position(tp) < upto[tp]}
        # There may be much to read, and others have work
        await asyncio.sleep(0)
    return found


def _partitions(topics: Mapping[str, int]) -> list[Any]:
    return [aiokafka.TopicPartition(topic, number) for topic, count in topics.items() for number in range(count)]


CONNECT_SECONDS = 3.0
START_SECONDS = 15.0
OFFSETS_SECONDS = 2.0
AHEAD_BYTES = 512 * 1024
DENIED_SECONDS = 30.0
"""After so long it is tried whether a topic may be read that might not."""
_BEYOND = 2**63 - 1
Place = connection.Place
_log = logging.getLogger("regstream.broker")


class FetchedRecords(NamedTuple):
    """``records`` in the order of each partition, and where each partition that has moved is to be gone on with.

    ``lost`` has the partitions that were not gone on with where they should have been, because that offset is on the
    topic no more; what follows begins at the earliest one. So many offsets were passed over: 0 when the topic was made
    anew, and nobody knows what was on it.
    """

    records: list[broker.Record]
    next: Mapping[Place, int]
    lost: Mapping[Place, int]


class TopicReader:
    """Partitions are read from their offset of ``starts`` on, those that have none from their earliest one.

    One that has failed is closed and a new one made. ``foreign`` counts the messages that are none of our events,
    ``denied`` says of topics why they are not read.
    """

    def __init__(self, reach: connection.Connection, starts: Mapping[Place, int]) -> None:
        self._connection = reach
        self._starts = dict(starts)
        self._topics: set[str] = set()
        self._found: dict[Place, bool] = {}
        self._next: dict[Place, int] = {}
        self._ends: dict[Place, int] = {}
        self._moved: dict[Place, int] = {}
        self._lost: dict[Place, int] = {}
        self._assigned: set[Place] = set()
        self._consumer: Any = None
        self._admin: Any = None
        self._looking: asyncio.Task[None] | None = None
        self._asked = asyncio.Event()
        self._news = asyncio.Event()
        self._again: dict[str, float] = {}
        self.denied: dict[str, str] = {}
        self.foreign = 0
        logs.limit_rate("aiokafka", logging.WARNING)

    @property
    def lag(self) -> int:
        """How many offsets the topics are ahead of what was fetched; what is known of it is ``LOOK_SECONDS`` old."""
        return sum(max(0, end - self._next.get(place, end)) for place, end in self._ends.items())

    # Start and end

    async def start(self) -> None:
        """Connect: a server answers within ``CONNECT_SECONDS``, or that fails, and nothing stays open.

        An instance is started once.

        Raises BrokerError with the cause, LoginError when the credentials are refused.
        """
        try:
            through = await kafka_errors.probe(self._connection, CONNECT_SECONDS)
            async with asyncio.timeout(START_SECONDS):
                await self._connect(through)
        except (*kafka_errors.FAULTS, ValueError) as error:
            await self.close()
            raise kafka_errors.broker_error(error, self._connection.servers) from error
        except BaseException:
            await self.close()
            raise
        self._looking = asyncio.create_task(self._look(), name="broker-log-look")

    async def _connect(self, through: connection.Connection) -> None:
        options = through.options()
        # Over a slow line an answer with so many bytes takes long, and the others on its connection wait behind it;
        # whether the cluster answers at all is seen on the other connection
        patient = {**options, "request_timeout_ms": int(FETCH_SECONDS * 1000)}
        self._consumer = aiokafka.AIOKafkaConsumer(
            **patient, group_id=None, enable_auto_commit=False, auto_offset_reset="none",
            fetch_max_wait_ms=FETCH_MS, fetch_max_bytes=AHEAD_BYTES, max_partition_fetch_bytes=AHEAD_BYTES,
        )  # fmt: skip
        await self._consumer.start()
        self._admin = aiokafka.admin.AIOKafkaAdminClient(**options)
        await self._admin.start()

    async def close(self) -> None:
        """Give everything up, within a few seconds whatever the cluster does; may be called twice."""
        looking, clients = self._looking, (self._consumer, self._admin)
        self._looking = self._consumer = self._admin = None
        if looking is not None:
            looking.cancel()
            done, _ = await asyncio.wait({looking}, timeout=connection.STOP_SECONDS)
            # Why it failed is nobody's concern any more
            await asyncio.gather(*done, return_exceptions=True)
        await asyncio.gather(*(connection.stop(client) for client in clients))

    # Which partitions there are

    def follow(self, topics: Iterable[str]) -> None:
        """Read these topics too. One that does not exist is not made; it is read when somebody has made it."""
        more = set(topics) - self._topics
        if more:
            self._topics |= more
            self._asked.set()

    async def _look(self) -> None:
        """Find what is new, again and again. Raises BrokerError when the cluster does not answer."""
        try:
            while True:
                self._asked.clear()
                async with kafka_errors.bounded(connection.ANSWER_SECONDS, self._connection.servers):
                    # Of all topics: a cluster may make one that is asked for by its name
                    topics = await self._admin.describe_topics(None)
                async with kafka_errors.bounded(FETCH_SECONDS, self._connection.servers):
                    await self._survey(topics)
                self._news.set()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(OFFSETS_SECONDS):
                        await self._asked.wait()
        finally:
            self._news.set()

    async def _survey(self, topics: Iterable[Mapping[str, Any]]) -> None:
        now = asyncio.get_running_loop().time()
        # Those that are no longer waited for have been tried since the last look, and were not denied again
        self.denied = {name: reason for name, reason in self.denied.items() if name in self._again}
        for name in [name for name, again in self._again.items() if again <= now]:
            del self._again[name]
        self._found = {
            (topic["topic"], one["partition"]): one["leader"] >= 0
            for topic in topics
            if topic["topic"] in self._topics and topic["topic"] not in self._again
            for one in topic["partitions"]
        }
        # One that has no leader has no end, and would hold up the others
        led = [aiokafka.TopicPartition(*place) for place in self._next if self._found.get(place)]
        ends = await self._consumer.end_offsets(led) if led else {}
        self._ends.update({(tp.topic, tp.partition): end for tp, end in ends.items()})

    async def _settle(self) -> None:
        """Read the partitions that there are now, and no others."""
        for place in self._next.keys() - self._found.keys():
            following = self._next.pop(place)
            self._ends.pop(place, None)
            if place[0] in self._again:
                # It is gone on with where it was, when it may be read
                self._starts[place] = following
            else:
                # Whatever has its name later is another one
                self._starts[place] = _BEYOND
                self._moved.pop(place, None)
        new = {place for place, is_led in self._found.items() if is_led} - self._next.keys()
        if new or self._assigned != self._next.keys():
            await self._assign(new)

    async def _assign(self, new: set[Place]) -> None:
        tps = {place: aiokafka.TopicPartition(*place) for place in (*self._next, *new)}
        self._assigned = set()
        self._consumer.assign(list(tps.values()))
        for place, tp in tps.items():
            self._consumer.seek(tp, self._next.get(place, 0))
        fresh = [tps[place] for place in new]
        if fresh:
            # Where they begin can be asked only now, with the client knowing of all of them
            self._consumer.pause(*fresh)
            begins, ends = await self._consumer.beginning_offsets(fresh), await self._consumer.end_offsets(fresh)
            for place in new:
                self._begin(place, begins[tps[place]], ends[tps[place]])
                self._consumer.seek(tps[place], self._next[place])
            self._consumer.resume(*fresh)
        self._assigned = set(tps)

    def _begin(self, place: Place, first: int, end: int) -> None:
        start = self._starts.pop(place, None)
        if start is None:
            start = first
        elif not first <= start <= end:
            self._lost[place] = self._lost.get(place, 0) + max(0, first - start)
            start = first
        self._next[place] = self._moved[place] = start
        self._ends[place] = end

    # Reading

    async def fetch(self, limit: int, seconds: float) -> FetchedRecords:
        """At most ``limit`` messages, as soon as there are any; none when none came in that time.

        One that is cancelled has given nothing, and loses nothing. A topic that may not be read is ``denied``, and is
        tried again. Raises BrokerError when the connection is lost, LoginError when the credentials are refused.
        """
        looking = self._looking
        if looking is None:
            raise errors.BrokerError("the log is not open")
        if looking.done():
            self._raise(looking)
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                await self._settle()
            messages = await self._some(limit, seconds)
        except aiokafka.errors.TopicAuthorizationFailedError as error:
            self._deny(kafka_errors.broker_error(error, self._connection.servers).topics)
            messages = {}
        except aiokafka.errors.OffsetOutOfRangeError as error:
            self._astray(error.args[0])
            messages = {}
        except kafka_errors.FAULTS as error:
            raise kafka_errors.broker_error(error, self._connection.servers) from error
        return self._fetched(messages)

    def _deny(self, topics: Iterable[str]) -> None:
        for topic in topics:
            if topic not in self.denied:
                _log.error(
                    "topic %s is not recorded: it may not be read (TopicAuthorizationFailed); allow READ on it", topic
                )
            self.denied[topic] = f"{topic} may not be read"
            self._again[topic] = asyncio.get_running_loop().time() + DENIED_SECONDS
        self._found = {place: is_led for place, is_led in self._found.items() if place[0] not in self._again}

    def _raise(self, looking: asyncio.Task[None]) -> None:
        error = None if looking.cancelled() else looking.exception()
        if isinstance(error, errors.BrokerError):
            raise error
        raise errors.BrokerError(f"the log came to its end: {error!r}") from error

    async def _some(self, limit: int, seconds: float) -> dict[Any, list[Any]]:
        if not self._assigned:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._news.wait()
            return {}
        found: dict[Any, list[Any]] = await self._consumer.getmany(timeout_ms=int(seconds * 1000), max_records=limit)
        # Marks of transactions move it too, and nothing is given for them
        for place in self._assigned if not found else [(tp.topic, tp.partition) for tp in found]:
            offset = await self._consumer.position(aiokafka.TopicPartition(*place))
            if offset != self._next[place]:
                self._next[place] = self._moved[place] = offset
        return found

    def _astray(self, places: Mapping[Any, int]) -> None:
        """An offset that was read up to is not on the topic any more: begin there anew."""
        for tp, offset in places.items():
            place = (tp.topic, tp.partition)
            self._next.pop(place, None)
            self._starts[place] = offset

    def _fetched(self, messages: Mapping[Any, list[Any]]) -> FetchedRecords:
        records: list[broker.Record] = []
        for one in messages.values():
            records += codec.ours(one)
        self.foreign += sum(map(len, messages.values())) - len(records)
        moved, self._moved = self._moved, {}
        lost, self._lost = self._lost, {}
        return FetchedRecords(records, moved, lost)
