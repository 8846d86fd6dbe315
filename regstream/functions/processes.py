"""Values that move: steps from the last value to the next, seasons, and draws that belong together or come from several
distributions. Each step is a function of the value before, which a row of an entity keeps.
"""

from __future__ import annotations

import bisect
import calendar
import datetime
import functools
import itertools
import math
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from regstream import errors
from regstream.schedule import cron

_normal = statistics.NormalDist().inv_cdf
_LEAST = 2.0**-53
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HOUR, _DAY = 3600.0, 86_400.0
_LONGEST = {"month": 31, "quarter": 92}
_PEAK = re.compile(r"(?:(?P<day>mon|tue|wed|thu|fri|sat|sun) )?(?P<hour>\d{1,2}):(?P<minute>\d{2})", re.ASCII)
_DATE = re.compile(r"(?P<month>\d{2})-(?P<day>\d{2})", re.ASCII)


def mixture(u: float, parts: Sequence[Sequence[Any]]) -> Any:
    """One of several values by their weights: a list of pairs of a weight and a value."""
    if not isinstance(parts, list | tuple) or not parts or not all(map(_is_pair, parts)):
        raise ValueError("mixture takes a list of pairs, [[0.9, …], [0.1, …]]")
    weights = [weight for weight, _ in parts]
    if any(isinstance(one, bool) or not isinstance(one, int | float) or not 0 <= one < math.inf for one in weights):
        raise ValueError("mixture needs weights of 0 or more")
    bounds = list(itertools.accumulate(weights))
    if not bounds[-1]:
        raise ValueError("mixture needs a weight above 0")
    return parts[min(bisect.bisect_right(bounds, u * bounds[-1]), len(parts) - 1)][1]


def _is_pair(part: Any) -> bool:
    return isinstance(part, list | tuple) and len(part) == 2


def correlated(u: float, v: float, rho: float) -> tuple[float, float]:
    """A pair of standard normal numbers with correlation rho (a Cholesky factor of their covariance)."""
    if not -1 <= rho <= 1:
        raise ValueError(f"correlated needs a correlation from -1 to 1, not {rho}")
    first, second = _normal(u or _LEAST), _normal(v or _LEAST)
    return first, rho * first + math.sqrt(1 - rho * rho) * second


def walk(u: float, value: float, step: float, low: float | None = None, high: float | None = None) -> float:
    """The next value of a random walk with normal steps of that standard deviation, reflected at its bounds."""
    _check_spread("walk", step)
    found = value + step * _normal(u or _LEAST)
    if low is not None and high is not None and low >= high:
        raise ValueError(f"walk needs a lower bound below the upper, not {low} and {high}")
    if low is not None and found < low:
        found = min(2 * low - found, math.inf if high is None else high)
    if high is not None and found > high:
        found = max(2 * high - found, -math.inf if low is None else low)
    return found


def grow(u: float, value: float, mean: float, sd: float) -> float:
    """The next value of a geometric Brownian motion: its mean growth is ``mean``, a part of the value, a step."""
    _check_spread("grow", sd)
    return value * math.exp(math.log1p(mean) - sd * sd / 2 + sd * _normal(u or _LEAST))


def revert(u: float, value: float, mean: float, rate: float, sd: float) -> float:
    """The next value of a process that returns to its mean: by the part ``rate`` of the way, with normal noise.

    An autoregressive process of order one, whose variance in the long run is sd² / (1 - (1 - rate)²).
    """
    _check_spread("revert", sd)
    if not 0 <= rate <= 1:
        raise ValueError(f"revert needs a rate from 0 to 1, not {rate}")
    return value + rate * (mean - value) + sd * _normal(u or _LEAST)


def _check_spread(name: str, sd: float) -> None:
    if sd < 0:
        raise ValueError(f"{name} needs a standard deviation of 0 or more, not {sd}")


def seasonal(
    now: datetime.datetime, period: str, peak: str | int = "", amplitude: float = 0.5, timezone: str = "UTC"
) -> float:
    """A factor that swings around 1: ``1 + amplitude``, when it peaks, to ``1 - amplitude``, half a period away.

    ``period`` is ``hour`` (peak ``:30``), ``day`` (``14:00``), ``week`` (``mon 10:00``), ``month`` (a day of it,
    ``15``), ``quarter`` (a day of it, ``60``) or ``year`` (``12-15``); a day as a peak means its beginning. Without a
    peak it is in the middle, of a year on 1 July. Raises ValueError.
    """
    if not 0 <= amplitude <= 1:
        raise ValueError(f"seasonal needs an amplitude from 0 to 1, not {amplitude}")
    if period not in _PERIODS:
        known = ", ".join(_PERIODS)
        raise ValueError(f"seasonal has the periods {known}, not {period!r}{_hint(period, _PERIODS)}")
    part = _PERIODS[period](now.astimezone(_zone(timezone)), str(peak))
    return 1 + amplitude * math.cos(2 * math.pi * part)


