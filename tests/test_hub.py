import collections
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pytest
from hypothesis import settings, stateful
from hypothesis import strategies as st

from regstream import errors, hub, spec
from regstream.event import Event, Head, Position, rfc3339
from tests import profiles

NOON = 1795348800.0  # 2026-11-22T12:00:00Z
TYPES = {"ONE": "one-type", "TWO": "shared-type", "THREE": "shared-type", "ALERTS": "immediate-alert"}


def event(stream: str, seq: int, epoch: str = "E1", value: bytes = b"{}", time: float = NOON) -> Event:
    type_ = TYPES.get(stream, "other")
    head = Head(stream, epoch, type_, "t", spec.Priority.NORMAL, rfc3339(time), "LATAM")
    return Event(head, seq, f"key{seq}", value)


def make(**options: int) -> hub.Hub:
    one = hub.Hub(now=lambda: NOON, **options)
    for name, type_ in TYPES.items():
        one.declare(name, type_, Position("E1", 0))
    return one


class Reader:
    """A subscriber that counts how often it was woken."""

    def __init__(self, **options: int) -> None:
        self.woken = 0
        self.queue = hub.Subscriber(self._wake, **options)

    def _wake(self) -> None:
        self.woken += 1

    def take(self, count: int = 10_000) -> list[tuple[str, int]]:
        entries = self.queue.take(count, 10**9)
        return [(entry.head.stream if entry.head else "-", entry.seq) for entry in entries]


def subscribe(
    one: hub.Hub,
    subscriber: hub.Subscriber,
    channels: Sequence[str],
    after: Mapping[str, Position] | None = None,
    rewind: int = 0,
    snapshot: bool = False,
    wish: hub.DeliveryOptions = hub.DeliveryOptions(),  # noqa: B008 - it is never changed
    **more: Any,
) -> Mapping[str, hub.Subscribed]:
    return one.subscribe(subscriber, hub.SubscriptionRequest(channels, after or {}, rewind, snapshot, wish), **more)


def show(one: hub.Hub, stream: str, *seqs: int, epoch: str = "E1") -> None:
    for seq in seqs:
        one.broadcast(event(stream, seq, epoch))


def at(seq: int, stream: str = "ONE", epoch: str = "E1") -> dict[str, Position]:
    return {stream: Position(epoch, seq)}


def test_time_text() -> None:
    assert rfc3339(NOON + 0.123) == "2026-11-22T12:00:00.123Z"
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z"


def test_the_frame_holds_the_bytes_as_they_are() -> None:
    one, reader = make(), Reader()
    subscribe(one, reader.queue, ["ONE"])
    value = b'{"a" : "\xc3\xa9", "b":1.50}'
    one.broadcast(event("ONE", 1, value=value))
    (entry,) = reader.queue.take(10, 10**6)
    assert entry.text == b'{"event":"one-type","data":' + value + b"}"
    assert entry.value == value
    assert (entry.seq, entry.key, entry.wire) == (1, "key1", None)
    assert entry.head is not None and entry.head.stream == "ONE"


@pytest.mark.parametrize(
    ("channels", "seen"),
    [
        (["dashboard-updates"], "ONE TWO THREE ALERTS"),
        (["ONE"], "ONE"),
        (["shared-type"], "TWO THREE"),
        (["immediate-alert"], "ALERTS"),
        (["system"], ""),
        (["TWO", "shared-type", "dashboard-updates", "TWO"], "ONE TWO THREE ALERTS"),
        (["ONE", "THREE"], "ONE THREE"),
    ],
)
def test_channels_and_each_event_once(channels: list[str], seen: str) -> None:
    one, reader = make(), Reader()
    answer = subscribe(one, reader.queue, channels)
    assert set(answer) == set(seen.split())
    for stream in TYPES:
        show(one, stream, 1)
    assert reader.take() == [(stream, 1) for stream in seen.split()]


