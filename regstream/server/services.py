"""The rooms that the routes translate to."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from regstream import broker, engine, hub, reload, settings, tracing
from regstream.generate import stream as streams
from regstream.server import asyncapi, pulse, sse
from regstream.server.guard import Guard

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
    door: reload.Door
    now: Callable[[], float]
    version: str
    identity: streams.Identity
    readers: sse.Readers
    guard: Guard
    store: store.Store | None = None
    replays: replay.Replays | None = None
    traces: tracing.Traces = tracing.OFF
    formats: asyncapi.Formats = dataclasses.field(default_factory=asyncapi.Formats)
    pulse: pulse.Pulse = dataclasses.field(default_factory=pulse.Pulse)
