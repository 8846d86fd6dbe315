"""A client that is cut off at 500 events a second, on each way: everything that it missed, or an honest no.

Socket.IO's own client has its tests in ``tests/sio``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from regstream import client
from tests.process import Daemon
from tests.relay import Relay, relaying

STREAM = "TRANSACTION_STREAM"
AWAY = 10.0
BOUND = 60.0
Heard = list[tuple[str, Any]]


@pytest.fixture
def busy(daemon: Daemon) -> Daemon:
    """500 events a second of one stream."""
    answer = daemon.http.patch(f"/api/streaming/streams/{STREAM}", json={"interval": 20, "batchSize": 10})
    assert answer.status_code == 200, answer.text
    return daemon


async def by_websocket(relay: Relay, heard: Heard) -> AsyncIterator[dict[str, Any]]:
    url = f"http://127.0.0.1:{relay.port}"
    timing = client.Timing(shortest=0.1, longest=0.5)

    def notice(name: str, data: Any) -> None:
        heard.append((name, data))

    async with client.subscribe(url, [STREAM], snapshot=True, notice=notice, timing=timing) as events:
        async for event in events:
            yield event


async def by_sse(relay: Relay, heard: Heard) -> AsyncIterator[dict[str, Any]]:
    """What a browser's EventSource does: reads, connects again with the last id that it saw."""
    headers: dict[str, str] = {}
    url = f"http://127.0.0.1:{relay.port}/api/streaming/stream?channel={STREAM}&snapshot=true"
    while True:
        with contextlib.suppress(httpx.TransportError):
            async with httpx.AsyncClient(timeout=BOUND) as http, http.stream("GET", url, headers=headers) as answer:
                name, mark, data = "", "", ""
                async for line in answer.aiter_lines():
                    key, _, value = line.partition(": ")
                    name, mark = (value, mark) if key == "event" else (name, value if key == "id" else mark)
                    data = value if key == "data" else data
                    if not line and data and name == "subscribed":
                        heard.append((name, json.loads(data)))
                    elif not line and data:
                        headers["last-event-id"] = mark or headers.get("last-event-id", "")
                        yield json.loads(data)
                    if not line:
                        name = mark = data = ""
        heard.append(("lost", None))
        await asyncio.sleep(0.1)


WAYS = pytest.mark.parametrize("way", [by_websocket, by_sse])


async def read(events: AsyncIterator[dict[str, Any]], seen: list[dict[str, Any]]) -> None:
    async for event in events:
        seen.append(event)


@contextlib.asynccontextmanager
async def reading(way: Any, daemon: Daemon) -> AsyncIterator[tuple[Relay, Heard, list[dict[str, Any]]]]:
    heard: Heard = []
    seen: list[dict[str, Any]] = []
    async with relaying(Relay(daemon.port)) as relay:
        task = asyncio.create_task(read(way(relay, heard), seen))
        try:
            yield relay, heard, seen
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def until(condition: Any) -> None:
    async with asyncio.timeout(BOUND):
        while not condition():
            await asyncio.sleep(0.02)


def answers(heard: Heard) -> list[dict[str, Any]]:
    return [data["streams"][STREAM] for name, data in heard if name == "subscribed"]


@WAYS
async def test_ten_seconds_away_and_nothing_missed(busy: Daemon, way: Any) -> None:
    async with reading(way, busy) as (relay, heard, seen):
        await until(lambda: len(seen) > 500)
        relay.cut()
        await until(lambda: any(name == "lost" for name, _ in heard))
        await asyncio.sleep(AWAY)
        last = busy.stream(STREAM)["seq"]
        relay.mend()
        await until(lambda: seen[-1]["seq"] > last + 100)
        first, again = answers(heard)
        assert again["recovered"] is True
        assert again["replayed"] > 2000, "it was away while events were made"
        live = [event["seq"] for event in seen if event["seq"] > first["seq"]]
        assert live == list(range(first["seq"] + 1, live[-1] + 1))


@WAYS
async def test_longer_away_than_history_lasts(busy: Daemon, way: Any) -> None:
    async with reading(way, busy) as (relay, heard, seen):
        await until(lambda: len(seen) > 100)
        relay.cut()
        await until(lambda: any(name == "lost" for name, _ in heard))
        before = len(seen)
        shown = busy.stream(STREAM)["seq"] + 9000
        await asyncio.to_thread(busy.burst, STREAM, 9000)
        await until(
            lambda: busy.get("/api/streaming/events?stream=" + STREAM + "&limit=1")["events"][0]["seq"] >= shown
        )
        relay.mend()
        await until(lambda: len(answers(heard)) == 2)
        answer = answers(heard)[1]
        assert (answer["recovered"], answer["replayed"]) == (False, 0)
        assert answer["snapshot"] > 0
        await until(lambda: seen[-1]["seq"] > answer["seq"] + 100)
        fresh = seen[before:]
        snapshot = [event for event in fresh if event["seq"] <= answer["seq"]]
        assert len(snapshot) == answer["snapshot"]
        assert len({event["data"]["costCenterId"] for event in snapshot}) == len(snapshot), "one a key"
        live = [event["seq"] for event in fresh if event["seq"] > answer["seq"]]
        assert live == list(range(answer["seq"] + 1, answer["seq"] + 1 + len(live)))
