"""Points in time as they are written in queries and answers; inside the program they are seconds since 1970."""

from __future__ import annotations

import datetime
import re

from regstream.event import rfc3339

SCHEMA = {
    "anyOf": [{"type": "string", "format": "date-time"}, {"type": "integer", "minimum": 0, "maximum": 10**15 - 1}]
}

_FIRST, _LAST = -62_135_596_800.0, 253_402_300_799.999
_INSTANT = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}):(\d{2})(\.\d{1,30})?(?:[Zz]|([ +-])(\d{2}):(\d{2}))", re.ASCII
)


def parse(value: object) -> float:
    """Seconds since 1970 for RFC 3339 text or for the digits of whole milliseconds.

    A ``+`` that a query string turned into a space is understood; what lies outside the years 1 to 9999 counts as their
    first or last moment. Raises ValueError for anything else.
    """
    return min(max(_parse(value), _FIRST), _LAST)


def _parse(value: object) -> float:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 15:
        return int(value) / 1000
    match = _INSTANT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("not a time, write 2026-11-23T12:00:00Z or milliseconds since 1970")
    return _seconds(match)


def _seconds(match: re.Match[str]) -> float:
    date, clock, second, fraction, sign, hours, minutes = match.groups()
    leap = second == "60"
    moment = datetime.datetime.fromisoformat(f"{date}T{clock}:{'59' if leap else second}+00:00")
    offset = datetime.time.fromisoformat(f"{hours or '00'}:{minutes or '00'}")
    east = (offset.hour * 3600 + offset.minute * 60) * (-1 if sign == "-" else 1)
    return moment.timestamp() + leap + float(fraction or 0) - east


text = rfc3339


def text_or_none(seconds: float | None) -> str | None:
    """Like ``text``; None stays None."""
    return None if seconds is None else text(seconds)
