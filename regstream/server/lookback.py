"""What the rings do not hold any more, read from a longer memory for those who resume."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from regstream import hub, model

History = Callable[[str, model.Position, int], Awaitable[Sequence[model.Event] | None]]
"""Asked for the events of a stream behind a position, up to a number at least; see ``broker.Broker.history``."""

log = logging.getLogger("regstream.server")


async def read(history: History, missing: Mapping[str, tuple[model.Position, int]]) -> dict[str, Sequence[model.Event]]:
    """What ``history`` has of ``missing`` (see ``hub.Hub.missing``); a stream that cannot be read is left out."""
    found = await asyncio.gather(*(_read(history, stream, *asked) for stream, asked in missing.items()))
    return {stream: events for stream, events in zip(missing, found, strict=True) if events is not None}


async def _read(history: History, stream: str, position: model.Position, before: int) -> Sequence[model.Event] | None:
    try:
        return await history(stream, position, before)
    except Exception:
        # Whoever waits for it must get an answer all the same: that it was not recovered
        log.exception("the history of %s could not be read", stream, extra={"stream": stream})
        return None


async def join(
    source: hub.Hub,
    history: History | None,
    subscriber: hub.Subscriber,
    request: hub.Request,
    confirm: Callable[[Mapping[str, hub.Subscribed]], None] | None = None,
) -> Mapping[str, hub.Subscribed]:
    """Subscribe with what a longer memory holds; see ``hub.Hub.subscribe``, whose errors it raises."""
    missing = source.missing(subscriber, request)
    older = await read(history, missing) if missing and history is not None else {}
    return source.subscribe(subscriber, request, confirm, older)
