"""A whole daemon but for its process: real engine, hub, broker and door on a folder of its own, over real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import pathlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio

from regstream import broker, config, credentials, engine, hub, reloader, spec, store
from regstream.broker import simulated, spool
from regstream.generator import stream as streams
from regstream.server import app
from regstream.server.security import auth, connections
from regstream.server.transports import socketio, sse, websocket, writer
from regstream.store import pool

STREAMS = """\
version: 1
seed: 7
profiles:
  development: {speed: 1}
entities:
  svp:
    count: 3
    key: id
    fields: {id: "SVP-{{ index + 1 }}", spent: 0}
streams:
  TRANSACTION_STREAM:
    description: Payments
    event: transaction-update
    interval: 50ms
    batch_size: 2
    with: {svp: "{{ pick('svp') }}"}
    fields: {svpId: "{{ svp.id }}", amount: "{{ uniform(1, 9) | round(2) }}"}
  SYSTEM_METRICS:
    event: production-metrics
    schedule: "0 3 29 2 *"
    fields: {load: "{{ uniform(0, 1) }}"}
  NIGHTLY:
    schedule: "0 3 * * *"
    enabled: false
    fields: {day: "{{ now.year }}"}
"""
SCENARIOS = {
    "crisis.yaml": """\
name: BUDGET_CRISIS
description: Spending runs over
steps:
  - burst: {stream: SYSTEM_METRICS, count: 3}
  - set: {stream: TRANSACTION_STREAM, batch_size: 5}
  - wait: 10m
""",
    "quick.yaml": "name: QUICK\nsteps: [{pause: SYSTEM_METRICS}, {resume: SYSTEM_METRICS}]\n",
}

MOST = 1000


TOKENS = {"read": "r-0123456789abcdef", "control": "c-0123456789abcdef", "admin": "a-0123456789abcdef"}
PAIRS = credentials.parse(" ".join(f"{role}:{token}" for role, token in TOKENS.items()))


@dataclasses.dataclass
class Settings:
    """What the server reads of the settings."""

    cors_origins: tuple[str, ...] = ("http://localhost:*", "http://127.0.0.1:*")
    proxies: int = 0
    kafka_servers: tuple[str, ...] = ()
    kafka_protocol: str = "PLAINTEXT"
    kafka_mechanism: str = "PLAIN"


@dataclasses.dataclass
class Live:
    """A daemon that serves, and a client that is connected to it."""

    services: app.Services
    server: app.Server
    client: httpx.AsyncClient
    folder: pathlib.Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    async def get(self, path: str) -> Any:
        """The JSON at ``path`` under /api/streaming."""
        response = await self.client.get(f"/api/streaming{path}")
        assert response.status_code == 200, response.text
        return response.json()

    async def until(self, condition: Callable[[], Any], seconds: float = 15) -> Any:
        """The first true value of ``condition``."""
        async with asyncio.timeout(seconds):
            while not (value := condition()):
                await asyncio.sleep(0.01)
        return value


def write(folder: pathlib.Path) -> None:
    (folder / "scenarios").mkdir()
    (folder / "streams.yaml").write_text(STREAMS)
    for name, text in SCENARIOS.items():
        (folder / "scenarios" / name).write_text(text)


async def _pump(carrier: broker.Broker, fanout: hub.Hub, keeper: store.Store | None) -> None:
    async for records in carrier.consume():
        if keeper is not None:
            keeper.record(records)
        for record in records:
            fanout.broadcast(record.event)


def services(folder: pathlib.Path, url: str | None = None, entrance: auth.Authenticator | None = None) -> app.Services:
    """All that the server needs, at rest."""
    numbers = itertools.count(1)
    carrier = simulated.SimulatedBroker()
    fanout = hub.Hub(time.time)
    identity = streams.Identity("/regstream/LATAM/test", "LATAM")
    origin = engine.Environment(time.time, lambda: f"epoch{next(numbers)}", lambda: f"run{next(numbers)}", 7, identity)
    keeper = _store(folder, url, fanout) if url else None
    worker = engine.Engine(origin, carrier, fanout, memory=keeper.memory if keeper else None)

    def load() -> spec.Catalog:
        return config.load(folder / "streams.yaml", folder / "scenarios", folder / "templates", "development")

    door = reloader.Reloader(load, worker, time.time, fanout.announce)
    entrance = entrance or auth.Authenticator()
    readers = sse.EventStreams(writer.TransportContext(hub=fanout, max_connections=MOST, guard=entrance))
    return app.Services(
        Settings(), worker, fanout, carrier, door, time.time, "1.2.3", identity, readers, entrance, keeper
    )


def _store(folder: pathlib.Path, url: str, fanout: hub.Hub) -> store.Store:
    moments = store.Moments(time.time, time.monotonic)
    kept = spool.Spool(folder / "state")

    def changed(state: str, reason: str) -> None:
        fanout.announce("store-changed", {"state": state, "reason": reason})

    return store.Store(pool.Database(url), kept, None, moments, "NOTES", None, changed)


@contextlib.asynccontextmanager
async def serving(
    folder: pathlib.Path,
    url: str | None = None,
    entrance: auth.Authenticator | None = None,
    door: connections.ConnectionLimiter | None = None,
) -> AsyncIterator[Live]:
    """A daemon on the files of ``folder``, streaming, until the end of the block; with a database if there is one."""
    parts = services(folder, url, entrance)
    await parts.broker.start()
    if parts.store is not None:
        await parts.store.start()
    await parts.door.reload("start")
    tasks = [
        asyncio.create_task(parts.engine.serve()),
        asyncio.create_task(_pump(parts.broker, parts.hub, parts.store)),
    ]
    site = app.build(parts)
    shared = writer.TransportContext(
        hub=parts.hub, max_connections=MOST, origins=parts.settings.cors_origins, guard=parts.guard
    )
    sockets = websocket.attach(site, shared, now=time.time, welcome={})
    sessions = socketio.attach(site, shared)
    site.ctx.ways.update(websocket=sockets, socketio=sessions)

    async def closing() -> None:
        await asyncio.gather(*(way.close_all(2) for way in site.ctx.ways.values()))

    door = door or connections.ConnectionLimiter(MOST, None, parts.guard.refusals)
    server = app.Server(site, "127.0.0.1", 0, door, closing)
    await server.start()
    parts.engine.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=30) as client:
            yield Live(parts, server, client, folder)
    finally:
        await parts.engine.drain()
        await parts.broker.close()
        await server.drain(5)
        await server.stop()
        if parts.store is not None:
            await parts.store.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def live(tmp_path: pathlib.Path) -> AsyncIterator[Live]:
    write(tmp_path)
    async with serving(tmp_path) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Live]:
    """One daemon for the tests of a module that leave it as it was; they run on the module's loop."""
    folder = tmp_path_factory.mktemp("shared")
    write(folder)
    async with serving(folder) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Live]:
    """One that has `TOKENS`, for the tests of a module."""
    folder = tmp_path_factory.mktemp("guarded")
    write(folder)
    async with serving(folder, entrance=auth.Authenticator(PAIRS)) as running:
        yield running
