"""The daemon's life: build, start, watch over, stop, in that order and each step bounded.

Constructors connect nothing. Tasks have names and are watched: one that dies takes the daemon down with an error, so
that whoever supervises it can start it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, cast

from regstream import __version__, broker, config, engine, errors, hub, model, reload, settings
from regstream.broker import simulated
from regstream.generate import stream as streams
from regstream.server import app, lookback, outlet, sio, sse, ws

if TYPE_CHECKING:
    from regstream import store
    from regstream.broker import failover, kafka
    from regstream.store import replay

STEP_SECONDS = 2.0
SHOWN = 64
# Who reads more slowly than events are made must get over the largest burst; the frames are shared by all who wait
QUEUE = {"limit": 2 * model.MAX_BATCH, "limit_bytes": 32 * 2**20}
SWITCH_SECONDS = 0.0005
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_log = logging.getLogger(__name__)


def ulid(now: float) -> str:
    """A new name that sorts by time: 48 bits of milliseconds and 80 random ones, in Crockford's base 32 (ULID)."""
    number = (int(now * 1000) << 80) | secrets.randbits(80)
    return "".join(_CROCKFORD[(number >> shift) & 31] for shift in range(125, -1, -5))


@dataclasses.dataclass(frozen=True, slots=True)
class Parts:
    """What the daemon is made of."""

    settings: settings.Settings
    broker: broker.Broker
    hub: hub.Hub
    engine: engine.Engine
    door: reload.Door
    server: app.Server
    sockets: ws.Sockets
    paths: reload.Paths
    store: store.Store | None
    replays: replay.Replays | None


def build(chosen: settings.Settings) -> Parts:
    """All rooms, joined and at rest."""
    now = time.time
    paths = reload.Paths(chosen.streams, chosen.scenarios, chosen.templates)
    fanout = hub.Hub(now)
    carrier = _carrier(chosen, fanout)
    keeper = _keeper(chosen, carrier, fanout)
    history = _history(keeper, carrier)
    identity = streams.Identity(chosen.source, chosen.region)
    origin = engine.Origin(now, lambda: ulid(now()), lambda: ulid(now()), secrets.randbits(63), identity)
    worker = engine.Engine(origin, carrier, fanout, allowed=chosen.streaming, memory=keeper.memory if keeper else None)

    def load() -> model.Catalog:
        return config.load(chosen.streams, chosen.scenarios, chosen.templates, chosen.env)

    def locate(where: tuple[str, ...], message: str) -> errors.Problem:
        return config.locate(chosen.streams, where, message)

    def digest() -> str:
        return config.digest(chosen.streams, chosen.scenarios, chosen.templates)

    door = reload.Door(load, worker, now, fanout.announce, locate, digest)
    outlets = outlet.Outlets(chosen.window / 1000)
    readers = sse.Readers(fanout, outlets, history, QUEUE)
    replays = _replays(keeper, carrier, fanout)
    services = app.Services(chosen, worker, fanout, carrier, door, now, __version__, identity, readers, keeper, replays)
    site = app.build(services)
    welcome = {"server": chosen.server_name, "region": chosen.region, "version": __version__}
    sockets = ws.attach(
        site,
        fanout,
        now=now,
        welcome=welcome,
        origins=chosen.cors_origins,
        subscriber_limits=QUEUE,
        history=history,
        outlets=outlets,
    )
    sessions = sio.attach(
        site,
        fanout,
        origins=chosen.cors_origins,
        subscriber_limits=QUEUE,
        history=history,
        outlets=outlets,
    )

    async def closing() -> None:
        ways = (sockets, sessions, readers)
        await asyncio.gather(*(way.close_all(STEP_SECONDS / 2) for way in ways))

    server = app.Server(site, chosen.host, chosen.port, closing=closing)
    return Parts(chosen, carrier, fanout, worker, door, server, sockets, paths, keeper, replays)


