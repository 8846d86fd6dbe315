"""The broker contract: one suite, run over every form of broker. A new form adds a factory and nothing else."""

import asyncio
import collections
from collections.abc import AsyncIterator, Callable

import pytest

from regstream import broker, errors, spec
from regstream.broker import kafka, simulated
from regstream.event import Event, Head
from regstream.generator import batch as batches
from tests.kafka import clusters

BOUND = 60.0
Make = Callable[..., broker.Broker]

FACTORIES: dict[str, Make] = {"simulated": simulated.SimulatedBroker, "kafka": kafka.KafkaBroker}
# Kafka keeps what was published: each test begins with empty topics, under the same names
TOPICS = ("t.one", "t.two")


def events(
    count: int, key: str | None = None, stream: str = "ONE", topic: str = "t.one", first: int = 1
) -> list[Event]:
    """Events as the engine makes them: whole CloudEvents, because a form may read them back from their bytes."""
    head = Head(stream, "E1", "one", topic, spec.Priority.NORMAL, "2026-11-23T12:00:00.000Z", "LATAM")
    before, between, after = batches.envelope(head, "/regstream/LATAM/test")
    texts = ((seq, b"%d" % seq) for seq in range(first, first + count))
    return [Event(head, seq, key, before + n + between + n + after + b'{"n":%s}}' % n) for seq, n in texts]


async def collect(source: broker.Broker, count: int) -> list[broker.Record]:
    """The next ``count`` records, bounded in time; the consumer is given back afterwards."""
    found: list[broker.Record] = []
    stream = source.consume()
    async with asyncio.timeout(BOUND):
        while len(found) < count:
            batch = await anext(stream)
            assert batch
            found += batch
    await stream.aclose()  # type: ignore[attr-defined]
    return found


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(BOUND):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture(params=list(FACTORIES))
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    """Makes started brokers with small bounds, and closes them."""
    made: list[broker.Broker] = []
    given: tuple[kafka.Connection, ...] = ()
    if request.param == "kafka":
        clusters.need(request.node.nodeid)
        given = (kafka.Connection(request.getfixturevalue("shared_cluster").bootstrap),)
        await clusters.forget(given[0].servers, TOPICS)

    def factory(**options: int) -> broker.Broker:
        made.append(FACTORIES[request.param](*given, **options))
        return made[-1]

    yield factory
    for one in made:
        await one.close()
        # Where a connection was, the second call lets go of what the consumer was left
        await one.close()


@pytest.fixture
async def live(make: Make) -> broker.Broker:
    one = make()
    await one.start()
    await one.declare({"t.one": 4, "t.two": 1})
    return one


