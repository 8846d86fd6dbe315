"""A feed shows its readers what their own queues would have shown them, in the same order."""

from __future__ import annotations

import random
from typing import Any

import pytest

from regstream import hub, spec
from regstream.event import Event, Head, Position
from regstream.hub import feed
from regstream.server.transports import writer

TYPES = {"ONE": "one-type", "TWO": "two-type"}
CHANNELS = ["dashboard-updates", "ONE", "TWO", "one-type", "system"]
Place = tuple[str, int]


def event(stream: str, seq: int, size: int = 10) -> Event:
    head = Head(stream, "E", TYPES[stream], "t", spec.Priority.LOW, "2026", "LATAM")
    return Event(head, seq, None, b'"%b"' % (b"x" * size))


class Outlets(writer.FlushScheduler):
    """The real ones, flushed by hand."""

    def _begin(self) -> None:
        pass

    def _flush(self) -> None:
        raise AssertionError

    def flush(self) -> None:
        feeds, ready = self._feeds, self._ready
        self._feeds, self._ready = [], []
        for one in feeds:
            self._serve(one)
        for reader in ready:
            reader.write(0.0)

    def look_again(self, outlet: writer.BufferedWriter) -> None:
        self._ready.append(outlet)


class Reader(writer.BufferedWriter):
    def __init__(self, outlets: Outlets, shares: bool, **limits: int) -> None:
        super().__init__(outlets, limits)
        if not shares:
            self.subscriber.share = None
        self.got: list[Place] = []
        self.writes = 0
        self.room = self.open = self.takes_part = True
        self.cut = False

    @property
    def is_open(self) -> bool:
        return self.open

    @property
    def has_room(self) -> bool:
        return self.room

    @property
    def shares(self) -> bool:
        return self.takes_part

    def send(self, entries: list[hub.Entry]) -> None:
        self.writes += 1
        self.got += [(entry.name, entry.seq or len(entry.text)) for entry in entries]

    def too_slow(self) -> None:
        self.cut = True


class World:
    """One hub and its readers, who are on all streams and share from the first flush on."""

    def __init__(self, count: int, shares: bool = True, **limits: int) -> None:
        self.hub = hub.Hub(now=lambda: 0.0)
        for stream, type_ in TYPES.items():
            self.hub.declare(stream, type_, Position("E", 0))
        self.outlets = Outlets()
        self.readers = [Reader(self.outlets, shares, **limits) for _ in range(count)]
        self.seq = dict.fromkeys(TYPES, 0)
        for reader in self.readers:
            self.subscribe(reader, "dashboard-updates")
        self.outlets.flush()

    def subscribe(self, reader: Reader, *channels: str, **more: Any) -> None:
        def confirm(answer: Any) -> None:
            reader.subscriber.offer(hub.reply("subscribed", len(answer)))

        self.hub.subscribe(reader.subscriber, hub.SubscriptionRequest(channels, **more), confirm)

    def show(self, stream: str = "ONE", size: int = 10) -> None:
        self.seq[stream] += 1
        self.hub.broadcast(event(stream, self.seq[stream], size))

    @property
    def sharing(self) -> list[bool]:
        return [reader.subscriber.feed is not None for reader in self.readers]


def seqs(reader: Reader) -> list[int]:
    return [seq for name, seq in reader.got if name.endswith("-type")]


def test_whoever_has_nothing_waiting_shares() -> None:
    world = World(3)
    assert world.sharing == [True] * 3
    world.show()
    world.show()
    assert all(reader.subscriber.pending for reader in world.readers)
    world.outlets.flush()
    assert [seqs(reader) for reader in world.readers] == [[1, 2]] * 3
    assert not any(reader.subscriber.pending for reader in world.readers)
    assert [reader.writes for reader in world.readers] == [2] * 3


def test_a_reply_comes_between_the_events_between_which_it_was_given() -> None:
    world = World(2)
    first, second = world.readers
    world.show()
    first.subscriber.offer(hub.reply("pong", 0))
    world.show()
    assert world.sharing == [False, True]
    world.outlets.flush()
    assert [name for name, _ in first.got] == ["subscribed", "one-type", "pong", "one-type"]
    assert seqs(second) == [1, 2]
    assert world.sharing == [True, True]


def test_who_has_no_room_gets_a_queue_of_its_own_and_shares_again_when_it_has_caught_up() -> None:
    world = World(2)
    slow, quick = world.readers
    slow.room = False
    for _ in range(3):
        world.show()
        world.outlets.flush()
    assert world.sharing == [False, True] and seqs(slow) == [] and seqs(quick) == [1, 2, 3]
    slow.room = True
    world.outlets.flush()
    world.show()
    world.outlets.flush()
    assert world.sharing == [True, True] and seqs(slow) == [1, 2, 3, 4]


