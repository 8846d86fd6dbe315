"""How long real Kafka is back until a daemon has sent it everything that waited on disk meanwhile."""

from __future__ import annotations

import asyncio
import json
import pathlib
import statistics
import tempfile
import time
import urllib.request
from typing import NamedTuple

import aiokafka
from websockets.asyncio import client

from benchmarks import generation, kafka_rig, rig, table
from scripts import kafka

STREAMS = 6


class Seconds(NamedTuple):
    """Until the spool was empty: since the broker's process was started, since it answered, since fallback ended."""

    start: float
    answer: float
    end: float


def measure(tiny: bool = False) -> list[table.Row]:
    """Kill the broker, make the events, start the broker; several times, one daemon. Nothing must be missing then.

    The broker is back when it answers a metadata request that names its controller, asked every 20 ms; the spool is
    empty when channel ``system`` says that the daemon is live.
    """
    count, rounds = (600, 1) if tiny else (60_000, 3)
    with kafka_rig.cluster() as cluster, tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        _write_streams(folder / "streams.yaml")
        with rig.daemon(*rig.flags(folder), KAFKA_BROKER=cluster.bootstrap, REGSTREAM_STATE=name) as (child, port):
            rig.until_ready(child, port)
            found = asyncio.run(_measure(cluster, port, count, rounds))
    middle = Seconds(*(statistics.median(column) for column in zip(*found, strict=True)))
    each = ", ".join(f"{one.answer:.1f}" for one in found)
    note = (
        f"since fallback ended {middle.end:.2f} s, since its process was started {middle.start:.2f} s"
        f"\n{count:,} events of the reference stream in {STREAMS} topics; each round {each} s"
    )
    return [table.Row("broker back to spool empty", middle.answer, "s", 10, 4, note=note)]


def _write_streams(path: pathlib.Path) -> None:
    """The reference stream several times over, each with its own topic, silent until it is asked for a burst."""
    head, _, declared = generation.REFERENCE.read_text(encoding="utf-8").partition("streams:\n")
    declared = declared.replace("interval: 1s", "interval: 24h")
    parts = [declared.replace("REFERENCE:", f"S{n}:").replace("bench.reference", f"bench.{n}") for n in range(STREAMS)]
    path.write_text(f"{head}streams:\n{''.join(parts)}", encoding="utf-8")


async def _measure(cluster: kafka.Cluster, port: int, count: int, rounds: int) -> list[Seconds]:
    found = []
    async with client.connect(f"ws://127.0.0.1:{port}/ws?channel=system", compression=None) as changes:
        for number in range(1, rounds + 1):
            await asyncio.to_thread(cluster.kill, 1)
            await _until(changes, "fallback")
            for n in range(STREAMS):
                await asyncio.to_thread(_burst, port, f"S{n}", count // STREAMS)
            found.append(await _back(cluster, changes))
            if await _held(cluster.bootstrap) < number * count:
                raise RuntimeError("events are missing on the topics")
    return found


async def _back(cluster: kafka.Cluster, changes: client.ClientConnection) -> Seconds:
    began = time.perf_counter()
    starting = asyncio.create_task(_answering(cluster))
    left = await _until(changes, "draining")
    done = await _until(changes, "live")
    return Seconds(done - began, done - await starting, done - left)


async def _answering(cluster: kafka.Cluster) -> float:
    await asyncio.to_thread(cluster.restart, 1)
    return time.perf_counter()


async def _until(changes: client.ClientConnection, state: str) -> float:
    while True:
        data = json.loads(await changes.recv())["data"]
        if data.get("kind") == "broker-changed" and data["to"] == state:
            return time.perf_counter()


def _burst(port: int, stream: str, count: int) -> None:
    body = json.dumps({"streamType": stream, "count": count}).encode()
    url, headers = f"http://127.0.0.1:{port}/api/streaming/burst", {"content-type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as answer:
        answer.read()


async def _held(servers: str) -> int:
    reader = aiokafka.AIOKafkaConsumer(bootstrap_servers=servers)
    await reader.start()
    try:
        places = [aiokafka.TopicPartition(f"bench.{n}", 0) for n in range(STREAMS)]
        reader.assign(places)
        return sum((await reader.end_offsets(places)).values())
    finally:
        await reader.stop()
