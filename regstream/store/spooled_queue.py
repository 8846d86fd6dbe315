"""What is to be recorded: written to the spool first, taken out in order, acknowledged there when the table has it."""

from __future__ import annotations

import asyncio
import collections
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from regstream.broker import spool
from regstream.event import Event, Position
from regstream.store import journal

CHUNK = 8_000
LIMIT = 20_000
_log = logging.getLogger("regstream.store")


class RecorderChunk(NamedTuple):
    """Events in order, the last of which has the mark ``upto``."""

    upto: int
    events: list[Event]


class RecorderQueue:
    """Takes events at once and gives them out in chunks; for one who takes and one who gives.

    While who takes keeps up, what it takes comes from memory; when more than ``LIMIT`` events wait, or after ``fall``,
    from the spool. Full: the spool gives up the least urgent events, which are counted in ``dropped`` by stream.
    """

    def __init__(self, kept: spool.Spool) -> None:
        self._spool = kept
        self._pending: collections.deque[tuple[int, Sequence[Event]]] = collections.deque()
        self._ahead = self._taken = 0
        self._spilled = True
        self.filled = asyncio.Event()
        self.dropped: collections.Counter[str] = collections.Counter()

    def open(self) -> None:
        """Take the spool. Raises StartError."""
        self._spool.open()
        self._taken, self._spilled = self._spool.acknowledged, self._spool.waiting > 0
        if self._spilled:
            self.filled.set()

    def close(self) -> None:
        """Leave the spool to others; what is not on disk is lost by that."""
        self._count(self._spool.release())
        self._spool.close()

    @property
    def last(self) -> int:
        """Mark of the last event that came."""
        return self._spool.last

    @property
    def done(self) -> int:
        """Mark up to which all is in the table."""
        return self._spool.acknowledged

    @property
    def waiting(self) -> int:
        """How many events and notes are not in the table."""
        return self._spool.waiting

    @property
    def waiting_bytes(self) -> int:
        """The bytes that they take on disk."""
        return self._spool.waiting_bytes

    @property
    def error(self) -> str:
        """Why the last write to the disk failed, empty when it did not."""
        return self._spool.error

    @property
    def positions(self) -> Mapping[str, Position]:
        """Where the streams stood that ever came here."""
        return {name: at for name, at in self._spool.positions.items() if name not in journal.KINDS}

    def left(self) -> Iterator[Event]:
        """What an earlier run left, in order."""
        for chunk in self._spool.unacknowledged(CHUNK):
            yield from chunk.events

    def put(self, events: Sequence[Event]) -> None:
        """Take events; never waits, never fails."""
        self._spilled = self._spilled or self._ahead + len(events) > LIMIT
        kept = self._spool.append(events, held=not self._spilled)
        self._count(kept.lost)
        if not self._spilled:
            self._pending.append((kept.last, events))
            self._ahead += len(events)
        self.filled.set()

    def take(self, most: int = CHUNK) -> RecorderChunk | None:
        """The next events, about ``most``, None when there are none; ``acknowledge`` or ``fall`` is to follow."""
        found = self._from_memory(most) if self._pending else self._from_disk(most) if self._spilled else None
        if found is None:
            self.filled.clear()
        else:
            self._taken = found.upto
            self._spool.hold(found.upto)
        return found

    def _from_memory(self, most: int) -> RecorderChunk:
        events: list[Event] = []
        upto = self._taken
        while self._pending and len(events) < most:
            upto, more = self._pending.popleft()
            events += more
            self._ahead -= len(more)
        return RecorderChunk(upto, events)

    def _from_disk(self, most: int) -> RecorderChunk | None:
        found = self._spool.read(self._taken, most)
        if found is None:
            # All that came is taken: what comes next may be held in memory again
            self._spilled, self._taken = False, self._spool.last
            return None
        return RecorderChunk(found.upto, found.events)

    def acknowledge(self, upto: int) -> None:
        """The table has everything up to that mark."""
        self._spool.acknowledge(upto)

    def fall(self) -> None:
        """The database is away: what was not acknowledged is taken again, from the spool, which alone has it now."""
        self._pending.clear()
        self._count(self._spool.release())
        self._ahead, self._taken, self._spilled = 0, self._spool.acknowledged, True
        self.filled.set()

    def _count(self, lost: Iterable[spool.Loss]) -> None:
        for one in lost:
            if one.stream not in self.dropped:
                text = "the spool is full or cannot be written: events of %s will not be recorded"
                _log.error(text, one.stream, extra={"stream": one.stream})
            self.dropped[one.stream] += one.events
