"""What clients missed for longer than the rings remember, looked up on the topics."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterable

from regstream import broker, errors, model
from regstream.broker import kafka, order

LEAST = 1_000
DEEPEST = 64 * LEAST
MOST = 50_000
SECONDS = 10.0
# ``before`` is where a ring begins: what that holds is on the topic too
AHEAD = 1_000


@dataclasses.dataclass(eq=False)
class _Question:
    """The events of a stream behind a position, whole up to the number ``before``; ``answer`` once there is one."""

    topic: str
    stream: str
    after: model.Position
    before: int
    answered: bool = False
    answer: list[model.Event] | None = None

    @property
    def size(self) -> int:
        return self.before - self.after.seq

    def see(self, events: Iterable[model.Event]) -> bool:
        """Take the answer, if these have it."""
        found = order.run_after(self.after, events)
        if len(found) >= self.size - 1:
            self.answer = found
        return self.answer is not None


class History:
    """Looks back, once for all who ask meanwhile.

    When a daemon starts, its clients come back at the same moment and ask for each of their streams; one look after
    the other would keep the last of them waiting for longer than they do.
    """

    def __init__(self) -> None:
        self._questions: list[_Question] = []
        self._turn = asyncio.Lock()

    async def ask(
        self, one: kafka.KafkaBroker, topic: str, stream: str, after: model.Position, before: int
    ) -> list[model.Event] | None:
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

    def wanted(event: model.Event) -> bool:
        floor = floors.get((event.head.stream, event.head.epoch))
        return floor is not None and event.seq > floor

    count, whole, left = max(LEAST, *(question.size for question in questions)) + AHEAD, False, questions
    while left and not whole:
        records, whole = await one.look_back({question.topic for question in left}, count, wanted)
        by_stream = _by_stream(records)
        left = [question for question in left if not question.see(by_stream.get(question.stream, ()))]
        count, whole = min(4 * count, DEEPEST), whole or count >= DEEPEST
    for question in questions:
        question.answered = True


def _by_stream(records: Iterable[broker.Record]) -> dict[str, list[model.Event]]:
    found: dict[str, list[model.Event]] = {}
    for record in records:
        found.setdefault(record.event.head.stream, []).append(record.event)
    return found
