"""What is on the topics: how they are made, what others read there without our code, and what is none of ours."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import logging
import random
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import aiokafka
import aiokafka.admin
import pytest
from cloudevents.core.bindings import kafka as cloudevents

from regstream import errors, spec
from regstream.broker import kafka
from regstream.event import Event
from scripts import kafka as clusters
from tests.kafka import clusters as needs
from tests.kafka.conftest import MakeCluster
from tests.test_broker import collect, events

LZ4 = 3


@contextlib.asynccontextmanager
async def connected(cluster: clusters.Cluster, **options: Any) -> AsyncIterator[kafka.KafkaBroker]:
    one = kafka.KafkaBroker(kafka.Connection(cluster.bootstrap), **options)
    await one.start()
    try:
        yield one
    finally:
        await one.close()
        await one.abandon()


@contextlib.asynccontextmanager
async def administered(cluster: clusters.Cluster) -> AsyncIterator[Any]:
    admin = aiokafka.admin.AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def make_topic(cluster: clusters.Cluster, name: str, partitions: int = 1, **settings: str) -> None:
    async with administered(cluster) as admin:
        await admin.create_topics([aiokafka.admin.NewTopic(name, partitions, 1, topic_configs=settings)])


async def shape(cluster: clusters.Cluster, topic: str) -> tuple[int, int]:
    """Partitions and replication of a topic."""
    async with administered(cluster) as admin:
        (found,) = await admin.describe_topics([topic])
    return len(found["partitions"]), len(found["partitions"][0]["replicas"])


async def produce(cluster: clusters.Cluster, topic: str, *values: bytes | None, key: bytes | None = b"k") -> None:
    async with aiokafka.AIOKafkaProducer(bootstrap_servers=cluster.bootstrap) as producer:
        for value in values:
            await producer.send_and_wait(topic, value, key)


def sized(event: Event, size: int) -> Event:
    """The event with data that cannot be compressed to less than about ``size`` bytes."""
    noise = random.Random(event.seq).randbytes(size // 2).hex()
    return event._replace(value=event.value.replace(b'"data":{', b'"data":{"noise":"%b",' % noise.encode()))


class TestTopics:
    async def test_a_missing_one_is_made_as_declared(self, shared_cluster: clusters.Cluster) -> None:
        async with connected(shared_cluster) as one:
            await one.declare({"made.five": 5, "made.one": 1})
        assert await shape(shared_cluster, "made.five") == (5, 1)
        assert await shape(shared_cluster, "made.one") == (1, 1)

    async def test_with_its_replication(self, make_cluster: MakeCluster) -> None:
        cluster = make_cluster(brokers=3)
        async with connected(cluster) as one:
            await one.declare({"made": 6}, replication=3)
            await one.publish(events(10, topic="made"))
        assert await shape(cluster, "made") == (6, 3)

    async def test_one_that_exists_is_used_as_it_is_and_the_difference_told_once(
        self, shared_cluster: clusters.Cluster, caplog: pytest.LogCaptureFixture
    ) -> None:
        await make_topic(shared_cluster, "there.before", 2)
        told: set[str] = set()
        for _ in range(2):
            async with connected(shared_cluster, told=told) as one:
                await one.declare({"there.before": 6}, replication=3)
                await one.publish(events(3, topic="there.before"))
                assert len(await collect(one, 3)) == 3
        assert await shape(shared_cluster, "there.before") == (2, 1)
        (said,) = [one for one in caplog.records if one.levelno == logging.WARNING and "there.before" in str(one.args)]
        assert "2 partitions and replication 1" in said.getMessage() and "6 and 3" in said.getMessage()

    async def test_as_declared_says_nothing(
        self, shared_cluster: clusters.Cluster, caplog: pytest.LogCaptureFixture
    ) -> None:
        await make_topic(shared_cluster, "as.declared", 2)
        async with connected(shared_cluster) as one:
            await one.declare({"as.declared": 2})
        assert not [one for one in caplog.records if one.name.startswith("regstream")]

    async def test_with_the_replication_that_can_be_had(
        self, shared_cluster: clusters.Cluster, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with connected(shared_cluster) as one:
            await one.declare({"too.many": 2}, replication=3)
            await one.publish(events(3, topic="too.many"))
        assert await shape(shared_cluster, "too.many") == (2, 1)
        (said,) = [one for one in caplog.records if one.name.startswith("regstream") and "too.many" in str(one.args)]
        assert said.levelno == logging.WARNING
        assert "asks for replication 3" in said.getMessage() and "made with replication 1" in said.getMessage()

    async def test_one_that_cannot_be_made_is_named_with_the_cause_and_refuses_its_events_alone(
        self, shared_cluster: clusters.Cluster
    ) -> None:
        # Kafka takes them for one in its metrics
        await make_topic(shared_cluster, "collides_here")
        async with connected(shared_cluster) as one:
            for _ in range(2):
                with pytest.raises(
                    errors.BrokerError, match=r"collides\.here cannot be created.*collides_here"
                ) as caught:
                    await one.declare({"collides.here": 1, "collides.not": 2}, replication=1)
                assert caught.value.final and caught.value.topics.keys() == {"collides.here"}
            sent, never = events(3, topic="collides.not"), events(2, topic="collides.here")
            with pytest.raises(errors.BrokerError) as caught:
                await one.publish([*never, *sent])
            assert (caught.value.final, caught.value.refused) == (True, tuple(never))
            assert [record.event for record in await collect(one, 3)] == sent
        assert await shape(shared_cluster, "collides.not") == (2, 1)


class TestMessages:
    async def test_value_key_header_and_time(self, shared_cluster: clusters.Cluster) -> None:
        sent = [*events(2, key="SVP-ñ", topic="message"), *events(1, stream="TWO", topic="message")]
        async with connected(shared_cluster) as one:
            await one.declare({"message": 1})
            await one.publish(sent)
        got = await read(shared_cluster, "message", 3)
        assert sorted(one.value for one in got) == sorted(event.value for event in sent)
        assert sorted(str(one.key) for one in got) == sorted(["None", *2 * [str("SVP-ñ".encode())]])
        moment = datetime.datetime.fromisoformat(sent[0].head.time)
        for one in got:
            assert one.headers == (("content-type", b"application/cloudevents+json"),)
            assert (one.timestamp, one.timestamp_type) == (int(moment.timestamp() * 1000), 0)

    async def test_the_cloudevents_package_reads_them(self, shared_cluster: clusters.Cluster) -> None:
        (sent,) = events(1, key="SVP-003", topic="cloudevents")
        async with connected(shared_cluster) as one:
            await one.declare({"cloudevents": 1})
            await one.publish([sent])
        (got,) = await read(shared_cluster, "cloudevents", 1)
        event = cloudevents.from_kafka_event(cloudevents.KafkaMessage(dict(got.headers), got.key, got.value))
        assert (event.get_id(), event.get_subject(), event.get_type()) == ("ONE/E1/1", "ONE", "one")
        assert (event.get_specversion(), event.get_source()) == ("1.0", "/regstream/LATAM/test")
        assert event.get_time() == datetime.datetime.fromisoformat(sent.head.time)
        assert event.get_data() == {"n": 1}
        assert (event.get_extension("epoch"), event.get_extension("seq")) == ("E1", 1)

    async def test_kcat_reads_them(self, request: pytest.FixtureRequest, shared_cluster: clusters.Cluster) -> None:
        needs.need_kcat(request.node.nodeid)
        async with connected(shared_cluster) as one:
            await one.declare({"kcat": 1})
            await one.publish(events(20, key="SVP-003", topic="kcat"))
        command = ["kcat", "-b", shared_cluster.bootstrap, "-C", "-t", "kcat", "-e", "-q", "-J"]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert [json.loads(row["payload"])["seq"] for row in rows] == list(range(1, 21))
        assert {row["key"] for row in rows} == {"SVP-003"}
        assert {tuple(row["headers"]) for row in rows} == {("content-type", "application/cloudevents+json")}

    async def test_what_is_published_together_is_one_batch_idempotent_and_compressed_with_lz4(
        self, shared_cluster: clusters.Cluster
    ) -> None:
        async with connected(shared_cluster) as one:
            await one.declare({"packed": 1})
            await one.publish(events(200, topic="packed"))
        (log,) = shared_cluster.folder.glob("broker-*/data/packed-0/00000000000000000000.log")
        batch = log.read_bytes()
        # Attributes, number of the producer (-1: it is not idempotent), number of the messages
        assert int.from_bytes(batch[21:23]) & 7 == LZ4
        assert int.from_bytes(batch[43:51], signed=True) >= 0
        assert int.from_bytes(batch[57:61]) == 200


class TestLag:
    async def test_is_what_was_not_consumed(self, shared_cluster: clusters.Cluster) -> None:
        async with connected(shared_cluster) as one:
            await one.declare({"lagging": 3})
            assert await one.lag() == 0
            await one.publish([event._replace(key=f"{event.seq}") for event in events(50, topic="lagging")])
            assert await one.lag() == 50
            await collect(one, 50)
            assert await one.lag() == 0


class TestOthers:
    FOREIGN: tuple[bytes | None, ...] = (
        b"\xff\x00garbage",
        b"",
        None,
        b"[]",
        b"7",
        b'"text"',
        b"{}",
        b"[" * 5000,
        b'{"subject":"ONE","epoch":"E1","seq":2}',
        b'{"specversion":"1.0","id":"7","source":"/other","type":"one","data":{}}',
    )

    async def test_what_is_not_ours_is_counted_once_and_passed_over(self, shared_cluster: clusters.Cluster) -> None:
        first, second = events(2, topic="mixed", key="k")
        async with connected(shared_cluster) as one:
            await one.declare({"mixed": 1})
            await one.publish([first])
            await produce(shared_cluster, "mixed", *self.FOREIGN, altered(first, epoch=7), altered(first, seq=True))
            await produce(shared_cluster, "mixed", altered(first, id="X"), altered(first, data=[]))
            await produce(shared_cluster, "mixed", altered(first, priority="URGENT"), first.value, key=b"\xff")
            await one.publish([second])
            got = await collect(one, 2)
            assert [record.event for record in got] == [first, second]
            assert one.foreign == len(self.FOREIGN) + 6
            assert [record.event for record in await one.tail(["mixed"], 100)] == [first, second]
            assert one.foreign == len(self.FOREIGN) + 6


def altered(event: Event, **members: Any) -> bytes:
    return json.dumps({**json.loads(event.value), **members}).encode()


class TestTooLarge:
    @pytest.fixture(autouse=True)
    def fresh(self) -> None:
        """What is said once a minute may be said again."""
        refusals = logging.getLogger("regstream.broker.kafka.sender.refused")
        for one in tuple(refusals.filters):
            refusals.removeFilter(one)

    @pytest.mark.parametrize("position", [0, 7, 19])
    async def test_one_is_refused_alone(
        self, shared_cluster: clusters.Cluster, caplog: pytest.LogCaptureFixture, position: int
    ) -> None:
        topic = f"narrow.{position}"
        await make_topic(shared_cluster, topic, **{"max.message.bytes": "20000"})
        sent = events(20, topic=topic)
        sent[position] = sized(sent[position], 60_000)
        others = [event for event in sent if event is not sent[position]]
        async with connected(shared_cluster) as one:
            await one.declare({topic: 1})
            with pytest.raises(errors.BrokerError) as caught:
                await one.publish(sent)
            assert (caught.value.count, caught.value.final) == (1, True)
            assert caught.value.refused == (sent[position],)
            # The producer goes on, in sequence
            await one.publish(events(5, topic=topic, first=21))
            got = [record.event for record in await collect(one, 24)]
            assert got == [*others, *events(5, topic=topic, first=21)]
            assert (one.status.state, one.status.errors, one.status.produced) == ("live", 1, 24)
        (said,) = [one for one in caplog.records if one.levelno == logging.ERROR]
        assert sent[position].id in said.getMessage()

    async def test_many_small_ones_that_are_too_large_together_are_not_refused(
        self, shared_cluster: clusters.Cluster
    ) -> None:
        await make_topic(shared_cluster, "narrow.together", **{"max.message.bytes": "20000"})
        sent = [sized(event, 3_000) for event in events(40, topic="narrow.together")]
        async with connected(shared_cluster) as one:
            await one.declare({"narrow.together": 1})
            await one.publish(sent)
            assert [record.event for record in await collect(one, 40)] == sent

    async def test_it_is_above_the_size_of_a_batch(self, shared_cluster: clusters.Cluster) -> None:
        sent = [sized(event, 300_000) for event in events(3, topic="wide")]
        async with connected(shared_cluster) as one:
            await one.declare({"wide": 1})
            await one.publish(sent)
            assert [record.event for record in await collect(one, 3)] == sent


async def read(cluster: clusters.Cluster, topic: str, count: int) -> list[Any]:
    consumer = aiokafka.AIOKafkaConsumer(topic, bootstrap_servers=cluster.bootstrap, auto_offset_reset="earliest")
    async with asyncio.timeout(30), consumer:
        return [await consumer.getone() for _ in range(count)]


async def test_no_more_is_sent_at_once_than_the_profile_allows(
    shared_cluster: clusters.Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    append = aiokafka.AIOKafkaProducer.send_batch

    async def counted(producer: Any, batch: Any, topic: str, *, partition: int) -> Any:
        sent.append(batch.record_count())
        return await append(producer, batch, topic, partition=partition)

    monkeypatch.setattr(aiokafka.AIOKafkaProducer, "send_batch", counted)
    small = [sized(event, 1_000) for event in events(20, stream="BATCHES", topic="test.batches")]
    large = sized(events(1, stream="BATCHES", topic="test.batches", first=21)[0], 9_000)
    async with connected(shared_cluster) as one:
        await one.declare({"test.batches": 1}, batch_bytes=4 * len(small[0].value) + 50)
        await one.publish([*small, large])
        assert sent == [4] * 5 + [1]
        sent.clear()
        await one.declare({}, batch_bytes=spec.MAX_BATCH_BYTES)
        await one.publish(small)
        assert sent == [20]
