"""One stream at work: what is in force on it, what waits for it, and what it has done."""

from __future__ import annotations

import asyncio
import bisect
import collections
import dataclasses
import hashlib
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from regstream import errors, schedule, spec, tracing
from regstream.engine import status
from regstream.generator import stream as streams
from regstream.schedule import Arrivals, Schedule
from regstream.spec import Priority

MAX_JOBS = 64
MAX_WAITING = 1_000
"""So many ticks of a stream wait where none is to be missed."""
_LAID_OVER = ("interval", "batch_size", "priority", "fields")


@dataclasses.dataclass(slots=True, eq=False)
class Job:
    """Events to be made in slices: those of a ``tick``, or one burst whose caller waits for ``done``.

    ``at`` is when it is to be: the point of the tick, or when the burst was asked for.
    """

    count: int
    at: float
    fields: Mapping[str, Any] | None = None
    tick: streams.Tick | None = None
    scenario: str | None = None
    run_id: str | None = None
    first: int = 0
    last: int = 0
    made: int = 0
    lost: int = 0
    done: asyncio.Future[tuple[int, int]] | None = None
    span: tracing.Span = tracing.NONE

    @property
    def begun(self) -> bool:
        """Whether a slice of it was made."""
        return self.made + self.lost > 0

    def settle(self, fault: errors.RegstreamError | None) -> None:
        """Tell the one who waits how it ended: the first and last number, or ``fault`` when no event was made."""
        self.span.note(
            {"regstream.events": self.made, "regstream.first_seq": self.first, "regstream.last_seq": self.last}
        )
        self.span.end(str(fault) if fault is not None and self.made < self.count else "")
        if self.done is None or self.done.done():
            return
        if self.made:
            self.done.set_result((self.first, self.last))
        else:
            self.done.set_exception(fault or errors.Conflict("no event was made"))


@dataclasses.dataclass(slots=True)
class ActiveOverlay:
    """What one step of a run has laid over a stream; an attribute that is None is not touched."""

    run_id: str
    scenario: str
    interval: int | None = None
    batch_size: int | None = None
    priority: Priority | None = None
    fields: Mapping[str, Any] | None = None
    paused: bool | None = None


class SerialGroup:
    """Lanes that are served as one: they share rows that change, so the one whose turn is the earliest goes first.

    ``rank`` is the place in the queue that it has, ``serial`` the entry there that counts.
    """

    def __init__(self, lanes: list[ActiveStream]) -> None:
        self.lanes = lanes
        self.rank: int | None = None
        self.serial = 0

    @property
    def wanted(self) -> int | None:
        """The rank of the most urgent lane that waits; None when none does, or one is being served."""
        if any(one.serving for one in self.lanes):
            return None
        return min((one.priority.rank for one in self.lanes if one.turn is not None), default=None)

    def next(self) -> ActiveStream | None:
        """The lane to be served; None as in ``wanted``."""
        if any(one.serving for one in self.lanes):
            return None
        turns = [(one.turn, one) for one in self.lanes if one.turn is not None]
        return min(turns, key=operator.itemgetter(0))[1] if turns else None


