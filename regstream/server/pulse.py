"""How late the event loop is: what nobody who waits for it can see from outside, whether or not anything ticks."""

from __future__ import annotations

import asyncio

from regstream.engine import status

SECONDS = 0.5


class Pulse:
    """Asks the loop for a call every ``SECONDS``, and counts in ``lag`` how much later it came."""

    def __init__(self) -> None:
        self.lag = status.Lateness()

    async def beat(self) -> None:
        """Do so until cancelled."""
        time = asyncio.get_running_loop().time
        while True:
            due = time() + SECONDS
            await asyncio.sleep(SECONDS)
            self.lag.add(max(0.0, time() - due))