def test_channels_on_two_subscriptions_too() -> None:
    one, reader = make(), Reader()
    subscribe(one, reader.queue, ["ONE"])
    subscribe(one, reader.queue, ["one-type"])
    show(one, "ONE", 1)
    one.unsubscribe(reader.queue, ["ONE"])
    show(one, "ONE", 2)
    one.unsubscribe(reader.queue, ["one-type", "TWO"])
    show(one, "ONE", 3)
    assert reader.take() == [("ONE", 1), ("ONE", 2)]
    assert one.subscribers == 0


def test_known_channels() -> None:
    builtin = ("dashboard-updates", "immediate-alert", "system")
    assert hub.Hub(now=lambda: NOON).channels == builtin
    assert make().channels == (*builtin, "ONE", "TWO", "THREE", "ALERTS", "one-type", "shared-type")


def test_an_unknown_channel_changes_nothing() -> None:
    one, reader = make(), Reader()
    with pytest.raises(errors.UnknownName) as caught:
        subscribe(one, reader.queue, ["ONE", "shared-tpye"])
    assert (caught.value.kind, caught.value.name) == ("channel", "shared-tpye")
    assert caught.value.near[0] == "shared-type"
    subscribe(one, reader.queue, ["TWO"])
    with pytest.raises(errors.UnknownName):
        one.unsubscribe(reader.queue, ["TWO", "NOPE"])
    show(one, "ONE", 1)
    show(one, "TWO", 1)
    assert reader.take() == [("TWO", 1)]


def test_what_was_shown_is_dropped() -> None:
    one, reader = make(), Reader()
    subscribe(one, reader.queue, ["ONE"])
    show(one, "ONE", 1, 2, 2, 1, 3)
    assert reader.take() == [("ONE", 1), ("ONE", 2), ("ONE", 3)]
    assert one.counts == hub.HubCounts(shown=3, dropped=2, unknown=0, slow=0)


def test_a_stream_that_was_never_declared_is_counted() -> None:
    one = make()
    show(one, "NOPE", 1)
    assert one.counts.unknown == 1
    assert one.counts.shown == 0


