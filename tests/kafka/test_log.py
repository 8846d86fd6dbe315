"""The log that the store's recorder reads: from given offsets on, nothing twice, and what is lost is told."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import aiokafka
import aiokafka.admin
import pytest

from regstream import broker, errors
from regstream.broker import kafka
from regstream.broker.kafka import consumer
from scripts import kafka as clusters_on_disk
from tests.kafka import clusters, daemons
from tests.kafka.conftest import MakeCluster
from tests.test_broker import events

BOUND = 60.0
TOPIC = "log.one"
LATER = "log.later"
Begin = Callable[..., Awaitable[consumer.TopicReader]]


class Admin:
    """What an operator does to topics."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap

    async def _ask(self, question: Callable[[Any], Awaitable[Any]]) -> Any:
        admin = aiokafka.admin.AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        async with asyncio.timeout(BOUND):
            await admin.start()
            try:
                return await question(admin)
            finally:
                await admin.close()

    async def create(self, topic: str = TOPIC, partitions: int = 1) -> None:
        wanted = [aiokafka.admin.NewTopic(topic, partitions, 1)]
        answer = await self._ask(lambda admin: admin.create_topics(wanted))
        assert [code for _, code, *_ in answer.topic_errors] == [0]

    async def grow(self, partitions: int, topic: str = TOPIC) -> None:
        await self._ask(lambda admin: admin.create_partitions({topic: aiokafka.admin.NewPartitions(partitions)}))

    async def cut(self, before: int, topic: str = TOPIC) -> None:
        """As retention does."""
        records = {aiokafka.TopicPartition(topic, 0): aiokafka.admin.RecordsToDelete(before)}
        assert (await self._ask(lambda admin: admin.delete_records(records))) == {
            aiokafka.TopicPartition(topic, 0): before
        }

    async def topics(self) -> list[str]:
        found: list[str] = await self._ask(lambda admin: admin.list_topics())
        return found

    async def put(self, first: int, last: int, partition: int = 0, topic: str = TOPIC, **options: Any) -> None:
        """Events with these numbers."""
        made = [event.value for event in events(last - first + 1, topic=topic, first=first)]
        await self.put_values(made, partition, topic, **options)

    async def put_values(self, values: list[bytes], partition: int = 0, topic: str = TOPIC, **options: Any) -> None:
        producer = aiokafka.AIOKafkaProducer(bootstrap_servers=self.bootstrap, **options)
        async with asyncio.timeout(BOUND), producer:
            if "transactional_id" not in options:
                for sent in [await producer.send(topic, value, partition=partition) for value in values]:
                    await sent
                return
            async with producer.transaction():
                for value in values:
                    await producer.send_and_wait(topic, value, partition=partition)


class Taken:
    """What a log gave: the numbers in each partition, and what is to be remembered."""

    def __init__(self) -> None:
        self.records: list[broker.Record] = []
        self.next: dict[consumer.Place, int] = {}
        self.lost: dict[consumer.Place, int] = {}

    def take(self, fetched: consumer.FetchedRecords) -> None:
        self.records += fetched.records
        self.next.update(fetched.next)
        self.lost.update(fetched.lost)
        for record in fetched.records:
            # Whoever stores both in one transaction goes on behind these
            assert fetched.next[record.topic, record.partition] > record.offset

    def seqs(self, partition: int = 0, topic: str = TOPIC) -> list[int]:
        return [one.event.seq for one in self.records if (one.topic, one.partition) == (topic, partition)]

    async def until(self, one: consumer.TopicReader, condition: Callable[[], Any], limit: int = 500) -> None:
        async with asyncio.timeout(BOUND):
            while not condition():
                self.take(await one.fetch(limit, 0.2))


def numbers(last: int, first: int = 1) -> list[int]:
    return list(range(first, last + 1))


@pytest.fixture
async def admin(shared_cluster: clusters_on_disk.Cluster) -> Admin:
    await clusters.forget(shared_cluster.bootstrap, (TOPIC, LATER))
    return Admin(shared_cluster.bootstrap)


