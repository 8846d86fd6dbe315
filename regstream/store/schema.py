"""The schema, brought to what this version needs: forward only, each step whole or not at all."""

from __future__ import annotations

import datetime
import itertools
import logging
import math
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

import psycopg
from psycopg import sql

from regstream import errors
from regstream.event import rfc3339
from regstream.store import pool

# Any number that others are unlikely to take: the ASCII of "regstrm" and which of our locks it is
MIGRATION_LOCK = 0x72656773_7472_0001
MIGRATION_SECONDS = 120.0
_log = logging.getLogger("regstream.store")


async def migrate(connection: pool.Connection) -> int:
    """Carry out the steps that the database lacks; gives their number. Others who start meanwhile wait for it.

    Raises StoreError when a step fails, or when the database is of a newer version than this program.
    """
    try:
        async with pool.bounded(connection, MIGRATION_SECONDS), connection.transaction():
            await connection.execute(pool.named("lock_transaction"), {"lock": MIGRATION_LOCK})
            return await _migrate(connection)
    except psycopg.Error as error:
        raise pool.fault(error) from error


async def _migrate(connection: pool.Connection) -> int:
    known = pool.migrations()
    # Looked up first: who may only use the schema need not be allowed to make one
    ((table,),) = await pool.fetch(connection, pool.named("migrations_table"))
    if table is None:
        await connection.execute(pool.named("create_schema"))
        await connection.execute(pool.named("create_migrations"))
    done = {number for (number,) in await pool.fetch(connection, pool.named("migrations_done"))}
    if done and max(done) > len(known):
        raise errors.StoreError(
            f"the database has schema {max(done)} of a newer regstream, this one knows {len(known)}: update it"
        )
    missing = [step for step in known if step.number not in done]
    for step in missing:
        await connection.execute(step.text)
        await connection.execute(pool.named("migration_done"), {"number": step.number, "name": step.name})
        _log.info("database: schema %d, %s", step.number, step.name)
    return len(missing)


AHEAD = 2
PARTITIONS_LOCK = MIGRATION_LOCK + 2
PARTITIONS_SECONDS = 20.0
_DAY = datetime.timedelta(days=1)
_PARTITION_NAME = re.compile(r"events_(\d{8})")


class Partitions:
    """Which days have a table. All calls raise psycopg's errors."""

    def __init__(self) -> None:
        self._days: set[datetime.date] = set()

    async def find(self, connection: pool.Connection) -> None:
        """See what there is."""
        found = await pool.fetch(connection, pool.named("partitions"))
        names = (_PARTITION_NAME.fullmatch(name) for (name,) in found)
        self._days = {datetime.datetime.strptime(one[1], "%Y%m%d").date() for one in names if one}

    def missing(self, days: Iterable[datetime.date]) -> list[datetime.date]:
        """Those of ``days`` that have no table."""
        return sorted(set(days) - self._days)

    async def make(self, connection: pool.Connection, days: Iterable[datetime.date]) -> None:
        """Make the tables of days that have none; not within a transaction that may be rolled back."""
        for day in self.missing(days):
            async with connection.transaction():
                # Another daemon may need the same day at the same moment
                await connection.execute(pool.named("lock_transaction"), {"lock": PARTITIONS_LOCK})
                await self.find(connection)
                if day not in self._days:
                    await _make(connection, day)
            self._days.add(day)

    async def make_ahead(self, connection: pool.Connection, today: datetime.date) -> None:
        """Make the tables of today and of the ``AHEAD`` days that follow."""
        await self.make(connection, [today + number * _DAY for number in range(AHEAD + 1)])

    def before(self, day: datetime.date) -> list[datetime.date]:
        """The days before that one which have a table, in order."""
        return sorted(one for one in self._days if one < day)

    async def drop(self, connection: pool.Connection, days: Iterable[datetime.date]) -> list[datetime.date]:
        """Drop the tables of days; gives those that went. One that somebody reads stays."""
        gone = []
        for day in sorted(days):
            try:
                async with pool.bounded(connection, PARTITIONS_SECONDS):
                    await connection.execute(pool.named("drop_partition").format(name=table(day)))
            except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
                continue
            self._days.discard(day)
            gone.append(day)
        return gone


async def _make(connection: pool.Connection, day: datetime.date) -> None:
    own = table(day)
    await connection.execute(pool.named("create_partition").format(name=own))
    ends = {"begin": sql.Literal(f"{day}T00:00:00Z"), "end": sql.Literal(f"{day + _DAY}T00:00:00Z")}
    await connection.execute(pool.named("attach_partition").format(name=own, **ends))


def name(day: datetime.date) -> str:
    """What the table of a day is called."""
    return f"events_{day:%Y%m%d}"


def table(day: datetime.date) -> sql.Identifier:
    """The same as statements have it."""
    return sql.Identifier("regstream", name(day))


CLOCKS_SECONDS = 300.0
NOTICE_SECONDS = 600.0
MOST_ROWS = 1_000_000
MOST_DAYS = 50
_HOLE = 86_400.0


class RetentionSpan(NamedTuple):
    """The times of the oldest and the newest event of a day, in seconds since 1970."""

    oldest: float
    newest: float


class Limit(NamedTuple):
    """What is before ``time`` need not be kept; ``hole`` is the longest time without an event on the way to it."""

    time: float
    hole: RetentionSpan