class TestAfter:
    def test_everything_behind_the_position_comes_in_order(self) -> None:
        one, reader = make(), Reader()
        show(one, "ONE", *range(1, 11))
        answer = subscribe(one, reader.queue, ["ONE"], at(4))
        show(one, "ONE", 11)
        assert answer == {"ONE": hub.Subscribed("E1", 10, True, 6)}
        assert reader.take() == [("ONE", seq) for seq in range(5, 12)]

    def test_nothing_missed_is_recovered(self) -> None:
        one, reader = make(), Reader()
        assert subscribe(one, reader.queue, ["ONE"], at(0))["ONE"] == hub.Subscribed("E1", 0, True, 0)
        show(one, "TWO", 1, 2)
        assert subscribe(one, reader.queue, ["TWO"], at(2, "TWO"))["TWO"] == hub.Subscribed("E1", 2, True, 0)
        assert reader.take() == []
        assert reader.woken == 0

    @pytest.mark.parametrize("position", [Position("E1", 5), Position("E0", 18), Position("E1", 21)])
    def test_never_in_part(self, position: Position) -> None:
        one, reader = make(ring_events=10), Reader()
        show(one, "ONE", *range(1, 21))
        answer = subscribe(one, reader.queue, ["ONE"], {"ONE": position}, rewind=5)
        assert answer["ONE"] == hub.Subscribed("E1", 20, False, 0)
        assert reader.take() == []

    def test_the_oldest_position_that_is_whole(self) -> None:
        one, reader = make(ring_events=10), Reader()
        show(one, "ONE", *range(1, 21))
        assert subscribe(one, reader.queue, ["ONE"], at(10))["ONE"] == hub.Subscribed("E1", 20, True, 10)

    def test_a_gap_in_the_numbers_is_not_whole(self) -> None:
        one = make()
        show(one, "ONE", 1, 2, 5, 6)
        for seq, whole in ((1, False), (2, False), (3, False), (4, True), (5, True), (6, True)):
            assert subscribe(one, Reader().queue, ["ONE"], at(seq))["ONE"].recovered is whole

    def test_a_stream_that_continues_a_numbering(self) -> None:
        one = hub.Hub(now=lambda: NOON)
        one.declare("ONE", "one-type", Position("E1", 100))
        assert subscribe(one, Reader().queue, ["ONE"], at(100))["ONE"].recovered
        assert not subscribe(one, Reader().queue, ["ONE"], at(99))["ONE"].recovered
        show(one, "ONE", 101)
        assert subscribe(one, Reader().queue, ["ONE"], at(100))["ONE"] == hub.Subscribed("E1", 101, True, 1)

    def test_names_that_are_not_on_the_channels_mean_nothing(self) -> None:
        one, reader = make(), Reader()
        show(one, "TWO", 1)
        assert set(subscribe(one, reader.queue, ["ONE"], {**at(0), **at(0, "TWO"), **at(0, "GONE")})) == {"ONE"}
        assert reader.take() == []

    def test_several_streams_in_the_order_of_showing(self) -> None:
        one, reader = make(), Reader()
        for seq in range(1, 4):
            show(one, "TWO", seq)
            show(one, "ONE", seq)
        subscribe(one, reader.queue, ["dashboard-updates"], {**at(1), **at(0, "TWO")})
        assert reader.take() == [("TWO", 1), ("TWO", 2), ("ONE", 2), ("TWO", 3), ("ONE", 3)]

    def test_a_stream_followed_already_is_not_replayed(self) -> None:
        one, reader = make(), Reader()
        show(one, "ONE", 1, 2, 3)
        subscribe(one, reader.queue, ["ONE"], at(1))
        show(one, "ONE", 4)
        assert subscribe(one, reader.queue, ["one-type"], at(2))["ONE"] == hub.Subscribed("E1", 4, True, 0)
        assert subscribe(one, reader.queue, ["one-type"], at(0))["ONE"] == hub.Subscribed("E1", 4, False, 0)
        assert subscribe(one, reader.queue, ["dashboard-updates"], rewind=4)["ONE"].replayed == 0
        assert reader.take() == [("ONE", 2), ("ONE", 3), ("ONE", 4)]

    def test_a_stream_followed_over_a_gap_is_not_whole(self) -> None:
        one, reader = make(), Reader()
        subscribe(one, reader.queue, ["ONE"], at(0))
        show(one, "ONE", 1, 3)
        assert not subscribe(one, reader.queue, ["one-type"], at(1))["ONE"].recovered
        assert subscribe(one, reader.queue, ["one-type"], at(2))["ONE"].recovered

    def test_a_stream_that_left_the_channel_for_a_while_is_not_whole(self) -> None:
        one, reader = make(), Reader()
        subscribe(one, reader.queue, ["one-type"], at(0))
        one.declare("ONE", "else-type", Position("E1", 0))
        show(one, "ONE", 1, 2)
        one.declare("ONE", "one-type", Position("E1", 2))
        show(one, "ONE", 3)
        assert not subscribe(one, reader.queue, ["ONE"], at(0))["ONE"].recovered
        assert reader.take() == [("ONE", 3)]


