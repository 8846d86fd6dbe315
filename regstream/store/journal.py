"""What is kept besides events: control calls, what events changed of entity rows, the seed.

They go through the spool like events do, as those of streams whose names no stream may have, so that they outlive the
process and wait for a database that is away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import orjson

from regstream import spec
from regstream.event import Event, Head, rfc3339
from regstream.store import audit

AUDIT, ENTITIES, SEED = "/audit", "/entities", "/seed"
KINDS = frozenset({AUDIT, ENTITIES, SEED})
REGION = ""


class JournalEntries(NamedTuple):
    """A chunk of the spool, taken apart. ``states`` has by entity and key the last of what was noted.

    ``unreadable`` says which notes have bytes that nobody understands, and why.
    """

    events: Sequence[Event]
    controls: list[tuple[str, audit.Control]]
    states: dict[tuple[str, str], dict[str, Any]]
    seeds: list[int]
    unreadable: list[str]

    @property
    def notes(self) -> int:
        """How many rows are to be written besides events."""
        return len(self.controls) + len(self.states) + len(self.seeds)


class Journal:
    """Makes notes, numbered within ``epoch``; ``now`` gives seconds since 1970."""

    def __init__(self, epoch: str, now: Callable[[], float]) -> None:
        self._epoch, self._now = epoch, now
        self._seqs = dict.fromkeys(KINDS, 0)

    def write(self, kind: str, value: bytes) -> Event:
        """A note of that kind, the last of all so far."""
        self._seqs[kind] += 1
        time = rfc3339(self._now())
        # What has no priority over streams' events would be the first to go when the disk is full
        head = Head(kind, self._epoch, kind, "", spec.Priority.CRITICAL, time, REGION)
        return Event(head, self._seqs[kind], None, value)


def sort(events: Sequence[Event]) -> JournalEntries:
    """Notes by their kind, and the events that are none."""
    if not any(event.head.stream in KINDS for event in events):
        return JournalEntries(events, [], {}, [], [])
    notes = [event for event in events if event.head.stream in KINDS]
    found = JournalEntries([event for event in events if event.head.stream not in KINDS], [], {}, [], [])
    for note in notes:
        try:
            _sort(note, found)
        except (ValueError, TypeError, AttributeError) as error:
            found.unreadable.append(f"note {note.id}: {error}")
    return found


def _sort(note: Event, found: JournalEntries) -> None:
    if note.head.stream == AUDIT:
        found.controls.append((f"{note.head.epoch}-{note.seq:010d}", audit.unpack(note.value)))
    elif note.head.stream == SEED:
        found.seeds.append(int(note.value))
    else:
        for entity, rows in orjson.loads(note.value).items():
            found.states.update({(entity, key): state for key, state in rows.items()})
