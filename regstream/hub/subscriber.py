"""One reader's bounded queue of frames, and the lanes beside it."""

from __future__ import annotations

import collections
from collections.abc import Callable, Collection, Sequence
from typing import Any

from regstream.event import Position
from regstream.hub import delivery
from regstream.hub.feed import Feed
from regstream.hub.frame import Entry, reply

TELL_EVERY = 1.0


class Subscriber:
    """One reader's queue, bounded by ``limit`` frames and ``limit_bytes`` of text, except for what is replayed.

    ``wake`` is called, and must return quickly, when something came into an empty queue and when ``slow`` became true.
    A subscriber that is ``slow`` has lost its queue and gets nothing more: the server has to part with it. It also
    becomes slow when it asks for a replay while more than ``limit_replay`` frames of an earlier one still wait.
    ``lost`` counts what lanes had no room for, ``taken`` what was taken out of queue and lanes.

    What is to be delivered in another way than that waits in lanes of its own beside the queue (see ``lanes``), each
    bounded by ``limit_lane`` frames and ``limit_bytes``; what is in the queue goes first. Such a subscriber has a lane
    for stored events that are sent again, behind the others.

    With ``share`` it may share in a ``feed`` while nothing waits in its queue: ``share`` is called instead of ``wake``
    when something came for all who do, of whom each is known by its ``reader``.
    """

    __slots__ = (
        "_bytes",
        "_dropped",
        "_items",
        "_lanes",
        "_limit",
        "_limit_bytes",
        "_limit_lane",
        "_limit_replay",
        "_replaying",
        "_tell_at",
        "_wake",
        "feed",
        "home",
        "lost",
        "reader",
        "share",
        "since",
        "slow",
        "taken",
    )

    def __init__(
        self,
        wake: Callable[[], None],
        limit: int = 4096,
        limit_bytes: int = 4 * 2**20,
        limit_replay: int = 10_000,
        limit_lane: int = 4096,
        share: Callable[[Feed], None] | None = None,
        reader: Any = None,
    ) -> None:
        self.share, self.reader = share, reader
        self.feed: Feed | None = None
        self.home: Feed | None = None
        self._wake, self._limit, self._limit_bytes = wake, limit, limit_bytes
        self._limit_replay, self._limit_lane = limit_replay, limit_lane
        self._items: collections.deque[Entry | collections.deque[Entry]] = collections.deque()
        self._bytes = self._replaying = 0
        self._lanes: dict[delivery.Delivery, delivery.DeliveryQueue] = {}
        # By stream; None is for what was sent again
        self._dropped: dict[str | None, int] = {}
        self._tell_at = 0.0
        self.slow = False
        self.lost = self.taken = 0
        self.since: dict[str, Position] = {}

    @property
    def pending(self) -> bool:
        """Whether something waits; ``wait`` says when it can be taken."""
        shared = self.feed is not None and self.feed.log
        return bool(self._items or self._dropped or shared) or any(lane.waiting for lane in self._lanes.values())

    @property
    def fill(self) -> float:
        """How full the queue is, or the lane for what is replayed, from 0 to 1: what makes replaying wait."""
        queue = max(len(self._items) / self._limit, self._bytes / self._limit_bytes)
        return max([min(1.0, queue), *(lane.fill for way, lane in self._lanes.items() if way.replay)])

    def part(self) -> None:
        """Have a queue of one's own, with what waits in the feed."""
        if self.feed is not None:
            self.feed.part(self)

    def settle_in(self) -> None:
        """Share in the feed again when nothing waits in the queue."""
        if self.home is not None and self.feed is None and not self._items and not self.slow:
            self.home.share(self)

    def lane(self, options: delivery.Delivery) -> delivery.EventSink:
        """Where to offer what is to be delivered in that way."""
        if options == delivery.PLAIN:
            return self
        found = self._lanes.get(options)
        if found is None:
            found = self._lanes[options] = delivery.make(options, self, self._limit_lane, self._limit_bytes)
        return found

    def offer(self, entry: Entry) -> None:
        """Queue ``entry`` behind everything else; never waits, never raises."""
        if self.feed is not None:
            self.feed.part(self)
        items = self._items
        if items:
            if len(items) >= self._limit or self._bytes + entry.size > self._limit_bytes:
                self.give_up()
                return
            items.append(entry)
            self._bytes += entry.size
        elif not self.slow:
            items.append(entry)
            self._bytes += entry.size
            self._wake()

    def replay(self, entries: Sequence[Entry]) -> None:
        """Queue ``entries``, which are bounded already by where they come from, as one item."""
        if self._replaying > self._limit_replay:
            self.give_up()
        if not entries or self.slow:
            return
        self.part()
        idle = not self._items
        self._items.append(collections.deque(entries))
        self._replaying += len(entries)
        if idle:
            self._wake()

    def take(self, count: int, size: int, now: float = 0.0) -> list[Entry]:
        """The oldest entries, at most ``count``, and no more once they hold ``size`` bytes.

        ``now`` is in seconds of a clock that never goes back; what has to keep to a rate is taken by it.
        """
        self.part()
        items = self._items
        if not self._replaying and len(items) <= count and self._bytes <= size:
            # One at a time is what comes of a quiet hub; emptying a deque at once gives it new memory
            taken: list[Entry] = [items.popleft()] if len(items) == 1 else list(items)  # type: ignore[arg-type, list-item]
            if items:
                items.clear()
            self._bytes = 0
        else:
            taken = self._some(count, size)
        if (self._lanes or self._dropped) and not items:
            self._take_lanes(taken, count, size, now)
        self.taken += len(taken)
        return taken

    def _some(self, count: int, size: int) -> list[Entry]:
        taken: list[Entry] = []
        items = self._items
        while items and len(taken) < count and size > 0:
            entry = items[0]
            if isinstance(entry, Entry):
                items.popleft()
                self._bytes -= entry.size
            else:
                entry = self._replayed(entry)
            taken.append(entry)
            size -= entry.size
        return taken

    def _replayed(self, replay: collections.deque[Entry]) -> Entry:
        entry = replay.popleft()
        self._replaying -= 1
        if not replay:
            self._items.popleft()
        return entry

    def _take_lanes(self, taken: list[Entry], count: int, size: int, now: float) -> None:
        if self._dropped and now >= self._tell_at:
            taken.append(self._lagging())
            self._tell_at = now + TELL_EVERY
        size -= sum(entry.size for entry in taken)
        # What is live goes before what is not
        for way in sorted(self._lanes, key=lambda way: way.replay) if len(self._lanes) > 1 else self._lanes:
            size = self._lanes[way].take(taken, count, size, now)

    def _lagging(self) -> Entry:
        dropped, self._dropped = self._dropped, {}
        replayed = dropped.pop(None, 0)
        told = {"dropped": dropped, "total": sum(dropped.values())}
        return reply("lagging", {**told, "replayed": replayed} if replayed else told)

    def wait(self, now: float) -> float | None:
        """In how many seconds something can be taken, 0 for at once; None when nothing waits."""
        if self._items:
            return 0.0
        if not self._lanes and not self._dropped:
            return None
        waits = [lane.wait(now) for lane in self._lanes.values() if lane.waiting]
        if self._dropped:
            waits.append(max(0.0, self._tell_at - now))
        return min(waits, default=None)

    def wake(self) -> None:
        """Something came into a lane that was empty."""
        self._wake()

    def passed_over(self, entry: Entry) -> None:
        """``entry`` will not be delivered: what is in front of it is not whole any more."""
        if entry.head is None or entry.replay:
            return
        since = self.since.get(entry.head.stream)
        if since is None:
            return
        if since.epoch != entry.head.epoch:
            # Which of the two numberings is the later one cannot be told from here
            del self.since[entry.head.stream]
        elif since.seq < entry.seq:
            self.since[entry.head.stream] = entry.position

    def dropped(self, entry: Entry) -> None:
        """``entry`` will not be delivered: it is counted, and the reader told with the next ``lagging``."""
        self.passed_over(entry)
        stream = entry.head.stream if entry.head else entry.name
        key = None if entry.replay else stream
        self._dropped[key] = self._dropped.get(key, 0) + 1
        self.lost += 1

    def settle(self, gone: Collection[str] = ()) -> None:
        """What waits in lanes goes into the queue: its streams may come by another way from now on.

        What waits of streams that are ``gone``, since they are not followed any more, is thrown away.
        """
        if not self._lanes:
            return
        lanes_, self._lanes = self._lanes, {}
        entries = [entry for lane in lanes_.values() for entry in lane.clear()]
        kept = [entry for entry in entries if entry.head is None or entry.head.stream not in gone]
        self.replay(sorted(kept, key=lambda entry: entry.order))

    def give_up(self) -> None:
        """The reader is too slow."""
        self.slow = True
        self._items.clear()
        self._lanes.clear()
        self._dropped.clear()
        self._bytes = self._replaying = 0
        self._wake()
