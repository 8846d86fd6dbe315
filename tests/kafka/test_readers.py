"""Readers whose daemon is restarted on Kafka: the numbering goes on, and so do they, by each way."""

from __future__ import annotations

import asyncio
import json
import pathlib
from typing import Any

import pytest

from regstream import client
from scripts import kafka
from tests import process
from tests.kafka import clusters, daemons
from tests.relay import Relay, relaying

STREAM = "RARE"


@pytest.fixture
def cluster(shared_cluster: kafka.Cluster) -> kafka.Cluster:
    """The shared one, with none of our topics."""
    asyncio.run(clusters.forget(shared_cluster.bootstrap, daemons.TOPICS))
    return shared_cluster


def follow(daemon: process.Daemon, last: str, until: int) -> tuple[dict[str, Any], list[int], str]:
    """By Server-Sent Events up to that number: what was answered, the numbers, the last id."""
    answer: dict[str, Any] = {}
    seqs: list[int] = []
    headers = {"last-event-id": last} if last else {}
    url = f"/api/streaming/stream?channel={STREAM}&channel=KEYED"
    with daemon.http.stream("GET", url, headers=headers) as lines:
        for line in lines.iter_lines():
            key, _, value = line.partition(": ")
            if key == "id":
                last = value
            elif key == "data" and '"streams"' in value:
                answer = json.loads(value)["streams"]
                daemon.burst(STREAM, 5)
            elif key == "data" and json.loads(value)["subject"] == STREAM:
                seqs.append(json.loads(value)["seq"])
            elif not line and seqs and seqs[-1] >= until:
                break
    return answer, seqs, last


def test_by_server_sent_events(tmp_path: pathlib.Path, cluster: kafka.Cluster) -> None:
    with daemons.running(tmp_path / "d", cluster.bootstrap) as daemon:
        begun = daemon.stream(STREAM)["seq"]
        _, seqs, last = follow(daemon, "", begun + 5)
        daemon.burst(STREAM, 20)
    with daemons.running(tmp_path / "d", cluster.bootstrap) as daemon:
        answer, more, _ = follow(daemon, last, begun + 30)
        assert (answer[STREAM]["recovered"], answer[STREAM]["replayed"]) == (True, 20)
        assert answer["KEYED"]["recovered"] is True
    assert seqs + more == list(range(begun + 1, begun + 31))


async def test_by_the_python_client(tmp_path: pathlib.Path, cluster: kafka.Cluster) -> None:
    timing = client.Timing(shortest=0.05, longest=0.5)
    recovered: list[bool] = []

    def notice(name: str, data: dict[str, Any]) -> None:
        if name == "subscribed":
            recovered.append(data["streams"][STREAM]["recovered"])

    async def read(events: client.Subscription, last: int) -> list[int]:
        seqs: list[int] = []
        async with asyncio.timeout(process.SECONDS):
            async for event in events:
                seqs.append(event["seq"])
                if seqs[-1] == last:
                    break
        return seqs

    folder = tmp_path / "d"
    daemon = await asyncio.to_thread(daemons.start, folder, cluster.bootstrap)
    try:
        async with (
            relaying(Relay(daemon.port)) as relay,
            client.subscribe(f"http://127.0.0.1:{relay.port}", [STREAM], notice=notice, timing=timing) as events,
        ):
            first, last = await asyncio.to_thread(daemon.burst, STREAM, 10)
            seqs = await read(events, last)
            relay.cut()
            await asyncio.to_thread(daemon.burst, STREAM, 10)
            assert await asyncio.to_thread(daemon.stop) == 0
            daemon = await asyncio.to_thread(daemons.start, folder, cluster.bootstrap)
            relay.target = daemon.port
            relay.mend()
            seqs += await read(events, last + 10)
            _, last = await asyncio.to_thread(daemon.burst, STREAM, 10)
            seqs += await read(events, last)
    finally:
        await asyncio.to_thread(daemon.stop)
    assert seqs == list(range(first, last + 1))
    assert recovered[-1] is True