@pytest.fixture
async def begin(shared_cluster: clusters_on_disk.Cluster) -> AsyncIterator[Begin]:
    made: list[consumer.TopicReader] = []

    async def make(
        starts: Mapping[consumer.Place, int] | None = None, *topics: str, servers: str = shared_cluster.bootstrap
    ) -> consumer.TopicReader:
        made.append(consumer.TopicReader(kafka.Connection(servers), starts or {}))
        await made[-1].start()
        made[-1].follow(topics or (TOPIC,))
        return made[-1]

    yield make
    for one in made:
        await one.close()


class TestItReads:
    async def test_from_the_earliest_offset_and_from_what_was_remembered(self, admin: Admin, begin: Begin) -> None:
        await admin.create(partitions=2)
        await admin.put(1, 700)
        await admin.put(701, 800, partition=1)
        first, taken = await begin(), Taken()
        taken.take(await first.fetch(10, 5.0))
        await taken.until(first, lambda: len(taken.records) >= 100, limit=50)
        await first.close()
        again = await begin(taken.next)
        await admin.put(801, 810)
        await taken.until(again, lambda: len(taken.records) >= 810)
        assert taken.seqs() == [*numbers(700), *numbers(810, 801)]
        assert taken.seqs(1) == numbers(800, 701)
        assert [record.offset for record in taken.records if record.partition == 0] == list(range(710))
        assert (taken.next, taken.lost) == ({(TOPIC, 0): 710, (TOPIC, 1): 100}, {})
        assert again.foreign == 0

    async def test_no_more_than_asked_for_and_nothing_when_there_is_nothing(self, admin: Admin, begin: Begin) -> None:
        await admin.create()
        await admin.put(1, 30)
        one, taken = await begin(), Taken()
        while len(taken.records) < 30:
            got = await one.fetch(7, 0.2)
            assert len(got.records) <= 7
            taken.take(got)
        assert taken.seqs() == numbers(30)
        assert await one.fetch(7, 0.1) == ([], {}, {})

    async def test_a_fetch_that_is_cancelled_loses_nothing(self, admin: Admin, begin: Begin) -> None:
        await admin.create()
        one, taken = await begin(), Taken()
        writing = asyncio.create_task(admin.put(1, 3000, max_batch_size=4096))
        for number in itertools.count():
            fetching = asyncio.create_task(one.fetch(20, 5.0))
            # At every stage of it
            for _ in range(number % 23):
                await asyncio.sleep(0)
            fetching.cancel()
            for fetched in await asyncio.gather(fetching, return_exceptions=True):
                if isinstance(fetched, consumer.FetchedRecords):
                    taken.take(fetched)
            await asyncio.sleep(0.001)
            if number >= 300 and writing.done():
                break
        await writing
        await taken.until(one, lambda: len(taken.records) >= 3000)
        assert taken.seqs() == numbers(3000)

    async def test_a_topic_that_is_made_later_and_does_not_make_it(self, admin: Admin, begin: Begin) -> None:
        await admin.create()
        one, taken = await begin({}, TOPIC, LATER), Taken()
        await admin.put(1, 5)
        await taken.until(one, lambda: len(taken.records) == 5)
        await asyncio.sleep(2 * consumer.OFFSETS_SECONDS)
        assert LATER not in await admin.topics()
        await admin.create(LATER)
        await admin.put(1, 5, topic=LATER)
        await taken.until(one, lambda: len(taken.records) == 10)
        assert taken.seqs(topic=LATER) == taken.seqs() == numbers(5)

    async def test_topics_that_are_added_while_it_reads(self, admin: Admin, begin: Begin) -> None:
        await admin.create()
        await admin.create(LATER)
        await admin.put(1, 5)
        await admin.put(1, 5, topic=LATER)
        one, taken = await begin({(LATER, 0): 3}), Taken()
        await taken.until(one, lambda: len(taken.records) == 5)
        one.follow([TOPIC, LATER])
        await taken.until(one, lambda: len(taken.records) == 7)
        assert (taken.seqs(topic=LATER), taken.seqs()) == ([4, 5], numbers(5))

    async def test_partitions_that_are_added_while_it_reads(self, admin: Admin, begin: Begin) -> None:
        await admin.create()
        await admin.put(1, 5)
        one, taken = await begin(), Taken()
        await taken.until(one, lambda: len(taken.records) == 5)
        await admin.grow(3)
        await admin.put(6, 10, partition=2)
        await admin.put(11, 15)
        await taken.until(one, lambda: len(taken.records) == 15)
        assert (taken.seqs(), taken.seqs(2)) == ([*numbers(5), *numbers(15, 11)], numbers(10, 6))
        assert taken.next == {(TOPIC, 0): 10, (TOPIC, 1): 0, (TOPIC, 2): 5}

    async def test_over_what_is_none_of_ours(self, admin: Admin, begin: Begin) -> None:
        await admin.create()
        await admin.put_values([b"", b"no json", b"{}"])
        await admin.put(1, 3, transactional_id="log-test")
        await admin.put_values([b"[]"])
        one, taken = await begin(), Taken()
        # Three, three, the mark of the transaction, and one
        await taken.until(one, lambda: taken.next.get((TOPIC, 0)) == 8)
        assert (taken.seqs(), one.foreign, taken.lost) == (numbers(3), 4, {})

    async def test_up_to_a_mark_that_nothing_follows(self, admin: Admin, begin: Begin) -> None:
        await admin.create()
        await admin.put(1, 3, transactional_id="log-test")
        one, taken = await begin({(TOPIC, 0): 3}), Taken()
        await taken.until(one, lambda: taken.next.get((TOPIC, 0)) == 4)
        await taken.until(one, lambda: one.lag == 0)
        assert taken.records == []

    async def test_and_says_how_much_is_left(self, admin: Admin, begin: Begin) -> None:
        await admin.create(partitions=2)
        await admin.put(1, 40)
        await admin.put(41, 50, partition=1)
        one, taken = await begin(), Taken()
        assert one.lag == 0
        await taken.until(one, lambda: len(taken.records) >= 20, limit=20)
        assert one.lag == 30
        await taken.until(one, lambda: len(taken.records) == 50)
        assert one.lag == 0
        await admin.put(51, 60)
        async with asyncio.timeout(BOUND):
            while one.lag != 10:
                await asyncio.sleep(0.05)

    async def test_nothing_ahead_without_bound(self, admin: Admin, begin: Begin) -> None:
        await admin.create()
        await admin.put_values([os.urandom(10_000) for _ in range(1000)])
        one, taken = await begin(), Taken()
        await taken.until(one, lambda: one.foreign, limit=10)
        await asyncio.sleep(3.0)
        asked = one.foreign
        # What it gives of what is gone is what it held
        await admin.cut(before=1000)
        await taken.until(one, lambda: taken.lost)
        assert one.foreign - asked <= consumer.AHEAD_BYTES / 10_000 + 2
        assert taken.lost == {(TOPIC, 0): 1000 - one.foreign}


