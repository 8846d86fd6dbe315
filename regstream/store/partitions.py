"""The days of the table of events: made before they are needed, dropped when nobody has to keep them any more."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable

import psycopg
from psycopg import sql

from regstream.store import database, migrate, queries

AHEAD = 2
LOCK = migrate.LOCK + 2
SECONDS = 20.0
_DAY = datetime.timedelta(days=1)
_NAME = re.compile(r"events_(\d{8})")


class Partitions:
    """Which days have a table. All calls raise psycopg's errors."""

    def __init__(self) -> None:
        self._days: set[datetime.date] = set()

    async def find(self, connection: database.Connection) -> None:
        """See what there is."""
        found = await database.fetch(connection, queries.named("partitions"))
        names = (_NAME.fullmatch(name) for (name,) in found)
        self._days = {datetime.datetime.strptime(one[1], "%Y%m%d").date() for one in names if one}

    def missing(self, days: Iterable[datetime.date]) -> list[datetime.date]:
        """Those of ``days`` that have no table."""
        return sorted(set(days) - self._days)

    async def make(self, connection: database.Connection, days: Iterable[datetime.date]) -> None:
        """Make the tables of days that have none; not within a transaction that may be rolled back."""
        for day in self.missing(days):
            async with connection.transaction():
                # Another daemon may need the same day at the same moment
                await connection.execute(queries.named("lock_transaction"), {"lock": LOCK})
                await self.find(connection)
                if day not in self._days:
                    await _make(connection, day)
            self._days.add(day)

    async def make_ahead(self, connection: database.Connection, today: datetime.date) -> None:
        """Make the tables of today and of the ``AHEAD`` days that follow."""
        await self.make(connection, [today + number * _DAY for number in range(AHEAD + 1)])

    def before(self, day: datetime.date) -> list[datetime.date]:
        """The days before that one which have a table, in order."""
        return sorted(one for one in self._days if one < day)

    async def drop(self, connection: database.Connection, days: Iterable[datetime.date]) -> list[datetime.date]:
        """Drop the tables of days; gives those that went. One that somebody reads stays."""
        gone = []
        for day in sorted(days):
            try:
                async with database.bounded(connection, SECONDS):
                    await connection.execute(queries.named("drop_partition").format(name=table(day)))
            except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
                continue
            self._days.discard(day)
            gone.append(day)
        return gone


async def _make(connection: database.Connection, day: datetime.date) -> None:
    own = table(day)
    await connection.execute(queries.named("create_partition").format(name=own))
    ends = {"begin": sql.Literal(f"{day}T00:00:00Z"), "end": sql.Literal(f"{day + _DAY}T00:00:00Z")}
    await connection.execute(queries.named("attach_partition").format(name=own, **ends))


def name(day: datetime.date) -> str:
    """What the table of a day is called."""
    return f"events_{day:%Y%m%d}"


def table(day: datetime.date) -> sql.Identifier:
    """The same as statements have it."""
    return sql.Identifier("regstream", name(day))
