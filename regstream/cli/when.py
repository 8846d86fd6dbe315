"""Times and spans as they are given on the command line."""

from __future__ import annotations

import re
import time

from regstream import errors, model
from regstream.server import instants

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


def moment(option: str, text: str) -> float:
    """Seconds since 1970 for RFC 3339 text, or for a date alone, which is its midnight in UTC. Raises BadValue."""
    try:
        return instants.parse(f"{text}T00:00:00Z" if _DATE.fullmatch(text) else text)
    except ValueError:
        raise errors.BadValue(option, f"{text!r} is not a time, write 2026-01-01 or 2026-01-01T09:30:00Z") from None


def past(option: str, text: str) -> float:
    """Like ``moment``; one that is still to come is a BadValue."""
    found = moment(option, text)
    if found > time.time():
        raise errors.BadValue(option, f"{text} is still to come")
    return found


def span(begin: str | None, end: str | None, duration: str | None) -> tuple[float, float]:
    """From when to when: two of the three, or ``duration`` alone, which ends now. Raises BadValue."""
    length = None if duration is None else _seconds(duration)
    start = None if begin is None else moment("--from", begin)
    stop = None if end is None else moment("--to", end)
    if start is not None and stop is not None and length is not None:
        raise errors.BadValue("--duration", "give two of --from, --to and --duration")
    if length is not None and stop is None and start is None:
        stop = time.time()
    if length is not None:
        start, stop = (stop or 0.0) - length if start is None else start, start + length if start is not None else stop
    if start is None or stop is None:
        raise errors.BadValue("--from", "say from when to when: --from and --to, or --from and --duration")
    if stop <= start:
        raise errors.BadValue("--to", f"{model.rfc3339(stop)} is not after {model.rfc3339(start)}")
    return start, stop


def _seconds(text: str) -> float:
    try:
        return model.milliseconds(text) / 1000
    except ValueError:
        raise errors.BadValue("--duration", f"{text!r} is not a duration, write 90d, 12h, 30m, 45s") from None
