"""How a rate changes with the hour, the weekday, the month and the calendar: continuous, and exact to integrate.

A curve has a value at each full hour of the wall clock and runs straight between them, over midnight too. Its integral
over a day is piecewise quadratic, and so can be turned round without iteration.
"""

from __future__ import annotations

import bisect
import collections
import datetime
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from regstream import calendars, model

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

    def __init__(self, spec: model.CurveSpec, zone: datetime.tzinfo, place: str = "") -> None:
        self._spec = spec
        self._zone = zone
        self._is_holiday = calendars.holidays_of(place)
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
        if not calendars.is_last_working(date, self._is_holiday):
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