class TestRewind:
    def test_the_newest_of_a_channel_across_its_streams(self) -> None:
        one, reader = make(), Reader()
        for seq in (1, 2, 3):
            show(one, "TWO", seq)
            show(one, "THREE", seq)
        answer = subscribe(one, reader.queue, ["shared-type"], rewind=3)
        assert reader.take() == [("THREE", 2), ("TWO", 3), ("THREE", 3)]
        assert answer["TWO"] == hub.Subscribed("E1", 3, False, 1)
        assert answer["THREE"] == hub.Subscribed("E1", 3, False, 2)

    def test_channels_that_overlap_give_each_event_once(self) -> None:
        one, reader = make(), Reader()
        show(one, "ONE", 1, 2)
        show(one, "TWO", 1, 2)
        subscribe(one, reader.queue, ["dashboard-updates", "ONE", "one-type"], rewind=2)
        assert reader.take() == [("ONE", 1), ("ONE", 2), ("TWO", 1), ("TWO", 2)]

    def test_beside_after(self) -> None:
        one, reader = make(), Reader()
        show(one, "ONE", 1, 2, 3)
        show(one, "TWO", 1, 2, 3)
        answer = subscribe(one, reader.queue, ["dashboard-updates"], at(1), rewind=1)
        assert reader.take() == [("ONE", 2), ("ONE", 3), ("TWO", 3)]
        assert (answer["ONE"].recovered, answer["TWO"].recovered) == (True, False)

    def test_more_than_there_is(self) -> None:
        one, reader = make(), Reader()
        show(one, "ONE", 1, 2)
        assert subscribe(one, reader.queue, ["ONE"], rewind=1000)["ONE"].replayed == 2

    def test_system(self) -> None:
        one, reader = make(), Reader()
        one.announce("reloaded", {"generation": 2})
        one.announce("reloaded", {"generation": 3})
        subscribe(one, reader.queue, ["system"], rewind=1)
        one.announce("broker", {})
        texts = [orjson.loads(entry.text) for entry in reader.queue.take(9, 10**6)]
        time = "2026-11-22T12:00:00.000Z"
        assert texts == [
            {"event": "system", "data": {"kind": "reloaded", "time": time, "generation": 3}},
            {"event": "system", "data": {"kind": "broker", "time": time}},
        ]


class TestDeclarations:
    def test_again_with_the_same_epoch_keeps_ring_and_position(self) -> None:
        one = make()
        show(one, "ONE", 1, 2)
        one.declare("ONE", "one-type", Position("E1", 9))
        assert subscribe(one, Reader().queue, ["ONE"], at(0))["ONE"] == hub.Subscribed("E1", 2, True, 2)

    def test_another_type_moves_it_to_another_channel(self) -> None:
        one, old, new = make(), Reader(), Reader()
        subscribe(one, old.queue, ["one-type"])
        subscribe(one, new.queue, ["shared-type"])
        one.declare("ONE", "shared-type", Position("E1", 0))
        show(one, "ONE", 1)
        assert (old.take(), new.take()) == ([], [("ONE", 1)])
        assert "one-type" not in one.channels
        one.unsubscribe(old.queue, ["one-type"])

    def test_a_new_epoch_begins_anew(self) -> None:
        one, reader = make(), Reader()
        subscribe(one, reader.queue, ["ONE"])
        show(one, "ONE", 1, 2)
        show(one, "ONE", 1, 2, epoch="E2")
        show(one, "ONE", 3)
        assert reader.take() == [("ONE", 1), ("ONE", 2), ("ONE", 1), ("ONE", 2)]
        assert one.counts.dropped == 1
        assert subscribe(one, Reader().queue, ["ONE"], at(0, epoch="E2"))["ONE"] == hub.Subscribed("E2", 2, True, 2)
        assert not subscribe(one, Reader().queue, ["ONE"], at(2))["ONE"].recovered

    def test_an_epoch_that_begins_in_the_middle_is_whole_only_from_there(self) -> None:
        one = make()
        show(one, "ONE", 1, 2, 3, 4)
        show(one, "ONE", 5, 6, epoch="E2")
        assert not subscribe(one, Reader().queue, ["ONE"], at(3, epoch="E2"))["ONE"].recovered
        assert subscribe(one, Reader().queue, ["ONE"], at(4, epoch="E2"))["ONE"] == hub.Subscribed("E2", 6, True, 2)

    def test_an_epoch_that_was_left_is_not_taken_up_again(self) -> None:
        one = make()
        show(one, "ONE", 1, epoch="E2")
        one.declare("ONE", "one-type", Position("E1", 0))
        show(one, "ONE", 2, epoch="E2")
        assert subscribe(one, Reader().queue, ["ONE"], at(0, epoch="E2"))["ONE"] == hub.Subscribed("E2", 2, True, 2)

    def test_forgotten_and_back(self) -> None:
        one, reader = make(), Reader()
        subscribe(one, reader.queue, ["dashboard-updates"], at(0))
        show(one, "ONE", 1)
        one.forget("ONE")
        one.forget("NEVER")
        show(one, "ONE", 2)
        assert reader.take() == [("ONE", 1), ("ONE", 2)]
        assert "ONE" not in one.channels
        with pytest.raises(errors.UnknownName):
            subscribe(one, Reader().queue, ["ONE"])
        assert "ONE" not in subscribe(one, Reader().queue, ["dashboard-updates"], at(0))
        one.declare("ONE", "one-type", Position("E2", 0))
        show(one, "ONE", 1, epoch="E2")
        assert reader.take() == [("ONE", 1)]

    def test_a_stream_declared_later_is_on_the_channel_of_all(self) -> None:
        one, reader = make(), Reader()
        subscribe(one, reader.queue, ["dashboard-updates"])
        one.declare("LATE", "late", Position("E1", 0))
        show(one, "LATE", 1)
        assert reader.take() == [("LATE", 1)]


