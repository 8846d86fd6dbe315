"""The frame: encoded text for the wire, made once and shared by everyone who gets it."""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import orjson

from regstream.event import Event, Position


class Entry:
    """One frame, made once and shared by everyone who gets it; nobody changes it.

    ``text`` is the frame's JSON, ``name`` what its ``event`` says. ``order`` counts what the hub has shown, from 1;
    ``head``, ``seq`` and ``key`` are the event's, and ``head`` is None for what is no event of a stream (``order`` is
    then 0 for a reply). ``wire`` is free for a server that wants to keep what its framing needs. With ``replay`` it is
    an event that was stored and is sent again, whose position says nothing of where a reader stands.
    """

    replay: ClassVar[bool] = False

    __slots__ = ("_start", "head", "key", "name", "order", "seq", "size", "text", "wire")

    def __init__(self, name: str, prefix: bytes, value: bytes, order: int = 0, event: Event | None = None) -> None:
        self.name, self.text, self.order, self._start = name, b"%b%b}" % (prefix, value), order, len(prefix)
        self.size = len(self.text)
        self.head = event.head if event else None
        self.seq, self.key = (event.seq, event.key) if event else (0, None)
        self.wire: bytes | None = None

    @property
    def position(self) -> Position:
        """Where a reader stands who has this event."""
        return Position(self.head.epoch if self.head else "", self.seq)

    @property
    def value(self) -> bytes:
        """The JSON of ``data``: for an event of a stream the CloudEvent's bytes, as the broker gave them."""
        return self.text[self._start : -1]


class Replayed(Entry):
    """A stored event that is sent again: marked in the frame, and as the last member of the CloudEvent."""

    replay: ClassVar[bool] = True
    __slots__ = ()

    def __init__(self, event: Event, order: int) -> None:
        value, end = memoryview(event.value), event.value.rindex(b"}")
        marked = b"".join((value[:end], b',"replay":true', value[end:]))
        super().__init__(event.head.type, _replayed(event.head.type), marked, order, event)


@functools.lru_cache(maxsize=1024)
def _replayed(name: str) -> bytes:
    return b'{"event":%b,"replay":true,"data":' % orjson.dumps(name)


def prefix(name: str) -> bytes:
    """What a frame of that name begins with, up to its ``data``."""
    return b'{"event":%b,"data":' % orjson.dumps(name)


def reply(name: str, data: Any, order: int = 0) -> Entry:
    """A frame that is no event of a stream: an answer, or one of channel ``system``."""
    return Entry(name, prefix(name), orjson.dumps(data), order)
