"""Schedules: fixed sets of points in time.

Asking a schedule changes nothing, so a live clock and a virtual one get the same points, and a schedule that is made
again from the same declaration goes on in phase.
"""

from __future__ import annotations

import abc
import copy
import datetime
import hashlib
import math
from collections.abc import Iterator
from typing import Any

from apscheduler.triggers.cron import CronTrigger

from regstream.schedule import cron

MAX_COUNTED = 1_000
_YEARS = 9 * 366 * 86_400


class Schedule(abc.ABC):
    """The points in time at which a stream ticks. Make one with ``interval`` or ``cron``.

    With jitter, which is 0 to 1, each point lies up to that part of the gap after its place on the grid, by a number
    that comes from seed, name and that place alone: it never adds up, and points never change their order.
    """

    patience: float = 0.0
    """How many seconds late each of its points is still fired; 0: of those that have passed only the first is."""

    def __init__(self, jitter: float, seed: int, name: str):
        self._jitter = jitter
        self._key = hashlib.blake2b(f"{seed}/{name}".encode(), person=b"clock").digest()

    @staticmethod
    def interval(ms: float, start: float, jitter: float = 0.0, seed: int = 0, name: str = "") -> Schedule:
        """``start`` and every ``ms`` milliseconds (more than 0) after it."""
        return _Interval(ms, start, jitter, seed, name)

    @staticmethod
    def cron(expression: str, timezone: str, jitter: float = 0.0, seed: int = 0, name: str = "") -> Schedule:
        """Whenever the wall clock of ``timezone`` matches ``minute hour day month weekday``, as Unix cron reads it.

        A day matches by its date or its weekday, or by both when one of the two begins with ``*``. When the hours are
        restricted, an hour that the clock skips in spring counts as the next and one that it repeats in autumn counts
        once; else the clock is followed as it goes. Raises errors.BadValue when the expression or the zone is bad, not
        when it never fires.
        """
        return _Cron(expression, timezone, jitter, seed, name)

    @abc.abstractmethod
    def first(self, now: float) -> float | None:
        """The first point at or after ``now``; None when there is none."""

    @abc.abstractmethod
    def after(self, due: float, now: float) -> tuple[float | None, int]:
        """The next point after both ``due`` and ``now``, and how many were skipped: those after ``due``, up to ``now``.

        ``due`` is the point that was served last, ``now`` when that happened. A cron schedule counts up to
        ``MAX_COUNTED``.
        """

    def between(self, start: float, end: float) -> list[float]:
        """All points from ``start`` up to, but not at, ``end``."""
        found, due = [], self.first(start)
        while due is not None and due < end:
            found.append(due)
            due = self.after(due, due)[0]
        return found

    def moved(self, delta: float) -> Schedule:
        """The same intervals, ``delta`` seconds later; what follows the wall clock stays as it is."""
        return self

    def _offset(self, number: int, gap: float) -> float:
        """How far the point at place ``number`` lies after it, in [0, ``gap``)."""
        if not self._jitter:
            return 0.0
        digest = hashlib.blake2b(number.to_bytes(8, "little", signed=True), key=self._key, digest_size=8).digest()
        return (int.from_bytes(digest, "little") >> 11) * 2.0**-53 * self._jitter * gap


class _Interval(Schedule):
    # Not APScheduler's IntervalTrigger, although a test holds the two together: it keeps start and interval in whole
    # microseconds (20 ms at three times the speed would drift), and has no number of a tick to count and jitter by.

    def __init__(self, ms: float, start: float, jitter: float, seed: int, name: str):
        super().__init__(jitter, seed, name)
        self._ms = ms
        self._start = start

    def first(self, now: float) -> float | None:
        return self._point(self._last(math.nextafter(now, -math.inf)) + 1)

    def after(self, due: float, now: float) -> tuple[float | None, int]:
        served = self._last(due)
        last = self._last(now) if now > due else served
        return self._point(last + 1), last - served

    def between(self, start: float, end: float) -> list[float]:
        numbers = range(
            self._last(math.nextafter(start, -math.inf)) + 1, self._last(math.nextafter(end, -math.inf)) + 1
        )
        if self._jitter:
            return [self._point(number) for number in numbers]
        begin, ms = self._start, self._ms
        return [begin + number * ms / 1000 for number in numbers]

    def moved(self, delta: float) -> Schedule:
        other = copy.copy(self)
        other._start = self._start + delta
        return other

    def _point(self, number: int) -> float:
        return self._start + number * self._ms / 1000 + self._offset(number, self._ms / 1000)

    def _last(self, time: float) -> int:
        """The number of the last point at or before ``time``, counted from 0; -1 when there is none."""
        number = max(-1, math.floor((time - self._start) * 1000 / self._ms))
        # The division rounds and knows no jitter: the points themselves decide.
        while number >= 0 and self._point(number) > time:
            number -= 1
        while self._point(number + 1) <= time:
            number += 1
        return number


