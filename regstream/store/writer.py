"""One batch into the database: rows, and what is true when they are there, in one transaction."""

from __future__ import annotations

import datetime
import itertools
import json
import operator
import re
import struct
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import psycopg

from regstream.event import Event, Head, Position
from regstream.store import audit, journal, pool, rows, schema

Place = tuple[str, int]
Note = TypeVar("Note")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
PIECE = 500
_long, _size = struct.Struct(">q").pack, struct.Struct(">i").pack
_SIGNATURE, _TRAILER = b"PGCOPY\n\xff\r\n\0" + bytes(8), struct.pack(">h", -1)
_FIELDS, _LONG, _NULL = struct.pack(">h", 9), _size(8), _size(-1)
_MILLENNIUM = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
_EXACT = ("UTF8", "SQL_ASCII")
"""Encodings of a database that give each character back, because they convert none."""
_HEAD, _SEQ = operator.itemgetter(0), operator.itemgetter(1)
# An event that nobody can keep: a number too large, a lone surrogate, a character that the database's encoding has not,
# a name too long for an index, too deep a value, or anything that cannot be written as a row
POISON = (
    psycopg.DataError, psycopg.errors.ProgramLimitExceeded, psycopg.errors.StatementTooComplex,
    struct.error, ValueError, TypeError, AttributeError, LookupError, ArithmeticError,
)  # fmt: skip


class WriteBatch(NamedTuple):
    """What becomes rows together; ``offsets`` is where Kafka's partitions are to be gone on with."""

    events: Sequence[Event]
    notes: journal.JournalEntries
    offsets: Mapping[Place, int]


class Written(NamedTuple):
    """So many rows are new, so many events and notes no row can hold; ``reason`` says why of the last of these.

    ``reached`` has the highest position of each stream that was to be written.
    """

    events: int
    refused: int
    reason: str
    reached: Mapping[str, Position]

    def refusing(self, reasons: Sequence[str]) -> Written:
        """With so many more refused."""
        return self._replace(refused=self.refused + len(reasons), reason=[self.reason, *reasons][-1])


