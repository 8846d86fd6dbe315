"""A stream's ring: the newest entries, and what can be served whole from them."""

from __future__ import annotations

import collections
import heapq
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from regstream.event import Event, Position
from regstream.hub import delivery
from regstream.hub.frame import Entry

RETIRED_EPOCHS = 16
KEYS = 1000
# A look-up may take ten seconds, in which a ring moves on by more than it holds
PINNED = 8


class Subscribed(NamedTuple):
    """Where a subscriber stands in a stream once it has read what is replayed.

    ``seq`` is the last event shown; ``recovered`` says that nothing lies between the position asked for and live;
    ``replayed`` events come before the live ones, and with them, where a snapshot was asked for, ``snapshot`` others.
    """

    epoch: str
    seq: int
    recovered: bool
    replayed: int
    snapshot: int | None = None


class StreamRing:
    """What the hub knows of one stream. ``last`` is the number shown last; behind ``solid`` nothing was left out."""

    def __init__(self, name: str, type_: str, position: Position) -> None:
        self.name, self.type, self.declared = name, type_, True
        self.ring: collections.deque[Entry] = collections.deque()
        self.newest: dict[str | None, Entry] = {}
        self.bytes = self._newest_bytes = 0
        self.epoch, self.last = position
        self.solid = position.seq
        self.retired: collections.deque[str] = collections.deque(maxlen=RETIRED_EPOCHS)
        self.audience: tuple[delivery.EventSink, ...] = ()
        self.audience_version = -1
        self._pins: dict[object, int] = {}
        self._floor: float = math.inf

    @property
    def held(self) -> int:
        """The earliest position that can be served whole."""
        return max(self.solid, self.last - len(self.ring))

    def begin(self, epoch: str, seq: int) -> None:
        """Another numbering begins behind ``seq``; what the ring holds belongs to none that can be continued."""
        self.retired.append(self.epoch)
        self.epoch, self.last, self.solid = epoch, seq, seq
        self._pins.clear()
        self._floor = math.inf
        self.clear()

    def pin(self) -> object:
        """Keep what the ring holds now, and what comes, until ``unpin`` is given the answer.

        It may grow to ``PINNED`` times its bounds by that, and lets the oldest go then.
        """
        pin = object()
        self._pins[pin] = self.held
        self._floor = min(self._pins.values())
        return pin

    def unpin(self, pin: object, events: int, size: int) -> None:
        """End a pin; what exceeds the bounds without it goes."""
        self._pins.pop(pin, None)
        self._floor = min(self._pins.values(), default=math.inf)
        self._trim(events, size)

    def clear(self) -> None:
        """Empty the ring and the snapshot; the position stays."""
        self.ring.clear()
        self.newest.clear()
        self.bytes = self._newest_bytes = 0

    def has_shown(self, event: Event) -> bool:
        """Whether ``event`` is not news. One that is moves the position, over a gap or into a new epoch too."""
        epoch, seq = event.head.epoch, event.seq
        if epoch != self.epoch:
            if epoch in self.retired:
                return True
            self.begin(epoch, seq - 1)
        elif seq <= self.last:
            return True
        elif seq != self.last + 1:
            self.solid = seq - 1
        self.last = seq
        return False

    def lacks(self, position: Position) -> bool:
        """Whether the ring cannot serve ``position``, and someone with a longer memory may."""
        return position.epoch == self.epoch and position.seq < self.held

    def recover(self, position: Position, older: Sequence[Entry] = ()) -> tuple[list[Entry], Subscribed]:
        """Everything behind ``position``, or nothing; ``older`` are entries from right behind it on, without a gap.

        Those of them that were not shown yet are left out: they are going to be.
        """
        older = older[: max(0, self.last - position.seq)]
        reached = position.seq + len(older)
        whole = position.epoch == self.epoch and self.held <= reached and position.seq <= self.last
        if not whole:
            return [], Subscribed(self.epoch, self.last, False, 0)
        behind = max(0, self.last - reached)
        found = [*older, *itertools.islice(self.ring, len(self.ring) - behind, None)]
        return found, Subscribed(self.epoch, self.last, True, len(found))

    def followed(self, since: Position | None, position: Position | None) -> Subscribed:
        """The answer for who follows the stream already, from ``since`` on: whole if ``position`` is not before."""
        whole = (
            since is not None
            and position is not None
            and position.epoch == since.epoch == self.epoch
            and max(since.seq, self.solid) <= position.seq <= self.last
        )
        return Subscribed(self.epoch, self.last, whole, 0)

    def keep(self, entry: Entry, events: int, size: int) -> None:
        """Put ``entry`` at the end; what exceeds ``events`` or ``size`` bytes of text goes at the front.

        The newest event of each key is held too, of ``KEYS`` keys at most, in their order; those not heard of for
        longest go.
        """
        ring = self.ring
        ring.append(entry)
        self.bytes += entry.size
        if len(ring) > events or self.bytes > size:
            self._trim(events, size)
        newest = self.newest
        replaced = newest.pop(entry.key, None)
        newest[entry.key] = entry
        self._newest_bytes += entry.size - (replaced.size if replaced else 0)
        while len(newest) > min(KEYS, events) or self._newest_bytes > size:
            self._newest_bytes -= newest.pop(next(iter(newest))).size

    def _trim(self, events: int, size: int) -> None:
        ring, pinned = self.ring, self.last - self._floor
        while len(ring) > events or self.bytes > size:
            if len(ring) <= pinned and len(ring) <= PINNED * events and self.bytes <= PINNED * size:
                return
            self.bytes -= ring.popleft().size


def newest(streams: Iterable[StreamRing]) -> Iterator[Entry]:
    """The entries of several rings, newest first, as far as they are asked for."""
    return heapq.merge(*(reversed(stream.ring) for stream in streams), key=lambda entry: -entry.order)
