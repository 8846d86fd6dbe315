"""The ways of delivery: what a subscriber that reads slowly, or wants fewer events, gets of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regstream import errors, hub
from regstream.event import Event, Head, Position
from regstream.spec import Policy, Priority
from tests.test_hub import NOON, subscribe

RANKS = {"HI": Priority.HIGH, "LO": Priority.LOW, "NO": Priority.NORMAL}
CONFLATE = hub.DeliveryOptions(Policy.CONFLATE)
DROP = hub.DeliveryOptions(Policy.DROP_OLDEST)


class World:
    """A hub with three streams of different priority, and one subscriber."""

    def __init__(self, declared: Mapping[str, hub.Delivery] | None = None, **limits: int) -> None:
        self.hub = hub.Hub(now=lambda: NOON)
        self.seq = dict.fromkeys(RANKS, 0)
        for name in RANKS:
            self.hub.declare(name, f"{name.lower()}-type", Position("E1", 0))
        self.hub.deliver(declared or {})
        self.woken = 0
        self.reader = hub.Subscriber(self._wake, **limits)

    def _wake(self) -> None:
        self.woken += 1

    def join(self, *channels: str, **more: Any) -> Mapping[str, hub.Subscribed]:
        return subscribe(self.hub, self.reader, channels, **more)

    def show(self, stream: str, *keys: str | None) -> None:
        head = Head(stream, "E1", f"{stream.lower()}-type", "t", RANKS[stream], "2026", "LATAM")
        for key in keys:
            self.seq[stream] += 1
            self.hub.broadcast(Event(head, self.seq[stream], key, b"{}"))

    def take(self, now: float = 0.0, count: int = 10**6) -> list[str]:
        return [self._told(entry) for entry in self.reader.take(count, 10**9, now)]

    @staticmethod
    def _told(entry: hub.Entry) -> str:
        if entry.name == "lagging":
            data = orjson.loads(entry.value)
            assert data["total"] == sum(data["dropped"].values())
            return "lagging " + " ".join(f"{name}:{count}" for name, count in sorted(data["dropped"].items()))
        return f"{entry.head.stream}{entry.seq}" if entry.head else entry.name


class TestConflate:
    def test_the_newest_of_each_key_in_the_order_of_the_events(self) -> None:
        world = World()
        world.join("dashboard-updates", wish=CONFLATE)
        world.show("HI", "a", "b", "a", "c")
        world.show("LO", "a", "a")
        assert world.take() == ["HI2", "HI3", "HI4", "LO2"]
        assert world.take() == []
        assert world.woken == 1

    def test_a_stream_without_keys_is_one_key(self) -> None:
        world = World()
        world.join("HI", "LO", wish=CONFLATE)
        world.show("HI", None, None)
        world.show("LO", None, None, None)
        assert world.take() == ["HI2", "LO3"]

    def test_a_key_that_changes_all_the_time_does_not_wait_for_ever(self) -> None:
        world = World()
        world.join("HI", wish=CONFLATE)
        world.show("HI", "a", "b", "c")
        got = []
        for _ in range(6):
            got += world.take(count=1)
            world.show("HI", "c")
        assert got == ["HI1", "HI2", "HI3", "HI6", "HI7", "HI8"]

    def test_as_often_as_the_rate_says_and_no_later(self) -> None:
        world = World()
        world.join("HI", wish=hub.DeliveryOptions(Policy.CONFLATE, 0.5))
        world.show("HI", "a")
        assert world.take(100.0) == ["HI1"]
        world.show("HI", "a", "b", "a")
        assert world.take(100.5) == []
        assert world.reader.wait(100.5) == pytest.approx(1.5)
        assert world.take(102.003) == ["HI3", "HI4"]
        assert world.reader.wait(102.003) is None
        world.show("HI", "a")
        assert world.reader.wait(103.0) == pytest.approx(1.0)
        assert world.take(104.0) == ["HI5"]
        world.show("HI", "a")
        assert world.take(111.0) == ["HI6"]

    def test_too_many_keys_shrink_by_priority_and_are_told(self) -> None:
        world = World(limit_lane=4)
        world.join("dashboard-updates", wish=CONFLATE)
        world.show("LO", "a", "b")
        world.show("HI", "c", "d")
        world.show("NO", "e")
        assert world.take(50.0) == ["lagging LO:1", "LO2", "HI1", "HI2", "NO1"]

    def test_what_was_passed_over_is_no_recovery(self) -> None:
        world = World()
        world.join("HI", wish=CONFLATE, after={"HI": Position("E1", 0)})
        world.show("HI", "a", "a", "b")
        assert world.take() == ["HI2", "HI3"]
        again = world.join("HI", wish=CONFLATE, after={"HI": Position("E1", 0)})
        assert again["HI"] == hub.Subscribed("E1", 3, False, 0)
        assert world.join("HI", wish=CONFLATE, after={"HI": Position("E1", 3)})["HI"].recovered

    def test_what_was_passed_over_before_something_older_was_is_no_recovery_either(self) -> None:
        world = World()
        world.join("HI", wish=CONFLATE, after={"HI": Position("E1", 0)})
        world.show("HI", "a", "b", "b", "a")
        assert world.take() == ["HI3", "HI4"]
        assert not world.join("HI", wish=CONFLATE, after={"HI": Position("E1", 1)})["HI"].recovered

    def test_passed_over_in_two_numberings_is_no_recovery_in_either(self) -> None:
        world = World()
        world.join("HI", wish=CONFLATE, after={"HI": Position("E1", 0)})
        world.show("HI", "a")
        head = Head("HI", "E2", "hi-type", "t", Priority.HIGH, "2026", "LATAM")
        for seq, key in enumerate("cbbac", 1):
            world.hub.broadcast(Event(head, seq, key, b"{}"))
        assert world.take() == ["HI3", "HI4", "HI5"]
        for seq in range(6):
            assert not world.join("HI", wish=CONFLATE, after={"HI": Position("E2", seq)})["HI"].recovered

    def test_what_was_answered_as_recovered_is_not_replaced_any_more(self) -> None:
        world, slowly = World(), hub.DeliveryOptions(Policy.CONFLATE, 0.5)
        world.join("HI", wish=slowly, after={"HI": Position("E1", 0)})
        world.show("HI", "a")
        assert world.take(1.0) == ["HI1"]
        world.show("HI", "b")
        assert world.join("HI", wish=slowly, after={"HI": Position("E1", 1)})["HI"].recovered
        world.show("HI", "b")
        assert world.take(9.0) == ["HI2", "HI3"]


class TestDropOldest:
    def test_the_oldest_of_the_lowest_priority_goes_first(self) -> None:
        world = World(limit_lane=4)
        world.join("dashboard-updates", wish=DROP)
        world.show("LO", "a", "b")
        world.show("HI", "c", "d")
        world.show("NO", "e", "f")
        assert world.take(9.0) == ["lagging LO:2", "HI1", "HI2", "NO1", "NO2"]
        world.show("HI", *"abcd")
        world.show("LO", "x")
        assert world.take(9.5) == ["HI3", "HI4", "HI5", "HI6"]
        assert world.reader.wait(9.5) == pytest.approx(0.5)
        assert world.take(10.0) == ["lagging LO:1"]
        assert world.hub.counts.lost == 3
        world.hub.unsubscribe(world.reader, ["dashboard-updates"])
        assert world.hub.counts.lost == 3
        world.hub.remove(world.reader)
        assert world.hub.counts.lost == 3
        assert not world.reader.pending

    def test_a_rate_is_kept_and_what_it_leaves_waits(self) -> None:
        world = World()
        world.join("HI", wish=hub.DeliveryOptions(Policy.DROP_OLDEST, 2))
        world.show("HI", *"abcde")
        assert world.take(10.0) == ["HI1"]
        assert world.reader.wait(10.0) == pytest.approx(0.5)
        assert world.take(10.5) == ["HI2"]
        assert world.take(10.7) == []
        assert world.take(11.2) == ["HI3"]
        assert world.take(60.0) == ["HI4"]

    def test_a_fast_rate_leaves_several_at_once(self) -> None:
        world = World()
        world.join("HI", wish=hub.DeliveryOptions(Policy.DROP_OLDEST, 1000))
        world.show("HI", *["k"] * 3000)
        assert len(world.take(10.0)) == 50
        assert 0.04 < (world.reader.wait(10.0) or 0) < 0.06
        sent = 0
        for step in range(1, 21):
            sent += len(world.take(10.0 + step * 0.05))
        assert sent == pytest.approx(1000, abs=1)

    def test_what_was_dropped_is_told_to_who_has_left_the_channel_too(self) -> None:
        world = World(limit_lane=2)
        world.join("HI", wish=DROP)
        world.show("HI", *"abcd")
        world.hub.unsubscribe(world.reader, ["HI"])
        assert world.reader.wait(0.0) == 0.0
        assert world.take() == ["lagging HI:2"]
        assert world.reader.wait(0.0) is None and not world.reader.pending

    def test_dropped_is_no_recovery_and_comes_back_with_after(self) -> None:
        world = World(limit_lane=2)
        world.join("HI", wish=DROP, after={"HI": Position("E1", 0)})
        world.show("HI", *"abcd")
        assert world.take(5.0) == ["lagging HI:2", "HI3", "HI4"]
        assert not world.join("HI", after={"HI": Position("E1", 0)})["HI"].recovered
        world.hub.unsubscribe(world.reader, ["HI"])
        answer = world.join("HI", after={"HI": Position("E1", 0)})
        assert answer["HI"] == hub.Subscribed("E1", 4, True, 4)
        assert world.take() == ["HI1", "HI2", "HI3", "HI4"]


class TestDisconnect:
    def test_with_a_rate_it_waits_until_too_much_does(self) -> None:
        world = World(limit_lane=3)
        world.join("HI", wish=hub.DeliveryOptions(max_rate=1))
        world.show("HI", *"abc")
        assert world.take(0.0) == ["HI1"]
        world.show("HI", "d")
        assert not world.reader.slow
        world.show("HI", "e")
        assert world.reader.slow
        assert world.take(100.0) == []


class TestChannels:
    def test_the_narrowest_channel_says_how(self) -> None:
        world = World()
        world.join("dashboard-updates", wish=CONFLATE)
        world.join("HI")
        world.join("lo-type", wish=hub.DeliveryOptions(Policy.DROP_OLDEST))
        for stream in RANKS:
            world.show(stream, "k", "k")
        assert sorted(world.take()) == ["HI1", "HI2", "LO1", "LO2", "NO2"]

    def test_what_is_declared_holds_for_who_asks_for_nothing(self) -> None:
        world = World({"dashboard-updates": hub.Delivery(Policy.CONFLATE), "HI": hub.Delivery(max_rate=1)})
        world.join("dashboard-updates")
        world.show("NO", "k", "k")
        world.show("HI", "k", "k")
        assert world.take() == ["NO2", "HI2"]
        world.join("HI", wish=hub.DeliveryOptions(Policy.DROP_OLDEST))
        world.show("HI", "k", "k")
        assert world.take(0.0) == ["HI3"]
        assert world.reader.wait(0.0) == pytest.approx(1.0)

    def test_a_new_declaration_holds_from_the_next_event_on(self) -> None:
        world = World({"HI": hub.Delivery(Policy.CONFLATE, 0.1)})
        world.join("HI")
        world.show("HI", "k")
        assert world.take(1.0) == ["HI1"]
        world.show("HI", "k", "k")
        world.hub.deliver({})
        world.show("HI", "k")
        assert world.take(1.1) == ["HI3", "HI4"]

    def test_leaving_a_channel_takes_what_waits_of_it_along(self) -> None:
        world = World()
        world.join("HI", "LO", wish=hub.DeliveryOptions(Policy.CONFLATE, 0.1))
        world.take(1.0)
        world.show("HI", "k")
        world.show("LO", "k")
        world.hub.unsubscribe(world.reader, ["HI"])
        assert world.take(1.0) == ["LO1"]

    def test_leaving_a_channel_changes_nothing_of_what_a_round_has_taken_up(self) -> None:
        world = World()
        world.join("HI", "LO", wish=CONFLATE)
        world.show("HI", "a", "b")
        assert world.take(count=1) == ["HI1"]
        world.show("HI", "b")
        world.hub.unsubscribe(world.reader, ["LO"])
        assert world.take() == ["HI2", "HI3"]

    def test_leaving_nothing_changes_nothing(self) -> None:
        world = World()
        world.join("HI", wish=CONFLATE)
        world.show("HI", "a")
        world.hub.unsubscribe(world.reader, [])
        world.show("HI", "b")
        assert world.take() == ["HI1", "HI2"]

    def test_another_way_for_a_stream_does_not_change_the_order_of_its_events(self) -> None:
        world = World()
        world.join("dashboard-updates", wish=hub.DeliveryOptions(Policy.CONFLATE, 0.5))
        world.show("HI", "a")
        assert world.take(1.0) == ["HI1"]
        world.show("HI", "a")
        world.join("HI")
        world.show("HI", "a")
        assert world.take(1.1) == ["HI2", "HI3"]

    def test_the_confirmation_and_the_replay_go_before_live(self) -> None:
        world = World()
        world.show("HI", *"aab")
        reply = hub.reply("subscribed", {})
        world.join("HI", wish=CONFLATE, after={"HI": Position("E1", 1)}, confirm=lambda _: world.reader.offer(reply))
        world.show("HI", *"ab")
        assert world.take() == ["subscribed", "HI2", "HI3", "HI4", "HI5"]

    def test_so_many_ways_and_no_more(self) -> None:
        world = World()
        world.join("dashboard-updates")
        for rate in range(1, 8):
            world.join("HI", wish=hub.DeliveryOptions(max_rate=rate))
        for rate, channel in enumerate(["HI", "LO", "NO", "hi-type", "lo-type", "no-type", "system"], 1):
            world.join(channel, wish=hub.DeliveryOptions(max_rate=rate))
        with pytest.raises(errors.BadValue, match="at most 8"):
            world.join("immediate-alert", wish=hub.DeliveryOptions(max_rate=99))
        assert world.join("HI", wish=hub.DeliveryOptions(max_rate=99))["HI"].epoch == "E1"


class TestSnapshot:
    def test_the_newest_of_every_key_then_live(self) -> None:
        world = World()
        world.show("HI", *"abac")
        world.show("LO", None, None)
        answer = world.join("HI", "LO", "NO", snapshot=True)
        assert answer == {
            "HI": hub.Subscribed("E1", 4, False, 0, 3),
            "LO": hub.Subscribed("E1", 2, False, 0, 1),
            "NO": hub.Subscribed("E1", 0, False, 0, 0),
        }
        world.show("HI", "a")
        assert world.take() == ["HI2", "HI3", "HI4", "LO2", "HI5"]

    def test_what_is_recovered_needs_none(self) -> None:
        world = World()
        world.show("HI", *"abc")
        world.show("LO", *"abc")
        after = {"HI": Position("E1", 2), "LO": Position("E0", 2)}
        answer = world.join("HI", "LO", snapshot=True, after=after)
        assert answer["HI"] == hub.Subscribed("E1", 3, True, 1, 0)
        assert answer["LO"] == hub.Subscribed("E1", 3, False, 0, 3)
        assert world.take() == ["HI3", "LO1", "LO2", "LO3"]

    def test_beside_a_rewind_each_comes_once(self) -> None:
        world = World()
        world.show("HI", *"abaca")
        answer = world.join("HI", snapshot=True, rewind=2)
        assert answer["HI"] == hub.Subscribed("E1", 5, False, 2, 1)
        assert world.take() == ["HI2", "HI4", "HI5"]

    def test_a_part_is_not_whole(self) -> None:
        world = World()
        world.show("HI", *"aab")
        world.join("HI", snapshot=True)
        assert not world.join("HI", after={"HI": Position("E1", 2)})["HI"].recovered
        assert world.join("HI", after={"HI": Position("E1", 3)})["HI"].recovered

    def test_another_numbering_begins_with_nothing(self) -> None:
        world = World()
        world.show("HI", *"ab")
        world.hub.declare("HI", "hi-type", Position("E2", 0))
        assert world.join("HI", snapshot=True)["HI"] == hub.Subscribed("E2", 0, False, 0, 0)

    def test_bounded_by_keys_and_by_bytes(self) -> None:
        one = hub.Hub(now=lambda: NOON, ring_events=10, ring_bytes=10_000)
        one.declare("HI", "hi-type", Position("E1", 0))
        head = Head("HI", "E1", "hi-type", "t", Priority.HIGH, "2026", "LATAM")
        for seq in range(1, 101):
            one.broadcast(Event(head, seq, f"k{seq}", b"{}"))
        reader = hub.Subscriber(lambda: None)
        assert subscribe(one, reader, ["HI"], snapshot=True)["HI"].snapshot == 10
        assert [entry.seq for entry in reader.take(99, 10**6)] == list(range(91, 101))
        for seq in range(101, 111):
            one.broadcast(Event(head, seq, f"k{seq}", b"x" * 3000))
        assert subscribe(one, hub.Subscriber(lambda: None), ["HI"], snapshot=True)["HI"].snapshot == 3


KEYS = st.sampled_from(["a", "b", "c", None])
ACTIONS = st.lists(
    st.one_of(st.tuples(st.sampled_from(sorted(RANKS)), KEYS), st.tuples(st.just("take"), st.integers(1, 4))),
    max_size=80,
)


@given(ACTIONS, st.sampled_from(list(Policy)), st.sampled_from([None, 0.5, 3.0, 500.0]))
@settings(deadline=None)
def test_whatever_comes(actions: Sequence[tuple[str, Any]], policy: Policy, rate: float | None) -> None:
    """In every stream the order holds, nothing comes twice, and what does not come was replaced or is counted."""
    world = World(limit_lane=7)
    world.join("dashboard-updates", wish=hub.DeliveryOptions(policy, rate))
    now, got, dropped = 0.0, [], 0
    shown: list[tuple[str, str | None]] = []

    def take(count: int) -> None:
        nonlocal dropped
        for entry in world.reader.take(count, 10**9, now):
            if entry.name == "lagging":
                dropped += orjson.loads(entry.value)["total"]
            else:
                assert entry.head
                got.append((entry.head.stream, entry.seq, entry.key))

    for what, value in actions:
        if what == "take":
            now += 0.3
            take(value)
        else:
            world.show(what, value)
            shown.append((what, value))
    while not world.reader.slow and (wait := world.reader.wait(now)) is not None:
        now += wait + 1e-9
        take(100)
    for stream in RANKS:
        seqs = [seq for name, seq, _ in got if name == stream]
        assert seqs == sorted(set(seqs))
    if world.reader.slow:
        assert policy is Policy.DISCONNECT
    elif policy is Policy.CONFLATE and not dropped:
        newest = {one: number for number, one in enumerate(shown)}
        assert {(name, key) for name, _, key in got} == set(newest)
        last = {(name, key): seq for name, seq, key in got}
        numbers = {name: [one for one in shown if one[0] == name] for name in RANKS}
        assert all(numbers[name][seq - 1] == (name, key) for (name, key), seq in last.items())
        assert all((name, key) not in numbers[name][seq:] for (name, key), seq in last.items())
    elif policy is not Policy.CONFLATE:
        assert len(got) + dropped == len(shown)
