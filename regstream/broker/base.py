"""The broker: it takes events and gives them back in order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from regstream.event import Event, Position

KEYS = ("utf-8", "surrogatepass")
"""How keys are written. One is any text that somebody made; whatever it is, writing it down must not fail."""


class Record(NamedTuple):
    """An event, and where the broker put it. ``partition`` and ``offset`` count from 0."""

    event: Event
    topic: str
    partition: int
    offset: int


class BrokerStatus(NamedTuple):
    """How the broker is.

    ``kind`` is ``simulated`` or ``kafka``, ``state`` one of ``new``, ``live``, ``closed`` (other forms may have more),
    ``produced`` and ``consumed`` count events since start, ``errors`` those that were refused or lost, ``reason`` says
    in a few words why the state is what it is (empty when there is nothing to say). ``waiting`` events in
    ``waiting_bytes`` are on disk for a broker that is away, ``lag`` were not consumed yet, ``foreign`` on the topics
    are none of ours, ``skipped`` numbers never came, and of ``dropped`` streams so many events were given up because
    the disk space was.
    """

    kind: str
    state: str
    simulation: bool
    produced: int
    consumed: int
    errors: int
    reason: str
    waiting: int = 0
    lag: int = 0
    foreign: int = 0
    skipped: int = 0
    dropped: Mapping[str, int] = {}
    waiting_bytes: int = 0


class Broker(Protocol):
    """What the engine asks of a broker; see the module for what holds across its methods."""

    @property
    def status(self) -> BrokerStatus:
        """Counts and state at this moment; cheap, never awaits."""

    async def declare(
        self,
        topics: Mapping[str, int],
        replication: int = 1,
        streams: Mapping[str, str] | None = None,
        batch_bytes: int | None = None,
    ) -> None:
        """Create topics that are missing, with their number of partitions; one that exists is used as it is.

        ``streams`` says which stream is on which topic, so that ``position`` and ``past`` know of them. ``batch_bytes``
        is how much is sent at once from now on, at most. Raises BrokerError when one cannot be made.
        """

    def position(self, stream: str) -> Position | None:
        """Where a stream of a declared topic stands, so that its numbering can go on; None when nothing is known."""

    def past(self, stream: str) -> list[Event]:
        """The newest events of a stream from before this start, without a gap, in order; given out once."""

    async def history(self, stream: str, after: Position, before: int) -> list[Event] | None:
        """The events of a stream after a position, in order, without a gap and as far as they are held.

        None when they do not reach up to the number ``before``, which itself is not asked for.
        """

    async def start(self) -> None:
        """Connect; a broker is started once. Raises BrokerError when that cannot be done."""

    async def publish(self, events: Sequence[Event]) -> None:
        """Hand over events, in order; returns when all are accepted, and waits while the broker is full.

        Raises BrokerError when the broker is not live or closes meanwhile; its ``count`` is the number of events, from
        the end of ``events``, that were not accepted. A call that is cancelled may have handed over the first of them.
        """

    def consume(self) -> AsyncIterator[list[Record]]:
        """Everything published since start, in batches that are never empty; ends after ``close``.

        There is one consumer: a second one at the same time raises BrokerError on its first step.
        """

    async def close(self) -> None:
        """Accept nothing more, and let ``consume`` end once it has given out what was accepted; may be called twice.

        It does not wait for the consumer: await the task that consumes.
        """


class StatelessBroker:
    """What a broker says that knows nothing from before its start."""

    def position(self, stream: str) -> Position | None:
        """See ``Broker``."""
        return None

    def past(self, stream: str) -> list[Event]:
        """See ``Broker``."""
        return []

    async def history(self, stream: str, after: Position, before: int) -> list[Event] | None:
        """See ``Broker``."""
        return None
