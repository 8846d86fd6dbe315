"""Arrivals at a rate: random like those of independent customers, or even, along a curve.

Each local day has an operational time, the integral of its rate, which runs from 0 to the number of events that are
expected of the day. It is cut into blocks of ``BLOCK`` of them; how many a block has is drawn from the Poisson
distribution, and they lie in it anywhere, which together is a Poisson process (Kingman, *Poisson Processes*, 1993,
2.1 and 4.1). All draws are of (seed, stream, date, block), so any point can be reached at once, the same each time.
"""

from __future__ import annotations

import bisect
import datetime
import functools
import hashlib
import math
import struct
from collections.abc import Iterator
from typing import NamedTuple

from regstream import crontab, model
from regstream.clock.curve import Curve, Day
from regstream.clock.schedule import MAX_COUNTED, Schedule

BLOCK = 32
_LONGEST = 366
"""So many days without an event in a row mean that there never is one."""


class _Stretch(NamedTuple):
    """Some blocks of a day that are made together: the arrivals, and the places among them at which ticks are."""

    arrivals: list[float]
    ticks: list[float]
    ends: list[int]

    def of(self, number: int) -> list[float]:
        """The arrivals of a tick."""
        return self.arrivals[self.ends[number - 1] if number else 0 : self.ends[number]]


class Arrivals(Schedule):
    """The points of a rate, which is ``per_second`` where the curve is 1.

    A tick is due at every n-th arrival of some blocks, with n = ``size``, and has the events that arrived since the one
    before; the rest of the blocks comes with their last arrival. Two may be due at almost the same time by chance, so
    none is passed over because the one before has just been.
    """

    patience = 2.0

    def __init__(
        self, curve: Curve, per_second: float, *, even: bool = False, size: int = 1, seed: int = 0, name: str = ""
    ) -> None:
        super().__init__(0.0, seed, name)
        self._curve = curve
        self._rate = per_second
        self._even = even
        self._size = size
        self._known: tuple[tuple[datetime.date, int], _Stretch] | None = None
        # The events of the ticks that ``between`` gave last, which are asked for next
        self._given: dict[float, list[float]] = {}

    @classmethod
    def declared(
        cls, rate: model.RateSpec, timezone: str, speed: float, *, size: int = 1, seed: int = 0, name: str = ""
    ) -> Arrivals:
        """Those of a stream in a time zone; ``speed`` is the profile's. Raises BadValue as ``Curve`` does."""
        curve = Curve(rate.form, crontab.zone(timezone), rate.calendar)
        return cls(curve, rate.base * speed, even=rate.arrivals == "even", size=size, seed=seed, name=name)

    def first(self, now: float) -> float | None:
        """See ``Schedule``."""
        return next(self._points(now), None)

    def after(self, due: float, now: float) -> tuple[float | None, int]:
        """See ``Schedule``."""
        skipped = 0
        for point in self._points(math.nextafter(due, math.inf)):
            if point > now:
                return point, skipped
            skipped += 1
            if skipped == MAX_COUNTED:
                return next(self._points(math.nextafter(now, math.inf)), None), skipped
        return None, skipped

    def between(self, start: float, end: float) -> list[float]:
        """See ``Schedule``."""
        points: list[float] = []
        self._given = {}
        for stretch, at in self._from(start):
            to = bisect.bisect_left(stretch.ticks, end, at)
            for number in range(at, to) if self._size > 1 else ():
                self._given[stretch.ticks[number]] = stretch.of(number)
            points += stretch.ticks[at:to]
            if to < len(stretch.ticks):
                break
        return points

    def moments(self, due: float) -> list[float] | None:
        """When the events of the tick at ``due`` happen, in order; None when there is one, which happens then."""
        if self._size == 1:
            return None
        given = self._given.get(due)
        if given is not None:
            return given
        day = self._curve.day(self._curve.date(due))
        # A point may lie a rounding away from the stretch that it is of
        number = self._number(day, due)
        for one in (number, number - 1, number + 1):
            stretch = self._stretch(day, one) if 0 <= one < self._count(day) else None
            if stretch is not None:
                at = bisect.bisect_left(stretch.ticks, due)
                if at < len(stretch.ticks) and stretch.ticks[at] == due:
                    return stretch.of(at)
        return []

    def at(self, time: float) -> float:
        """The rate then, in events a second."""
        return self._rate * self._curve.value(time)

    def expected(self, start: float, end: float) -> float:
        """How many events are expected from ``start`` to ``end``."""
        return self._rate * self._curve.integral(start, end)

    def _points(self, start: float) -> Iterator[float]:
        """The points at or after ``start``."""
        for stretch, at in self._from(start):
            yield from stretch.ticks[at:]

    def _from(self, start: float) -> Iterator[tuple[_Stretch, int]]:
        """The stretches with points at or after ``start``, and the place of the first of these in each."""
        date, empty = self._curve.date(start), 0
        while empty < _LONGEST:
            day = self._curve.day(date)
            before = max(0, self._number(day, start) - 1) if start > day.start else 0
            found = False
            for number in range(before, self._count(day)):
                stretch = self._stretch(day, number)
                at = bisect.bisect_left(stretch.ticks, start)
                if at < len(stretch.ticks):
                    found = True
                    yield stretch, at
            empty = 0 if found else empty + 1
            date += datetime.timedelta(1)

    def _count(self, day: Day) -> int:
        """How many stretches a day has."""
        return math.ceil(day.total * self._rate / (BLOCK * self._size))

    def _number(self, day: Day, time: float) -> int:
        return int(day.upto(time) * self._rate / (BLOCK * self._size))

    def _stretch(self, day: Day, number: int) -> _Stretch:
        place = day.date, number
        if self._known is None or self._known[0] != place:
            self._known = place, self._make(day, number)
        return self._known[1]

    def _make(self, day: Day, number: int) -> _Stretch:
        total = day.total * self._rate
        blocks = range(number * self._size, min((number + 1) * self._size, math.ceil(total / BLOCK)))
        places = [place for block in blocks for place in self._places(day.date, block, total)]
        arrivals, last = [], -math.inf
        end = math.nextafter(day.end, -math.inf)
        for time in day.reach([place / self._rate for place in places]):
            # No two at once, and none of the next day: both are a rounding away
            last = time if time > last else math.nextafter(last, math.inf)
            arrivals.append(last if last < end else end)
        ends = [*range(self._size, len(arrivals), self._size), len(arrivals)] if arrivals else []
        return _Stretch(arrivals, [arrivals[end - 1] for end in ends], ends)

    def _places(self, date: datetime.date, block: int, total: float) -> list[float]:
        """Where in operational time the events of a block lie."""
        start = float(block * BLOCK)
        length = min(BLOCK, total - start)
        if self._even:
            return [start + place + 0.5 for place in range(BLOCK) if place + 0.5 < length]
        source = hashlib.shake_128(self._key + struct.pack("<IQ", date.toordinal(), block))
        first = int.from_bytes(source.digest(8), "little") * 2.0**-64
        count = bisect.bisect_right(_cumulated(length), first)
        draws = struct.unpack_from(f"<{count}Q", source.digest(8 * (count + 1)), 8)
        return sorted(start + length * (draw >> 11) * 2.0**-53 for draw in draws)


@functools.lru_cache(64)
def _cumulated(mean: float) -> list[float]:
    """The cumulated Poisson distribution, as far as a double tells it from 1."""
    term = total = math.exp(-mean)
    found = [total]
    while total < 1 - 2**-53 and len(found) < 40 * BLOCK:
        term *= mean / len(found)
        if total + term == total and len(found) > mean:
            break
        total += term
        found.append(total)
    return found
