"""Stored events sent again: at their own pace, faster or as fast as they are taken; each run by its id.

A run reads page after page ahead of what it sends, so that no question to the database makes an event late. What is
sent when stands in a plan that is made once, so that being late at one event makes no other one late.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import functools
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, cast

from regstream import errors, sanitize
from regstream.event import Event
from regstream.store import reader

MAX_RUNNING = 8
MAX_KEPT = 100
PAGE = 1_000
AHEAD = 2
PIECE = 200
PATIENCE = 60.0
AGAIN_SECONDS = 0.5
FULL = 0.25
BREATH = 0.002
END_SECONDS = 1.0
_log = logging.getLogger("regstream.store")
Numbered = tuple[reader.EventKey, Event]
Pages = asyncio.Queue[list[Numbered] | Exception | None]
Resend = Callable[[str | Mapping[str, str], Sequence[Event]], Awaitable[None]]
Result = TypeVar("Result")


class ReplaySpec(NamedTuple):
    """What is to be sent again: events of ``streams`` (none named: of all) from ``begin`` on and before ``end``.

    Times are in seconds since 1970. ``speed`` says how many times as fast as they came, None as fast as they are taken.
    ``topics`` is the topic for all of them, or that of each stream; None: they go to the dashboards.
    """

    begin: float
    end: float
    streams: tuple[str, ...] = ()
    speed: float | None = 1.0
    topics: str | Mapping[str, str] | None = None


@dataclasses.dataclass(eq=False)
class ReplayRun:
    """One run: ``state`` is ``running``, ``paused``, ``completed``, ``cancelled`` or ``failed``, ``reason`` why.

    ``sent`` of ``total`` events (None: not counted yet, or too many to be counted) are out, the last of them with the
    time ``position``; ``started`` and ``ended`` are in seconds since 1970.
    """

    run_id: str
    spec: ReplaySpec
    started: float
    state: str = "running"
    reason: str = ""
    sent: int = 0
    total: int | None = None
    position: float | None = None
    ended: float | None = None

    @property
    def progress(self) -> float:
        """How much of the time that was asked for is done, from 0 to 1."""
        if self.state == "completed":
            return 1.0
        whole = self.spec.end - self.spec.begin
        return 0.0 if self.position is None else min(1.0, max(0.0, (self.position - self.spec.begin) / whole))


class Ways(NamedTuple):
    """Where events go: ``show`` to the dashboards, of which ``pressure`` says how far behind they are (see ``hub``).

    ``resend`` has topics take them (see ``broker.failover``), None where there is no Kafka; ``announce`` tells what
    happens to a run.
    """

    show: Callable[[Event], None]
    pressure: Callable[[float], float]
    resend: Resend | None
    announce: Callable[[str, Mapping[str, Any]], None]


class ReplayRegistry:
    """All runs; ``now`` gives seconds since 1970, ``tick`` those of a steady clock, ``run_id`` a new name."""

    def __init__(
        self,
        source: reader.EventReader,
        ways: Ways,
        now: Callable[[], float],
        tick: Callable[[], float],
        run_id: Callable[[], str],
    ) -> None:
        self._source, self._ways, self._now, self._tick, self._run_id = source, ways, now, tick, run_id
        self._players: dict[str, _Player] = {}
        self._ended: collections.OrderedDict[str, ReplayRun] = collections.OrderedDict()

    def start(self, spec: ReplaySpec) -> ReplayRun:
        """Begin a run. Raises Overloaded when there are too many, Conflict for topics where there is no Kafka."""
        if spec.topics is not None and self._ways.resend is None:
            raise errors.Conflict("there is no Kafka to send into: set KAFKA_BROKER")
        if len(self._players) >= MAX_RUNNING:
            raise errors.Overloaded("the list of running replays", 5.0)
        run = ReplayRun(self._run_id(), spec, self._now())
        player = self._players[run.run_id] = _Player(run, self._source, self._ways, self._tick)
        player.task = asyncio.create_task(player.play(), name=f"replay-{run.run_id}")
        player.task.add_done_callback(lambda task: self._ended_with(player, task))
        _log.info("replay %s begins", run.run_id, extra={"run": run.run_id})
        self._tell("replay-started", run)
        return run

    def _ended_with(self, player: _Player, task: asyncio.Task[None]) -> None:
        run, error = player.run, None if task.cancelled() else task.exception()
        run.state = "cancelled" if task.cancelled() else "completed" if error is None else "failed"
        if isinstance(error, errors.RegstreamError):
            run.reason = str(error)
        elif error is not None:
            _log.error("a replay failed: %r", error, exc_info=error, extra={"run": run.run_id})
            run.reason = sanitize.redact(f"{type(error).__name__}: {error}")
        _log.info("replay %s %s, %d events", run.run_id, run.state, run.sent, extra={"run": run.run_id})
        run.ended = self._now()
        del self._players[run.run_id]
        self._ended[run.run_id] = run
        while len(self._ended) > MAX_KEPT:
            self._ended.popitem(last=False)
        self._tell("replay-ended", run)

    def pause(self, run_id: str) -> ReplayRun:
        """Let a run wait. Raises UnknownName, and Conflict when it has ended."""
        player = self._running(run_id)
        if player.pause():
            self._tell("replay-paused", player.run)
        return player.run

    def resume(self, run_id: str) -> ReplayRun:
        """Let a run go on where it was. Raises UnknownName, and Conflict when it has ended."""
        player = self._running(run_id)
        if player.resume():
            self._tell("replay-resumed", player.run)
        return player.run

    async def cancel(self, run_id: str) -> ReplayRun:
        """End a run; one that has ended stays as it is. Raises UnknownName."""
        run = self.get(run_id)
        player = self._players.get(run_id)
        if player is not None and player.task is not None:
            player.task.cancel()
            await asyncio.wait({player.task}, timeout=END_SECONDS)
            # What is called when it is done is so a moment later
            await asyncio.sleep(0)
        return run

    async def close(self) -> None:
        """End all runs, within ``END_SECONDS``."""
        await asyncio.gather(*(self.cancel(run_id) for run_id in list(self._players)))

    def all(self) -> list[ReplayRun]:
        """Every run that is remembered, the newest first."""
        return [*(player.run for player in reversed(self._players.values())), *reversed(self._ended.values())]

    def get(self, run_id: str) -> ReplayRun:
        """One run. Raises UnknownName."""
        if run_id in self._players:
            return self._players[run_id].run
        if run_id not in self._ended:
            raise errors.UnknownName("run", run_id)
        return self._ended[run_id]

    def _running(self, run_id: str) -> _Player:
        run = self.get(run_id)
        if run_id not in self._players:
            raise errors.Conflict(f"the run has ended, it is {run.state}")
        return self._players[run_id]

    def _tell(self, kind: str, run: ReplayRun) -> None:
        told: dict[str, Any] = {"runId": run.run_id, "sent": run.sent, "speed": run.spec.speed or "max"}
        if kind == "replay-ended":
            told.update(state=run.state, error=run.reason or None)
        self._ways.announce(kind, told)


class _Player:
    """Sends what one run asks for."""

    def __init__(self, run: ReplayRun, source: reader.EventReader, ways: Ways, tick: Callable[[], float]) -> None:
        self.run, self._source, self._ways, self._tick = run, source, ways, tick
        self.task: asyncio.Task[None] | None = None
        self._going = asyncio.Event()
        self._going.set()
        self._paused_at = 0.0
        # The event of that time is due at that tick
        self._origin: tuple[float, float] | None = None

    def pause(self) -> bool:
        """Wait before the next event; false when it does so already."""
        if self.run.state == "paused":
            return False
        self.run.state, self._paused_at = "paused", self._tick()
        self._going.clear()
        return True

    def resume(self) -> bool:
        """Go on, with all that is left later by the time of the pause; false when it does so already."""
        if self.run.state != "paused":
            return False
        if self._origin is not None:
            time, tick = self._origin
            self._origin = time, tick + self._tick() - self._paused_at
        self.run.state = "running"
        self._going.set()
        return True

    async def play(self) -> None:
        """Send everything. Raises StoreError and BrokerError when something does not come back in ``PATIENCE``."""
        pages: Pages = asyncio.Queue(AHEAD)
        counting = asyncio.create_task(self._count(), name=f"replay-count-{self.run.run_id}")
        reading = asyncio.create_task(self._read(pages), name=f"replay-read-{self.run.run_id}")
        try:
            while (page := await pages.get()) is not None:
                if isinstance(page, Exception):
                    raise page
                for time, piece in _pieces(page, together=self.run.spec.speed is None):
                    await self._due(time)
                    await self._send(piece)
                    self.run.sent += len(piece)
                    self.run.position = time
        finally:
            for task in (counting, reading):
                task.cancel()
            await asyncio.gather(counting, reading, return_exceptions=True)

    async def _count(self) -> None:
        with contextlib.suppress(errors.StoreError):
            self.run.total = await self._source.number(self._question)

    @property
    def _question(self) -> reader.EventQuery:
        spec = self.run.spec
        return reader.EventQuery(spec.streams, spec.begin, spec.end)

    async def _read(self, pages: Pages) -> None:
        """Put one page after the other, then None, or why there is no more."""
        try:
            after, is_last = reader.START, False
            while not is_last:
                page = await self._patiently(functools.partial(self._source.events, self._question, after, PAGE))
                is_last = len(page) < PAGE
                if page:
                    after = page[-1][0]
                    await pages.put(page)
            await pages.put(None)
        except Exception as error:
            await pages.put(error)

    async def _patiently(self, work: Callable[[], Awaitable[Result]]) -> Result:
        """Do ``work``, again and again for ``PATIENCE`` while database or cluster are away."""
        failed_at = None
        while True:
            try:
                found = await work()
            except (errors.StoreError, errors.BrokerError) as error:
                failed_at = self._tick() if failed_at is None else failed_at
                is_final = isinstance(error, errors.QueryCostError) or getattr(error, "final", False)
                if is_final or self._tick() - failed_at >= PATIENCE:
                    raise
                self.run.reason = str(error)
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            if failed_at is not None:
                self.run.reason = ""
            return found

    async def _due(self, time: float) -> None:
        """Return when an event of that time is to be sent."""
        speed = self.run.spec.speed
        while True:
            await self._going.wait()
            if speed is None:
                return
            now = self._tick()
            if self._origin is None:
                self._origin = time, now
            wait = self._origin[1] + (time - self._origin[0]) / speed - now
            if wait <= 0:
                return
            # A pause while this sleeps is seen at its end
            await asyncio.sleep(min(wait, 0.5))

    async def _send(self, piece: Sequence[Event]) -> None:
        if self.run.spec.topics is not None:
            # ``start`` has seen that there is one
            resend = cast(Resend, self._ways.resend)
            await self._patiently(functools.partial(resend, self.run.spec.topics, piece))
            return
        for event in piece:
            self._ways.show(event)
        # Those who write to clients have to come in between
        await asyncio.sleep(0)
        while True:
            if self._ways.pressure(self._tick()) <= FULL:
                return
            await asyncio.sleep(BREATH)


def _pieces(page: Sequence[Numbered], together: bool) -> Iterator[tuple[float, list[Event]]]:
    """Events to be sent at once, with the time of the last: those of one time, or as many as go into one piece."""
    piece: list[Event] = []
    time = 0
    for place, event in page:
        if piece and (len(piece) >= PIECE or (place.time != time and not together)):
            yield time / 1e6, piece
            piece = []
        time = place.time
        piece.append(event)
    if piece:
        yield time / 1e6, piece
