"""The hub: it encodes each event once, keeps it in its stream's ring and offers it to each subscriber's queue."""

from __future__ import annotations

import collections
import contextlib
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from regstream import errors, spec
from regstream.event import Event, Position, rfc3339
from regstream.hub import backpressure, frame, ring, subscription
from regstream.hub.delivery import ANY, PLAIN, Delivery, DeliveryOptions, EventSink
from regstream.hub.feed import Feed
from regstream.hub.frame import Entry, reply
from regstream.hub.ring import Subscribed
from regstream.hub.subscriber import Subscriber
from regstream.hub.subscription import SubscriptionRequest

__all__ = [
    "Delivery",
    "DeliveryOptions",
    "Entry",
    "Feed",
    "Hub",
    "HubCounts",
    "Subscribed",
    "Subscriber",
    "SubscriptionRequest",
    "reply",
]

SYSTEM_RING = 100
MAX_FORGOTTEN = 100
MAX_WAYS = 8
# Comparing a name with 2,000 others takes 50 ms, in which nobody else is served.
SUGGEST_AMONG = 400

_log = logging.getLogger("regstream.hub")


class Quota(NamedTuple):
    """A bound for each of several: an equal part of ``whole``, but no less and no more than so much."""

    whole: int
    least: int
    most: int

    def of(self, count: int) -> int:
        """The part of one of ``count``."""
        return min(self.most, max(self.least, self.whole // max(1, count)))


# Ten seconds of a stream at 500 events a second, where there are few; collections of garbage look at every entry
RING_EVENTS = Quota(40_000, 1_000, 6_000)
RING_BYTES = Quota(48 * 2**20, 2 * 2**20, 6 * 2**20)


class HubCounts(NamedTuple):
    """What the hub did since it was made, in events; ``slow`` in subscribers that were too slow.

    ``lost`` are deliveries for which subscribers that wanted so had no room. ``replayed`` were sent again, and are in
    ``shown`` no second time. Of the positions from which subscribers wanted to go on, ``recovered`` were.
    """

    shown: int
    dropped: int
    unknown: int
    slow: int
    lost: int = 0
    replayed: int = 0
    recovered: int = 0
    unrecovered: int = 0


class Hub:
    """Streams, channels and subscribers.

    ``ring_events`` and ``ring_bytes`` bound the ring of each stream; left out, the fewer streams there are, the longer
    each one's ring may be.
    """

    def __init__(self, now: Callable[[], float], ring_events: int | None = None, ring_bytes: int | None = None) -> None:
        self._now, self._given = now, (ring_events, ring_bytes)
        self._bound()
        self._streams: dict[str, ring.StreamRing] = {}
        self._members: dict[str, dict[Subscriber, None]] = {}
        self._channels_of: dict[Subscriber, dict[str, DeliveryOptions]] = {}
        self._picky: set[Subscriber] = set()
        self._feeds: dict[Any, Feed] = {}
        self._declared: dict[str, Delivery] = {}
        self._replays: dict[tuple[str, str], tuple[EventSink, ...]] = {}
        self._replays_version = self._replayed = 0
        self._pressure = backpressure.Backpressure()
        self._system: collections.deque[Entry] = collections.deque(maxlen=SYSTEM_RING)
        self._prefixes: dict[str, bytes] = {}
        self._forgotten: dict[str, None] = {}
        self._version = self._order = self._shown = self._dropped = self._unknown = self._slow = self._lost = 0
        self._recoveries = [0, 0]

    def _bound(self, streams: int = 0) -> None:
        events, size = self._given
        self._ring_events, self._ring_bytes = events or RING_EVENTS.of(streams), size or RING_BYTES.of(streams)

    @property
    def subscribers(self) -> int:
        """How many subscribers are on at least one channel."""
        return len(self._channels_of)

    @property
    def counts(self) -> HubCounts:
        """What happened since the hub was made."""
        lost = self._lost + sum(one.lost for one in self._channels_of)
        return HubCounts(self._shown, self._dropped, self._unknown, self._slow, lost, self._replayed, *self._recoveries)

    @property
    def pending(self) -> int:
        """For how many subscribers something waits."""
        return sum(one.pending for one in self._channels_of)

    @property
    def fullest(self) -> float:
        """How full the fullest subscriber's queue is, from 0 to 1; it takes a microsecond a subscriber."""
        return max((one.fill for one in self._channels_of), default=0.0)

    @property
    def channels(self) -> tuple[str, ...]:
        """Every channel that can be subscribed to, each once: the built-in ones, streams, types of events."""
        declared = [stream for stream in self._streams.values() if stream.declared]
        names = [stream.name for stream in declared] + [stream.type for stream in declared]
        return tuple(dict.fromkeys([spec.ALL_CHANNEL, spec.ALERT_TYPE, spec.SYSTEM_CHANNEL, *names]))

    def declare(self, stream: str, type_: str, position: Position) -> None:
        """Make a stream known: events of type ``type_``, numbered on from ``position``.

        A stream that is known and has the same epoch keeps its ring and its own position, since events that were given
        a number may still be under way; only its type changes. An epoch that the hub has left already is not taken up
        again: the broker may carry another process's numbering of this stream.
        """
        known = self._streams.get(stream)
        self._forgotten.pop(stream, None)
        if known is None:
            self._streams[stream] = ring.StreamRing(stream, type_, position)
        else:
            self._redeclare(known, type_, position)
        self._bound(len(self._streams))
        self._version += 1

    def _redeclare(self, stream: ring.StreamRing, type_: str, position: Position) -> None:
        if stream.type != type_:
            # Who follows it by type only would not notice what it misses while the type is another one.
            for subscriber in self._members.get(stream.type, ()):
                subscriber.since.pop(stream.name, None)
            # What is the narrowest of a subscriber's channels may be another one from now on
            for subscriber in self._channels_of:
                subscriber.settle()
        stream.type, stream.declared = type_, True
        if position.epoch != stream.epoch and position.epoch not in stream.retired:
            stream.begin(*position)

    @property
    def positions(self) -> list[tuple[str, Position]]:
        """Where each declared stream stands."""
        return [(one.name, Position(one.epoch, one.last)) for one in self._streams.values() if one.declared]

    def position(self, stream: str) -> Position | None:
        """What was shown last of a stream; None when it is not known."""
        known = self._streams.get(stream)
        return None if known is None else Position(known.epoch, known.last)

    def forget(self, stream: str) -> None:
        """The stream is gone: its channels are unknown, its ring is empty; events still under way are shown.

        Where the streams stood that went last is remembered, of the last ``MAX_FORGOTTEN``.
        """
        known = self._streams.get(stream)
        if known is not None:
            known.declared = False
            known.clear()
            self._forgotten[stream] = None
        if len(self._forgotten) > MAX_FORGOTTEN:
            self._drop(next(iter(self._forgotten)))

    def _drop(self, stream: str) -> None:
        del self._forgotten[stream], self._streams[stream]
        for subscriber in self._channels_of:
            subscriber.since.pop(stream, None)
        self._prefixes.clear()

    def broadcast(self, event: Event) -> None:
        """Show ``event`` to everyone who follows its stream, once; what was shown before, or is stale, is dropped."""
        stream = self._streams.get(event.head.stream)
        if stream is None:
            self._unknown += 1
            return
        if stream.has_shown(event):
            self._dropped += 1
            return
        entry = self._entry(event)
        if stream.declared:
            stream.keep(entry, self._ring_events, self._ring_bytes)
        if stream.audience_version != self._version:
            audience = self._audience((stream.name, stream.type, spec.ALL_CHANNEL))
            stream.audience, stream.audience_version = audience, self._version
        for inlet in stream.audience:
            inlet.offer(entry)

    def replay(self, event: Event) -> None:
        """Send a stored ``event`` again, marked, to who follows its stream, its type or all; it is no news.

        No ring, position or snapshot is touched by it, and no reader's place in the stream. A stream or type that is
        not declared has the followers that are left on its channel. Neither conflated nor held up by a rate, it waits
        where it takes no live event's room but for those that are cut off when theirs is full: they are for this, too,
        so that whoever sends many has to ask ``pressure``. Others have the oldest of what is replayed dropped.
        """
        self._order += 1
        self._replayed += 1
        if self._replays_version != self._version:
            self._replays, self._replays_version = {}, self._version
        key = event.head.stream, event.head.type
        inlets = self._replays.get(key)
        if inlets is None:
            inlets = self._replays[key] = self._audience((*key, spec.ALL_CHANNEL), replay=True)
        if inlets:
            entry = frame.Replayed(event, self._order)
            for inlet in inlets:
                inlet.offer(entry)

    def pressure(self, now: float) -> float:
        """How full the fullest queue of those that keep reading is, from 0 to 1: whether a replay has to wait.

        ``now`` is in seconds of a clock that never goes back. Who replays at full speed asks after every 200 events at
        most, having let the servers write, and while it is above 0.25 sleeps for a few milliseconds and asks again: so
        no reader that keeps up a little is cut off, or has anything dropped, for what was sent again, and there is
        room for what is live. Who took nothing for a second is not waited for; one that still reads, however slowly,
        is. It costs about a microsecond a subscriber.
        """
        return self._pressure.measure(self._channels_of, now)

    def _entry(self, event: Event) -> Entry:
        self._order += 1
        self._shown += 1
        return self._encoded(event, self._order)

    def _encoded(self, event: Event, order: int) -> Entry:
        type_ = event.head.type
        prefix = self._prefixes.get(type_)
        if prefix is None:
            prefix = self._prefixes[type_] = frame.prefix(type_)
        return Entry(type_, prefix, event.value, order, event)

    def _audience(self, names: tuple[str, str, str], replay: bool = False) -> tuple[EventSink, ...]:
        members = [self._members.get(name, {}) for name in names]
        followers = dict.fromkeys(itertools.chain(*members))
        if not self._declared and not self._picky:
            return tuple(dict.fromkeys(one.home or one for one in followers))
        # Worked out once for all who follow the same in the same way, since each who comes or goes has it done anew
        ways: dict[Feed, Delivery] = {}
        inlets: dict[EventSink, None] = {}
        for one in followers:
            home = one.home
            way = ways.get(home) if home else None
            if way is None:
                way = self._delivery(one, names)
                way = way.again if replay else way
                if home:
                    ways[home] = way
            inlets[home if home and way == PLAIN else one.lane(way)] = None
        return tuple(inlets)

    def _delivery(self, subscriber: Subscriber, names: Iterable[str]) -> Delivery:
        """How it comes by the narrowest of the subscriber's channels: the stream's, the event's, that of all."""
        channels = self._channels_of[subscriber]
        name = next(one for one in names if one in channels)
        return channels[name].over(self._declared.get(name, PLAIN))

    def deliver(self, channels: Mapping[str, Delivery]) -> None:
        """From now on, whoever does not ask for another way gets the events of these channels like this."""
        if channels == self._declared:
            return
        self._declared = dict(channels)
        for subscriber in self._channels_of:
            subscriber.settle()
        self._version += 1

    def announce(self, kind: str, data: Mapping[str, Any]) -> None:
        """Tell channel ``system`` that something happened: ``{kind, time, …data}``."""
        self._order += 1
        entry = reply(spec.SYSTEM_CHANNEL, {"kind": kind, "time": rfc3339(self._now()), **data}, self._order)
        self._system.append(entry)
        for subscriber in tuple(self._members.get(spec.SYSTEM_CHANNEL, ())):
            subscriber.offer(entry)

    def subscribe(
        self,
        subscriber: Subscriber,
        request: SubscriptionRequest,
        confirm: Callable[[Mapping[str, Subscribed]], None] | None = None,
        older: Mapping[str, Sequence[Event]] | None = None,
    ) -> Mapping[str, Subscribed]:
        """Put ``subscriber`` on channels, all of them or none; answers for each stream of them.

        A stream that was followed already is not replayed: its ``recovered`` says whether everything behind the
        position came or comes with what is followed.

        ``older`` has for some streams what ``missing`` asked for; it is replayed before what the ring holds.
        ``confirm`` is called with the answer before anything is replayed, so that a confirmation can go first. Raises
        UnknownName, and BadValue when the subscriber would have its channels delivered in more than ``MAX_WAYS`` ways.
        """
        request = request._replace(channels=tuple(dict.fromkeys(request.channels)))
        self._check(request.channels, ())
        self._check_ways(subscriber, request)
        plan = self._plan(subscriber, request, older or {})
        _log.debug("a subscriber joins %s", ", ".join(request.channels))
        for name in request.after.keys() & plan.answer.keys():
            self._recoveries[not plan.answer[name].recovered] += 1
        self._join(subscriber, request)
        subscriber.since.update(plan.since)
        if confirm:
            confirm(plan.answer)
        subscriber.replay(plan.replay)
        return plan.answer

    def missing(self, subscriber: Subscriber, request: SubscriptionRequest) -> dict[str, tuple[Position, int]]:
        """What ``subscribe`` could use that the rings do not hold: by stream, behind what position, below what number.

        More than that is welcome. While it is read, ``pinned`` keeps the rings where it ends.
        """
        after = request.after
        return {
            stream.name: (after[stream.name], stream.held + 1)
            for stream in self._on(request.channels)
            if stream.name in after and not self._follows(subscriber, stream) and stream.lacks(after[stream.name])
        }

    @contextlib.contextmanager
    def pinned(self, streams: Iterable[str]) -> Iterator[None]:
        """Within, the rings of ``streams`` let nothing go, unless they reach ``ring.PINNED`` times their bounds."""
        pins = [(one, one.pin()) for one in map(self._streams.get, streams) if one is not None]
        try:
            yield
        finally:
            for one, pin in pins:
                one.unpin(pin, self._ring_events, self._ring_bytes)

    def _check(self, names: Iterable[str], also: Iterable[str]) -> None:
        known = set(self.channels).union(also)
        for name in names:
            if name not in known:
                near = errors.near(name, sorted(known)) if len(known) <= SUGGEST_AMONG else ()
                raise errors.UnknownName("channel", name, near)

    def _check_ways(self, subscriber: Subscriber, request: SubscriptionRequest) -> None:
        wishes = {**self._channels_of.get(subscriber, {}), **dict.fromkeys(request.channels, request.wish)}
        if len(set(wishes.values())) > MAX_WAYS:
            raise errors.BadValue("policy", f"at most {MAX_WAYS} different deliveries on one connection")

    def _plan(
        self, subscriber: Subscriber, request: SubscriptionRequest, older: Mapping[str, Sequence[Event]]
    ) -> subscription.SubscriptionPlan:
        plan = subscription.SubscriptionPlan(request)
        for stream in self._on(request.channels):
            if self._follows(subscriber, stream):
                plan.follows(stream, subscriber.since.get(stream.name))
            else:
                plan.joins(stream, [self._encoded(event, 0) for event in older.get(stream.name, ())])
        fresh = spec.SYSTEM_CHANNEL not in self._channels_of.get(subscriber, ())
        system = reversed(self._system) if fresh and spec.SYSTEM_CHANNEL in request.channels else ()
        plan.finish(system)
        return plan

    def _on(self, names: Iterable[str]) -> list[ring.StreamRing]:
        wanted = set(names)
        everything = spec.ALL_CHANNEL in wanted
        streams = (stream for stream in self._streams.values() if stream.declared)
        return [stream for stream in streams if everything or stream.name in wanted or stream.type in wanted]

    def _follows(self, subscriber: Subscriber, stream: ring.StreamRing) -> bool:
        channels = self._channels_of.get(subscriber, {})
        return spec.ALL_CHANNEL in channels or stream.name in channels or stream.type in channels

    def _join(self, subscriber: Subscriber, request: SubscriptionRequest) -> None:
        channels = self._channels_of.setdefault(subscriber, {})
        # What waits may come by another way from now on, and what was answered as whole must not be replaced
        subscriber.settle()
        for name in request.channels:
            channels[name] = request.wish
            self._members.setdefault(name, {})[subscriber] = None
        if not channels:
            del self._channels_of[subscriber]
        self._mark(subscriber)
        self._house(subscriber)
        self._version += 1

    def _house(self, subscriber: Subscriber) -> None:
        """Put it into the feed of those that follow the same in the same way, or into none when it follows nothing."""
        channels = self._channels_of.get(subscriber)
        key = (subscriber.share, frozenset(channels.items())) if channels and subscriber.share else None
        home = self._feeds.get(key)
        if home is not None and home is subscriber.home:
            return
        if subscriber.home is not None and not subscriber.home.remove(subscriber):
            del self._feeds[subscriber.home.key]
        if home is None and key and subscriber.share:
            home = self._feeds[key] = Feed(subscriber.share, key)
        subscriber.home = home
        if home is not None:
            home.add(subscriber)

    def _mark(self, subscriber: Subscriber) -> None:
        if any(wish != ANY for wish in self._channels_of.get(subscriber, {}).values()):
            self._picky.add(subscriber)
        else:
            self._picky.discard(subscriber)

    def unsubscribe(self, subscriber: Subscriber, channels: Iterable[str]) -> None:
        """Take ``subscriber`` off ``channels``, all or, with UnknownName, none; those it is not on do not matter."""
        mine = self._channels_of.get(subscriber, {})
        names = tuple(dict.fromkeys(channels))
        self._check(names, mine)
        if not names:
            return
        for name in names:
            self._leave(subscriber, name)
        gone = {one.name for one in self._streams.values() if not self._follows(subscriber, one)}
        for name in gone:
            subscriber.since.pop(name, None)
        subscriber.settle(gone)
        self._mark(subscriber)
        self._house(subscriber)
        if not mine and self._channels_of.pop(subscriber, None) is not None:
            self._lost += subscriber.lost
            subscriber.lost = 0

    def _leave(self, subscriber: Subscriber, name: str) -> None:
        members = self._members.get(name, {})
        members.pop(subscriber, None)
        if not members:
            self._members.pop(name, None)
        self._channels_of.get(subscriber, {}).pop(name, None)
        self._version += 1

    def remove(self, subscriber: Subscriber) -> None:
        """Take ``subscriber`` off everything; may be called twice."""
        for name in tuple(self._channels_of.get(subscriber, ())):
            self._leave(subscriber, name)
        if self._channels_of.pop(subscriber, None) is not None:
            self._slow += subscriber.slow
            self._lost += subscriber.lost
        self._house(subscriber)
        self._picky.discard(subscriber)
        self._pressure.forget(subscriber)
        subscriber.since.clear()

    def events(
        self,
        streams: Iterable[str] | None = None,
        since: float | None = None,
        until: float | None = None,
        after: int | None = None,
        limit: int = 100,
    ) -> list[Entry]:
        """History from the rings, newest last: at most ``limit`` entries of ``streams`` (None: of all).

        ``since`` (included) and ``until`` (not included) are epoch seconds and look at the events' own time. With
        ``after``, an entry's ``order``, the oldest behind it are given, else the newest; so the ``order`` of the last
        one is a cursor. Raises UnknownName.
        """
        chosen = self._chosen(streams)
        low, high = (
            rfc3339(since) if since is not None else "",
            rfc3339(until) if until is not None else "~",
        )
        newest = ring.newest(chosen)
        if after is not None:
            newest = itertools.takewhile(lambda entry: entry.order > after, newest)
        found = (entry for entry in newest if entry.head and low <= entry.head.time < high)
        if after is None:
            return list(itertools.islice(found, limit))[::-1]
        return list(found)[::-1][:limit]

    def _chosen(self, names: Iterable[str] | None) -> list[ring.StreamRing]:
        known = {stream.name: stream for stream in self._streams.values() if stream.declared}
        if names is None:
            return list(known.values())
        for name in names:
            if name not in known:
                raise errors.UnknownName("stream", name, errors.near(name, known))
        return [known[name] for name in dict.fromkeys(names)]
