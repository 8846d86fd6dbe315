"""Cron expressions as Unix cron reads them: text in, sets of numbers out.

APScheduler's own reading differs where it hurts: it counts weekdays from Monday, and wants day *and* weekday to match.
"""

from __future__ import annotations

import datetime
import functools
import re
import zoneinfo
from collections.abc import Callable, Iterable
from typing import NamedTuple

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


_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_ITEM = re.compile(r"(?:\*|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>\d{1,4}))?", re.ASCII)


class Crontab(NamedTuple):
    """What an expression stands for. Weekdays count from 0, Sunday, to 6.

    ``either``: a day matches by its date or its weekday, else by both.
    """

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool

    @property
    def hourly(self) -> bool:
        """True when every hour counts."""
        return len(self.hours) == 24

    @property
    def possible(self) -> bool:
        """False for 31 February and its like."""
        return self.either or any(day <= _LONGEST[month - 1] for day in self.days for month in self.months)


class _Part(NamedTuple):
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """How many different values there are; Sunday is one, as 0 and as 7."""
        return self.high - self.low + (not self.names or self.names is _MONTHS)


_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_PARTS = (
    _Part("minute", 0, 59),
    _Part("hour", 0, 23),
    _Part("day", 1, 31),
    _Part("month", 1, 12, _MONTHS),
    _Part("weekday", 0, 7, _WEEKDAYS),
)


_DIGITS = re.compile(r"\d")
_OF_THE_MACHINE = frozenset({"localtime", "posixrules", "Factory"})
_OFFSET = re.compile(
    r"(?:etc/)?(?:gmt|utc?|z)?\s*(?P<sign>[+-])\s*(?P<hours>\d{1,2})(?::?(?P<minutes>\d{2}))?", re.I | re.A
)


def zone(name: str) -> datetime.tzinfo:
    """The IANA time zone of that name; raises errors.BadValue when there is none, or no zone data at all."""
    # Not from zoneinfo, which has no zone at all on a system without its files.
    if name == "UTC":
        return datetime.UTC
    try:
        if name in _OF_THE_MACHINE:
            raise ValueError(name)
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        if missing := zone_data_missing():
            raise errors.BadValue("timezone", missing) from None
        hint = zone_hint(name)
        raise errors.BadValue("timezone", f"unknown time zone {name!r}{', ' if hint else ''}{hint}") from None


def zone_data_missing() -> str:
    """Why no time zone but UTC is known, with the cure; empty where the system or the package tzdata has zones."""
    if zoneinfo.available_timezones():
        return ""
    looked = ", ".join(zoneinfo.TZPATH) or "no folder"
    cure = "install the system's or Python's package tzdata, or unset PYTHONTZPATH"
    return f"there is no time zone data (looked in {looked}): {cure}"


def zone_hint(name: str) -> str:
    """What may have been meant by a name that is no time zone; empty when that is not known."""
    offset = _OFFSET.fullmatch(name.strip())
    if offset is not None:
        return _zone_of_offset(offset["sign"], int(offset["hours"]), int(offset["minutes"] or 0))
    known = sorted(zoneinfo.available_timezones() - _OF_THE_MACHINE)
    towns = [zone for zone in known if zone.rpartition("/")[2].casefold() == name.casefold()]
    if name in {"Z", "z"}:
        towns = ["UTC"]
    # Of other digits it is another offset, and of several the others are other places
    digits = _DIGITS.findall(name)
    found = towns[:3] or errors.near(name, known, 1, lambda one: _DIGITS.findall(one) == digits)
    return f"did you mean {' or '.join(found)}?" if found else ""


def _zone_of_offset(sign: str, hours: int, minutes: int) -> str:
    """The zone of a fixed offset from UTC: in the database's names of these the sign is the other one."""
    ahead = sign == "+"
    said = f"UTC{'+' if ahead else '-'}{hours:02d}:{minutes:02d}"
    zone = "UTC" if not hours else f"Etc/GMT{'-' if ahead else '+'}{hours}"
    if minutes or zone not in {"UTC", *zoneinfo.available_timezones()}:
        return "write the name of a place, such as America/Bogota"
    return f"{said} is {zone}, or write the name of a place, such as America/Bogota"


def parse(expression: str) -> Crontab:
    """What ``minute hour day month weekday`` stands for; raises errors.BadValue that names the part at fault."""
    texts = expression.split()
    if len(texts) != len(_PARTS):
        raise errors.BadValue("schedule", f"a schedule has 5 parts, not {len(texts)}")
    minutes, hours, days, months, weekdays = (_values(*pair) for pair in zip(_PARTS, texts, strict=True))
    # Cron's own rule, ``*/2`` included.
    either = not texts[2].startswith("*") and not texts[4].startswith("*")
    weekdays = frozenset(day % 7 for day in weekdays)
    return Crontab(minutes, hours, days, months, weekdays, either)


def _values(part: _Part, text: str) -> frozenset[int]:
    return frozenset(value for item in text.split(",") for value in _item(part, item))


def _item(part: _Part, text: str) -> range:
    match = _ITEM.fullmatch(text)
    if match is None:
        _number(part, text)
        raise errors.BadValue(part.name, f"'{text}' is not *, a value or a range, the first and last with a /step")
    if match["step"] and match["first"] and not match["last"]:
        raise errors.BadValue(part.name, f"a step follows '*' or a range, not '{match['first']}'")
    step = int(match["step"] or 1)
    if step < 1:
        raise errors.BadValue(part.name, f"a step is at least 1, not {step}")
    if match["first"] is None:
        _check_step(part, text, step, part.size)
        return range(part.low, part.high + 1, step)
    first = _number(part, match["first"])
    last = _number(part, match["last"] or match["first"])
    if first and part.names is _WEEKDAYS and (match["last"] or "").upper() == "SUN":
        last = 7
    if first > last:
        raise errors.BadValue(part.name, f"the range '{text.partition('/')[0]}' ends before it begins")
    _check_step(part, text, step, last - first + 1)
    return range(first, last + 1, step)


def _check_step(part: _Part, text: str, step: int, count: int) -> None:
    if step > max(count, 1):
        what = f"the {count} {part.name}s of '{text.partition('/')[0]}'"
        raise errors.BadValue(
            part.name,
            f"a step of {step} is larger than {what}, and only the first would count: write a step of at most {count}, "
            "or an interval for what recurs less often",
        )


def _number(part: _Part, text: str) -> int:
    if text.upper() in part.names:
        return part.names.index(text.upper()) + (part.names is _MONTHS)
    if not (text.isascii() and text.isdigit() and len(text) < 4):
        names = f" or {part.names[0]} to {part.names[-1]}" if part.names else ""
        raise errors.BadValue(part.name, f"'{text}' is not a number from {part.low} to {part.high}{names}")
    if not part.low <= int(text) <= part.high:
        raise errors.BadValue(part.name, f"{int(text)} is not from {part.low} to {part.high}")
    return int(text)
