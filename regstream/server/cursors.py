"""The cursor of ``/api/streaming/events``: a place in the hub's order, and the life of the daemon it belongs to."""

from __future__ import annotations

import re

from regstream import errors

PATTERN = "^[0-9a-f]{1,16}-[0-9]{1,18}$"
_FORM = re.compile(r"([0-9a-f]{1,16})-([0-9]{1,18})")


def write(life: float, order: int) -> str:
    """The cursor behind the entry ``order`` of a daemon that was started at ``life``, epoch seconds."""
    return f"{int(life * 1000):x}-{order}"


def read(life: float, cursor: str) -> int:
    """The order in ``cursor``.

    Raises BadValue for what never was a cursor, Conflict for one of an earlier start, whose order means nothing now.
    """
    match = _FORM.fullmatch(cursor)
    if match is None:
        raise errors.BadValue("after", "not a cursor that this interface gave")
    if int(match[1], 16) != int(life * 1000):
        raise errors.Conflict("the cursor is from before the daemon was started, read without it to begin anew")
    return int(match[2])
