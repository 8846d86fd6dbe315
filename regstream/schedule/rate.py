"""Arrivals at a rate: random like those of independent customers, or even, along a curve.

Each local day has an operational time, the integral of its rate, which runs from 0 to the number of events that are
expected of the day. It is cut into blocks of ``BLOCK`` of them; how many a block has is drawn from the Poisson
distribution, and they lie in it anywhere, which together is a Poisson process (Kingman, *Poisson Processes*, 1993,
2.1 and 4.1). All draws are of (seed, stream, date, block), so any point can be reached at once, the same each time.
"""

from __future__ import annotations

import bisect
import collections
import datetime
import functools
import hashlib
import itertools
import math
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from regstream import spec
from regstream.schedule import cron
from regstream.schedule.schedule import MAX_COUNTED, Schedule

HOUR = 3600.0
_KEPT = 8
_QUARTERS = (3, 6, 9, 12)


class Day(NamedTuple):
    """A local day of a curve: its knots in epoch seconds, the values there, and the integral up to each."""

    date: datetime.date
    times: list[float]
    values: list[float]
    sums: list[float]

    @property
    def start(self) -> float:
        """Local midnight."""
        return self.times[0]

    @property
    def end(self) -> float:
        """The next one."""
        return self.times[-1]

    @property
    def total(self) -> float:
        """The integral over the day, in seconds at value 1."""
        return self.sums[-1]

    def upto(self, time: float) -> float:
        """The integral from midnight to ``time`` of this day."""
        if time <= self.start:
            return 0.0
        if time >= self.end:
            return self.total
        at = bisect.bisect_right(self.times, time) - 1
        length = time - self.times[at]
        slope = (self.values[at + 1] - self.values[at]) / (self.times[at + 1] - self.times[at])
        return self.sums[at] + length * (self.values[at] + slope * length / 2)

    def reach(self, areas: Iterable[float]) -> Iterator[float]:
        """The times at which the integral is each of ``areas``, of 0 to the total and in order."""
        times, values, sums = self.times, self.values, self.sums
        start = length = first = slope = below = 0.0
        above = -math.inf
        for area in areas:
            if area >= above:
                at = min(bisect.bisect_right(sums, area), len(sums) - 1) - 1
                below, above = sums[at], sums[at + 1] if at + 2 < len(sums) else math.inf
                start, first, length = times[at], values[at], times[at + 1] - times[at]
                slope = (values[at + 1] - first) / length
            rest = area - below if area > below else 0.0
            # Of the two forms of the solution of the quadratic, the one that loses no digits for a small slope
            root = first + math.sqrt(max(0.0, first * first + 2 * slope * rest))
            yield start + (min(length, 2 * rest / root) if root else 0.0)


class Curve:
    """A declared curve in a time zone, with the holidays of a place. Raises BadValue when there is no such place."""

    def __init__(self, spec: spec.CurveSpec, zone: datetime.tzinfo, place: str = "") -> None:
        self._spec = spec
        self._zone = zone
        self._is_holiday = cron.holidays_of(place)
        self._days: collections.OrderedDict[datetime.date, Day] = collections.OrderedDict()

    def date(self, time: float) -> datetime.date:
        """The local date of a time."""
        return datetime.datetime.fromtimestamp(time, self._zone).date()

    def day(self, date: datetime.date) -> Day:
        """A local day; some are remembered."""
        found = self._days.get(date)
        if found is None:
            found = self._days[date] = self._make(date)
            if len(self._days) > _KEPT:
                self._days.popitem(last=False)
        return found

    def value(self, time: float) -> float:
        """By what the base rate is multiplied at ``time``."""
        day = self.day(self.date(time))
        at = min(bisect.bisect_right(day.times, time), len(day.times) - 1) - 1
        part = (time - day.times[at]) / (day.times[at + 1] - day.times[at])
        return day.values[at] + part * (day.values[at + 1] - day.values[at])

    def integral(self, start: float, end: float) -> float:
        """The integral from ``start`` to ``end``, in seconds at value 1."""
        total, date = 0.0, self.date(start)
        while True:
            day = self.day(date)
            total += day.upto(end) - day.upto(start)
            if day.end >= end:
                return total
            date += datetime.timedelta(1)

    def _make(self, date: datetime.date) -> Day:
        start, end = self._midnight(date), self._midnight(date + datetime.timedelta(1))
        # A day is as long as the zone makes it: the knots are hours of elapsed time with what the wall clock shows then
        steps = math.ceil((end - start) / HOUR)
        times = [start + number * HOUR for number in range(steps)]
        factor = self._factor(date)
        values = [self._spec.hour[self._shown(time)] * factor for time in times]
        times.append(end)
        values.append(self._spec.hour[0] * self._factor(date + datetime.timedelta(1)))
        areas = [
            (right - left) * (high + low) / 2
            for (left, right), (high, low) in zip(itertools.pairwise(times), itertools.pairwise(values), strict=True)
        ]
        return Day(date, times, values, [0.0, *itertools.accumulate(areas)])

    def _midnight(self, date: datetime.date) -> float:
        return datetime.datetime.combine(date, datetime.time(), self._zone).timestamp()

    def _shown(self, time: float) -> int:
        return datetime.datetime.fromtimestamp(time, self._zone).hour

    def _factor(self, date: datetime.date) -> float:
        spec = self._spec
        factor = spec.weekday[date.weekday()]
        if self._is_holiday(date):
            factor = spec.weekday[6] if spec.holiday is None else spec.holiday
        elif spec.month_end != 1 or spec.quarter_end is not None:
            factor *= self._end(date)
        return factor * _of_month(spec.month, date)

    def _end(self, date: datetime.date) -> float:
        if not cron.is_last_working(date, self._is_holiday):
            return 1.0
        quarter = self._spec.quarter_end
        return self._spec.month_end if quarter is None or date.month not in _QUARTERS else quarter


def _of_month(months: tuple[float, ...], date: datetime.date) -> float:
    """The months' values, each that of the 15th, and straight between them."""
    middle = date.replace(day=15)
    if date >= middle:
        first, second = middle, (middle + datetime.timedelta(31)).replace(day=15)
    else:
        first, second = (middle - datetime.timedelta(31)).replace(day=15), middle
    part = (date - first).days / (second - first).days
    low, high = months[first.month - 1], months[second.month - 1]
    return low + part * (high - low)


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
        cls, rate: spec.RateSpec, timezone: str, speed: float, *, size: int = 1, seed: int = 0, name: str = ""
    ) -> Arrivals:
        """Those of a stream in a time zone; ``speed`` is the profile's. Raises BadValue as ``Curve`` does."""
        curve = Curve(rate.form, cron.zone(timezone), rate.calendar)
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
