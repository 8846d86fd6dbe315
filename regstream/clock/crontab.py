"""Cron expressions as Unix cron reads them: text in, sets of numbers out.

APScheduler's own reading differs where it hurts: it counts weekdays from Monday, and wants day *and* weekday to match.
"""

from __future__ import annotations

import datetime
import re
import zoneinfo
from typing import NamedTuple

from regstream import errors

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


_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_PARTS = (
    _Part("minute", 0, 59),
    _Part("hour", 0, 23),
    _Part("day", 1, 31),
    _Part("month", 1, 12, _MONTHS),
    _Part("weekday", 0, 7, _WEEKDAYS),
)


def check_cron(expression: str, timezone: str) -> str | None:
    """Why a schedule is bad, lower case and without a full stop; None when it is good. One that never fires is bad."""
    try:
        crontab = parse(expression)
        zone(timezone)
    except errors.BadValue as error:
        return str(error)
    return None if crontab.possible else "schedule: never fires, no month that it names has such a day"


def zone(name: str) -> datetime.tzinfo:
    """The IANA time zone of that name; raises errors.BadValue when there is none."""
    # Not from zoneinfo, which has no zone at all on a system without its files.
    if name == "UTC":
        return datetime.UTC
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        hint = errors.did_you_mean(name, zoneinfo.available_timezones())
        raise errors.BadValue("timezone", f"unknown time zone {name!r}{', ' if hint else ''}{hint}") from None


def parse(expression: str) -> Crontab:
    """What ``minute hour day month weekday`` stands for; raises errors.BadValue that names the part at fault."""
    texts = expression.split()
    if len(texts) != len(_PARTS):
        names = " ".join(part.name for part in _PARTS)
        raise errors.BadValue("schedule", f"has {len(texts)} parts, not the five of {names!r}")
    minutes, hours, days, months, weekdays = (_values(*pair) for pair in zip(_PARTS, texts, strict=True))
    # Cron's own rule, ``*/2`` included.
    either = not texts[2].startswith("*") and not texts[4].startswith("*")
    weekdays = frozenset(day % 7 for day in weekdays)
    return Crontab(minutes, hours, days, months, weekdays, either)


def _values(part: _Part, text: str) -> frozenset[int]:
    return frozenset(value for item in text.split(",") for value in _item(part, item))


def _item(part: _Part, text: str) -> range:
    match = _ITEM.fullmatch(text)
    if match is None or (match["step"] and match["first"] and not match["last"]):
        raise errors.BadValue(part.name, f"{text!r} is not *, a value or a range, the first and last with a /step")
    step = int(match["step"] or 1)
    if step < 1:
        raise errors.BadValue(part.name, "a step is at least 1")
    if match["first"] is None:
        return range(part.low, part.high + 1, step)
    first = _number(part, match["first"])
    last = _number(part, match["last"] or match["first"])
    if first and part.names is _WEEKDAYS and (match["last"] or "").upper() == "SUN":
        last = 7
    if first > last:
        raise errors.BadValue(part.name, f"the range {text!r} ends before it begins")
    return range(first, last + 1, step)


def _number(part: _Part, text: str) -> int:
    if text.upper() in part.names:
        return part.names.index(text.upper()) + (part.names is _MONTHS)
    value = int(text) if text.isdecimal() and len(text) < 4 else -1
    if not part.low <= value <= part.high:
        names = f" or {part.names[0]} to {part.names[-1]}" if part.names else ""
        raise errors.BadValue(part.name, f"{text!r} is not from {part.low} to {part.high}{names}")
    return value
