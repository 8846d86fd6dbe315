"""The middle of the daemon, joined as the daemon joins it: real files, catalog, door, engine, broker and hub."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import pathlib
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from unittest import mock

from regstream import config, engine, errors, hub, reloader, spec
from regstream.broker import simulated
from regstream.event import Event
from regstream.generator import stream as streams

PATIENCE = 60.0


async def until(condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """What ``condition`` gives once that is true."""
    async with asyncio.timeout(seconds):
        while not (value := condition()):
            await asyncio.sleep(0.002)
    return value


SETTLING = reloader.Settling(rest=0.02, removal=0.1)
"""Files that tests write are whole at once."""


def anchor(name: str, now: float, interval: float) -> float:
    """Ticks begin at once, those of streams that a test wants silent in half an hour or more."""
    return now + 0.001 if interval < 60_000 else now - interval / 2000


class Sink:
    """A subscriber that keeps what it is told."""

    def __init__(self, fanout: hub.Hub, *channels: str) -> None:
        self.told: list[dict[str, Any]] = []
        self._subscriber = hub.Subscriber(self._take)
        fanout.subscribe(self._subscriber, hub.SubscriptionRequest(channels))

    def _take(self) -> None:
        self.told += [json.loads(entry.text)["data"] for entry in self._subscriber.take(10**6, 10**9)]

    def kinds(self) -> list[str]:
        return [one["kind"] for one in self.told]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [one for one in self.told if one["kind"] == kind]


class World:
    """One engine and its surroundings; ``shown`` holds the events in the order in which the broker gave them out."""

    def __init__(
        self,
        folder: pathlib.Path,
        files: Mapping[str, str],
        limit: int = 10_000,
        memory: Any = None,
        epochs: str = "E",
        begin: float | None = None,
    ) -> None:
        self.folder = folder
        self.write(files)
        numbers = itertools.count(1)
        self.paths = reloader.Paths(folder / "streams.yaml", folder / "scenarios", folder / "templates")
        self.ahead = 0.0
        self.late: list[tuple[str, float]] = []
        self.shown: list[Event] = []
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.broker = simulated.SimulatedBroker(limit=limit)
        self.hub = hub.Hub(self.now)
        origin = engine.Environment(
            self.now,
            lambda: f"{epochs}{next(numbers)}",
            lambda: f"R{next(numbers)}",
            7,
            streams.Identity("/test", "LATAM"),
            begin,
        )
        self.engine = engine.Engine(
            origin, self.broker, self.hub, observe=lambda *tick: self.late.append(tick), memory=memory
        )
        self.door = reloader.Reloader(
            self.load, self.engine, self.now, self.hub.announce, self.locate, self.digest, SETTLING
        )
        self.system = Sink(self.hub, "system")
        self.tasks: list[asyncio.Task[None]] = []

    def now(self) -> float:
        return time.time() + self.ahead

    def load(self) -> spec.Catalog:
        return config.load(self.paths.streams, self.paths.scenarios, self.paths.templates, "test")

    def digest(self) -> str:
        return config.digest(self.paths.streams, self.paths.scenarios, self.paths.templates)

    def locate(self, where: tuple[str, ...], message: str) -> errors.Problem:
        return config.problem_at(self.paths.streams, where, message)

    def write(self, files: Mapping[str, str | None]) -> None:
        """Write files, or remove those that are None."""
        for name, text in files.items():
            path = self.folder / name
            if text is None:
                path.unlink()
                continue
            path.parent.mkdir(exist_ok=True)
            path.write_text(textwrap.dedent(text))

    async def reload(self, files: Mapping[str, str | None] | None = None) -> reloader.ReloadResult:
        self.write(files or {})
        return await self.door.reload("test")

    async def _pump(self) -> None:
        async for records in self.broker.consume():
            await self.flowing.wait()
            for record in records:
                self.shown.append(record.event)
                self.hub.broadcast(record.event)

    @contextlib.asynccontextmanager
    async def running(self, streaming: bool = True) -> AsyncIterator[World]:
        """Loaded and serving; at the end nothing may have died meanwhile."""
        with mock.patch("regstream.engine.active_stream.anchor", anchor):
            async with self._running(streaming):
                yield self

    @contextlib.asynccontextmanager
    async def _running(self, streaming: bool) -> AsyncIterator[None]:
        await self.broker.start()
        await self.door.reload("start")
        self.tasks = [asyncio.create_task(self.engine.serve()), asyncio.create_task(self._pump())]
        if streaming:
            self.engine.start()
        try:
            yield
            assert not [task.exception() for task in self.tasks if task.done()]
        finally:
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)

    # What is asked of it

    def events(self, stream: str) -> list[dict[str, Any]]:
        return [json.loads(one.value) for one in self.shown if one.head.stream == stream]

    def seqs(self, stream: str) -> list[int]:
        return [one.seq for one in self.shown if one.head.stream == stream]

    async def count(self, stream: str, count: int) -> list[dict[str, Any]]:
        """The events of a stream, once there are that many."""
        await until(lambda: len(self.seqs(stream)) >= count)
        return self.events(stream)

    async def ended(self, run_id: str, state: str = "completed") -> engine.status.RunStatus:
        await until(lambda: self.engine.run(run_id).state != "running")
        assert self.engine.run(run_id).state == state
        return self.engine.run(run_id)

    def whole(self) -> None:
        """Every stream's numbers rise by one, within each of its epochs."""
        last: dict[tuple[str, str], int] = {}
        for event in self.shown:
            place = event.head.stream, event.head.epoch
            assert event.seq == last.get(place, 0) + 1, place
            last[place] = event.seq


def stream(interval: str = "1h", **keys: Any) -> dict[str, Any]:
    """A declaration of a stream that is silent unless told otherwise."""
    return {"interval": interval, "fields": {"n": "{{ seq }}"}, **keys}


def file(entities: Mapping[str, Any] | None = None, **declared: Any) -> str:
    """A streams file as text."""
    return json.dumps({"seed": 7, "entities": entities or {}, "streams": declared})


def scenario(name: str, *steps: Mapping[str, Any]) -> dict[str, str]:
    """A scenario's file, by its path."""
    return {f"scenarios/{name.lower()}.yaml": json.dumps({"name": name, "steps": list(steps)})}
