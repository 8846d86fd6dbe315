"""Stored events sent again to a WebSocket client: the error of their gaps at speed 1, and the rate at ``max``."""

from __future__ import annotations

import asyncio
import datetime
import functools
import itertools
import statistics
import time
from typing import Any

import orjson
import psycopg
from websockets.asyncio import client

from benchmarks import generation, rig, store_rig, table
from regstream.event import rfc3339

RATE = 200
SECONDS = 60
_MINUTE = """
    INSERT INTO regstream.events (stream, epoch, seq, type, time, key, priority, region, value)
    SELECT 'MINUTE', 'E', n, 'minute', at, NULL, 'NORMAL', 'LATAM',
        format('{"specversion":"1.0","id":"MINUTE/E/%%s","source":"/b","type":"minute","subject":"MINUTE","time":"%%s",'
            '"epoch":"E","seq":%%s,"priority":"NORMAL","region":"LATAM","data":{"n":%%s}}',
            n, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), n, n)
    FROM (
        SELECT n, to_timestamp(%(begin)s + n * 0.005 + (n * 7919 %% 4) * 0.001) AS at
        FROM generate_series(1, %(count)s::bigint) AS n
    ) AS numbers
"""

BURST = 5_000


def measure(tiny: bool = False) -> list[table.Row]:
    """One daemon for each; what is measured is when the client has a frame."""
    with store_rig.cluster() as cluster:
        gaps = _gaps(cluster.url(), 2 if tiny else SECONDS)
    with store_rig.cluster() as cluster:
        rates = _rates(cluster.url(), *((2_000, 1) if tiny else (50_000, 5)))
    return [gaps, rates]


def _gaps(url: str, seconds: int) -> table.Row:
    count, begin = RATE * seconds, time.time() - 1_000
    with store_rig.daemon(url, store_rig.silent("MINUTE")) as port:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(_MINUTE, {"begin": begin, "count": count})
            connection.execute("INSERT INTO regstream.positions VALUES ('MINUTE', 'E', 1) ON CONFLICT DO NOTHING")
        frames = asyncio.run(_minute(port, begin, count))
    errors = []
    for (at, stamp), (next_at, next_stamp) in itertools.pairwise(frames):
        errors.append((next_at, abs((next_at - at) - (next_stamp - stamp))))
    figure = rig.percentile([value for _, value in errors], 0.99) * 1000
    late = [at - frames[0][0] - (stamp - frames[0][1]) for at, stamp in frames]
    behind = f"behind the plan at the end {late[-1] * 1000:.1f} ms, at most {max(late) * 1000:.1f} ms"
    note = f"{rig.spread(errors)}\n{behind}"
    return table.Row(f"replay at speed 1, {RATE}/s: error of gaps p99", figure, "ms", 10, 3, note=note)


async def _minute(port: int, begin: float, count: int) -> list[tuple[float, float]]:
    async with client.connect(f"ws://127.0.0.1:{port}/ws?channel=MINUTE", compression=None) as socket:
        await _replay(port, begin, begin + count, 1, ["MINUTE"])
        frames = []
        while len(frames) < count:
            text = await asyncio.wait_for(socket.recv(), 30)
            at = time.perf_counter()
            data = orjson.loads(text)["data"]
            if "specversion" in data:
                frames.append((at, datetime.datetime.fromisoformat(data["time"]).timestamp()))
        return frames


def _rates(url: str, count: int, rounds: int) -> table.Row:
    spec = generation.REFERENCE.read_text(encoding="utf-8").replace("interval: 1s", "interval: 24h")
    with store_rig.daemon(url, spec) as port:
        live, again = asyncio.run(_both(port, url, count, rounds))
    ratio = statistics.median(one / other for one, other in zip(again, live, strict=True))
    figure = statistics.median(again)
    note = f"both to one client that reads each frame; {count:,} events a round, live ones recorded meanwhile"
    return table.Row("replay at max / live simulation", figure, "events/s", 0.5, 1, figure / ratio, True, True, note)


async def _both(port: int, url: str, count: int, rounds: int) -> tuple[list[float], list[float]]:
    live, again = [], []
    async with client.connect(
        f"ws://127.0.0.1:{port}/ws?channel=REFERENCE", compression=None, max_queue=None
    ) as socket:
        for _ in range(rounds):
            since = time.time() - 1
            live.append(await _live(socket, port, count))
            until = time.time() + 1
            await asyncio.to_thread(store_rig.until, functools.partial(_settled, url, since, count))
            began = time.perf_counter()
            await _replay(port, since, until, "max", ["REFERENCE"])
            again.append(count / (await _count(socket, count, replay=True) - began))
            # The next round's time is to have nothing of this one
            await asyncio.sleep(2.5)
    return live, again


def _settled(url: str, since: float, count: int) -> bool:
    with psycopg.connect(url) as connection:
        statement = "SELECT count(*) FROM regstream.events WHERE stream = 'REFERENCE' AND time >= to_timestamp(%s)"
        row = connection.execute(statement, [since]).fetchone()
    return row is not None and row[0] >= count


async def _live(socket: client.ClientConnection, port: int, count: int) -> float:
    began = time.perf_counter()
    sizes = [min(BURST, count - first) for first in range(0, count, BURST)]
    asking = asyncio.create_task(_burst(port, sizes[0]))
    for size, following in zip(sizes, [*sizes[1:], 0], strict=True):
        await asking
        # The next one begins while this one is read; a third would be more than may wait for a reader
        asking = asyncio.create_task(_burst(port, following))
        end = await _count(socket, size, replay=False)
    await asking
    return count / (end - began)


async def _burst(port: int, count: int) -> None:
    if count:
        body = {"streamType": "REFERENCE", "count": count}
        await asyncio.to_thread(lambda: store_rig.Client(port).ask("/burst", body))


async def _count(socket: client.ClientConnection, count: int, replay: bool) -> float:
    mark, seen = b'"replay":true', 0
    while seen < count:
        text = await asyncio.wait_for(socket.recv(decode=False), 60)
        content = text if isinstance(text, bytes) else text.encode()
        seen += b'"specversion"' in content and (mark in content[:80]) is replay
    return time.perf_counter()


async def _replay(port: int, begin: float, end: float, speed: Any, names: list[str]) -> None:
    body = {"from": rfc3339(begin), "to": rfc3339(end), "speed": speed, "streams": names}
    await asyncio.to_thread(lambda: store_rig.Client(port).ask("/replay", body))
