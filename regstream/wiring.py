"""All rooms of a daemon, made and joined; nothing connects yet."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import secrets
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from regstream import (
    __version__,
    broker,
    config,
    engine,
    errors,
    event,
    hub,
    leadership,
    reloader,
    settings,
    spec,
    tracing,
)
from regstream.broker import simulated
from regstream.event import Event, Position, rfc3339
from regstream.generator import stream as streams
from regstream.server import app, process, resume
from regstream.server.security import admission, auth, connections
from regstream.server.transports import socketio, sse, websocket, writer

if TYPE_CHECKING:
    from regstream import store
    from regstream.broker import failover, kafka, recovery
    from regstream.broker.kafka import leader
    from regstream.store import replay

CLOSING_SECONDS = 1.0
# Who reads more slowly than events are made must get over the largest burst; the frames are shared by all who wait
QUEUE = {"limit": 2 * spec.MAX_BATCH, "limit_bytes": 32 * 2**20}


Announce = Callable[[str, Mapping[str, Any]], None]


def ulid(now: float) -> str:
    """A new name that sorts by time."""
    return event.ulid(now, secrets.randbits(80))


@dataclasses.dataclass(frozen=True, slots=True)
class Components:
    """What the daemon is made of."""

    settings: settings.Settings
    broker: broker.Broker
    hub: hub.Hub
    engine: engine.Engine
    door: reloader.Reloader
    server: app.Server
    sockets: websocket.WebSockets
    paths: reloader.Paths
    store: store.Store | None
    journal: recovery.LocalState | None
    replays: replay.ReplayRegistry | None
    traces: tracing.Traces
    pulse: process.LoopLag
    role: leadership.Leadership


def build(chosen: settings.Settings, begin: float | None = None, renumber: bool = False) -> Components:
    """All rooms, joined and at rest. What lies between ``begin``, in epoch seconds, and now will be made first.

    With ``renumber`` streams begin a new numbering, see ``engine.Origin``.
    """
    now = time.time
    paths = reloader.Paths(chosen.streams, chosen.scenarios, chosen.templates)
    fanout = hub.Hub(now)
    traces = tracing.make(chosen.traces, __version__, chosen.server_name)
    carrier = broker_of(chosen, fanout.announce, traces)
    keeper = store_of(chosen, carrier, fanout.announce)
    kept = local_state_of(chosen) if keeper is None else None
    history = _history(keeper, carrier)
    identity = streams.Identity(chosen.source, chosen.region)
    origin = engine.Environment(
        now, lambda: ulid(now()), lambda: ulid(now()), secrets.randbits(63), identity, begin, renumber
    )
    worker = engine.Engine(
        origin, carrier, fanout, allowed=chosen.streaming, memory=keeper.memory if keeper else kept, traces=traces
    )

    def load() -> spec.Catalog:
        return config.load(chosen.streams, chosen.scenarios, chosen.templates, chosen.env)

    def locate(where: tuple[str, ...], message: str) -> errors.Problem:
        return config.problem_at(chosen.streams, where, message)

    def digest() -> str:
        return config.digest(chosen.streams, chosen.scenarios, chosen.templates)

    settling = reloader.Settling(is_written=functools.partial(reloader.is_written, paths.streams))
    door = reloader.Reloader(load, worker, now, fanout.announce, locate, digest, settling)
    replays = _replays(keeper, carrier, fanout)
    refused = admission.RejectionCounter()
    entrance = auth.Authenticator(chosen.all_tokens, chosen.rate_limit, refused)
    most = process.connections(chosen.max_connections)
    shared = writer.TransportContext(
        hub=fanout,
        max_connections=most,
        origins=chosen.cors_origins,
        subscriber_limits=QUEUE,
        history=history,
        outlets=writer.FlushScheduler(chosen.window / 1000),
        guard=entrance,
    )
    readers = sse.EventStreams(shared)
    services = app.Services(
        chosen, worker, fanout, carrier, door, now, __version__, identity, readers, entrance, keeper, replays, traces
    )
    site = app.build(services)
    welcome = {"server": chosen.server_name, "region": chosen.region, "version": __version__}
    sockets = websocket.attach(site, shared, now=now, welcome=welcome)
    sessions = socketio.attach(site, shared)
    ways = site.ctx.ways
    ways.update(websocket=sockets, socketio=sessions)

    async def closing() -> None:
        await asyncio.gather(*(way.close_all(CLOSING_SECONDS) for way in ways.values()))

    per_address = None if chosen.proxies else chosen.max_per_address
    bounded = connections.ConnectionLimiter(most, per_address, refused)
    server = app.Server(site, chosen.host, chosen.port, bounded, closing)
    lead = leadership.Leadership(worker, carrier, keeper, _claims(chosen, carrier) if chosen.streaming else None)
    return Components(
        chosen, carrier, fanout, worker, door, server, sockets, paths, keeper, kept, replays, traces, services.pulse,
        lead,
    )  # fmt: skip


def _claims(chosen: settings.Settings, carrier: broker.Broker) -> leader.LeaderClaims | None:
    """What keeps two daemons from generating onto the same topics; the folder for state says which daemon this is."""
    if not chosen.kafka_servers:
        return None
    from regstream.broker.kafka import leader

    since = rfc3339(time.time())
    return leader.LeaderClaims(
        _connection(chosen), chosen.state / "instance", chosen.server_name, since, lambda: not carrier.status.simulation
    )


def broker_of(chosen: settings.Settings, announce: Announce, traces: tracing.Traces) -> broker.Broker:
    """Kafka with its fallback when there are servers, else the simulation."""
    if not chosen.kafka_servers:
        return simulated.SimulatedBroker(reason="KAFKA_BROKER is not set")
    # Late, because a simulation need not pay for the client library
    from regstream.broker import failover, kafka, spool

    connection = _connection(chosen)

    def changed(before: str, after: str, reason: str) -> None:
        announce("broker-changed", {"from": before, "to": after, "reason": reason})

    # One that generates nothing has nothing to keep, and may stand beside one that does
    outbox = spool.Spool(chosen.state / "spool") if chosen.streaming else None
    told: set[str] = set()
    return failover.FailoverBroker(
        lambda starts: kafka.KafkaBroker(connection, starts, told, traces), outbox, time.monotonic, changed
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


def store_of(chosen: settings.Settings, carrier: broker.Broker, announce: Announce) -> store.Store | None:
    """PostgreSQL, if there is to be any; with Kafka it reads the topics itself."""
    url = chosen.database.get_secret_value()
    if not url:
        return None
    # Late, because who stores nothing need not pay for the client library
    from regstream import store
    from regstream.broker import spool
    from regstream.store import pool

    def changed(state: str, reason: str) -> None:
        announce("store-changed", {"state": state, "reason": reason})

    # One that generates nothing may stand beside one that does, and has notes of its own to keep
    kept = spool.Spool(chosen.state / ("store" if chosen.streaming else "store-beside"))
    moments = store.Moments(time.time, time.monotonic)
    source = _source(chosen, carrier)
    base = pool.Database(url, chosen.server_name)
    return store.Store(
        base, kept, source, moments, ulid(time.time()), chosen.retention, changed, generates=chosen.streaming
    )


def local_state_of(chosen: settings.Settings) -> recovery.LocalState | None:
    """What rows and the seed go on with where Kafka has the events and no database the rest."""
    if not chosen.kafka_servers or not chosen.streaming:
        return None
    from regstream.broker import recovery, spool

    return recovery.LocalState(spool.Spool(chosen.state / "rows"), ulid(time.time()), time.time)


def _source(chosen: settings.Settings, carrier: broker.Broker) -> store.Source | None:
    if not chosen.kafka_servers:
        return None
    from regstream import store
    from regstream.broker.kafka import consumer

    connection, cluster = _connection(chosen), cast("failover.FailoverBroker", carrier)
    return store.Source(lambda starts: consumer.TopicReader(connection, starts), lambda: cluster.topics)


def _replays(keeper: store.Store | None, carrier: broker.Broker, fanout: hub.Hub) -> replay.ReplayRegistry | None:
    if keeper is None:
        return None
    from regstream.store import replay

    ways = replay.Ways(fanout.replay, fanout.pressure, getattr(carrier, "resend", None), fanout.announce)
    return replay.ReplayRegistry(keeper.archive, ways, time.time, time.monotonic, lambda: ulid(time.time()))


def _history(keeper: store.Store | None, carrier: broker.Broker) -> resume.History:
    """What the rings do not hold any more: the database has all of it, and knows by an index where."""
    if keeper is None:
        return carrier.history

    async def history(stream: str, after: Position, before: int) -> list[Event] | None:
        found = await keeper.history(stream, after, before)
        return await carrier.history(stream, after, before) if found is None else found

    return history
