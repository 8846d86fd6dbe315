"""What reaches its readers late, twice or never: the times of events, and the one before that may come again."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from regstream.functions import registry

MOST_LATE = 366 * 86_400.0
"""How late an event may be, in seconds."""


class Parts(NamedTuple):
    """The envelope around the two times of an event."""

    opening: bytes
    closing: bytes
    recorded: str

    def around(self, time: str) -> bytes:
        """With the time of an event in it, and the one at which it was made as ``recordedtime`` (CloudEvents)."""
        return b'%s%s","recordedtime":"%s%s' % (self.opening, time.encode(), self.recorded.encode(), self.closing)


def moved(due: float, parts: Parts, late: float) -> tuple[registry.Instant, str, bytes, float]:
    """The time of an event that is made ``late`` seconds after it happened: as a moment, as text, in the envelope, in
    seconds. Raises ValueError when that is no such number.
    """
    if isinstance(late, bool) or not isinstance(late, int | float) or not 0 <= late <= MOST_LATE:
        raise ValueError(f"{late!r} is not a number of seconds from 0 to {MOST_LATE:.0f}")
    at = due - late
    text = registry.time_text(at)
    return registry.Instant.at(at), text, parts.around(text), at


class Arriving:
    """What a stream remembers of its events: the newest, as data, key and time, and how many were lost since it."""

    def __init__(self) -> None:
        self.last: tuple[bytes, str | None, float] | None = None
        self.lost = 0
        self.times: list[str] = []

    def note(self, text: str, data: bytes, key: str | None, at: float) -> None:
        """An event was made, of the time ``text``."""
        self.times.append(text)
        self.last = data, key, at

    def again(
        self,
        seq: int,
        before: bytes,
        due: float,
        parts: Parts,
        after: bytes,
        add: Callable[[bytes], None],
        add_key: Callable[[str | None], None],
    ) -> None:
        """The newest event once more, as number ``seq``; there must be one."""
        data, key, at = self.last or (b"null", None, due)
        text = registry.time_text(at)
        number = b"%d" % seq
        add(b"".join((before, number, parts.around(text), number, after, data, b"}")))
        add_key(key)
        self.times.append(text)

    def take(self) -> list[str]:
        """The times of the events since the last call, in order."""
        times, self.times = self.times, []
        return times
