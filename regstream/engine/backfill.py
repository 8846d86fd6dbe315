"""The past, made at full speed: the ticks of all lanes in the order of logical time, by the schedules that run live.

Nothing here waits or knows the wall clock: who asks says up to when.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import gc
import hashlib
import itertools
import marshal
import multiprocessing
import operator
import os
import pickle
import signal
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from multiprocessing import connection
from typing import Any, Generic, NamedTuple, TypeVar

from regstream import errors, schedule, spec
from regstream.engine import active_stream
from regstream.event import Event, Position, rfc3339, ulid
from regstream.generator import alerts
from regstream.generator import stream as streams

WINDOW = 20_000
"""About how many events are made at once, and are in memory together."""
MOST_HELD = 100_000
"""So many events are held back at most for the sake of their order."""
_FIRST_SPAN = 1.0
_LEAST_SPAN = 0.001
_GROWTH = 4.0
Observe = Callable[[active_stream.ActiveStream, streams.Batch, float], None]


Made = tuple[float, str, Sequence[Event], Sequence[alerts.Raised]]
"""One tick: when it was due, its stream, its events and what they raised. The first two sort it."""


Window = tuple[float, float]
"""From when to when."""
_ORDER, _EVENTS, _RAISED = operator.itemgetter(0, 1), operator.itemgetter(2), operator.itemgetter(3)
_flat = itertools.chain.from_iterable
_KEY = operator.itemgetter(0)
_RECORDED = b'"recordedtime":"'


class BackfillWindows:
    """Spans of time in a row, each so long that about ``size`` events come of it."""

    def __init__(self, begin: float, size: int) -> None:
        self._next = begin
        self._size = size
        self._span = _FIRST_SPAN

    def upto(self, end: float) -> Iterator[Window]:
        """Those before ``end``, each from where the one before ended."""
        while self._next < end:
            start, self._next = self._next, min(end, self._next + self._span)
            yield start, self._next

    def adapt(self, window: Window, size: int) -> None:
        """Learn how many came of one, which others may have followed already."""
        factor = max(1 / _GROWTH, min(_GROWTH, self._size / max(1, size)))
        self._span = max(_LEAST_SPAN, (window[1] - window[0]) * factor)


Item = TypeVar("Item")


class TimeOrder(Generic[Item]):
    """Puts what is made tick by tick in the order of time.

    The events of a tick of a rate, and what a stream tells that follows an entity, happened before that tick is due: so
    what other streams made meanwhile is held back until no earlier event can come. Never more than ``most`` are held:
    of more, the earlier half goes out. An event that is late by its declaration has its place where it arrives.
    """

    def __init__(self, lanes_: Iterable[active_stream.ActiveStream], most: int = MOST_HELD) -> None:
        self._late = {lane.name for lane in lanes_ if lane.spec.arrival is not None}
        self._most = most
        self._held: list[tuple[str, Item]] = []

    def key(self, event: Event) -> str:
        """When it arrives, as text that sorts."""
        if event.head.stream in self._late:
            return event.value.partition(_RECORDED)[2][: len(event.head.time)].decode()
        return event.head.time

    def keyed(self, events: Iterable[Event]) -> list[tuple[str, Event]]:
        """Events by their keys."""
        if self._late:
            return [(self.key(event), event) for event in events]
        return [(event.head.time, event) for event in events]

    def put(self, items: Iterable[tuple[str, Item]], horizon: float | None) -> list[Item]:
        """Take items by their keys, those of one key in their order; give those up to ``horizon``, None for all."""
        held = self._held
        held += items
        held.sort(key=_KEY)
        count = len(held) if horizon is None else bisect.bisect_right(held, rfc3339(horizon), key=_KEY)
        count = max(count, (len(held) - self._most > 0) * len(held) // 2)
        self._held = held[count:]
        return [item for _, item in held[:count]]


class Backfill:
    """What lanes would have made from ``begin`` on; ``at`` is how far it has come.

    ``lanes_`` gives those in force, which may change between two windows. What is ``known`` already, as the last number
    of each stream, is not given out again: its events are made only where something else depends on them. ``observe``
    is told of what is made, with the logical time. ``window`` is about how many events are made between two looks at
    what is in force. One that is ``strict`` makes nothing of a stream after a fault, of which ``observe`` is told.
    """

    def __init__(
        self,
        lanes_: Callable[[], Iterable[active_stream.ActiveStream]],
        alerting: streams.Stream,
        begin: float,
        known: Mapping[str, int] | None = None,
        observe: Observe | None = None,
        window: int = WINDOW,
        *,
        strict: bool = False,
    ) -> None:
        self.at = begin
        self._begin = begin
        self._lanes = lanes_
        self._alerts = alerting
        self._known = known or {}
        self._observe = observe
        self._strict = strict
        self._windows = BackfillWindows(begin, window)
        self._schedules: dict[str, tuple[object, schedule.Schedule]] = {}
        self._last: dict[str, float] = {}

    @property
    def horizon(self) -> float:
        """No event that is still to be made happened before this, but for those that arrive late."""
        gathering = [lane.name for lane in self._lanes() if lane.ticking and lane.gathers and lane.spec.arrival is None]
        return min((self._last.get(name, self._begin) for name in gathering), default=self.at)

    def until(self, end: float) -> Iterator[list[Event]]:
        """The events of all ticks before ``end``, in the order of time; of the same time, in that of names.

        They come in windows, some of which may be empty. Alerts follow the tick that raised them.
        """
        for window in self._windows.upto(end):
            made = self.window(*window)
            self._windows.adapt(window, sum(map(len, map(_EVENTS, made))) + len(made))
            made.sort(key=_ORDER)
            yield list(self._numbered(made) if any(map(_RAISED, made)) else _flat(map(_EVENTS, made)))

    def _numbered(self, made: list[Made]) -> Iterator[Event]:
        known = self._known.get(spec.ALERTS, 0)
        for _, _, events, raised in made:
            yield from events
            if raised:
                yield from (event for event in alerts.batch(self._alerts, raised) if event.seq > known)

    def window(self, start: float, end: float) -> list[Made]:
        """The ticks from ``start`` to ``end``, unit by unit; what lies before was made."""
        made: list[Made] = []
        for unit in {id(lane.unit): lane.unit for lane in self._lanes()}.values():
            at_work = [lane for lane in unit.lanes if lane.ticking]
            if len(at_work) == 1:
                lane = at_work[0]
                made += self._ticks(lane, self._passed(unit, lane, self._points(lane, start, end)))
            else:
                made += self._together(at_work, start, end)
        self.at = end
        return made

    def _points(self, lane: active_stream.ActiveStream, start: float, end: float) -> list[float]:
        in_force = (lane.source, lane.interval, lane.anchor, lane.speed, lane.batch_size)
        found = self._schedules.get(lane.name)
        if found is None or found[0] != in_force:
            found = self._schedules[lane.name] = in_force, lane.schedule()
        points = found[1].between(start, end)
        if points:
            self._last[lane.name] = points[-1]
        return points

    def _passed(
        self, unit: active_stream.SerialGroup, lane: active_stream.ActiveStream, points: list[float]
    ) -> list[float]:
        """Points that are left when those are passed over of which all is known, and nothing depends on them."""
        source, known = lane.source, self._known.get(lane.name, 0)
        # How many events a tick of a rate has is known when it is made
        if lane.gathers:
            return points
        if (
            source.seq >= known
            or source.spec.alert is not None
            or len(unit.lanes) > 1
            or source.changes
            or not source.counted
        ):
            return points
        number = min(len(points), (known - source.seq) // lane.batch_size)
        source.seq += number * lane.batch_size
        return points[number:]

    def _together(self, at_work: list[active_stream.ActiveStream], start: float, end: float) -> Iterator[Made]:
        """Ticks of lanes that share rows, one after the other; those of the same lane in a row at once."""
        turns = [(due, lane.name, lane) for lane in at_work for due in self._points(lane, start, end)]
        turns.sort(key=_ORDER)
        for lane, run in itertools.groupby(turns, key=operator.itemgetter(2)):
            yield from self._ticks(lane, [due for due, *_ in run])

    def _ticks(self, lane: active_stream.ActiveStream, points: list[float]) -> Iterable[Made]:
        if not points:
            return ()
        ticks = lane.ticks(points)
        batch = lane.source.next_ticks(ticks, strict=self._strict)
        if self._observe is not None:
            self._observe(lane, batch, points[-1])
        events, name = batch.events, lane.name
        known = self._known.get(name, 0)
        if batch.counts == [1] * len(points) and not batch.signals and events[0].seq > known:
            return zip(points, itertools.repeat(name), zip(events, strict=True), itertools.repeat(()), strict=False)
        return self._apart(name, points, batch, known)

    def _apart(self, name: str, points: list[float], batch: streams.Batch, known: int) -> Iterator[Made]:
        """What was made at once, by tick."""
        signals, begin = iter(batch.signals), 0
        signal = next(signals, None)
        for due, count in zip(points, batch.counts, strict=True):
            events = batch.events[begin : begin + count]
            begin += count
            raised = []
            while signal is not None and events and signal.seq <= events[-1].seq:
                raised.append(alerts.Raised.by(name, signal, due))
                signal = next(signals, None)
            if events and events[0].seq <= known:
                events = [event for event in events if event.seq > known]
            yield due, name, events, raised


def epoch(seed: int, begin: float) -> str:
    """The name of the numbering that begins at ``begin``: the same for the same seed."""
    digest = hashlib.blake2b(f"{seed} {begin}".encode(), digest_size=10, person=b"epoch").digest()
    return ulid(begin, int.from_bytes(digest))


def check(known: Mapping[str, Position], name: str) -> None:
    """Whether what is known is of the numbering ``name``. Raises StartError."""
    other = next((stream for stream, position in known.items() if position.epoch != name), None)
    if other is not None:
        raise errors.StartError(
            "cannot make a history",
            f"there are events of {other} already that did not begin so: give the --from and the seed that they were"
            " made with, or leave --from out to go on after them, or use topics and a database without events",
        )


_AHEAD = 2
"""So many windows a process has to make, that it does not wait for the others."""
_END_SECONDS = 5.0
_RARE = 1 / 60

_Text = tuple[str, bytes]
"""A line by the key of its event."""
_Told = tuple[float, str, list[_Text], int, list[tuple[Any, ...]]]
"""A tick as it goes through a pipe: when it was due, its stream, its lines, how many events, and what they raised."""


class Lines(NamedTuple):
    """Events in the order of their time as JSON lines, each with its end."""

    text: bytes
    number: int


def as_lines(events: Sequence[Event]) -> bytes:
    """Events as JSON lines, each with its end."""
    return b"".join([line for event in events for line in (event.value, b"\n")])


class BackfillPool:
    """Processes that make the past of some lanes from ``begin`` on; ``at`` is how far it has come.

    There are as many as ``jobs``, unless told as many as the machine has cores. They are there inside of ``with``,
    which gives None where there is nothing to share: there is one unit only, or the system is none where processes fork
    safely. Of streams that are not ``wanted`` there is no line; None stands for all.
    """

    def __init__(
        self,
        at_work: Sequence[active_stream.ActiveStream],
        alerting: streams.Stream,
        begin: float,
        jobs: int | None,
        observe: Observe,
        wanted: Container[str] | None = None,
    ) -> None:
        self.at = begin
        self._alerts = alerting
        self._wanted = wanted
        self._windows = BackfillWindows(begin, WINDOW)
        self._order: TimeOrder[bytes] = TimeOrder(at_work)
        self._shares = [
            Backfill(functools.partial(iter, some), alerting, begin, observe=observe, strict=True)
            for some in _shared(at_work, jobs or _cores())
        ]
        self._workers: list[multiprocessing.process.BaseProcess] = []
        self._pipes: list[connection.Connection] = []

    def __enter__(self) -> BackfillPool | None:
        if len(self._shares) < 2 or sys.platform != "linux":
            return None
        try:
            for number, share in enumerate(self._shares):
                self._begin(f"history-{number}", share)
        except OSError as error:
            self.__exit__()
            raise errors.Conflict(
                f"the system gives no further process or pipe, --jobs 1 needs none: {error.strerror}"
            ) from error
        return self

    def _begin(self, name: str, share: Backfill) -> None:
        forking = multiprocessing.get_context("fork")
        ours, theirs = forking.Pipe()
        self._pipes.append(ours)
        worker = forking.Process(target=self._work, args=(share, theirs, tuple(self._pipes)), name=name, daemon=True)
        with theirs:
            worker.start()
        self._workers.append(worker)

    def __exit__(self, *_: object) -> None:
        for pipe in self._pipes:
            pipe.close()
        # They hold nothing that has to be saved, and may be in the middle of a window
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.join()
            worker.close()

    def until(self, end: float) -> Iterator[Lines]:
        """What all of them make before ``end``, in the order of time; of the same time, in that of names.

        Raises what a process raised that made its part, and Conflict when one of them is gone.
        """
        windows = self._windows.upto(end)
        asked = [self._ask(window) for window in itertools.islice(windows, _AHEAD)]
        while asked:
            answers = [self._told(number) for number in range(len(self._pipes))]
            ticks = [tick for _, part in answers for tick in part]
            self._windows.adapt(asked[0], sum(map(operator.itemgetter(3), ticks)) + len(ticks))
            asked += [self._ask(window) for window in itertools.islice(windows, 1)]
            _, self.at = asked.pop(0)
            ticks.sort(key=operator.itemgetter(0, 1))
            horizon = min(horizon for horizon, _ in answers) if asked else None
            lines = self._order.put(self._lines(ticks), horizon)
            yield Lines(b"".join(lines), len(lines))

    def _ask(self, window: Window) -> Window:
        for pipe in self._pipes:
            # One that is gone is told of when its answer is looked for
            with contextlib.suppress(OSError):
                pipe.send(window)
        return window

    def _told(self, number: int) -> tuple[float, list[_Told]]:
        try:
            answer = self._pipes[number].recv_bytes()
        except (EOFError, OSError):
            worker = self._workers[number]
            worker.join(_END_SECONDS)
            killed = ", perhaps for want of memory: --jobs 1 takes the least" * (worker.exitcode == -signal.SIGKILL)
            raise errors.Conflict(f"a process that made events ended with code {worker.exitcode}{killed}") from None
        kind, said = answer[:1], memoryview(answer)[1:]
        if kind == b"!":
            fault: errors.RegstreamError = pickle.loads(said)  # noqa: S301 - of a process of our own
            raise fault
        answered: tuple[float, list[_Told]] = marshal.loads(said)  # noqa: S302 - of a process of our own
        return answered

    def _lines(self, ticks: Sequence[_Told]) -> Iterator[_Text]:
        is_told = self._wanted is None or spec.ALERTS in self._wanted
        for _, _, lines, _, raised in ticks:
            yield from lines
            if raised:
                made = alerts.batch(self._alerts, itertools.starmap(alerts.Raised, raised))
                if is_told:
                    yield from self._keyed(made)

    def _keyed(self, events: Sequence[Event]) -> list[_Text]:
        return [(key, event.value + b"\n") for key, event in self._order.keyed(events)]

    # In the other process

    def _work(self, share: Backfill, pipe: connection.Connection, others: Sequence[connection.Connection]) -> None:
        # The one that asks is told of the signal, and ends them
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # With these open here, nobody would see that the one that asks is gone
        for other in others:
            other.close()
        with contextlib.suppress(EOFError, OSError):
            while True:
                start, end = pipe.recv()
                pipe.send_bytes(self._answer(share, start, end))
                gc.collect(0)

    def _answer(self, share: Backfill, start: float, end: float) -> bytes:
        try:
            made = [self._plain(*tick) for tick in share.window(start, end)]
        except errors.RegstreamError as error:
            return b"!" + pickle.dumps(error)
        return b"=" + marshal.dumps((share.horizon, made))

    def _plain(self, due: float, name: str, events: Sequence[Event], raised: Sequence[alerts.Raised]) -> _Told:
        told = [tuple(one) for one in raised] if raised else []
        wanted = self._wanted is None or name in self._wanted
        return due, name, self._keyed(events) if wanted else [], len(events), told


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1


def _shared(at_work: Sequence[active_stream.ActiveStream], jobs: int) -> list[list[active_stream.ActiveStream]]:
    """Lanes in at most so many parts of about the same work; those of a unit are in the same."""
    units = {id(lane.unit): lane.unit.lanes for lane in at_work if lane.ticking}
    weighed = [(sum(map(_events_a_second, unit)), unit) for unit in units.values()]
    parts: list[list[active_stream.ActiveStream]] = [[] for _ in range(min(jobs, len(units)))]
    loads = [0.0] * len(parts)
    for work, unit in sorted(weighed, key=operator.itemgetter(0), reverse=True):
        least = loads.index(min(loads))
        loads[least] += work
        parts[least] += unit
    return parts


def _events_a_second(lane: active_stream.ActiveStream) -> float:
    """Roughly."""
    if not lane.ticking:
        return 0.0
    if lane.spec.rate is not None:
        return lane.spec.rate.base * lane.speed
    return lane.batch_size * (_RARE if lane.interval is None else 1_000 / lane.interval)
