"""Rows recorded a CPU second of the recorder, beside a bare binary COPY of the same rows."""

from __future__ import annotations

import asyncio
import collections
import datetime
import gc
import pathlib
import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping

import psycopg

from benchmarks import store_rig, table
from regstream import broker, store
from regstream.broker import spool
from regstream.broker.kafka import consumer
from regstream.store import pool

_COPY = "COPY bare (stream, epoch, seq, type, time, key, priority, region, value) FROM STDIN (FORMAT binary)"
_TYPES = ["text", "text", "int8", "text", "timestamptz", "text", "text", "text", "text"]
AHEAD = 8_000
# A bound on what hangs, not on what is slow
SECONDS = 600.0
CHUNK = 16
Batches = list[list[broker.Record]]


def measure(tiny: bool = False) -> list[table.Row]:
    """Rounds of all in turn, into tables of the same shape that are empty at each beginning; median ratios.

    The recorder is measured as it works with Kafka, where events come from a log in memory here; in simulation it is
    given them by a spool on disk, which costs as much wherever they go.
    """
    count, rounds = (8_000, 1) if tiny else (40_000, 9)
    batches = list(store_rig.batches(count))
    with store_rig.cluster() as cluster, tempfile.TemporaryDirectory() as name:
        rates = asyncio.run(_measure(cluster.url(), pathlib.Path(name), batches, rounds))
    ratios = {
        name: statistics.median(one / other for one, other in zip(found, rates["bare"], strict=True))
        for name, found in rates.items()
    }
    figure = statistics.median(rates["log"])
    note = (
        f"{count:,} rows of about {len(batches[0][0].event.value)} bytes a round\n"
        f"with the spool of the simulation {statistics.median(rates['spool']):,.0f}, {ratios['spool']:.2f} of the floor"
    )
    floor = figure / ratios["log"]
    return [table.Row("record / bare binary COPY", figure, "rows/CPU s", 0.5, 0.8, floor, True, True, note)]


async def _measure(url: str, folder: pathlib.Path, batches: Batches, rounds: int) -> dict[str, list[float]]:
    topic = _Topic()
    from_log = _store(url, folder / "log", store.Source(topic.open, lambda: ["bench.reference"]))
    await from_log.start()
    from_spool = _store(url, folder / "spool", None)
    await from_spool.start()
    rows = [_row(record) for batch in batches for record in batch]
    rates: dict[str, list[float]] = {"bare": [], "log": [], "spool": []}
    gc.collect()
    gc.freeze()
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("CREATE TABLE bare (LIKE regstream.events INCLUDING ALL)")
        for _ in range(rounds):
            for name, work in (
                ("bare", _bare(connection, rows)),
                ("log", _from_log(from_log, topic, batches)),
                ("spool", _from_spool(from_spool, batches)),
            ):
                await connection.execute("TRUNCATE bare; TRUNCATE regstream.events")
                rates[name].append(len(rows) / await work)
    await from_spool.close()
    await from_log.close()
    return rates


def _store(url: str, folder: pathlib.Path, source: store.Source | None) -> store.Store:
    moments = store.Moments(time.time, time.monotonic)
    return store.Store(pool.Database(url), spool.Spool(folder), source, moments, "N", None, lambda *_: None)


async def _bare(connection: psycopg.AsyncConnection, rows: list[tuple[object, ...]]) -> float:
    began = time.process_time()
    async with connection.cursor().copy(_COPY) as copy:
        copy.set_types(_TYPES)
        for row in rows:
            await copy.write_row(row)
    return time.process_time() - began


async def _from_log(one: store.Store, topic: _Topic, batches: Batches) -> float:
    began, wanted = time.process_time(), one.status.recorded + sum(map(len, batches))
    topic.give(batches)
    async with asyncio.timeout(SECONDS):
        while one.status.recorded < wanted:
            await asyncio.sleep(0.02)
    return time.process_time() - began


async def _from_spool(one: store.Store, batches: Batches) -> float:
    began, wanted = time.process_time(), one.status.recorded + sum(map(len, batches))
    for batch in batches:
        one.record(batch)
        # As fast as the server takes them: what is more goes by the disk
        while one.status.waiting > AHEAD:
            await asyncio.sleep(0.02)
    while one.status.recorded < wanted:
        await asyncio.sleep(0.02)
    return time.process_time() - began


class _Topic:
    """A partition that has what it is given, as ``kafka.log`` gives it out."""

    lag = foreign = 0
    denied: Mapping[str, str] = {}

    def __init__(self) -> None:
        self._ready: collections.deque[list[broker.Record]] = collections.deque()
        self._filled = asyncio.Event()
        self._offset = 0

    def open(self, _: Mapping[tuple[str, int], int]) -> _Topic:
        return self

    def give(self, batches: Batches) -> None:
        for first in range(0, len(batches), CHUNK):
            self._ready.append([record for batch in batches[first : first + CHUNK] for record in batch])
        self._filled.set()

    async def start(self) -> None:
        return

    def follow(self, topics: Iterable[str]) -> None:
        return

    async def fetch(self, limit: int, seconds: float) -> consumer.FetchedRecords:
        while not self._ready:
            self._filled.clear()
            await self._filled.wait()
        found = self._ready.popleft()
        self._offset += len(found)
        return consumer.FetchedRecords(found, {("bench.reference", 0): self._offset}, {})

    async def close(self) -> None:
        return


def _row(record: broker.Record) -> tuple[object, ...]:
    event, head = record.event, record.event.head
    when = datetime.datetime.fromisoformat(head.time)
    return (
        head.stream, head.epoch, event.seq, head.type, when, event.key, str(head.priority), head.region,
        event.value.decode(),
    )  # fmt: skip