class TestContract:
    async def test_bytes_keys_and_heads_come_back_as_they_were(self, live: broker.Broker) -> None:
        sent = [*events(3, key="ñandú"), *events(1, stream="ñ", first=4)]
        await live.publish(sent)
        got = sorted((record.event for record in await collect(live, 4)), key=lambda event: event.seq)
        assert got == sent

    async def test_same_key_same_partition_in_order(self, live: broker.Broker) -> None:
        mixed = [event._replace(key=f"k{event.seq % 13}") for event in events(400)]
        await live.publish(mixed)
        by_key: dict[str | None, list[broker.Record]] = collections.defaultdict(list)
        for record in await collect(live, 400):
            by_key[record.event.key].append(record)
        assert len(by_key) == 13
        for records in by_key.values():
            assert len({record.partition for record in records}) == 1
            assert [record.event.seq for record in records] == sorted(record.event.seq for record in records)
        assert len({record.partition for records in by_key.values() for record in records}) > 1

    async def test_same_key_in_later_batches(self, live: broker.Broker) -> None:
        await live.publish(events(2, key="k"))
        first = await collect(live, 2)
        await live.publish(events(2, key="k", first=3))
        second = await collect(live, 2)
        assert len({record.partition for record in first + second}) == 1
        assert [record.event.seq for record in first + second] == [1, 2, 3, 4]

    async def test_a_stream_without_keys_keeps_its_order(self, live: broker.Broker) -> None:
        await live.publish(events(100))
        records = await collect(live, 100)
        assert [record.event.seq for record in records] == list(range(1, 101))
        assert all(0 <= record.partition < 4 for record in records)

    async def test_offsets_rise_by_one_in_each_partition(self, live: broker.Broker) -> None:
        for first in (1, 101, 201):
            await live.publish([event._replace(key=f"k{event.seq % 31}") for event in events(100, first=first)])
            await live.publish(events(10, topic="t.two", first=first))
        offsets: dict[tuple[str, int], list[int]] = collections.defaultdict(list)
        for record in await collect(live, 330):
            offsets[record.topic, record.partition].append(record.offset)
        for numbers in offsets.values():
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert len(offsets["t.two", 0]) == 30

    async def test_a_key_may_be_any_text(self, live: broker.Broker) -> None:
        sent = [event._replace(key=f"{event.seq % 5}ñ\ud800") for event in events(20)]
        sent += [event._replace(key="\udfff") for event in events(5, topic="t.two")]
        await live.publish(sent)
        got = [record.event for record in await collect(live, 25)]
        assert sorted(got, key=str) == sorted(sent, key=str)

    async def test_topics_are_apart(self, live: broker.Broker) -> None:
        await live.publish(events(5) + events(5, stream="TWO", topic="t.two"))
        records = await collect(live, 10)
        assert {(record.topic, record.event.head.stream) for record in records} == {("t.one", "ONE"), ("t.two", "TWO")}

    async def test_a_topic_that_exists_is_used_as_it_is(self, live: broker.Broker) -> None:
        await live.declare({"t.two": 9})
        await live.publish([event._replace(key=str(event.seq)) for event in events(50, topic="t.two")])
        assert {record.partition for record in await collect(live, 50)} == {0}

    async def test_nothing_published_is_nothing_consumed(self, live: broker.Broker) -> None:
        await live.publish([])
        await live.publish(events(1))
        assert len(await collect(live, 1)) == 1
        assert live.status.produced == live.status.consumed == 1

    async def test_published_before_the_consumer_came(self, live: broker.Broker) -> None:
        await live.publish(events(10))
        await live.publish(events(10, first=11))
        assert [record.event.seq for record in await collect(live, 20)] == list(range(1, 21))

    async def test_two_publishers_are_not_mixed_up(self, make: Make) -> None:
        one = make()
        await one.start()
        left = asyncio.create_task(one.publish(events(60, key="left", stream="LEFT")))
        right = asyncio.create_task(one.publish(events(60, key="right", stream="RIGHT")))
        records = await collect(one, 120)
        await asyncio.wait_for(asyncio.gather(left, right), BOUND)
        for key in ("left", "right"):
            assert [record.event.seq for record in records if record.event.key == key] == list(range(1, 61))

    async def test_publishing_and_consuming_at_once(self, make: Make) -> None:
        one = make()
        await one.start()

        async def publish(key: str) -> None:
            for first in range(1, 501, 25):
                await one.publish(events(25, key=key, first=first))

        publishers = [asyncio.create_task(publish(f"k{number}")) for number in range(4)]
        records = await collect(one, 2000)
        await asyncio.wait_for(asyncio.gather(*publishers), BOUND)
        for number in range(4):
            assert [record.event.seq for record in records if record.event.key == f"k{number}"] == list(range(1, 501))
        assert one.status.produced == one.status.consumed == 2000
        assert one.status.errors == 0

    async def test_close_gives_out_what_was_accepted_and_ends(self, live: broker.Broker) -> None:
        await live.publish(events(700))
        await live.close()
        async with asyncio.timeout(BOUND):
            seqs = [record.event.seq async for batch in live.consume() for record in batch]
        assert seqs == list(range(1, 701))
        assert live.status.state == "closed"

    async def test_close_wakes_a_consumer_that_waits(self, live: broker.Broker) -> None:
        async def drain() -> int:
            return sum([len(batch) async for batch in live.consume()])

        consumer = asyncio.create_task(drain())
        await live.publish(events(3))
        await until(lambda: live.status.consumed == 3)
        await live.close()
        assert await asyncio.wait_for(consumer, BOUND) == 3

    async def test_close_twice(self, live: broker.Broker) -> None:
        await live.close()
        await live.close()

    async def test_publish_after_close_is_refused(self, live: broker.Broker) -> None:
        await live.close()
        with pytest.raises(errors.BrokerError) as caught:
            await live.publish(events(3))
        assert caught.value.count == 3
        assert live.status.errors == 3

    async def test_publish_before_start_is_refused(self, make: Make) -> None:
        with pytest.raises(errors.BrokerError):
            await make().publish(events(1))

    async def test_one_consumer_at_a_time(self, live: broker.Broker) -> None:
        first = asyncio.create_task(anext(live.consume()))
        await asyncio.sleep(0)
        with pytest.raises(errors.BrokerError):
            await anext(live.consume())
        await live.publish(events(1))
        assert len(await asyncio.wait_for(first, BOUND)) == 1

    async def test_status(self, live: broker.Broker) -> None:
        assert live.status.state == "live"
        assert live.status.kind in ("simulated", "kafka")
        assert live.status.simulation is (live.status.kind == "simulated")


