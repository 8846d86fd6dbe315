"""Kafka that may come late, go away and come back, behind one face that always takes events and always shows them.

Each event is first written to the spool, then sent, then acknowledged there: whatever has a number is on disk until it
is on the topic. While the cluster answers, dashboards are fed from what is consumed back; while it does not, from the
events themselves. What was shown is not shown again when it arrives from the topic later.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

from regstream import broker, errors, model
from regstream.broker import kafka, machine, order, spool

CHUNK = 2_000
LIMIT = 20_000
ACK_SECONDS = 2.0
PROBE_SECONDS = 2.0
RETRY_SECONDS = 1.0
REWIND = 1_000
MARGIN = 200
MOST_BACK = 64 * REWIND
_log = logging.getLogger(__name__)

Connect = Callable[[Mapping[kafka.Place, int]], kafka.KafkaBroker]


class FailoverBroker:
    """Meets what the engine asks of a broker, whatever the cluster does.

    ``connect`` makes an unconnected ``KafkaBroker`` that begins to consume at given offsets; ``tick`` gives seconds of
    a steady clock; ``changed`` is told of each change of state. Full: ``publish`` waits while ``LIMIT`` events wait
    for a cluster that answers; what waits for one that does not is bounded by the spool.
    """

    def __init__(
        self,
        connect: Connect,
        outbox: spool.Spool,
        tick: Callable[[], float],
        changed: Callable[[str, str, str], None],
    ) -> None:
        self._connect = connect
        self._spool = outbox
        self._tick = tick
        self._machine = machine.Machine(lambda *change: self._tell(changed, *change))
        self._order = order.Order()
        self._connection: kafka.KafkaBroker | None = None
        self._kafka: kafka.KafkaBroker | None = None
        self._topics: dict[str, int] = {}
        self._replication = 1
        self._primed: set[str] = set()
        self._past: dict[str, list[model.Event]] = {}
        self._spooled: dict[str, collections.deque[model.Event]] = {}
        self._newest: dict[str, model.Position] = {}
        self._topic_of: dict[str, str] = {}
        self._offsets: dict[kafka.Place, int] = {}
        self._pending: collections.deque[tuple[int, Sequence[model.Event]]] = collections.deque()
        self._waiting = 0
        self._doubt = 0
        self._dropped: collections.Counter[str] = collections.Counter()
        self._unseen: collections.deque[model.Event] = collections.deque(maxlen=5 * LIMIT)
        self._out: collections.deque[model.Event] = collections.deque()
        self._wake = {name: asyncio.Event() for name in ("pending", "room", "out", "settled", "declared")}
        self._supervisor: asyncio.Task[None] | None = None
        self._closed = False
        self._produced = self._consumed = self._errors = self._lag = self._foreign = 0

    @property
    def status(self) -> broker.Status:
        """See ``broker.Broker``; ``waiting`` counts the events in the spool."""
        current = self._machine
        return broker.Status(
            "kafka",
            "closed" if self._closed else str(current.state),
            not current.reachable,
            self._produced,
            self._consumed,
            self._errors,
            current.reason,
            waiting=0 if self._closed else self._spool.waiting,
            lag=self._lag,
            foreign=self._foreign,
            skipped=self._order.skipped,
            dropped=dict(self._dropped),
        )

    def _tell(self, changed: Callable[[str, str, str], None], before: str, after: str, reason: str) -> None:
        level = logging.WARNING if after == machine.State.FALLBACK else logging.INFO
        _log.log(level, "broker %s%s", after, f": {reason}" if reason else "")
        changed(str(before), str(after), reason)

    # Start and stop

    async def start(self) -> None:
        """Begin to connect; returns when that has succeeded or failed once, which takes a few seconds at most.

        Raises StartError when the spool cannot be used.
        """
        self._spool.open()
        # Of a daemon that was killed nobody knows how much of this it had under way
        self._doubt = min(2 * CHUNK, self._spool.waiting)
        for chunk in self._spool.unacknowledged(CHUNK):
            for event in chunk.events:
                self._spooled.setdefault(event.head.stream, collections.deque(maxlen=REWIND)).append(event)
        self._supervisor = asyncio.create_task(self._supervise(), name="broker-supervisor")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake["settled"].wait(), kafka.CONNECT_SECONDS + 0.5)

    async def close(self) -> None:
        """See ``broker.Broker``: what was accepted is sent and shown, for a bounded time; the rest stays on disk."""
        if self._closed:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._flush(), ACK_SECONDS)
        self._closed = True
        for event in self._wake.values():
            event.set()
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        if self._connection is not None:
            await self._connection.abandon()
        self._show(itertools.chain.from_iterable(self._order.offer(one, self._tick()) for one in self._unseen))
        self._spool.close()

    async def _flush(self) -> None:
        while self._machine.state is machine.State.LIVE and (self._pending or self._unseen):
            self._wake["room"].clear()
            await self._wake["room"].wait()

    # What the engine asks

    async def declare(self, topics: Mapping[str, int], replication: int = 1) -> None:
        """See ``broker.Broker``; while the cluster is away the topics are remembered and made when it is back."""
        self._topics.update(topics)
        self._replication = replication
        try:
            if self._kafka is not None:
                await self._kafka.declare(topics, replication)
            await self._prime(self._kafka)
        except errors.BrokerError as error:
            # One with a cause is about the connection; without, the cluster has refused
            if error.__cause__ is None:
                raise
            _log.warning("topics are made when the broker is back: %s", error)
            await self._prime(None)
        finally:
            self._wake["declared"].set()

    def position(self, stream: str) -> model.Position | None:
        """See ``broker.Broker``."""
        return self._newest.get(stream)

    def past(self, stream: str) -> list[model.Event]:
        """See ``broker.Broker``."""
        return self._past.pop(stream, [])

    async def history(self, stream: str, after: model.Position, before: int) -> list[model.Event] | None:
        """See ``broker.Broker``."""
        if self._kafka is None or not self._machine.reachable:
            return None
        topic = self._topic_of.get(stream)
        try:
            return None if topic is None else await self._look_back(self._kafka, topic, after, stream, before)
        except errors.BrokerError:
            return None

    async def publish(self, events: Sequence[model.Event]) -> None:
        """See ``broker.Broker``."""
        if self._closed:
            self._errors += len(events)
            raise errors.BrokerError("the broker is closed", len(events), tuple(events))
        if not events:
            return
        kept = self._spool.append(events)
        self._produced += len(events)
        self._note(events[-1])
        if self._machine.state is not machine.State.LIVE:
            self._count(kept.lost)
            self._show_all(events)
            return
        self._pending.append((kept.last, events))
        self._waiting += len(events)
        self._unseen.extend(events)
        self._wake["pending"].set()
        while self._waiting > LIMIT and not self._closed:
            self._wake["room"].clear()
            await self._wake["room"].wait()

    def _count(self, lost: Iterable[spool.Loss]) -> None:
        for one in lost:
            if one.stream not in self._dropped:
                _log.error("the spool is full or cannot be written: events of %s are lost", one.stream)
            self._dropped[one.stream] += one.events

    async def consume(self) -> AsyncIterator[list[broker.Record]]:
        """See ``broker.Broker``: each stream in the order of its numbers, each event once.

        Partition and offset are -1: dashboards do not care where an event came from.
        """
        while True:
            while not self._out and not self._closed:
                self._wake["out"].clear()
                await self._wake["out"].wait()
            if not self._out:
                return
            taken = [self._out.popleft() for _ in range(min(500, len(self._out)))]
            self._consumed += len(taken)
            self._wake["room"].set()
            yield [broker.Record(event, event.head.topic, -1, -1) for event in taken]

    # Showing

    def _show(self, events: Iterable[model.Event]) -> None:
        self._out.extend(events)
        self._wake["out"].set()

    def _show_all(self, events: Iterable[model.Event]) -> None:
        now = self._tick()
        self._show(one for event in events for one in self._order.offer(event, now))

    def _note(self, event: model.Event) -> None:
        """Remember the newest position of a stream."""
        stream, position = event.head.stream, event.position
        if position > self._newest.get(stream, ("", 0)):
            self._newest[stream] = position
        self._topic_of[stream] = event.head.topic

    # The connection

    async def _supervise(self) -> None:
        while True:
            one = self._connection = self._connect(self._offsets)
            try:
                await self._use(one)
            except errors.BrokerError as error:
                self._fall(error.reason)
            except Exception as error:
                # Whatever it is, the daemon outlives it: the next connection begins anew
                _log.exception("the connection to the broker failed")
                self._fall(f"{type(error).__name__}: {error}")
            finally:
                self._kafka = None
                self._offsets.update(one.positions)
                self._foreign += one.foreign
            self._wake["settled"].set()
            await one.abandon()
            await asyncio.sleep(RETRY_SECONDS)

    async def _use(self, one: kafka.KafkaBroker) -> None:
        """Connect and serve until the connection is lost, which raises BrokerError."""
        await one.start()
        await one.declare(self._topics, self._replication)
        self._kafka = one
        await self._prime(one)
        self._machine.take(machine.Signal.CONNECTED)
        self._wake["settled"].set()
        await self._serve(one)

    async def _serve(self, one: kafka.KafkaBroker) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(one), name="broker-reader")
                group.create_task(self._send(one), name="broker-sender")
                group.create_task(self._probe(one), name="broker-probe")
        except ExceptionGroup as lost:
            # What else went wrong is more than a lost connection, and must be told
            raise next((one for one in lost.exceptions if not _is_loss(one)), lost.exceptions[0]) from None

    def _fall(self, reason: str) -> None:
        """The cluster is away: show what did not come back from it; the spool keeps what was not acknowledged."""
        self._machine.take(machine.Signal.LOST, reason)
        self._show_unseen()
        self._pending.clear()
        self._waiting = 0
        self._wake["room"].set()

    def _show_unseen(self) -> None:
        """Show what was published and did not come back yet; when it does, it is not shown again."""
        self._show_all(self._unseen)
        self._unseen.clear()

    async def _read(self, one: kafka.KafkaBroker) -> None:
        async for records in one.consume():
            self._show_all(record.event for record in records)
            self._seen()
            while len(self._out) > LIMIT:
                self._wake["room"].clear()
                await self._wake["room"].wait()

    def _seen(self) -> None:
        while self._unseen:
            head = self._unseen[0]
            shown = self._order.position(head.head.stream)
            if shown is None or shown < head.position:
                return
            self._unseen.popleft()
        self._wake["room"].set()

    async def _probe(self, one: kafka.KafkaBroker) -> None:
        while True:
            oldest = self._unseen[0] if self._unseen else None
            await asyncio.sleep(PROBE_SECONDS)
            if oldest is not None and self._unseen and self._unseen[0] is oldest:
                # It does not come back, though the cluster answers: a partition has no leader, or is far behind
                self._show_unseen()
            self._show(self._order.expire(self._tick()))
            await one.probe()
            self._lag = await one.lag()

    async def _send(self, one: kafka.KafkaBroker) -> None:
        # Before that, nobody has said how many partitions a missing topic shall have
        await self._wake["declared"].wait()
        await self._drain(one)
        # No await between the last look into the spool and this: what is published from now on is pending
        self._machine.take(machine.Signal.DRAINED)
        while True:
            while not self._pending:
                self._wake["pending"].clear()
                await self._wake["pending"].wait()
            upto, chunk = self._take()
            self._spool.hold(upto)
            await self._deliver(one, chunk)
            self._spool.acknowledge(upto)
            self._wake["room"].set()

    def _take(self) -> tuple[int, list[model.Event]]:
        """The next events to send, with the mark of the last."""
        chunk: list[model.Event] = []
        upto = 0
        while self._pending and len(chunk) < CHUNK:
            upto, events = self._pending.popleft()
            chunk += events
        self._waiting -= len(chunk)
        return upto, chunk

    async def _deliver(self, one: kafka.KafkaBroker, events: Sequence[model.Event]) -> None:
        self._doubt = len(events)
        try:
            async with asyncio.timeout(ACK_SECONDS):
                await self._make(one, {event.head.topic for event in events})
                await one.publish(events)
        except TimeoutError:
            raise errors.BrokerError(f"no acknowledgement within {ACK_SECONDS:g} s") from None
        self._doubt = 0

    async def _make(self, one: kafka.KafkaBroker, topics: set[str]) -> None:
        """Topics that the connection does not know yet; one that is of no stream any more is made like the others."""
        usual = max(self._topics.values(), default=1)
        await one.declare({topic: self._topics.get(topic, usual) for topic in topics}, self._replication)

    async def _drain(self, one: kafka.KafkaBroker) -> None:
        """Send what waits in the spool, in order; a send that was in doubt is looked up before it is repeated."""
        landed: set[tuple[str, str, int]] | None = None
        for upto, events in self._spool.unacknowledged(CHUNK):
            if landed is None:
                landed = await self._landed(one, events)
            self._spool.hold(upto)
            await self._deliver(one, [event for event in events if _name(event) not in landed])
            self._spool.acknowledge(upto)

    async def _landed(self, one: kafka.KafkaBroker, chunk: Sequence[model.Event]) -> set[tuple[str, str, int]]:
        """What is on the topics already of a send that was not acknowledged: only one is ever under way.

        It may reach beyond ``chunk``, into topics that are not in there.
        """
        if not self._doubt:
            return set()
        topics = {event.head.topic for event in chunk} | set(self._topics)
        await self._make(one, topics)
        return {_name(record.event) for record in await one.tail(topics, self._doubt + MARGIN)}

    # The past

    async def _prime(self, one: kafka.KafkaBroker | None) -> None:
        """Find out where streams stand, and what dashboards can begin with.

        It is read from the ends of topics that were not read yet, and from what an earlier daemon left in the spool.
        """
        topics = [topic for topic in self._topics if topic not in self._primed]
        if not topics:
            return
        by_stream: dict[str, list[model.Event]] = {}
        for record in await one.tail(topics, REWIND) if one is not None else []:
            by_stream.setdefault(record.event.head.stream, []).append(record.event)
        if one is not None:
            self._primed.update(topics)
        for stream in {*by_stream, *self._spooled}:
            self._begin(stream, [*by_stream.get(stream, []), *self._spooled.pop(stream, [])])

    def _begin(self, stream: str, found: list[model.Event]) -> None:
        if self._order.position(stream) is None:
            for event in found:
                self._note(event)
            whole = order.whole_suffix(found)
            self._order.begin(stream, whole[-1].position)
            self._past[stream] = whole

    async def _look_back(
        self, one: kafka.KafkaBroker, topic: str, after: model.Position, stream: str, before: int
    ) -> list[model.Event] | None:
        newest = self._newest.get(stream, after)
        # So many are enough unless the topic has other streams, or other numberings, too
        count = max(before, newest.seq if newest.epoch == after.epoch else 0) - after.seq + MARGIN
        while count <= MOST_BACK:
            records = await one.tail([topic], count)
            found = order.run_after(after, (one.event for one in records if one.event.head.stream == stream))
            if len(found) >= before - after.seq - 1:
                return found
            count *= 4
        return None


def _is_loss(error: Exception) -> bool:
    return isinstance(error, errors.BrokerError)


def _name(event: model.Event) -> tuple[str, str, int]:
    return event.head.stream, event.head.epoch, event.seq
