"""What was refused to whom, counted by reason and told once a minute at most: whoever asks must not fill the log."""

from __future__ import annotations

import asyncio
import collections
import logging
from collections.abc import Mapping

EVERY = 60.0
"""Seconds between two lines."""
REASONS = ("connections", "forbidden", "message", "origin", "rate", "size", "slow", "unauthorized")
"""Everything that may be counted; each is there from the start, so that a rate can be taken of it."""

_log = logging.getLogger("regstream.server")


class Refusals:
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
