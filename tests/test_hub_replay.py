"""Stored events that are sent again: who gets them, marked how, and everything that they must leave alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from regstream import hub
from regstream.event import Event, Position
from regstream.hub import backpressure
from regstream.spec import Policy
from tests.test_feed import Outlets
from tests.test_feed import Reader as Outlet
from tests.test_hub import Reader, at, event, make, show, subscribe

CONFLATE = hub.DeliveryOptions(Policy.CONFLATE)
DROP = hub.DeliveryOptions(Policy.DROP_OLDEST)
VALUE = b'{"seq":1, "data":{"a":"}"}}'


def stored(stream: str, seq: int, epoch: str = "E0", value: bytes = VALUE) -> Event:
    return event(stream, seq, epoch, value)


def replay(one: hub.Hub, stream: str, *seqs: int, epoch: str = "E0") -> None:
    for seq in seqs:
        one.replay(stored(stream, seq, epoch))


def told(entries: list[hub.Entry]) -> list[str]:
    """Live events as ONE1, replayed ones as (ONE1), what was dropped of these as -1."""
    names = [
        f"{one.head.stream}{one.seq}" if one.head else f"-{orjson.loads(one.value)['replayed']}" for one in entries
    ]
    return [f"({name})" if one.replay else name for name, one in zip(names, entries, strict=True)]


def taken(reader: Reader, now: float = 0.0, count: int = 10_000) -> list[str]:
    return told(reader.queue.take(count, 10**9, now))


def numbered(first: int, last: int, shape: str = "(ONE{})") -> list[str]:
    return [shape.format(seq) for seq in range(first, last + 1)]


@pytest.mark.parametrize("value", [VALUE, b'{"specversion":"1.0","data":{}}', b'{"a": 1 }\n'])
def test_the_mark_is_in_the_frame_and_the_last_member_of_the_event(value: bytes) -> None:
    one, reader = make(), Reader()
    subscribe(one, reader.queue, ["ONE"])
    one.replay(stored("ONE", 7, value=value))
    (entry,) = reader.queue.take(10, 10**6)
    frame, data = orjson.loads(entry.text), orjson.loads(value)
    assert list(frame.items()) == [("event", "one-type"), ("replay", True), ("data", {**data, "replay": True})]
    assert list(orjson.loads(entry.value))[-1] == "replay"
    assert entry.value.replace(b',"replay":true', b"") == value
    assert entry.size == len(entry.text) and entry.position == Position("E0", 7) and entry.replay


def test_all_readers_share_one_entry_and_a_live_one_is_not_marked() -> None:
    one, readers = make(), (Reader(), Reader())
    for reader in readers:
        subscribe(one, reader.queue, ["ONE"])
    replay(one, "ONE", 1)
    show(one, "ONE", 1)
    (first, live), (second, _) = (reader.queue.take(10, 10**6) for reader in readers)
    assert first is second
    assert not live.replay and b"replay" not in live.text


@pytest.mark.parametrize(
    ("channels", "seen"),
    [
        (["dashboard-updates"], ["(ONE1)", "(TWO1)", "(THREE1)"]),
        (["ONE"], ["(ONE1)"]),
        (["shared-type", "TWO"], ["(TWO1)", "(THREE1)"]),
        (["system", "immediate-alert"], []),
    ],
)
def test_the_audience_is_that_of_a_live_event(channels: list[str], seen: list[str]) -> None:
    one, reader = make(), Reader()
    subscribe(one, reader.queue, channels)
    for stream in ("ONE", "TWO", "THREE"):
        replay(one, stream, 1)
    assert taken(reader) == seen


def test_of_a_stream_that_is_not_declared_all_and_its_type_are_left() -> None:
    one, readers = make(), {name: Reader() for name in ("dashboard-updates", "shared-type", "TWO", "ONE")}
    for name, reader in readers.items():
        subscribe(one, reader.queue, [name])
    head = stored("TWO", 1).head._replace(stream="OLD")
    one.replay(Event(head, 1, None, VALUE))
    assert {name: taken(reader) for name, reader in readers.items()} == {
        "dashboard-updates": ["(OLD1)"],
        "shared-type": ["(OLD1)"],
        "TWO": [],
        "ONE": [],
    }
    assert one.position("OLD") is None and one.counts.unknown == 0


def test_who_comes_and_goes_between_two_events() -> None:
    one, reader, other = make(), Reader(), Reader()
    replay(one, "ONE", 1)
    subscribe(one, reader.queue, ["ONE"])
    replay(one, "ONE", 2)
    subscribe(one, other.queue, ["one-type"], wish=CONFLATE)
    replay(one, "ONE", 3)
    one.remove(reader.queue)
    replay(one, "ONE", 4)
    assert (taken(reader), taken(other)) == (["(ONE2)", "(ONE3)"], ["(ONE3)", "(ONE4)"])


def test_nothing_that_is_known_of_a_stream_moves() -> None:
    one, reader, late = make(), Reader(), Reader()
    subscribe(one, reader.queue, ["dashboard-updates"], wish=DROP)
    show(one, "ONE", 1, 2, 3)
    before = one.positions, one.events(), dict(reader.queue.since), one.counts
    replay(one, "ONE", 2, 9, epoch="E1")
    replay(one, "ONE", 1, 2, epoch="E0")
    assert (one.positions, one.events(), reader.queue.since) == before[:3]
    assert one.counts == before[3]._replace(replayed=4)
    show(one, "ONE", 4)
    answer = subscribe(one, late.queue, ["ONE"], after=at(1), snapshot=True)
    assert answer["ONE"] == hub.Subscribed("E1", 4, True, 3, 0)
    assert taken(late) == ["ONE2", "ONE3", "ONE4"]
    assert taken(reader) == ["ONE1", "ONE2", "ONE3", "ONE4", "(ONE2)", "(ONE9)", "(ONE1)", "(ONE2)"]


def test_the_plain_queue_keeps_the_order_and_its_bound_is_for_both() -> None:
    one, reader = make(), Reader(limit=4)
    subscribe(one, reader.queue, ["ONE"])
    show(one, "ONE", 1)
    replay(one, "ONE", 1)
    show(one, "ONE", 2)
    replay(one, "ONE", 2)
    assert not reader.queue.slow
    assert taken(reader) == ["ONE1", "(ONE1)", "ONE2", "(ONE2)"]
    replay(one, "ONE", *range(3, 8))
    assert reader.queue.slow and taken(reader) == []


def test_conflating_leaves_every_replayed_event_and_no_live_one_is_replaced() -> None:
    one, reader = make(), Reader()
    subscribe(one, reader.queue, ["ONE"], wish=CONFLATE)
    for seq in (1, 2, 3):
        one.broadcast(event("ONE", seq)._replace(key="same"))
        one.replay(stored("ONE", seq)._replace(key="same"))
    assert taken(reader) == ["ONE3", "(ONE1)", "(ONE2)", "(ONE3)"]
    assert reader.queue.since == at(2)


@pytest.mark.parametrize("wish", [DROP, CONFLATE])
def test_who_lets_events_be_dropped_has_the_oldest_of_the_replayed_dropped_only(wish: hub.DeliveryOptions) -> None:
    one, reader = make(), Reader(limit_lane=3)
    subscribe(one, reader.queue, ["ONE"], wish=wish)
    show(one, "ONE", 1, 2, 3)
    since = dict(reader.queue.since)
    replay(one, "ONE", *range(1, 8))
    assert reader.queue.since == since and not reader.queue.slow
    assert taken(reader) == ["-4", "ONE1", "ONE2", "ONE3", "(ONE5)", "(ONE6)", "(ONE7)"]
    assert one.counts.lost == 4


def test_lagging_tells_live_and_replayed_apart() -> None:
    one, reader = make(), Reader(limit_lane=2)
    subscribe(one, reader.queue, ["ONE"], wish=DROP)
    show(one, "ONE", 1, 2, 3)
    replay(one, "ONE", 1, 2, 3, 4)
    lagging = reader.queue.take(1, 10**6)[0]
    assert orjson.loads(lagging.value) == {"dropped": {"ONE": 1}, "total": 1, "replayed": 2}


@pytest.mark.parametrize("policy", [Policy.DISCONNECT, Policy.DROP_OLDEST, Policy.CONFLATE])
def test_no_rate_holds_it_up_or_counts_it(policy: Policy) -> None:
    one, reader = make(), Reader()
    subscribe(one, reader.queue, ["ONE"], wish=hub.DeliveryOptions(policy, 1.0))
    show(one, "ONE", 1)
    replay(one, "ONE", *range(1, 101))
    assert taken(reader) == ["ONE1", *numbered(1, 100)]
    show(one, "ONE", 2)
    replay(one, "ONE", 101)
    assert taken(reader, 0.5) == ["(ONE101)"]
    assert taken(reader, 1.0) == ["ONE2"]


def test_who_wants_all_at_a_rate_is_cut_off_when_too_much_is_replayed() -> None:
    one, reader = make(), Reader(limit_lane=3)
    subscribe(one, reader.queue, ["ONE"], wish=hub.DeliveryOptions(Policy.DISCONNECT, 100.0))
    replay(one, "ONE", 1, 2, 3)
    assert not reader.queue.slow
    replay(one, "ONE", 4)
    assert reader.queue.slow


@pytest.mark.parametrize("wish", [DROP, CONFLATE])
def test_live_events_go_first_however_much_is_replayed(wish: hub.DeliveryOptions) -> None:
    one, reader = make(), Reader()
    subscribe(one, reader.queue, ["ONE"], wish=wish)
    replay(one, "ONE", *range(1, 1001))
    show(one, "ONE", 1)
    assert taken(reader, count=10) == ["ONE1", *numbered(1, 9)]


def test_what_waits_keeps_its_order_when_the_way_changes() -> None:
    one, reader = make(), Reader()
    subscribe(one, reader.queue, ["ONE"], wish=DROP)
    replay(one, "ONE", 1)
    show(one, "ONE", 1)
    replay(one, "ONE", 2)
    subscribe(one, reader.queue, ["ONE"], wish=hub.DeliveryOptions())
    replay(one, "ONE", 3)
    assert taken(reader) == ["(ONE1)", "ONE1", "(ONE2)", "(ONE3)"]


def test_a_declared_delivery_is_a_way_too() -> None:
    one, reader = make(), Reader(limit_lane=2)
    one.deliver({"ONE": hub.Delivery(Policy.DROP_OLDEST)})
    subscribe(one, reader.queue, ["ONE"])
    replay(one, "ONE", 1, 2, 3)
    assert taken(reader) == ["-1", "(ONE2)", "(ONE3)"]


class Feeds:
    """Readers that share a feed, and what each was written."""

    def __init__(self, count: int, **more: Any) -> None:
        self.hub, self.outlets = make(), Outlets(0)
        self.readers = [Outlet(self.outlets, True) for _ in range(count)]
        for reader in self.readers:
            subscribe(self.hub, reader.subscriber, ["ONE"], **more)
            reader.subscriber.offer(hub.reply("subscribed", {}))
        self.outlets.flush()
        for reader in self.readers:
            reader.got.clear()


def test_a_feed_takes_them_in_order_and_gives_them_to_all_at_once() -> None:
    world = Feeds(3)
    feed = world.readers[0].subscriber.feed
    assert feed is not None and len(feed.sharing) == 3
    show(world.hub, "ONE", 1)
    replay(world.hub, "ONE", 8)
    show(world.hub, "ONE", 2)
    assert told(feed.log) == ["ONE1", "(ONE8)", "ONE2"]
    world.outlets.flush()
    assert all(reader.got == [("one-type", 1), ("one-type", 8), ("one-type", 2)] for reader in world.readers)
    assert len(feed.sharing) == 3


def test_more_than_a_feed_holds_goes_into_the_queues() -> None:
    world = Feeds(2)
    replay(world.hub, "ONE", *range(1, 401))
    for _ in range(4):
        world.outlets.flush()
    assert all(reader.got == [("one-type", seq) for seq in range(1, 401)] for reader in world.readers)


class TestPressure:
    """The measure by which a replay at full speed goes."""

    def world(
        self,
        limits: Mapping[str, int],
        wish: hub.DeliveryOptions = hub.DeliveryOptions(),  # noqa: B008
    ) -> tuple[hub.Hub, Reader]:
        one, reader = make(), Reader(**limits)
        subscribe(one, reader.queue, ["ONE"], wish=wish)
        return one, reader

    def test_nothing_waits_for_nobody(self) -> None:
        assert make().pressure(0.0) == 0.0
        assert self.world({})[0].pressure(0.0) == 0.0

    def test_frames_or_bytes_whichever_is_more(self) -> None:
        one, _ = self.world({"limit": 100})
        replay(one, "ONE", *range(25))
        assert one.pressure(0.0) == 0.25
        one, reader = self.world({"limit_bytes": 1000})
        replay(one, "ONE", 1)
        assert one.pressure(0.0) == len(reader.queue.take(1, 1000)[0].text) / 1000

    @pytest.mark.parametrize("wish", [DROP, CONFLATE, hub.DeliveryOptions(Policy.DISCONNECT, 5.0)])
    def test_of_lanes_the_one_for_what_is_replayed(self, wish: hub.DeliveryOptions) -> None:
        one, _ = self.world({"limit_lane": 10}, wish)
        show(one, "ONE", *range(1, 10))
        assert one.pressure(0.0) == 0.0
        replay(one, "ONE", 1, 2, 3)
        assert one.pressure(0.0) == 0.3

    def test_it_is_never_more_than_full(self) -> None:
        one, reader = self.world({"limit_lane": 10}, DROP)
        replay(one, "ONE", *range(30))
        assert one.pressure(0.0) == 1.0
        one, reader = self.world({"limit_bytes": 5})
        replay(one, "ONE", 1)
        assert one.pressure(0.0) == 1.0 and not reader.queue.slow

    def test_the_fullest_counts_and_who_reads_eases_it(self) -> None:
        one, reader = self.world({"limit": 100})
        other = Reader(limit=200)
        subscribe(one, other.queue, ["ONE"])
        replay(one, "ONE", *range(50))
        assert one.pressure(0.0) == 0.5
        reader.take()
        assert one.pressure(0.1) == 0.25
        other.take()
        assert one.pressure(0.2) == 0.0

    def test_who_takes_nothing_is_waited_for_no_longer_than_a_second(self) -> None:
        one, reader = self.world({"limit": 100})
        replay(one, "ONE", *range(50))
        assert one.pressure(10.0) == 0.5
        assert one.pressure(10.0 + backpressure.PATIENCE - 0.01) == 0.5
        assert one.pressure(10.0 + backpressure.PATIENCE) == 0.0
        reader.take(1)
        assert one.pressure(12.0) == 0.49
        reader.take(1)
        assert one.pressure(12.9) == one.pressure(13.8) == 0.48

    def test_who_has_gone_is_forgotten(self) -> None:
        one, reader = self.world({"limit": 100})
        replay(one, "ONE", *range(50))
        one.pressure(0.0)
        one.remove(reader.queue)
        assert one.pressure(5.0) == 0.0
        subscribe(one, reader.queue, ["ONE"])
        assert one.pressure(6.0) == 0.5

    def test_a_replay_that_goes_by_it_cuts_off_nobody_that_reads(self) -> None:
        one, reader = self.world({"limit": 1000})
        stuck, now, seen = Reader(limit=1000), 0.0, 0
        subscribe(one, stuck.queue, ["ONE"])
        for first in range(1, 20_000, 200):
            replay(one, "ONE", *range(first, first + 200))
            seen += len(reader.take(40))
            while one.pressure(now) > 0.25:
                now += 0.01
                seen += len(reader.take(40))
        assert seen + len(reader.take(10**6)) == 20_000 and not reader.queue.slow
        assert stuck.queue.slow
