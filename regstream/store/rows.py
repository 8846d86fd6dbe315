"""Rows of the table of events, as events."""

from __future__ import annotations

import datetime
import functools
from typing import Any

import orjson
from psycopg.types import json

from regstream import model

COLUMNS = ("stream", "epoch", "seq", "type", "time", "key", "priority", "region", "value")
"""What ``event`` takes, in this order."""


def event(row: tuple[Any, ...]) -> model.Event:
    """The event of a row; which topic it was on is not kept."""
    stream, epoch, seq, kind, time, key, priority, region, value = row
    return model.Event(_head(stream, epoch, kind, priority, time, region), seq, key, value.encode())


@functools.lru_cache(maxsize=256)
def _head(stream: str, epoch: str, kind: str, priority: str, time: datetime.datetime, region: str) -> model.Head:
    return model.Head(stream, epoch, kind, "", model.Priority(priority), model.rfc3339(time.timestamp()), region)


def clean(value: str) -> str:
    """A text with what the database has no place for shown as such: the character 0, and half a pair."""
    return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def jsonb(value: Any) -> json.Jsonb:
    """JSON as the database takes it, which has no place for the character 0."""
    return json.Jsonb(value, lambda one: orjson.dumps(one).replace(rb"\u0000", "\ufffd".encode()))
