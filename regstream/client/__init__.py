"""Read a running daemon from Python: every event once, in order, over lost connections too.

::

    import asyncio

    from regstream import client


    async def main() -> None:
        async with client.subscribe("http://127.0.0.1:3001", ["dashboard-updates"]) as events:
            async for event in events:
                print(event["time"], event["subject"], event["seq"], event["data"])


    asyncio.run(main())

A subscription does its work while it is asked for an event, and has no task of its own. In every stream it stands
behind the event that it gave out last; a connection that breaks is made again and continued from there. So what was
given out is never asked for again, and what was still on its way is not lost.

Only what was received and not yet given out is kept, and that is bounded: who takes long over an event leaves the rest
in the socket, and the daemon deals with it as with any slow reader (see ``policy``). When it has closed the connection,
or pings could not be answered for so long, another one is made, and history gives what was missed.
"""

from __future__ import annotations

from regstream.client.subscription import (
    Notice,
    Subscription,
    Timing,
    subscribe,
)
from regstream.client.wire import (
    Event,
    address,
)

__all__ = [
    "Event",
    "Notice",
    "Subscription",
    "Timing",
    "address",
    "subscribe",
]
