"""The interpreter of scenarios: a run is told the time and answers with actions, as data.

A run touches nothing: whoever drives it carries the actions out. Its time is logical. A step begins exactly when the
one before it ended, however late ``advance`` is called, and every action says for which moment it was meant; so the
actions of a run and their times depend on its declaration and its start alone.

At one moment, an overlay whose time is over is given back first, then branches go on in the order of the declaration.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Iterator, Sequence
from typing import Any

from regstream import spec

MAX_ACTIONS = 10_000


@dataclasses.dataclass(frozen=True, slots=True)
class Action:
    """Something that a run wants done; ``at`` is the moment it was meant for, in epoch seconds."""

    at: float


@dataclasses.dataclass(frozen=True, slots=True)
class Entered(Action):
    """A step began: ``path`` is its place (``steps[4].parallel[1][0]``), ``kind`` its key, ``text`` what it does."""

    path: str
    kind: str
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Raise(Action):
    """Raise an alert; ``message`` is a template."""

    severity: spec.Severity
    message: str


@dataclasses.dataclass(frozen=True, slots=True)
class Emit(Action):
    """Make ``count`` events at once; ``fields``, when given, are templates that stand in for the stream's own."""

    stream: str
    count: int
    fields: dict[str, Any] | None


@dataclasses.dataclass(frozen=True, slots=True)
class Apply(Action):
    """Lay ``overlay`` over its stream until ``Revert(token)``; a ``for`` in it is the run's business."""

    token: int
    overlay: spec.Overlay


@dataclasses.dataclass(frozen=True, slots=True)
class SetPaused(Action):
    """Pause a stream, or let it run, until ``Revert(token)``."""

    token: int
    stream: str
    paused: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Revert(Action):
    """Give back what the ``Apply`` or ``SetPaused`` with this token changed."""

    token: int


@dataclasses.dataclass(slots=True)
class _Branch:
    """One list of steps under way. ``order`` is its place in the tree of branches, ``at`` its time in ms of the run."""

    order: tuple[int, ...]
    at: int
    steps: Iterator[tuple[str, Any]]
    parent: _Branch | None = None
    children: int = 0
    text: str = ""


@dataclasses.dataclass(slots=True)
class _Held:
    """What one step has changed and not yet given back. ``until`` is in ms of the run, None: until the steps end."""

    token: int
    until: int | None
    text: str


