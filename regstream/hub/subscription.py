"""What a subscription brings before live: the plan of it, made in one turn from what the rings hold."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from regstream import spec
from regstream.event import Position
from regstream.hub import ring
from regstream.hub.delivery import ANY, DeliveryOptions
from regstream.hub.frame import Entry


class SubscriptionRequest(NamedTuple):
    """What is asked for at subscribe.

    A stream that ``after`` names is replayed behind that position, whole and in order, or not at all. Of the other
    streams, the newest ``rewind`` events of each channel are replayed. With ``snapshot``, the newest event of each key
    comes besides, of every stream that was not recovered. Names in ``after`` that are not on the channels mean nothing.
    ``wish`` is how the events of these channels are to be delivered.
    """

    channels: Sequence[str]
    after: Mapping[str, Position] = {}
    rewind: int = 0
    snapshot: bool = False
    wish: DeliveryOptions = ANY


class SubscriptionPlan:
    """The answer to a request, and the entries that come before live.

    ``since`` says for each stream that is new to the subscriber from where on it has everything.
    """

    def __init__(self, request: SubscriptionRequest) -> None:
        self._request = request
        self._replay: dict[Entry, None] = {}
        self._new: list[ring.StreamRing] = []
        self.answer: dict[str, ring.Subscribed] = {}
        self.since: dict[str, Position] = {}

    @property
    def replay(self) -> list[Entry]:
        """What comes before live, each once, in the order in which it was shown."""
        return sorted(self._replay, key=lambda entry: entry.order)

    def follows(self, stream: ring.StreamRing, since: Position | None) -> None:
        """A stream that the subscriber follows already, from ``since`` on: nothing of it is sent again."""
        answer = stream.followed(since, self._request.after.get(stream.name))
        self.answer[stream.name] = answer._replace(snapshot=0) if self._request.snapshot else answer

    def joins(self, stream: ring.StreamRing, older: Sequence[Entry]) -> None:
        """A stream that the subscriber does not follow yet; ``older`` is what a longer memory holds of it."""
        position = self._request.after.get(stream.name)
        if position is None:
            self._new.append(stream)
            return
        found, answer = stream.recover(position, older)
        self._replay.update(dict.fromkeys(found))
        self.since[stream.name] = Position(stream.epoch, stream.last - len(found))
        self.answer[stream.name] = self._with_snapshot(stream, answer)

    def finish(self, system: Iterable[Entry]) -> None:
        """Add what is asked for of the streams without a position, and the newest of ``system``, newest first."""
        self._replay.update(dict.fromkeys(itertools.islice(system, self._request.rewind)))
        rewound = dict.fromkeys(self._rewound())
        self._replay.update(rewound)
        counted = collections.Counter(entry.head.stream for entry in rewound if entry.head)
        for stream in self._new:
            back = counted[stream.name]
            start = max(stream.held, stream.last - back)
            self.since[stream.name] = Position(stream.epoch, start)
            answer = ring.Subscribed(stream.epoch, stream.last, False, back)
            self.answer[stream.name] = self._with_snapshot(stream, answer)

    def _rewound(self) -> Iterator[Entry]:
        for name in self._request.channels:
            channel = [one for one in self._new if name in (spec.ALL_CHANNEL, one.name, one.type)]
            yield from itertools.islice(ring.newest(channel), self._request.rewind)

    def _with_snapshot(self, stream: ring.StreamRing, answer: ring.Subscribed) -> ring.Subscribed:
        if not self._request.snapshot:
            return answer
        before = len(self._replay)
        if not answer.recovered:
            self._replay.update(dict.fromkeys(stream.newest.values()))
        return answer._replace(snapshot=len(self._replay) - before)
