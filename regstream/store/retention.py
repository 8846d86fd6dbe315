"""Which days of events are older than they have to be kept: by several clocks, and said before they go.

What is dropped is gone, and a clock that was set wrong makes everything old at once. So nothing is dropped

- while this machine's clock and the database's differ by more than ``CLOCKS_SECONDS``;
- for the sake of time in which no event was stored: a hole in the table counts as a day at most (and as half of what is
  kept at most), for a clock that jumps forward leaves just such a hole;
- before it was said, ``NOTICE_SECONDS`` ahead, what it is.

A table without a row costs nothing, and goes at once.
"""

from __future__ import annotations

import datetime
import itertools
import logging
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

from regstream import model
from regstream.store import database, partitions, queries

CLOCKS_SECONDS = 300.0
NOTICE_SECONDS = 600.0
MOST_ROWS = 1_000_000
MOST_DAYS = 50
_HOLE = 86_400.0
_log = logging.getLogger("regstream.store")


class Span(NamedTuple):
    """The times of the oldest and the newest event of a day, in seconds since 1970."""

    oldest: float
    newest: float


class Limit(NamedTuple):
    """What is before ``time`` need not be kept; ``hole`` is the longest time without an event on the way to it."""

    time: float
    hole: Span


def limit(spans: Iterable[Span], now: float, keep: float) -> Limit:
    """Go back from ``now`` by ``keep`` seconds, of which a hole between the spans counts as a part at most.

    Spans of the future count as nothing. ``time`` is minus infinity when the spans do not reach back so far.
    """
    longest, left, end, hole = min(_HOLE, keep / 2), keep, now, Span(now, now)
    for one in sorted((one for one in spans if one.oldest <= now), reverse=True):
        newest = min(one.newest, end)
        if end - newest > hole.newest - hole.oldest:
            hole = Span(newest, end)
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

    async def enforce(self, connection: database.Connection, days: partitions.Partitions) -> None:
        """Say what is due, and drop what was said to be for long enough. Raises psycopg's errors."""
        now = self._now()
        ((theirs,),) = await database.fetch(connection, queries.named("clock"))
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
                ", ".join(f"regstream.{partitions.name(day)}" for day in held),
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

    async def _say(self, connection: database.Connection, due: dict[datetime.date, Span]) -> None:
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
                day, partitions.name(day), _count(rows),
                _text(span.oldest), _text(span.newest), NOTICE_SECONDS / 60, self._kept_for,
            )  # fmt: skip
            self._said[day] = self._tick()


async def _span(connection: database.Connection, day: datetime.date) -> Span | None:
    statement = queries.named("span_of_partition").format(name=partitions.table(day))
    ((oldest, newest),) = await database.fetch(connection, statement)
    return None if oldest is None else Span(oldest, newest)


async def _rows(connection: database.Connection, day: datetime.date) -> int:
    statement = queries.named("rows_of_partition").format(name=partitions.table(day))
    return int((await database.fetch(connection, statement, {"most": MOST_ROWS + 1}))[0][0])


def _count(rows: int) -> str:
    if rows > MOST_ROWS:
        return f"more than {MOST_ROWS:,} rows"
    return f"{rows:,} row{'s' if rows != 1 else ''}"


def _day(time: float) -> datetime.date:
    return datetime.datetime.fromtimestamp(time, datetime.UTC).date()


def _text(time: float) -> str:
    return model.rfc3339(time)
