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

from collections.abc import Iterable, Mapping

from regstream import model
from regstream.client import following, wire
from regstream.client.subscription import Notice, Subscription, Timing
from regstream.client.wire import Event, address

__all__ = ["Event", "Notice", "Subscription", "Timing", "address", "subscribe"]


def subscribe(
    url: str,
    channels: Iterable[str],
    *,
    after: Mapping[str, model.Position] | None = None,
    rewind: int = 0,
    snapshot: bool = False,
    policy: str | None = None,
    max_rate: float | None = None,
    token: str | None = None,
    notice: Notice | None = None,
    timing: Timing | None = None,
) -> Subscription:
    """The events of ``channels`` of the daemon at ``url``, which may be ``http(s)`` or ``ws(s)``, with ``/ws`` or not.

    ``after`` names, by stream, the position to continue from, as ``Subscription.positions`` gives it; ``rewind`` is
    for the other streams. These, ``snapshot``, ``policy`` and ``max_rate`` mean what they mean on the WebSocket.

    ``token`` is one of the daemon's, with any role; it goes in a header.

    ``notice`` is called with every frame that is no event of a stream (``welcome``, ``subscribed``, ``lagging``,
    ``system`` …), with ``("lost", {"reason": …})`` when a connection broke, and with an ``error`` of code
    ``unknown_channel`` for a channel that is no longer there when it comes back; the others are followed on. What
    ``notice`` raises comes out of the iteration.

    Raises BadValue for an address that is none. Nothing is connected yet.
    """
    names = (channels,) if isinstance(channels, str) else tuple(dict.fromkeys(channels))
    options = {"snapshot": snapshot or None, "policy": policy, "maxRate": max_rate}
    asked = {key: value for key, value in options.items() if value is not None}
    followed = following.Following(names, after or {}, rewind, asked)
    return Subscription(wire.address(url), followed, notice, timing or Timing(), token)
