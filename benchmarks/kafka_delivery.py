"""From the emission of an event through real Kafka to a WebSocket client, at 500 events a second."""

from __future__ import annotations

import asyncio
import pathlib
import statistics
import tempfile

from benchmarks import delivery, kafka_rig, rig, table

STREAMS = 50
# As many as the shipped streams have
TOPICS = 6


def measure(tiny: bool = False) -> list[table.Row]:
    """As the row ``delivery``, with Kafka on the way; beside it the same daemon in simulation."""
    seconds, rounds = (1.0, 1) if tiny else (10.0, 3)
    with kafka_rig.cluster() as cluster, tempfile.TemporaryDirectory() as folder:
        seen, floor = [], []
        # A broker that was just started takes several times as long until Java has compiled what it does
        _followed(pathlib.Path(folder, "first"), seconds, cluster.bootstrap)
        for number in range(rounds):
            seen.append(_followed(pathlib.Path(folder, f"kafka-{number}"), seconds, cluster.bootstrap))
            floor.append(_followed(pathlib.Path(folder, f"simulated-{number}"), seconds, ""))
    p99, least = (statistics.median(_p99(one) for one in found) for found in (seen, floor))
    every = [delay for one in seen for delay in one.delays]
    rates = ", ".join(f"{_p99(one):.1f}" for one in seen)
    note = f"{rig.spread(every)}\n{len(every):,} events, {seen[0].rate:,.0f} a second; p99 of each round {rates} ms"
    return [table.Row("through Kafka to client, p99", p99, "ms", 40, 15, least, note=note)]


def _p99(seen: delivery.Seen) -> float:
    return rig.percentile([delay for _, delay in seen.delays], 0.99) * 1000


def _followed(folder: pathlib.Path, seconds: float, servers: str) -> delivery.Seen:
    folder.mkdir()
    rig.write_streams(folder / "streams.yaml", STREAMS, "100ms", topics=TOPICS)
    with rig.daemon(*rig.flags(folder), KAFKA_BROKER=servers, REGSTREAM_STATE=str(folder)) as (child, port):
        rig.until_ready(child, port)
        return asyncio.run(delivery.follow(f"ws://127.0.0.1:{port}/ws?channel=dashboard-updates", seconds))
