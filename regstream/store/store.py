"""The store: PostgreSQL keeps every event once, and gives them back to whoever asks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from regstream import broker, errors
from regstream.broker import resequencer, spool
from regstream.event import Event, Position
from regstream.store import audit, journal, persistence, pool, reader, recorder, spooled_queue, topic_reader

START_SECONDS = 6.0
FLUSH_SECONDS = 1.0
HISTORY_SECONDS = 10.0
LONGEST_SECONDS = 20.0
POLL_SECONDS = 0.25
MOST, PAGE = 50_000, 2_000
LOOKING = 2
CUT_SECONDS = 0.02
Source = topic_reader.RecordSource
Moments = recorder.Clocks


class StoreStatus(NamedTuple):
    """How the store is.

    ``state`` is ``connecting``, ``live``, ``away``, ``standby`` (another daemon records, nothing is wrong with that)
    or ``closed``, and ``reason`` why. ``recorded`` events are in the table since the start, ``waiting`` events and
    notes are in the spool, ``lag`` messages on the topics that are not read yet. No row can hold ``refused`` events
    and notes (``refusal`` has the last one), ``lost`` were on a topic no more; of the streams in ``dropped`` so many
    were given up because the disk space was.
    """

    state: str
    reason: str
    recorded: int
    waiting: int
    lag: int
    refused: int
    refusal: str
    lost: int
    dropped: Mapping[str, int]

    @property
    def ailing(self) -> bool:
        """Whether somebody should look."""
        return self.state == "away" or (self.state == "live" and self.reason != "")


class Store:
    """One database, for one daemon. ``start`` it, ``close`` it; all else never waits for the database, or says so.

    ``moments`` are its clocks; ``epoch`` a name for the numbering of its notes, which sorts by time. ``source`` is
    where events come from when there is Kafka; without it they come by ``record``. ``keep`` is for how many seconds
    events are kept; ``changed`` is told of each change of state, as its name and why. ``generates``: this daemon makes
    events.
    """

    def __init__(
        self,
        base: pool.Database,
        kept: spool.Spool,
        source: Source | None,
        moments: Moments,
        epoch: str,
        keep: float | None,
        changed: Callable[[str, str], None],
        generates: bool = True,
    ) -> None:
        self._base, self._source = base, source
        self._intake = spooled_queue.RecorderQueue(kept)
        self._pen = journal.Journal(epoch, moments.now)
        self._shown: dict[str, Position] = {}
        self._task: asyncio.Task[None] | None = None
        self._looking = asyncio.Semaphore(LOOKING)
        self.archive = reader.EventReader(base)
        self.memory = persistence.StreamStates(self._note, numbers=source is None)
        self._recorder = recorder.Recorder(
            base, self._intake, source, moments, keep, self.memory.load, lambda state: changed(*state), generates
        )

    @property
    def status(self) -> StoreStatus:
        """At this moment; cheap, never awaits."""
        one, counts = self._recorder, self._recorder.counts
        reason = one.state.reason
        if not reason and one.state.name == "live":
            reason = one.source_reason or self._intake.error
        return StoreStatus(
            one.state.name, reason, counts.recorded, self._intake.waiting, one.lag,
            counts.refused + self.memory.refused, counts.refusal or self.memory.refusal, counts.lost,
            dict(self._intake.dropped),
        )  # fmt: skip

    @property
    def waiting_bytes(self) -> int:
        """How many bytes on disk wait for the database."""
        return self._intake.waiting_bytes

    @property
    def other(self) -> str:
        """Without Kafka: which daemon generates into this database in place of this one; empty when none does."""
        return self._recorder.other

    # Start and stop

    async def start(self) -> None:
        """Begin to connect; returns when that has succeeded or failed once, within ``START_SECONDS``.

        Raises StartError when the spool cannot be used.
        """
        self._intake.open()
        self.memory.leave(self._intake.left(), self._intake.positions)
        self._task = asyncio.create_task(self._recorder.run(), name="store-recorder")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._recorder.tried.wait(), START_SECONDS)

    async def serve(self) -> None:
        """Until the recorder ends, which it does for an error alone; raises that one."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def close(self) -> None:
        """Write what waits, for a bounded time; the rest stays on disk. May be called twice."""
        if self._task is None:
            return
        if self._recorder.state.name == "live":
            await self._flushed(FLUSH_SECONDS)
        task, self._task = self._task, None
        self._recorder.cut()
        # The client library, cancelled while it waits, would ask the server to cancel too, and wait for that
        await asyncio.sleep(CUT_SECONDS)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        self._intake.close()
        await self._base.close()

    # Keeping

    def record(self, records: Sequence[broker.Record]) -> None:
        """Keep what is about to be shown; with a source of its own the store only remembers where streams stand."""
        if self._source is None:
            self._intake.put([record.event for record in records])
            return
        for record in records:
            self._shown[record.event.head.stream] = record.event.position

    def note(self, control: audit.Control) -> None:
        """Keep a control call."""
        self._note(journal.AUDIT, audit.pack(control))

    def _note(self, kind: str, value: bytes) -> None:
        self._intake.put([self._pen.write(kind, value)])

    # Asking

    async def settled(self, seconds: float = 1.0) -> bool:
        """Wait until the table has what was recorded and noted up to now; false when it has not in that time.

        Raises StoreError when the database is away: whoever wants to ask it need not wait to see that.
        """
        if self._recorder.state.name == "away":
            raise errors.StoreError(self._recorder.state.reason)
        return await self._flushed(seconds)

    async def _flushed(self, seconds: float) -> bool:
        upto, shown = self._intake.last, dict(self._shown)
        try:
            async with asyncio.timeout(seconds):
                while self._intake.done < upto or self._behind(shown):
                    await self._recorder.moved()
        except TimeoutError:
            return False
        return True

    def _behind(self, shown: Mapping[str, Position]) -> bool:
        if self._recorder.state.name != "live" or self._recorder.source_reason:
            # Nothing comes from the topics that could be waited for
            return False
        positions = self._recorder.counts.positions
        return any(positions.get(stream, ("", 0)) < at for stream, at in shown.items())

    async def history(self, stream: str, after: Position, before: int) -> list[Event] | None:
        """The events of a stream after a position, in order and without a gap, up to the number ``before``.

        None when the table has not all of them, or there are more than ``MOST``. What was shown already and is not in
        the table yet is waited for, until nothing was read or written for ``HISTORY_SECONDS``, or ``LONGEST_SECONDS``
        in all.
        """
        if before - after.seq > MOST:
            return None
        upto, shown = self._intake.last, dict(self._shown)
        found: list[Event] = []
        time = asyncio.get_running_loop().time
        end = time() + LONGEST_SECONDS
        with contextlib.suppress(TimeoutError, errors.QueryCostError):
            async with asyncio.timeout(HISTORY_SECONDS) as limit:
                while (missing := before - 1 - after.seq - len(found)) > 0:
                    if self._recorder.state.name == "away":
                        return None
                    # Asked before the table is: what it has not then, it never will
                    has_all = self._intake.done >= upto and not self._behind(shown)
                    more = await self._run(stream, after._replace(seq=after.seq + len(found)), min(PAGE, missing))
                    found += more or ()
                    if more == [] and has_all:
                        return None
                    if more or await self._something_written():
                        limit.reschedule(min(end, time() + HISTORY_SECONDS))
                return found
        return None

    async def _run(self, stream: str, after: Position, limit: int) -> list[Event] | None:
        """What the table has right behind a position, without a gap; None when it does not answer at the moment."""
        try:
            # Of the connections for readers some are left to others, however many come back at once
            async with self._looking:
                return resequencer.run_after(after, await self.archive.run(stream, after, limit))
        except errors.QueryCostError:
            raise
        except errors.StoreError:
            return None

    async def _something_written(self) -> bool:
        # Not waited for without end: another daemon may be the one that writes
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_SECONDS):
                await self._recorder.moved()
                return True
        return False
