"""A block: events that share a head, as bytes that say themselves whether they are whole.

::

    magic | length | crc32 | mark of the first event, count, length of the head | head | seqs | sizes | keys | values
                           `------------------------ length bytes, which crc32 covers ------------------------------'

Columns rather than one event after the other: that is a third of the time. Numbers are in this machine's byte order,
and so is the magic, which makes blocks of another one unreadable rather than wrong.
"""

from __future__ import annotations

import array
import itertools
import operator
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from regstream import broker, spec
from regstream.event import Event, Head

MAGIC = struct.pack("=I", 0xF7525331)
MOST_EVENTS = 200
MOST_BYTES = 256 * 1024
"""A block of several events is not larger, so that one damaged byte costs little."""

_FRONT = struct.Struct("=4sII")
_INNER = struct.Struct("=QII")
_HEAD = struct.Struct("=7I")


class Found(NamedTuple):
    """A sound block in a file: the bytes ``start`` to ``end``, so many events, and the mark of the first of them."""

    start: int
    end: int
    first: int
    events: int


def split(events: Sequence[Event]) -> Iterator[Sequence[Event]]:
    """The same events in the same order, in parts that may each become a block."""
    for _, group in itertools.groupby(events, operator.attrgetter("head")):
        alike = list(group)
        for at in range(0, len(alike), MOST_EVENTS):
            yield from _halved(alike[at : at + MOST_EVENTS])


def _halved(events: Sequence[Event]) -> Iterator[Sequence[Event]]:
    middle = len(events) // 2
    if not middle or sum([len(event.value) for event in events]) <= MOST_BYTES:
        yield events
    else:
        yield from _halved(events[:middle])
        yield from _halved(events[middle:])


def pack(events: Sequence[Event], first: int) -> tuple[bytes, bytes]:
    """The block of ``events``, which share a head, in two parts; ``first`` is the mark of the first event."""
    _, seqs, texts, values = zip(*events, strict=True)
    keys = [None if text is None else text.encode(*broker.KEYS) for text in texts]
    head = _pack_head(events[0].head)
    body = b"".join(
        (
            _INNER.pack(first, len(values), len(head)),
            head,
            array.array("Q", seqs),
            array.array("i", [-1 if key is None else len(key) for key in keys]),
            array.array("I", map(len, values)),
            *filter(None, keys),
            *values,
        )
    )
    return _FRONT.pack(MAGIC, len(body), zlib.crc32(body)), body


def _pack_head(head: Head) -> bytes:
    texts = [text.encode(*broker.KEYS) for text in head]
    return _HEAD.pack(*map(len, texts)) + b"".join(texts)


def sound(data: bytes | memoryview, start: int) -> Found | None:
    """The block that begins at ``start``, None when there is no whole and undamaged one."""
    if start + _FRONT.size + _INNER.size > len(data):
        return None
    magic, length, crc = _FRONT.unpack_from(data, start)
    inner, end = start + _FRONT.size, start + _FRONT.size + length
    if magic != MAGIC or end > len(data) or zlib.crc32(memoryview(data)[inner:end]) != crc:
        return None
    first, count, _ = _INNER.unpack_from(data, inner)
    return Found(start, end, first, count)


def search(data: bytes, start: int) -> Iterator[Found]:
    """All sound blocks from ``start`` on, with rising marks; what lies between them is passed over."""
    at, last = start, 0
    while at >= 0:
        found = sound(data, at)
        # Marks only rise: what looks like a block and goes back is part of the value of one that is damaged.
        if found is not None and found.first > last and found.events:
            yield found
            at, last = found.end, found.first + found.events - 1
        else:
            at = data.find(MAGIC, at + 1)


def unpack(data: bytes, found: Found) -> list[Event]:
    """The events of a sound block."""
    at = found.start + _FRONT.size
    _, count, length = _INNER.unpack_from(data, at)
    at += _INNER.size
    head = _unpack_head(data[at : at + length])
    at += length
    seqs, at = _column("Q", data, at, count)
    key_sizes, at = _column("i", data, at, count)
    value_sizes, at = _column("I", data, at, count)
    keys: list[str | None] = []
    for size in key_sizes:
        keys.append(None if size < 0 else data[at : at + size].decode(*broker.KEYS))
        at += max(size, 0)
    return [
        Event(head, seq, key, data[end - size : end])
        for seq, key, size, end in zip(seqs, keys, value_sizes, _ends(at, value_sizes), strict=True)
    ]


def head(data: bytes, found: Found) -> tuple[Head, int, int]:
    """Head of a sound block, and ``seq`` of its first and last event."""
    at = found.start + _FRONT.size
    _, count, length = _INNER.unpack_from(data, at)
    at += _INNER.size
    seqs, _ = _column("Q", data, at + length, count)
    return _unpack_head(data[at : at + length]), seqs[0], seqs[-1]


def _unpack_head(data: bytes) -> Head:
    sizes = _HEAD.unpack_from(data)
    texts = [
        data[end - size : end].decode(*broker.KEYS) for size, end in zip(sizes, _ends(_HEAD.size, sizes), strict=True)
    ]
    stream, epoch, kind, topic, priority, time, region = texts
    return Head(stream, epoch, kind, topic, spec.Priority(priority), time, region)


def _column(kind: str, data: bytes, at: int, count: int) -> tuple[array.array[int], int]:
    column = array.array(kind)
    end = at + count * column.itemsize
    column.frombytes(data[at:end])
    return column, end


def _ends(start: int, sizes: Sequence[int]) -> Iterator[int]:
    ends = itertools.accumulate(sizes, initial=start)
    next(ends)
    return ends
