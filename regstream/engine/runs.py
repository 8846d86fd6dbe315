"""Scenario runs under way: what each has laid over the streams, and the memory of those that have ended."""

from __future__ import annotations

import collections
import logging
from collections.abc import Callable, Mapping
from typing import Any

from regstream import errors, scenario, schedule, spec, tracing
from regstream.engine import active_stream, status, workers
from regstream.generator import alerts
from regstream.generator import stream as streams

MAX_RUNNING = 50
MAX_KEPT = 200
_log = logging.getLogger("regstream.scenario")


class RunRegistry:
    """All runs. Each is driven by a wake of the clock, and does what its actions say on the floor.

    ``workshop`` is what the texts of alerts are compiled with: the one of the catalog in force.
    """

    def __init__(
        self,
        place: active_stream.StreamRegistry,
        works: workers.TickExecutor,
        timer: schedule.Clock,
        workshop: streams.GenerationContext,
        now: Callable[[], float],
        announce: Callable[[str, Mapping[str, Any]], None],
        traces: tracing.Traces,
    ) -> None:
        self.workshop = workshop
        self._floor = place
        self._works = works
        self._clock = timer
        self._now = now
        self._announce = announce
        self._traces = traces
        self._spans: dict[str, tracing.Span] = {}
        self._running: dict[str, scenario.Run] = {}
        self._ended: collections.OrderedDict[str, scenario.Run] = collections.OrderedDict()
        # Those that have ended and changed rows that are not given back, since events of theirs are still to be made
        self._closing: dict[str, None] = {}
        works.run_served = self.give_back

    def start(self, run_id: str, spec: spec.ScenarioSpec) -> status.RunStatus:
        """Begin a run and carry out what is due at once. Raises Overloaded."""
        if len(self._running) >= MAX_RUNNING:
            raise errors.Overloaded("the list of running scenarios", 5.0)
        run = self._running[run_id] = scenario.Run(run_id, spec, self._now())
        self._works.undo.begin(run_id, spec.kept)
        said = {"regstream.scenario": spec.name, "regstream.run_id": run_id}
        self._spans[run_id] = self._traces.begin(f"run {spec.name}", said)
        _log.info("scenario %s begins", spec.name, extra={"run": run_id})
        self._tell("scenario-started", run)
        self._advance(run)
        return describe(run)

    def _advance(self, run: scenario.Run) -> None:
        """Carry out what is due; what cannot be done fails the run, which gives back what it had changed."""
        now = self._now()
        try:
            for action in run.advance(now):
                self._do(run, action)
        except errors.RegstreamError as error:
            run.fail(now, str(error))
            # Not by its own actions: what it gave back behind the one that failed was never carried out
            self._floor.lift_all(run.run_id)
        self._settle(run)

    def cancel(self, run_id: str) -> status.RunStatus:
        """End a run; one that has ended stays as it is. Raises UnknownName."""
        run = self._find(run_id)
        if run_id in self._running:
            for action in run.cancel(self._now()):
                self._do(run, action)
            self._settle(run)
        return describe(run)

    def cancel_all(self) -> None:
        """End every run, the newest first."""
        for run_id in reversed(list(self._running)):
            self.cancel(run_id)

    def give_back(self) -> None:
        """Give back what runs that have ended changed in rows, where none of their events is left to be made."""
        if self._closing:
            waiting = set().union(*(lane.of_runs() for lane in self._floor.all()))
            for run_id in [run_id for run_id in self._closing if run_id not in waiting]:
                del self._closing[run_id]
                self._works.undo.undo(run_id, self.workshop.pools)

    def move(self, delta: float) -> None:
        """The system's clock was set on by ``delta`` seconds, and the wakes with it."""
        for run in self._running.values():
            run.shift(delta)

    def all(self) -> list[status.RunStatus]:
        """Every run that is remembered, the newest first."""
        runs = [*self._ended.values(), *self._running.values()][::-1]
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
                _log.debug("scenario %s, step %s: %s", run.spec.name, path, text, extra={"run": run.run_id})
                self._tell("scenario-step", run, {"path": path, "step": kind, "text": text})
            case scenario.Raise():
                self._raise(run, action)
            case scenario.Emit():
                self._emit(run, action)
            case scenario.Apply(token=token, overlay=overlay):
                layer = active_stream.layer_of(overlay, run.run_id, run.spec.name)
                self._floor.lay(overlay.stream, (run.run_id, token), layer)
            case scenario.SetPaused(token=token, stream=stream, paused=paused):
                layer = active_stream.ActiveOverlay(run.run_id, run.spec.name, paused=paused)
                self._floor.lay(stream, (run.run_id, token), layer)
            case scenario.Revert(token=token):
                self._floor.lift((run.run_id, token))

    def _raise(self, run: scenario.Run, action: scenario.Raise) -> None:
        text = alerts.text(self.workshop, action.message, action.at, f"{run.run_id} {action.at}")
        trace = self._spans[run.run_id].traceparent
        self._works.alert(alerts.Raised.in_run(action.severity, text, action.at, run.spec.name, run.run_id, trace))

    def _emit(self, run: scenario.Run, action: scenario.Emit) -> None:
        lane = self._floor.find(action.stream)
        job = active_stream.Job(action.count, self._now(), action.fields, scenario=run.spec.name, run_id=run.run_id)
        lane.add(job)
        job.span = self._traces.begin(f"burst {lane.name}", workers.about(lane.name, job), self._spans[run.run_id])
        self._works.enqueue(lane.unit)

    def _settle(self, run: scenario.Run) -> None:
        """Wait for what is next in a run, or put it away."""
        if run.due is not None:
            self._clock.wake(run.run_id, run.due, lambda: self._advance(run))
            return
        self._clock.cancel(run.run_id)
        span = self._spans.pop(run.run_id)
        span.note({"regstream.state": run.state})
        span.end(run.error or "")
        self._ended[run.run_id] = self._running.pop(run.run_id)
        self._closing[run.run_id] = None
        self.give_back()
        while len(self._ended) > MAX_KEPT:
            self._ended.popitem(last=False)
        why = f": {run.error}" if run.error else ""
        _log.info("scenario %s %s%s", run.spec.name, run.state, why, extra={"run": run.run_id})
        self._tell("scenario-ended", run, {"state": run.state, "error": run.error})

    def _tell(self, kind: str, run: scenario.Run, more: Mapping[str, Any] | None = None) -> None:
        self._announce(kind, {"runId": run.run_id, "scenario": run.spec.name, **(more or {})})


def describe(run: scenario.Run) -> status.RunStatus:
    """A snapshot of a run."""
    return status.RunStatus(run.run_id, run.spec.name, run.state, run.started, run.ended, run.error, tuple(run.current))
