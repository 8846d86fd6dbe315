"""The four states of a broker that may go away, and what leads from one to another. It does nothing else."""

from __future__ import annotations

import enum
from collections.abc import Callable

from regstream import texts


class State(enum.StrEnum):
    """How it is with the cluster.

    ``connecting``: not yet known. ``live``: events go to it. ``fallback``: it is away, they go to the spool.
    ``draining``: it is back, and what waits in the spool goes first.
    """

    CONNECTING = "connecting"
    LIVE = "live"
    FALLBACK = "fallback"
    DRAINING = "draining"


class Signal(enum.StrEnum):
    """What happens to a connection."""

    CONNECTED = "connected"
    DRAINED = "drained"
    LOST = "lost"


_NEXT: dict[tuple[State, Signal], State] = {
    (State.CONNECTING, Signal.CONNECTED): State.DRAINING,
    (State.CONNECTING, Signal.LOST): State.FALLBACK,
    (State.FALLBACK, Signal.CONNECTED): State.DRAINING,
    (State.FALLBACK, Signal.LOST): State.FALLBACK,
    (State.DRAINING, Signal.DRAINED): State.LIVE,
    (State.DRAINING, Signal.LOST): State.FALLBACK,
    (State.LIVE, Signal.LOST): State.FALLBACK,
}


class Machine:
    """The state, and why it is so; ``changed`` is told of each change: from, to, reason."""

    def __init__(self, changed: Callable[[State, State, str], None]) -> None:
        self.state = State.CONNECTING
        self.reason = ""
        self._changed = changed

    def take(self, signal: Signal, reason: str = "") -> State:
        """Go on to the next state. Raises ValueError for a signal that the state does not know."""
        before = self.state
        after = _NEXT.get((before, signal))
        if after is None:
            raise ValueError(f"{signal} while {before}")
        # It may be the text of any exception
        reason = texts.redact(reason)
        self.state, self.reason = after, reason
        if after is not before:
            self._changed(before, after, reason)
        return after

    @property
    def reachable(self) -> bool:
        """Whether the cluster answers."""
        return self.state in (State.LIVE, State.DRAINING)
