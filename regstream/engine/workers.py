"""The work itself: due streams are taken by priority, make their events in slices and hand them to the broker.

One worker serves them, so what is made next is the most urgent of all that is due, whether the machine or the broker is
the limit; several would each take a stream and hand over in turn. A more urgent stream waits for one slice at most.
"""

from __future__ import annotations

import asyncio
import collections
import itertools
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from regstream import broker, errors, spec, tracing
from regstream.engine import active_stream, status, undo
from regstream.event import Event, Position
from regstream.generator import alerts
from regstream.generator import stream as streams


class StateStore(Protocol):
    """Numbers, rows and the seed of an earlier run of the same streams; no call waits or fails."""

    def position(self, stream: str) -> Position | None:
        """Where a stream stood; None when that is not known here."""

    def past(self, stream: str) -> list[Event]:
        """Its newest events up to there, without a gap, in order; given out once."""

    def seed(self, chosen: int) -> int:
        """The seed of the first run, which from now on is ``chosen`` if there was none."""

    def rows(self, entity: str) -> Mapping[str, Mapping[str, Any]]:
        """By the text of its key, the fields that events had changed of each row."""

    def keep(self, changes: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
        """Remember rows, by entity and the text of their key, as they are now."""


SLICE = 200
TURN = 4
"""So many slices are made before others run, if all of them together have fewer than ``SLICE`` events."""
SLICE_SECONDS = 0.01
"""A slice whose events take long ends with the one in which this has passed."""
_REST = 0.25
MAX_ALERTS = 10_000
PATIENCE = 2.0
"""So many seconds a tick waits for those before it, rather than leave its place to a less urgent one."""
_log = logging.getLogger("regstream.engine.work")


class TickExecutor:
    """The queue of due streams and those who serve it.

    Full: a stream has at most ``patience`` waiting ticks, or as many as its lane bears (more are counted as missed);
    but where there are less urgent streams, none is missed within ``PATIENCE`` seconds nor as long as one of those is
    served meanwhile, until ``lanes.MAX_WAITING`` wait. It has at most ``lanes.MAX_JOBS`` bursts (more are refused); of
    alerts ``MAX_ALERTS`` wait, more are dropped before they get a number, and counted.
    """

    def __init__(
        self,
        now: Callable[[], float],
        carrier: broker.Broker,
        alerting: streams.Stream,
        observe: Callable[[str, float], None] | None,
        remember: StateStore | None = None,
        traces: tracing.Traces = tracing.OFF,
        patience: int = 1,
    ) -> None:
        self._patience = patience
        self.totals, self.lateness = status.Totals(), status.Lateness()
        self._now = now
        self._broker = carrier
        self._observe = observe
        self._memory = remember
        self._traces = traces
        self.undo = undo.UndoLog()
        self.run_served: Callable[[], None] = _nobody
        self._queue: asyncio.PriorityQueue[tuple[int, int, active_stream.SerialGroup | None, int]] = (
            asyncio.PriorityQueue()
        )
        self._order = itertools.count()
        self._alerts = alerting
        self._alerts_waiting: collections.deque[alerts.Raised] = collections.deque()
        self._alerts_queued = False
        self._losses = 0
        self._serving: int | None = None
        self._served = [-math.inf for _ in spec.Priority]
        # No slice begins before: the loop's time at which others have had their part of it
        self._rested = 0.0

    @property
    def waiting(self) -> int:
        """How many streams wait to be served; those that are served as one count as one."""
        return self._queue.qsize()

    async def join(self) -> None:
        """Wait until nothing is due and nothing is being made."""
        await self._queue.join()

    def tick(self, lane: active_stream.ActiveStream, due: float, skipped: int) -> None:
        """A stream is due; if too many of its ticks wait already, this one is missed, as are ``skipped`` before it."""
        patience = max(self._patience, lane.patience)
        if (skipped or len(lane.due) >= patience) and self._goes_before_others(lane, due):
            patience = active_stream.MAX_WAITING
            points = [due, *lane.points_after(due, min(skipped, patience))]
        else:
            points = [due]
        taken = points[: max(0, patience - len(lane.due))]
        missed = 1 + skipped - len(taken)
        if missed:
            lane.counts.missed += missed
            self.totals.missed += missed
        if not taken:
            lane.due_by.pop(due, None)
        for point in taken:
            lane.wait(point)
        if taken:
            self.enqueue(lane.unit)

    def _goes_before_others(self, lane: active_stream.ActiveStream, due: float) -> bool:
        """Whether a less urgent stream was or would be served in place of a tick of this one that is due."""
        rank, since = lane.priority.rank, lane.due[0] if lane.due else due
        if (self._serving or 0) > rank:
            return True
        last = max(self._served[rank + 1 :], default=-math.inf)
        return last >= since or (last > -math.inf and self._now() - since < PATIENCE)

    def enqueue(self, unit: active_stream.SerialGroup) -> None:
        """Let streams that have a tick or a job be served in their turn."""
        rank = unit.wanted
        if rank is not None and (unit.rank is None or rank < unit.rank):
            unit.rank, unit.serial = rank, unit.serial + 1
            self._queue.put_nowait((rank, next(self._order), unit, unit.serial))

    async def work(self) -> None:
        """Serve due streams until cancelled."""
        slices, before = 0, self.totals.events
        while True:
            _, _, unit, serial = await self._queue.get()
            try:
                if unit is None:
                    await self._publish_alerts()
                elif serial == unit.serial:
                    await self._serve(unit)
            finally:
                self._queue.task_done()
            slices += 1
            if slices >= TURN or self.totals.events - before >= SLICE:
                # Neither the queue nor a broker with room lets others run
                await asyncio.sleep(0)
                slices, before = 0, self.totals.events

    async def _serve(self, unit: active_stream.SerialGroup) -> None:
        unit.rank = None
        lane = unit.next()
        if lane is None:
            return
        try:
            if lane.due and not (lane.jobs and lane.jobs[0].begun):
                self._begin_tick(lane)
            if lane.jobs:
                await self._go_on(lane, lane.jobs[0])
        finally:
            # Meanwhile a reload may have put it together with others
            self.enqueue(lane.unit)

    async def _go_on(self, lane: active_stream.ActiveStream, job: active_stream.Job) -> None:
        lane.serving, self._serving = job, lane.priority.rank
        try:
            ended = await self._slice(lane, job)
        finally:
            self._served[self._serving], self._serving = self._now(), None
            lane.serving = None
        # The lane may have been cleared while the slice was published: then the job ends with what it has
        if job in lane.jobs:
            if not ended:
                return
            lane.jobs.remove(job)
        job.settle(lane.health.fault)
        if job.run_id is not None:
            self.run_served()

    def _begin_tick(self, lane: active_stream.ActiveStream) -> None:
        due, layer = lane.begin_tick()
        fields = lane.fields
        [tick] = lane.ticks([due])
        job = active_stream.Job(tick.events, due, fields, tick=tick)
        if layer is not None:
            job.scenario, job.run_id = layer.scenario, layer.run_id
        late = max(0.0, self._now() - due)
        job.span = self._traces.begin(f"tick {lane.name}", about(lane.name, job, late))
        lane.jobs.appendleft(job)
        lane.counts.late = late
        lane.counts.ticks += 1
        self.lateness.add(late)
        if self._observe is not None:
            self._observe(lane.name, late)

    async def _slice(self, lane: active_stream.ActiveStream, job: active_stream.Job) -> bool:
        """Make and publish the next events of a job; true when it has ended."""
        await self._rest()
        source, now = lane.source, self._now()
        began = asyncio.get_running_loop().time()
        wanted = min(SLICE, job.count - job.made - job.lost)
        # A tick happens at its point, however late it is made; a burst happens now
        at = job.at if job.tick else now
        touched = None if job.run_id is None else undo.Touched()
        with job.span.part("generate"):
            given = job.fields, lane.priority, job.first or None, job.span.traceparent, _after(began + SLICE_SECONDS)
            if job.tick is None:
                batch = source.next_batch(at, wanted, *given, touched=touched)
            else:
                batch = source.next_part(job.tick.part(job.made + job.lost, wanted), *given, touched=touched)
        self._exert(began)
        if batch.events:
            job.first = job.first or batch.events[0].seq
            job.last = batch.events[-1].seq
            job.made += len(batch.events)
        job.lost += batch.lost
        if job.tick is not None:
            # What comes after an event that cannot be made is given up with it
            source.has_told(0 if batch.error is not None else job.count - job.made - job.lost)
        self.tally(lane, batch, now)
        for signal in batch.signals:
            raised = alerts.Raised.by(lane.name, signal, at, job.scenario, job.run_id)
            self.alert(raised._replace(traceparent=job.span.traceparent))
        if touched is not None and job.run_id is not None:
            self.undo.record(job.run_id, touched, source.workshop.pools, source.workshop.fields)
        self.keep(source, batch)
        with job.span.part("publish"):
            await self.publish(batch.events)
        return batch.error is not None or job.made + job.lost >= job.count

    def keep(self, source: streams.Stream, batch: streams.Batch) -> None:
        """Remember what a batch changed of rows and told of them, without what runs changed: none outlives the process.

        Before it is published: should the process die in between, a change is remembered whose event never was, but no
        event says what a later one says again.
        """
        if self._memory is None and not self.undo:
            return
        workshop, mask = source.workshop, self.undo.mask if self.undo else None
        changes = workshop.states(batch.touched, mask) if batch.touched else {}
        if self._memory is not None:
            if workshop.has_news:
                changes |= workshop.news(mask)
            if changes:
                self._memory.keep(changes)

    async def _rest(self) -> None:
        """Wait until others have had the loop for a part of the time for which the last long slice held it."""
        loop = asyncio.get_running_loop()
        # Another worker may have made a long one meanwhile
        while (left := self._rested - loop.time()) > 0:  # noqa: ASYNC110 - it is the time that is waited for
            await asyncio.sleep(left)

    def _exert(self, began: float) -> None:
        now = asyncio.get_running_loop().time()
        if now - began > SLICE_SECONDS:
            self._rested = now + _REST * (now - began)

    def tally(self, lane: active_stream.ActiveStream, batch: streams.Batch, now: float) -> None:
        """Count what a stream has made, and note how it is."""
        self._judge(lane, batch.error)
        if not batch.events:
            return
        size = sum(len(event.value) for event in batch.events)
        counts = lane.counts
        counts.events += len(batch.events)
        counts.bytes += size
        counts.last = now
        lane.rate.add(now, len(batch.events))
        self.totals.events += len(batch.events)
        self.totals.bytes += size

    async def publish(self, events: list[Event]) -> None:
        """Hand events to the broker; those that it cannot take are counted."""
        if not events:
            return
        try:
            await self._broker.publish(events)
        except errors.BrokerError as error:
            self.totals.lost += error.count
            self._losses += 1
            if status.is_news(self._losses):
                lost = events[0]
                about = {"stream": lost.head.stream, "event_id": lost.id}
                _log.error("%d events of %s were lost: %s", error.count, lost.head.stream, error, extra=about)

    def _judge(self, lane: active_stream.ActiveStream, error: errors.RenderError | None) -> None:
        if error is None:
            lane.health.well(lane.name)
            return
        lane.counts.errors += 1
        self.totals.errors += 1
        lane.health.note(error)

    def alert(self, raised: alerts.Raised) -> None:
        """Raise an alert; it gets its number when it is published."""
        if len(self._alerts_waiting) >= MAX_ALERTS:
            self.totals.alerts_dropped += 1
            if status.is_news(self.totals.alerts_dropped):
                _log.error("too many alerts wait, %d were dropped so far", self.totals.alerts_dropped)
            return
        self._alerts_waiting.append(raised)
        if not self._alerts_queued:
            self._alerts_queued = True
            self._queue.put_nowait((spec.Priority.CRITICAL.rank, next(self._order), None, 0))

    async def _publish_alerts(self) -> None:
        taken = [self._alerts_waiting.popleft() for _ in range(min(SLICE, len(self._alerts_waiting)))]
        events = alerts.batch(self._alerts, taken)
        self.totals.events += len(events)
        self.totals.bytes += sum(len(event.value) for event in events)
        await self.publish(events)
        if self._alerts_waiting:
            self._queue.put_nowait((spec.Priority.CRITICAL.rank, next(self._order), None, 0))
        else:
            self._alerts_queued = False


def _nobody() -> None:
    pass


def _after(moment: float) -> Callable[[], bool]:
    """Whether a moment of the loop's time has passed."""
    time = asyncio.get_running_loop().time
    return lambda: time() > moment


def about(stream: str, job: active_stream.Job, late: float | None = None) -> tracing.Attributes:
    """What a trace says of a job; ``late`` in seconds."""
    said: dict[str, str | int | float] = {"regstream.stream": stream}
    if late is not None:
        said["regstream.late_seconds"] = late
    if job.run_id is not None:
        said |= {"regstream.scenario": job.scenario or "", "regstream.run_id": job.run_id}
    return said
