"""The daemon's life: build, start, watch over, stop, in that order and each step bounded.

Constructors connect nothing. Tasks have names and are watched: one that dies takes the daemon down with an error, so
that whoever supervises it can start it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from regstream import errors, reloader, sdnotify, settings
from regstream.engine import status as statuses
from regstream.event import rfc3339
from regstream.wiring import Components, broker_of, build, store_of, ulid

__all__ = ["Components", "Daemon", "broker_of", "build", "store_of", "ulid"]


STEP_SECONDS = 2.0
STATE_SECONDS = 2.0
"""How often the supervisor is told the line of state, if it changed."""
SHOWN = 64
SWITCH_SECONDS = 0.0005
_log = logging.getLogger("regstream.daemon")


class Daemon:
    """One run of the daemon, from start to stop."""

    def __init__(
        self, parts: Components, ready: Callable[[Components], None], supervisor: sdnotify.Notifier | None = None
    ) -> None:
        self._parts = parts
        self._ready = ready
        self._supervisor = supervisor or sdnotify.Notifier(os.environ, os.getpid())
        self._stopping = asyncio.Event()
        self._asked = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.again: settings.Settings | None = None

    @property
    def renumber(self) -> bool:
        """Whether the next one begins new numberings, see ``engine.Origin``."""
        return self._parts.role.renumber

    async def run(self) -> None:
        """Serve until a signal asks to stop; then stop in order.

        Also to begin ``again``, with these settings: what another daemon has generated is taken up as by a start.

        Raises ConfigError or StartError when it cannot start, and the error of a task that died while it ran.
        """
        loop = asyncio.get_running_loop()
        with _signals(loop, self._signalled, self._asked.set):
            try:
                await self._start()
                await self._watch()
            finally:
                await self._stop()
        _log.info("stopped")

    def _signalled(self) -> None:
        if self._stopping.is_set() and self.again is None:
            _log.warning("second signal, leaving at once")
            os._exit(1)
        self.again = None
        self._stopping.set()

    async def _reloads(self) -> None:
        """Reload after each SIGHUP; those that come while one is under way are one."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            self._supervisor.reloading(time.monotonic_ns() // 1000)
            with contextlib.suppress(errors.ConfigError):
                # The door has told everybody why
                await self._parts.door.reload("SIGHUP")
            self._supervisor.ready(line(self._parts))

    async def _alive(self) -> None:
        """Give signs of life from the loop itself: one that is stuck gives none, and the supervisor starts it again."""
        watchdog = self._supervisor.watchdog
        pause = STATE_SECONDS if watchdog is None else min(STATE_SECONDS, watchdog / 3)
        while True:
            self._supervisor.alive(line(self._parts))
            await asyncio.sleep(pause)

    async def _start(self) -> None:
        parts = self._parts
        gc.freeze()
        # While a reload reads files in its thread, the loop waits so long for its turn, several times for one tick
        sys.setswitchinterval(SWITCH_SECONDS)
        for notice in parts.settings.notices:
            _log.warning("%s", notice)
        await parts.broker.start()
        if parts.store is not None:
            await parts.store.start()
            self._spawn("store", parts.store.serve())
        if parts.journal is not None:
            parts.journal.open()
        await parts.door.reload("start")
        # What exists now lives as long as the daemon: collections need not look at it again
        gc.collect()
        gc.freeze()
        gc.enable()
        self._spawn("engine", parts.engine.serve())
        self._spawn("pump", self._pump())
        is_current = await parts.role.take()
        await parts.server.start()
        if not is_current:
            self._begin_again()
            return
        if parts.engine.allowed:
            parts.engine.start()
        self._spawn("watch", reloader.watch(parts.paths, parts.door))
        self._spawn("reloads", self._reloads())
        self._spawn("pulse", parts.pulse.beat())
        self._spawn("role", self._lead())
        self._ready(parts)
        self._supervisor.ready(line(parts))
        if self._supervisor.listens:
            self._spawn("alive", self._alive())

    async def _lead(self) -> None:
        await self._parts.role.watch()
        self._begin_again()
        await asyncio.Event().wait()

    def _begin_again(self) -> None:
        parts = self._parts
        self.again = parts.settings.model_copy(update={"port": parts.server.port})
        self._stopping.set()

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.append(task)
        task.add_done_callback(lambda _: self._stopping.set())

    async def _pump(self) -> None:
        """Keep what the broker gives out, then show it."""
        broadcast, keeper = self._parts.hub.broadcast, self._parts.store
        async for records in self._parts.broker.consume():
            if keeper is not None:
                keeper.record(records)
            for number, record in enumerate(records, 1):
                broadcast(record.event)
                # While the broker has more, it waits for nothing; who writes to clients has to come in between
                if number % SHOWN == 0 or number == len(records):
                    await asyncio.sleep(0)

    async def _watch(self) -> None:
        await self._stopping.wait()
        for task in self._tasks:
            if task.done():
                error = _cause(task)
                _log.critical("%s died: %s: %s", task.get_name(), type(error).__name__, error)
                raise error

    async def _stop(self) -> None:
        parts = self._parts
        if self.again is None:
            self._supervisor.stopping()
        else:
            self._supervisor.reloading(time.monotonic_ns() // 1000)
        parts.server.refuse()
        parts.door.close()
        if parts.replays is not None:
            await _step("end the replays", parts.replays.close())
        await _step("end the reloads", self._end("watch", "reloads"))
        await _step("finish ticks", parts.engine.drain())
        if parts.journal is not None:
            parts.journal.close()
        await _step("close the broker", self._close_broker())
        await _step("show the last events", self._join("pump"))
        await _step("drain the server", parts.server.drain(STEP_SECONDS))
        await _step("stop the server", parts.server.stop())
        if parts.store is not None:
            await _step("record the last events", parts.store.close())
        await _step("hand over the last traces", parts.traces.close())
        await self._end(*(task.get_name() for task in self._tasks))

    async def _close_broker(self) -> None:
        parts = self._parts
        try:
            await parts.broker.close()
        finally:
            await parts.role.leave(clean=self.again is None and parts.broker.status.waiting == 0)

    async def _join(self, *names: str) -> None:
        await asyncio.gather(*(task for task in self._tasks if task.get_name() in names), return_exceptions=True)

    async def _end(self, *names: str) -> None:
        for task in self._tasks:
            if task.get_name() in names:
                task.cancel()
        await self._join(*names)


def _cause(task: asyncio.Task[None]) -> BaseException:
    """Why a task ended that should not have; of several errors at once the first."""
    error = None if task.cancelled() else task.exception()
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error or RuntimeError("it ended, for no reason")


async def _step(what: str, work: Awaitable[None]) -> None:
    """One step of the stop: bounded, and told of when it fails."""
    _log.debug("to stop: %s", what)
    try:
        await asyncio.wait_for(work, STEP_SECONDS + 0.5)
    except TimeoutError:
        _log.error("could not %s within %.1f s", what, STEP_SECONDS + 0.5)
    except Exception:
        _log.exception("could not %s", what)


@contextlib.contextmanager
def _signals(loop: asyncio.AbstractEventLoop, stop: Callable[[], None], hangup: Callable[[], None]) -> Any:
    """Handlers for SIGTERM, SIGINT and SIGHUP, given back at the end."""
    handlers = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: hangup}
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)


