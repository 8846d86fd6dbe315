"""Rows of the table of events, as events."""

from __future__ import annotations

import contextlib
import datetime
import functools
import json as stdlib
import re
from typing import Any

import orjson
from psycopg.types import json

from regstream import spec
from regstream.event import Event, Head
from regstream.generator import persistence

COLUMNS = ("stream", "epoch", "seq", "type", "time", "key", "priority", "region", "value")
"""What ``event`` takes, in this order."""
# Escaped, and not a stroke that is escaped before the same letters
_NUL, _SHOWN = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000"), rb"\1" + "\ufffd".encode()
# A character that stands for nothing, and a stroke: no key of anybody begins so
_ESCAPED = "\ue000\\"


def event(row: tuple[Any, ...]) -> Event:
    """The event of a row; which topic it was on is not kept."""
    stream, epoch, seq, kind, time, key, priority, region, value = row
    if key is not None and key.startswith(_ESCAPED):
        with contextlib.suppress(ValueError):
            key = persistence.unescaped(key[len(_ESCAPED) :])
    return Event(_head(stream, epoch, kind, priority, time, region), seq, key, value.encode())


@functools.lru_cache(maxsize=256)
def _head(stream: str, epoch: str, kind: str, priority: str, time: datetime.datetime, region: str) -> Head:
    # Not by seconds as a binary number, which of late times has no whole milliseconds
    at = time.astimezone(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Head(stream, epoch, kind, "", spec.Priority(priority), at, region)


def escaped(key: str) -> str:
    """A key as the database can hold it, which ``event`` gives back as it was."""
    return key if persistence.plain(key) else _ESCAPED + persistence.escaped(key)


def clean(value: str) -> str:
    """A text with what the database has no place for shown as such: the character 0, and half a pair."""
    return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def jsonb(value: Any) -> json.Jsonb:
    """JSON as the database takes it, which has no place for the character 0, and has one for integers of any size."""
    return json.Jsonb(value, _dumped)


def _dumped(value: Any) -> bytes:
    try:
        text = orjson.dumps(value)
    except TypeError:
        # Integers of more than 64 bits
        text = stdlib.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
    return _NUL.sub(_SHOWN, text) if rb"\u0000" in text else text