class TestQueue:
    def test_woken_once_until_it_is_empty_again(self) -> None:
        one, reader = make(), Reader()
        subscribe(one, reader.queue, ["ONE"])
        show(one, "ONE", 1, 2, 3)
        assert reader.woken == 1
        assert reader.take(2) == [("ONE", 1), ("ONE", 2)]
        show(one, "ONE", 4)
        assert reader.woken == 1
        assert reader.take() == [("ONE", 3), ("ONE", 4)]
        assert not reader.queue.pending
        show(one, "ONE", 5)
        assert reader.woken == 2

    @pytest.mark.parametrize("options", [{"limit": 3}, {"limit_bytes": 100}])
    def test_full_is_slow_and_holds_nothing(self, options: dict[str, int]) -> None:
        one, reader, other = make(), Reader(**options), Reader()
        subscribe(one, reader.queue, ["ONE"])
        subscribe(one, other.queue, ["ONE"])
        assert one.fullest == 0
        show(one, "ONE", 1, 2, 3)
        assert not reader.queue.slow
        assert one.fullest == reader.queue.fill > other.queue.fill > 0
        show(one, "ONE", 4, 5)
        assert reader.queue.slow
        assert reader.woken == 2
        assert reader.take() == []
        assert len(other.take()) == 5
        one.remove(reader.queue)
        one.remove(reader.queue)
        assert one.counts.slow == 1
        assert one.subscribers == 1

    def test_one_frame_above_the_bound_goes_through_an_empty_queue(self) -> None:
        one, reader = make(), Reader(limit_bytes=10)
        subscribe(one, reader.queue, ["ONE"])
        show(one, "ONE", 1)
        assert reader.take() == [("ONE", 1)]

    def test_a_replay_is_not_bound_by_the_queue_but_what_comes_behind_it_is(self) -> None:
        one, reader = make(), Reader(limit=3)
        show(one, "ONE", *range(1, 101))
        subscribe(one, reader.queue, ["ONE"], at(0))
        show(one, "ONE", 101, 102)
        assert not reader.queue.slow
        assert reader.take(50) == [("ONE", seq) for seq in range(1, 51)]
        assert reader.take() == [("ONE", seq) for seq in range(51, 103)]

    def test_replays_do_not_pile_up(self) -> None:
        one, reader = make(), Reader(limit_replay=100)
        show(one, "ONE", *range(1, 101))
        for _ in range(3):
            subscribe(one, reader.queue, ["ONE"], at(0))
            one.unsubscribe(reader.queue, ["ONE"])
        assert reader.queue.slow
        assert not reader.queue.pending

    def test_taken_by_bytes(self) -> None:
        one, reader = make(), Reader()
        subscribe(one, reader.queue, ["ONE"])
        for seq in range(1, 11):
            one.broadcast(event("ONE", seq, value=b"x" * 1000))
        assert len(reader.queue.take(100, 2500)) == 3
        assert len(reader.queue.take(100, 1)) == 1
        assert len(reader.queue.take(100, 10**6)) == 6

    def test_a_confirmation_goes_before_the_replay(self) -> None:
        one, reader = make(), Reader()
        show(one, "ONE", 1)
        reply = hub.reply("reply", {})
        subscribe(one, reader.queue, ["ONE"], at(0), confirm=lambda answer: reader.queue.offer(reply))
        assert reader.take() == [("-", 0), ("ONE", 1)]


