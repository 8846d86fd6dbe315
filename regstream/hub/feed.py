"""One log for all who follow the same in the same way and have nothing else waiting.

With a hundred readers that keep up, a hundred queues hold the same few frames, and filling and emptying them costs as
much as the frames' way to the kernel. So whoever has an empty queue shares in a feed; as soon as something comes that
is for one of them alone, or one of them has no room, it parts: what the log holds goes into its own queue, in front.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Protocol

from regstream.hub.frame import Entry

# No more than goes out in one write; what is more waits in the queues, whose bounds it has to keep to
MOST, MOST_BYTES = 256, 64 * 1024


class Member(Protocol):
    """A subscriber, as far as a feed knows it."""

    feed: Feed | None
    reader: Any

    def offer(self, entry: Entry) -> None:
        """Queue ``entry`` of its own."""


class Feed:
    """The log, and who follows: ``sharing`` what it holds, or ``apart``, by a queue of their own.

    ``key`` says what they follow, and how. ``wake`` is called, and must return quickly, when something came into an
    empty log. Whoever serves the feed gives ``log`` to all who are ``sharing``, parts those that it cannot give it to,
    and clears it, in one turn.
    """

    __slots__ = ("_size", "_wake", "apart", "key", "log", "sharing")

    def __init__(self, wake: Callable[[Feed], None], key: Hashable = None) -> None:
        self._wake, self.key = wake, key
        self.log: list[Entry] = []
        self._size = 0
        self.sharing: dict[Member, None] = {}
        self.apart: dict[Member, None] = {}

    def offer(self, entry: Entry) -> None:
        """Show ``entry`` to everybody; never waits, never raises."""
        for one in self.apart:
            one.offer(entry)
        if self.sharing:
            if not self.log:
                self._wake(self)
            self.log.append(entry)
            self._size += entry.size
            if self._size > MOST_BYTES or len(self.log) > MOST:
                for one in tuple(self.sharing):
                    self.part(one)
                self.clear()

    def clear(self) -> None:
        """What the log holds was given to everybody; the list itself belongs to whom it was given to."""
        self.log, self._size = [], 0

    def add(self, one: Member) -> None:
        """Let ``one`` follow, apart for now."""
        self.apart[one] = None

    def share(self, one: Member) -> None:
        """Let ``one`` share, whose queue is empty, unless the log holds what it has had already."""
        if not self.log and self.apart.pop(one, self) is None:
            self.sharing[one] = None
            one.feed = self

    def part(self, one: Member) -> None:
        """Give ``one`` a queue of its own again, with what the log holds."""
        del self.sharing[one]
        self.apart[one] = None
        one.feed = None
        for entry in self.log:
            one.offer(entry)

    def remove(self, one: Member) -> bool:
        """``one`` follows no longer; what the log holds goes into its queue. Says whether anybody is left."""
        if one in self.sharing:
            self.part(one)
        self.apart.pop(one, None)
        return bool(self.sharing or self.apart)
