"""Scenario runs under way: what each has laid over the streams, and the memory of those that have ended."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from regstream import errors, model, scenario
from regstream.engine import lane as lanes
from regstream.engine import status

MAX_RUNNING = 50
MAX_KEPT = 200


class Hands(Protocol):
    """What a run may do to the engine; each call raises UnknownName when the stream is gone."""

    def lay(self, stream: str, key: tuple[str, int], layer: lanes.Layer) -> None:
        """Lay a layer over a stream."""

    def lift(self, key: tuple[str, int]) -> None:
        """Take a layer away again; a stream that is gone has none left."""

    def emit(self, action: scenario.Emit, run: scenario.Run) -> None:
        """Queue events. Raises Overloaded."""

    def alert(self, action: scenario.Raise, run: scenario.Run) -> None:
        """Raise an alert."""

    def wake(self, run_id: str, when: float | None) -> None:
        """Call ``Runs.advance`` for this run at a time; None: no more."""


class Runs:
    """All runs, driven by whoever calls ``advance`` when one is due."""

    def __init__(self, hands: Hands, announce: Callable[[str, Mapping[str, Any]], None]) -> None:
        self._hands = hands
        self._announce = announce
        self._running: dict[str, scenario.Run] = {}
        self._ended: collections.OrderedDict[str, scenario.Run] = collections.OrderedDict()

    def start(self, run_id: str, spec: model.ScenarioSpec, now: float) -> status.RunStatus:
        """Begin a run and carry out what is due at once. Raises Overloaded."""
        if len(self._running) >= MAX_RUNNING:
            raise errors.Overloaded("the list of running scenarios", 5.0)
        run = self._running[run_id] = scenario.Run(run_id, spec, now)
        self._tell("scenario-started", run)
        self.advance(run_id, now)
        return describe(run)

    def advance(self, run_id: str, now: float) -> None:
        """Carry out what is due; what cannot be done fails the run, which gives back what it had changed."""
        run = self._running.get(run_id)
        if run is None:
            return
        try:
            for action in run.advance(now):
                self._do(run, action)
        except errors.RegstreamError as error:
            self._undo(run, run.fail(now, str(error)))
        self._settle(run)

    def cancel(self, run_id: str, now: float) -> status.RunStatus:
        """End a run; one that has ended stays as it is. Raises UnknownName."""
        run = self._find(run_id)
        if run_id in self._running:
            self._undo(run, run.cancel(now))
            self._settle(run)
        return describe(run)

    def cancel_all(self, now: float) -> None:
        """End every run, the newest first."""
        for run_id in reversed(list(self._running)):
            self.cancel(run_id, now)

    def all(self) -> list[status.RunStatus]:
        """Every run that is remembered, the newest first."""
        runs = [*self._ended.values(), *self._running.values()]
        return [describe(run) for run in sorted(runs, key=lambda run: run.started, reverse=True)]

    def get(self, run_id: str) -> status.RunStatus:
        """One run. Raises UnknownName."""
        return describe(self._find(run_id))

    def _find(self, run_id: str) -> scenario.Run:
        run = self._running.get(run_id) or self._ended.get(run_id)
        if run is None:
            raise errors.UnknownName("run", run_id)
        return run

    def _do(self, run: scenario.Run, action: scenario.Action) -> None:
        match action:
            case scenario.Entered(path=path, kind=kind, text=text):
                self._tell("scenario-step", run, {"path": path, "step": kind, "text": text})
            case scenario.Raise():
                self._hands.alert(action, run)
            case scenario.Emit():
                self._hands.emit(action, run)
            case scenario.Apply(token=token, overlay=overlay):
                layer = lanes.layer_of(overlay, run.run_id, run.spec.name)
                self._hands.lay(overlay.stream, (run.run_id, token), layer)
            case scenario.SetPaused(token=token, stream=stream, paused=paused):
                layer = lanes.Layer(run.run_id, run.spec.name, paused=paused)
                self._hands.lay(stream, (run.run_id, token), layer)
            case scenario.Revert(token=token):
                self._hands.lift((run.run_id, token))

    def _undo(self, run: scenario.Run, actions: list[scenario.Action]) -> None:
        for action in actions:
            self._do(run, action)

    def _settle(self, run: scenario.Run) -> None:
        self._hands.wake(run.run_id, run.due)
        if run.ended is None or run.run_id not in self._running:
            return
        self._ended[run.run_id] = self._running.pop(run.run_id)
        while len(self._ended) > MAX_KEPT:
            self._ended.popitem(last=False)
        self._tell("scenario-ended", run, {"state": run.state, "error": run.error})

    def _tell(self, kind: str, run: scenario.Run, more: Mapping[str, Any] | None = None) -> None:
        self._announce(kind, {"runId": run.run_id, "scenario": run.spec.name, **(more or {})})


def describe(run: scenario.Run) -> status.RunStatus:
    """A snapshot of a run."""
    return status.RunStatus(run.run_id, run.spec.name, run.state, run.started, run.ended, run.error, tuple(run.current))