class TestSimulated:
    """What only the simulated form promises: its queue is full when nobody consumes."""

    async def test_full_waits_and_loses_nothing(self) -> None:
        one = simulated.SimulatedBroker(limit=10)
        await one.start()
        publisher = asyncio.create_task(one.publish(events(100)))
        await until(lambda: one.status.produced > 0)
        for _ in range(20):
            await asyncio.sleep(0)
        assert not publisher.done()
        assert one.status.produced <= 10
        assert [record.event.seq for record in await collect(one, 100)] == list(range(1, 101))
        await asyncio.wait_for(publisher, BOUND)

    async def test_close_while_a_publisher_waits_says_how_many_were_not_taken(self) -> None:
        one = simulated.SimulatedBroker(limit=10)
        await one.start()
        publisher = asyncio.create_task(one.publish(events(25)))
        await until(lambda: one.status.produced > 0)
        await one.close()
        with pytest.raises(errors.BrokerError) as caught:
            await asyncio.wait_for(publisher, BOUND)
        async with asyncio.timeout(BOUND):
            seqs = [record.event.seq async for batch in one.consume() for record in batch]
        assert seqs == list(range(1, 26 - caught.value.count))

    async def test_a_cancelled_publisher_leaves_a_prefix_and_no_lock(self) -> None:
        one = simulated.SimulatedBroker(limit=10)
        await one.start()
        publisher = asyncio.create_task(one.publish(events(25)))
        await until(lambda: one.status.produced > 0)
        publisher.cancel()
        await asyncio.gather(publisher, return_exceptions=True)
        taken = one.status.produced
        assert [record.event.seq for record in await collect(one, taken)] == list(range(1, taken + 1))
        await asyncio.wait_for(one.publish(events(1, first=99)), BOUND)
        assert (await collect(one, 1))[0].event.seq == 99

    async def test_a_consumer_that_waits_is_woken_in_the_next_turn_of_the_loop(self) -> None:
        one = simulated.SimulatedBroker()
        await one.start()
        consumer = asyncio.create_task(anext(one.consume()))
        await asyncio.sleep(0)
        await one.publish(events(1))
        await asyncio.sleep(0)
        assert consumer.done()

    async def test_partitions_are_the_same_in_every_process(self) -> None:
        one = simulated.SimulatedBroker()
        await one.start()
        await one.declare({"t.one": 6})
        await one.publish([event._replace(key=f"SVP-{event.seq:03}") for event in events(8)])
        assert [record.partition for record in await collect(one, 8)] == [5, 5, 3, 0, 4, 2, 2, 1]

    async def test_batches_are_bounded(self) -> None:
        one = simulated.SimulatedBroker(batch=100)
        await one.start()
        await one.publish(events(250))
        await one.close()
        assert [len(batch) async for batch in one.consume()] == [100, 100, 50]

    async def test_started_once(self) -> None:
        one = simulated.SimulatedBroker(reason="KAFKA_BROKER is not set")
        await one.start()
        with pytest.raises(errors.BrokerError):
            await one.start()
        assert one.status == broker.BrokerStatus("simulated", "live", True, 0, 0, 0, "KAFKA_BROKER is not set")
