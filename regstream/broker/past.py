"""What is known of streams from before: where they stand, and their newest events, for those who begin with them."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping

from regstream import broker, errors, model
from regstream.broker import kafka, order

REWIND = 1_000
DEEPEST = 64 * REWIND


class Past:
    """Read from the ends of topics and from what an earlier daemon left in its spool; ``line`` is told where to begin.

    Of each partition the last ``REWIND`` messages are read, and further back, up to ``DEEPEST``, for streams that are
    not among them.
    """

    def __init__(self, line: order.Order) -> None:
        self._order = line
        self._read: set[str] = set()
        self._sought: set[str] = set()
        self._denied: set[str] = set()
        self._found: dict[str, list[model.Event]] = {}
        self._left: dict[str, collections.deque[model.Event]] = {}
        self._newest: dict[str, model.Position] = {}
        self._topics: dict[str, str] = {}

    def leave(self, events: Iterable[model.Event]) -> None:
        """Take in what an earlier daemon left in its spool."""
        for event in events:
            self._left.setdefault(event.head.stream, collections.deque(maxlen=REWIND)).append(event)

    def stand(self, positions: Mapping[str, model.Position]) -> None:
        """Take in where streams stood: numbers up to there were used, even if their events are nowhere any more."""
        self._newest.update(positions)

    def note(self, event: model.Event) -> None:
        """Remember where a stream stands."""
        stream, position = event.head.stream, event.position
        if position > self._newest.get(stream, ("", 0)):
            self._newest[stream] = position
        self._topics[stream] = event.head.topic

    def position(self, stream: str) -> model.Position | None:
        """Where a stream stands, None when nothing is known of it."""
        return self._newest.get(stream)

    def topic(self, stream: str) -> str | None:
        """The topic on which a stream was seen last, None when nothing is known of it."""
        return self._topics.get(stream)

    def take(self, stream: str) -> list[model.Event]:
        """The newest events of a stream without a gap, in order; given out once. From now on it goes on."""
        if stream in self._newest:
            # When there is nothing to begin with, what comes next is still in turn
            self._order.begin(stream, self._newest[stream])
        return self._found.pop(stream, [])

    def take_all(self) -> list[model.Event]:
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

        def wanted(event: model.Event) -> bool:
            return event.head.stream in sought

        while sought and count < DEEPEST and not whole:
            count *= 4
            records, whole = await one.look_back({streams[name] for name in sought}, count, wanted)
            self._begin(records, ())
            sought.difference_update(self._topics)
        self._sought.update(streams)

    def _begin(self, records: Iterable[broker.Record], left: Iterable[str]) -> None:
        found: dict[str, list[model.Event]] = {}
        for record in records:
            found.setdefault(record.event.head.stream, []).append(record.event)
        for stream in {*found, *left}:
            self._begin_one(stream, [*found.get(stream, []), *self._left.pop(stream, [])])

    def _begin_one(self, stream: str, events: list[model.Event]) -> None:
        if self._order.position(stream) is None and events:
            for event in events:
                self.note(event)
            whole = order.whole_suffix(events)
            self._order.begin(stream, self._newest[stream])
            self._found[stream] = whole[-REWIND:]
