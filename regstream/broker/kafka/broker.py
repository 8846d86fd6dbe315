"""Apache Kafka as a broker: the one place that knows its client library."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any

import aiokafka
import aiokafka.admin
import aiokafka.errors
import aiokafka.protocol.metadata

from regstream import broker, errors, logs, tracing
from regstream.broker import codec
from regstream.broker.kafka import admin, connection, consumer, producer
from regstream.broker.kafka import (
    errors as kafka_errors,
)
from regstream.event import Event

CONNECT_SECONDS = 3.0
"""Until a server has answered."""
START_SECONDS = 15.0
"""Until all is ready once one has: a line over which each answer takes a second is still a line."""
CREATE_SECONDS = 10.0
"""A topic that the cluster refuses to make is asked for again after that."""
Connection = connection.Connection
Place = connection.Place


class KafkaBroker(broker.StatelessBroker):
    """Meets ``broker.Broker`` on a cluster. ``consume`` begins where the topics ended when they were declared.

    ``starts`` are offsets to begin at instead, by topic and partition, for whoever goes on after another instance.
    ``told`` are the topics of which it was said already that they are not as declared.
    """

    def __init__(
        self,
        reach: Connection,
        starts: Mapping[Place, int] | None = None,
        told: set[str] | None = None,
        traces: tracing.Traces = tracing.OFF,
    ) -> None:
        self._connection = reach
        self._starts = dict(starts or {})
        self._told = set() if told is None else told
        self._traces = traces
        self._state = "new"
        self._reason = ""
        self._produced = self._consumed = self._errors = self.foreign = 0
        self._reader = consumer.TailReader(reach)
        self._sender: producer.Producer | None = None
        self._resender = producer.ReplayProducer(reach, self._made)
        self._producer: Any = None
        self._consumer: Any = None
        self._admin: Any = None
        self._partitions: dict[str, int] = {}
        self._refused: dict[str, str] = {}
        self._ask_again = 0.0
        self.positions: dict[Place, int] = {}
        self._forgone: dict[Place, int] = {}
        self._assigned: set[Place] = set()
        self._consuming = False
        self._answering: int | None = None
        self._declaring = asyncio.Lock()
        logs.limit_rate("aiokafka", logging.WARNING)

    @property
    def status(self) -> broker.BrokerStatus:
        """See ``broker.Broker``."""
        return broker.BrokerStatus(
            "kafka", self._state, False, self._produced, self._consumed, self._errors, self._reason
        )

    async def start(self) -> None:
        """Connect: a server answers within ``CONNECT_SECONDS``, or that fails; then nothing stays open.

        Raises BrokerError with the cause, LoginError when the credentials are refused.
        """
        if self._state != "new":
            raise errors.BrokerError(f"the broker was started before and is {self._state}")
        try:
            through = await kafka_errors.probe(self._connection, CONNECT_SECONDS)
            async with asyncio.timeout(START_SECONDS):
                await self._connect(through)
        except (*kafka_errors.FAULTS, ValueError) as error:
            refusal = kafka_errors.broker_error(error, self._connection.servers)
            self._reason = refusal.reason
            await self.abandon()
            raise refusal from error
        self._state = "live"

    async def _connect(self, through: Connection) -> None:
        self._reader = consumer.TailReader(through)
        self._sender = producer.Producer(through)
        self._resender = producer.ReplayProducer(through, self._made)
        self._producer = self._sender.producer
        await self._producer.start()
        self._consumer = self._reader.consumer()
        await self._consumer.start()
        self._admin = aiokafka.admin.AIOKafkaAdminClient(**through.options())
        await self._admin.start()

    # Topics

    async def declare(
        self,
        topics: Mapping[str, int],
        replication: int = 1,
        streams: Mapping[str, str] | None = None,
        batch_bytes: int | None = None,
    ) -> None:
        """See ``broker.Broker``. A topic with another number of partitions is used as it is, with a warning.

        Of the topics that are refused the error says why by topic; the others are there. Those are asked for again
        after ``CREATE_SECONDS`` at the earliest, and until then their events are refused.
        """
        if batch_bytes is not None and self._sender is not None:
            self._sender.batch_bytes = batch_bytes
        async with self._declaring:
            now = asyncio.get_running_loop().time()
            new = {name: count for name, count in topics.items() if name not in self._partitions}
            if now < self._ask_again:
                new = {name: count for name, count in new.items() if name not in self._refused}
            if new:
                async with kafka_errors.bounded(3 * connection.ANSWER_SECONDS, self._connection.servers):
                    made = await self._made(new, replication)
                    await self._follow(made.there, {name: new[name] for name in new.keys() - made.refused.keys()})
                self._refused = {name: why for name, why in self._refused.items() if name not in new} | made.refused
                self._ask_again = now + CREATE_SECONDS if self._refused else 0.0
            refused = {name: self._refused[name] for name in topics if name in self._refused}
        if refused:
            raise errors.BrokerError("; ".join(refused.values()), final=True, topics=refused)

    async def _made(self, new: Mapping[str, int], replication: int) -> admin.Made:
        return await admin.Topics(self._admin, self._told).make(new, replication)

    async def _follow(self, found: Mapping[str, int], topics: Mapping[str, int]) -> None:
        counts = {name: found.get(name, count) for name, count in topics.items()}
        ends = await self._reader.ends(found)
        for name, count in counts.items():
            for place in ((name, number) for number in range(count)):
                self.positions[place] = self._starts.get(place, ends.get(place, 0))
        # Known only now: a publisher that sees a topic finds its partitions followed
        self._partitions.update(counts)

    # Publishing

    async def publish(self, events: Sequence[Event]) -> None:
        """See ``broker.Broker``; returns when the cluster has acknowledged all.

        Raises BrokerError, whose ``refused`` holds the events that were not acknowledged: they may be on the topic or
        not. Events of one partition are refused from the first that failed on.
        """
        if self._state != "live" or self._sender is None:
            self._errors += len(events)
            raise errors.BrokerError(f"the broker is {self._state}", len(events), tuple(events))
        denied = await self._denied(events)
        # OpenTelemetry's semantic conventions for messaging
        said: dict[str, str | int | float] = {
            "messaging.system": "kafka",
            "messaging.operation.type": "send",
            "messaging.batch.message_count": len(events),
        }
        with self._traces.send(said, lambda: _traceparents(events)):
            sent = await self._sender.send(
                [event for event in events if event.head.topic not in denied] if denied else events, self._partitions
            )
        never = (*(event for event in events if event.head.topic in denied), *sent.never) if denied else sent.never
        self._produced += len(events) - len(sent.unsure) - len(never)
        self._errors += len(sent.unsure) + len(never)
        if sent.unsure:
            self._reason = sent.reasons[-1]
            raise errors.BrokerError("; ".join(sent.reasons), len(sent.unsure), sent.unsure)
        if never:
            reasons = "; ".join((*denied.values(), *sent.reasons))
            raise errors.BrokerError(reasons, len(never), never, final=True, topics={**denied, **sent.topics})

    async def _denied(self, events: Sequence[Event]) -> dict[str, str]:
        """Those topics of events that cannot be made, and why."""
        asked = {event.head.topic for event in events} - self._partitions.keys()
        if not asked:
            return {}
        unknown = asked - self._refused.keys()
        if unknown:
            try:
                await self.declare(dict.fromkeys(unknown, 1))
            except errors.BrokerError as error:
                if not error.final:
                    raise
        denied = {topic: self._refused[topic] for topic in asked if topic in self._refused}
        for topic, why in denied.items():
            producer.log_refused([event for event in events if event.head.topic == topic], why, "it is not there")
        return denied

    async def resend(self, events: Sequence[Event], partitions: int, replication: int) -> None:
        """Send events into topics that nobody here declared, and which are not consumed; see ``Resender.send``.

        Raises BrokerError, ``final``, for a topic that was declared: what is sent there is live.
        """
        own = {event.head.topic for event in events} & self._partitions.keys()
        if own:
            raise errors.BrokerError(f"topic {min(own)} is that of a stream", len(events), final=True)
        await self._resender.send(events, partitions, replication)

    # Consuming

    async def consume(self) -> AsyncIterator[list[broker.Record]]:
        """See ``broker.Broker``. What is on a topic and is none of our events is counted and passed over.

        Raises BrokerError when a topic may not be read: ``topics`` has it, and without that one (see ``forgo``) the
        others can be read on.
        """
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
        acknowledged = {} if self._sender is None else self._sender.acknowledged
        read = {**acknowledged, **self._forgone, **self.positions}
        return all(read[place] >= offset for place, offset in acknowledged.items() if place not in self._forgone)

    def forgo(self, topics: Iterable[str]) -> None:
        """Do not read these topics any more: they may not be read, and would keep the others from being read."""
        gone = {place: offset for place, offset in self.positions.items() if place[0] in topics}
        self._forgone.update(gone)
        for place in gone:
            del self.positions[place]

    def regain(self) -> None:
        """Try to read those again, from where they were left."""
        self.positions.update(self._forgone)
        self._forgone.clear()

    async def _fetch(self) -> list[broker.Record]:
        if self._assigned != set(self.positions):
            self._assign()
        if not self._assigned:
            await asyncio.sleep(0.02)
            return []
        try:
            found = await self._consumer.getmany(timeout_ms=consumer.FETCH_MS, max_records=2000)
        except aiokafka.errors.TopicAuthorizationFailedError as error:
            # It does not pass by itself, and what is sent to that topic would never come back
            raise kafka_errors.broker_error(error, self._connection.servers) from error
        except aiokafka.errors.KafkaError as error:
            self._reason = kafka_errors.why(error, self._connection.servers)
            await asyncio.sleep(0.1)
            return []
        records: list[broker.Record] = []
        for tp, messages in found.items():
            self.positions[tp.topic, tp.partition] = messages[-1].offset + 1
            ours = codec.ours(messages)
            self.foreign += len(messages) - len(ours)
            records += ours
        return records

    def _assign(self) -> None:
        self._assigned = set(self.positions)
        self._consumer.assign([aiokafka.TopicPartition(*place) for place in self.positions])
        for place, offset in self.positions.items():
            self._consumer.seek(aiokafka.TopicPartition(*place), offset)

    # Looking

    async def tail(self, topics: Iterable[str], count: int) -> list[broker.Record]:
        """The last ``count`` records of each partition, as far as they are ours, in order of topic and offset.

        Raises BrokerError when the cluster does not answer.
        """
        return (await self.look_back(topics, count, lambda event: True))[0]

    async def look_back(
        self, topics: Iterable[str], count: int, wanted: Callable[[Event], bool]
    ) -> tuple[list[broker.Record], bool]:
        """As ``tail``, but only the events that are ``wanted``; and whether a longer look would find no more."""
        known = {topic: self._partitions.get(topic, 0) for topic in topics}
        async with kafka_errors.bounded(4 * connection.ANSWER_SECONDS, self._connection.servers):
            return await self._reader.back(known, count, wanted)

    async def probe(self) -> None:
        """Ask the cluster for something small. Raises BrokerError when no answer comes.

        Not on the way of the events: there it would wait behind them where the line is slow.
        """
        async with kafka_errors.bounded(CONNECT_SECONDS, self._connection.servers):
            client = self._admin._client
            nodes = sorted(client.cluster.brokers(), key=lambda one: one.nodeId != self._answering)
            for one in nodes:
                try:
                    await client.send(one.nodeId, aiokafka.protocol.metadata.MetadataRequest([]))
                except aiokafka.errors.KafkaError:
                    if one is nodes[-1]:
                        raise
                else:
                    self._answering = one.nodeId
                    return

    async def lag(self) -> int:
        """Records on the followed topics that were not consumed yet; 0 when the cluster does not answer."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                tps = [aiokafka.TopicPartition(*place) for place in self.positions]
                ends = await self._consumer.end_offsets(tps) if tps else {}
        except kafka_errors.FAULTS:
            return 0
        return sum(max(0, end - self.positions[tp.topic, tp.partition]) for tp, end in ends.items())

    # The end

    async def close(self) -> None:
        """See ``broker.Broker``. Called a second time, or when ``consume`` has ended, nothing stays open."""
        if self._state == "closed":
            await self.abandon()
            return
        self._end()
        producer, self._producer = self._producer, None
        admin, self._admin = self._admin, None
        await asyncio.gather(connection.stop(producer), connection.stop(admin), self._resender.close())
        await connection.discard(producer)

    async def abandon(self) -> None:
        """Give everything up at once, acknowledged or not."""
        self._end()
        producer, clients = self._producer, (self._consumer, self._admin)
        self._producer = self._consumer = self._admin = None
        await asyncio.gather(
            connection.discard(producer), self._resender.close(), *(connection.stop(client) for client in clients)
        )

    def _end(self) -> None:
        self._state = "closed"
        if self._sender is not None:
            self._sender.end()


def _traceparents(events: Sequence[Event]) -> list[str]:
    """Each trace that events are part of, once."""
    found = (codec.traceparent(event.value) for event in events)
    return list(dict.fromkeys(one.decode() for one in found if one is not None))
