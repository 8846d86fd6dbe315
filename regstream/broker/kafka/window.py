"""How much may be under way to the cluster at once, and since when nothing has moved.

A line may be slow, and a broker may throttle (KIP-219): one deadline for so many events, whatever they weigh, would be
too short for some line. The window is like that of TCP: it doubles while answers come quickly, and halves when they
do not. A connection counts as lost when nothing has moved for ``STALL_SECONDS`` longer than the last answer lets
expect.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from regstream.broker.kafka import codes

FIRST = 64 * 1024
SLOWEST = 2 * 1024
"""Bytes a second that are expected before the first answer."""
LONGEST = 120.0
QUICK_SECONDS = 0.5
SLOW_SECONDS = 1.0


class SendWindow:
    """For one connection; sizes are bytes of events before compression. What is larger than the window goes alone.

    ``moves`` counts what was acknowledged or refused. Made and used inside a running event loop.
    """

    def __init__(self) -> None:
        self.size = FIRST
        self.moves = 0
        self._under_way = 0
        # What is longer than this is no latency, but a queue
        self._least = SLOW_SECONDS
        self._last: tuple[float, int] | None = None
        self._free_at = 0.0
        self._stalled = False
        self._room = asyncio.Event()
        self._patient: set[asyncio.Timeout] = set()
        self.now = asyncio.get_running_loop().time

    @contextlib.asynccontextmanager
    async def under_way(self, size: int) -> AsyncIterator[None]:
        """Waits until there is room for ``size`` bytes, and counts them as long as the block lasts.

        Raises TimeoutError when nothing has moved on this connection for too long, then and from then on, and when the
        window is closed.
        """
        while self._under_way and self._under_way + size > self.size and not self._stalled:
            self._room.clear()
            await self._room.wait()
        if self._stalled:
            raise TimeoutError
        self._under_way += size
        try:
            async with asyncio.timeout_at(self._deadline()) as patience:
                self._patient.add(patience)
                try:
                    yield
                finally:
                    self._patient.discard(patience)
        except TimeoutError:
            self._stalled = True
            raise
        finally:
            self._under_way -= size
            self._room.set()

    def moved(self) -> None:
        """Something was acknowledged or refused: whatever else is under way may take as long again."""
        self.moves += 1
        self._put_off()

    def _put_off(self) -> None:
        deadline = self._deadline()
        for one in self._patient:
            if not one.expired():
                one.reschedule(deadline)

    def _deadline(self) -> float:
        seconds, size = self._last or (FIRST / SLOWEST, FIRST)
        expected = seconds * self._under_way / size
        if self._last is not None:
            expected = max(seconds, expected)
        return max(self.now(), self._free_at) + min(LONGEST, expected) + codes.STALL_SECONDS

    async def unthrottled(self) -> bool:
        """Returns when the cluster does not throttle us any more; gives whether anybody still wants to send then."""
        wait = self._free_at - self.now()
        if wait <= 0:
            return True
        await asyncio.sleep(wait)
        return not self._stalled

    def close(self) -> None:
        """Nothing more is to be sent."""
        self._stalled = True
        self._room.set()

    def answered(self, since: float, throttled: float) -> None:
        """An answer came to what was sent at the time ``since``; the cluster wants us to wait ``throttled`` seconds."""
        seconds = self.now() - since
        self._least = min(self._least, seconds)
        self._last = seconds, max(1, self._under_way)
        if throttled > 0:
            self._free_at = self.now() + throttled
            self._put_off()
        late = seconds - self._least + throttled
        if late > SLOW_SECONDS:
            self.size = max(1, min(self.size, self._under_way) // 2)
        elif late < QUICK_SECONDS and 2 * self._under_way >= self.size:
            self.size *= 2