def _hint(given: Any, known: Iterable[str]) -> str:
    near = errors.did_you_mean(given, known) if isinstance(given, str) else ""
    return near and f", {near}"


def _in_hour(local: datetime.datetime) -> float:
    return local.minute * 60 + local.second + local.microsecond / 1e6


def _in_day(local: datetime.datetime) -> float:
    return local.hour * _HOUR + _in_hour(local)


def _of_hour(local: datetime.datetime, peak: str) -> float:
    return (_in_hour(local) - _minute(peak or ":30")) / _HOUR


def _of_day(local: datetime.datetime, peak: str) -> float:
    return (_in_day(local) - _clock(peak or "12:00", False)) / _DAY


def _of_week(local: datetime.datetime, peak: str) -> float:
    return (local.weekday() * _DAY + _in_day(local) - _clock(peak or "wed 12:00", True)) / (7 * _DAY)


def _of_month(local: datetime.datetime, peak: str) -> float:
    return _of_months(local, peak, "month", local.month, 1)


def _of_quarter(local: datetime.datetime, peak: str) -> float:
    return _of_months(local, peak, "quarter", (local.month - 1) // 3 * 3 + 1, 3)


def _of_months(local: datetime.datetime, peak: str, name: str, first: int, count: int) -> float:
    lengths = [calendar.monthrange(local.year, month)[1] for month in range(first, first + count)]
    days = sum(lengths)
    passed = sum(lengths[: local.month - first]) + local.day - 1 + _in_day(local) / _DAY
    # A day that a short one does not have is its last
    return (passed - (min(_nth(peak, name), days - 1) if peak else days / 2)) / days


def _of_year(local: datetime.datetime, peak: str) -> float:
    days = 366 if calendar.isleap(local.year) else 365
    return (local.timetuple().tm_yday - 1 + _in_day(local) / _DAY - _day(peak or "07-01")) / days


_PERIODS: Mapping[str, Callable[[datetime.datetime, str], float]] = {
    "hour": _of_hour,
    "day": _of_day,
    "week": _of_week,
    "month": _of_month,
    "quarter": _of_quarter,
    "year": _of_year,
}


@functools.lru_cache(64)
def _zone(name: str) -> datetime.tzinfo:
    try:
        return cron.zone(name)
    except errors.BadValue:
        raise ValueError(f"there is no time zone {name!r}") from None


@functools.lru_cache(64)
def _minute(peak: str) -> float:
    match = re.fullmatch(r":([0-5]\d)", peak, re.ASCII)
    if match is None:
        raise ValueError(f"{peak!r} is no peak of an hour, write :30")
    return int(match[1]) * 60.0


@functools.lru_cache(256)
def _nth(peak: str, period: str) -> float:
    most = _LONGEST[period]
    if not re.fullmatch(r"\d{1,2}", peak, re.ASCII) or not 1 <= int(peak) <= most:
        raise ValueError(f"{peak!r} is no peak of a {period}, write a day from 1 to {most}")
    return int(peak) - 1.0


@functools.lru_cache(256)
def _clock(peak: str, is_of_week: bool) -> float:
    match = _PEAK.fullmatch(peak)
    if (
        match is None
        or (match["day"] is not None) != is_of_week
        or int(match["hour"]) > 23
        or int(match["minute"]) > 59
    ):
        raise ValueError(f"{peak!r} is no peak, write {'mon 10:00' if is_of_week else '14:00'}")
    day = _DAYS.index(match["day"]) * _DAY if is_of_week else 0.0
    return day + int(match["hour"]) * _HOUR + int(match["minute"]) * 60


@functools.lru_cache(256)
def _day(peak: str) -> float:
    match = _DATE.fullmatch(peak)
    try:
        if match is not None:
            # A year without a 29 February: what is a day off then is a day off of a season
            return datetime.date(2026, int(match["month"]), int(match["day"])).timetuple().tm_yday - 1.0
    except ValueError:
        pass
    raise ValueError(f"{peak!r} is no peak of a year, write 12-15")
