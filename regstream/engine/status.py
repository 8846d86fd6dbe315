"""What the engine tells of itself: frozen snapshots and the counters behind them."""

from __future__ import annotations

import bisect
import collections
import dataclasses
import logging

from regstream import errors
from regstream.event import rfc3339

LATENESS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""The bounds by which lateness is counted, in seconds; beyond the last one is one bucket more."""
_BUCKETS = 10
_WIDTH = 6.0


@dataclasses.dataclass(slots=True)
class StreamCounts:
    """What one stream has done since the daemon started; bytes are those of the CloudEvents."""

    events: int = 0
    bytes: int = 0
    ticks: int = 0
    missed: int = 0
    errors: int = 0
    late: float | None = None
    last: float | None = None


class Lateness:
    """How late something was, ticks above all: by bucket of ``LATENESS``, and in seconds altogether."""

    def __init__(self) -> None:
        self.counts = [0] * (len(LATENESS) + 1)
        self.seconds = 0.0

    def add(self, late: float) -> None:
        """One more, by so many seconds late."""
        self.counts[bisect.bisect_left(LATENESS, late)] += 1
        self.seconds += late

    def copy(self) -> tuple[tuple[int, ...], float]:
        """Both, as they are now."""
        return tuple(self.counts), self.seconds


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """How far a history is, in epoch seconds: from where, up to where it is made, and the time to catch up with."""

    begin: float
    at: float
    end: float

    @property
    def done(self) -> float:
        """The part that is made, 0 to 1."""
        return min(1.0, (self.at - self.begin) / max(1e-9, self.end - self.begin))

    def __str__(self) -> str:
        return f"made up to {rfc3339(self.at)}, {self.done:.0%}"


class EventRate:
    """Events a second over the last minute, counted in buckets of six seconds."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._buckets = [(0, 0)] * _BUCKETS

    def add(self, now: float, count: int) -> None:
        """Count events."""
        number = int(now / _WIDTH)
        slot = number % _BUCKETS
        held, events = self._buckets[slot]
        self._buckets[slot] = (number, events + count if held == number else count)

    def value(self, now: float) -> float:
        """Events a second at ``now``; while there is less than a minute, over the time that there is."""
        newest = int(now / _WIDTH)
        events = sum(count for number, count in self._buckets if number > newest - _BUCKETS)
        covered = min(now - self._since, now - (newest - _BUCKETS + 1) * _WIDTH)
        return events / covered if covered >= 1 else float(events)


@dataclasses.dataclass(frozen=True, slots=True)
class StreamStatus:
    """One stream now: what is in force (``interval`` in ms, None for a schedule), where it stands, what it has done.

    ``state`` is ``running``, ``paused``, ``stopped`` or ``failing``; ``next`` and ``last`` are epoch seconds,
    ``late_ms`` how late the last tick was, rates are events a second, ``overlays`` the runs that have changed it.
    """

    name: str
    description: str
    topic: str
    event: str
    state: str
    enabled: bool
    paused: bool
    interval: float | None
    schedule: str | None
    timezone: str
    jitter: float
    batch_size: int
    priority: str
    overlays: tuple[str, ...]
    epoch: str
    seq: int
    events: int
    bytes: int
    ticks: int
    missed: int
    late_ms: float | None
    errors: int
    error: str | None
    next: float | None
    last: float | None
    target_rate: float | None
    actual_rate: float


@dataclasses.dataclass(frozen=True, slots=True)
class RunStatus:
    """One run: ``state`` is ``running completed cancelled`` or ``failed``, ``current`` holds the steps under way."""

    run_id: str
    scenario: str
    state: str
    started: float
    ended: float | None
    error: str | None
    current: tuple[str, ...]


@dataclasses.dataclass(slots=True)
class Totals:
    """What all streams have done since the daemon started, alerts included."""

    events: int = 0
    bytes: int = 0
    errors: int = 0
    missed: int = 0
    lost: int = 0
    alerts_dropped: int = 0


MAX_CAUSES = 50
_OTHER = ("", "")
_log = logging.getLogger("regstream.engine.health")


def is_news(count: int) -> bool:
    """Whether something that happened ``count`` times is worth a line: 1, 10, 100, 1000 …"""
    return str(count).strip("0") == "1"


class ErrorLog:
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
