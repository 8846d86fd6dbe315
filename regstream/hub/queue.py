"""One frame, and one reader's bounded queue of them."""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from regstream import model


def encode(event: str, data: Any) -> bytes:
    """The text of a frame that is no event of a stream: a reply, or one of channel ``system``."""
    return orjson.dumps({"event": event, "data": data})


class Entry:
    """One frame, made once and shared by everyone who gets it; nobody changes it.

    ``text`` is the frame's JSON. ``order`` counts what the hub has shown, from 1; ``head``, ``seq`` and ``key`` are the
    event's, and ``head`` is None for what is no event of a stream (``order`` is then 0 for a reply). ``wire`` is free
    for a server that wants to keep what its framing needs.
    """

    __slots__ = ("_start", "head", "key", "order", "seq", "size", "text", "wire")

    def __init__(self, text: bytes, order: int = 0, event: model.Event | None = None, start: int = 0) -> None:
        self.text, self.order, self.size, self._start = text, order, len(text), start
        self.head = event.head if event else None
        self.seq, self.key = (event.seq, event.key) if event else (0, None)
        self.wire: bytes | None = None

    @property
    def value(self) -> bytes:
        """The CloudEvent's bytes, as the broker gave them."""
        return self.text[self._start : -1]


class Subscriber:
    """One reader's queue, bounded by ``limit`` frames and ``limit_bytes`` of text, except for what is replayed.

    ``wake`` is called, and must return quickly, when something came into an empty queue and when ``slow`` became true.
    A subscriber that is ``slow`` has lost its queue and gets nothing more: the server has to part with it. It also
    becomes slow when it asks for a replay while more than ``limit_replay`` frames of an earlier one still wait.
    """

    __slots__ = ("_bytes", "_items", "_limit", "_limit_bytes", "_limit_replay", "_replaying", "_wake", "since", "slow")

    def __init__(
        self,
        wake: Callable[[], None],
        limit: int = 4096,
        limit_bytes: int = 4 * 2**20,
        limit_replay: int = 10_000,
    ) -> None:
        self._wake, self._limit, self._limit_bytes, self._limit_replay = wake, limit, limit_bytes, limit_replay
        self._items: collections.deque[Entry | collections.deque[Entry]] = collections.deque()
        self._bytes = self._replaying = 0
        self.slow = False
        self.since: dict[str, model.Position] = {}

    @property
    def pending(self) -> bool:
        """Whether there is something to take."""
        return bool(self._items)

    def offer(self, entry: Entry) -> None:
        """Queue ``entry`` behind everything else; never waits, never raises."""
        items = self._items
        if items:
            if len(items) >= self._limit or self._bytes + entry.size > self._limit_bytes:
                self._give_up()
                return
            items.append(entry)
            self._bytes += entry.size
        elif not self.slow:
            items.append(entry)
            self._bytes += entry.size
            self._wake()

    def replay(self, entries: Sequence[Entry]) -> None:
        """Queue ``entries``, which are in the ring and so bounded already, as one item."""
        if self._replaying > self._limit_replay:
            self._give_up()
        if not entries or self.slow:
            return
        idle = not self._items
        self._items.append(collections.deque(entries))
        self._replaying += len(entries)
        if idle:
            self._wake()

    def take(self, count: int, size: int) -> list[Entry]:
        """The oldest entries, at most ``count``, and no more once they hold ``size`` bytes."""
        taken: list[Entry] = []
        items = self._items
        while items and len(taken) < count and size > 0:
            entry = items[0]
            if isinstance(entry, Entry):
                items.popleft()
                self._bytes -= entry.size
            else:
                entry = self._replayed(entry)
            taken.append(entry)
            size -= entry.size
        return taken

    def _replayed(self, replay: collections.deque[Entry]) -> Entry:
        entry = replay.popleft()
        self._replaying -= 1
        if not replay:
            self._items.popleft()
        return entry

    def _give_up(self) -> None:
        self.slow = True
        self._items.clear()
        self._bytes = self._replaying = 0
        self._wake()
