"""Topics read from given offsets on, for whoever keeps what is on them and remembers how far that is.

It has a connection of its own, so that neither the dashboards nor it wait for each other. Nothing is read unless it is
asked for: what the library holds ahead is at most ``AHEAD_BYTES`` of a partition, as they are on the wire.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import aiokafka
import aiokafka.admin
import aiokafka.errors

from regstream import broker, errors, quiet
from regstream.broker import message
from regstream.broker.kafka import connection, ending, faults, reader

CONNECT_SECONDS = 3.0
START_SECONDS = 15.0
LOOK_SECONDS = 2.0
AHEAD_BYTES = 512 * 1024
DENIED_SECONDS = 30.0
"""After so long it is tried whether a topic may be read that might not."""
_BEYOND = 2**63 - 1
Place = connection.Place
_log = logging.getLogger("regstream.broker")


class Fetched(NamedTuple):
    """``records`` in the order of each partition, and where each partition that has moved is to be gone on with.

    ``lost`` has the partitions that were not gone on with where they should have been, because that offset is on the
    topic no more; what follows begins at the earliest one. So many offsets were passed over: 0 when the topic was made
    anew, and nobody knows what was on it.
    """

    records: list[broker.Record]
    next: Mapping[Place, int]
    lost: Mapping[Place, int]


class Log:
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
        quiet.begin("aiokafka", logging.WARNING)

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
            through = await faults.knock(self._connection, CONNECT_SECONDS)
            async with asyncio.timeout(START_SECONDS):
                await self._connect(through)
        except (*faults.FAULTS, ValueError) as error:
            await self.close()
            raise faults.broker_error(error, self._connection.servers) from error
        except BaseException:
            await self.close()
            raise
        self._looking = asyncio.create_task(self._look(), name="broker-log-look")

    async def _connect(self, through: connection.Connection) -> None:
        options = through.options()
        # Over a slow line an answer with so many bytes takes long, and the others on its connection wait behind it;
        # whether the cluster answers at all is seen on the other connection
        patient = {**options, "request_timeout_ms": int(reader.FETCH_SECONDS * 1000)}
        self._consumer = aiokafka.AIOKafkaConsumer(
            **patient, group_id=None, enable_auto_commit=False, auto_offset_reset="none",
            fetch_max_wait_ms=reader.FETCH_MS, fetch_max_bytes=AHEAD_BYTES, max_partition_fetch_bytes=AHEAD_BYTES,
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
            done, _ = await asyncio.wait({looking}, timeout=ending.STOP_SECONDS)
            # Why it failed is nobody's concern any more
            await asyncio.gather(*done, return_exceptions=True)
        await asyncio.gather(*(ending.stop(client) for client in clients))

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
                async with faults.bounded(connection.ANSWER_SECONDS, self._connection.servers):
                    # Of all topics: a cluster may make one that is asked for by its name
                    topics = await self._admin.describe_topics(None)
                async with faults.bounded(reader.FETCH_SECONDS, self._connection.servers):
                    await self._survey(topics)
                self._news.set()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
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

    async def fetch(self, limit: int, seconds: float) -> Fetched:
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
            async with asyncio.timeout(reader.FETCH_SECONDS):
                await self._settle()
            messages = await self._some(limit, seconds)
        except aiokafka.errors.TopicAuthorizationFailedError as error:
            self._deny(faults.broker_error(error, self._connection.servers).topics)
            messages = {}
        except aiokafka.errors.OffsetOutOfRangeError as error:
            self._astray(error.args[0])
            messages = {}
        except faults.FAULTS as error:
            raise faults.broker_error(error, self._connection.servers) from error
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

    def _fetched(self, messages: Mapping[Any, list[Any]]) -> Fetched:
        records: list[broker.Record] = []
        for one in messages.values():
            records += message.ours(one)
        self.foreign += sum(map(len, messages.values())) - len(records)
        moved, self._moved = self._moved, {}
        lost, self._lost = self._lost, {}
        return Fetched(records, moved, lost)
