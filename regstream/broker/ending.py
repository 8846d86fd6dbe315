"""Ending clients of the library, whatever state they are in.

Its own ``stop`` is not enough when the cluster is gone: a producer waits for its batches for ever, and a consumer that
cancels its own tasks raises their CancelledError into whoever stops it, and leaves its connections open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def stop(client: Any, within: float) -> None:
    """Let a producer send what it has, a consumer or an admin end; then close its connections, whatever came of it."""
    if client is not None:
        await _apart(client.close() if hasattr(client, "close") else client.stop(), within)
        await _apart(_connections(client).close(), within)


async def abandon(client: Any, within: float) -> None:
    """End a client at once, with what it has not sent."""
    sender = getattr(client, "_sender", None)
    if sender is None:
        await stop(client, within)
        return
    # Its own ``stop`` would begin to wait for its batches
    client._closed = True
    await _apart(sender.close(), within)
    await _apart(_connections(client).close(), within)


def _connections(client: Any) -> Any:
    return getattr(client, "_client", None) or client.client


async def _apart(work: Coroutine[Any, Any, Any], within: float) -> None:
    """Do it in a task of its own, so that neither its errors nor its cancellations come here; bounded."""
    task = asyncio.create_task(work, name="kafka-ending")
    task.add_done_callback(_heard)
    await asyncio.wait({task}, timeout=within)
    task.cancel()


def _heard(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
