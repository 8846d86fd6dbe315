"""The floor: the lanes of all streams by name, their points on the clock, and what runs have laid over them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from regstream import clock, errors
from regstream.engine import lane as lanes

Key = tuple[str, int]


class Floor:
    """All lanes in force. A layer is known by its ``Key``: the id of the run that laid it, and the run's own number."""

    def __init__(self, timer: clock.Clock, regrouped: Callable[[lanes.Unit], None]) -> None:
        self._clock = timer
        self._regrouped = regrouped
        self._lanes: dict[str, lanes.Lane] = {}
        self._layers: dict[Key, lanes.Lane] = {}

    def all(self) -> list[lanes.Lane]:
        """All lanes, in the order of the files."""
        return list(self._lanes.values())

    def get(self, name: str) -> lanes.Lane | None:
        """The lane of a stream, None when there is none."""
        return self._lanes.get(name)

    def find(self, name: str) -> lanes.Lane:
        """The lane of a stream. Raises UnknownName."""
        lane = self._lanes.get(name)
        if lane is None:
            raise errors.UnknownName("stream", name, errors.near(name, self._lanes))
        return lane

    def add(self, lane: lanes.Lane) -> None:
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
        for unit in lanes.regroup(self._lanes.values()):
            self._regrouped(unit)

    def arm(self, lane: lanes.Lane) -> bool:
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
                lane.anchor = lanes.anchor(lane.name, now, lane.interval or 1_000)
                self.arm(lane)

    def next(self, lane: lanes.Lane) -> float | None:
        """When a lane is due next, epoch seconds."""
        return self._clock.next(lane.name)

    def move(self, delta: float) -> None:
        """The system's clock was set on by ``delta`` seconds: keep later schedules in phase with those on the clock."""
        for lane in self._lanes.values():
            lane.move(delta)
            lane.due_by.clear()

    def lay(self, stream: str, key: Key, layer: lanes.Layer) -> None:
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