class EventsTable:
    """The tables, as one connection has them, with their ``days``. All calls raise psycopg's errors."""

    def __init__(self, connection: pool.Connection, days: schema.Partitions) -> None:
        self._connection, self.days = connection, days
        self._encoding = str(connection.info.parameter_status("server_encoding"))
        self._carried: set[str] = set()

    async def write(self, batch: WriteBatch) -> Written:
        """All of it or nothing. Events that are there already stay as they are, and are not counted."""
        days = {head.time: _day(head.time) for head, _ in itertools.groupby(batch.events, _HEAD)}
        undated = sorted(time for time, day in days.items() if day is None)
        sound = [one for one in batch.events if days[one.head.time]] if undated else batch.events
        reason = f"{undated[-1]!r} is no time" if undated else ""
        await self.days.make(self._connection, {day for day in days.values() if day})
        written = Written(0, len(batch.events) - len(sound), reason, _newest(batch.events))
        written = written.refusing(batch.notes.unreadable)
        positions = _newest(sound) if undated else written.reached
        try:
            count, refused = await self._at_once(sound, positions, batch)
            return written._replace(events=count).refusing(refused)
        except POISON:
            return await self._singly(sound, batch, written)

    async def _at_once(
        self, sound: Sequence[Event], positions: Mapping[str, Position], batch: WriteBatch
    ) -> tuple[int, list[str]]:
        try:
            async with self._connection.transaction():
                await self._copy(sound)
                return len(sound), await self._rest(positions, batch)
        except psycopg.errors.UniqueViolation:
            # Of a commit whose answer was lost nobody knew
            async with self._connection.transaction():
                written = await self._merge(sound)
                return written, await self._rest(positions, batch)

    async def _singly(self, sound: Sequence[Event], batch: WriteBatch, written: Written) -> Written:
        """Somewhere is an event that the database does not take: find it, and keep all others."""
        count, refused, reason, reached = written
        kept = []
        async with self._connection.transaction():
            for event in sound:
                try:
                    async with self._connection.transaction():
                        count += await self._merge([_cleaned(event)])
                except POISON as error:
                    refused, reason = refused + 1, f"{event.id}: {pool.fault(error)}"
                else:
                    kept.append(event)
            return Written(count, refused, reason, reached).refusing(await self._rest(_newest(kept), batch))

    async def _copy(self, events: Sequence[Event], into: str = "copy_events") -> None:
        if not events:
            return
        await self._carry(f"{event.value.decode(errors='replace')}{event.key or ''}" for event in events)
        cursor = self._connection.cursor()
        async with cursor.copy(pool.named(into)) as copy:
            for piece in _pieces(events):
                await copy.write(piece)

    async def _carry(self, texts: Iterable[str]) -> None:
        """Raise ValueError when the database would give a character back as another one, as some encodings do."""
        if self._encoding in _EXACT:
            return
        fresh = "".join(
            sorted({character for text in texts for character in text if character > "\x7f"} - self._carried)
        )
        if fresh:
            ((back,),) = await pool.fetch(self._connection, pool.named("carried"), {"text": fresh})
            if back != fresh:
                changed = next((one for one, other in zip(fresh, back, strict=False) if one != other), fresh[-1])
                raise ValueError(
                    f"the database's encoding {self._encoding} gives {changed!r} back as another character:"
                    " createdb -E UTF8 -T template0 makes one that holds all"
                )
            self._carried.update(fresh)

    async def _merge(self, events: Sequence[Event]) -> int:
        await self._connection.execute(pool.named("create_arrivals"))
        await self._copy(events, "copy_arrivals")
        return (await self._connection.execute(pool.named("merge_arrivals"))).rowcount

    async def _rest(self, positions: Mapping[str, Position], batch: WriteBatch) -> list[str]:
        """What goes with the events; gives why notes cannot be kept, for which events are not held up."""
        cursor = self._connection.cursor()
        if positions:
            places = [{"stream": name, "epoch": at.epoch, "seq": at.seq} for name, at in sorted(positions.items())]
            await cursor.executemany(pool.named("keep_position"), places)
        if batch.offsets:
            ends = [{"topic": t, "partition": p, "next": offset} for (t, p), offset in sorted(batch.offsets.items())]
            await cursor.executemany(pool.named("keep_offset"), ends)
        refused = await self._each(batch.notes.controls, lambda some: audit.write(self._connection, some), "call")
        refused += await self._each(sorted(batch.notes.states.items()), self._states, "row")
        return refused + await self._each(batch.notes.seeds, self._seeds, "seed")

    async def _each(
        self, some: Sequence[Note], write: Callable[[Sequence[Note]], Awaitable[None]], kind: str
    ) -> list[str]:
        """Write all of them, or find those that cannot be: gives why."""
        if not some:
            return []
        try:
            async with self._connection.transaction():
                await self._carry(json.dumps(note, ensure_ascii=False, default=str) for note in some)
                await write(some)
        except POISON as error:
            if len(some) == 1:
                return [f"{kind} {_name(some[0])}: {pool.fault(error)}"]
            return [reason for one in some for reason in await self._each([one], write, kind)]
        return []

    async def _states(self, some: Sequence[tuple[tuple[str, str], dict[str, Any]]]) -> None:
        states = [
            {"entity": rows.clean(entity), "key": rows.clean(key), "state": rows.jsonb(state)}
            for (entity, key), state in some
        ]
        await self._connection.cursor().executemany(pool.named("keep_state"), states)

    async def _seeds(self, some: Sequence[int]) -> None:
        await self._connection.cursor().executemany(pool.named("keep_seed"), [{"seed": str(seed)} for seed in some])

    # What there is

    async def offsets(self) -> dict[Place, int]:
        """Where Kafka's partitions are to be gone on with."""
        found = await pool.fetch(self._connection, pool.named("offsets"))
        return {(topic, partition): following for topic, partition, following in found}

    async def positions(self) -> dict[str, Position]:
        """Where each stream stands in the table."""
        found = await pool.fetch(self._connection, pool.named("positions"))
        return {stream: Position(epoch, seq) for stream, epoch, seq in found}

    async def newest(self, stream: str, epoch: str, limit: int) -> list[Event]:
        """The newest events of one numbering, in order."""
        values = {"stream": stream, "epoch": epoch, "limit": limit}
        found = await pool.fetch(self._connection, pool.named("newest"), values)
        return [rows.event(row) for row in reversed(found)]

    async def states(self) -> dict[str, dict[str, dict[str, Any]]]:
        """By entity and key what events changed."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for entity, key, state in await pool.fetch(self._connection, pool.named("states")):
            found.setdefault(entity, {})[key] = state
        return found

    async def seed(self) -> int | None:
        """The seed of the first start, None before that."""
        found = await pool.fetch(self._connection, pool.named("seed"))
        return int(found[0][0]) if found else None


def _name(note: Any) -> str:
    """Which row a note is for: a call's id, an entity and a key, or nothing."""
    name = note[0] if isinstance(note, tuple) else ""
    return "/".join(name) if isinstance(name, tuple) else name


