"""From the emission of an event to a WebSocket client, at 1,000 events a second."""

from __future__ import annotations

import asyncio
import gc
import json
import pathlib
import tempfile
import time
from typing import NamedTuple

from websockets.asyncio import client

from benchmarks import rig, table

STREAMS = 100


class Seen(NamedTuple):
    """When each event came and how many seconds after its emission, events a second, the middle size of a text."""

    delays: list[tuple[float, float]]
    rate: float
    size: int


def measure(tiny: bool = False) -> list[table.Row]:
    """A daemon of its own process, the client here; beside it a bare server that sends texts of the same size.

    Emission is the moment that the batch is given, before its event is made: the field ``made`` holds it to the
    microsecond. Reception is when ``recv`` gave the text to the client. Both read the same clock.
    """
    seconds = 0.5 if tiny else 15.0
    seen = _ours(seconds)
    floor = _bare(seen.size, seconds / 2)
    p99, least = (rig.percentile([delay for _, delay in one.delays], 0.99) * 1000 for one in (seen, floor))
    note = f"{rig.spread(seen.delays)}\n{len(seen.delays):,} events, {seen.rate:,.0f} a second"
    return [table.Row("emission to client, p99", p99, "ms", 10, 3, least, note=note)]


def _ours(seconds: float) -> Seen:
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "streams.yaml")
        rig.write_streams(path, STREAMS, "100ms")
        flags = ("--streams", str(path), "--scenarios", f"{folder}/none", "--templates", f"{folder}/none")
        with rig.daemon(*flags) as (child, port):
            rig.until_ready(child, port)
            return asyncio.run(follow(f"ws://127.0.0.1:{port}/ws?channel=dashboard-updates", seconds))


def _bare(size: int, seconds: float) -> Seen:
    port = rig.free_port()
    with rig.process("-m", "benchmarks.bare", str(port), str(size)) as child:
        rig.until_ready(child, port)
        return asyncio.run(follow(f"ws://127.0.0.1:{port}/ws", seconds))


async def follow(url: str, seconds: float) -> Seen:
    """Read what comes for so long; it is looked into afterwards, so that reading is not held up."""
    taken: list[tuple[float, str]] = []
    # A collection here would be a delay of this client's own making: 30 ms in one of a thousand
    gc.disable()
    async with client.connect(url, compression=None) as connection:
        end = time.time() + seconds + 1
        while time.time() < end:
            text = await connection.recv()
            taken.append((time.time(), str(text)))
    frames = [(at, json.loads(text)) for at, text in taken]
    # The first second belongs to the start: the ticks of all streams have not begun
    begin = frames[0][0] + 1
    delays = [(at, at - one["data"]["data"]["made"]) for at, one in frames if at >= begin and "seq" in one["data"]]
    return Seen(
        delays,
        len(delays) / (frames[-1][0] - begin),
        sorted(len(text) for _, text in taken)[len(taken) // 2],
    )