class TestItTells:
    async def test_what_retention_took_before_it_began(self, admin: Admin, begin: Begin) -> None:
        await admin.create()
        await admin.put(1, 100)
        await admin.cut(before=60)
        one, taken = await begin({(TOPIC, 0): 20}), Taken()
        await taken.until(one, lambda: len(taken.records) == 40)
        assert (taken.seqs(), taken.lost) == (numbers(100, 61), {(TOPIC, 0): 40})

    async def test_nothing_of_what_retention_took_that_was_never_to_be_read(self, admin: Admin, begin: Begin) -> None:
        await admin.create()
        await admin.put(1, 100)
        await admin.cut(before=60)
        for starts in ({}, {(TOPIC, 0): 60}):
            one, taken = await begin(starts), Taken()
            await taken.until(one, lambda taken=taken: len(taken.records) == 40)  # type: ignore[misc]
            assert (taken.seqs(), taken.lost) == (numbers(100, 61), {})

    async def test_what_retention_took_while_it_read(self, admin: Admin, begin: Begin) -> None:
        await admin.create()
        one, taken = await begin(), Taken()
        # More than the library holds ahead
        noise = [b"x" * 900] * 1000
        await admin.put(1, 10)
        await taken.until(one, lambda: len(taken.records) == 10)
        await admin.put_values(noise)
        await admin.put_values(noise)
        await admin.cut(before=2010)
        await admin.put(11, 20)
        await taken.until(one, lambda: len(taken.records) == 20)
        assert taken.seqs() == numbers(20)
        assert taken.lost == {(TOPIC, 0): 2000 - one.foreign} and one.foreign < 2000
        assert taken.next == {(TOPIC, 0): 2020}

    async def test_that_a_topic_was_made_anew_before_it_began(self, admin: Admin, begin: Begin) -> None:
        await admin.create()
        await admin.put(1, 10)
        one, taken = await begin({(TOPIC, 0): 500}), Taken()
        await taken.until(one, lambda: len(taken.records) == 10)
        assert (taken.seqs(), taken.lost, taken.next) == (numbers(10), {(TOPIC, 0): 0}, {(TOPIC, 0): 10})

    @pytest.mark.parametrize("more", [5, 50])
    async def test_that_a_topic_was_made_anew_while_it_read(self, admin: Admin, begin: Begin, more: int) -> None:
        await admin.create()
        await admin.put(1, 10)
        one, taken = await begin(), Taken()
        await taken.until(one, lambda: len(taken.records) == 10)
        await clusters.forget(admin.bootstrap, (TOPIC,))
        # As long as it takes to be noticed: grown beyond where it was it looks as before
        await taken.until(one, lambda: not one._found)
        await admin.create()
        await admin.put(101, 100 + more)
        await taken.until(one, lambda: len(taken.records) == 10 + more)
        assert (taken.seqs()[10:], taken.lost) == (numbers(100 + more, 101), {(TOPIC, 0): 0})
        assert taken.next == {(TOPIC, 0): more}