class Run:
    """One execution of a scenario, from ``now`` (epoch seconds).

    The steps run; what they changed without a ``for`` is given back when they have ended, newest first; the run is
    completed when every ``for`` is over too. A step that is repeated while its change is in force renews it: the new
    token is applied, then the old one reverted, so no run holds more than one token a step.
    """

    def __init__(self, run_id: str, spec: spec.ScenarioSpec, now: float):
        self.run_id = run_id
        self.spec = spec
        self.state = "running"
        self.started = now
        self.ended: float | None = None
        self.error: str | None = None
        self._at = 0
        self._tokens = 0
        root = _Branch((), 0, _flat(spec.steps, "steps"))
        self._branches: list[tuple[int, tuple[int, ...], _Branch]] = [(0, (), root)]
        self._held: dict[str, _Held] = {}
        # One entry a path, not one a token: a repeated ``set`` with a long ``for`` would let it grow for ever.
        self._timers: list[tuple[int, str]] = []

    @property
    def due(self) -> float | None:
        """When ``advance`` has something to give (epoch seconds, perhaps past), None when the run has ended."""
        return None if self.ended is not None else self._time(self._next())

    @property
    def current(self) -> tuple[str, ...]:
        """The steps under way, as place and text: ``steps[3] wait 5s``; when all have ended, overlays that last."""
        if self.ended is not None:
            return ()
        branches = sorted(self._branches, key=lambda entry: entry[1])
        return tuple(branch.text for _, _, branch in branches if branch.text) or tuple(
            held.text for held in self._held.values()
        )

    def advance(self, now: float, limit: int = MAX_ACTIONS) -> list[Action]:
        """All actions that are due up to ``now``, in the order of their times; none once the run has ended.

        One call gives about ``limit`` at most; what is left keeps its time and ``due`` stays in the past, so call
        again. What ends together is given back together, beyond that bound if need be.
        """
        actions: list[Action] = []
        while self.ended is None and len(actions) < limit and self._time(self._next()) <= now:
            self._turn(actions)
        return actions

    def shift(self, delta: float) -> None:
        """The clock was set, by ``delta`` seconds: what is to come keeps its distance, as if begun that much later."""
        if self.ended is None:
            self.started += delta

    def cancel(self, now: float) -> list[Action]:
        """End the run: what is still applied is given back, newest first. A run that has ended stays as it is."""
        return self._stop(now, "cancelled", None)

    def fail(self, now: float, reason: str) -> list[Action]:
        """End the run as ``cancel`` does, because of ``reason``.

        One that has completed fails too: it cannot know that what it gave out last could not be carried out.
        """
        if self.state == "completed":
            self.state, self.error = "failed", reason
        return self._stop(now, "failed", reason)

    def _stop(self, now: float, state: str, reason: str | None) -> list[Action]:
        if self.ended is not None:
            return []
        # The time may have been set back since the last action; times of actions never are.
        at = max(now, self._time(self._at))
        actions: list[Action] = []
        self._give_back(list(self._held), at, actions)
        self._branches.clear()
        self.state, self.error, self.ended = state, reason, at
        return actions

    def _time(self, at: int) -> float:
        return self.started + at / 1000

    def _next(self) -> int:
        """The time of what comes next, in ms of the run; only for a run that has not ended."""
        return min(heap[0][0] for heap in (self._branches, self._timers) if heap)

    def _turn(self, actions: list[Action]) -> None:
        self._at = at = self._next()
        if self._timers and self._timers[0][0] == at:
            self._expire(actions)
        else:
            self._step(heapq.heappop(self._branches)[2], actions)
        if not self._branches:
            self._wind_up(actions)

    def _expire(self, actions: list[Action]) -> None:
        over = []
        while self._timers and self._timers[0][0] == self._at:
            path = heapq.heappop(self._timers)[1]
            until = self._held[path].until
            if until is not None and until > self._at:
                heapq.heappush(self._timers, (until, path))
            else:
                over.append(path)
        self._give_back(over, self._time(self._at), actions)

    def _wind_up(self, actions: list[Action]) -> None:
        """No step is left: give back all that has no time of its own, and end with the last that has."""
        self._give_back(
            [path for path, held in self._held.items() if held.until is None], self._time(self._at), actions
        )
        if not self._held:
            self.state, self.ended = "completed", self._time(self._at)

    def _give_back(self, paths: Sequence[str], at: float, actions: list[Action]) -> None:
        tokens = sorted((self._held.pop(path).token for path in paths), reverse=True)
        actions.extend(Revert(at, token) for token in tokens)

    def _step(self, branch: _Branch, actions: list[Action]) -> None:
        """Begin the next step of a branch and put back into the queue whoever can go on."""
        path, step = next(branch.steps, ("", None))
        if step is None:
            self._leave(branch)
            return
        kind, text = _describe(step)
        branch.text = f"{path} {text}"
        at = self._time(branch.at)
        actions.append(Entered(at, path, kind, text))
        match step:
            case spec.ParallelStep():
                self._fork(branch, path, step)
                return
            case spec.WaitStep():
                branch.at += step.wait
            case _:
                self._act(branch.at, path, step, text, actions)
        self._push(branch)

    def _act(self, at: int, path: str, step: Any, text: str, actions: list[Action]) -> None:
        time = self._time(at)
        match step:
            case spec.AlertStep(alert=alert):
                actions.append(Raise(time, alert.severity, alert.message))
            case spec.BurstStep(burst=burst):
                actions.append(Emit(time, burst.stream, burst.count, burst.fields))
            case spec.SetStep(set=overlay):
                until = None if overlay.for_ is None else at + overlay.for_
                self._hold(path, until, text, Apply(time, self._token(), overlay), actions)
            case spec.PauseStep(pause=stream):
                self._hold(path, None, text, SetPaused(time, self._token(), stream, True), actions)
            case spec.ResumeStep(resume=stream):
                self._hold(path, None, text, SetPaused(time, self._token(), stream, False), actions)

    def _token(self) -> int:
        self._tokens += 1
        return self._tokens

    def _hold(self, path: str, until: int | None, text: str, action: Apply | SetPaused, actions: list[Action]) -> None:
        """Give ``action``, and then back what the same step did before: nothing shows between the two."""
        before = self._held.pop(path, None)
        self._held[path] = _Held(action.token, until, f"{path} {text}")
        actions.append(action)
        if before is not None:
            actions.append(Revert(action.at, before.token))
        elif until is not None:
            heapq.heappush(self._timers, (until, path))

    def _fork(self, branch: _Branch, path: str, step: spec.ParallelStep) -> None:
        branch.text = ""
        branch.children = len(step.parallel)
        for index, steps in enumerate(step.parallel):
            below = _flat(steps, f"{path}.parallel[{index}]")
            self._push(_Branch((*branch.order, index), branch.at, below, branch))

    def _leave(self, branch: _Branch) -> None:
        """A branch has ended; the last of its siblings to do so lets their parent go on from there."""
        if branch.parent is not None:
            branch.parent.children -= 1
            branch.parent.at = branch.at
            if not branch.parent.children:
                self._push(branch.parent)

    def _push(self, branch: _Branch) -> None:
        heapq.heappush(self._branches, (branch.at, branch.order, branch))