def _carrier(chosen: settings.Settings, fanout: hub.Hub) -> broker.Broker:
    """Kafka with its fallback when there are servers, else the simulation."""
    if not chosen.kafka_servers:
        return simulated.SimulatedBroker(reason="KAFKA_BROKER is not set")
    # Late, because a simulation need not pay for the client library
    from regstream.broker import failover, kafka, spool

    connection = _connection(chosen)

    def changed(before: str, after: str, reason: str) -> None:
        fanout.announce("broker-changed", {"from": before, "to": after, "reason": reason})

    # One that generates nothing has nothing to keep, and may stand beside one that does
    outbox = spool.Spool(chosen.state / "spool") if chosen.streaming else None
    told: set[str] = set()
    return failover.FailoverBroker(
        lambda starts: kafka.KafkaBroker(connection, starts, told), outbox, time.monotonic, changed
    )


def _connection(chosen: settings.Settings) -> kafka.Connection:
    from regstream.broker import kafka

    return kafka.Connection(
        ",".join(chosen.kafka_servers),
        chosen.kafka_protocol,
        chosen.kafka_mechanism,
        chosen.kafka_username,
        chosen.kafka_password.get_secret_value(),
        chosen.kafka_ca,
        chosen.kafka_cert,
        chosen.kafka_key,
    )


def _keeper(chosen: settings.Settings, carrier: broker.Broker, fanout: hub.Hub) -> store.Store | None:
    """PostgreSQL, if there is to be any; with Kafka it reads the topics itself."""
    url = chosen.database.get_secret_value()
    if not url:
        return None
    # Late, because who stores nothing need not pay for the client library
    from regstream import store
    from regstream.broker import spool
    from regstream.store import database

    def changed(state: str, reason: str) -> None:
        fanout.announce("store-changed", {"state": state, "reason": reason})

    # One that generates nothing may stand beside one that does, and has notes of its own to keep
    kept = spool.Spool(chosen.state / ("store" if chosen.streaming else "store-beside"))
    moments = store.Moments(time.time, time.monotonic)
    source = _source(chosen, carrier)
    return store.Store(database.Database(url), kept, source, moments, ulid(time.time()), chosen.retention, changed)


def _source(chosen: settings.Settings, carrier: broker.Broker) -> store.Source | None:
    if not chosen.kafka_servers:
        return None
    from regstream import store
    from regstream.broker.kafka import log

    connection, cluster = _connection(chosen), cast("failover.FailoverBroker", carrier)
    return store.Source(lambda starts: log.Log(connection, starts), lambda: cluster.topics)


def _replays(keeper: store.Store | None, carrier: broker.Broker, fanout: hub.Hub) -> replay.Replays | None:
    if keeper is None:
        return None
    from regstream.store import replay

    ways = replay.Ways(fanout.replay, fanout.pressure, getattr(carrier, "resend", None), fanout.announce)
    return replay.Replays(keeper.archive, ways, time.time, time.monotonic, lambda: ulid(time.time()))


def _history(keeper: store.Store | None, carrier: broker.Broker) -> lookback.History:
    """What the rings do not hold any more: the database has all of it, and knows by an index where."""
    if keeper is None:
        return carrier.history

    async def history(stream: str, after: model.Position, before: int) -> list[model.Event] | None:
        found = await keeper.history(stream, after, before)
        return await carrier.history(stream, after, before) if found is None else found

    return history


