"""Whatever is shown, wanted, stalled, left and come back to: what a reader gets is what it was promised.

Several readers on the real outlets, which are flushed by hand and by a clock of their own. Each event comes once and in
order; what does not come was replaced by a newer one of its key, or is told as dropped, and only to who wanted it so;
what was answered as recovered comes; and nothing waits that nobody will come for.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Mapping

import orjson
from hypothesis import settings, stateful
from hypothesis import strategies as st

from regstream import hub
from regstream.event import Event, Head, Position
from regstream.server.transports import writer
from regstream.spec import Policy, Priority
from tests import profiles

STREAMS = {"ONE": "one-type", "TWO": "shared-type", "THREE": "shared-type"}
CHANNELS = st.lists(
    st.sampled_from(["dashboard-updates", "ONE", "TWO", "one-type", "shared-type"]), min_size=1, max_size=3
)
WISHES = st.builds(hub.DeliveryOptions, st.sampled_from([None, *Policy]), st.sampled_from([None, None, 0.5, 40.0]))
READERS = st.integers(0, 1)
LIMITS = st.sampled_from([{}, {"limit_lane": 3}, {"limit": 6, "limit_lane": 3}])
Place = tuple[int, int]


class Outlets(writer.FlushScheduler):
    """The real ones, flushed by hand."""

    now = 0.0

    def _begin(self) -> None:
        pass

    def look_again(self, outlet: writer.BufferedWriter) -> None:
        self._stalled[outlet] = None

    def flush(self) -> bool:
        """Serve whoever was woken; says whether that was anybody."""
        self._unstall()
        feeds, ready, self._feeds, self._ready = self._feeds, self._ready, [], []
        for feed in feeds:
            self._serve(feed)
        for one in ready:
            one.write(self.now)
        return bool(feeds or ready)


@dataclasses.dataclass
class Following:
    """One stream, from a subscription on: what was shown since ``start``, and what a reader got of it."""

    start: int
    before: bool
    promised: set[Place] = dataclasses.field(default_factory=set)
    got: list[Place] = dataclasses.field(default_factory=list)


class Reader(writer.BufferedWriter):
    def __init__(self, outlets: Outlets, limits: Mapping[str, int]) -> None:
        super().__init__(outlets, limits)
        self.room, self.cut = True, False
        self.due = math.inf
        self.channels: set[str] = set()
        self.policies: set[Policy] = {Policy.DISCONNECT}
        self.dropped: collections.Counter[str] = collections.Counter()
        self.coming: dict[int, dict[str, Following]] = {}
        self.follows: dict[str, Following] = {}
        self.heard: dict[str, Following] = {}

    @property
    def is_open(self) -> bool:
        return not self.cut

    @property
    def has_room(self) -> bool:
        return self.room

    def too_slow(self) -> None:
        self.cut = True

    def _come_back(self, now: float, wait: float) -> None:
        if wait <= 0:
            self._wake()
        else:
            self.due = min(self.due, now + wait)

    def on_time(self, now: float) -> None:
        if self.due <= now:
            self.due = math.inf
            self._wake()

    def send(self, entries: list[hub.Entry]) -> None:
        assert entries
        for entry in entries:
            data = orjson.loads(entry.value)
            if entry.name == "subscribed":
                self.heard |= self.coming.pop(data)
            elif entry.name == "lagging":
                self.dropped.update(data["dropped"])
            else:
                assert entry.head
                place = (int(entry.head.epoch[1:]), entry.seq)
                got = self.heard[entry.head.stream].got
                assert not got or got[-1] < place, "doubled or out of order"
                got.append(place)


class Deliveries(stateful.RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.hub = hub.Hub(now=lambda: 0.0, ring_events=8, ring_bytes=10**6)
        self.outlets = Outlets()
        self.shown: dict[str, list[tuple[Place, str | None]]] = {name: [] for name in STREAMS}
        self.at: dict[str, Place] = dict.fromkeys(STREAMS, (1, 0))
        self.declared: set[Policy] = set()
        self.asked = 0
        for name, type_ in STREAMS.items():
            self.hub.declare(name, type_, Position("E1", 0))
        self.readers = [Reader(self.outlets, {}) for _ in range(2)]

    @stateful.rule(
        stream=st.sampled_from(sorted(STREAMS)),
        keys=st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=6),
        priority=st.sampled_from(list(Priority)),
        renumber=st.sampled_from([False] * 9 + [True]),
    )
    def show(self, stream: str, keys: list[str | None], priority: Priority, renumber: bool) -> None:
        epoch, seq = self.at[stream]
        if renumber:
            epoch, seq = epoch + 1, 0
        head = Head(stream, f"E{epoch}", STREAMS[stream], "t", priority, "2026", "LATAM")
        for key in keys:
            seq += 1
            self.shown[stream].append(((epoch, seq), key))
            self.hub.broadcast(Event(head, seq, key, b"{}"))
        self.at[stream] = (epoch, seq)

    @stateful.rule(
        number=READERS,
        channels=CHANNELS,
        wish=WISHES,
        back=st.one_of(st.none(), st.integers(0, 12)),
        rewind=st.sampled_from([0, 0, 3]),
        snapshot=st.booleans(),
    )
    def subscribe(
        self, number: int, channels: list[str], wish: hub.DeliveryOptions, back: int | None, rewind: int, snapshot: bool
    ) -> None:
        reader = self.readers[number]
        if reader.subscriber.slow:
            return
        after = {} if back is None else {name: self._back(name, back) for name in STREAMS}
        self.asked += 1
        number = self.asked

        def confirm(answer: Mapping[str, hub.Subscribed]) -> None:
            reader.coming[number] = {}
            for stream, one in answer.items():
                self._answered(reader, number, stream, one, after.get(stream))
            reader.subscriber.offer(hub.reply("subscribed", number))

        request = hub.SubscriptionRequest(channels, after, rewind, snapshot, wish)
        self.hub.subscribe(reader.subscriber, request, confirm)
        reader.channels |= set(channels)
        reader.policies |= self.declared | ({wish.policy} if wish.policy else set())

    def _back(self, stream: str, back: int) -> Position:
        epoch, seq = self.at[stream]
        return Position(f"E{epoch}", max(0, seq - back))

    def _answered(self, reader: Reader, number: int, stream: str, one: hub.Subscribed, after: Position | None) -> None:
        if stream not in reader.follows:
            reader.follows[stream] = Following(len(self.shown[stream]), bool(one.replayed or one.snapshot))
            reader.coming[number][stream] = reader.follows[stream]
        places = [place for place, _ in self.shown[stream]]
        assert not places or (int(one.epoch[1:]), one.seq) == places[-1]
        if one.recovered:
            assert after is not None
            behind = (int(after.epoch[1:]), after.seq)
            reader.follows[stream].promised |= {place for place in places if place > behind}

    @stateful.rule(number=READERS, channels=CHANNELS)
    def unsubscribe(self, number: int, channels: list[str]) -> None:
        reader = self.readers[number]
        self.hub.unsubscribe(reader.subscriber, channels)
        reader.channels -= set(channels)
        for stream, type_ in STREAMS.items():
            if not reader.channels & {"dashboard-updates", stream, type_}:
                reader.follows.pop(stream, None)

    @stateful.rule(number=READERS)
    def turn(self, number: int) -> None:
        self.readers[number].room = not self.readers[number].room

    @stateful.rule(number=READERS)
    def say(self, number: int) -> None:
        """Something for one reader alone, which therefore has a queue of its own again."""
        reader = self.readers[number]
        self.asked += 1
        reader.coming[self.asked] = {}
        reader.subscriber.offer(hub.reply("subscribed", self.asked))

    @stateful.rule(number=READERS, limits=LIMITS)
    def reconnect(self, number: int, limits: Mapping[str, int]) -> None:
        self.hub.remove(self.readers[number].subscriber)
        self.readers[number].cut = True
        self.readers[number] = Reader(self.outlets, limits)

    @stateful.rule(channel=st.sampled_from(["dashboard-updates", "ONE", "shared-type"]), wish=WISHES)
    def declare(self, channel: str, wish: hub.DeliveryOptions) -> None:
        delivery = hub.Delivery(wish.policy or Policy.DISCONNECT, wish.max_rate)
        self.hub.deliver({channel: delivery})
        self.declared = {delivery.policy}
        for reader in self.readers:
            reader.policies.add(delivery.policy)

    @stateful.rule()
    def flush(self) -> None:
        self.outlets.flush()

    @stateful.rule(seconds=st.sampled_from([0.01, 0.3, 2.5]))
    def wait(self, seconds: float) -> None:
        self.outlets.now += seconds
        for reader in self.readers:
            reader.on_time(self.outlets.now)

    def teardown(self) -> None:
        for reader in self.readers:
            reader.room = True
        for _ in range(10_000):
            due = min(reader.due for reader in self.readers)
            if not self.outlets.flush():
                if due == math.inf:
                    break
                self.wait(max(0.0, due - self.outlets.now))
        for reader in self.readers:
            if not reader.cut:
                self._check(reader)
            self.hub.remove(reader.subscriber)
        assert self.hub.subscribers == 0 and not self.hub._feeds

    def _check(self, reader: Reader) -> None:
        assert not reader.subscriber.pending, "nobody comes for what waits"
        for stream, one in reader.follows.items():
            assert one.promised <= set(one.got), "recovered was a lie"
            got = set(one.got)
            missing = [place for place, _ in self.shown[stream][one.start :] if place not in got]
            if reader.policies == {Policy.DISCONNECT}:
                assert not missing
            if Policy.CONFLATE in reader.policies:
                newest = {key: place for place, key in self.shown[stream]}
                missing = [place for place in missing if place in newest.values()]
            assert len(missing) <= reader.dropped[stream]


TestDeliveries = Deliveries.TestCase
TestDeliveries.settings = settings(max_examples=profiles.examples(300), stateful_step_count=40)
