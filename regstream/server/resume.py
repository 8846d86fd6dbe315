"""What the rings do not hold any more, read from a longer memory for those who resume."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

from regstream import hub
from regstream.event import Event, Position

History = Callable[[str, Position, int], Awaitable[Sequence[Event] | None]]
"""Asked for the events of a stream behind a position, up to a number at least; see ``broker.Broker.history``."""

log = logging.getLogger("regstream.server")


ROUNDS = 4
"""So often is read on at most, when a ring has moved on although it was pinned."""


@contextlib.asynccontextmanager
async def older(
    source: hub.Hub, history: History | None, subscriber: hub.Subscriber, request: hub.SubscriptionRequest
) -> AsyncIterator[Mapping[str, Sequence[Event]]]:
    """What ``Hub.subscribe`` takes as ``older``, as ``history`` has it; to be subscribed with within.

    The rings are pinned until then, so that what was read joins on to what they hold, however long it took.
    """
    missing = source.missing(subscriber, request) if history is not None else {}
    if history is None or not missing:
        yield {}
        return
    with source.pinned(missing):
        yield await _read(source, history, subscriber, request)


async def _read(
    source: hub.Hub, history: History, subscriber: hub.Subscriber, request: hub.SubscriptionRequest
) -> dict[str, list[Event]]:
    found: dict[str, list[Event]] = {}
    missing = source.missing(subscriber, request)
    for _ in range(ROUNDS):
        answers = await asyncio.gather(*(_ask(history, stream, *asked) for stream, asked in missing.items()))
        more = {stream: events for stream, events in zip(missing, answers, strict=True) if events}
        for stream, events in more.items():
            found.setdefault(stream, []).extend(events)
        reached = {
            stream: position._replace(seq=position.seq + len(found.get(stream, ())))
            for stream, position in request.after.items()
        }
        left = source.missing(subscriber, request._replace(after=reached))
        # To what was shown last: a ring as long as it may become goes on to move
        missing = {
            stream: (after, now.seq + 1)
            for stream, (after, _) in left.items()
            if stream in more and (now := source.position(stream))
        }
        if not missing:
            break
    return found


async def _ask(history: History, stream: str, position: Position, before: int) -> Sequence[Event] | None:
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
    request: hub.SubscriptionRequest,
    confirm: Callable[[Mapping[str, hub.Subscribed]], None] | None = None,
) -> Mapping[str, hub.Subscribed]:
    """Subscribe with what a longer memory holds; see ``hub.Hub.subscribe``, whose errors it raises."""
    async with older(source, history, subscriber, request) as found:
        return source.subscribe(subscriber, request, confirm, found)