class TestRing:
    def test_bounds(self) -> None:
        one = make(ring_events=1000, ring_bytes=5000)
        for seq in range(1, 50):
            one.broadcast(event("ONE", seq, value=b"x" * 1000))
        kept = one.events(limit=10**6)
        assert [entry.seq for entry in kept] == [46, 47, 48, 49]
        one.broadcast(event("ONE", 50, value=b"x" * 6000))
        assert one.events() == []
        assert not subscribe(one, Reader().queue, ["ONE"], at(49))["ONE"].recovered
        assert subscribe(one, Reader().queue, ["ONE"], at(50))["ONE"].recovered

    def test_history(self) -> None:
        one = make()
        for seq in range(1, 6):
            one.broadcast(event("ONE", seq, time=NOON + seq))
            one.broadcast(event("TWO", seq, time=NOON + seq))
            one.announce("noise", {})

        def seqs(entries: Sequence[hub.Entry]) -> str:
            return " ".join(f"{entry.head.stream[0]}{entry.seq}" for entry in entries if entry.head)

        assert seqs(one.events()) == "O1 T1 O2 T2 O3 T3 O4 T4 O5 T5"
        assert seqs(one.events(limit=3)) == "T4 O5 T5"
        assert seqs(one.events(["TWO", "TWO"], limit=2)) == "T4 T5"
        assert seqs(one.events(since=NOON + 2, until=NOON + 4)) == "O2 T2 O3 T3"
        page = one.events(since=NOON + 2, after=0, limit=3)
        assert seqs(page) == "O2 T2 O3"
        page = one.events(after=page[-1].order, limit=3)
        assert seqs(page) == "T3 O4 T4"
        assert seqs(one.events(after=page[-1].order)) == "O5 T5"
        assert one.events(after=one.events()[-1].order) == []
        with pytest.raises(errors.UnknownName):
            one.events(["NOPE"])


