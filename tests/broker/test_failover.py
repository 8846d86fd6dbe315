"""What the failover does with events that cannot be kept or sent, and with calls that it has to refuse."""

from __future__ import annotations

import asyncio
import logging
import pathlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import cast

import pytest

from regstream import broker, errors, spec
from regstream.broker import failover, spool, spooled_queue
from regstream.event import Event
from tests.test_broker import events
from tests.test_outages import TOPIC, Cluster, Connection, Life, begin, cluster, numbers, quick, until

__all__ = ["begin", "cluster", "quick"]


def ranked(count: int, priority: spec.Priority, stream: str, size: int = 500) -> list[Event]:
    """Large events of a priority."""
    made = events(count, stream=stream)
    head = made[0].head._replace(priority=priority)
    return [event._replace(head=head, value=event.value + b" " * size) for event in made]


def refusing(one: Connection, number: int) -> None:
    """Let a connection refuse for ever the event of that number."""
    publish = one.publish

    async def publish_others(sent: list[Event]) -> None:
        await publish([event for event in sent if event.seq != number])
        never = tuple(event for event in sent if event.seq == number)
        if never:
            raise errors.BrokerError("too large", len(never), never, final=True)

    one.publish = publish_others  # type: ignore[method-assign, assignment]


class TestASpoolThatIsFull:
    async def test_gives_up_the_least_urgent_first_and_counts_it(
        self, cluster: Cluster, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        cluster.up = False
        kept = spool.Spool(tmp_path / "spool", limit=1024 * 1024)
        connect = cast("failover.Connect", lambda starts: Connection(cluster, starts))
        one = failover.FailoverBroker(connect, kept, asyncio.get_running_loop().time, lambda *change: None)
        await one.start()
        await one.declare({TOPIC: 1})
        urgent, rest = ranked(700, spec.Priority.CRITICAL, "URGENT"), ranked(3000, spec.Priority.LOW, "REST")
        for first in range(0, 3000, 100):
            await one.publish(rest[first : first + 100])
        await one.publish(urgent)
        given_up = one.status.dropped["REST"]
        assert one.status.dropped == {"REST": given_up} and 0 < given_up < 3000
        assert one.status.waiting == 3700 - given_up
        assert one.status.waiting_bytes > 100 * one.status.waiting
        assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1
        cluster.up = True
        await until(lambda: one.status.state == "live")
        sent = [event for log in cluster.logs[TOPIC] for event in log]
        assert [event.seq for event in sent if event.head.stream == "URGENT"] == numbers(700)
        # The oldest went
        assert [event.seq for event in sent if event.head.stream == "REST"] == numbers(3000, given_up + 1)
        await one.close()

    async def test_is_no_loss_while_the_cluster_takes_all(
        self, cluster: Cluster, begin: Callable[[], Life], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        life = begin()
        await life.start()
        await until(lambda: life.broker.status.state == "live")
        monkeypatch.setattr(life.spool, "_limit", 1)
        await life.broker.publish(events(10))
        await until(lambda: cluster.seqs() == numbers(10))
        cluster.up = False
        await until(lambda: life.broker.status.state == "fallback")
        assert life.broker.status.dropped == {}

    async def test_is_a_loss_when_the_cluster_goes_before_it_has_them(
        self, cluster: Cluster, begin: Callable[[], Life], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        life = begin()
        await life.start()
        await until(lambda: life.broker.status.state == "live")
        monkeypatch.setattr(life.spool, "_limit", 1)
        cluster.up = False
        await life.broker.publish(events(10))
        await until(lambda: life.broker.status.state == "fallback")
        assert life.broker.status.dropped == {"ONE": 10}

    async def test_gives_up_what_was_being_sent_too_when_the_cluster_goes(
        self, cluster: Cluster, begin: Callable[[], Life], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        life = begin()
        await life.start()
        await until(lambda: life.broker.status.state == "live")
        # All there is was under way when the cluster went
        cluster.up = False
        await life.broker.publish(ranked(100, spec.Priority.LOW, "REST"))
        await until(lambda: life.broker.status.state == "fallback")
        monkeypatch.setattr(life.spool, "_limit", 100_000)
        await life.broker.publish(ranked(100, spec.Priority.CRITICAL, "URGENT"))
        assert life.broker.status.dropped == {"REST": 100}
        assert life.broker.status.waiting == 100


class TestAnEventThatIsRefused:
    async def test_blocks_nothing_and_is_shown(
        self, cluster: Cluster, tmp_path: pathlib.Path, begin: Callable[[], Life]
    ) -> None:
        life = begin()

        def connect(starts: object) -> Connection:
            made = Connection(cluster, {})
            refusing(made, 5)
            return made

        life.broker._connect = cast("failover.Connect", connect)
        await life.start()
        await until(lambda: life.broker.status.state == "live")
        await life.broker.publish(events(10))
        await life.broker.publish(events(10, first=11))
        await until(lambda: len(life.shown) == 20)
        assert life.shown == numbers(20)
        assert cluster.seqs() == [*numbers(4), *numbers(20, 6)]
        status = life.broker.status
        assert (status.state, status.errors, status.waiting, status.skipped) == ("live", 1, 0, 0)
        assert life.changes == ["draining", "live"]

    async def test_is_the_reason_until_its_topic_takes_another(
        self, cluster: Cluster, begin: Callable[[], Life]
    ) -> None:
        life = begin()
        await life.start()
        await until(lambda: life.broker.status.state == "live")
        await life.broker.declare({"t.two": 1})
        refusing(cast("Connection", life.broker._kafka), 5)
        await life.broker.publish(events(5))
        await until(lambda: life.broker.status.reason == "too large")
        await life.broker.publish(events(3, stream="TWO", topic="t.two"))
        await until(lambda: not life.broker.status.waiting)
        assert life.broker.status.reason == "too large"
        await life.broker.publish(events(1, first=6))
        await until(lambda: life.broker.status.reason == "")
        assert life.broker.status.errors == 1


class TestAStop:
    async def test_shows_what_did_not_come_back(
        self, cluster: Cluster, begin: Callable[[], Life], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Nobody gives it up before
        monkeypatch.setattr(failover, "PROBE_SECONDS", 60.0)
        life = begin()
        await life.start()
        await until(lambda: life.broker.status.state == "live")
        cluster.deaf = {0, 1, 2}
        await life.broker.publish(events(10))
        await life.broker.close()
        await asyncio.wait_for(life._pump, 5)
        assert life.shown == numbers(10)

    async def test_while_the_connection_is_being_given_up(
        self, cluster: Cluster, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        leaving, may_leave = asyncio.Event(), asyncio.Event()

        async def read_on(one: Connection) -> AsyncIterator[list[broker.Record]]:
            try:
                await asyncio.Event().wait()
                yield []
            finally:
                leaving.set()
                await may_leave.wait()

        monkeypatch.setattr(Connection, "consume", read_on)
        life = Life(cluster, tmp_path / "spool")
        await life.start()
        await until(lambda: life.broker.status.state == "live")
        cluster.up = False
        # A probe failed, and what reads is on its way out: the stop comes in the middle
        await leaving.wait()
        closing = asyncio.create_task(life.broker.close())
        await until(lambda: life.broker._closed)
        may_leave.set()
        async with asyncio.timeout(10):
            await closing
            await life._pump

    async def test_leaves_in_the_spool_what_comes_meanwhile(
        self,
        cluster: Cluster,
        tmp_path: pathlib.Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        may_leave = asyncio.Event()

        async def never(one: Connection, sent: object) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(Connection, "abandon", lambda one: may_leave.wait())
        monkeypatch.setattr(Connection, "publish", never)
        monkeypatch.setattr(failover, "FLUSH_SECONDS", 0.01)
        life = Life(cluster, tmp_path / "spool")
        await life.start()
        await until(lambda: life.broker.status.state == "live")
        # More than it takes without waiting for room: whoever does has others behind, who come during the stop
        waits = asyncio.create_task(life.broker.publish(events(spooled_queue.LIMIT + 2 * spooled_queue.CHUNK)))
        await until(lambda: life.spool.waiting)
        closing = asyncio.create_task(life.broker.close())
        await until(lambda: life.broker._closed)
        await waits
        count = spooled_queue.LIMIT + 2 * spooled_queue.CHUNK + 187
        await life.broker.publish(events(187, first=count - 186))
        may_leave.set()
        await closing
        await life._pump
        assert life.broker.status.errors == 0
        assert life.shown == numbers(count)
        with pytest.raises(errors.BrokerError, match="closed"):
            await life.broker.publish(events(1))
        left = spool.Spool(tmp_path / "spool")
        left.open()
        assert [event.seq for chunk in left.unacknowledged() for event in chunk.events] == numbers(count)
        left.close()
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


class TestAnEndInTheMiddleOfADrain:
    @pytest.mark.parametrize("how", ["close", "die"])
    @pytest.mark.parametrize("sent", [0, 1, 19, 20, 21, 150, 299])
    async def test_loses_and_doubles_nothing(
        self, cluster: Cluster, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, how: str, sent: int
    ) -> None:
        monkeypatch.setattr(spooled_queue, "CHUNK", 20)
        publish, reached = Connection.publish, asyncio.Event()

        async def slowly(one: Connection, events: list[Event]) -> None:
            for event in events:
                if len(cluster.seqs()) == sent and not reached.is_set():
                    reached.set()
                    await asyncio.Event().wait()
                await publish(one, [event])

        monkeypatch.setattr(Connection, "publish", slowly)
        cluster.up = False
        first = Life(cluster, tmp_path / "spool")
        await first.start()
        for number in range(1, 300, 10):
            await first.broker.publish(events(10, first=number))
        cluster.up = True
        await asyncio.wait_for(reached.wait(), 20)
        assert first.broker.status.state == "draining"
        await getattr(first if how == "die" else first.broker, how)()
        assert len(cluster.seqs()) == sent
        second = Life(cluster, tmp_path / "spool")
        await second.start()
        await second.broker.publish(events(10, first=301))
        await until(lambda: second.broker.status.state == "live" and not second.spool.waiting)
        assert cluster.seqs() == numbers(310)
        assert all(log == sorted(log, key=lambda event: event.seq) for log in cluster.logs[TOPIC])
        await second.broker.close()


class TestDeclaring:
    async def test_what_is_refused_is_forgotten_again(self, cluster: Cluster, begin: Callable[[], Life]) -> None:
        life = begin()
        await life.start()
        await until(lambda: life.broker.status.state == "live")
        one = cast("Connection", life.broker._kafka)

        async def refuse(topics: object, replication: int = 1, batch_bytes: int | None = None) -> None:
            raise errors.BrokerError("topic t.new cannot be created", final=True)

        declare, one.declare = one.declare, refuse  # type: ignore[method-assign, assignment]
        with pytest.raises(errors.BrokerError):
            await life.broker.declare({"t.new": 3}, 3)
        one.declare = declare  # type: ignore[method-assign]
        cluster.up = False
        await until(lambda: life.broker.status.state == "fallback")
        cluster.up = True
        await until(lambda: life.broker.status.state == "live")
        assert "t.new" not in cluster.logs

    async def test_what_is_refused_costs_nothing_that_is_sent_meanwhile(
        self, cluster: Cluster, begin: Callable[[], Life]
    ) -> None:
        life = begin()
        await life.start()
        await until(lambda: life.broker.status.state == "live")
        one = cast("Connection", life.broker._kafka)
        declare, refusing = one.declare, asyncio.Event()

        async def refuse(topics: Mapping[str, int], replication: int = 1, batch_bytes: int | None = None) -> None:
            if "t.new" in topics:
                refusing.set()
                await asyncio.sleep(0.05)
                raise errors.BrokerError("topic t.new cannot be created", final=True)
            await declare(topics, replication)

        one.declare = refuse  # type: ignore[method-assign]
        reload = asyncio.create_task(life.broker.declare({"t.new": 3}, 3))
        await refusing.wait()
        await life.broker.publish(events(10))
        with pytest.raises(errors.BrokerError):
            await reload
        await until(lambda: not life.broker.status.waiting)
        assert cluster.seqs() == numbers(10)
        assert life.changes == ["draining", "live"]

    async def test_one_that_only_reads_takes_nothing(self, cluster: Cluster) -> None:
        connect = cast("failover.Connect", lambda starts: Connection(cluster, starts))
        one = failover.FailoverBroker(connect, None, asyncio.get_running_loop().time, lambda *change: None)
        await one.start()
        await one.declare({TOPIC: 1})
        await until(lambda: one.status.state == "live")
        with pytest.raises(errors.BrokerError) as caught:
            await one.publish(events(3))
        assert (caught.value.count, one.status.errors) == (3, 3)
        await one.close()
        assert one.status.state == "closed"