class TestAConnection:
    async def test_that_was_never_made_or_has_ended(self, begin: Begin) -> None:
        one = consumer.TopicReader(kafka.Connection("127.0.0.1:1"), {})
        with pytest.raises(errors.BrokerError, match="not open"):
            await one.fetch(10, 0.1)
        with pytest.raises(errors.BrokerError, match=r"127\.0\.0\.1:1 cannot be reached"):
            await one.start()
        other = await begin()
        await other.close()
        await other.close()
        with pytest.raises(errors.BrokerError, match="not open"):
            await other.fetch(10, 0.1)

    async def test_to_who_is_silent_is_given_up(self) -> None:
        with daemons.silent() as address:
            one = consumer.TopicReader(kafka.Connection(address), {})
            began = time.monotonic()
            with pytest.raises(errors.BrokerError, match="does not answer"):
                await one.start()
            assert time.monotonic() - began < 15

    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
    async def test_that_is_lost_is_told_and_the_next_goes_on(
        self, make_cluster: MakeCluster, begin: Begin, how: signal.Signals
    ) -> None:
        cluster = await asyncio.to_thread(make_cluster)
        admin, taken = Admin(cluster.bootstrap), Taken()
        await admin.create(partitions=2)
        for seq in range(1, 3001, 500):
            await admin.put(seq, seq + 499, partition=seq // 500 % 2)
        one = await begin(servers=cluster.bootstrap)
        await taken.until(one, lambda: len(taken.records) >= 300, limit=100)
        pid = cluster.pid(1)
        assert pid is not None
        os.kill(pid, how)
        with pytest.raises(errors.BrokerError, match=cluster.bootstrap):
            await taken.until(one, lambda: False, limit=10)
        began = time.monotonic()
        await one.close()
        assert time.monotonic() - began < 10
        await asyncio.to_thread(_back, cluster, pid, how)
        again = await begin(taken.next, servers=cluster.bootstrap)
        await taken.until(again, lambda: len(taken.records) >= 3000)
        assert sorted(taken.seqs() + taken.seqs(1)) == numbers(3000)
        assert taken.lost == {}

    async def test_leaves_no_task(self, admin: Admin, begin: Begin) -> None:
        before = asyncio.all_tasks()
        await admin.create()
        one = await begin()
        await one.fetch(10, 0.1)
        await one.close()
        async with asyncio.timeout(BOUND):
            while asyncio.all_tasks() - before:
                await asyncio.sleep(0.01)


def _back(cluster: clusters_on_disk.Cluster, pid: int, how: signal.Signals) -> None:
    if how == signal.SIGSTOP:
        os.kill(pid, signal.SIGCONT)
    else:
        cluster.restart(1)
