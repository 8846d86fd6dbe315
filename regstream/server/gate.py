"""Who is let in on a way to readers, and what runs beside them; all ways have it in common."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sized
from typing import Any

from regstream.server import problems

POLL = 0.01

log = logging.getLogger("regstream.server")


class Gate:
    """Lets readers in until ``connected`` are ``most``, or until it is shut."""

    def __init__(self, connected: Sized, most: int) -> None:
        self._connected, self._most = connected, most
        self._shut = False

    def check(self) -> None:
        """Raises Crowded when no reader is let in."""
        if self._shut or len(self._connected) >= self._most:
            reason = "the server is stopping" if self._shut else "too many connections"
            raise problems.Crowded(reason)

    def shut(self) -> None:
        """Let nobody in from now on."""
        self._shut = True


class Tasks:
    """Work that is done beside a reader; a fault in it is logged and harms no other."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def begin(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run ``work`` until its end, or until all are cancelled."""
        task = asyncio.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=error)

    def cancel(self) -> None:
        """Ask all of them to end."""
        for task in tuple(self._running):
            task.cancel()


async def until(condition: Callable[[], bool], end: float) -> None:
    """Return when ``condition`` holds, or at ``end`` in the loop's time."""
    # Polled: it happens once, at the end, and an event would have to be set on every path of every reader.
    while not condition() and asyncio.get_running_loop().time() < end:  # noqa: ASYNC110
        await asyncio.sleep(POLL)