def _flat(steps: Sequence[Any], path: str) -> Iterator[tuple[str, Any]]:
    """The steps of a list with their places, those of a ``repeat`` after it, as often as it says, one at a time."""
    for index, step in enumerate(steps):
        place = f"{path}[{index}]"
        yield place, step
        if isinstance(step, spec.RepeatStep):
            for _ in range(step.repeat.times):
                yield from _flat(step.repeat.steps, f"{place}.repeat.steps")


def _describe(step: Any) -> tuple[str, str]:
    """The kind of a step and what it does, in words."""
    match step:
        case spec.AlertStep(alert=alert):
            return "alert", f"alert {alert.severity}"
        case spec.BurstStep(burst=burst):
            return "burst", f"burst {burst.stream} {burst.count}"
        case spec.SetStep(set=overlay):
            return "set", _describe_overlay(overlay)
        case spec.WaitStep(wait=duration):
            return "wait", f"wait {spec.duration_text(duration)}"
        case spec.PauseStep(pause=stream):
            return "pause", f"pause {stream}"
        case spec.ResumeStep(resume=stream):
            return "resume", f"resume {stream}"
        case spec.RepeatStep(repeat=repeat):
            return "repeat", f"repeat {repeat.times} times"
        case spec.ParallelStep(parallel=branches):
            return "parallel", f"parallel {len(branches)} branches"
    raise TypeError(f"not a step: {type(step).__name__}")


def _describe_overlay(overlay: spec.Overlay) -> str:
    parts = [f"set {overlay.stream}"]
    if overlay.interval is not None:
        parts.append(f"interval {spec.duration_text(overlay.interval)}")
    if overlay.batch_size is not None:
        parts.append(f"batch_size {overlay.batch_size}")
    if overlay.priority is not None:
        parts.append(f"priority {overlay.priority}")
    if overlay.fields:
        parts.append("fields " + ", ".join(overlay.fields))
    if overlay.for_ is not None:
        parts.append(f"for {spec.duration_text(overlay.for_)}")
    return " ".join(parts)
