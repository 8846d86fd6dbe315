"""Back into order: the events of a stream come from several partitions, and dashboards get them by their numbers.

Kafka keeps the order of a partition, and a stream whose events have different keys lies on several of them. What comes
ahead of its turn waits here for what is missing, for a bounded time and in bounded number; then the gap is given up and
counted, never silently.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from regstream import model

PATIENCE = 3.0
MAX_HELD = 20_000


class _Line:
    """One stream: the last number that was let through, and what waits ahead of its turn."""

    def __init__(self, epoch: str, last: int) -> None:
        self.epoch = epoch
        self.last = last
        self.held: dict[int, model.Event] = {}
        self.since = 0.0

    def run(self) -> list[model.Event]:
        """What is next in turn, as far as it is here."""
        found = []
        while (event := self.held.pop(self.last + 1, None)) is not None:
            self.last += 1
            found.append(event)
        return found


class Order:
    """Lets each event through once and in its turn. A numbering whose epoch is older than the one in force is past."""

    def __init__(self) -> None:
        self.doubled = 0
        self.skipped = 0
        self._lines: dict[str, _Line] = {}
        self._held = 0

    def position(self, stream: str) -> model.Position | None:
        """The last event of a stream that was let through; None when none was."""
        line = self._lines.get(stream)
        return None if line is None else model.Position(line.epoch, line.last)

    def begin(self, stream: str, position: model.Position) -> None:
        """Say where a stream stands that nothing is known of; one that is known stays as it is."""
        self._lines.setdefault(stream, _Line(*position))

    def offer(self, event: model.Event, now: float) -> list[model.Event]:
        """Take an event in; gives what may be shown now, in order. ``now`` is in seconds of any clock."""
        line = self._line(event)
        if line is None or event.seq <= line.last or event.seq in line.held:
            self.doubled += 1
            return []
        if event.seq == line.last + 1 and not line.held:
            line.last = event.seq
            return [event]
        if not line.held:
            line.since = now
        line.held[event.seq] = event
        found = line.run()
        self._held += 1 - len(found)
        if found:
            line.since = now
        return found + (self.expire(now, self._held > MAX_HELD) if self._held > MAX_HELD else [])

    def _line(self, event: model.Event) -> _Line | None:
        head = event.head
        line = self._lines.get(head.stream)
        if line is None or head.epoch > line.epoch:
            # Names of epochs sort by time, and each numbering begins with 1
            if line is not None:
                self._held -= len(line.held)
                self.skipped += len(line.held)
            line = self._lines[head.stream] = _Line(head.epoch, 0)
        return line if head.epoch == line.epoch else None

    def expire(self, now: float, at_once: bool = False) -> list[model.Event]:
        """Give up gaps that have waited for ``PATIENCE``, or all of them ``at_once``; gives what may be shown then."""
        found: list[model.Event] = []
        for line in self._lines.values():
            if line.held and (at_once or now - line.since >= PATIENCE):
                first = min(line.held)
                self.skipped += first - line.last - 1
                line.last = first - 1
                run = line.run()
                self._held -= len(run)
                line.since = now
                found += run
        return found


def whole_suffix(events: Iterable[model.Event]) -> list[model.Event]:
    """The newest events of one stream without a gap between them, in order: those of its newest epoch, each once."""
    found = list(events)
    if not found:
        return []
    epoch = max(event.head.epoch for event in found)
    by_seq = {event.seq: event for event in found if event.head.epoch == epoch}
    seq = max(by_seq)
    made = []
    while seq in by_seq:
        made.append(by_seq[seq])
        seq -= 1
    return made[::-1]


def run_after(position: model.Position, events: Iterable[model.Event]) -> list[model.Event]:
    """The events of one stream that follow a position without a gap, in order and each once."""
    by_seq = {event.seq: event for event in events if event.head.epoch == position.epoch}
    return [by_seq[seq] for seq in itertools.takewhile(by_seq.__contains__, itertools.count(position.seq + 1))]
