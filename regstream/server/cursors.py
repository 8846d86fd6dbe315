"""The cursors of ``/api/streaming/events``: a place in the history, for whoever goes on from there.

Without a database it is a place in the hub's order, and the life of the daemon that it belongs to. With one it is the
place of an event, which means the same whatever is written or restarted meanwhile.
"""

from __future__ import annotations

import base64
import binascii
import re

import orjson

from regstream import errors
from regstream.server import decoding

PATTERN = "^([0-9a-f]{1,16}-[0-9]{1,18}|W[A-Za-z0-9_-]{1,400})$"
_FORM = re.compile(r"([0-9a-f]{1,16})-([0-9]{1,18})")
_PLACE = re.compile(r"W[A-Za-z0-9_-]{1,400}")
_MOST = 2**63 - 1
_LONGEST = 253_402_300_800_000_000
Place = tuple[int, str, str, int]
"""Microseconds since 1970, stream, epoch and number."""


def write(life: float, order: int) -> str:
    """The cursor behind the entry ``order`` of a daemon that was started at ``life``, epoch seconds."""
    return f"{int(life * 1000):x}-{order}"


def read(life: float, cursor: str) -> int:
    """The order in ``cursor``.

    Raises BadValue for what never was a cursor, Conflict for one of an earlier start, whose order means nothing now,
    and for one of a database.
    """
    match = _FORM.fullmatch(cursor)
    if match is None:
        if _PLACE.fullmatch(cursor):
            raise errors.Conflict("the cursor is one of a database, and there is none now: read without it")
        raise errors.BadValue("after", "not a cursor that this interface gave")
    if int(match[1], 16) != int(life * 1000):
        raise errors.Conflict("the cursor is from before the daemon was started, read without it to begin anew")
    return int(match[2])


def write_place(place: Place) -> str:
    """The cursor of an event in the database."""
    return base64.urlsafe_b64encode(orjson.dumps(list(place))).decode().rstrip("=")


def read_place(field: str, cursor: str) -> Place:
    """The place in ``cursor``.

    Raises BadValue, naming ``field``, for what never was a cursor, and Conflict for one from before there was a
    database.
    """
    found = _place(cursor)
    if found is None:
        if _FORM.fullmatch(cursor):
            raise errors.Conflict("the cursor is from before there was a database: read without it to begin anew")
        raise errors.BadValue(field, "not a cursor that this interface gave")
    return found


def _place(cursor: str) -> Place | None:
    if not _PLACE.fullmatch(cursor):
        return None
    try:
        found = decoding.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError):
        return None
    match found:
        case [int(time), str(stream), str(epoch), int(seq)] if not {type(time), type(seq)} & {bool}:
            sound = -_LONGEST < time < _LONGEST and 0 <= seq <= _MOST and "\0" not in stream + epoch
            return (time, stream, epoch, seq) if sound else None
    return None
