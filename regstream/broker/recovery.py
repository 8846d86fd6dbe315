"""What is known of streams from before: where they stand, and their newest events, for those who begin with them."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from regstream import broker, errors, spec
from regstream.broker import kafka, resequencer, spool
from regstream.event import Event, Head, Position, rfc3339
from regstream.generator import persistence

REWIND = 1_000
DEEPEST = 64 * REWIND


class RecoveredStreams:
    """Read from the ends of topics and from what an earlier daemon left in its spool; ``line`` is told where to begin.

    Of each partition the last ``REWIND`` messages are read, and further back, up to ``DEEPEST``, for streams that are
    not among them.
    """

    def __init__(self, line: resequencer.Resequencer) -> None:
        self._order = line
        self._read: set[str] = set()
        self._sought: set[str] = set()
        self._denied: set[str] = set()
        self._found: dict[str, list[Event]] = {}
        self._left: dict[str, collections.deque[Event]] = {}
        self._newest: dict[str, Position] = {}
        self._topics: dict[str, str] = {}

    def leave(self, events: Iterable[Event]) -> None:
        """Take in what an earlier daemon left in its spool."""
        for event in events:
            self._left.setdefault(event.head.stream, collections.deque(maxlen=REWIND)).append(event)

    def stand(self, positions: Mapping[str, Position]) -> None:
        """Take in where streams stood: numbers up to there were used, even if their events are nowhere any more."""
        self._newest.update(positions)

    def note(self, event: Event) -> None:
        """Remember where a stream stands."""
        stream, position = event.head.stream, event.position
        if position > self._newest.get(stream, ("", 0)):
            self._newest[stream] = position
        self._topics[stream] = event.head.topic

    def position(self, stream: str) -> Position | None:
        """Where a stream stands, None when nothing is known of it."""
        return self._newest.get(stream)

    def topic(self, stream: str) -> str | None:
        """The topic on which a stream was seen last, None when nothing is known of it."""
        return self._topics.get(stream)

    def take(self, stream: str) -> list[Event]:
        """The newest events of a stream without a gap, in order; given out once. From now on it goes on."""
        if stream in self._newest:
            # When there is nothing to begin with, what comes next is still in turn
            self._order.begin(stream, self._newest[stream])
        return self._found.pop(stream, [])

    def take_all(self) -> list[Event]:
        """Those of all streams that nobody took."""
        found, self._found = self._found, {}
        return [event for events in found.values() for event in events]

    async def read(
        self, one: kafka.KafkaBroker | None, topics: Iterable[str], streams: Mapping[str, str] | None = None
    ) -> None:
        """Read topics that were not read yet, and look for ``streams`` (each with its topic) that nothing is known of.

        Without a connection there is only what was left. Raises BrokerError.
        """
        if one is None:
            self._begin([], list(self._left))
            return
        fresh = [topic for topic in topics if topic not in self._read]
        left = [stream for stream, events in self._left.items() if events[0].head.topic in fresh]
        self._begin(await self._tail(one, fresh), left)
        self._read.update(fresh)
        await self._seek(one, streams or {})

    async def _tail(self, one: kafka.KafkaBroker, topics: list[str]) -> list[broker.Record]:
        while True:
            try:
                return await one.tail([topic for topic in topics if topic not in self._denied], REWIND)
            except errors.BrokerError as error:
                # One that may not be read says nothing of the others
                if not error.topics.keys() - self._denied:
                    raise
                self._denied.update(error.topics)

    async def _seek(self, one: kafka.KafkaBroker, streams: Mapping[str, str]) -> None:
        """Look further back for those that a topic's busier streams have pushed out of its end."""
        count, whole = REWIND, False
        sought = {name for name, topic in streams.items() if name not in self._topics and topic not in self._denied}
        sought -= self._sought

        def wanted(event: Event) -> bool:
            return event.head.stream in sought

        while sought and count < DEEPEST and not whole:
            count *= 4
            records, whole = await one.look_back({streams[name] for name in sought}, count, wanted)
            self._begin(records, ())
            sought.difference_update(self._topics)
        self._sought.update(streams)

    def _begin(self, records: Iterable[broker.Record], left: Iterable[str]) -> None:
        found: dict[str, list[Event]] = {}
        for record in records:
            found.setdefault(record.event.head.stream, []).append(record.event)
        for stream in {*found, *left}:
            self._begin_one(stream, [*found.get(stream, []), *self._left.pop(stream, [])])

    def _begin_one(self, stream: str, events: list[Event]) -> None:
        if self._order.position(stream) is None and events:
            for event in events:
                self.note(event)
            whole = resequencer.whole_suffix(events)
            self._order.begin(stream, self._newest[stream])
            self._found[stream] = whole[-REWIND:]


LEAST = 1_000
DEEPEST_FIND = 64 * LEAST
MOST = 50_000
SECONDS = 10.0
# ``before`` is where a ring begins: what that holds is on the topic too
AHEAD = 1_000


@dataclasses.dataclass(eq=False)
class _Question:
    """The events of a stream behind a position, whole up to the number ``before``; ``answer`` once there is one."""

    topic: str
    stream: str
    after: Position
    before: int
    answered: bool = False
    answer: list[Event] | None = None

    @property
    def size(self) -> int:
        return self.before - self.after.seq

    def see(self, events: Iterable[Event]) -> bool:
        """Take the answer, if these have it."""
        found = resequencer.run_after(self.after, events)
        if len(found) >= self.size - 1:
            self.answer = found
        return self.answer is not None