class Daemon:
    """One run of the daemon, from start to stop."""

    def __init__(self, parts: Parts, ready: Callable[[Parts], None]) -> None:
        self._parts = parts
        self._ready = ready
        self._stopping = asyncio.Event()
        self._asked = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Serve until a signal asks to stop; then stop in order.

        Raises ConfigError or StartError when it cannot start, and the error of a task that died while it ran.
        """
        loop = asyncio.get_running_loop()
        with _signals(loop, self._signalled, self._asked.set):
            try:
                await self._start()
                await self._watch()
            finally:
                await self._stop()
        _log.info("stopped")

    def _signalled(self) -> None:
        if self._stopping.is_set():
            _log.warning("second signal, leaving at once")
            os._exit(1)
        self._stopping.set()

    async def _reloads(self) -> None:
        """Reload after each SIGHUP; those that come while one is under way are one."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            with contextlib.suppress(errors.ConfigError):
                # The door has told everybody why
                await self._parts.door.reload("SIGHUP")

    async def _start(self) -> None:
        parts = self._parts
        gc.freeze()
        # While a reload reads files in its thread, the loop waits so long for its turn, several times for one tick
        sys.setswitchinterval(SWITCH_SECONDS)
        for notice in parts.settings.notices:
            _log.warning("%s", notice)
        await parts.broker.start()
        if parts.store is not None:
            await parts.store.start()
            self._spawn("store", parts.store.serve())
        await parts.door.reload("start")
        # What exists now lives as long as the daemon: collections need not look at it again
        gc.collect()
        gc.freeze()
        gc.enable()
        self._spawn("engine", parts.engine.serve())
        self._spawn("pump", self._pump())
        await parts.server.start()
        if parts.settings.streaming:
            parts.engine.start()
        self._spawn("watch", reload.watch(parts.paths, parts.door))
        self._spawn("reloads", self._reloads())
        self._ready(parts)

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.append(task)
        task.add_done_callback(lambda _: self._stopping.set())

    async def _pump(self) -> None:
        """Keep what the broker gives out, then show it."""
        broadcast, keeper = self._parts.hub.broadcast, self._parts.store
        async for records in self._parts.broker.consume():
            if keeper is not None:
                keeper.record(records)
            for number, record in enumerate(records, 1):
                broadcast(record.event)
                # While the broker has more, it waits for nothing; who writes to clients has to come in between
                if number % SHOWN == 0 or number == len(records):
                    await asyncio.sleep(0)

    async def _watch(self) -> None:
        await self._stopping.wait()
        for task in self._tasks:
            if task.done():
                error = _cause(task)
                _log.critical("%s died: %s: %s", task.get_name(), type(error).__name__, error)
                raise error

    async def _stop(self) -> None:
        parts = self._parts
        parts.server.refuse()
        parts.door.close()
        if parts.replays is not None:
            await _step("end the replays", parts.replays.close())
        await _step("end the reloads", self._end("watch", "reloads"))
        await _step("finish ticks", parts.engine.drain())
        await _step("close the broker", parts.broker.close())
        await _step("show the last events", self._join("pump"))
        await _step("drain the server", parts.server.drain(STEP_SECONDS))
        await _step("stop the server", parts.server.stop())
        if parts.store is not None:
            await _step("record the last events", parts.store.close())
        await self._end(*(task.get_name() for task in self._tasks))

    async def _join(self, *names: str) -> None:
        await asyncio.gather(*(task for task in self._tasks if task.get_name() in names), return_exceptions=True)

    async def _end(self, *names: str) -> None:
        for task in self._tasks:
            if task.get_name() in names:
                task.cancel()
        await self._join(*names)


def _cause(task: asyncio.Task[None]) -> BaseException:
    """Why a task ended that should not have; of several errors at once the first."""
    error = None if task.cancelled() else task.exception()
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error or RuntimeError("it ended, for no reason")


async def _step(what: str, work: Awaitable[None]) -> None:
    """One step of the stop: bounded, and told of when it fails."""
    try:
        await asyncio.wait_for(work, STEP_SECONDS + 0.5)
    except TimeoutError:
        _log.error("could not %s within %.1f s", what, STEP_SECONDS + 0.5)
    except Exception:
        _log.exception("could not %s", what)


@contextlib.contextmanager
def _signals(loop: asyncio.AbstractEventLoop, stop: Callable[[], None], hangup: Callable[[], None]) -> Any:
    """Handlers for SIGTERM, SIGINT and SIGHUP, given back at the end."""
    handlers = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: hangup}
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)
