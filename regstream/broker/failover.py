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
from regstream.broker import kafka, machine, order, past, spool

CHUNK = 2_000
LIMIT = 20_000
ACK_SECONDS = 2.0
PROBE_SECONDS = 2.0
RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 10.0
SHORT_SECONDS = 10.0
FLUSH_SECONDS = 1.0
MARGIN = 200
_log = logging.getLogger(__name__)

Connect = Callable[[Mapping[kafka.Place, int]], kafka.KafkaBroker]


class FailoverBroker:
    """Meets what the engine asks of a broker, whatever the cluster does.

    ``connect`` makes an unconnected ``KafkaBroker`` that begins to consume at given offsets; ``tick`` gives seconds of
    a steady clock; ``changed`` is told of each change of state. Without an ``outbox`` it only reads. Full: ``publish``
    waits while ``LIMIT`` events wait for a cluster that answers; what waits for one that does not is bounded by the
    spool.
    """

    def __init__(
        self,
        connect: Connect,
        outbox: spool.Spool | None,
        tick: Callable[[], float],
        changed: Callable[[str, str, str], None],
    ) -> None:
        self._connect = connect
        self._spool = outbox
        self._tick = tick
        self._machine = machine.Machine(lambda *change: self._tell(changed, *change))
        self._order = order.Order()
        self._kafka: kafka.KafkaBroker | None = None
        self._topics: dict[str, int] = {}
        self._replication = 1
        self._past = past.Past(self._order)
        self._offsets: dict[kafka.Place, int] = {}
        self._pending: collections.deque[tuple[int, Sequence[model.Event]]] = collections.deque()
        self._unkept: collections.deque[tuple[int, Sequence[spool.Loss]]] = collections.deque()
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
            waiting=0 if self._closed or self._spool is None else self._spool.waiting,
            lag=self._lag,
            foreign=self._foreign + (0 if self._kafka is None else self._kafka.foreign),
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
        if self._spool is not None:
            self._spool.open()
            # Of a daemon that was killed nobody knows how much of this it had under way
            self._doubt = min(2 * CHUNK, self._spool.waiting)
            self._past.stand(self._spool.positions)
            for chunk in self._spool.unacknowledged(CHUNK):
                self._past.leave(chunk.events)
        self._supervisor = asyncio.create_task(self._supervise(), name="broker-supervisor")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake["settled"].wait(), kafka.CONNECT_SECONDS + 0.5)

    async def close(self) -> None:
        """See ``broker.Broker``: what was accepted is sent and shown, for a bounded time; the rest stays on disk."""
        if self._closed:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._flush(), FLUSH_SECONDS)
        self._closed = True
        for event in self._wake.values():
            event.set()
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        self._show(itertools.chain.from_iterable(self._order.offer(one, self._tick()) for one in self._unseen))
        if self._spool is not None:
            self._spool.close()

    async def _flush(self) -> None:
        while self._machine.state is machine.State.LIVE and (self._pending or self._unseen):
            self._wake["room"].clear()
            await self._wake["room"].wait()

    # What the engine asks

    async def declare(
        self, topics: Mapping[str, int], replication: int = 1, streams: Mapping[str, str] | None = None
    ) -> None:
        """See ``broker.Broker``; while the cluster is away the topics are remembered and made when it is back.

        So are those of the first call even if they are refused: what lasts is told as the reason of the state.
        """
        before, first = (dict(self._topics), self._replication), not self._wake["declared"].is_set()
        self._topics.update(topics)
        self._replication = replication
        try:
            if self._kafka is not None:
                await self._kafka.declare(topics, replication)
            await self._past.read(self._kafka, self._topics, streams)
        except errors.BrokerError as error:
            if error.final and not first:
                self._topics, self._replication = before
                raise
            _log.warning("topics are made when the broker takes them: %s", error)
            await self._past.read(None, ())
        self._wake["declared"].set()

    def position(self, stream: str) -> model.Position | None:
        """See ``broker.Broker``."""
        return self._past.position(stream)

    def past(self, stream: str) -> list[model.Event]:
        """See ``broker.Broker``."""
        return self._past.take(stream)

    async def history(self, stream: str, after: model.Position, before: int) -> list[model.Event] | None:
        """See ``broker.Broker``."""
        if self._kafka is None or not self._machine.reachable:
            return None
        return await self._past.history(self._kafka, stream, after, before)

    async def publish(self, events: Sequence[model.Event]) -> None:
        """See ``broker.Broker``."""
        if self._closed or self._spool is None:
            self._errors += len(events)
            raise errors.BrokerError(
                "the broker is closed" if self._closed else "it only reads", len(events), tuple(events)
            )
        if not events:
            return
        kept = self._spool.append(events)
        self._produced += len(events)
        self._past.note(events[-1])
        if self._machine.state is not machine.State.LIVE:
            self._count(kept.lost)
            self._show_all(events)
            return
        if kept.lost:
            # Not on disk, but in memory: lost only if the cluster goes before it has them
            self._unkept.append((kept.last, kept.lost))
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

    # The connection

    async def _supervise(self) -> None:
        pause = RETRY_SECONDS
        while True:
            began, answered = self._tick(), await self._one_connection()
            # One that is lost again and again as soon as it is there is no reason for a change of state each second,
            # and who is refused should not knock each second
            lasted = self._tick() - began >= SHORT_SECONDS
            pause = RETRY_SECONDS if lasted or not answered else min(2 * pause, LONGEST_RETRY_SECONDS)
            await asyncio.sleep(pause)

    async def _one_connection(self) -> bool:
        """Connect and serve until the connection is lost; whether there was one, or a refusal."""
        one, refused = self._connect(self._offsets), False
        try:
            await self._use(one)
        except errors.BrokerError as error:
            refused = error.final
            self._fall(error.reason)
        except Exception as error:
            # Whatever the library stumbles over, the streams go on
            if self._machine.reachable:
                _log.exception("the connection to the broker ended with a fault")
            self._fall(f"{type(error).__name__}: {error}")
        finally:
            # Dashboards do not wait for the end of what is lost already
            connected, self._kafka = self._kafka is not None, None
            self._offsets.update(one.positions)
            self._foreign += one.foreign
            await one.abandon()
        return connected or refused

    async def _use(self, one: kafka.KafkaBroker) -> None:
        await one.start()
        await one.declare(self._topics, self._replication)
        await self._past.read(one, self._topics)
        if self._spool is None and self._wake["declared"].is_set():
            # Nobody asks for it any more, and there is no numbering of our own that it could disturb
            self._show(self._past.take_all())
        self._kafka = one
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
            faults = [one for one in lost.exceptions if not isinstance(one, errors.BrokerError)]
            raise (faults or lost.exceptions)[0] from None

    def _fall(self, reason: str) -> None:
        """The cluster is away: show what did not come back from it; the spool keeps what was not acknowledged."""
        self._machine.take(machine.Signal.LOST, reason)
        self._wake["settled"].set()
        self._show_unseen()
        self._pending.clear()
        for _, lost in self._unkept:
            self._count(lost)
        self._unkept.clear()
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
        # What waits must not go to topics that are made for it as they come
        await self._wake["declared"].wait()
        await one.declare(self._topics, self._replication)
        outbox = self._spool
        if outbox is not None:
            await self._drain(one, outbox)
        # No await between the last look into the spool and this: what is published from now on is pending
        self._machine.take(machine.Signal.DRAINED)
        while outbox is not None:
            while not self._pending:
                self._wake["pending"].clear()
                await self._wake["pending"].wait()
            upto, chunk = self._take()
            outbox.hold(upto)
            await self._deliver(one, chunk)
            outbox.acknowledge(upto)
            while self._unkept and self._unkept[0][0] <= upto:
                self._unkept.popleft()
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
                await one.declare(self._topics, self._replication)
                await one.publish(events)
        except errors.BrokerError as error:
            if not error.final:
                raise
            # They will not come back from the topic, and those behind them are not held up for them
            self._errors += error.count
            self._show_all(error.refused)
            self._seen()
        except TimeoutError:
            raise errors.BrokerError(f"no acknowledgement within {ACK_SECONDS:g} s") from None
        self._doubt = 0

    async def _drain(self, one: kafka.KafkaBroker, outbox: spool.Spool) -> None:
        """Send what waits in the spool, in order; a send that was in doubt is looked up before it is repeated."""
        landed: set[tuple[str, str, int]] | None = None
        for upto, events in outbox.unacknowledged(CHUNK):
            if landed is None:
                landed = await self._landed(one, events)
            outbox.hold(upto)
            await self._deliver(one, [event for event in events if _name(event) not in landed])
            outbox.acknowledge(upto)

    async def _landed(self, one: kafka.KafkaBroker, chunk: Sequence[model.Event]) -> set[tuple[str, str, int]]:
        """What is on the topics already of a send that was not acknowledged: only one is ever under way.

        It may reach beyond ``chunk``, into topics that are not in there.
        """
        # Those that no stream has any more are made as the others
        like = max(self._topics.values(), default=1)
        topics = {**{event.head.topic: like for event in chunk}, **self._topics}
        await one.declare(topics, self._replication)
        if not self._doubt:
            return set()
        return {_name(record.event) for record in await one.tail(topics, self._doubt + MARGIN)}


def _name(event: model.Event) -> tuple[str, str, int]:
    return event.head.stream, event.head.epoch, event.seq
