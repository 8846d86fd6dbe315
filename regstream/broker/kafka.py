"""Apache Kafka as a broker: the one place that knows its client library.

One instance is one connection. It meets ``broker.Broker`` as long as the cluster answers; a connection that is lost is
given up with ``abandon`` and a new instance made, because a producer whose broker is gone holds its batches for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import functools
import itertools
import logging
import operator
import ssl
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import aiokafka
import aiokafka.admin
import aiokafka.codec
import aiokafka.errors
import aiokafka.partitioner
import aiokafka.record.default_records
import orjson

from regstream import broker, errors, model
from regstream.broker import ending, quiet

CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 5.0
ABANDON_SECONDS = 1.0
BATCH_BYTES = 512 * 1024
HEADERS = [("content-type", b"application/cloudevents+json")]
FETCH_MS = 200
_TOPIC_EXISTS = 36
_log = logging.getLogger(__name__)

Place = tuple[str, int]


def _compress_fast() -> None:
    """Have lz4 at its fast level.

    The library takes level 9, which is four times the CPU of the rest of a batch for a fifth fewer bytes, and has no
    setting for it. One that no longer looks here would compress as it likes; nothing else would change.
    """
    module = sys.modules[aiokafka.record.default_records.DefaultRecordBatchBuilder.__module__]
    vars(module)["lz4_encode"] = functools.partial(aiokafka.codec.lz4_encode, level=1)


class Connection(NamedTuple):
    """How to reach a cluster: bootstrap servers, comma separated, and the security settings; empty texts are unset."""

    servers: str
    protocol: str = "PLAINTEXT"
    mechanism: str = "PLAIN"
    username: str = ""
    password: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""

    def options(self) -> dict[str, Any]:
        """The keywords that every client of the library takes. Raises BrokerError for files that cannot be used."""
        made: dict[str, Any] = {
            "bootstrap_servers": [one.strip() for one in self.servers.split(",")],
            "security_protocol": self.protocol,
            "retry_backoff_ms": 250,
            "request_timeout_ms": int(ANSWER_SECONDS * 1000),
        }
        if "SASL" in self.protocol:
            made |= {
                "sasl_mechanism": self.mechanism,
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.password,
            }
        return made | ({"ssl_context": self._tls()} if "SSL" in self.protocol else {})

    def _tls(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
            if self.cert:
                context.load_cert_chain(self.cert, self.key or None)
        except (OSError, ssl.SSLError) as error:
            raise errors.BrokerError(f"the TLS files cannot be used: {error}") from error
        return context


class KafkaBroker:
    """Meets ``broker.Broker`` on a cluster. ``consume`` begins where the topics ended when they were declared.

    ``starts`` are offsets to begin at instead, by topic and partition, for whoever goes on after another instance.
    """

    def __init__(self, connection: Connection, starts: Mapping[Place, int] | None = None) -> None:
        self._connection = connection
        self._starts = dict(starts or {})
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
        quiet.begin("aiokafka")
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
            raise errors.BrokerError(self._reason) from error
        self._state = "live"

    async def _connect(self) -> None:
        options = self._connection.options()
        self._producer = aiokafka.AIOKafkaProducer(
            **options, acks="all", enable_idempotence=True, compression_type="lz4", max_batch_size=BATCH_BYTES
        )
        await self._producer.start()
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

    async def declare(self, topics: Mapping[str, int], replication: int = 1) -> None:
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
        found = {one["topic"]: len(one["partitions"]) for one in described if not one["error_code"]}
        for name, have in found.items():
            if have != topics[name]:
                _log.warning("topic %s has %d partitions, the profile asks for %d", name, have, topics[name])
        missing = [name for name in topics if name not in found]
        if missing:
            wanted = [aiokafka.admin.NewTopic(name, topics[name], replication) for name in missing]
            answer = await self._admin.create_topics(wanted)
            for name, code, *rest in answer.topic_errors:
                if code not in (0, _TOPIC_EXISTS):
                    why = rest[0] if rest and rest[0] else aiokafka.errors.for_code(code).__name__
                    raise errors.BrokerError(f"topic {name} cannot be created: {why}")
        return found

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
            await ending.stop(reader, CONNECT_SECONDS)

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
        refused = tuple(event for one in results for event in one)
        self._produced += len(events) - len(refused)
        if refused:
            self._errors += len(refused)
            raise errors.BrokerError(self._reason, len(refused), refused)

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

    async def _send(self, place: Place, events: list[model.Event]) -> list[model.Event]:
        """Send the events of one partition; gives those that were not acknowledged."""
        done = 0
        try:
            while done < len(events):
                batch, taken = self._batch(events, done)
                sent = await self._producer.send_batch(batch, place[0], partition=place[1])
                metadata = await sent
                done += taken
                self._acked[place] = metadata.offset + taken
        except (OSError, aiokafka.errors.KafkaError, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and self._state == "live":
                raise
            self._reason = _why(error, self._connection.servers)
        return events[done:]

    def _batch(self, events: list[model.Event], done: int) -> tuple[Any, int]:
        batch, taken = self._producer.create_batch(), 0
        append = batch.append
        head: model.Head | None = None
        stamp = 0
        for event in events[done:]:
            if event.head is not head:
                head, stamp = event.head, _milliseconds(event.head.time)
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
        records = []
        for tp, messages in found.items():
            self.positions[tp.topic, tp.partition] = messages[-1].offset + 1
            records += [record for one in messages if (record := self._record(one)) is not None]
        return records

    def _assign(self) -> None:
        self._assigned = set(self.positions)
        self._consumer.assign([aiokafka.TopicPartition(*place) for place in self.positions])
        for place, offset in self.positions.items():
            self._consumer.seek(aiokafka.TopicPartition(*place), offset)

    def _record(self, message: Any) -> broker.Record | None:
        event = read(message.topic, message.key, message.value)
        if event is None:
            self.foreign += 1
            return None
        return broker.Record(event, message.topic, message.partition, message.offset)

    # The past

    async def tail(self, topics: Iterable[str], count: int) -> list[broker.Record]:
        """The last ``count`` records of each partition, as far as they are ours, in order of topic and offset.

        Raises BrokerError when the cluster does not answer.
        """
        try:
            async with asyncio.timeout(4 * ANSWER_SECONDS):
                return await self._read_back(list(topics), count)
        except (OSError, TimeoutError, aiokafka.errors.KafkaError) as error:
            raise errors.BrokerError(_why(error, self._connection.servers)) from error

    async def _read_back(self, topics: list[str], count: int) -> list[broker.Record]:
        counts = {topic: range(self._partitions.get(topic, 0)) for topic in topics}
        tps = [aiokafka.TopicPartition(topic, number) for topic, numbers in counts.items() for number in numbers]
        if not tps:
            return []
        found: list[broker.Record] = []
        async with self._reading(tps) as reader:
            ends, begins = await reader.end_offsets(tps), await reader.beginning_offsets(tps)
            for tp in tps:
                reader.seek(tp, max(begins[tp], ends[tp] - count))
            open_ = {tp for tp in tps if ends[tp] > begins[tp]}
            while open_:
                for messages in (await reader.getmany(*open_, timeout_ms=FETCH_MS)).values():
                    found += [one for message in messages if (one := self._record(message)) is not None]
                open_ = {tp for tp in open_ if await reader.position(tp) < ends[tp]}
        return sorted(found, key=lambda record: (record.topic, record.partition, record.offset))

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
        for client in (self._producer, self._admin):
            await ending.stop(client, CONNECT_SECONDS)
        self._producer = self._admin = None

    async def abandon(self) -> None:
        """Give everything up at once, acknowledged or not."""
        self._state = "closed"
        clients = (self._producer, self._consumer, self._admin)
        self._producer = self._consumer = self._admin = None
        await asyncio.gather(*(ending.abandon(client, ABANDON_SECONDS) for client in clients if client is not None))


def read(topic: str, key: bytes | None, value: bytes | None) -> model.Event | None:
    """One of our events from its bytes, or None when it is anything else."""
    try:
        data = orjson.loads(value or b"")
        head = _head(
            data["subject"], data["epoch"], data["type"], topic, data["priority"], data["time"], data["region"]
        )  # fmt: skip
        seq = data["seq"]
        sound = data["specversion"] == "1.0" and isinstance(seq, int) and seq > 0 and "data" in data
        return model.Event(head, seq, None if key is None else key.decode(), value or b"") if sound else None
    except (ValueError, KeyError, TypeError):
        return None


@functools.lru_cache(maxsize=256)
def _head(stream: str, epoch: str, kind: str, topic: str, priority: str, time: str, region: str) -> model.Head:
    """The events of a batch come one after another, and share what they share. Raises TypeError and ValueError."""
    made = model.Head(stream, epoch, kind, topic, model.Priority(priority), time, region)
    if not all(isinstance(one, str) for one in made):
        raise TypeError("a text is not one")
    return made


# The library's hash is plain Python and takes longer than all else that is done with an event; keys come back
@functools.lru_cache(maxsize=10_000)
def _partition(key: str, count: int) -> int:
    """Where every Kafka client puts a key."""
    everyone = list(range(count))
    return int(aiokafka.partitioner.DefaultPartitioner()(key.encode(), everyone, everyone))


def _milliseconds(time: str) -> int:
    return int(datetime.datetime.fromisoformat(time).timestamp() * 1000)


def _why(error: BaseException, servers: str) -> str:
    if isinstance(error, TimeoutError):
        return f"{servers} does not answer"
    text = str(error) or type(error).__name__
    if isinstance(error, aiokafka.errors.AuthenticationFailedError | aiokafka.errors.UnsupportedSaslMechanismError):
        return f"{servers} refuses the credentials: {text}"
    return f"{servers}: {text}"
