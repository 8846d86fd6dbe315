"""Back into order: the events of a stream come from several partitions, and dashboards get them by their numbers.

Kafka keeps the order of a partition, and a stream whose events have different keys lies on several of them. What comes
ahead of its turn waits here for what is missing, for a bounded time and in bounded number; then the gap is given up and
counted, never silently.
"""

from __future__ import annotations

import asyncio
import collections
import itertools
from collections.abc import AsyncIterator, Callable, Iterable

from regstream import broker
from regstream.event import Event, Position

PATIENCE = 3.0
MAX_HELD = 20_000


class _StreamBuffer:
    """One stream: the last number that was let through, and what waits ahead of its turn."""

    def __init__(self, epoch: str, last: int) -> None:
        self.epoch = epoch
        self.last = last
        self.held: dict[int, Event] = {}
        self.since = 0.0

    def run(self) -> list[Event]:
        """What is next in turn, as far as it is here."""
        found = []
        while (event := self.held.pop(self.last + 1, None)) is not None:
            self.last += 1
            found.append(event)
        return found


class Resequencer:
    """Lets each event through once and in its turn. A numbering whose epoch is older than the one in force is past."""

    def __init__(self) -> None:
        self.doubled = 0
        self.skipped = 0
        self._lines: dict[str, _StreamBuffer] = {}
        self._held = 0

    def position(self, stream: str) -> Position | None:
        """The last event of a stream that was let through; None when none was."""
        line = self._lines.get(stream)
        return None if line is None else Position(line.epoch, line.last)

    def begin(self, stream: str, position: Position) -> None:
        """Say where a stream stands that nothing is known of; one that is known stays as it is."""
        self._lines.setdefault(stream, _StreamBuffer(*position))

    def offer(self, event: Event, now: float) -> list[Event]:
        """Take an event in; gives what may be shown now, in order. ``now`` is in seconds of any clock."""
        line = self._line(event)
        if line is None or event.seq <= line.last or event.seq in line.held:
            self.doubled += 1
            return []
        if event.seq == line.last + 1 and not line.held:
            line.last = event.seq
            return [event]
        if not line.held:
            line.since = now
        line.held[event.seq] = event
        found = line.run()
        self._held += 1 - len(found)
        if found:
            line.since = now
        return found + (self.expire(now, self._held > MAX_HELD) if self._held > MAX_HELD else [])

    def _line(self, event: Event) -> _StreamBuffer | None:
        head = event.head
        line = self._lines.get(head.stream)
        if line is None or head.epoch > line.epoch:
            # Names of epochs sort by time, and each numbering begins with 1
            if line is not None:
                self._held -= len(line.held)
                self.skipped += len(line.held)
            line = self._lines[head.stream] = _StreamBuffer(head.epoch, 0)
        return line if head.epoch == line.epoch else None

    def expire(self, now: float, at_once: bool = False) -> list[Event]:
        """Give up gaps that have waited for ``PATIENCE``, or all of them ``at_once``; gives what may be shown then."""
        found: list[Event] = []
        for line in self._lines.values():
            if line.held and (at_once or now - line.since >= PATIENCE):
                first = min(line.held)
                self.skipped += first - line.last - 1
                line.last = first - 1
                run = line.run()
                self._held -= len(run)
                line.since = now
                found += run
        return found


def whole_suffix(events: Iterable[Event]) -> list[Event]:
    """The newest events of one stream without a gap between them, in order: those of its newest epoch, each once."""
    found = list(events)
    if not found:
        return []
    epoch = max(event.head.epoch for event in found)
    by_seq = {event.seq: event for event in found if event.head.epoch == epoch}
    seq = max(by_seq)
    made = []
    while seq in by_seq:
        made.append(by_seq[seq])
        seq -= 1
    return made[::-1]


def run_after(position: Position, events: Iterable[Event]) -> list[Event]:
    """The events of one stream that follow a position without a gap, in order and each once."""
    by_seq = {event.seq: event for event in events if event.head.epoch == position.epoch}
    return [by_seq[seq] for seq in itertools.takewhile(by_seq.__contains__, itertools.count(position.seq + 1))]


LIMIT = 20_000
PIECE = 500


class DeliveryBuffer:
    """Takes events from the cluster and from here, and gives out what was not given out before.

    ``tick`` gives seconds of a steady clock; ``room`` is set whenever something has gone. Full: who reads from the
    cluster waits while ``LIMIT`` events are not fetched; of events that are awaited the oldest are forgotten.
    """

    def __init__(self, tick: Callable[[], float], room: asyncio.Event) -> None:
        self.order = Resequencer()
        self.consumed = 0
        self._tick = tick
        self._room = room
        self._awaited: collections.deque[Event] = collections.deque(maxlen=5 * LIMIT)
        self._out: collections.deque[Event] = collections.deque()
        self._filled = asyncio.Event()
        self._ended = False

    @property
    def awaited(self) -> int:
        """How many events were sent and did not come back yet."""
        return len(self._awaited)

    def oldest(self) -> Event | None:
        """The first of those."""
        return self._awaited[0] if self._awaited else None

    def expect(self, events: Iterable[Event]) -> None:
        """They are sent, and will come back."""
        self._awaited.extend(events)

    def take(self, events: Iterable[Event]) -> None:
        """Show what was not shown, in its turn."""
        now = self._tick()
        self.put(one for event in events for one in self.order.offer(event, now))
        self._arrived()

    def put(self, events: Iterable[Event]) -> None:
        """Show events that are in their turn already."""
        self._out.extend(events)
        self._filled.set()

    def expire(self) -> None:
        """Give up what is missing for too long, and show what waits for it."""
        self.put(self.order.expire(self._tick()))

    def give_up(self) -> None:
        """Show what is awaited; when it comes, it is not shown again."""
        self.take(self._awaited)
        self._awaited.clear()

    def _arrived(self) -> None:
        while self._awaited:
            head = self._awaited[0]
            shown = self.order.position(head.head.stream)
            if shown is None or shown < head.position:
                return
            self._awaited.popleft()
        self._room.set()

    async def until_fetched(self) -> None:
        """Return when fewer than ``LIMIT`` events were not fetched."""
        while len(self._out) > LIMIT:
            self._room.clear()
            await self._room.wait()

    async def records(self) -> AsyncIterator[list[broker.Record]]:
        """See ``broker.Broker.consume``. Partition and offset are -1: dashboards do not care where one came from."""
        while True:
            while not self._out and not self._ended:
                self._filled.clear()
                await self._filled.wait()
            if not self._out:
                return
            taken = [self._out.popleft() for _ in range(min(PIECE, len(self._out)))]
            self.consumed += len(taken)
            self._room.set()
            yield [broker.Record(event, event.head.topic, -1, -1) for event in taken]

    def end(self) -> None:
        """``records`` ends when everything is fetched."""
        self._ended = True
        self._filled.set()