def _newest(events: Iterable[Event]) -> dict[str, Position]:
    """The highest position of each stream among them."""
    found: dict[str, Position] = {}
    for head, group in itertools.groupby(events, _HEAD):
        last = Position(head.epoch, max(map(_SEQ, group)))
        found[head.stream] = max(last, found.get(head.stream, last))
    return found


def _day(time: str) -> datetime.date | None:
    """The day of UTC; None for what is no time, or none that the table has a day for."""
    try:
        day = datetime.datetime.fromisoformat(time).astimezone(datetime.UTC).date() if _TIME.fullmatch(time) else None
    except (ValueError, OverflowError):
        return None
    return day if day is not None and 1970 <= day.year < 9999 else None


def _pieces(events: Sequence[Event]) -> Iterator[bytes]:
    """Rows in PostgreSQL's binary COPY format (its documentation of COPY, "Binary Format"), a few hundred at a time.

    Unlike in the text format nothing in a value has to be looked for and written in another way.
    """
    yield _SIGNATURE
    for first in range(0, len(events), PIECE):
        parts: list[bytes] = []
        for head, group in itertools.groupby(events[first : first + PIECE], _HEAD):
            _rows(parts, head, group)
        yield b"".join(parts)
    yield _TRAILER


def _rows(parts: list[bytes], head: Head, group: Iterable[Event]) -> None:
    micros = (datetime.datetime.fromisoformat(head.time) - _MILLENNIUM) // datetime.timedelta(microseconds=1)
    before = b"".join((_FIELDS, _field(head.stream), _field(head.epoch), _LONG))
    between = b"".join((_field(head.type), _LONG, _long(micros)))
    after = b"".join((_field(head.priority), _field(head.region)))
    for _, seq, key, value in group:
        if key is None:
            parts += (before, _long(seq), between, _NULL, after, _size(len(value)), value)
        else:
            text = key.encode()
            parts += (before, _long(seq), between, _size(len(text)), text, after, _size(len(value)), value)


def _field(value: str) -> bytes:
    text = value.encode("utf-8", "replace")
    return _size(len(text)) + text


def _cleaned(event: Event) -> Event:
    """With nothing in its texts that the database has no place for."""
    was = event.head
    stream, epoch, kind, region = map(rows.clean, (was.stream, was.epoch, was.type, was.region))
    head = was._replace(stream=stream, epoch=epoch, type=kind, region=region)
    return event._replace(head=head, key=None if event.key is None else rows.escaped(event.key))
