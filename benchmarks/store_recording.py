"""Rows recorded a CPU second of the recorder, beside a bare binary COPY of the same rows."""

from __future__ import annotations

import asyncio
import datetime
import pathlib
import statistics
import tempfile
import time

import psycopg

from benchmarks import store_rig, table
from regstream import broker, store
from regstream.broker import spool
from regstream.store import database

_COPY = "COPY bare (stream, epoch, seq, type, time, key, priority, region, value) FROM STDIN (FORMAT binary)"
_TYPES = ["text", "text", "int8", "text", "timestamptz", "text", "text", "text", "text"]


def measure(tiny: bool = False) -> list[table.Row]:
    """Rounds of both in turn, into tables of the same shape that are empty at each beginning; the median ratio."""
    count, rounds = (2_000, 1) if tiny else (40_000, 7)
    batches = list(store_rig.batches(count))
    with store_rig.cluster() as cluster, tempfile.TemporaryDirectory() as name:
        ours, bare = asyncio.run(_measure(cluster.url(), pathlib.Path(name), batches, rounds))
    ratio = statistics.median(one / other for one, other in zip(ours, bare, strict=True))
    figure = statistics.median(ours)
    note = f"{count:,} rows of about {len(batches[0][0].event.value)} bytes a round, spool and acknowledgement included"
    row = table.Row("record / bare binary COPY", figure, "rows/CPU s", 0.5, 0.8, figure / ratio, True, True, note)
    return [row]


async def _measure(
    url: str, folder: pathlib.Path, batches: list[list[broker.Record]], rounds: int
) -> tuple[list[float], list[float]]:
    moments = store.Moments(time.time, time.monotonic)
    kept = spool.Spool(folder / "spool")
    one = store.Store(database.Database(url), kept, None, moments, "N", None, lambda *_: None)
    await one.start()
    rows = [_row(record) for batch in batches for record in batch]
    ours, bare = [], []
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("CREATE TABLE bare (LIKE regstream.events INCLUDING ALL)")
        for _ in range(rounds):
            await connection.execute("TRUNCATE bare; TRUNCATE regstream.events; DELETE FROM regstream.positions")
            bare.append(len(rows) / await _bare(connection, rows))
            ours.append(len(rows) / await _ours(one, batches))
    await one.close()
    return ours, bare


async def _bare(connection: psycopg.AsyncConnection, rows: list[tuple[object, ...]]) -> float:
    began = time.process_time()
    async with connection.cursor().copy(_COPY) as copy:
        copy.set_types(_TYPES)
        for row in rows:
            await copy.write_row(row)
    return time.process_time() - began


async def _ours(one: store.Store, batches: list[list[broker.Record]]) -> float:
    began, wanted = time.process_time(), one.status.recorded + sum(map(len, batches))
    for batch in batches:
        one.record(batch)
        await asyncio.sleep(0)
    while one.status.recorded < wanted:
        await asyncio.sleep(0.02)
    return time.process_time() - began


def _row(record: broker.Record) -> tuple[object, ...]:
    event, head = record.event, record.event.head
    when = datetime.datetime.fromisoformat(head.time)
    return (
        head.stream, head.epoch, event.seq, head.type, when, event.key, str(head.priority), head.region,
        event.value.decode(),
    )  # fmt: skip
