"""Who is let in on a way to readers, and what runs beside them; all ways have it in common."""

from __future__ import annotations

import asyncio
import collections
import logging
from collections.abc import Callable, Coroutine, Mapping, Sized
from typing import Any

from regstream.server import problems

EVERY = 60.0
"""Seconds between two lines."""
REASONS = ("connections", "forbidden", "message", "origin", "rate", "size", "slow", "unauthorized")
"""Everything that may be counted; each is there from the start, so that a rate can be taken of it."""

_log = logging.getLogger("regstream.server")


class RejectionCounter:
    """Counts of one daemon; to be used on its loop. ``every`` is in seconds."""

    def __init__(self, every: float = EVERY) -> None:
        self._counts = dict.fromkeys(REASONS, 0)
        self._untold: collections.Counter[str] = collections.Counter()
        self._every, self._last = every, ""
        self._timer: asyncio.TimerHandle | None = None

    @property
    def counts(self) -> Mapping[str, int]:
        """How often each reason was given since the start."""
        return dict(self._counts)

    def count(self, reason: str, address: str) -> None:
        """Something was refused for one of ``REASONS`` to whoever is at ``address``."""
        self._counts[reason] += 1
        self._untold[reason] += 1
        self._last = address
        if self._timer is None:
            self._tell()

    def _tell(self) -> None:
        self._timer = None
        if not self._untold:
            return
        said = ", ".join(f"{count} for {reason}" for reason, count in sorted(self._untold.items()))
        _log.warning("refused %s; the last to %s", said, self._last or "an unknown address")
        self._untold.clear()
        self._timer = asyncio.get_running_loop().call_later(self._every, self._tell)


POLL = 0.01

log = logging.getLogger("regstream.server")


class Admission:
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
