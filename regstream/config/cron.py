"""The five parts of a cron expression, checked: what passes here the clock can build a trigger of."""

from __future__ import annotations

import functools
import re
import zoneinfo
from typing import NamedTuple

from regstream import errors

MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")

_RANGE = re.compile(r"(\w+)-(\w+)")
_STEP = re.compile(r"(.+)/(\d{1,4})")
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class _Part(NamedTuple):
    name: str
    low: int
    high: int
    words: tuple[str, ...] = ()


_PARTS = (
    _Part("minute", 0, 59),
    _Part("hour", 0, 23),
    _Part("day", 1, 31),
    _Part("month", 1, 12, MONTHS),
    _Part("weekday", 0, 7, DAYS),
)


def problem(expression: str) -> tuple[str, str] | None:
    """Message and hint for a bad expression, None for a good one."""
    texts = expression.split()
    if len(texts) != len(_PARTS):
        return (
            f"a schedule has 5 parts, not {len(texts)}",
            "write minute hour day month weekday, as in '*/5 8-18 * * MON-FRI'",
        )
    try:
        values = [_values(part, text) for part, text in zip(_PARTS, texts, strict=True)]
    except ValueError as error:
        return str(error), ""
    if texts[4] == "*" and not any(day <= _LONGEST[month - 1] for day in values[2] for month in values[3]):
        return "no month of this schedule has such a day", ""
    return None


def _values(part: _Part, text: str) -> set[int]:
    """All numbers that a part stands for; raises ValueError with the reason."""
    return {value for one in text.split(",") for value in _element(part, one)}


def _element(part: _Part, text: str) -> range:
    stepped = _STEP.fullmatch(text)
    base, step = (stepped[1], int(stepped[2])) if stepped else (text, 1)
    if step < 1:
        raise ValueError(f"{part.name}: a step is at least 1, not {step}")
    if base == "*":
        return range(part.low, part.high + 1, step)
    bounds = _RANGE.fullmatch(base)
    if bounds is None and stepped:
        raise ValueError(f"{part.name}: a step follows '*' or a range, not '{base}'")
    first = _number(part, bounds[1] if bounds else base)
    last = _last(part, bounds[2]) if bounds else first
    if last < first:
        raise ValueError(f"{part.name}: the range '{base}' ends before it begins")
    return range(first, last + 1, step)


def _last(part: _Part, text: str) -> int:
    value = _number(part, text)
    return 7 if part.words is DAYS and text.upper() == "SUN" else value


def _number(part: _Part, text: str) -> int:
    if text.upper() in part.words:
        return part.words.index(text.upper()) + (part.low if part.words is MONTHS else 0)
    if not (text.isascii() and text.isdigit() and len(text) < 4):
        names = f" or {part.words[0]} to {part.words[-1]}" if part.words else ""
        raise ValueError(f"{part.name}: '{text}' is not a number from {part.low} to {part.high}{names}")
    if not part.low <= int(text) <= part.high:
        raise ValueError(f"{part.name}: {int(text)} is not from {part.low} to {part.high}")
    return int(text)


def zone_problem(name: str) -> tuple[str, str] | None:
    """Message and hint for a name that is no time zone, None for one that is."""
    if name == "UTC" or _known(name):
        return None
    towns = [zone for zone in sorted(_zones()) if zone.rpartition("/")[2].casefold() == name.casefold()]
    hint = f"did you mean {' or '.join(towns[:3])}?" if towns else errors.did_you_mean(name, _zones())
    return f"unknown time zone '{name}'", hint


@functools.lru_cache(maxsize=256)
def _known(name: str) -> bool:
    try:
        zoneinfo.ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return False
    return True


@functools.cache
def _zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())
