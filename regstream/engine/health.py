"""Whether a stream can make its events, and what is logged of it: each cause once, then at 10, 100, 1000 …"""

from __future__ import annotations

import collections
import logging

from regstream import errors

MAX_CAUSES = 50
_OTHER = ("", "")
_log = logging.getLogger("regstream.engine.health")


def is_news(count: int) -> bool:
    """Whether something that happened ``count`` times is worth a line: 1, 10, 100, 1000 …"""
    return str(count).strip("0") == "1"


class Health:
    """The state of one stream: ``fault`` is why its last batch is short of events, None when it is whole."""

    def __init__(self) -> None:
        self.fault: errors.RenderError | None = None
        self._causes: collections.Counter[tuple[str, str]] = collections.Counter()
        self._told = False

    def note(self, error: errors.RenderError) -> None:
        """A batch is short of events."""
        self.fault = error
        count = self._count((error.field, error.cause))
        if is_news(count):
            about = {"stream": error.stream}
            _log.error("%s (%d time%s)", error, count, "s" if count > 1 else "", extra=about)
            self._told = True

    def _count(self, cause: tuple[str, str]) -> int:
        # Causes may hold random values: those beyond the bound are counted as one
        if cause not in self._causes and len(self._causes) >= MAX_CAUSES:
            cause = _OTHER
        self._causes[cause] += 1
        return self._causes[cause]

    def well(self, name: str) -> None:
        """A batch is whole. That is told once for each fault that was told, however often a stream changes."""
        self.fault = None
        if self._told:
            self._told = False
            _log.info("%s makes all its events again", name, extra={"stream": name})

    def forget(self) -> None:
        """Begin anew, for another declaration."""
        self.fault, self._told = None, False
        self._causes.clear()