class ActiveStream:
    """A stream, the settings in force on it, its waiting tick, its jobs and its counts.

    A setting comes from the newest layer that has it, else from the operator, else from the declaration. No event of a
    tick lies before ``begin``.
    """

    def __init__(self, source: streams.Stream, speed: float, anchor: float, begin: float = -math.inf) -> None:
        self.source = source
        self.speed = speed
        self.anchor = anchor
        self._begin = begin
        self.enabled = source.spec.enabled
        self.paused = False
        self.set: dict[str, Any] = {}
        self.layers: dict[tuple[str, int], ActiveOverlay] = {}
        self.due: collections.deque[float] = collections.deque()
        # By the time of a tick the layer under which it came to be due: it may be gone when the tick is made
        self.due_by: dict[float, ActiveOverlay] = {}
        self.jobs: collections.deque[Job] = collections.deque()
        self.serving: Job | None = None
        self._points: Schedule | None = None
        self.unit = SerialGroup([self])
        self.counts = status.StreamCounts()
        self.rate = status.EventRate(anchor)
        self.health = status.ErrorLog()

    @property
    def spec(self) -> spec.StreamSpec:
        """The declaration in force."""
        return self.source.spec

    @property
    def name(self) -> str:
        """The stream's name."""
        return self.source.spec.name

    def _layered(self, attribute: str) -> Any:
        if not self.layers:
            return None
        found = (getattr(layer, attribute) for layer in reversed(self.layers.values()))
        return next((value for value in found if value is not None), None)

    @property
    def interval(self) -> float | None:
        """Milliseconds between ticks, None when it has none. Only the declared interval is divided by the speed."""
        chosen = self._layered("interval") or self.set.get("interval")
        if chosen is not None:
            return float(chosen)
        return None if self.spec.interval is None else self.spec.interval / self.speed

    @property
    def batch_size(self) -> int:
        """Events of one tick."""
        return int(self._layered("batch_size") or self.set.get("batch_size") or self.spec.batch_size)

    @property
    def gathers(self) -> bool:
        """Whether the events of a tick happened before it: since the tick before."""
        return self.spec.follow is not None or (
            self.spec.rate is not None and self.interval is None and self.batch_size > 1
        )

    @property
    def priority(self) -> Priority:
        """Who goes first among due ticks."""
        return self._layered("priority") or self.set.get("priority") or self.spec.priority

    @property
    def fields(self) -> dict[str, Any] | None:
        """The templates that layers put in place of declared ones, the newest last."""
        if not self.layers:
            return None
        layers = [layer.fields for layer in self.layers.values() if layer.fields]
        return {key: value for fields in layers for key, value in fields.items()} or None

    @property
    def shaping(self) -> ActiveOverlay | None:
        """The layer without which its ticks would not be what they are, the newest of several.

        One that says what events hold goes before those that say how many there are, or that there are any.
        """
        newest = list(reversed(self.layers.values()))
        return next((one for one in newest if one.fields), None) or next(
            (one for one in newest if one.interval or one.batch_size or (self.paused and one.paused is False)), None
        )

    @property
    def halted(self) -> bool:
        """Whether a pause is in force."""
        paused = self._layered("paused")
        return self.paused if paused is None else bool(paused)

    @property
    def ticking(self) -> bool:
        """Whether the clock has to fire for it."""
        return self.enabled and not self.halted

    @property
    def state(self) -> str:
        """``running``, ``paused``, ``stopped`` or ``failing``."""
        if not self.enabled:
            return "stopped"
        if self.halted:
            return "paused"
        return "failing" if self.health.fault else "running"

    def schedule(self) -> Schedule:
        """When its ticks are due, by what is in force now. The same anchor keeps the phase of every interval."""
        self._points = self._schedule()
        return self._points

    def ticks(self, points: Iterable[float]) -> list[streams.Tick]:
        """What its ticks at some points of ``schedule`` are."""
        size, found = self.batch_size, self._points
        if isinstance(found, Arrivals):
            return self.source.ticks((due, size, self._moments(found, due)) for due in points)
        return self.source.ticks((due, size, None) for due in points)

    def _moments(self, points: Arrivals, due: float) -> list[float] | None:
        found = points.moments(due)
        if found and found[0] < self._begin <= due:
            # The first tick has the arrivals since one that there never was
            return found[bisect.bisect_left(found, self._begin) :]
        return found

    def points_after(self, due: float, count: int) -> Iterator[float]:
        """The next ``count`` points of its schedule, or as many as there are."""
        points = self._points
        while points is not None and count > 0:
            following, _ = points.after(due, due)
            if following is None:
                return
            yield following
            due, count = following, count - 1

    def move(self, delta: float) -> None:
        """The system's clock was set on by ``delta`` seconds, and its schedule on the clock with it."""
        self.anchor += delta
        if self._points is not None:
            self._points = self._points.moved(delta)

    def _schedule(self) -> Schedule:
        seed, spec = self.source.workshop.seed, self.spec
        interval = self.interval
        if interval is not None:
            return Schedule.interval(interval, self.anchor, spec.jitter, seed, spec.name)
        if spec.rate is None:
            return Schedule.cron(spec.schedule or "", spec.timezone, spec.jitter, seed, spec.name)
        return Arrivals.declared(spec.rate, spec.timezone, self.speed, size=self.batch_size, seed=seed, name=spec.name)

    @property
    def patience(self) -> int:
        """How many of its ticks may wait: those of a rate come close together by chance."""
        return MAX_WAITING if isinstance(self._points, Arrivals) else 1

    def target(self, now: float) -> float | None:
        """How many events a second there are to be at ``now``; None where that is not declared."""
        if self.spec.follow is not None:
            return None
        interval = self.interval
        if interval is not None:
            return self.batch_size / interval * 1000
        return self._points.at(now) if isinstance(self._points, Arrivals) else None

    @property
    def turn(self) -> tuple[float, str] | None:
        """What it waits for, as its place in logical time; None when that is nothing. What was begun goes first."""
        first = self.jobs[0] if self.jobs else None
        if first is not None and first.begun:
            return -math.inf, self.name
        if self.due:
            return self.due[0], self.name
        return None if first is None else (first.at, self.name)

    def wait(self, due: float) -> None:
        """Let a tick wait."""
        self.due.append(due)
        layer = self.shaping if self.layers else None
        if layer is not None:
            self.due_by[due] = layer

    def forget_ticks(self) -> None:
        """Drop the ticks that wait."""
        self.due.clear()
        self.due_by.clear()

    def begin_tick(self) -> tuple[float, ActiveOverlay | None]:
        """Take the first tick that waits, and the layer without which it would not be what it is."""
        due = self.due.popleft()
        before = self.due_by.pop(due, None) if self.due_by else None
        return due, (self.shaping if self.layers else None) or before

    def of_runs(self) -> set[str | None]:
        """The runs of which events are still to be made."""
        return {job.run_id for job in self.jobs} | {layer.run_id for layer in self.due_by.values()}

    def take_over(self, attribute: str) -> None:
        """Clear an attribute in all layers: what an operator sets is neither hidden by a run nor undone at its end."""
        for layer in self.layers.values():
            setattr(layer, attribute, None)

    def replace(self, source: streams.Stream, speed: float) -> None:
        """Go on with a changed declaration: numbering, pause and layers stay, what was set on the old one goes."""
        source.go_on(self.source)
        if source.spec.enabled != self.spec.enabled:
            self.enabled = source.spec.enabled
        self.source, self.speed = source, speed
        self.set.clear()
        self.health.forget()

    def add(self, job: Job) -> None:
        """Queue a burst. Raises Overloaded when too many wait."""
        if len(self.jobs) >= MAX_JOBS:
            raise errors.Overloaded(f"the queue of bursts of {self.name}")
        self.jobs.append(job)

    def withdraw(self, job: Job) -> None:
        """Nobody waits for a burst any more: drop it, unless it has begun."""
        if job in self.jobs and job is not self.serving and not job.made:
            self.jobs.remove(job)
            job.span.end("nobody waits for it any more")

    def clear(self, reason: errors.RegstreamError) -> None:
        """Drop what waits. Bursts end with the events that they have made, or with ``reason`` when they have none."""
        self.forget_ticks()
        for job in self.jobs:
            if job is not self.serving:
                job.settle(reason)
        self.jobs.clear()


