"""The rooms that the routes translate to."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from regstream import broker, engine, hub, reloader, settings, tracing
from regstream.generator import stream as streams
from regstream.server import asyncapi, process
from regstream.server.security.auth import Authenticator
from regstream.server.transports import sse

if TYPE_CHECKING:
    # Without a database nobody has to pay for its client library
    from regstream import store
    from regstream.store import replay


@dataclasses.dataclass(frozen=True, slots=True)
class Services:
    """What a server serves; ``now`` gives seconds since 1970, ``version`` is this program's.

    ``store`` and ``replays`` are None where there is no database.
    """

    settings: settings.Settings
    engine: engine.Engine
    hub: hub.Hub
    broker: broker.Broker
    door: reloader.Reloader
    now: Callable[[], float]
    version: str
    identity: streams.Identity
    readers: sse.EventStreams
    guard: Authenticator
    store: store.Store | None = None
    replays: replay.ReplayRegistry | None = None
    traces: tracing.Traces = tracing.OFF
    formats: asyncapi.Formats = dataclasses.field(default_factory=asyncapi.Formats)
    pulse: process.LoopLag = dataclasses.field(default_factory=process.LoopLag)
