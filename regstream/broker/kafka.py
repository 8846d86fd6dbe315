"""Apache Kafka as a broker: the one place that knows its client library.

One instance is one connection. It meets ``broker.Broker`` as long as the cluster answers; a connection that is lost is
given up with ``abandon`` and a new instance made, because a producer whose broker is gone holds its batches for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import operator
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any

import aiokafka
import aiokafka.admin
import aiokafka.codec
import aiokafka.conn
import aiokafka.errors
import aiokafka.partitioner
import aiokafka.record.default_records

from regstream import broker, errors, model
from regstream.broker import connection, ending, message, quiet

CONNECT_SECONDS = 3.0
BATCH_BYTES = 512 * 1024
HEADERS = [("content-type", b"application/cloudevents+json")]
FETCH_MS = 200
PIECE = 1_000
_TOPIC_EXISTS = 36
_TOO_LARGE = (aiokafka.errors.MessageSizeTooLargeError, aiokafka.errors.RecordListTooLargeError)
_REFUSED = (
    aiokafka.errors.AuthenticationFailedError,
    aiokafka.errors.SaslAuthenticationFailed,
    aiokafka.errors.UnsupportedSaslMechanismError,
)
_log = logging.getLogger(__name__)
_refusals = logging.getLogger(f"{__name__}.refused")

Place = tuple[str, int]
Connection = connection.Connection
ANSWER_SECONDS = connection.ANSWER_SECONDS


def _compress_fast() -> None:
    """Have lz4 at its fast level.

    The library takes level 9, which is four times the CPU of the rest of a batch for a fifth fewer bytes, and has no
    setting for it. One that no longer looks here would compress as it likes; nothing else would change.
    """
    module = sys.modules[aiokafka.record.default_records.DefaultRecordBatchBuilder.__module__]
    vars(module)["lz4_encode"] = functools.partial(aiokafka.codec.lz4_encode, level=1)


class KafkaBroker:
    """Meets ``broker.Broker`` on a cluster. ``consume`` begins where the topics ended when they were declared.

    ``starts`` are offsets to begin at instead, by topic and partition, for whoever goes on after another instance.
    ``told`` are the topics of which it was said already that they are not as declared.
    """

    def __init__(
        self, reach: Connection, starts: Mapping[Place, int] | None = None, told: set[str] | None = None
    ) -> None:
        self._connection = reach
        self._starts = dict(starts or {})
        self._told = set() if told is None else told
        self._state = "new"
        self._reason = ""
        self._produced = self._consumed = self._errors = self.foreign = 0
        self._producer: Any = None
        self._consumer: Any = None
        self._admin: Any = None
        self._partitions: dict[str, int] = {}
        self._acked: dict[Place, int] = {}
        self.positions: dict[Place, int] = {}
        self._assigned: set[Place] = set()
        self._consuming = False
        self._declaring = asyncio.Lock()
        quiet.begin("aiokafka", logging.WARNING)
        quiet.begin(_refusals.name)
        _compress_fast()

    @property
    def status(self) -> broker.Status:
        """See ``broker.Broker``."""
        return broker.Status("kafka", self._state, False, self._produced, self._consumed, self._errors, self._reason)

    def position(self, stream: str) -> model.Position | None:
        """See ``broker.Broker``: a single connection knows nothing, ``failover`` reads the topics' ends."""
        return None

    def past(self, stream: str) -> list[model.Event]:
        """See ``broker.Broker``: as ``position``."""
        return []

    async def history(self, stream: str, after: model.Position, before: int) -> list[model.Event] | None:
        """See ``broker.Broker``: as ``position``."""
        return None

    async def start(self) -> None:
        """Connect within ``CONNECT_SECONDS``. Raises BrokerError with the cause; nothing stays open then."""
        if self._state != "new":
            raise errors.BrokerError(f"the broker was started before and is {self._state}")
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._connect()
        except (OSError, TimeoutError, aiokafka.errors.KafkaError, ValueError) as error:
            self._state, self._reason = "closed", _why(error, self._connection.servers)
            await self.abandon()
            raise errors.BrokerError(self._reason, final=isinstance(error, _REFUSED)) from error
        self._state = "live"

    async def _connect(self) -> None:
        options = self._connection.options()
        self._producer = aiokafka.AIOKafkaProducer(
            **options, acks="all", enable_idempotence=True, compression_type="lz4", max_batch_size=BATCH_BYTES
        )
        try:
            await self._producer.start()
        except aiokafka.errors.KafkaConnectionError:
            await _explain(options)
            raise
        self._consumer = self._reader()
        await self._consumer.start()
        self._admin = aiokafka.admin.AIOKafkaAdminClient(**options)
        await self._admin.start()

    def _reader(self) -> Any:
        return aiokafka.AIOKafkaConsumer(
            **self._connection.options(), group_id=None, enable_auto_commit=False, auto_offset_reset="earliest",
            fetch_max_wait_ms=FETCH_MS, max_partition_fetch_bytes=4 * 1024 * 1024,
        )  # fmt: skip

    # Topics

    async def declare(
        self, topics: Mapping[str, int], replication: int = 1, streams: Mapping[str, str] | None = None
    ) -> None:
        """See ``broker.Broker``. A topic with another number of partitions is used as it is, with a warning."""
        async with self._declaring:
            new = {name: count for name, count in topics.items() if name not in self._partitions}
            if not new:
                return
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await self._follow(await self._create(new, replication), new)
            except (OSError, TimeoutError, aiokafka.errors.KafkaError) as error:
                raise errors.BrokerError(_why(error, self._connection.servers)) from error

    async def _create(self, topics: Mapping[str, int], replication: int) -> dict[str, int]:
        """Create topics that are missing; gives those that were there, with their number of partitions."""
        described = await self._admin.describe_topics(list(topics))
        there = {one["topic"]: one["partitions"] for one in described if not one["error_code"]}
        found = {name: len(partitions) for name, partitions in there.items()}
        for name, partitions in there.items():
            self._compare(name, (len(partitions), len(partitions[0]["replicas"])), (topics[name], replication))
        missing = [name for name in topics if name not in found]
        if missing:
            wanted = [aiokafka.admin.NewTopic(name, topics[name], replication) for name in missing]
            answer = await self._admin.create_topics(wanted)
            for name, code, *rest in answer.topic_errors:
                if code not in (0, _TOPIC_EXISTS):
                    why = rest[0] if rest and rest[0] else aiokafka.errors.for_code(code).__name__
                    raise errors.BrokerError(f"topic {name} cannot be created: {why}", final=True)
        return found

    def _compare(self, topic: str, have: tuple[int, int], want: tuple[int, int]) -> None:
        if have != want and topic not in self._told:
            self._told.add(topic)
            _log.warning(
                "topic %s has %d partitions and replication %d, the profile asks for %d and %d: it is used as it is",
                *(topic, *have, *want),
            )

    async def _follow(self, found: Mapping[str, int], topics: Mapping[str, int]) -> None:
        counts = {name: found.get(name, count) for name, count in topics.items()}
        ends = await self._ends(found)
        for name, count in counts.items():
            for place in ((name, number) for number in range(count)):
                self.positions[place] = self._starts.get(place, ends.get(place, 0))
        # Known only now: a publisher that sees a topic finds its partitions followed
        self._partitions.update(counts)

    async def _ends(self, topics: Mapping[str, int]) -> dict[Place, int]:
        """Where each partition of existing topics ends."""
        tps = [aiokafka.TopicPartition(name, number) for name, count in topics.items() for number in range(count)]
        if not tps:
            return {}
        async with self._reading(tps) as reader:
            ends = await reader.end_offsets(tps)
        return {(tp.topic, tp.partition): end for tp, end in ends.items()}

    @contextlib.asynccontextmanager
    async def _reading(self, tps: Sequence[Any]) -> AsyncIterator[Any]:
        """A consumer of its own for a look aside; the one that feeds dashboards must not lose its place."""
        reader = self._reader()
        await reader.start()
        try:
            # All at once: asked one by one, the client would look each topic up with a wait of its own
            reader.assign(tps)
            yield reader
        finally:
            await ending.stop(reader)

    # Publishing

    async def publish(self, events: Sequence[model.Event]) -> None:
        """See ``broker.Broker``; returns when the cluster has acknowledged all.

        Raises BrokerError, whose ``refused`` holds the events that were not acknowledged: they may be on the topic or
        not. Events of one partition are refused from the first that failed on.
        """
        if self._state != "live":
            self._errors += len(events)
            raise errors.BrokerError(f"the broker is {self._state}", len(events), tuple(events))
        unknown = {event.head.topic for event in events} - self._partitions.keys()
        if unknown:
            await self.declare(dict.fromkeys(unknown, 1))
        results = await asyncio.gather(*(self._send(place, group) for place, group in self._grouped(events)))
        unsent = tuple(event for one, _ in results for event in one)
        never = tuple(event for _, one in results for event in one)
        self._produced += len(events) - len(unsent) - len(never)
        self._errors += len(unsent) + len(never)
        if unsent:
            raise errors.BrokerError(self._reason, len(unsent), unsent)
        if never:
            raise errors.BrokerError("the topic takes no message of that size", len(never), never, final=True)

    def _grouped(self, events: Iterable[model.Event]) -> Iterable[tuple[Place, list[model.Event]]]:
        """The events of each partition, in order; what has no key goes where its stream's name leads."""
        groups: dict[Place, list[model.Event]] = {}
        for head, alike in itertools.groupby(events, operator.attrgetter("head")):
            count = self._partitions[head.topic]
            if count == 1:
                groups.setdefault((head.topic, 0), []).extend(alike)
                continue
            for event in alike:
                number = _partition(head.stream if event.key is None else event.key, count)
                groups.setdefault((head.topic, number), []).append(event)
        return groups.items()

    async def _send(self, place: Place, events: list[model.Event]) -> tuple[list[model.Event], list[model.Event]]:
        """Send the events of one partition; gives those that were not acknowledged, and those that never can be."""
        done, most = 0, len(events)
        never: list[model.Event] = []
        try:
            while done < len(events):
                batch, taken = self._batch(events[done : done + most])
                try:
                    sent = await self._producer.send_batch(batch, place[0], partition=place[1])
                    metadata = await sent
                except _TOO_LARGE as error:
                    self._take_back(place, taken)
                    # One of them is too large, or all together; the others must not suffer for it
                    most = max(1, taken // 2)
                    if taken == 1:
                        never.append(self._give_up(events[done], error))
                        done, most = done + 1, len(events)
                else:
                    done += taken
                    self._acked[place] = metadata.offset + taken
        except (OSError, aiokafka.errors.KafkaError, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and self._state == "live":
                raise
            self._reason = _why(error, self._connection.servers)
        return events[done:], never

    def _take_back(self, place: Place, count: int) -> None:
        # The library has counted the messages of a batch when it is refused, and the cluster has not: the next one
        # would be out of sequence
        self._producer._txn_manager.increment_sequence_number(aiokafka.TopicPartition(*place), -count)

    def _give_up(self, event: model.Event, error: Exception) -> model.Event:
        _refusals.error(
            "an event is refused and not on its topic: %s of %d bytes, %s: %s",
            *(event.id, len(event.value), event.head.topic, type(error).__name__),
        )
        return event

    def _batch(self, events: list[model.Event]) -> tuple[Any, int]:
        batch, taken = self._producer.create_batch(), 0
        append = batch.append
        head: model.Head | None = None
        stamp = 0
        for event in events:
            if event.head is not head:
                head, stamp = event.head, message.milliseconds(event.head.time)
            key = None if event.key is None else event.key.encode()
            if append(timestamp=stamp, key=key, value=event.value, headers=HEADERS) is None:
                break
            taken += 1
        batch.close()
        return batch, taken

    # Consuming

    async def consume(self) -> AsyncIterator[list[broker.Record]]:
        """See ``broker.Broker``. What is on a topic and is none of our events is counted and passed over."""
        if self._consuming:
            raise errors.BrokerError("the broker has a consumer already")
        self._consuming = True
        try:
            while not self._finished():
                records = await self._fetch()
                if records:
                    self._consumed += len(records)
                    yield records
        finally:
            self._consuming = False

    def _finished(self) -> bool:
        if self._state == "live" or self._consumer is None:
            return self._consumer is None
        return all(self.positions.get(place, 0) >= offset for place, offset in self._acked.items())

    async def _fetch(self) -> list[broker.Record]:
        if self._assigned != set(self.positions):
            self._assign()
        if not self._assigned:
            await asyncio.sleep(0.02)
            return []
        try:
            found = await self._consumer.getmany(timeout_ms=FETCH_MS, max_records=2000)
        except aiokafka.errors.KafkaError as error:
            self._reason = _why(error, self._connection.servers)
            await asyncio.sleep(0.1)
            return []
        records: list[broker.Record] = []
        for tp, messages in found.items():
            self.positions[tp.topic, tp.partition] = messages[-1].offset + 1
            ours = message.ours(messages)
            self.foreign += len(messages) - len(ours)
            records += ours
        return records

    def _assign(self) -> None:
        self._assigned = set(self.positions)
        self._consumer.assign([aiokafka.TopicPartition(*place) for place in self.positions])
        for place, offset in self.positions.items():
            self._consumer.seek(aiokafka.TopicPartition(*place), offset)

    # The past

    async def tail(self, topics: Iterable[str], count: int) -> list[broker.Record]:
        """The last ``count`` records of each partition, as far as they are ours, in order of topic and offset.

        Raises BrokerError when the cluster does not answer.
        """
        return (await self.look_back(topics, count, lambda event: True))[0]

    async def look_back(
        self, topics: Iterable[str], count: int, wanted: Callable[[model.Event], bool]
    ) -> tuple[list[broker.Record], bool]:
        """As ``tail``, but only the events that are ``wanted``; and whether these are all that the topics hold."""
        try:
            async with asyncio.timeout(4 * ANSWER_SECONDS):
                return await self._read_back(list(topics), count, wanted)
        except (OSError, TimeoutError, aiokafka.errors.KafkaError) as error:
            raise errors.BrokerError(_why(error, self._connection.servers)) from error

    async def _read_back(
        self, topics: list[str], count: int, wanted: Callable[[model.Event], bool]
    ) -> tuple[list[broker.Record], bool]:
        counts = {topic: range(self._partitions.get(topic, 0)) for topic in topics}
        tps = [aiokafka.TopicPartition(topic, number) for topic, numbers in counts.items() for number in numbers]
        if not tps:
            return [], True
        found: list[broker.Record] = []
        async with self._reading(tps) as reader:
            ends, begins = await reader.end_offsets(tps), await reader.beginning_offsets(tps)
            for tp in tps:
                reader.seek(tp, max(begins[tp], ends[tp] - count))
            open_ = {tp for tp in tps if ends[tp] > begins[tp]}
            while open_:
                got = await reader.getmany(*open_, timeout_ms=FETCH_MS, max_records=PIECE)
                for messages in got.values():
                    found += [one for one in message.ours(messages) if wanted(one.event)]
                open_ = {tp for tp in open_ if await reader.position(tp) < ends[tp]}
                # There may be much to read, and others have work
                await asyncio.sleep(0)
        whole = all(ends[tp] - count <= begins[tp] for tp in tps)
        return sorted(found, key=lambda record: (record.topic, record.partition, record.offset)), whole

    async def probe(self) -> None:
        """Ask the cluster for something small. Raises BrokerError when no answer comes."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                places = [aiokafka.TopicPartition(*place) for place in list(self.positions)[:1]]
                await (self._consumer.end_offsets(places) if places else self._admin.list_topics())
        except (OSError, TimeoutError, aiokafka.errors.KafkaError) as error:
            raise errors.BrokerError(_why(error, self._connection.servers)) from error

    async def lag(self) -> int:
        """Records on the followed topics that were not consumed yet; 0 when the cluster does not answer."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                tps = [aiokafka.TopicPartition(*place) for place in self.positions]
                ends = await self._consumer.end_offsets(tps) if tps else {}
        except (OSError, TimeoutError, aiokafka.errors.KafkaError):
            return 0
        return sum(max(0, end - self.positions[tp.topic, tp.partition]) for tp, end in ends.items())

    # The end

    async def close(self) -> None:
        """See ``broker.Broker``. Called a second time, or when ``consume`` has ended, nothing stays open."""
        if self._state == "closed":
            await self.abandon()
            return
        self._state = "closed"
        await asyncio.gather(ending.stop(self._producer), ending.stop(self._admin))
        await ending.discard(self._producer)
        self._producer = self._admin = None

    async def abandon(self) -> None:
        """Give everything up at once, acknowledged or not."""
        self._state = "closed"
        producer, clients = self._producer, (self._consumer, self._admin)
        self._producer = self._consumer = self._admin = None
        await asyncio.gather(ending.discard(producer), *(ending.stop(client) for client in clients))


# The library's hash is plain Python and takes longer than all else that is done with an event; keys come back
@functools.lru_cache(maxsize=10_000)
def _partition(key: str, count: int) -> int:
    """Where every Kafka client puts a key."""
    everyone = list(range(count))
    return int(aiokafka.partitioner.DefaultPartitioner()(key.encode(), everyone, everyone))


def _why(error: BaseException, servers: str) -> str:
    if isinstance(error, TimeoutError):
        return f"{servers} does not answer"
    text = str(error) or type(error).__name__
    if isinstance(error, _REFUSED):
        return f"{servers} refuses the credentials: {text}"
    if isinstance(error, OSError):
        return f"{servers} cannot be reached: {error.strerror or text}"
    return f"{servers} cannot be used: {text}"


async def _explain(options: Mapping[str, Any]) -> None:
    """Raise why no server can be reached, which the library only logs; nothing if that cannot be told."""
    security = {name: one for name, one in options.items() if name.startswith(("sasl_", "security_", "ssl_"))}
    cause: Exception | None = None
    for server in options["bootstrap_servers"]:
        host, _, port = server.rpartition(":")
        try:
            (await aiokafka.conn.create_conn(host.strip("[]"), int(port), **security)).close()
        except (OSError, aiokafka.errors.KafkaError) as error:
            cause = error if cause is None or isinstance(error, _REFUSED) else cause
    if cause is not None:
        raise cause
