"""What every transport needs: the hub, and the limits, tokens and writers that all transports share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from regstream import hub
from regstream.server import guard, lookback, outlet


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TransportContext:
    """The one argument of every transport.

    ``max_connections`` is how many clients a transport serves at once. ``origins`` are the patterns that an ``Origin``
    header must match when there is one. ``subscriber_limits`` are keywords of ``hub.Subscriber``. ``history`` is asked
    for what the rings do not hold any more. ``outlets`` flushes what waits. ``guard`` knows the tokens.
    """

    hub: hub.Hub
    max_connections: int
    origins: Sequence[str] = ()
    subscriber_limits: Mapping[str, int] = dataclasses.field(default_factory=dict)
    history: lookback.History | None = None
    outlets: outlet.Outlets = dataclasses.field(default_factory=outlet.Outlets)
    guard: guard.Guard = dataclasses.field(default_factory=guard.Guard)
