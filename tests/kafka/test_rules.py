"""A cluster that does not let everybody do everything: a topic that may not be written to holds nothing else up."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import time
from collections.abc import AsyncIterator
from typing import Any

import aiokafka.admin
import aiokafka.protocol.admin
import pytest

from regstream import errors
from regstream.broker import kafka as kafka_broker
from regstream.broker.kafka import consumer
from regstream.event import Event
from scripts import kafka
from tests import process
from tests.kafka import daemons
from tests.test_broker import collect, events

LOGIN = {
    "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
    "KAFKA_SASL_USERNAME": "alice",
    "KAFKA_SASL_PASSWORD": "alice-secret",
}
TOPIC, LITERAL, ALLOW = 2, 3, 3
READ, WRITE = 3, 4


@pytest.fixture(scope="module")
def ruled(tmp_path_factory: pytest.TempPathFactory) -> Any:
    security = kafka.Security("SASL_PLAINTEXT", rules=True)
    with kafka.Cluster(tmp_path_factory.mktemp("ruled"), security=security) as cluster:
        yield cluster


def within(cluster: kafka.Cluster) -> str:
    """The listener at which everything is allowed."""
    return f"127.0.0.1:{cluster._ports[1]['internal']}"


async def allow(cluster: kafka.Cluster, topic: str, *operations: int) -> None:
    """Let alice do that to a topic; from the first such rule on nobody else may do anything to it."""
    admin = aiokafka.admin.AIOKafkaAdminClient(bootstrap_servers=within(cluster))
    await admin.start()
    try:
        if topic not in await admin.list_topics():
            await admin.create_topics([aiokafka.admin.NewTopic(topic, 2, 1)])
        for operation in operations:
            rule = (TOPIC, topic, LITERAL, "User:alice", "*", operation, ALLOW)
            answer = await admin._send_to_controller(aiokafka.protocol.admin.CreateAclsRequest(*rule))
            assert [code for code, _ in answer.creation_responses] == [0]
    finally:
        await admin.close()


@contextlib.asynccontextmanager
async def connected(cluster: kafka.Cluster) -> AsyncIterator[kafka_broker.KafkaBroker]:
    reach = kafka_broker.Connection(cluster.bootstrap, "SASL_PLAINTEXT", "PLAIN", "alice", "alice-secret")
    one = kafka_broker.KafkaBroker(reach)
    await one.start()
    try:
        yield one
    finally:
        await one.close()
        await one.abandon()


def keyed(count: int, topic: str, first: int = 1) -> list[Event]:
    return [event._replace(key=f"k{event.seq % 7}") for event in events(count, topic=topic, first=first)]


class TestATopicThatMayNotBeWrittenTo:
    async def test_refuses_its_events_alone(self, ruled: kafka.Cluster) -> None:
        await allow(ruled, "rules.read", READ)
        async with connected(ruled) as one:
            await one.declare({"rules.read": 2, "rules.free": 2})
            for turn in range(2):
                sent, never = keyed(20, "rules.free", 20 * turn + 1), keyed(20, "rules.read", 20 * turn + 1)
                with pytest.raises(errors.BrokerError, match=r"topic rules\.read may not be written to") as caught:
                    await one.publish([*sent, *never])
                assert (caught.value.final, caught.value.count) == (True, 20)
                assert sorted(caught.value.refused) == sorted(never)
                assert sorted(record.event for record in await collect(one, 20)) == sorted(sent)
            # Allowed at last, the same producer goes on, in sequence
            await allow(ruled, "rules.read", WRITE)
            await written(one, keyed(20, "rules.read", 41))
            assert {record.event.seq for record in await collect(one, 20)} == set(range(41, 61))

    def test_is_said_on_health_and_stops_nothing_else(self, tmp_path: pathlib.Path, ruled: kafka.Cluster) -> None:
        asyncio.run(allow(ruled, "test.keyed", READ))
        daemon = daemons.start(tmp_path / "d", ruled.bootstrap, **LOGIN)
        said = daemons.until(daemon, "live")
        with daemon.reader("?channel=dashboard-updates") as reader:
            reader.event("KEYED", daemon.burst("KEYED", 50)[1])
            reader.event("RARE", daemon.burst("RARE", 50)[1])
            daemons.check_shown(reader, "KEYED")
            health = daemon.get("/health")
            said = health["kafka"]
            assert (health["status"], said["state"]) == ("degraded", "live")
            assert said["reason"] == "topic test.keyed may not be written to"
            assert daemon.get("/api/streaming/status")["kafka"]["errors"] >= 50
            asyncio.run(allow(ruled, "test.keyed", WRITE))
            process.eventually(lambda: daemons.broker(daemon)["reason"] == "")
            last = daemon.burst("KEYED", 10)[1]
            reader.event("KEYED", last)
            daemons.check_shown(reader, "KEYED")
        assert daemon.stop(seconds=5) == 0
        (complaint, *more) = daemon.complaints
        assert "events are refused and not on their topic" in complaint and not more


class TestATopicThatMayNotBeRead:
    async def test_is_told_by_whoever_reads(self, ruled: kafka.Cluster) -> None:
        await allow(ruled, "rules.write", WRITE)
        async with connected(ruled) as one:
            await one.declare({"rules.write": 2})
            await one.publish(keyed(5, "rules.write"))
            with pytest.raises(errors.BrokerError, match=r"TopicAuthorizationFailed.*rules\.write"):
                await asyncio.wait_for(anext(one.consume()), 20)
            with pytest.raises(errors.BrokerError, match=r"TopicAuthorizationFailed.*rules\.write"):
                await one.tail(["rules.write"], 10)

    async def test_is_left_out_by_the_recorder_until_it_may_be_read(
        self, ruled: kafka.Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(consumer, "DENIED_SECONDS", 0.2)
        monkeypatch.setattr(consumer, "LOOK_SECONDS", 0.1)
        await allow(ruled, "rules.unread", WRITE)
        await allow(ruled, "rules.kept", READ, WRITE)
        async with connected(ruled) as one:
            await one.declare({"rules.unread": 2, "rules.kept": 2})
            reading = consumer.TopicReader(one._connection, {})
            await reading.start()
            try:
                reading.follow(["rules.unread", "rules.kept"])

                async def read(topic: str) -> None:
                    count = 0
                    async with asyncio.timeout(60):
                        while count < 5:
                            records = (await reading.fetch(100, 0.1)).records
                            assert {record.topic for record in records} <= {topic}
                            count += len(records)

                # A rule is not known everywhere at once: what were written before might be read
                async with asyncio.timeout(60):
                    while not reading.denied:
                        assert (await reading.fetch(100, 0.1)).records == []
                await written(one, keyed(5, "rules.unread"))
                await written(one, keyed(5, "rules.kept"))
                await read("rules.kept")
                assert reading.denied == {"rules.unread": "rules.unread may not be read"}
                await allow(ruled, "rules.unread", READ)
                await read("rules.unread")
                async with asyncio.timeout(60):
                    while reading.denied:
                        await reading.fetch(100, 0.1)
            finally:
                await reading.close()
        assert sum("rules.unread is not recorded" in message for message in caplog.messages) >= 1

    def test_is_said_on_health_and_stops_nothing_else(self, tmp_path: pathlib.Path, ruled: kafka.Cluster) -> None:
        asyncio.run(allow(ruled, "test.shared", WRITE))
        daemon = daemons.start(tmp_path / "d", ruled.bootstrap, **LOGIN)
        daemons.until(daemon, "live")
        with daemon.reader("?channel=dashboard-updates") as reader:
            for _ in range(2):
                reader.event("KEYED", daemon.burst("KEYED", 50)[1])
                reader.event("RARE", daemon.burst("RARE", 50)[1])
            daemons.check_shown(reader, "KEYED")
            daemons.check_shown(reader, "RARE")
            health = daemon.get("/health")
            said = health["kafka"]
            assert (health["status"], said["state"]) == ("degraded", "live")
            assert said["reason"].startswith("topic test.shared may not be read")
            assert daemon.get("/api/streaming/status")["kafka"]["errors"] == 0
        daemons.end(daemon)


async def written(one: kafka_broker.KafkaBroker, sent: list[Event]) -> None:
    """Publish as soon as the new rule is known everywhere; nothing of a refused try is on the topic."""
    end = time.monotonic() + 20
    while True:
        try:
            await one.publish(sent)
        except errors.BrokerError as error:
            if time.monotonic() > end or error.count < len(sent):
                raise
        else:
            return
