"""``strftime`` as the C library does it in the C locale and in UTC, whatever the machine's locale and zone are.

All directives of C, POSIX and GNU, with the flags ``_ - 0 ^ #`` and a width. ``%s`` is the POSIX time, ``%c`` is
``%a %b %e %H:%M:%S %Y``, ``%x`` is ``%m/%d/%y``, ``%X`` is ``%H:%M:%S``; names of days and months are English.
"""

from __future__ import annotations

import calendar
import datetime
import functools
import re
from collections.abc import Callable
from typing import NamedTuple

_DIRECTIVE = re.compile(r"%(?P<flags>[_\-0^#]*)(?P<width>\d{0,3})[EO]?(?P<name>[A-Za-z%])")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
Time = datetime.datetime


class _Number(NamedTuple):
    """A directive that writes a number: of so many digits, with that before them."""

    of: Callable[[Time], int]
    digits: int
    pad: str = "0"


def _offset(at: Time) -> str:
    offset = at.utcoffset()
    if offset is None:
        return ""
    minutes = abs(offset) // datetime.timedelta(minutes=1)
    return f"{'-' if offset < datetime.timedelta() else '+'}{minutes // 60:02d}{minutes % 60:02d}"


def _year_day(at: Time) -> int:
    return at.toordinal() - datetime.date(at.year, 1, 1).toordinal() + 1


def _seconds(at: Time) -> int:
    # A time without a zone is taken as UTC, never as the machine's
    return calendar.timegm(at.utctimetuple())


_NUMBERS = {
    "d": _Number(lambda at: at.day, 2),
    "e": _Number(lambda at: at.day, 2, " "),
    "f": _Number(lambda at: at.microsecond, 6),
    "g": _Number(lambda at: at.isocalendar()[0] % 100, 2),
    "G": _Number(lambda at: at.isocalendar()[0], 1),
    "H": _Number(lambda at: at.hour, 2),
    "I": _Number(lambda at: at.hour % 12 or 12, 2),
    "j": _Number(_year_day, 3),
    "k": _Number(lambda at: at.hour, 2, " "),
    "l": _Number(lambda at: at.hour % 12 or 12, 2, " "),
    "m": _Number(lambda at: at.month, 2),
    "M": _Number(lambda at: at.minute, 2),
    "s": _Number(_seconds, 1),
    "S": _Number(lambda at: at.second, 2),
    "u": _Number(lambda at: at.isoweekday(), 1),
    "U": _Number(lambda at: (_year_day(at) + 6 - at.isoweekday() % 7) // 7, 2),
    "V": _Number(lambda at: at.isocalendar()[1], 2),
    "w": _Number(lambda at: at.isoweekday() % 7, 1),
    "W": _Number(lambda at: (_year_day(at) + 6 - at.weekday()) // 7, 2),
    "y": _Number(lambda at: at.year % 100, 2),
    "Y": _Number(lambda at: at.year, 1),
    "C": _Number(lambda at: at.year // 100, 2),
}
_TEXTS: dict[str, Callable[[Time], str]] = {
    "a": lambda at: _DAYS[at.weekday()][:3],
    "A": lambda at: _DAYS[at.weekday()],
    "b": lambda at: _MONTHS[at.month - 1][:3],
    "B": lambda at: _MONTHS[at.month - 1],
    "h": lambda at: _MONTHS[at.month - 1][:3],
    "n": lambda at: "\n",
    "p": lambda at: "AM" if at.hour < 12 else "PM",
    "P": lambda at: "am" if at.hour < 12 else "pm",
    "t": lambda at: "\t",
    "z": _offset,
    "Z": lambda at: at.tzname() or "",
    "%": lambda at: "%",
}
_SHORT = {
    "c": "%a %b %e %H:%M:%S %Y",
    "D": "%m/%d/%y",
    "F": "%Y-%m-%d",
    "r": "%I:%M:%S %p",
    "R": "%H:%M",
    "T": "%H:%M:%S",
    "x": "%m/%d/%y",
    "X": "%H:%M:%S",
}
_Part = Callable[[Time], str]


def timestamp(at: datetime.datetime) -> float:
    """``at.timestamp()``; a time without a zone is taken as UTC."""
    return (at if at.tzinfo else at.replace(tzinfo=datetime.UTC)).astimezone(datetime.UTC).timestamp()


def formatted(at: datetime.date | datetime.time, text: str) -> str:
    """``at.strftime(text)``; a date is its midnight, a time that of 1 January 1900. Raises TypeError."""
    if not isinstance(text, str):
        raise TypeError(f"strftime takes a text such as '%d/%m/%Y', not {text!r}")
    if isinstance(at, datetime.time):
        at = datetime.datetime.combine(datetime.date(1900, 1, 1), at)
    elif not isinstance(at, datetime.datetime):
        at = datetime.datetime(at.year, at.month, at.day)
    template, parts = _plan(text)
    return template % tuple([part(at) for part in parts]) if parts else template % ()


@functools.lru_cache(256)
def _plan(text: str) -> tuple[str, tuple[_Part, ...]]:
    """The text with ``%s`` in place of each directive, and what each of them writes."""
    template, parts, done = [], [], 0
    for match in _DIRECTIVE.finditer(text):
        part = _part(match["name"], match["flags"], int(match["width"] or 0))
        if part is not None:
            template += [text[done : match.start()].replace("%", "%%"), "%s"]
            parts.append(part)
            done = match.end()
    return "".join([*template, text[done:].replace("%", "%%")]), tuple(parts)


def _part(name: str, flags: str, width: int) -> _Part | None:
    number = _NUMBERS.get(name)
    if number is not None:
        pad = next(
            ({"_": " ", "0": "0", "-": " " * (width > 0)}[flag] for flag in reversed(flags) if flag in "_0-"),
            number.pad,
        )
        length, of = max(number.digits, width), number.of
        if "-" in flags:
            length = width
        return lambda at: str(of(at)).rjust(length, pad) if pad else str(of(at))
    if name in _SHORT:
        write: _Part = functools.partial(_written, _SHORT[name])
    elif name in _TEXTS:
        write = _TEXTS[name]
    else:
        return None
    if "#" in flags and name in "aAbBhpZ":
        write = _cased(write, str.lower if name in "pZ" else str.upper)
    elif "^" in flags and name != "P":
        write = _cased(write, str.upper)
    if not width:
        return write
    pad = "0" if flags.endswith("0") else " "
    return lambda at: write(at).rjust(width, pad)


def _written(text: str, at: Time) -> str:
    return formatted(at, text)


def _cased(write: _Part, case: Callable[[str], str]) -> _Part:
    return lambda at: case(write(at))
