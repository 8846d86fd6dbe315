"""Working days: weekends, holidays of a country or one of its parts, the last working day of a month."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable, Iterable

from regstream import errors

_DAY = datetime.timedelta(1)
_FORM = "write an ISO 3166 country such as BR, or a part of one such as BR-SP"
Holiday = Callable[[datetime.date], bool]


def no_holiday(day: datetime.date) -> bool:
    """No day is one."""
    return False


@functools.lru_cache(64)
def holidays_of(place: str) -> Holiday:
    """Whether a day is a public holiday in ``place``: an ISO 3166 country, ``BR``, or a part of one, ``BR-SP``.

    An empty place has none. Raises BadValue for one that is not known.
    """
    if not place:
        return no_holiday
    # Late: it takes a tenth of a second, and most files name no place
    import holidays

    country, _, part = place.partition("-")
    known = holidays.list_supported_countries()
    if country not in known:
        raise errors.BadValue(
            "calendar", _unknown(f"there is no country {country!r}", country, filter(_is_code, known))
        )
    if part and part not in known[country]:
        raise errors.BadValue("calendar", _unknown(f"{country} has no part {part!r}", part, known[country]))
    found = holidays.country_holidays(country, subdiv=part or None)
    return lambda day: day in found


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    return f"{what}, {errors.did_you_mean(name, known) or _FORM}"


def _is_code(country: str) -> bool:
    """Whether the files take it: the library has codes of three letters too."""
    return len(country) == 2


def is_working(day: datetime.date, is_holiday: Holiday) -> bool:
    """Whether it is Monday to Friday and no holiday."""
    return day.weekday() < 5 and not is_holiday(day)


def is_last_working(day: datetime.date, is_holiday: Holiday) -> bool:
    """Whether it is the last working day of its month."""
    after = day + _DAY
    while after.month == day.month and not is_working(after, is_holiday):
        after += _DAY
    return after.month != day.month and is_working(day, is_holiday)
