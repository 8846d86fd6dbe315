"""Questions to the tables: pages of events, figures about them, control calls. What is asked changes nothing.

Events have one order everywhere: by time, then stream, epoch and number. A place in it is named by those four, so
pages follow each other without a gap or a double whatever is written meanwhile.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from regstream import errors
from regstream.event import Event, Position
from regstream.store import audit, pool, rows

OF_EVENTS = frozenset({"count", "rate"})
"""The aggregates that need no number in an event."""
MAX_BUCKETS = 2_000
Path = tuple[str, ...]


class EventQuery(NamedTuple):
    """Which events: of ``streams`` (none named: of all), from ``since`` on and before ``until``, seconds since 1970.

    ``first`` and ``last`` are numbers, both included. ``where`` has paths within ``data``, and the JSON that is there.
    """

    streams: tuple[str, ...] = ()
    since: float | None = None
    until: float | None = None
    priorities: tuple[str, ...] = ()
    epoch: str | None = None
    first: int | None = None
    last: int | None = None
    where: tuple[tuple[Path, Any], ...] = ()


class EventKey(NamedTuple):
    """Where an event is in the order of all; ``time`` is in microseconds since 1970."""

    time: int
    stream: str
    epoch: str
    seq: int


START = EventKey(-62_135_596_800_000_000, "", "", 0)
"""Before the first event that there can be."""


class Page(NamedTuple):
    """Events in their order, as bytes, with the places of the first and the last; ``more`` follow, or come before.

    ``keys`` are those of the events, which their bytes do not have.
    """

    values: list[bytes]
    keys: list[str | None]
    first: EventKey | None
    last: EventKey | None
    more: bool


class Bucket(NamedTuple):
    """``value`` is None where there is nothing to say; ``events``, in ``skipped`` of which it is no number."""

    time: float
    value: float | None
    events: int
    skipped: int


class Figures(NamedTuple):
    """What is to be computed: ``aggregate`` of the number at ``path`` in ``data``, for each ``bucket`` seconds."""

    aggregate: str
    path: Path
    bucket: float


class EventReader:
    """All calls raise StoreError when the database is away, CostError when it would take too long."""

    def __init__(self, base: pool.Database) -> None:
        self._base = base

    async def page(
        self, question: EventQuery, after: EventKey | None = None, before: EventKey | None = None, limit: int = 100
    ) -> Page:
        """At most ``limit`` events: behind ``after`` the oldest, before ``before``, or without either, the newest."""
        found = await self._page("value, time, stream, epoch, seq, key", question, after, before, limit + 1)
        more, found = len(found) > limit, found[:limit]
        if after is None:
            found.reverse()
        places = [_place(found[0]), _place(found[-1])] if found else [None, None]
        return Page([row[0].encode() for row in found], [row[5] for row in found], places[0], places[1], more)

    async def events(self, question: EventQuery, after: EventKey, limit: int) -> list[tuple[EventKey, Event]]:
        """The oldest events behind ``after``, with their places."""
        found = await self._page("time, " + ", ".join(rows.COLUMNS), question, after, None, limit)
        return [(EventKey(_micros(row[0]), row[1], row[2], row[3]), rows.event(row[1:])) for row in found]

    async def run(self, stream: str, after: Position, limit: int) -> list[Event]:
        """What follows a position in its numbering, in order, whether or not it is without a gap."""
        values = {"stream": stream, "epoch": after.epoch, "seq": after.seq, "limit": limit}
        return [rows.event(row) for row in await self._ask(pool.named("run"), values)]

    async def number(self, question: EventQuery, after: EventKey = START) -> int:
        """How many events there are behind ``after``."""
        values: dict[str, Any] = {}
        statement = pool.named("number_of").format(conditions=_conditions(question, after, None, values))
        return int((await self._ask(statement, values))[0][0])

    async def known(self, streams: Collection[str]) -> set[str]:
        """Those of ``streams`` of which there ever were events."""
        return {name for (name,) in await self._ask(pool.named("known"), {"streams": list(streams)})}

    async def _page(
        self, columns: str, question: EventQuery, after: EventKey | None, before: EventKey | None, limit: int
    ) -> list[tuple[Any, ...]]:
        values: dict[str, Any] = {"limit": limit}
        statement = pool.named("page").format(
            columns=sql.SQL(columns),
            conditions=_conditions(question, after, before, values),
            order=pool.named("backwards" if after is None else "forwards"),
        )
        return await self._ask(statement, values)

    async def _ask(self, statement: sql.SQL | sql.Composed, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        return await self._base.ask(lambda connection: pool.fetch(connection, statement, values))

    # Figures

    async def figures(self, question: EventQuery, wanted: Figures) -> list[Bucket]:
        """One bucket after the other, from that of ``since`` to that of ``until``, also those without events.

        Buckets begin at whole multiples since 1970, UTC. ``question`` has both times, and they are at most
        ``MAX_BUCKETS`` apart. Raises BadValue for numbers that are too large to compute with.
        """
        values: dict[str, Any] = {"bucket": wanted.bucket, "path": list(wanted.path)}
        conditions = _conditions(question, None, None, values)
        if wanted.aggregate in OF_EVENTS:
            statement = pool.named("bare_buckets").format(conditions=conditions)
        else:
            statement = pool.named("buckets").format(aggregate=pool.named(wanted.aggregate), conditions=conditions)
        try:
            found = await self._ask(statement, values)
        except errors.StoreError as error:
            if isinstance(error.__cause__, psycopg.errors.NumericValueOutOfRange):
                raise errors.BadValue("field", "it has numbers that are too large to compute with") from error
            raise
        return list(_buckets(question, wanted, found))

    # Control calls

    async def controls(
        self,
        since: float | None = None,
        until: float | None = None,
        action: str | None = None,
        target: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[tuple[str, audit.Control]]:
        """Control calls with their ids, newest last: behind the id ``after`` the oldest, without it the newest."""
        values = {
            "since": _moment(since), "until": _moment(until), "action": action, "target": target, "after": after,
        }  # fmt: skip
        parts = [pool.named(f"audit_{name}") for name, value in values.items() if value is not None]
        statement = pool.named("controls" if after is None else "controls_behind").format(
            conditions=sql.SQL(" AND ").join(parts or [pool.named("every")])
        )
        found = await self._ask(statement, {**values, "limit": limit})
        calls = [(name, audit.Control(*rest)) for name, *rest in found]
        return calls if after is not None else calls[::-1]


def _conditions(
    question: EventQuery, after: EventKey | None, before: EventKey | None, values: dict[str, Any]
) -> sql.Composed:
    """The conditions, and in ``values`` what they compare with."""
    names = []
    if len(question.streams) == 1:
        names.append("is_stream")
        values["stream"] = question.streams[0]
    elif question.streams:
        names.append("is_among")
        values["streams"] = list(question.streams)
    for name, part, value in (
        ("since", "since", _moment(question.since)),
        ("until", "until", _moment(question.until)),
        ("has_priority", "priorities", list(question.priorities) or None),
        ("in_epoch", "epoch", question.epoch),
        ("from_seq", "first", question.first),
        ("to_seq", "last", question.last),
    ):
        if value is not None:
            names.append(name)
            values[part] = value
    for name, place in (("behind", after), ("before", before)):
        if place is not None:
            prefix = "after" if name == "behind" else "before"
            names.append(name)
            values.update({f"{prefix}_{part}": value for part, value in place._asdict().items()})
            values[f"{prefix}_time"] = _EPOCH + datetime.timedelta(microseconds=place.time)
    parts = [*map(pool.named, names or ["every"]), *_holding(question.where, values)]
    return sql.SQL(" AND ").join(parts)


def _holding(where: Iterable[tuple[Path, Any]], values: dict[str, Any]) -> Iterable[sql.Composed]:
    for number, (path, value) in enumerate(where):
        values[f"path{number}"], values[f"value{number}"] = list(path), rows.jsonb(value)
        yield pool.named("holds").format(path=sql.Placeholder(f"path{number}"), value=sql.Placeholder(f"value{number}"))


_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def _moment(seconds: float | None) -> datetime.datetime | None:
    # By whole microseconds: a fraction of a second is none that binary numbers have
    return None if seconds is None else _EPOCH + datetime.timedelta(microseconds=round(seconds * 1e6))


def _micros(time: datetime.datetime) -> int:
    return (time - _EPOCH) // datetime.timedelta(microseconds=1)


def _place(row: tuple[Any, ...]) -> EventKey:
    _, time, stream, epoch, seq, _ = row
    return EventKey(_micros(time), stream, epoch, seq)


def _buckets(question: EventQuery, wanted: Figures, found: Iterable[tuple[Any, ...]]) -> Iterable[Bucket]:
    since, until = question.since or 0.0, question.until or 0.0
    by_time: dict[int, tuple[float | None, int, int]] = {
        round(row[0] / wanted.bucket): (row[1], row[2], row[3]) for row in found
    }
    is_count = wanted.aggregate in OF_EVENTS
    number = int(since // wanted.bucket)
    while number * wanted.bucket < until:
        begin = number * wanted.bucket
        value, count, numbers = by_time.get(number, (0.0 if is_count else None, 0, 0))
        if value is not None and wanted.aggregate == "rate":
            # The first and the last may not be asked for as a whole
            value /= min(begin + wanted.bucket, until) - max(begin, since)
        yield Bucket(begin, value, count, count - numbers)
        number += 1