MOST_NAMES = 5


def line(parts: Components) -> str:
    """What an operator has to mend, the first problem of refused files before all; then what runs on what."""
    streams = parts.engine.streams()
    receipt = parts.door.receipt
    kept_out = [parts.engine.refusal] if parts.engine.refusal else []
    faults = [*kept_out, *_files(parts), *_broker(parts), *_store(parts), *_failing(streams)]
    since = rfc3339(receipt.loaded_at)
    return "; ".join([*faults, f"{_running(parts, streams)}, generation {receipt.generation} since {since}"])


def _files(parts: Components) -> list[str]:
    error = parts.door.error
    if error is None:
        return []
    more = len(error.problems) - 1
    return [f"files refused: {error.problems[0]}{f' (and {more} more)' if more else ''}"]


def _broker(parts: Components) -> list[str]:
    broker = parts.broker.status
    if broker.kind != "kafka" or (broker.state == "live" and not broker.reason):
        return []
    return [f"Kafka {broker.state}{_why(broker.reason)}, {broker.waiting} events wait for it"]


def _store(parts: Components) -> list[str]:
    store = parts.store.status if parts.store is not None else None
    if store is None or not store.ailing:
        return []
    return [f"database {store.state}{_why(store.reason)}, {store.waiting} events wait for it"]


def _why(reason: str) -> str:
    return f" ({reason})" if reason else ""


def _failing(streams: Sequence[statuses.StreamStatus]) -> list[str]:
    names = [one.name for one in streams if one.state == "failing"]
    return [f"failing: {', '.join(names[:MOST_NAMES])}{' …' if len(names) > MOST_NAMES else ''}"] if names else []


def _running(parts: Components, streams: Sequence[statuses.StreamStatus]) -> str:
    if not parts.engine.streaming:
        return "streaming is stopped"
    progress = parts.engine.progress
    if progress is not None:
        return f"history {progress}"
    running = sum(one.state in ("running", "failing") for one in streams)
    return f"{running} streams run {'on Kafka' if parts.broker.status.kind == 'kafka' else 'in simulation'}"