def regroup(lanes: Iterable[ActiveStream]) -> list[SerialGroup]:
    """Put together what is to be served as one; gives the units that are new."""
    by_name = {lane.name: lane for lane in lanes}
    made = []
    for group in streams.partition_by_shared_rows(lane.source for lane in by_name.values()):
        members = [by_name[name] for name in group]
        # One that stays as it is keeps its place in the queue
        if members[0].unit.lanes != members:
            made.append(SerialGroup(members))
            for lane in members:
                # What stands in the queue for the old one no longer counts
                lane.unit.serial += 1
                lane.unit = made[-1]
    return made


def begun(source: streams.Stream, speed: float, begin: float) -> ActiveStream:
    """The lane of a stream that begins at ``begin``."""
    return ActiveStream(source, speed, anchor(source.spec.name, begin, (source.spec.interval or 1_000) / speed), begin)


def of_catalog(workshop: streams.GenerationContext, begin: float, epoch: str) -> list[ActiveStream]:
    """The lanes of all streams of a catalog, as they begin at ``begin``."""
    catalog = workshop.catalog
    sources = [streams.Stream(spec, workshop, epoch) for spec in catalog.streams.values()]
    made = [begun(source, catalog.profile.speed, begin) for source in sources]
    regroup(made)
    return made


