"""A past made by several processes: each has some of the units to itself, and what they make is put in order here.

Units share nothing that changes, so what one makes does not depend on who makes the others: the lines are those of one
process, to the byte. Only what alerts are numbered by is of all streams, so that is done where the order is known.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import marshal
import multiprocessing
import operator
import os
import pickle
import signal
import sys
from collections.abc import Container, Iterator, Sequence
from multiprocessing import connection
from typing import Any, NamedTuple

from regstream import errors, model
from regstream.engine import history
from regstream.engine import lane as lanes
from regstream.generate import alerts
from regstream.generate import stream as streams

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


def as_lines(events: Sequence[model.Event]) -> bytes:
    """Events as JSON lines, each with its end."""
    return b"".join([line for event in events for line in (event.value, b"\n")])


class Crew:
    """Processes that make the past of some lanes from ``begin`` on; ``at`` is how far it has come.

    There are as many as ``jobs``, unless told as many as the machine has cores. They are there inside of ``with``,
    which gives None where there is nothing to share: there is one unit only, or the system is none where processes fork
    safely. Of streams that are not ``wanted`` there is no line; None stands for all.
    """

    def __init__(
        self,
        at_work: Sequence[lanes.Lane],
        alerting: streams.Stream,
        begin: float,
        jobs: int | None,
        observe: history.Observe,
        wanted: Container[str] | None = None,
    ) -> None:
        self.at = begin
        self._alerts = alerting
        self._wanted = wanted
        self._windows = history.Windows(begin, history.WINDOW)
        self._order: history.TimeOrder[bytes] = history.TimeOrder(at_work)
        self._shares = [
            history.History(functools.partial(iter, some), alerting, begin, observe=observe, strict=True)
            for some in _shared(at_work, jobs or _cores())
        ]
        self._workers: list[multiprocessing.process.BaseProcess] = []
        self._pipes: list[connection.Connection] = []

    def __enter__(self) -> Crew | None:
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

    def _begin(self, name: str, share: history.History) -> None:
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

    def _ask(self, window: history.Window) -> history.Window:
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
        is_told = self._wanted is None or model.ALERTS in self._wanted
        for _, _, lines, _, raised in ticks:
            yield from lines
            if raised:
                made = alerts.batch(self._alerts, itertools.starmap(alerts.Raised, raised))
                if is_told:
                    yield from self._keyed(made)

    def _keyed(self, events: Sequence[model.Event]) -> list[_Text]:
        return [(key, event.value + b"\n") for key, event in self._order.keyed(events)]

    # In the other process

    def _work(
        self, share: history.History, pipe: connection.Connection, others: Sequence[connection.Connection]
    ) -> None:
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

    def _answer(self, share: history.History, start: float, end: float) -> bytes:
        try:
            made = [self._plain(*tick) for tick in share.window(start, end)]
        except errors.RegstreamError as error:
            return b"!" + pickle.dumps(error)
        return b"=" + marshal.dumps((share.horizon, made))

    def _plain(self, due: float, name: str, events: Sequence[model.Event], raised: Sequence[alerts.Raised]) -> _Told:
        told = [tuple(one) for one in raised] if raised else []
        wanted = self._wanted is None or name in self._wanted
        return due, name, self._keyed(events) if wanted else [], len(events), told


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1


def _shared(at_work: Sequence[lanes.Lane], jobs: int) -> list[list[lanes.Lane]]:
    """Lanes in at most so many parts of about the same work; those of a unit are in the same."""
    units = {id(lane.unit): lane.unit.lanes for lane in at_work if lane.ticking}
    weighed = [(sum(map(_events_a_second, unit)), unit) for unit in units.values()]
    parts: list[list[lanes.Lane]] = [[] for _ in range(min(jobs, len(units)))]
    loads = [0.0] * len(parts)
    for work, unit in sorted(weighed, key=operator.itemgetter(0), reverse=True):
        least = loads.index(min(loads))
        loads[least] += work
        parts[least] += unit
    return parts


def _events_a_second(lane: lanes.Lane) -> float:
    """Roughly."""
    if not lane.ticking:
        return 0.0
    if lane.spec.rate is not None:
        return lane.spec.rate.base * lane.speed
    return lane.batch_size * (_RARE if lane.interval is None else 1_000 / lane.interval)