class Interleavings(stateful.RuleBasedStateMachine):
    """Whatever is published, subscribed, cut off and resumed: each event once and in order, or not recovered."""

    STREAMS = ("ONE", "TWO", "THREE")
    CHANNELS = ("dashboard-updates", "ONE", "one-type", "TWO", "shared-type", "system")
    CLIENTS = st.integers(0, 1)

    def __init__(self) -> None:
        super().__init__()
        self.hub = make(ring_events=6, ring_bytes=400)
        self.made: dict[str, Position] = {name: Position("E1", 0) for name in self.STREAMS}
        self.shown: dict[str, list[Position]] = collections.defaultdict(list)
        self.readers: list[Reader | None] = [None, None]
        self.on: list[set[str]] = [set(), set()]
        # Per client and stream: the position up to which the client has everything, or None when it was told otherwise.
        self.have: list[dict[str, Position]] = [{}, {}]

    @stateful.rule(stream=st.sampled_from(STREAMS), count=st.integers(1, 4), again=st.booleans(), skip=st.booleans())
    def publish(self, stream: str, count: int, again: bool, skip: bool) -> None:
        for _ in range(count):
            epoch, seq = self.made[stream]
            if again and seq:
                self.hub.broadcast(event(stream, seq, epoch, b"dup"))
            self.made[stream] = Position(epoch, seq + 1 + skip)
            self.shown[stream].append(self.made[stream])
            self.hub.broadcast(event(stream, *self.made[stream][::-1], b"x" * (seq % 50)))
            again = skip = False

    @stateful.rule(stream=st.sampled_from(STREAMS))
    def new_epoch(self, stream: str) -> None:
        self.made[stream] = Position(f"E{int(self.made[stream].epoch[1:]) + 1}", 0)

    @stateful.rule(stream=st.sampled_from(STREAMS))
    def redeclare(self, stream: str) -> None:
        self.hub.declare(stream, TYPES[stream], self.made[stream])

    def follows(self, client: int, stream: str) -> bool:
        return bool(self.on[client] & {"dashboard-updates", stream, TYPES[stream]})

    @stateful.rule(client=CLIENTS, limit=st.sampled_from([3, 100]))
    def connect(self, client: int, limit: int) -> None:
        self.disconnect(client)
        self.readers[client] = Reader(limit=limit)

    @stateful.rule(client=CLIENTS)
    def disconnect(self, client: int) -> None:
        """What waits in the queue is lost with the connection."""
        reader = self.readers[client]
        if reader is not None:
            self.hub.remove(reader.queue)
        self.readers[client], self.on[client] = None, set()

    @stateful.rule(
        client=CLIENTS,
        channels=st.lists(st.sampled_from(CHANNELS), min_size=1, max_size=3),
        resume=st.booleans(),
        rewind=st.sampled_from([0, 0, 2, 9]),
    )
    def subscribe(self, client: int, channels: list[str], resume: bool, rewind: int) -> None:
        reader = self.readers[client]
        if reader is None:
            return
        self.read(client, 10**6)
        if self.readers[client] is None:
            return
        before = {stream for stream in self.STREAMS if self.follows(client, stream)}
        after = dict(self.have[client]) if resume else {}
        answer = subscribe(self.hub, reader.queue, channels, after, rewind)
        self.on[client] |= set(channels)
        assert set(answer) & set(self.STREAMS) == {
            stream for stream in self.STREAMS if set(channels) & {"dashboard-updates", stream, TYPES[stream]}
        }
        for stream, got in answer.items():
            if stream in self.STREAMS and stream not in before:
                self._fresh(client, stream, got, after.get(stream))
            elif got.recovered:
                assert after[stream] == self.have[client][stream]

    def _fresh(self, client: int, stream: str, got: hub.Subscribed, after: Position | None) -> None:
        shown = self.shown[stream]
        if got.recovered:
            assert after is not None
            missed = [one for one in shown if one.epoch == after.epoch and one.seq > after.seq]
            assert got.epoch == after.epoch and len(missed) == got.replayed == got.seq - after.seq
            assert not shown or shown[-1].epoch == after.epoch or after.seq == 0
            return
        if after is not None:
            assert got.replayed == 0
        # The client starts over: it has everything behind the first event that it gets now.
        behind = shown[-got.replayed - 1] if got.replayed < len(shown) else None
        if got.replayed:
            self.have[client][stream] = behind or Position(shown[0].epoch, shown[0].seq - 1)
        else:
            self.have[client][stream] = Position(got.epoch, got.seq)

    @stateful.rule(client=CLIENTS, channels=st.lists(st.sampled_from(CHANNELS), max_size=2))
    def unsubscribe(self, client: int, channels: list[str]) -> None:
        reader = self.readers[client]
        if reader is not None:
            self.read(client, 10**6)
            self.hub.unsubscribe(reader.queue, channels)
            self.on[client] -= set(channels)

    @stateful.rule(client=CLIENTS, count=st.integers(1, 8))
    def read(self, client: int, count: int) -> None:
        reader = self.readers[client]
        if reader is None:
            return
        if reader.queue.slow:
            self.disconnect(client)
            return
        for entry in reader.queue.take(count, 10**9):
            if entry.head is not None:
                self._got(client, entry.head.stream, Position(entry.head.epoch, entry.seq))

    def _got(self, client: int, stream: str, position: Position) -> None:
        """The very next one that was shown, whatever lies between (gaps of the publisher are no loss of the hub)."""
        have = self.have[client].get(stream)
        later = [one for one in self.shown[stream] if have is None or self._later(one, have)]
        assert later and later[0] == position
        self.have[client][stream] = position

    @staticmethod
    def _later(one: Position, other: Position) -> bool:
        return (int(one.epoch[1:]), one.seq) > (int(other.epoch[1:]), other.seq)

    @stateful.invariant()
    def rings_are_bounded(self) -> None:
        for stream in self.STREAMS:
            kept = self.hub.events([stream], limit=10**6)
            assert len(kept) <= 6 and sum(entry.size for entry in kept) <= 400

    def teardown(self) -> None:
        for client in (0, 1):
            self.read(client, 10**6)
            reader = self.readers[client]
            for stream in self.STREAMS:
                if reader is not None and not reader.queue.slow and self.follows(client, stream) and self.shown[stream]:
                    assert not self._later(self.shown[stream][-1], self.have[client][stream])
            self.disconnect(client)
        assert self.hub.subscribers == 0


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=profiles.examples(300), stateful_step_count=40)


