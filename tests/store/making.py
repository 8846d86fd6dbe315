"""Events and stores for tests, as the daemon makes them."""

from __future__ import annotations

import asyncio
import datetime
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from regstream import broker, spec, store
from regstream.broker import spool
from regstream.event import Event, Head, Position, rfc3339
from regstream.generator import batch as batches
from regstream.store import pool
from tests import databases

BOUND = 120.0
EPOCH = "01M8BQGQM976CAW5Q585BCQNSC"
SECOND = datetime.datetime(2026, 3, 26, 12, tzinfo=datetime.UTC).timestamp()


def stamp(seconds: float) -> str:
    """So many seconds after noon, as events have it."""
    return rfc3339(SECOND + seconds)


def events(
    count: int,
    stream: str = "ONE",
    first: int = 1,
    *,
    epoch: str = EPOCH,
    at: float = 0.0,
    every: float = 0.0,
    priority: spec.Priority = spec.Priority.NORMAL,
    key: str | None = None,
    data: Callable[[int], bytes] = lambda seq: b'{"n":%d,"svpId":"SVP-%03d"}' % (seq, seq % 7),
) -> list[Event]:
    """Whole CloudEvents ``first`` and following, ``every`` seconds one from ``at`` seconds after noon on."""
    made, head = [], None
    for number in range(count):
        if head is None or every:
            time_ = stamp(at + number * every)
            head = Head(stream, epoch, stream.lower(), f"t.{stream.lower()}", priority, time_, "LATAM")
            before, between, after = batches.envelope(head, "/regstream/LATAM/test")
        seq = first + number
        value = before + b"%d" % seq + between + b"%d" % seq + after + data(seq) + b"}"
        made.append(Event(head, seq, key, value))
    return made


def records(some: Iterable[Event]) -> list[broker.Record]:
    return [broker.Record(event, event.head.topic, 0, event.seq) for event in some]


class Rig:
    """Stores on one folder, of which one is open at a time; ``states`` are the changes that it told."""

    def __init__(self, url: str, folder: pathlib.Path, limit: int = 64 * 2**20) -> None:
        self.url, self.folder, self.limit = url, folder, limit
        self.now = SECOND
        self.states: list[tuple[str, str]] = []
        self._numbers = 0
        self.opened: list[store.Store] = []

    async def open(
        self, source: store.Source | None = None, keep: float | None = None, url: str | None = None
    ) -> store.Store:
        self._numbers += 1
        one = store.Store(
            pool.Database(url or self.url),
            spool.Spool(self.folder, self.limit),
            source,
            store.Moments(lambda: self.now, time.monotonic),
            f"E{self._numbers}",
            keep,
            lambda name, reason: self.states.append((name, reason)),
        )
        self.opened.append(one)
        await one.start()
        return one

    async def close(self) -> None:
        for one in self.opened:
            await one.close()

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        return databases.rows(self.url, statement, *values)

    @property
    def count(self) -> int:
        return int(self.rows("SELECT count(*) FROM regstream.events")[0][0])

    def numbers(self, stream: str = "ONE") -> list[int]:
        statement = "SELECT seq FROM regstream.events WHERE stream = %s ORDER BY epoch, seq"
        return [seq for (seq,) in self.rows(statement, stream)]


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(BOUND):
        while not condition():
            await asyncio.sleep(0.01)


async def kept(one: store.Store) -> None:
    """Return when the table has everything."""
    await until(lambda: one.status.state in ("live", "standby") and not one.status.waiting)


def position(mapping: Mapping[str, Position], stream: str = "ONE") -> tuple[str, int]:
    return tuple(mapping[stream])