class _Cron(Schedule):
    def __init__(self, expression: str, timezone: str, jitter: float, seed: int, name: str):
        super().__init__(jitter, seed, name)
        self._table = cron.parse(expression)
        self._zone = cron.zone(timezone)
        self._triggers = _triggers(self._table)
        self._known = (0.0, 0.0)

    def first(self, now: float) -> float | None:
        return next(self._points(math.nextafter(now, -math.inf)), None)

    def after(self, due: float, now: float) -> tuple[float | None, int]:
        skipped = 0
        for point in self._points(due):
            if point > now:
                return point, skipped
            skipped += 1
            if skipped == MAX_COUNTED:
                break
        # More is not counted: it would hold up everybody else, for a number that says no more.
        return next(self._points(max(due, now)), None), skipped

    def _points(self, time: float) -> Iterator[float]:
        """The points after ``time``, in order."""
        place = self._before(time) if self._jitter else None
        if place is None:
            place = self._after(time)
        while place is not None:
            following = self._after(place) if self._jitter else None
            point = place + (self._offset(int(place), following - place) if following is not None else 0.0)
            if point > time:
                yield point
            place = following or self._after(place)

    def _before(self, time: float) -> float | None:
        """The last place on the grid at or before ``time``; None when it is years ago. A trigger looks ahead only."""
        back = 60.0
        while back < _YEARS:
            place = self._after(time - back)
            if place is None:
                return None
            if place <= time:
                while (following := self._after(place)) is not None and following <= time:
                    place = following
                return place
            back *= 2
        return None

    def _after(self, time: float) -> float | None:
        """The first place on the grid after ``time``."""
        since, place = self._known
        if since <= time < place:
            return place
        found = min((fire for trigger in self._triggers for fire in self._fires(trigger, time)), default=None)
        if found is not None:
            self._known = (time, found)
        return found

    def _fires(self, trigger: Any, time: float) -> list[float]:
        """Some times after ``time``, the first one among them.

        The trigger lives in UTC and takes what the clock on the wall shows for that. In a zone of its own it adds
        elapsed time to wall time, and loses midnight after a change to summer time (apscheduler#606).
        """
        start = math.floor(time) + 1
        # An hour to both sides, for what a change skips or repeats.
        reading = start + min(self._ahead(start + shift) for shift in (-3600, 0, 3600))
        found: list[float] = []
        while not (found and found[-1] > time):
            fire = trigger.get_next_fire_time(None, datetime.datetime.fromtimestamp(reading, datetime.UTC))
            if fire is None:
                break
            reading = int(fire.timestamp()) + 1
            found += reversed(self._moments(fire))
        return [moment for moment in found if moment > time]

    def _moments(self, wall: datetime.datetime) -> list[float]:
        """When the clock shows ``wall``, with one that it skips or repeats put right."""
        once, again = (wall.replace(tzinfo=self._zone, fold=fold).timestamp() for fold in (0, 1))
        if self._table.hourly:
            return [] if again < once else sorted({once, again})
        return [once]

    def _ahead(self, time: float) -> float:
        """How far the zone is ahead of UTC, in seconds."""
        offset = datetime.datetime.fromtimestamp(time, self._zone).utcoffset()
        return offset.total_seconds() if offset else 0.0


def _triggers(table: cron.Crontab) -> list[Any]:
    # APScheduler finds out by itself that there is no 31 February, after 8,000 years and 100 ms.
    if not table.possible:
        return []
    times = {"second": "0", "minute": _text(table.minutes), "hour": _text(table.hours), "month": _text(table.months)}
    date = {"day": _text(table.days)}
    weekday = {"day_of_week": _text(frozenset((day - 1) % 7 for day in table.weekdays))}
    ways = [date, weekday] if table.either else [date | weekday]
    return [CronTrigger(**times, **way, timezone=datetime.UTC) for way in ways]


def _text(values: frozenset[int]) -> str:
    """Values as APScheduler writes them; evenly spaced ones as one range, which it goes through faster than a list."""
    first, *rest = sorted(values)
    steps = {after - before for before, after in zip([first, *rest], rest, strict=False)}
    if len(steps) == 1:
        return f"{first}-{rest[-1]}/{steps.pop()}"
    return ",".join(map(str, [first, *rest]))
