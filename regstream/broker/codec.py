"""A message of a topic as one of our events, or as nothing of ours."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Iterable
from typing import Any

import orjson

from regstream import broker, spec
from regstream.event import Event, Head

_TRACEPARENT = b'"traceparent":"'


def ours(messages: Iterable[Any]) -> list[broker.Record]:
    """Those messages of the client library that are our events, in the same order."""
    found = []
    for one in messages:
        event = read(one.topic, one.key, one.value)
        if event is not None:
            found.append(broker.Record(event, one.topic, one.partition, one.offset))
    return found


def read(topic: str, key: bytes | None, value: bytes | None) -> Event | None:
    """One of our events from its bytes, or None when it is anything else."""
    try:
        data = orjson.loads(value or b"")
        head = _head(
            data["subject"], data["epoch"], data["type"], topic, data["priority"], data["time"], data["region"]
        )  # fmt: skip
        event = Event(head, data["seq"], None if key is None else key.decode(*broker.KEYS), value or b"")
        # Others write CloudEvents too, with members of the same names; the id says whose numbering it is
        numbered = type(event.seq) is int and event.seq > 0 and data["id"] == event.id
        sound = data["specversion"] == "1.0" and isinstance(data["data"], dict)
        return event if numbered and sound else None
    except (ValueError, KeyError, TypeError):
        return None


@functools.lru_cache(maxsize=256)
def _head(stream: str, epoch: str, kind: str, topic: str, priority: str, time: str, region: str) -> Head:
    """The events of a batch come one after another, and share what they share. Raises TypeError and ValueError."""
    made = Head(stream, epoch, kind, topic, spec.Priority(priority), time, region)
    if not all(isinstance(one, str) for one in made):
        raise TypeError("a text is not one")
    return made


def traceparent(value: bytes) -> bytes | None:
    """The trace that an event of ours is part of, if any."""
    # Within a text there would be a stroke before the quotes
    at = value.find(_TRACEPARENT, 0, value.find(b'"data":'))
    return value[at + len(_TRACEPARENT) : value.index(b'"', at + len(_TRACEPARENT))] if at >= 0 else None


def milliseconds(time: str) -> int:
    """The time of an event as Kafka has it."""
    return int(datetime.datetime.fromisoformat(time).timestamp() * 1000)
