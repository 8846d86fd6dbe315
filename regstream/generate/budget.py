"""What one event may cost: a number of steps, the same on every machine, and behind it a limit of CPU time.

A step is about half a microsecond of a server's core. What takes longer than its arguments are large has a price of
its own in ``vocabulary``, so that steps stop a template at the same place everywhere and long before the time does;
the clock is looked at every ``_LOOK`` steps only, so that an event which takes fewer never pays for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

from regstream.generate import cost

MAX_STEPS = 100_000
MAX_SECONDS = 0.1
RECENT = 32
"""So many results that are dear to make are kept, here in the accounts and by those who make them."""
_LOOK = 2_000


class Budget:
    """The steps that an event has left, and the CPU time that it took. ``clock`` gives that of this thread."""

    __slots__ = ("_clock", "_next", "_recent", "_seconds", "_since", "left")

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        self._clock = clock
        self._recent: dict[Hashable, None] = {}
        self.renew()

    def renew(self) -> None:
        """Give the next event all its steps and time."""
        self.left = MAX_STEPS
        self._next = MAX_STEPS - _LOOK
        self._seconds, self._since = 0.0, -1.0
        if self._recent:
            self._recent = {}

    def spend(self, steps: int) -> None:
        """Count steps. Raises CostError when they, or the time, are more than an event may take."""
        self.left -= steps
        if self.left < self._next:
            self._look()

    def _look(self) -> None:
        if self.left < 0:
            raise cost.CostError(f"takes more than {MAX_STEPS} steps")
        now = self._clock()
        if self._since >= 0:
            # One pause that is not the template's, a garbage collection of a large process, must not stop it
            self._seconds += min(now - self._since, MAX_SECONDS / 2)
        self._since = now
        self._next = max(0, self.left - _LOOK)
        if self._seconds >= MAX_SECONDS:
            raise cost.CostError(f"takes more than {MAX_SECONDS * 1000:g} ms")

    def once(self, what: Hashable, steps: int) -> None:
        """Count the steps of making something that is kept, unless it is among the last that the event used."""
        known = what in self._recent
        if known:
            del self._recent[what]
        elif len(self._recent) >= RECENT:
            del self._recent[next(iter(self._recent))]
        self._recent[what] = None
        if not known:
            self.spend(steps)

    def prepare(self, what: Hashable, steps: int, make: Callable[[], object]) -> None:
        """Count and make what a process makes once. The clock stands still: later events do not pay for it."""
        self.once(what, steps)
        make()
        self._since = -1.0


class Fixed(Budget):
    """The budget of what is known when templates are compiled: what is prepared is ready before the first event."""

    __slots__ = ()

    def prepare(self, what: Hashable, steps: int, make: Callable[[], object]) -> None:
        """Nothing."""