def limit(spans: Iterable[RetentionSpan], now: float, keep: float) -> Limit:
    """Go back from ``now`` by ``keep`` seconds, of which a hole between the spans counts as a part at most.

    Spans of the future count as nothing. ``time`` is minus infinity when the spans do not reach back so far.
    """
    longest, left, end, hole = min(_HOLE, keep / 2), keep, now, RetentionSpan(now, now)
    for one in sorted((one for one in spans if one.oldest <= now), reverse=True):
        newest = min(one.newest, end)
        if end - newest > hole.newest - hole.oldest:
            hole = RetentionSpan(newest, end)
        counted = min(end - newest, longest)
        if left <= counted:
            return Limit(end - left, hole)
        left -= counted
        if left <= newest - one.oldest:
            return Limit(newest - left, hole)
        left -= newest - one.oldest
        end = one.oldest
    return Limit(-math.inf, hole)


class Retention:
    """Drops days of which all is older than ``keep`` seconds; ``now`` and ``tick`` are this machine's clocks."""

    def __init__(self, keep: float, now: Callable[[], float], tick: Callable[[], float]) -> None:
        self._keep, self._now, self._tick = keep, now, tick
        self._said: dict[datetime.date, float] = {}
        self._warned: object = None

    async def enforce(self, connection: pool.Connection, days: Partitions) -> None:
        """Say what is due, and drop what was said to be for long enough. Raises psycopg's errors."""
        now = self._now()
        ((theirs,),) = await pool.fetch(connection, pool.named("clock"))
        if abs(now - theirs) > CLOCKS_SECONDS:
            self._warn(
                "clocks",
                "no event is dropped: this machine's clock says %s, and the database's %s; set the one that is wrong",
                _text(now), _text(theirs),
            )  # fmt: skip
            return
        due = days.before(_day(now - self._keep))
        spans = {day: await _span(connection, day) for day in (days.before(datetime.date.max) if due else ())}
        filled = {day: span for day, span in spans.items() if span is not None}
        found = limit(filled.values(), now, self._keep)
        certain = _day(found.time) if found.time > -math.inf else datetime.date.min
        held = [day for day in due if day in filled and day >= certain]
        if held:
            self._warn(
                held,
                "events of %s to %s are not dropped: by this machine's clock, %s, they are older than RETENTION, but "
                "no event was stored from %s to %s, as when a clock is set wrong; if it is right: DROP TABLE %s",
                held[0], held[-1], _text(now), _text(found.hole.oldest), _text(found.hole.newest),
                ", ".join(f"regstream.{name(day)}" for day in held),
            )  # fmt: skip
        else:
            self._warned = None
        await self._say(connection, {day: filled[day] for day in due if day in filled and day not in held})
        ready = [day for day, said in self._said.items() if self._tick() - said >= NOTICE_SECONDS]
        for day in await days.drop(connection, [*ready, *(day for day in due if day not in filled)]):
            _log.info("events of %s are dropped: RETENTION is %s", day, self._kept_for)
            self._said.pop(day, None)

    @property
    def _kept_for(self) -> datetime.timedelta:
        return datetime.timedelta(seconds=self._keep)

    def _warn(self, what: object, text: str, *values: object) -> None:
        """Once, as long as it stays the same."""
        if what != self._warned:
            _log.warning(text, *values)
        self._warned = what

    async def _say(self, connection: pool.Connection, due: dict[datetime.date, RetentionSpan]) -> None:
        """Tell of those that are due since the last time, with what is lost; what is not due any more is forgotten."""
        self._said = {day: said for day, said in self._said.items() if day in due}
        fresh = dict(itertools.islice(((day, span) for day, span in due.items() if day not in self._said), MOST_DAYS))
        # One each day is as it should be; more are perhaps a RETENTION that is not what was meant
        level = logging.INFO if len(fresh) < 2 else logging.WARNING
        for day, span in fresh.items():
            rows = await _rows(connection, day)
            _log.log(
                level,
                "events of %s (table regstream.%s, %s, from %s to %s) will be dropped in %g min: RETENTION is %s; "
                "to keep them raise it, or stop this daemon, before that",
                day, name(day), _count(rows),
                _text(span.oldest), _text(span.newest), NOTICE_SECONDS / 60, self._kept_for,
            )  # fmt: skip
            self._said[day] = self._tick()


async def _span(connection: pool.Connection, day: datetime.date) -> RetentionSpan | None:
    statement = pool.named("span_of_partition").format(name=table(day))
    ((oldest, newest),) = await pool.fetch(connection, statement)
    return None if oldest is None else RetentionSpan(oldest, newest)


async def _rows(connection: pool.Connection, day: datetime.date) -> int:
    statement = pool.named("rows_of_partition").format(name=table(day))
    return int((await pool.fetch(connection, statement, {"most": MOST_ROWS + 1}))[0][0])


def _count(rows: int) -> str:
    if rows > MOST_ROWS:
        return f"more than {MOST_ROWS:,} rows"
    return f"{rows:,} row{'s' if rows != 1 else ''}"


def _day(time: float) -> datetime.date:
    return datetime.datetime.fromtimestamp(time, datetime.UTC).date()


def _text(time: float) -> str:
    return rfc3339(time)