def anchor(name: str, now: float, interval: float) -> float:
    """The time of the first tick: soon, but not the same instant for all streams."""
    share = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "little") / 2**32
    return now + share * min(interval, 1_000) / 1000


def layer_of(overlay: spec.Overlay, run_id: str, scenario: str) -> ActiveOverlay:
    """The layer that a ``set`` step asks for."""
    return ActiveOverlay(run_id, scenario, **{name: getattr(overlay, name) for name in _LAID_OVER})


Key = tuple[str, int]


class StreamRegistry:
    """All lanes in force. A layer is known by its ``Key``: the id of the run that laid it, and the run's own number."""

    def __init__(self, timer: schedule.Clock, regrouped: Callable[[SerialGroup], None]) -> None:
        self._clock = timer
        self._regrouped = regrouped
        self._lanes: dict[str, ActiveStream] = {}
        self._layers: dict[Key, ActiveStream] = {}

    def all(self) -> list[ActiveStream]:
        """All lanes, in the order of the files."""
        return list(self._lanes.values())

    def get(self, name: str) -> ActiveStream | None:
        """The lane of a stream, None when there is none."""
        return self._lanes.get(name)

    def find(self, name: str) -> ActiveStream:
        """The lane of a stream. Raises UnknownName."""
        lane = self._lanes.get(name)
        if lane is None:
            raise errors.UnknownName("stream", name, errors.near(name, self._lanes))
        return lane

    def add(self, lane: ActiveStream) -> None:
        """Bring a stream in and let it tick."""
        self._lanes[lane.name] = lane
        self.arm(lane)

    def remove(self, name: str) -> None:
        """Take a stream out for good, with all that waits for it and lies over it."""
        lane = self._lanes.pop(name)
        self._clock.remove(name)
        lane.clear(errors.Conflict(f"stream {name} was removed"))
        for key in lane.layers:
            del self._layers[key]

    def order(self, names: Iterable[str]) -> None:
        """Show the lanes in this order, of which ``names`` are all, and put together what is to be served as one."""
        self._lanes = {name: self._lanes[name] for name in names}
        for unit in regroup(self._lanes.values()):
            self._regrouped(unit)

    def arm(self, lane: ActiveStream) -> bool:
        """Let the clock fire for a lane as what is in force on it says; True when a tick of before is still to come."""
        # A jump of the system's clock has to move the anchor before a schedule is made with it
        self._clock.look()
        if lane.ticking:
            return self._clock.set(lane.name, lane.schedule())
        self._clock.remove(lane.name)
        lane.forget_ticks()
        return False

    def begin(self, now: float) -> None:
        """Let lanes that have not ticked yet begin now: the point that they got may have passed meanwhile."""
        for lane in self._lanes.values():
            if not lane.counts.ticks:
                lane.anchor = anchor(lane.name, now, lane.interval or 1_000)
                self.arm(lane)

    def next(self, lane: ActiveStream) -> float | None:
        """When a lane is due next, epoch seconds."""
        return self._clock.next(lane.name)

    def move(self, delta: float) -> None:
        """The system's clock was set on by ``delta`` seconds: keep later schedules in phase with those on the clock."""
        for lane in self._lanes.values():
            lane.move(delta)
            lane.due_by.clear()

    def lay(self, stream: str, key: Key, layer: ActiveOverlay) -> None:
        """Lay a layer over a stream. Raises UnknownName."""
        lane = self.find(stream)
        lane.layers[key] = layer
        self._layers[key] = lane
        self.arm(lane)

    def lift(self, key: Key) -> None:
        """Take a layer away again; one that is gone with its stream does not matter."""
        lane = self._layers.pop(key, None)
        if lane is not None:
            shaping, due = lane.shaping, self._clock.next(lane.name)
            del lane.layers[key]
            # Only the clock can tell: what is not due at one look may be at the next
            if self.arm(lane) and shaping is not None and due is not None:
                lane.due_by[due] = shaping

    def lift_all(self, run_id: str) -> None:
        """Take away what a run has laid, the newest first."""
        for key in [key for key in reversed(self._layers) if key[0] == run_id]:
            self.lift(key)