class TopicHistory:
    """Looks back, once for all who ask meanwhile.

    When a daemon starts, its clients come back at the same moment and ask for each of their streams; one look after
    the other would keep the last of them waiting for longer than they do.
    """

    def __init__(self) -> None:
        self._questions: list[_Question] = []
        self._turn = asyncio.Lock()

    async def ask(
        self, one: kafka.KafkaBroker, topic: str, stream: str, after: Position, before: int
    ) -> list[Event] | None:
        """The events of a stream behind a position as far as they follow each other.

        None when those below the number ``before`` cannot be had whole in time.
        """
        question = _Question(topic, stream, after, before)
        if question.size > MOST:
            return None
        self._questions.append(question)
        try:
            async with asyncio.timeout(SECONDS), self._turn:
                # Whoever looked before may have brought this as well
                if not question.answered:
                    await _look(one, self._together(question))
        except (errors.BrokerError, TimeoutError):
            return None
        finally:
            self._questions.remove(question)
        return question.answer

    def _together(self, first: _Question) -> list[_Question]:
        """That question, and as many others as may be looked up with it."""
        found, room = [first], MOST - first.size
        for other in self._questions:
            if other is not first and not other.answered and other.size <= room:
                found.append(other)
                room -= other.size
        return found


async def _look(one: kafka.KafkaBroker, questions: list[_Question]) -> None:
    floors: dict[tuple[str, str], int] = {}
    for question in questions:
        key = (question.stream, question.after.epoch)
        floors[key] = min(question.after.seq, floors.get(key, question.after.seq))

    def wanted(event: Event) -> bool:
        floor = floors.get((event.head.stream, event.head.epoch))
        return floor is not None and event.seq > floor

    count, whole, left = max(LEAST, *(question.size for question in questions)) + AHEAD, False, questions
    while left and not whole:
        records, whole = await one.look_back({question.topic for question in left}, count, wanted)
        by_stream = _by_stream(records)
        left = [question for question in left if not question.see(by_stream.get(question.stream, ()))]
        count, whole = min(4 * count, DEEPEST_FIND), whole or count >= DEEPEST_FIND
    for question in questions:
        question.answered = True


def _by_stream(records: Iterable[broker.Record]) -> dict[str, list[Event]]:
    found: dict[str, list[Event]] = {}
    for record in records:
        found.setdefault(record.event.head.stream, []).append(record.event)
    return found


Rows = Mapping[str, Mapping[str, Any]]
LEAST_BYTES = 1024 * 1024
"""With fewer bytes of changes rows are not written down again."""
FACTOR = 4
CHUNK = 1_000
"""Rows of one note."""
_STREAM, _SEED = "/journal", "/seed"
_log = logging.getLogger("regstream.journal")


class LocalState:
    """Rows by entity and the text of their key; ``epoch`` names the notes of this run, ``now`` gives epoch seconds."""

    def __init__(self, kept: spool.Spool, epoch: str, now: Callable[[], float]) -> None:
        self._spool, self._epoch, self._now = kept, epoch, now
        self._rows = persistence.Remembered(_log)
        self._seq = self._written = self._whole = 0
        self._is_lossy = False

    def open(self) -> None:
        """Take in what an earlier run left. Raises StartError when the folder cannot be used."""
        self._spool.open()
        for chunk in self._spool.unacknowledged():
            for event in chunk.events:
                self._rows.read(event.value)
                self._written += len(event.value)

    def close(self) -> None:
        """Leave the folder to others; may be called twice."""
        self._spool.close()

    # What the engine asks

    def position(self, stream: str) -> Position | None:
        """None: the broker knows."""

    def past(self, stream: str) -> list[Event]:
        """None of them: the broker has them."""
        return []

    def seed(self, chosen: int) -> int:
        """That of the first start; it is ``chosen`` now, if there was none."""
        if not self._rows.rows(_SEED):
            self.keep({_SEED: {"": {"seed": chosen}}})
        return int(self._rows.rows(_SEED)[""]["seed"])

    def rows(self, entity: str) -> Rows:
        """By key what events had changed of its rows."""
        return self._rows.rows(entity)

    def keep(self, changes: Mapping[str, Rows]) -> None:
        """Remember rows as they are now; one that cannot be kept goes on from what it was before that."""
        self._append(changes)
        if self._written > max(LEAST_BYTES, FACTOR * self._whole):
            self._write_all()

    def _append(self, changes: Mapping[str, Rows]) -> None:
        value = self._rows.keep(changes)
        self._seq += 1
        head = Head(_STREAM, self._epoch, _STREAM, "", spec.Priority.CRITICAL, rfc3339(self._now()), "")
        kept = self._spool.append([Event(head, self._seq, None, value)])
        if kept.lost and not self._is_lossy:
            _log.error("rows will not be what they are after a restart: %s", self._spool.error or "the spool is full")
            self._is_lossy = True
        self._written += len(value)

    def _write_all(self) -> None:
        upto, self._written = self._spool.last, 0
        for changes in self._parts():
            self._append(changes)
        self._whole, self._written = self._written, 0
        # Should the process die before this, the rows are there twice, and the same
        self._spool.acknowledge(upto)

    def _parts(self) -> Iterator[Mapping[str, Rows]]:
        for entity, states in self._rows.all.items():
            keys = list(states)
            for first in range(0, len(keys), CHUNK):
                yield {entity: {key: states[key] for key in keys[first : first + CHUNK]}}
