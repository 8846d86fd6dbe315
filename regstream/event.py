"""What flows: events, what those of a batch share, and where a reader stands."""

from __future__ import annotations

import datetime
from typing import NamedTuple

from regstream.spec.types import Priority


def rfc3339(seconds: float) -> str:
    """Epoch seconds as every ``time`` of an event is written: UTC, milliseconds, ``Z``."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return f"{moment.isoformat(timespec='milliseconds')[:-6]}Z"


_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def ulid(seconds: float, bits: int) -> str:
    """A name that sorts by time: 48 bits of milliseconds and 80 other ``bits``, in Crockford's base 32 (ULID)."""
    number = (int(seconds * 1000) << 80) | bits
    return "".join(_CROCKFORD[(number >> shift) & 31] for shift in range(125, -1, -5))


class Position(NamedTuple):
    """Where a reader stands in a stream: the number of the last event it has, and the numbering it belongs to.

    ``seq`` rises by exactly one an event within an epoch and begins with 1; 0 stands before the first.
    """

    epoch: str
    seq: int


class Head(NamedTuple):
    """What the events of one batch share. ``time`` is RFC 3339 in UTC with milliseconds, ``topic`` Kafka's."""

    stream: str
    epoch: str
    type: str
    topic: str
    priority: Priority
    time: str
    region: str


class Event(NamedTuple):
    """One rendered CloudEvent: ``value`` holds its bytes, the same for broker, dashboards and store."""

    head: Head
    seq: int
    key: str | None
    value: bytes

    @property
    def position(self) -> Position:
        """Where a reader stands who has this event."""
        return Position(self.head.epoch, self.seq)

    @property
    def id(self) -> str:
        """The CloudEvent's ``id``: stream, epoch and number."""
        return f"{self.head.stream}/{self.head.epoch}/{self.seq}"
