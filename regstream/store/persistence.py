"""What streams go on with after a restart; meets ``engine.memory.Memory``."""

from __future__ import annotations

import collections
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from regstream.event import Event, Position
from regstream.generator import persistence
from regstream.store import journal, writer

EVENTS = 10_000
MOST, LEAST = 1_000, 10
_log = logging.getLogger("regstream.store")


class StreamStates:
    """Filled from the spool and from the table when the daemon starts; ``note`` keeps what is to be remembered.

    With a source of events beside it the numbers are that one's: ``numbers`` is false.
    """

    def __init__(self, note: Callable[[str, bytes], None], numbers: bool) -> None:
        self._note, self._numbers = note, numbers
        self._positions: dict[str, Position] = {}
        self._left: dict[str, collections.deque[Event]] = {}
        self._past: dict[str, list[Event]] = {}
        self._rows = persistence.Remembered(_log)
        self._seed: int | None = None

    @property
    def refused(self) -> int:
        """How many rows could not be kept as they were, or not be understood."""
        return self._rows.refused

    @property
    def refusal(self) -> str:
        """Why not, of the last of these."""
        return self._rows.refusal

    # Filling it

    def leave(self, events: Iterable[Event], positions: Mapping[str, Position]) -> None:
        """Take in what an earlier run left in the spool, in order; ``positions`` are where its streams stood."""
        found = journal.sort(list(events))
        if self._numbers:
            self._positions.update(positions)
            for event in found.events:
                self._left.setdefault(event.head.stream, collections.deque(maxlen=MOST)).append(event)
        for (entity, key), state in found.states.items():
            self._rows.take(entity, key, state)
        self._seed = next(iter(found.seeds), self._seed)

    async def load(self, one: writer.EventsTable, is_keeper: bool) -> None:
        """Take in what the table has. Who is not the keeper may not go on with any numbers. Raises psycopg's errors."""
        seed = await one.seed()
        self._seed = self._seed if seed is None else seed
        for entity, states in (await one.states()).items():
            # What an earlier run left in the spool is newer
            for key in states.keys() - self._rows.rows(entity).keys():
                self._rows.take(entity, key, states[key])
        if not is_keeper:
            self._positions, self._left = {}, {}
        elif self._numbers:
            await self._number(one)

    async def _number(self, one: writer.EventsTable) -> None:
        for stream, position in (await one.positions()).items():
            self._positions[stream] = max(position, self._positions.get(stream, position))
        limit = max(LEAST, min(MOST, EVENTS // max(1, len(self._positions))))
        for stream, position in self._positions.items():
            self._past[stream] = await one.newest(stream, position.epoch, limit)

    # What the engine asks

    def position(self, stream: str) -> Position | None:
        """Where it stood, None when that is not known, or not for the database to say."""
        return self._positions.get(stream)

    def positions(self) -> Mapping[str, Position]:
        """Where all streams stood that are known."""
        return dict(self._positions)

    def past(self, stream: str) -> list[Event]:
        """Its newest events, in order and without a gap, up to where it stood; given out once."""
        position, left = self._positions.get(stream), self._left.pop(stream, ())
        found = {event.seq: event for event in self._past.pop(stream, ())}
        if position is None:
            return []
        found.update({event.seq: event for event in left if event.head.epoch == position.epoch})
        run: list[Event] = []
        while (event := found.get(position.seq - len(run))) is not None:
            run.append(event)
        return run[::-1]

    def seed(self, chosen: int) -> int:
        """That of the first start; it is ``chosen`` now, if there was none."""
        if self._seed is None:
            self._seed = chosen
            self._note(journal.SEED, str(chosen).encode())
        return self._seed

    def rows(self, entity: str) -> Mapping[str, Mapping[str, Any]]:
        """By key what events had changed of its rows."""
        return self._rows.rows(entity)

    def keep(self, changes: persistence.Changes) -> None:
        """Remember rows as they are now; one that cannot be kept goes on from what it was before that."""
        self._note(journal.ENTITIES, self._rows.keep(changes))
