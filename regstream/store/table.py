"""One batch into the database: rows, and what is true when they are there, in one transaction."""

from __future__ import annotations

import datetime
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import psycopg

from regstream import model
from regstream.store import audit, database, notes, partitions, queries, rows

Place = tuple[str, int]
_DAY = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
# In COPY's text a backslash begins an escape, and these two end a value and a row
_SPECIAL = re.compile(rb"[\\\t\n\r]")
_ESCAPES = {b"\\": rb"\\", b"\t": rb"\t", b"\n": rb"\n", b"\r": rb"\r"}
PIECE = 256 * 1024
# An event that nobody can keep: a number too large, a lone surrogate, a name too long for an index, too deep a value
_log = logging.getLogger("regstream.store")
POISON = (psycopg.DataError, psycopg.errors.ProgramLimitExceeded)


class Batch(NamedTuple):
    """What becomes rows together; ``offsets`` is where Kafka's partitions are to be gone on with."""

    events: Sequence[model.Event]
    notes: notes.Sorted | None = None
    offsets: Mapping[Place, int] = {}


class Written(NamedTuple):
    """So many rows are new, so many events no row can hold; ``reason`` says why of the last of these."""

    events: int
    refused: int
    reason: str


class Table:
    """The tables, as one connection has them, with their ``days``. All calls raise psycopg's errors."""

    def __init__(self, connection: database.Connection, days: partitions.Partitions) -> None:
        self._connection, self.days = connection, days

    async def write(self, batch: Batch) -> Written:
        """All of it or nothing. Events that are there already stay as they are, and are not counted."""
        sound, refused, reason = _sound(batch.events)
        await self.days.make(self._connection, {_day(head.time) for head in _heads(sound)})
        try:
            async with self._connection.transaction():
                await self._copy(sound)
                await self._rest(sound, batch)
            return Written(len(sound), refused, reason)
        except psycopg.errors.UniqueViolation:
            # Of a commit whose answer was lost nobody knew
            async with self._connection.transaction():
                written = await self._merge(sound)
                await self._rest(sound, batch)
            return Written(written, refused, reason)
        except POISON:
            return await self._singly(sound, batch, refused)

    async def _singly(self, sound: Sequence[model.Event], batch: Batch, refused: int) -> Written:
        """Somewhere is an event that the database does not take: find it, and keep all others."""
        written, reason, kept = 0, "", []
        async with self._connection.transaction():
            for event in sound:
                try:
                    async with self._connection.transaction():
                        written += await self._merge([event])
                except POISON as error:
                    refused, reason = refused + 1, f"{event.id}: {database.fault(error)}"
                else:
                    kept.append(event)
            await self._rest(kept, batch)
        return Written(written, refused, reason)

    async def _copy(self, events: Sequence[model.Event], into: str = "copy_events") -> None:
        if not events:
            return
        cursor = self._connection.cursor()
        async with cursor.copy(queries.named(into)) as copy:
            for piece in _pieces(events):
                await copy.write(piece)

    async def _merge(self, events: Sequence[model.Event]) -> int:
        await self._connection.execute(queries.named("create_arrivals"))
        await self._copy(events, "copy_arrivals")
        return (await self._connection.execute(queries.named("merge_arrivals"))).rowcount

    async def _rest(self, events: Sequence[model.Event], batch: Batch) -> None:
        cursor = self._connection.cursor()
        positions = newest(events)
        if positions:
            places = [{"stream": name, "epoch": at.epoch, "seq": at.seq} for name, at in sorted(positions.items())]
            await cursor.executemany(queries.named("keep_position"), places)
        if batch.offsets:
            ends = [{"topic": t, "partition": p, "next": offset} for (t, p), offset in sorted(batch.offsets.items())]
            await cursor.executemany(queries.named("keep_offset"), ends)
        if batch.notes is not None and batch.notes.notes:
            try:
                async with self._connection.transaction():
                    await self._notes(batch.notes)
            except POISON as error:
                # Events are not held up for them
                _log.error("%d notes could not be kept: %s", batch.notes.notes, database.fault(error))

    async def _notes(self, found: notes.Sorted) -> None:
        if found.controls:
            await audit.write(self._connection, found.controls)
        if found.states:
            states = [
                {"entity": rows.clean(entity), "key": rows.clean(key), "state": rows.jsonb(state)}
                for (entity, key), state in sorted(found.states.items())
            ]
            await self._connection.cursor().executemany(queries.named("keep_state"), states)
        for seed in found.seeds:
            await self._connection.execute(queries.named("keep_seed"), {"seed": str(seed)})

    # What there is

    async def offsets(self) -> dict[Place, int]:
        """Where Kafka's partitions are to be gone on with."""
        found = await (await self._connection.execute(queries.named("offsets"))).fetchall()
        return {(topic, partition): following for topic, partition, following in found}

    async def positions(self) -> dict[str, model.Position]:
        """Where each stream stands in the table."""
        found = await (await self._connection.execute(queries.named("positions"))).fetchall()
        return {stream: model.Position(epoch, seq) for stream, epoch, seq in found}

    async def newest(self, stream: str, epoch: str, limit: int) -> list[model.Event]:
        """The newest events of one numbering, in order."""
        values = {"stream": stream, "epoch": epoch, "limit": limit}
        found = await (await self._connection.execute(queries.named("newest"), values)).fetchall()
        return [rows.event(row) for row in reversed(found)]

    async def states(self) -> dict[str, dict[str, dict[str, Any]]]:
        """By entity and key what events changed."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for entity, key, state in await (await self._connection.execute(queries.named("states"))).fetchall():
            found.setdefault(entity, {})[key] = state
        return found

    async def seed(self) -> int | None:
        """The seed of the first start, None before that."""
        row = await (await self._connection.execute(queries.named("seed"))).fetchone()
        return None if row is None else int(row[0])


def newest(events: Iterable[model.Event]) -> dict[str, model.Position]:
    """The highest position of each stream among them."""
    found: dict[str, model.Position] = {}
    for event in events:
        stream, at = event.head.stream, found.get(event.head.stream)
        if at is None or (event.head.epoch, event.seq) > at:
            found[stream] = event.position
    return found


def _heads(events: Iterable[model.Event]) -> Iterator[model.Head]:
    before = None
    for event in events:
        if event.head is not before:
            before = event.head
            yield before


def _sound(events: Sequence[model.Event]) -> tuple[Sequence[model.Event], int, str]:
    """Those that have a day; how many have none, and one of these."""
    bad = {head for head in _heads(events) if not _dated(head.time)}
    if not bad:
        return events, 0, ""
    good = [event for event in events if event.head not in bad]
    return good, len(events) - len(good), f"{next(iter(bad)).time!r} is no time"


def _dated(time: str) -> bool:
    try:
        return _DAY.fullmatch(time) is not None and 1970 <= _day(time).year < 9999
    except (ValueError, OverflowError):
        return False


def _day(time: str) -> datetime.date:
    return datetime.datetime.fromisoformat(time).astimezone(datetime.UTC).date()


def _escape(value: bytes) -> bytes:
    return _SPECIAL.sub(lambda found: _ESCAPES[found[0]], value)


def _text(value: str) -> bytes:
    # A key is any text that somebody made; the database has no place for these
    return _escape(rows.clean(value).encode())


def _pieces(events: Iterable[model.Event]) -> Iterator[bytes]:
    """Rows as COPY's text has them, about ``PIECE`` bytes at a time."""
    rows: list[bytes] = []
    size = 0
    head: model.Head | None = None
    before = between = after = b""
    for event in events:
        if event.head is not head:
            head = event.head
            before = b"%b\t%b\t" % (_text(head.stream), _text(head.epoch))
            between = b"\t%b\t%b\t" % (_text(head.type), _text(head.time))
            after = b"\t%b\t%b\t" % (_text(head.priority), _text(head.region))
        key = rb"\N" if event.key is None else _text(event.key)
        value = event.value
        if b"\\" in value or b"\n" in value or b"\t" in value or b"\r" in value:
            value = _escape(value)
        row = b"%b%d%b%b%b%b\n" % (before, event.seq, between, key, after, value)
        rows.append(row)
        size += len(row)
        if size >= PIECE:
            yield b"".join(rows)
            rows, size = [], 0
    if rows:
        yield b"".join(rows)