def test_who_does_not_take_part_keeps_a_queue_of_its_own() -> None:
    world = World(2)
    world.readers[0].takes_part = False
    world.readers[0].subscriber.part()
    for _ in range(3):
        world.show()
        world.outlets.flush()
    assert world.sharing == [False, True]
    assert [seqs(reader) for reader in world.readers] == [[1, 2, 3]] * 2


def test_a_reader_that_takes_nothing_is_cut_off_at_its_own_bound_and_nobody_else() -> None:
    world = World(2, limit=5)
    slow, quick = world.readers
    slow.room = False
    for _ in range(8):
        world.show()
        world.outlets.flush()
    assert slow.cut and slow.subscriber.slow and not quick.cut
    assert seqs(quick) == list(range(1, 9)) and seqs(slow) == []


@pytest.mark.parametrize(("count", "size"), [(feed.MOST + 50, 10), (80, 1000)])
def test_a_log_never_holds_more_than_one_write_takes(count: int, size: int) -> None:
    world = World(2)
    home = world.readers[0].subscriber.home
    assert home is not None
    for _ in range(count):
        world.show(size=size)
        assert len(home.log) <= feed.MOST and sum(entry.size for entry in home.log) <= feed.MOST_BYTES
    while any(reader.subscriber.pending for reader in world.readers):
        world.outlets.flush()
    assert [seqs(reader) for reader in world.readers] == [list(range(1, count + 1))] * 2
    assert world.sharing == [True, True]


def test_what_came_before_a_reader_left_is_still_written() -> None:
    world = World(2)
    leaving, staying = world.readers
    world.show()
    world.hub.remove(leaving.subscriber)
    world.show()
    world.outlets.flush()
    assert seqs(leaving) == [1] and seqs(staying) == [1, 2]
    assert leaving.subscriber.home is None and not leaving.subscriber.pending


def test_a_feed_is_for_those_who_follow_the_same_in_the_same_way() -> None:
    world = World(4)
    same, other, wishes, last = world.readers
    world.subscribe(other, "system")
    world.subscribe(wishes, "dashboard-updates", wish=hub.DeliveryOptions(spec.Policy.DROP_OLDEST))
    homes = {id(reader.subscriber.home) for reader in world.readers}
    assert same.subscriber.home is last.subscriber.home and len(homes) == 3
    world.show()
    world.outlets.flush()
    assert [seqs(reader) for reader in world.readers] == [[1]] * 4


def test_nothing_is_kept_of_feeds_that_nobody_follows() -> None:
    world = World(3)
    world.subscribe(world.readers[0], "ONE")
    for reader in world.readers:
        world.hub.remove(reader.subscriber)
    assert world.hub._feeds == {}


def test_how_the_events_come_is_worked_out_once_for_all_of_a_feed(monkeypatch: pytest.MonkeyPatch) -> None:
    world, asked = World(5), []
    worked_out = hub.Hub._delivery

    def counted(self: hub.Hub, subscriber: hub.Subscriber, *more: Any) -> hub.Delivery:
        asked.append(subscriber)
        return worked_out(self, subscriber, *more)

    monkeypatch.setattr(hub.Hub, "_delivery", counted)
    for reader in world.readers[:2]:
        world.subscribe(reader, "ONE", wish=hub.DeliveryOptions(spec.Policy.DROP_OLDEST))
    world.show("ONE")
    world.show("TWO")
    world.outlets.flush()
    assert [seqs(reader) for reader in world.readers] == [[1, 1]] * 5
    assert len(asked) == 4


def play(shares: bool, seed: int) -> list[list[Place]]:
    """A random life of some readers; what each was given in the end."""
    chance = random.Random(seed)
    world = World(4, shares)
    for _ in range(300):
        reader = chance.choice(world.readers)
        deed = chance.random()
        if deed < 0.45:
            world.show(chance.choice(list(TYPES)))
        elif deed < 0.70:
            world.outlets.flush()
        elif deed < 0.78:
            reader.subscriber.offer(hub.reply("pong", chance.random()))
        elif deed < 0.86:
            reader.room = not reader.room
        elif deed < 0.92:
            world.subscribe(reader, chance.choice(CHANNELS), rewind=chance.randrange(3))
        elif deed < 0.97:
            world.hub.unsubscribe(reader.subscriber, [chance.choice(CHANNELS)])
        else:
            world.hub.announce("said", {})
    for reader in world.readers:
        reader.room = True
    while any(reader.subscriber.pending for reader in world.readers):
        world.outlets.flush()
    return [reader.got for reader in world.readers]


@pytest.mark.parametrize("seed", range(40))
def test_sharing_makes_no_difference_to_what_is_read(seed: int) -> None:
    shared = play(True, seed)
    assert shared == play(False, seed)
    assert any(shared)
