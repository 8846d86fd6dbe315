"""What the failover makes of a cluster that goes away and comes back, on a cluster of lists: each fault it once had."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import pytest

from regstream import broker, errors
from regstream.broker import backoff, failover, kafka, resequencer, spool
from regstream.event import Event, Position
from tests.test_broker import events

BOUND = 60.0
TOPIC = "t.one"


class Cluster:
    """Topics as lists of events. ``reaches`` says for how many partitions of a send it stays up, None: for all."""

    def __init__(self) -> None:
        self.up = True
        self.reaches: int | None = None
        self.deaf: set[int] = set()
        self.logs: dict[str, list[list[Event]]] = {}

    def seqs(self, topic: str = TOPIC) -> list[int]:
        return sorted(event.seq for log in self.logs.get(topic, ()) for event in log)


class Connection:
    """What ``failover`` uses of ``kafka.KafkaBroker``."""

    def __init__(self, cluster: Cluster, starts: Mapping[kafka.Place, int]) -> None:
        self._cluster, self._starts = cluster, dict(starts)
        self.positions: dict[kafka.Place, int] = {}
        self.foreign = 0

    def _check(self) -> None:
        if not self._cluster.up:
            raise errors.BrokerError("nobody answers") from OSError()

    async def start(self) -> None:
        self._check()

    async def declare(self, topics: Mapping[str, int], replication: int = 1, batch_bytes: int | None = None) -> None:
        self._check()
        for name, count in topics.items():
            log = self._cluster.logs.setdefault(name, [[] for _ in range(count)])
            for number, one in enumerate(log):
                self.positions.setdefault((name, number), self._starts.get((name, number), len(one)))

    async def publish(self, sent: Sequence[Event]) -> None:
        for count, event in enumerate(sent):
            if self._cluster.reaches is not None and count >= self._cluster.reaches:
                self._cluster.up = False
            self._check()
            log = self._cluster.logs[event.head.topic]
            log[event.seq % len(log)].append(event)

    async def consume(self) -> AsyncIterator[list[broker.Record]]:
        while True:
            await asyncio.sleep(0.001)
            for (topic, number), offset in list(self.positions.items()):
                found = self._cluster.logs[topic][number][offset:] if self._cluster.up else []
                if found and number not in self._cluster.deaf:
                    self.positions[topic, number] = offset + len(found)
                    yield [broker.Record(event, topic, number, 0) for event in found]

    async def tail(self, topics: Iterable[str], count: int) -> list[broker.Record]:
        self._check()
        logs = [(topic, n, log) for topic in topics for n, log in enumerate(self._cluster.logs.get(topic, ()))]
        return [broker.Record(event, topic, number, 0) for topic, number, log in logs for event in log[-count:]]

    async def probe(self) -> None:
        self._check()

    async def lag(self) -> int:
        return 0

    async def look_back(
        self, topics: Iterable[str], count: int, wanted: Callable[[Event], bool]
    ) -> tuple[list[broker.Record], bool]:
        return [one for one in await self.tail(topics, count) if wanted(one.event)], True

    async def abandon(self) -> None:
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failover, "PROBE_SECONDS", 0.02)
    monkeypatch.setattr(backoff, "SOON", 0.02)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


class Life:
    """One life of a daemon's broker, and what it showed."""

    def __init__(self, cluster: Cluster, folder: pathlib.Path) -> None:
        self.spool = spool.Spool(folder)
        self.changes: list[str] = []
        self.shown: list[int] = []
        connect = cast("failover.Connect", lambda starts: Connection(cluster, starts))
        clock = asyncio.get_running_loop().time
        self.broker = failover.FailoverBroker(connect, self.spool, clock, lambda _, to, why: self.changes.append(to))

    async def start(self, partitions: int | None = 3) -> None:
        await self.broker.start()
        self._pump = asyncio.create_task(self._show())
        if partitions:
            await self.broker.declare({TOPIC: partitions})

    async def _show(self) -> None:
        async for records in self.broker.consume():
            self.shown += [record.event.seq for record in records]

    async def die(self) -> None:
        """As with SIGKILL: nothing is flushed, nothing is said; the folder is free for the next one."""
        assert self.broker._supervisor is not None
        tasks = {self.broker._supervisor, self._pump}
        # A task group that is already ending for an error forgets a cancellation that comes meanwhile (CPython < 3.13)
        while tasks:
            for task in tasks:
                task.cancel()
            _, tasks = await asyncio.wait(tasks, timeout=0.1)
        self.spool._folder.close()


