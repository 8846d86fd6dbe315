"""What is written: an entry of the hub as packets of Socket.IO, made once and not by the library.

The bytes of an event are embedded as they are, twice: under the name that all events have, and under its own.
"""

from __future__ import annotations

import functools
from typing import Any

import orjson

from regstream import hub

EVERY = "streaming-update"
BETWEEN = "\x1e"
"""What stands between the packets of one answer to a poll."""


class Answer(hub.Entry):
    """An acknowledgement. It waits like any event, so that neither overtakes the other."""

    __slots__ = ("begin",)

    def __init__(self, ack: int, data: Any) -> None:
        super().__init__("ack", b"", orjson.dumps(data))
        self.begin = b"43%d[" % ack


@functools.lru_cache(maxsize=1024)
def _begin(name: str) -> bytes:
    """What the packet of an event begins with: Engine.IO's message, Socket.IO's event, and the event's name."""
    return b"42[%b," % orjson.dumps(name)


def _begins(entry: hub.Entry) -> tuple[bytes, ...]:
    if isinstance(entry, Answer):
        return (entry.begin,)
    own = _begin(entry.name)
    return (own,) if entry.head is None else (_begin(EVERY), own)


def frames(entries: list[hub.Entry]) -> bytes:
    """``entries`` for a WebSocket: each packet a text frame."""
    pieces: list[bytes] = []
    for entry in entries:
        value = entry.value
        for begin in _begins(entry):
            pieces += (header(len(begin) + len(value) + 1), begin, value, b"]")
    return b"".join(pieces)


def payload(entries: list[hub.Entry]) -> str:
    """``entries`` for an answer to a poll."""
    packets = [b"%b%b]" % (begin, entry.value) for entry in entries for begin in _begins(entry)]
    return BETWEEN.encode().join(packets).decode()


def header(size: int) -> bytes:
    """What stands before a text frame of that many bytes."""
    if size < 126:
        return bytes((0x81, size))
    return b"\x81\x7e" + size.to_bytes(2) if size < 0x10000 else b"\x81\x7f" + size.to_bytes(8)
