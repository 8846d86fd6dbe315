"""The engine: due ticks become events at the broker, the most urgent stream first."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from regstream import broker, errors, hub, plan, schedule, spec, tracing
from regstream.engine import active_stream, backfill, runs, status, workers
from regstream.event import Event, Position
from regstream.generator import alerts
from regstream.generator import stream as streams

WINDOW = 2_000
"""Events of a history that are made without letting anybody else run."""
CUTOVER_SECONDS = 0.05
"""With less than that to go, in seconds, the rest of the history is made at once."""

_log = logging.getLogger("regstream.engine")


class Environment(NamedTuple):
    """What the engine is given of the world, so that it is the same in a test: time, chance and identity.

    ``now`` gives epoch seconds, ``epoch`` a new name for a numbering, ``run_id`` one for a run, ``seed`` stands in
    when the files have none. What lies between ``begin`` and now is made first, if there is one. ``renumber``: each
    stream begins a new numbering, for the last numbers of the one that is known are known to nobody.
    """

    now: Callable[[], float]
    epoch: Callable[[], str]
    run_id: Callable[[], str]
    seed: int
    identity: streams.Identity
    begin: float | None = None
    renumber: bool = False


class Prepared(NamedTuple):
    """A catalog that is ready to be made live by ``commit``, with nothing left that could fail."""

    catalog: spec.Catalog
    plan: plan.Plan
    workshop: streams.GenerationContext
    streams: Mapping[str, streams.Stream]


class Engine:
    """All streams at work, and the control of them. It is built empty; a first ``commit`` brings the streams.

    ``observe`` is told of each tick: the stream, and by how many seconds it was late. With a ``memory``, streams and
    entity rows go on where an earlier run ended.
    """

    def __init__(
        self,
        origin: Environment,
        carrier: broker.Broker,
        fanout: hub.Hub,
        *,
        allowed: bool = True,
        observe: Callable[[str, float], None] | None = None,
        memory: workers.StateStore | None = None,
        traces: tracing.Traces = tracing.OFF,
    ) -> None:
        self.catalog = spec.EMPTY
        self.streaming = False
        self.allowed = allowed
        self.refusal = ""
        self.started_at = origin.now()
        self._serving = False
        self._wanted = asyncio.Event()
        self._known: dict[str, Position] = {}
        self._past: backfill.Backfill | None = None
        self._remaking = origin.begin is not None
        self._origin = origin
        self._broker = carrier
        self._hub = fanout
        self._memory = memory
        self._traces = traces
        # What has a beginning leaves nothing out as long as it can be helped: it would not be the same the next time
        keeps_all = origin.begin is not None
        self._clock = schedule.Clock(origin.now, self._fire, self._jumped, every=keeps_all)
        self._clock.pause()
        self._workshop = streams.GenerationContext(spec.EMPTY, origin.seed, origin.identity)
        self._alerts = streams.Stream(alerts.SPEC, self._workshop, origin.epoch())
        self._works = workers.TickExecutor(
            origin.now,
            carrier,
            self._alerts,
            observe,
            memory,
            self._traces,
            active_stream.MAX_WAITING if keeps_all else 1,
        )
        self._floor = active_stream.StreamRegistry(self._clock, self._works.enqueue)
        self._runs = runs.RunRegistry(
            self._floor, self._works, self._clock, self._workshop, origin.now, fanout.announce, self._traces
        )
        self.totals, self.lateness = self._works.totals, self._works.lateness

    # Making a catalog live

    async def prepare(self, catalog: spec.Catalog, difference: plan.Plan) -> Prepared:
        """Compile what is new or changed and make its entity rows, beside what runs. Raises RenderError."""
        seed = self._seed() if catalog.seed is None else catalog.seed
        workshop = streams.GenerationContext(catalog, seed, self._origin.identity)
        wanted = (*difference.streams.added, *difference.streams.changed)
        begin = self._origin.begin
        if begin is not None and self._begins:
            # All that follows from a beginning is to be the same each time
            now, epoch = begin, backfill.epoch(seed, begin)
        else:
            now, epoch = self._origin.now(), ""

        def build() -> dict[str, streams.Stream]:
            remembered = None if self._memory is None or epoch else self._memory.rows
            workshop.fill(now, self._workshop, frozenset(difference.entities.unchanged), remembered)
            return {
                name: streams.Stream(catalog.streams[name], workshop, epoch or self._origin.epoch()) for name in wanted
            }

        # In a thread, because a thousand streams take a second to compile
        return Prepared(catalog, difference, workshop, await asyncio.to_thread(build))

    def _seed(self) -> int:
        return self._origin.seed if self._memory is None else self._memory.seed(self._origin.seed)

    async def equip(self, catalog: spec.Catalog) -> None:
        """Create the topics that a catalog needs. Raises BrokerError."""
        await ensure_topics(self._broker, catalog)

    def commit(self, prepared: Prepared) -> None:
        """Make a catalog live. It cannot yield, so no tick and no request sees half of it."""
        difference, workshop = prepared.plan, prepared.workshop
        old, entities = self._workshop, difference.entities
        self._works.undo.release({*entities.changed, *entities.removed}, old.pools)
        workshop.carry(old, frozenset(entities.unchanged))
        if self._begins:
            self._alerts.epoch = backfill.epoch(workshop.seed, self._origin.begin or 0.0)
        elif self._memory is not None:
            workshop.recall(old, self._memory.rows)
        for name in difference.streams.removed:
            self._floor.remove(name)
            self._hub.forget(name)
        if self.catalog is spec.EMPTY:
            self._continue(self._alerts)
        for name in difference.streams.added:
            self._admit(prepared.streams[name], prepared.catalog.profile.speed)
        for name in difference.streams.changed:
            self._replace(prepared.streams[name], prepared.catalog.profile.speed)
        for name in difference.streams.unchanged:
            self._floor.find(name).source.adopt(workshop)
        self._floor.order(prepared.catalog.streams)
        channels = prepared.catalog.channels
        self._hub.deliver({name: hub.Delivery(one.policy, one.max_rate) for name, one in channels.items()})
        self.catalog, self._workshop, self._runs.workshop = prepared.catalog, workshop, workshop
        # Of streams that are gone no event is left to be made
        self._runs.give_back()

    @property
    def _begins(self) -> bool:
        """Whether the catalog that is prepared or committed now is the one that the history begins with."""
        return self._origin.begin is not None and self.catalog is spec.EMPTY

    def _admit(self, source: streams.Stream, speed: float) -> None:
        begin = self._origin.now() if self._origin.begin is None else self._origin.begin
        self._floor.add(active_stream.begun(source, speed, begin))
        self._continue(source)

    def _continue(self, source: streams.Stream) -> None:
        """Go on with the numbering that broker or memory know of, and show what they hold from before."""
        name = source.spec.name
        found = [self._broker.position(name), self._memory.position(name) if self._memory else None]
        known = max(filter(None, found), default=source.position)
        if self._begins:
            self._known[name] = known
        elif not self._origin.renumber:
            source.epoch, source.seq = known
        past = self._broker.past(name) or (self._memory.past(name) if self._memory else [])
        before = past[0].position._replace(seq=past[0].seq - 1) if past else known
        self._hub.declare(name, source.spec.event, before)
        for event in past:
            self._hub.broadcast(event)

    def _replace(self, source: streams.Stream, speed: float) -> None:
        lane = self._floor.find(source.spec.name)
        lane.replace(source, speed)
        self._floor.arm(lane)
        self._hub.declare(lane.name, lane.spec.event, source.position)

    # Running

    async def serve(self) -> None:
        """Serve ticks until cancelled; the worker or the clock that dies ends it with its error."""
        self._serving = True
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._clock.run(), name="clock")
                await self._remake()
                group.create_task(self._works.work(), name="engine-worker")
        finally:
            self._serving = False

    async def drain(self) -> None:
        """Stop ticking, end all runs and wait until what has a number is published. The caller bounds the time."""
        self._halt()
        if self._serving:
            await self._works.join()

    def refuse(self, reason: str) -> None:
        """Generate nothing from now on, and answer control calls with the reason; a start of the daemon ends that."""
        if self.streaming:
            self._halt()
            self._hub.announce("streaming-stopped", {"reason": reason})
        self.allowed, self.refusal = False, reason

    def _halt(self) -> None:
        self.streaming = False
        self._wanted.clear()
        self._clock.pause()
        self._runs.cancel_all()
        for lane in self._floor.all():
            lane.clear(errors.Conflict("streaming was stopped"))
        self._runs.give_back()

    # The history, before anything is live

    async def _remake(self) -> None:
        """Make what lies between the beginning and now, publish it, and let the clock go on from there."""
        if not self._remaking:
            return
        await self._wanted.wait()
        past = self._past = self._history()
        while self._origin.now() - past.at > CUTOVER_SECONDS:
            for events in past.until(self._origin.now()):
                await self._hand_over(events)
        # From here to the clock nothing waits: its points begin where those of the history end
        seam = self._origin.now()
        last = [event for events in past.until(seam) for event in events]
        for name, known in self._known.items():
            self._catch_up(name, known)
        self._past, self._remaking = None, False
        if self.streaming:
            self._clock.resume(seam)
        await self._hand_over(last)

    def _history(self) -> backfill.Backfill:
        known = {name: position.seq for name, position in self._known.items()}
        begin = self._origin.begin or 0.0
        return backfill.Backfill(self._floor.all, self._alerts, begin, known, self._remade, WINDOW)

    def _catch_up(self, name: str, known: Position) -> None:
        """A stream that had more events than its ticks, by bursts, goes on after those."""
        lane = self._floor.get(name)
        source = self._alerts if name == spec.ALERTS else lane and lane.source
        if source and source.epoch == known.epoch:
            source.seq = max(source.seq, known.seq)

    async def _hand_over(self, events: list[Event]) -> None:
        for start in range(0, len(events), workers.SLICE):
            await self._wanted.wait()
            await self._works.publish(events[start : start + workers.SLICE])

    def _remade(self, lane: active_stream.ActiveStream, batch: streams.Batch, at: float) -> None:
        self._works.tally(lane, batch, at)
        lane.counts.ticks += len(batch.counts)
        lane.source.has_told(0)
        self._works.keep(lane.source, batch)

    @property
    def progress(self) -> status.Progress | None:
        """How far the history is; None when there is none to make, or none any more."""
        if not self._remaking:
            return None
        begin = self._origin.begin or 0.0
        return status.Progress(begin, begin if self._past is None else self._past.at, self._origin.now())

    def _fire(self, name: str, due: float, skipped: int) -> None:
        lane = self._floor.get(name)
        if lane is not None:
            self._works.tick(lane, due, skipped)

    def _jumped(self, delta: float) -> None:
        self._floor.move(delta)
        self._runs.move(delta)

    # Control

    def start(self, names: Iterable[str] | None = None) -> None:
        """Start the streaming, or the named streams, with the history if there is one to make.

        Raises UnknownName, Conflict when streaming is switched off, StartError when what is there already is not of
        this history.
        """
        self._check_allowed()
        if names is None:
            if not self.streaming:
                if self._remaking:
                    backfill.check(self._known, self._alerts.epoch)
                self.streaming = True
                self._wanted.set()
                if self._origin.begin is None:
                    self._floor.begin(self._origin.now())
                if not self._remaking:
                    self._clock.resume()
                self._hub.announce("streaming-started", {})
            return
        for lane in [self._floor.find(name) for name in names]:
            self._change(lane, enabled=True)

    def stop(self, names: Iterable[str] | None = None) -> None:
        """Stop the streaming, its runs and bursts, or stop the named streams.

        Raises UnknownName, Conflict when streaming is switched off.
        """
        self._check_allowed()
        if names is None:
            if self.streaming:
                self._halt()
                self._hub.announce("streaming-stopped", {})
            return
        for lane in [self._floor.find(name) for name in names]:
            self._change(lane, enabled=False)

    def pause(self, name: str) -> status.StreamStatus:
        """Let a stream rest; numbering, entities and phase are kept. Raises as ``patch``."""
        return self._change(self._own(name), paused=True)

    def resume(self, name: str) -> status.StreamStatus:
        """Let a paused stream go on with its next number. Raises as ``patch``."""
        return self._change(self._own(name), paused=False)

    def patch(
        self,
        name: str,
        *,
        interval: int | None = None,
        batch_size: int | None = None,
        priority: spec.Priority | None = None,
        enabled: bool | None = None,
    ) -> status.StreamStatus:
        """Set what is given on a stream until its declaration changes; ``interval`` in ms, taken as said.

        Raises UnknownName, Conflict when streaming is switched off.
        """
        lane = self._own(name)
        given = {"interval": interval, "batch_size": batch_size, "priority": priority}
        for attribute, value in given.items():
            if value is not None:
                lane.set[attribute] = value
                lane.take_over(attribute)
        return self._change(lane, enabled=enabled)

    def _change(
        self, lane: active_stream.ActiveStream, *, enabled: bool | None = None, paused: bool | None = None
    ) -> status.StreamStatus:
        if enabled is not None:
            lane.enabled = enabled
        if paused is not None:
            lane.paused = paused
            lane.take_over("paused")
        self._floor.arm(lane)
        # Ticks of a run that waited may be gone with it
        self._runs.give_back()
        told = self._describe(lane)
        self._hub.announce("stream-changed", {"stream": lane.name, "state": told.state})
        return told

    @property
    def waiting(self) -> int:
        """How many streams are due or have a burst, and wait to be served."""
        return self._works.waiting

    async def burst(self, name: str, count: int, fields: Mapping[str, Any] | None = None) -> tuple[int, int]:
        """Make ``count`` events at once; gives the first and last number when all are published.

        A call that is cancelled before the first event was made makes none. Raises UnknownName, Conflict when nothing
        is streaming, Overloaded, RenderError when no event could be made.
        """
        lane = self._floor.find(name)
        self._check_streaming()
        done: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()
        _log.debug("a burst of %d events of %s", count, name, extra={"stream": name})
        job = active_stream.Job(count, self._origin.now(), fields, done=done)
        lane.add(job)
        job.span = self._traces.begin(f"burst {name}", workers.about(name, job))
        self._works.enqueue(lane.unit)
        try:
            return await done
        finally:
            lane.withdraw(job)

    def _own(self, name: str) -> active_stream.ActiveStream:
        lane = self._floor.find(name)
        self._check_allowed()
        return lane

    def _check_allowed(self) -> None:
        if self.refusal:
            raise errors.Conflict(self.refusal)
        if not self.allowed:
            who = "the one with ENABLE_STREAMING=true on the same Kafka or database"
            raise errors.Conflict(f"ENABLE_STREAMING is false: this daemon generates nothing, ask {who}")

    def _check_streaming(self) -> None:
        self._check_allowed()
        if not self.streaming:
            raise errors.Conflict("streaming is stopped, start it first: POST /api/streaming/start")
        if self._remaking:
            raise errors.Conflict(f"the history is being made, wait for it: {self.progress}")

    def simulate(self, name: str) -> status.RunStatus:
        """Begin a run of a scenario. Raises UnknownName, Conflict when nothing is streaming, Overloaded."""
        spec = self.catalog.scenarios.get(name)
        if spec is None:
            raise errors.UnknownName("scenario", name, errors.near(name, self.catalog.scenarios))
        self._check_streaming()
        return self._runs.start(self._origin.run_id(), spec)

    def runs(self) -> list[status.RunStatus]:
        """Every run that is remembered, the newest first."""
        return self._runs.all()

    def run(self, run_id: str) -> status.RunStatus:
        """One run. Raises UnknownName."""
        return self._runs.get(run_id)

    def cancel(self, run_id: str) -> status.RunStatus:
        """End a run and give back what it had changed; one that has ended stays as it is. Raises UnknownName."""
        return self._runs.cancel(run_id)

    # Status

    def streams(self) -> list[status.StreamStatus]:
        """All streams, in the order of the files."""
        return [self._describe(lane) for lane in self._floor.all()]

    def stream(self, name: str) -> status.StreamStatus:
        """One stream. Raises UnknownName."""
        return self._describe(self._floor.find(name))

    def _describe(self, lane: active_stream.ActiveStream) -> status.StreamStatus:
        spec, counts, now = lane.spec, lane.counts, self._origin.now()
        interval, late, target = lane.interval, lane.counts.late, lane.target(now)
        # Where nothing is made, a stream stands where its maker is
        shown = None if self.allowed else self._hub.position(lane.name)
        position = shown or lane.source.position
        return status.StreamStatus(
            name=lane.name,
            description=spec.description,
            topic=spec.topic,
            event=spec.event,
            state=lane.state if self.streaming else "stopped",
            enabled=lane.enabled,
            paused=lane.halted,
            interval=interval,
            schedule=None if interval is not None else spec.schedule,
            timezone=spec.timezone,
            jitter=spec.jitter,
            batch_size=lane.batch_size,
            priority=lane.priority,
            overlays=tuple(dict.fromkeys(layer.run_id for layer in lane.layers.values())),
            epoch=position.epoch,
            seq=position.seq,
            events=counts.events,
            bytes=counts.bytes,
            ticks=counts.ticks,
            missed=counts.missed,
            late_ms=None if late is None else round(late * 1000, 3),
            errors=counts.errors,
            error=None if lane.health.fault is None else str(lane.health.fault),
            next=self._floor.next(lane) if self.streaming else None,
            last=counts.last,
            target_rate=None if target is None else round(target, 6),
            actual_rate=round(lane.rate.value(now), 3),
        )


async def ensure_topics(carrier: broker.Broker, catalog: spec.Catalog) -> None:
    """Create the topics that a catalog needs. Raises BrokerError."""
    kafka = catalog.profile.kafka
    topics = {spec.name: spec.topic for spec in (*catalog.streams.values(), alerts.SPEC)}
    await carrier.declare(
        dict.fromkeys(topics.values(), kafka.partitions), kafka.replication, topics, kafka.batch_bytes
    )
