"""Kafka that may come late, go away and come back, behind one face that always takes events and always shows them.

Each event is first written to the spool, then sent, then acknowledged there: whatever has a number is on disk until it
is on the topic. While the cluster answers, dashboards are fed from what is consumed back; while it does not, from the
events themselves. What was shown is not shown again when it arrives from the topic later.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from regstream import broker, errors, sanitize
from regstream.broker import backoff, kafka, recovery, resequencer, spool, spooled_queue
from regstream.broker.kafka import producer
from regstream.event import Event, Position


class ConnectionPhase(enum.StrEnum):
    """How it is with the cluster.

    ``connecting``: not yet known. ``live``: events go to it. ``fallback``: it is away, they go to the spool.
    ``draining``: it is back, and what waits in the spool goes first.
    """

    CONNECTING = "connecting"
    LIVE = "live"
    FALLBACK = "fallback"
    DRAINING = "draining"


class ConnectionSignal(enum.StrEnum):
    """What happens to a connection."""

    CONNECTED = "connected"
    DRAINED = "drained"
    LOST = "lost"


_NEXT: dict[tuple[ConnectionPhase, ConnectionSignal], ConnectionPhase] = {
    (ConnectionPhase.CONNECTING, ConnectionSignal.CONNECTED): ConnectionPhase.DRAINING,
    (ConnectionPhase.CONNECTING, ConnectionSignal.LOST): ConnectionPhase.FALLBACK,
    (ConnectionPhase.FALLBACK, ConnectionSignal.CONNECTED): ConnectionPhase.DRAINING,
    (ConnectionPhase.FALLBACK, ConnectionSignal.LOST): ConnectionPhase.FALLBACK,
    (ConnectionPhase.DRAINING, ConnectionSignal.DRAINED): ConnectionPhase.LIVE,
    (ConnectionPhase.DRAINING, ConnectionSignal.LOST): ConnectionPhase.FALLBACK,
    (ConnectionPhase.LIVE, ConnectionSignal.LOST): ConnectionPhase.FALLBACK,
}


class ConnectionState:
    """The state, and why it is so; ``changed`` is told of each change: from, to, reason."""

    def __init__(self, changed: Callable[[ConnectionPhase, ConnectionPhase, str], None]) -> None:
        self.state = ConnectionPhase.CONNECTING
        self.reason = ""
        self._changed = changed

    def take(self, signal: ConnectionSignal, reason: str = "") -> ConnectionPhase:
        """Go on to the next state. Raises ValueError for a signal that the state does not know."""
        before = self.state
        after = _NEXT.get((before, signal))
        if after is None:
            raise ValueError(f"{signal} while {before}")
        # It may be the text of any exception
        reason = sanitize.redact(reason)
        self.state, self.reason = after, reason
        if after is not before:
            self._changed(before, after, reason)
        return after

    @property
    def reachable(self) -> bool:
        """Whether the cluster answers."""
        return self.state in (ConnectionPhase.LIVE, ConnectionPhase.DRAINING)


PROBE_SECONDS = 2.0
REGAIN_PROBES = 15
"""After so many probes a topic that may not be read is tried again."""
FLUSH_SECONDS = 1.0
_log = logging.getLogger("regstream.broker.failover")

Connect = Callable[[Mapping[kafka.Place, int]], kafka.KafkaBroker]


class FailoverBroker:
    """Meets what the engine asks of a broker, whatever the cluster does.

    ``connect`` makes an unconnected ``KafkaBroker`` that begins to consume at given offsets; ``tick`` gives seconds of
    a steady clock; ``changed`` is told of each change of state. Without a spool, ``kept``, it only reads.
    """

    def __init__(
        self,
        connect: Connect,
        kept: spool.Spool | None,
        tick: Callable[[], float],
        changed: Callable[[str, str, str], None],
    ) -> None:
        self._connect = connect
        self._tick = tick
        self._machine = ConnectionState(lambda *change: self._tell(changed, *change))
        self._room = asyncio.Event()
        self._settled = asyncio.Event()
        self._ready = asyncio.Event()
        self._hurry = asyncio.Event()
        self._declared = spooled_queue.DeclaredTopics()
        self._showing = resequencer.DeliveryBuffer(tick, self._room)
        self._past = recovery.RecoveredStreams(self._showing.order)
        self._history = recovery.TopicHistory()
        self._outbox: spooled_queue.SpooledQueue | None = None
        if kept is not None:
            self._outbox = spooled_queue.SpooledQueue(kept, self._declared, self._room, self._showing.take)
        self._kafka: kafka.KafkaBroker | None = None
        self._offsets: dict[kafka.Place, int] = {}
        self._unread: dict[str, str] = {}
        self._told: set[str] = set()
        self._pauses = backoff.Backoff()
        self._supervisor: asyncio.Task[None] | None = None
        self._closed = False
        self._produced = self._errors = self._lag = self._foreign = self._left = 0

    @property
    def status(self) -> broker.BrokerStatus:
        """See ``broker.Broker``; ``waiting`` counts the events in the spool."""
        current, out = self._machine, self._outbox
        refusals = {*self._declared.refused.values(), *(() if out is None else out.refusals.values())}
        refusals.update(self._unread.values())
        return broker.BrokerStatus(
            "kafka",
            "closed" if self._closed else str(current.state),
            not current.reachable,
            self._produced,
            self._showing.consumed,
            self._errors + (0 if out is None else out.errors),
            current.reason or "; ".join(sorted(refusals)),
            waiting=self._left if self._closed or out is None else out.waiting,
            lag=self._lag,
            foreign=self._foreign + (0 if self._kafka is None else self._kafka.foreign),
            skipped=self._showing.order.skipped,
            dropped={} if out is None else dict(out.dropped),
            waiting_bytes=0 if self._closed or out is None else out.waiting_bytes,
        )

    def _tell(self, changed: Callable[[str, str, str], None], before: str, after: str, reason: str) -> None:
        level = logging.WARNING if after == ConnectionPhase.FALLBACK else logging.INFO
        _log.log(level, "broker %s%s", after, f": {reason}" if reason else "")
        changed(str(before), str(after), reason)

    # Start and stop

    async def start(self) -> None:
        """Begin to connect; returns when that has succeeded or failed once, which takes a few seconds at most.

        Raises StartError when the spool cannot be used.
        """
        if self._outbox is not None:
            left = self._outbox.open()
            self._past.stand(left.positions)
            for chunk in left.unacknowledged(spooled_queue.CHUNK):
                self._past.leave(chunk.events)
        self._supervisor = asyncio.create_task(self._supervise(), name="broker-supervisor")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._settled.wait(), kafka.CONNECT_SECONDS + 0.5)

    async def settled(self) -> None:
        """Return when it is known whether the cluster can be reached; over a slow line it takes longer than a start."""
        await self._settled.wait()

    async def close(self) -> None:
        """See ``broker.Broker``: what was accepted is sent and shown, for a bounded time; the rest stays on disk."""
        if self._closed:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._flush(), FLUSH_SECONDS)
        self._closed = True
        self._room.set()
        self._hurry.set()
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        self._showing.give_up()
        self._showing.end()
        if self._outbox is not None:
            self._left = self._outbox.waiting
            self._outbox.close()

    async def _flush(self) -> None:
        while self._machine.state is ConnectionPhase.LIVE and (self._ahead or self._showing.awaited):
            self._room.clear()
            await self._room.wait()

    @property
    def refused(self) -> Mapping[str, int]:
        """Events that the cluster did not take since the start, by reason."""
        return {} if self._outbox is None else dict(self._outbox.refused_by)

    @property
    def _ahead(self) -> int:
        return 0 if self._outbox is None else self._outbox.ahead

    # What the engine asks

    async def declare(
        self,
        topics: Mapping[str, int],
        replication: int = 1,
        streams: Mapping[str, str] | None = None,
        batch_bytes: int | None = None,
    ) -> None:
        """See ``broker.Broker``; while the cluster is away the topics are remembered and made when it is back.

        So are those of the first call even if they are refused: what lasts is told as the reason of the state.
        """
        try:
            if self._kafka is not None:
                # Not before they are made does anybody else ask for them
                await self._make(self._kafka, topics, replication)
            await self._past.read(self._kafka, {**self._declared.topics, **topics}, streams)
        except errors.BrokerError as error:
            if error.final and self._ready.is_set():
                raise
            _log.warning("topics are made when the broker takes them: %s", error)
            await self._past.read(None, ())
        _log.debug("topics %s, replicated %d times", dict(topics), replication)
        self._declared.topics.update(topics)
        self._declared.replication = replication
        self._declared.batch_bytes = batch_bytes
        if self._ready.is_set() and self._kafka is None:
            # Who reloads may have mended what kept us from the cluster
            self._hurry.set()
        self._ready.set()

    async def _make(self, one: kafka.KafkaBroker, topics: Mapping[str, int], replication: int) -> None:
        try:
            await one.declare(topics, replication)
        except errors.BrokerError as error:
            # What is refused at the start or was before must not keep the other topics from being made and read
            new = error.topics.keys() - self._declared.topics.keys() if self._ready.is_set() else set()
            if new or not error.topics:
                raise
            _log.warning("topics are made when the broker takes them: %s", error)

    def position(self, stream: str) -> Position | None:
        """See ``broker.Broker``."""
        return self._past.position(stream)

    def past(self, stream: str) -> list[Event]:
        """See ``broker.Broker``."""
        return self._past.take(stream)

    async def history(self, stream: str, after: Position, before: int) -> list[Event] | None:
        """See ``broker.Broker``."""
        topic = self._past.topic(stream)
        if self._kafka is None or not self._machine.reachable or topic is None:
            return None
        return await self._history.ask(self._kafka, topic, stream, after, before)

    async def publish(self, events: Sequence[Event]) -> None:
        """See ``broker.Broker``."""
        out = self._outbox
        if out is None or not out.is_open:
            self._errors += len(events)
            reason = "it only reads" if out is None else "the broker is closed"
            raise errors.BrokerError(reason, len(events), tuple(events))
        if not events:
            return
        # What comes while it closes is for the next start to send
        live = self._machine.state is ConnectionPhase.LIVE and not self._closed
        out.put(events, live)
        self._produced += len(events)
        self._past.note(events[-1])
        if not live:
            self._showing.take(events)
            return
        self._await(events)
        while out.ahead > spooled_queue.LIMIT and not self._closed:
            self._room.clear()
            await self._room.wait()

    def _await(self, events: Sequence[Event]) -> None:
        """Show events when they come back from the cluster, and those that cannot now."""
        if self._unread:
            self._showing.take(event for event in events if event.head.topic in self._unread)
            events = [event for event in events if event.head.topic not in self._unread]
        self._showing.expect(events)

    @property
    def topics(self) -> Mapping[str, int]:
        """Every topic that was declared, with its partitions."""
        return self._declared.topics

    async def resend(self, topic_of: Mapping[str, str] | str, events: Sequence[Event]) -> None:
        """Send events again, marked as replayed, onto one topic, or onto that which their stream leads to.

        Returns when all are acknowledged. Apart from all else: they are not in the spool, nor shown, nor do live ones
        wait for them. Raises BrokerError when the cluster is away, ``final`` when it or we refuse some; see
        ``kafka.resender``.
        """
        one, declared = self._kafka, self._declared
        if one is None:
            raise errors.BrokerError(self._machine.reason or f"the broker is {self.status.state}", len(events))
        moved = list(producer.moved(events, topic_of))
        await one.resend(moved, max(declared.topics.values(), default=1), declared.replication)

    def consume(self) -> AsyncIterator[list[broker.Record]]:
        """See ``broker.Broker``: each stream in the order of its numbers, each event once."""
        return self._showing.records()

    # The connection

    async def _supervise(self) -> None:
        # A task group that is ending for an error already forgets that it was cancelled meanwhile
        while not self._closed:
            pause = await self._one_connection()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._hurry.wait()
            self._hurry.clear()

    async def _one_connection(self) -> float:
        """Connect and serve until the connection is lost; how long to wait before the next."""
        one, began, answered, pause = self._connect(self._offsets), self._tick(), False, 0.0
        try:
            await self._use(one)
        except errors.LoginError as error:
            pause = self._pauses.after_login()
            self._fall(f"{error.reason}; it is tried again after {pause:g} s, and at a reload")
        except errors.BrokerError as error:
            answered = error.final
            self._fall(error.reason)
        except Exception as error:
            # Whatever the library stumbles over, the streams go on
            if self._machine.reachable:
                _log.exception("the connection to the broker ended with a fault")
            self._fall(f"{type(error).__name__}: {error}")
        finally:
            # Dashboards do not wait for the end of what is lost already
            answered, self._kafka = answered or self._kafka is not None, None
            self._offsets.update(one.positions)
            self._foreign += one.foreign
            await one.abandon()
        return pause or self._pauses.after_loss(self._tick() - began, answered)

    async def _use(self, one: kafka.KafkaBroker) -> None:
        await one.start()
        await self._declared.on(one)
        await self._past.read(one, self._declared.topics)
        if self._outbox is None and self._ready.is_set():
            # Nobody asks for it any more, and there is no numbering of our own that it could disturb
            self._showing.put(self._past.take_all())
        self._kafka = one
        self._unread.clear()
        self._hurry.clear()
        self._machine.take(ConnectionSignal.CONNECTED)
        self._settled.set()
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
        self._machine.take(ConnectionSignal.LOST, reason)
        self._settled.set()
        self._showing.give_up()
        if self._outbox is not None:
            self._outbox.fall()

    async def _read(self, one: kafka.KafkaBroker) -> None:
        while True:
            try:
                async for records in one.consume():
                    self._showing.take(record.event for record in records)
                    await self._showing.until_fetched()
            except errors.BrokerError as error:
                if not error.topics:
                    raise
                if error.topics.keys() - self._told:
                    _log.warning("%s; its events are shown without it", "; ".join(error.topics.values()))
                    self._told.update(error.topics)
                self._unread.update(error.topics)
                one.forgo(error.topics)
                # What was sent there does not come back
                self._showing.give_up()
            else:
                return

    async def _probe(self, one: kafka.KafkaBroker) -> None:
        for turn in itertools.count(1):
            if self._unread and turn % REGAIN_PROBES == 0:
                # Whoever may read them meanwhile finds out; who still may not, too
                one.regain()
                self._unread.clear()
            oldest = self._showing.oldest()
            await asyncio.sleep(PROBE_SECONDS)
            if oldest is not None and self._showing.oldest() is oldest:
                # It does not come back, though the cluster answers: a partition has no leader, or is far behind
                self._showing.give_up()
            self._showing.expire()
            await one.probe()
            self._lag = await one.lag()

    async def _send(self, one: kafka.KafkaBroker) -> None:
        # What waits must not go to topics that are made for it as they come
        await self._ready.wait()
        await self._declared.on(one)
        if self._outbox is not None:
            await self._outbox.drain(one)
        # No await between the last look into the spool and this: what is published from now on is pending
        self._machine.take(ConnectionSignal.DRAINED)
        if self._outbox is not None:
            await self._outbox.send(one)
