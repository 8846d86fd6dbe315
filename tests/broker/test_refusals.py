"""What becomes of events that a cluster does not take: found one by one, or the topic's, and all others go on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import aiokafka
import aiokafka.errors
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regstream.broker.kafka import connection, delivery, producer
from regstream.broker.kafka import errors as kafka_errors
from regstream.event import Event
from tests import profiles
from tests.test_broker import events

TOPIC, PLACE = "t.one", ("t.one", 0)
UNKNOWN = 999
EVENT = [one.number for one in kafka_errors.CODES.values() if one.action is kafka_errors.ErrorAction.SPLIT]
TOPICS = [one.number for one in kafka_errors.CODES.values() if one.action is kafka_errors.ErrorAction.REFUSE]
CONNECTION = [one.number for one in kafka_errors.CODES.values() if one.action is kafka_errors.ErrorAction.RECONNECT]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producer, "AGAIN_SECONDS", 0)


class Cluster:
    """Takes batches, unless an event has a fate: the code, by its number. It ``names`` those events if it is to."""

    def __init__(self, fates: Mapping[int, int], names: bool) -> None:
        self.fates, self.names = fates, names
        self.taken: list[int] = []
        self.requests = 0

    def take(self, batch: list[Event]) -> None:
        self.requests += 1
        bad = [(index, self.fates[event.seq]) for index, event in enumerate(batch) if event.seq in self.fates]
        if bad:
            named = tuple(index for index, _ in bad) if self.names else ()
            raise delivery.ProduceRefusedError(kafka_errors.of(bad[0][1]), "says the cluster", named)
        self.taken += [event.seq for event in batch]


class Sender(producer.Producer):
    """Sends to a cluster of lists."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(connection.Connection("127.0.0.1:1"))
        self._cluster = cluster
        self._events: list[Event] = []

    def _batch(self, queue: Any, room: int, alone: int) -> tuple[Any, int, int]:
        batch, taken, size = super()._batch(queue, room, alone)
        self._events = list(queue.left)[:taken]
        return batch, taken, size

    async def _acknowledge(self, batch: Any, place: Any, count: int, size: int) -> int:
        self._cluster.take(self._events)
        return 0


def send(cluster: Cluster, sent: list[Event]) -> producer.Sent:
    async def run() -> producer.Sent:
        one = Sender(cluster)
        found = await one.send(sent, {TOPIC: 1})
        await one.producer.stop()
        return found

    return asyncio.run(asyncio.wait_for(run(), 20))


@given(st.dictionaries(st.integers(1, 300), st.sampled_from(EVENT), max_size=12), st.booleans(), st.integers(1, 300))
@settings(max_examples=profiles.examples(60))
def test_the_events_that_are_refused_are_found_and_the_others_are_sent_in_order(
    fates: dict[int, int], names: bool, count: int
) -> None:
    cluster = Cluster(fates, names)
    sent = send(cluster, events(count, topic=TOPIC))
    bad = {seq for seq in fates if seq <= count}
    assert cluster.taken == [seq for seq in range(1, count + 1) if seq not in bad]
    assert sorted(event.seq for event in sent.never) == sorted(bad)
    assert sent.unsure == ()
    assert (TOPIC in sent.topics) == bool(bad)
    said = " ".join(sent.reasons)
    # A cluster that names them all answers with one code
    assert names or all(kafka_errors.of(fates[seq]).name in said or "of that size" in said for seq in bad)
    # About twice the logarithm for each, in the worst case
    assert cluster.requests <= 4 + 24 * len(bad)


@pytest.mark.parametrize("number", EVENT)
def test_when_all_are_refused_each_costs_no_more_than_a_request(number: int) -> None:
    cluster = Cluster(dict.fromkeys(range(1, 501), number), names=False)
    assert len(send(cluster, events(500, topic=TOPIC)).never) == 500
    assert cluster.requests < 560


@pytest.mark.parametrize("number", TOPICS)
def test_a_topic_refuses_at_once_all_that_was_not_taken(number: int) -> None:
    cluster = Cluster({7: number}, names=False)
    sent = send(cluster, events(20, topic=TOPIC))
    assert (len(sent.never), cluster.requests, sent.unsure) == (20, 1, ())
    assert TOPIC in sent.topics[TOPIC]


@pytest.mark.parametrize("number", CONNECTION)
def test_what_is_of_the_connection_refuses_nothing(number: int) -> None:
    sent = send(Cluster({7: number}, names=False), events(20, topic=TOPIC))
    assert (len(sent.unsure), sent.never, sent.topics) == (20, (), {})
    assert kafka_errors.of(number).name in sent.reasons[0] or "says the cluster" in sent.reasons[0]