def test_of_streams_that_went_long_ago_nothing_is_kept() -> None:
    one, reader = make(), Reader()
    subscribe(one, reader.queue, [spec.ALL_CHANNEL], after={})
    for number in range(hub.MAX_FORGOTTEN + 50):
        one.declare(f"S{number}", f"s{number}", Position("E1", 0))
        one.broadcast(event(f"S{number}", 1))
        one.forget(f"S{number}")
    one.declare("S60", "s60", Position("E2", 0))
    show(one, "S60", 1)
    show(one, "S60", 1, epoch="E2")
    assert reader.take()[-1] == ("S60", 1)
    assert one.counts.dropped == 1
    one.forget("S60")
    assert len(one._streams) == len(TYPES) + hub.MAX_FORGOTTEN
    assert len(reader.queue.since) <= len(TYPES) + hub.MAX_FORGOTTEN
    show(one, "S0", 2)
    assert one.counts.unknown == 1


def test_what_is_older_joins_on_to_a_ring_that_moved_on() -> None:
    one = make(ring_events=3)
    for seq in range(1, 11):
        one.broadcast(event("ONE", seq))
    reader = Reader()
    after = {"ONE": Position("E1", 2)}
    asked = one.missing(reader.queue, hub.SubscriptionRequest(["ONE"], after))
    assert asked == {"ONE": (Position("E1", 2), 8)}
    for seq in (11, 12):
        one.broadcast(event("ONE", seq))
    # It holds more than was asked for, and more than was shown
    older = {"ONE": [event("ONE", seq) for seq in range(3, 15)]}
    answer = subscribe(one, reader.queue, ["ONE"], after, older=older)
    assert answer["ONE"] == hub.Subscribed("E1", 12, True, 10)
    for seq in (13, 14):
        one.broadcast(event("ONE", seq))
    assert [seq for _, seq in reader.take()] == list(range(3, 15))


def test_what_is_older_and_does_not_reach_the_ring_is_no_recovery() -> None:
    one = make(ring_events=3)
    for seq in range(1, 11):
        one.broadcast(event("ONE", seq))
    reader = Reader()
    older = {"ONE": [event("ONE", seq) for seq in range(3, 7)]}
    answer = subscribe(one, reader.queue, ["ONE"], {"ONE": Position("E1", 2)}, older=older)
    assert not answer["ONE"].recovered
    assert reader.take() == []


@pytest.mark.parametrize(("streams", "held"), [(1, 6000), (8, 5000), (40, 1000), (1000, 1000)])
def test_the_fewer_streams_the_longer_their_rings(streams: int, held: int) -> None:
    one = hub.Hub(now=lambda: NOON)
    for number in range(streams):
        one.declare(f"S{number}", "other", Position("E1", 0))
    show(one, "S0", *range(1, 6502))
    assert subscribe(one, Reader().queue, ["S0"], at(6501 - held, "S0"))["S0"].recovered
    assert not subscribe(one, Reader().queue, ["S0"], at(6500 - held, "S0"))["S0"].recovered
