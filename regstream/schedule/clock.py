"""The clock: one heap over what is due next, one timer in the event loop."""

from __future__ import annotations

import asyncio
import dataclasses
import heapq
import itertools
import logging
import math
from collections.abc import Callable, Hashable

from regstream.schedule import schedule

JUMP = 2.0
QUANTUM = 0.002
LEAST = 0.0005
MAX_SLEEP = 5.0
MAX_FIRES = 200
_NEVER = math.inf
_BEFORE = -math.inf

_log = logging.getLogger("regstream.clock")


@dataclasses.dataclass(slots=True, eq=False)
class _Entry:
    """What may stand in the heap; only the place there that has its present ``serial`` counts."""

    key: Hashable
    due: float
    serial: int = dataclasses.field(default=0, init=False)


@dataclasses.dataclass(slots=True, eq=False)
class _Wake(_Entry):
    callback: Callable[[], None]


@dataclasses.dataclass(slots=True, eq=False)
class _Line(_Entry):
    """A schedule under its name. ``served`` is the point fired last; what passed up to ``since`` is not counted."""

    points: schedule.Schedule
    served: float = _BEFORE
    since: float = _BEFORE


class Clock:
    """Calls ``fire(name, due, skipped)`` at the points of the schedules that are set, and callbacks at their time.

    ``due`` is the exact point, jitter included: lateness is the time of the call less ``due``. ``skipped`` is how many
    points after ``due`` have passed as well and will not be fired. Calls are synchronous, in the order of their times,
    never early; they may use the clock, but what they raise ends ``run``.

    ``now`` gives epoch seconds. When it jumps by more than ``JUMP`` seconds against ``steady`` (left out: the event
    loop's own time), intervals and wakes move along, so that nothing storms and nothing falls silent; what follows the
    wall clock goes by its new time. ``jumped`` is then told by how much, to move the starts of later schedules too.

    With ``every`` no point is skipped, however late it is; without it those are not that a schedule is patient with.

    All methods belong to the event loop's thread; a synchronous block of them is one change.
    """

    def __init__(
        self,
        now: Callable[[], float],
        fire: Callable[[str, float, int], None],
        jumped: Callable[[float], None] | None = None,
        steady: Callable[[], float] | None = None,
        *,
        every: bool = False,
    ):
        self._now = now
        self._patience = math.inf if every else 0.0
        self._fire = fire
        self._jumped = jumped
        self._steady = steady
        self._ahead: float | None = None
        self._paused = False
        self._gap = _NEVER
        self._turning = _BEFORE
        self._lines: dict[str, _Line] = {}
        self._wakes: dict[Hashable, _Wake] = {}
        self._heap: list[tuple[float, int, _Entry]] = []
        self._serials = itertools.count(1)
        self._end: asyncio.Future[None] | None = None
        self._step_at: asyncio.Handle | None = None
        self._rung = False

    @property
    def paused(self) -> bool:
        """True between ``pause`` and ``resume``."""
        return self._paused

    def set(self, name: str, points: schedule.Schedule) -> bool:
        """Fire ``name`` by these points from now on, in place of those that it had.

        A tick that is due already and not yet fired is not lost: True when there is one. One that was fired does not
        come again.
        """
        _log.debug("the schedule of %s is set", name, extra={"stream": name})
        now = self.look()
        line = self._lines.setdefault(name, _Line(name, _NEVER, points))
        line.points, line.since = points, now
        if line.due <= now:
            return True
        self._begin(line, now)
        return False

    def remove(self, name: str) -> None:
        """Fire ``name`` no more; nothing happens when it is not set."""
        self._drop(self._lines.pop(name, None))

    def next(self, name: str) -> float | None:
        """When ``name`` is due next, paused or not; None when it is not set or never comes."""
        line = self._lines.get(name)
        return None if line is None or line.due == _NEVER else line.due

    def wake(self, key: Hashable, when: float, callback: Callable[[], None]) -> None:
        """Call ``callback`` once at ``when``, or soon when that is past, in place of what ``key`` stood for."""
        self.look()
        self.cancel(key)
        self._wakes[key] = _Wake(key, when, callback)
        self._push(self._wakes[key])

    def cancel(self, key: Hashable) -> None:
        """Forget a wake; nothing happens when there is none."""
        self._drop(self._wakes.pop(key, None))

    def pause(self) -> None:
        """Fire and call nothing until ``resume``."""
        self._paused = True

    def resume(self, since: float | None = None) -> None:
        """Go on: schedules in phase, without counting what they missed; wakes that came due are called at once.

        Points from ``since`` on are fired, if given, also those that have passed meanwhile.
        """
        now = self.look()
        now = now if since is None else since
        self._paused = False
        for line in self._lines.values():
            line.since = now
            if line.due < now:
                self._begin(line, now)
        self._ring()

    async def run(self) -> None:
        """Fire what is due when it is due, until cancelled."""
        loop = asyncio.get_running_loop()
        self._steady = self._steady or loop.time
        self._end = loop.create_future()
        self._rung = True
        self._step_at = loop.call_soon(self._step)
        try:
            await self._end
        finally:
            self._end = None
            self._step_at.cancel()

    def _step(self) -> None:
        # Called by the loop itself, since a task that a timer wakes costs one more round of the loop each time
        end = self._end
        if end is None or end.done():
            return
        try:
            delay = self.turn()
        except Exception as error:
            end.set_exception(error)
            return
        # Cleared after the turn: what the turn itself rings for is in its answer
        self._rung = False
        self._step_at = end.get_loop().call_later(delay, self._step)

    def turn(self) -> float:
        """Fire what is due now, ``MAX_FIRES`` at most; seconds to wait for the next turn, 0 when there is more.

        ``run`` does nothing but this and wait.
        """
        self._turning, self._gap = self.look(), _NEVER
        try:
            return self._turn(self._turning)
        finally:
            self._turning = _BEFORE

    def _turn(self, now: float) -> float:
        for _ in range(MAX_FIRES):
            if self._paused or not self._heap:
                return MAX_SLEEP
            if self._heap[0][0] > now:
                return self._rest(self._heap[0][0])
            _, serial, entry = heapq.heappop(self._heap)
            if serial == entry.serial:
                self._serve(entry, now)
        return 0.0

    def _rest(self, due: float) -> float:
        # A turn costs about 0.1 ms, so that what is due within two shares one; but no longer than the ticks of a fast
        # stream can bear, and never so short that an interval of microseconds keeps a core busy.
        least = min(QUANTUM, max(LEAST, self._gap / 2))
        return min(max(due - self._now(), least), MAX_SLEEP)

    def _serve(self, entry: _Entry, now: float) -> None:
        if isinstance(entry, _Wake):
            del self._wakes[entry.key]
            entry.callback()
        elif isinstance(entry, _Line):
            due = entry.served = entry.due
            since = max(due, entry.since)
            following, skipped = entry.points.after(since, max(since, now - self._patient(entry)))
            entry.due = _NEVER if following is None else following
            self._gap = min(self._gap, entry.due - due)
            self._push(entry)
            self._fire(str(entry.key), due, skipped)

    def _patient(self, line: _Line) -> float:
        """How many seconds late a point of it is still fired."""
        return max(self._patience, line.points.patience)

    def _begin(self, line: _Line, now: float) -> None:
        due = line.points.first(now)
        if due is not None and due <= line.served:
            due = line.points.after(line.served, now)[0]
        line.due = _NEVER if due is None else due
        self._push(line)

    def _push(self, entry: _Entry) -> None:
        entry.serial = next(self._serials)
        if entry.due == _NEVER:
            return
        if len(self._heap) > 2 * (len(self._lines) + len(self._wakes)) + 64:
            self._heap = [place for place in self._heap if place[1] == place[2].serial]
            heapq.heapify(self._heap)
        # What is set by a callback for a time that is past has to wait for the next turn: it might do so for ever.
        # A schedule goes on by itself, and its late points keep their place among those of others.
        goes_on = isinstance(entry, _Line) and self._patient(entry) > 0
        place = entry.due if goes_on else max(entry.due, math.nextafter(self._turning, _NEVER))
        heapq.heappush(self._heap, (place, entry.serial, entry))
        if self._heap[0][2] is entry:
            self._ring()

    def _drop(self, entry: _Entry | None) -> None:
        if entry is not None:
            entry.serial = 0

    def _ring(self) -> None:
        """Take the next turn as soon as the loop comes to it."""
        if self._end is not None and self._step_at is not None and not self._rung:
            self._rung = True
            self._step_at.cancel()
            self._step_at = self._end.get_loop().call_soon(self._step)

    def look(self) -> float:
        """The time, after a look whether it has jumped. Small steps are taken as they come."""
        now = self._now()
        if self._steady is not None:
            ahead = now - self._steady()
            delta = 0.0 if self._ahead is None else ahead - self._ahead
            self._ahead = ahead
            if abs(delta) > JUMP:
                self._jump(delta, now)
        return now

    def _jump(self, delta: float, now: float) -> None:
        _log.warning(
            "the system's clock was set %s by %.1f s, intervals go on", "on" if delta > 0 else "back", abs(delta)
        )
        for line in self._lines.values():
            self._move(line, delta, now)
        for wake in self._wakes.values():
            wake.due += delta
            self._push(wake)
        if self._jumped is not None:
            self._jumped(delta)

    def _move(self, line: _Line, delta: float, now: float) -> None:
        moved = line.points.moved(delta)
        if moved is not line.points:
            # Asked for, not added: the sum may miss the point by a rounding, and the tick would come twice.
            due = moved.first(line.due + delta - 1e-6)
            line.points, line.due = moved, _NEVER if due is None else due
            line.served += delta
            line.since += delta
            self._push(line)
        elif delta < 0:
            line.served, line.since = _BEFORE, now
            self._begin(line, now)