@pytest.mark.parametrize("number", [UNKNOWN, -1, 42])
class TestACodeThatNobodyKnows:
    def test_at_one_event_is_that_events(self, number: int) -> None:
        cluster = Cluster({7: number}, names=False)
        sent = send(cluster, events(20, topic=TOPIC))
        assert [event.seq for event in sent.never] == [7]
        assert cluster.taken == [seq for seq in range(1, 21) if seq != 7]

    def test_at_the_next_one_too_is_the_topics(self, number: int) -> None:
        cluster = Cluster(dict.fromkeys(range(7, 1001), number), names=False)
        sent = send(cluster, events(1000, topic=TOPIC))
        assert [event.seq for event in sent.never] == list(range(7, 1001))
        assert cluster.taken == list(range(1, 7))
        assert cluster.requests < 50

    def test_that_passes_costs_nothing(self, number: int) -> None:
        cluster = Cluster({7: number}, names=False)
        take, cluster.fates = cluster.take, dict(cluster.fates)

        def pass_at_last(batch: list[Event]) -> None:
            if len(batch) == 1 and cluster.requests > 6:
                cluster.fates = {}
            take(batch)

        cluster.take = pass_at_last  # type: ignore[method-assign]
        sent = send(cluster, events(20, topic=TOPIC))
        assert (sent.never, cluster.taken) == ((), list(range(1, 21)))


class Batch:
    """One of the library's."""

    def __init__(self) -> None:
        self.tp = aiokafka.TopicPartition(*PLACE)
        self.offset: int | None = None
        self.error: Any = None

    def done(self, offset: int, *more: Any) -> None:
        self.offset = offset

    def failure(self, exception: Exception) -> None:
        self.error = exception


class Library:
    """What a delivery uses of the library."""

    def __init__(self, isr: int = 1) -> None:
        partition = SimpleNamespace(replicas=[1, 2], isr=[1, 2][:isr])
        self.client = SimpleNamespace(
            cluster=SimpleNamespace(_partitions={TOPIC: {0: partition}}), force_metadata_update=lambda: None
        )
        self._retry_backoff = 0


@pytest.fixture
def flow(monkeypatch: pytest.MonkeyPatch) -> Iterator[delivery.SendWindow]:
    loop = asyncio.new_event_loop()

    async def make() -> delivery.SendWindow:
        return delivery.SendWindow()

    yield loop.run_until_complete(make())
    loop.close()


def answer(flow: delivery.SendWindow, number: int, library: Library, troubles: delivery.Troubles, *rest: Any) -> Any:
    """The batch, and those that are to be sent again, after such an answer."""
    batch = Batch()
    one = delivery.ProduceHandler(library, {batch.tp: batch}, flow, troubles)
    one.handle_response(SimpleNamespace(topics=[(TOPIC, [(0, number, 42, *rest)])], throttle_time_ms=0))
    return batch, one._to_reenqueue


class TestAnAnswer:
    @pytest.mark.parametrize("number", range(-1, 150))
    @pytest.mark.parametrize("rest", [(), (-1,), (-1, 0), (-1, 0, [(3, "no key")], "says the cluster")])
    def test_has_one_of_three_ends(self, flow: delivery.SendWindow, number: int, rest: tuple[Any, ...]) -> None:
        batch, again = answer(flow, number, Library(), delivery.Troubles(), *rest)
        assert sum([batch.offset is not None, batch.error is not None, bool(again)]) == 1
        if batch.error is not None:
            # One that the library does not know is still told by its own number
            assert batch.error.code.number == number
            assert batch.error.culprits == ((3,) if len(rest) == 4 else ())

    def test_that_copies_are_missing_which_may_come_back_is_waited_for(self, flow: delivery.SendWindow) -> None:
        troubles, now = delivery.Troubles(), flow.now
        for seconds in (0.0, 1.0, 60.0):
            flow.now = lambda: now() + seconds  # noqa: B023
            batch, again = answer(flow, 19, Library(isr=1), troubles)
            assert (batch.error, len(again)) == (None, 1)

    def test_that_copies_are_missing_which_cannot_come_is_the_topics(self, flow: delivery.SendWindow) -> None:
        troubles, now = delivery.Troubles(), flow.now
        batch, again = answer(flow, 19, Library(isr=2), troubles)
        assert (batch.error, len(again)) == (None, 1)
        flow.now = lambda: now() + kafka_errors.STALL_SECONDS
        batch, again = answer(flow, 19, Library(isr=2), troubles)
        assert batch.error.code.name == "NOT_ENOUGH_REPLICAS" and not again
        # Known now, it holds up nothing any more
        batch, again = answer(flow, 19, Library(isr=2), troubles)
        assert batch.error is not None and not again
        answer(flow, 0, Library(isr=2), troubles, -1, 0)
        batch, again = answer(flow, 19, Library(isr=2), troubles)
        assert (batch.error, len(again)) == (None, 1)