@pytest.fixture
async def begin(cluster: Cluster, tmp_path: pathlib.Path) -> AsyncIterator[Callable[[], Life]]:
    made: list[Life] = []

    def make() -> Life:
        made.append(Life(cluster, tmp_path / "spool"))
        return made[-1]

    yield make
    await made[-1].broker.close()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(BOUND):
        while not condition():
            await asyncio.sleep(0.002)


def numbers(last: int, first: int = 1) -> list[int]:
    return list(range(first, last + 1))


class TestAnOutage:
    async def test_loses_nothing_and_shows_nothing_twice(self, cluster: Cluster, begin: Callable[[], Life]) -> None:
        life = begin()
        await life.start()
        await until(lambda: life.broker.status.state == "live")
        await life.broker.publish(events(10, topic=TOPIC))
        cluster.up = False
        await life.broker.publish(events(10, topic=TOPIC, first=11))
        await until(lambda: life.broker.status.state == "fallback")
        await life.broker.publish(events(10, topic=TOPIC, first=21))
        await until(lambda: len(life.shown) == 30)
        cluster.up = True
        await until(lambda: life.broker.status.state == "live")
        await life.broker.publish(events(10, topic=TOPIC, first=31))
        await until(lambda: len(life.shown) == 40)
        assert life.shown == numbers(40)
        assert cluster.seqs() == numbers(40)
        assert life.broker.status.skipped == 0

    async def test_is_outlived_whatever_it_raises(
        self, cluster: Cluster, begin: Callable[[], Life], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def confused(self: Connection, sent: Sequence[Event]) -> None:
            monkeypatch.undo()
            raise RuntimeError("what now")

        life = begin()
        await life.start()
        await until(lambda: life.broker.status.state == "live")
        monkeypatch.setattr(Connection, "publish", confused)
        await life.broker.publish(events(10, topic=TOPIC))
        await until(lambda: cluster.seqs() == numbers(10))
        assert "fallback" in life.changes
        await until(lambda: life.shown == numbers(10))

    async def test_a_send_that_was_in_doubt_is_not_repeated(self, cluster: Cluster, begin: Callable[[], Life]) -> None:
        life = begin()
        await life.start()
        await until(lambda: life.broker.status.state == "live")
        cluster.reaches = 7
        await life.broker.publish(events(10, topic=TOPIC))
        await until(lambda: life.broker.status.state == "fallback")
        cluster.reaches, cluster.up = None, True
        await until(lambda: life.broker.status.state == "live")
        assert cluster.seqs() == numbers(10)

    async def test_of_one_partition_makes_no_gap(self, cluster: Cluster, begin: Callable[[], Life]) -> None:
        life = begin()
        await life.start()
        await until(lambda: life.broker.status.state == "live")
        cluster.deaf = {1}
        await life.broker.publish(events(10, topic=TOPIC))
        await until(lambda: life.shown == numbers(10))
        cluster.deaf = set()
        await life.broker.publish(events(10, topic=TOPIC, first=11))
        await until(lambda: len(life.shown) >= 20)
        assert life.shown == numbers(20)
        assert life.broker.status.skipped == 0

    async def test_while_topics_are_declared_does_not_stop_the_start(
        self, cluster: Cluster, begin: Callable[[], Life]
    ) -> None:
        life = begin()
        await life.start(partitions=None)
        cluster.up = False
        await life.broker.declare({TOPIC: 3})
        await life.broker.publish(events(3, topic=TOPIC))
        cluster.up = True
        await until(lambda: cluster.seqs() == numbers(3))
        assert len(cluster.logs[TOPIC]) == 3


class TestTheNextDaemon:
    async def test_sends_what_the_last_one_had_under_way(self, cluster: Cluster, begin: Callable[[], Life]) -> None:
        first = begin()
        await first.start()
        await until(lambda: first.broker.status.state == "live")
        cluster.reaches = 7
        await first.broker.publish(events(10, topic=TOPIC))
        await until(lambda: not cluster.up)
        await first.die()
        cluster.reaches, cluster.up = None, True
        second = begin()
        await second.start()
        assert second.broker.position("ONE") == Position("E1", 10)
        assert [event.seq for event in second.broker.past("ONE")] == numbers(10)
        await second.broker.publish(events(5, topic=TOPIC, first=11))
        await until(lambda: len(second.shown) >= 5 and not second.spool.waiting)
        assert second.shown == numbers(15, 11)
        assert cluster.seqs() == numbers(15)

    async def test_makes_a_topic_as_the_files_say_and_not_before(
        self, cluster: Cluster, begin: Callable[[], Life]
    ) -> None:
        cluster.up = False
        first = begin()
        await first.start()
        await first.broker.publish(events(10, topic=TOPIC))
        await first.die()
        cluster.up = True
        second = begin()
        await second.start(partitions=None)
        await asyncio.sleep(0.1)
        assert TOPIC not in cluster.logs
        await second.broker.declare({TOPIC: 3})
        await until(lambda: cluster.seqs() == numbers(10))
        assert len(cluster.logs[TOPIC]) == 3

    async def test_goes_on_with_every_numbering_while_kafka_is_away(
        self, cluster: Cluster, begin: Callable[[], Life]
    ) -> None:
        first = begin()
        await first.start()
        await first.broker.publish(events(10, topic=TOPIC))
        await first.broker.publish(events(4, stream="TWO", topic=TOPIC))
        await until(lambda: len(first.shown) == 14 and not first.spool.waiting)
        await first.die()
        cluster.up = False
        second = begin()
        await second.start()
        for stream, seq in (("ONE", 10), ("TWO", 4)):
            assert second.broker.past(stream) == []
            assert second.broker.position(stream) == Position("E1", seq)
        await second.broker.publish(events(5, topic=TOPIC, first=11))
        await until(lambda: second.shown == numbers(15, 11))
        cluster.up = True
        await until(lambda: second.broker.status.state == "live")
        await second.broker.publish(events(5, topic=TOPIC, first=16))
        await until(lambda: len(second.shown) >= 10)
        assert second.shown == numbers(20, 11)
        assert second.broker.status.skipped == 0


class TestHistory:
    async def test_reaches_as_far_as_it_can(self, cluster: Cluster, begin: Callable[[], Life]) -> None:
        life = begin()
        await life.start()
        await life.broker.publish(events(600, topic=TOPIC))
        await until(lambda: len(life.shown) == 600)
        after = Position("E1", 20)
        assert [event.seq for event in await life.broker.history("ONE", after, 51) or ()] == numbers(600, 21)
        assert await life.broker.history("ONE", after, 602) is None
        assert await life.broker.history("ONE", Position("E0", 20), 51) is None

    async def test_is_looked_up_once_for_all_who_ask_meanwhile(
        self, cluster: Cluster, begin: Callable[[], Life], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        life = begin()
        await life.start()
        names = [f"S{n}" for n in range(6)]
        for name in names:
            await life.broker.publish(events(100, stream=name, topic=TOPIC))
        await until(lambda: len(life.shown) == 600)
        looks: list[set[str]] = []
        look_back = Connection.look_back

        async def slow(self: Connection, *asked: Any) -> Any:
            looks.append(asked[0])
            await asyncio.sleep(0.01)
            return await look_back(self, *asked)

        monkeypatch.setattr(Connection, "look_back", slow)
        asked = [(name, Position("E1", seq), 91) for name in names for seq in (10, 40, 60)]
        asked.append(("S0", Position("E0", 3), 50))
        found = await asyncio.gather(*(life.broker.history(*one) for one in asked))
        for (name, after, _), one in zip(asked[:-1], found, strict=False):
            assert [(event.head.stream, event.seq) for event in one or ()] == [
                (name, seq) for seq in numbers(100, after.seq + 1)
            ]
        assert found[-1] is None
        assert len(looks) <= 2

    async def test_of_one_who_went_away_meanwhile_does_not_keep_the_others(
        self, cluster: Cluster, begin: Callable[[], Life], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        life = begin()
        await life.start()
        await life.broker.publish(events(100, topic=TOPIC))
        await until(lambda: len(life.shown) == 100)
        look_back, first = Connection.look_back, asyncio.Event()

        async def once(self: Connection, *asked: Any) -> Any:
            if not first.is_set():
                first.set()
                await asyncio.Event().wait()
            return await look_back(self, *asked)

        monkeypatch.setattr(Connection, "look_back", once)
        gone = asyncio.create_task(life.broker.history("ONE", Position("E1", 10), 91))
        stays = asyncio.create_task(life.broker.history("ONE", Position("E1", 20), 91))
        await first.wait()
        gone.cancel()
        assert [event.seq for event in await asyncio.wait_for(stays, 5) or ()] == numbers(100, 21)

    def test_follows_a_position_without_a_gap(self) -> None:
        some = [*events(3), *events(4, first=3), *events(2, first=9)]
        assert [event.seq for event in resequencer.run_after(Position("E1", 1), some)] == numbers(7, 2)[:5]
        assert resequencer.run_after(Position("E1", 7), some) == []
