"""The engine: due ticks become events at the broker, the most urgent stream first.

The clock says which stream is due, ``work`` serves those that are, ``runs`` drives scenarios over them. This module
makes catalogs live and holds what operators may do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from regstream import broker, clock, errors, hub, model, plan, scenario
from regstream.engine import lane as lanes
from regstream.engine import runs, status, work
from regstream.generate import stream as streams

WORKERS = 4


class Origin(NamedTuple):
    """What the engine is given of the world, so that it is the same in a test: time, chance and identity.

    ``now`` gives epoch seconds, ``epoch`` a new name for a numbering, ``run_id`` one for a run, ``seed`` stands in
    when the files have none.
    """

    now: Callable[[], float]
    epoch: Callable[[], str]
    run_id: Callable[[], str]
    seed: int
    identity: streams.Identity


class Prepared(NamedTuple):
    """A catalog that is ready to be made live by ``commit``, with nothing left that could fail."""

    catalog: model.Catalog
    plan: plan.Plan
    workshop: streams.Workshop
    streams: Mapping[str, streams.Stream]


class Engine:
    """All streams at work, and the control of them. It is built empty; a first ``commit`` brings the streams.

    ``observe`` is told of each tick: the stream, and by how many seconds it was late.
    """

    def __init__(
        self,
        origin: Origin,
        carrier: broker.Broker,
        fanout: hub.Hub,
        *,
        allowed: bool = True,
        observe: Callable[[str, float], None] | None = None,
    ) -> None:
        self.catalog = model.EMPTY
        self.streaming = False
        self.allowed = allowed
        self.started_at = origin.now()
        self._origin = origin
        self._broker = carrier
        self._hub = fanout
        self._clock = clock.Clock(origin.now, self._fire)
        self._clock.pause()
        self._lanes: dict[str, lanes.Lane] = {}
        self._layers: dict[tuple[str, int], lanes.Lane] = {}
        self._runs = runs.Runs(self, fanout.announce)
        self._workshop = streams.Workshop(model.EMPTY, origin.seed, origin.identity)
        alerts = streams.Stream(_alert_spec(), self._workshop, origin.epoch())
        self._works = work.Works(origin.now, carrier, alerts, observe)
        self.totals = self._works.totals
        fanout.declare(model.ALERTS, model.ALERT_TYPE, alerts.position)

    # Making a catalog live

    async def prepare(self, catalog: model.Catalog, difference: plan.Plan) -> Prepared:
        """Compile what is new or changed and make its entity rows, beside what runs. Raises RenderError."""
        seed = self._origin.seed if catalog.seed is None else catalog.seed
        workshop = streams.Workshop(catalog, seed, self._origin.identity)
        wanted = (*difference.streams.added, *difference.streams.changed)
        now = self._origin.now()

        def build() -> dict[str, streams.Stream]:
            workshop.fill(now, self._workshop, frozenset(difference.entities.unchanged))
            return {name: streams.Stream(catalog.streams[name], workshop, self._origin.epoch()) for name in wanted}

        # In a thread, because a thousand streams take a second to compile
        made = await asyncio.to_thread(build)
        partitions = catalog.profile.kafka.partitions
        topics = {spec.topic: partitions for spec in catalog.streams.values()}
        await self._broker.declare({**topics, model.ALERT_TOPIC: partitions})
        return Prepared(catalog, difference, workshop, made)

    def commit(self, prepared: Prepared) -> None:
        """Make a catalog live. It cannot yield, so no tick and no request sees half of it."""
        now, difference = self._origin.now(), prepared.plan
        prepared.workshop.carry(self._workshop, frozenset(difference.entities.unchanged))
        for name in difference.streams.removed:
            self._retire(name)
        for name in difference.streams.added:
            self._admit(prepared.streams[name], prepared.catalog, now)
        for name in difference.streams.changed:
            lane = self._lanes[name]
            lane.replace(prepared.streams[name], prepared.catalog.profile.speed)
            self._hub.declare(name, lane.spec.event, lane.source.position)
            self._arm(lane)
        for name in difference.streams.unchanged:
            # Entity rows that were made again replace the old ones for everybody
            self._lanes[name].source.workshop.pools = prepared.workshop.pools
        self.catalog, self._workshop = prepared.catalog, prepared.workshop
        self._lanes = {name: self._lanes[name] for name in prepared.catalog.streams}

    def _admit(self, source: streams.Stream, catalog: model.Catalog, now: float) -> None:
        speed = catalog.profile.speed
        interval = (source.spec.interval or 1_000) / speed
        lane = lanes.Lane(source, speed, lanes.anchor(source.spec.name, now, interval))
        self._lanes[source.spec.name] = lane
        self._hub.declare(source.spec.name, source.spec.event, source.position)
        self._arm(lane)

    def _retire(self, name: str) -> None:
        lane = self._lanes.pop(name)
        lane.gone = True
        self._clock.remove(name)
        self._hub.forget(name)
        for job in lane.jobs:
            work.settle(job, errors.Conflict(f"stream {name} was removed"))
        lane.jobs.clear()
        for key in lane.layers:
            self._layers.pop(key, None)

    def _arm(self, lane: lanes.Lane) -> None:
        if lane.ticking:
            self._clock.set(lane.name, lane.schedule())
        else:
            self._clock.remove(lane.name)
            lane.waiting = None

    # Running

    async def serve(self) -> None:
        """Serve ticks until cancelled; a worker or the clock that dies ends it with its error."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._clock.run(), name="clock")
            for number in range(WORKERS):
                group.create_task(self._works.work(), name=f"engine-worker-{number}")

    async def drain(self) -> None:
        """Stop ticking, end all runs and wait until what was due is published. The caller bounds the time."""
        self._halt()
        await self._works.join()

    def _halt(self) -> None:
        self.streaming = False
        self._clock.pause()
        self._runs.cancel_all(self._origin.now())

    def _fire(self, name: str, due: float, skipped: int) -> None:
        lane = self._lanes.get(name)
        if lane is not None:
            self._works.tick(lane, due, skipped)

    # Control

    def start(self, names: Iterable[str] | None = None) -> None:
        """Start the streaming, or the named streams. Raises UnknownName, Conflict when streaming is switched off."""
        if not self.allowed:
            raise errors.Conflict("ENABLE_STREAMING is false: this daemon generates nothing")
        if names is None:
            if not self.streaming:
                self.streaming = True
                self._clock.resume()
                self._hub.announce("streaming-started", {})
            return
        for lane in self._find_all(names):
            self._change(lane, enabled=True)

    def stop(self, names: Iterable[str] | None = None) -> None:
        """Stop the streaming and end all runs, or stop the named streams. Raises UnknownName."""
        if names is None:
            if self.streaming:
                self._halt()
                self._hub.announce("streaming-stopped", {})
            return
        for lane in self._find_all(names):
            self._change(lane, enabled=False)

    def pause(self, name: str) -> status.StreamStatus:
        """Let a stream rest; numbering, entities and phase are kept. Raises UnknownName."""
        return self._change(self._find(name), paused=True)

    def resume(self, name: str) -> status.StreamStatus:
        """Let a paused stream go on with its next number. Raises UnknownName."""
        return self._change(self._find(name), paused=False)

    def patch(
        self,
        name: str,
        *,
        interval: int | None = None,
        batch_size: int | None = None,
        priority: model.Priority | None = None,
        enabled: bool | None = None,
    ) -> status.StreamStatus:
        """Set what is given on a stream until its declaration changes; ``interval`` in ms, taken as said.

        Raises UnknownName.
        """
        lane = self._find(name)
        given = {"interval": interval, "batch_size": batch_size, "priority": priority}
        for attribute, value in given.items():
            if value is not None:
                lane.set[attribute] = value
                lane.take_over(attribute)
        return self._change(lane, enabled=enabled)

    def _change(
        self, lane: lanes.Lane, *, enabled: bool | None = None, paused: bool | None = None
    ) -> status.StreamStatus:
        if enabled is not None:
            lane.enabled = enabled
        if paused is not None:
            lane.paused = paused
            lane.take_over("paused")
        self._arm(lane)
        told = self._describe(lane)
        self._hub.announce("stream-changed", {"stream": lane.name, "state": told.state})
        return told

    async def burst(self, name: str, count: int, fields: Mapping[str, Any] | None = None) -> tuple[int, int]:
        """Make ``count`` events at once; gives the first and last number when all are published.

        Raises UnknownName, Conflict when nothing is streaming, Overloaded, RenderError when no event could be made.
        """
        lane = self._find(name)
        self._check_streaming()
        done = asyncio.get_running_loop().create_future()
        lane.add(lanes.Job(count, fields, done=done))
        self._works.enqueue(lane)
        first, last = await done
        return first, last

    def _check_streaming(self) -> None:
        if not self.streaming:
            raise errors.Conflict("streaming is stopped, start it first: POST /api/streaming/start")

    def simulate(self, name: str) -> status.RunStatus:
        """Begin a run of a scenario. Raises UnknownName, Conflict when nothing is streaming, Overloaded."""
        spec = self.catalog.scenarios.get(name)
        if spec is None:
            raise errors.UnknownName("scenario", name, errors.near(name, self.catalog.scenarios))
        self._check_streaming()
        return self._runs.start(self._origin.run_id(), spec, self._origin.now())

    def runs(self) -> list[status.RunStatus]:
        """Every run that is remembered, the newest first."""
        return self._runs.all()

    def run(self, run_id: str) -> status.RunStatus:
        """One run. Raises UnknownName."""
        return self._runs.get(run_id)

    def cancel(self, run_id: str) -> status.RunStatus:
        """End a run and give back what it had changed; one that has ended stays as it is. Raises UnknownName."""
        return self._runs.cancel(run_id, self._origin.now())

    # What runs may do

    def lay(self, stream: str, key: tuple[str, int], layer: lanes.Layer) -> None:
        """Lay a layer over a stream. Raises UnknownName."""
        lane = self._layers[key] = self._find(stream)
        lane.layers[key] = layer
        self._arm(lane)

    def lift(self, key: tuple[str, int]) -> None:
        """Take a layer away again."""
        lane = self._layers.pop(key, None)
        if lane is not None:
            del lane.layers[key]
            self._arm(lane)

    def emit(self, action: scenario.Emit, run: scenario.Run) -> None:
        """Queue events for a run. Raises UnknownName, Overloaded."""
        lane = self._find(action.stream)
        lane.add(lanes.Job(action.count, action.fields, scenario=run.spec.name, run_id=run.run_id))
        self._works.enqueue(lane)

    def alert(self, action: scenario.Raise, run: scenario.Run) -> None:
        """Raise an alert for a run; its text is a template. Raises RenderError."""
        text = streams.text(self._workshop, action.message, action.at, f"{run.run_id} {action.at}")
        self._works.alert(action.severity, text, None, None, run.spec.name, run.run_id)

    def wake(self, run_id: str, when: float | None) -> None:
        """Go on with a run at a time; None: no more."""
        if when is None:
            self._clock.cancel(run_id)
        else:
            self._clock.wake(run_id, when, lambda: self._runs.advance(run_id, self._origin.now()))

    # Status

    def streams(self) -> list[status.StreamStatus]:
        """All streams, in the order of the files."""
        return [self._describe(lane) for lane in self._lanes.values()]

    def stream(self, name: str) -> status.StreamStatus:
        """One stream. Raises UnknownName."""
        return self._describe(self._find(name))

    def _find(self, name: str) -> lanes.Lane:
        lane = self._lanes.get(name)
        if lane is None:
            raise errors.UnknownName("stream", name, errors.near(name, self._lanes))
        return lane

    def _find_all(self, names: Iterable[str]) -> list[lanes.Lane]:
        return [self._find(name) for name in names]

    def _describe(self, lane: lanes.Lane) -> status.StreamStatus:
        spec, counts, now = lane.spec, lane.counts, self._origin.now()
        interval, late = lane.interval, lane.counts.late
        return status.StreamStatus(
            name=lane.name,
            description=spec.description,
            topic=spec.topic,
            event=spec.event,
            state=lane.state,
            enabled=lane.enabled,
            paused=lane.halted,
            interval=interval,
            schedule=None if interval is not None else spec.schedule,
            timezone=spec.timezone,
            jitter=spec.jitter,
            batch_size=lane.batch_size,
            priority=lane.priority,
            overlays=tuple(dict.fromkeys(layer.run_id for layer in lane.layers.values())),
            epoch=lane.source.epoch,
            seq=lane.source.seq,
            events=counts.events,
            bytes=counts.bytes,
            ticks=counts.ticks,
            missed=counts.missed,
            late_ms=None if late is None else round(late * 1000, 3),
            errors=counts.errors,
            error=None if lane.fault is None else str(lane.fault),
            next=self._clock.next(lane.name) if self.streaming else None,
            last=counts.last,
            target_rate=None if interval is None else round(lane.batch_size / interval * 1000, 6),
            actual_rate=round(lane.rate.value(now), 3),
        )


def _alert_spec() -> model.StreamSpec:
    return model.StreamSpec(
        name=model.ALERTS,
        description="What needs attention now",
        topic=model.ALERT_TOPIC,
        event=model.ALERT_TYPE,
        priority=model.Priority.CRITICAL,
        fields={"message": ""},
    )
