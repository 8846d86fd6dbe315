"""The task that writes into the database, connects again for as long as it takes, and sees to the days."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

from regstream import errors
from regstream.broker import backoff
from regstream.event import Position, rfc3339
from regstream.store import journal, pool, schema, spooled_queue, topic_reader, writer

WRITE_SECONDS = 10.0
LEAST = 100
GATHER_SECONDS = 0.05
IDLE_SECONDS = 2.0
PING_SECONDS = 3.0
LOCK_SECONDS = 2.0
VACANT_SECONDS = 10.0
"""Nobody else has generated for that long, then another daemon may: one that is started again needs less."""
DAYS_SECONDS = 600.0
RETENTION_SECONDS = 60.0
LOCK = schema.MIGRATION_LOCK + 1
CURE = "stop one of them, or set ENABLE_STREAMING=false or another database here"
_log = logging.getLogger("regstream.store")


class RecorderState(NamedTuple):
    """``connecting`` until the first try has ended, then ``live``, ``away`` or ``standby``; ``closed`` at the end."""

    name: str
    reason: str = ""


class Clocks(NamedTuple):
    """``now`` gives seconds since 1970, ``tick`` those of a steady clock."""

    now: Callable[[], float]
    tick: Callable[[], float]


class RecorderCounts:
    """What was done since the start, in events; ``lost`` were on a topic, and are there no more."""

    def __init__(self) -> None:
        self.recorded = self.refused = self.lost = 0
        self.refusal = ""
        self.positions: dict[str, Position] = {}

    def add(self, written: writer.Written) -> None:
        """Count what was written."""
        self.recorded += written.events
        for stream, position in written.reached.items():
            # Partitions of one stream come one after the other
            self.positions[stream] = max(position, self.positions.get(stream, position))
        if written.refused:
            if not self.refused:
                _log.error("the database cannot keep %s", written.reason)
            self.refused, self.refusal = self.refused + written.refused, written.reason


class Recorder:
    """Writes what comes in, and with a ``source`` what is on the topics, with one connection of its own.

    ``keep`` is for how many seconds events are kept, None for ever; ``first`` is called with the first connection, and
    told whether this daemon is the keeper; ``changed`` is told of each change of state.

    One daemon at a time is the keeper: it holds a lock in the database. With a source the keeper alone reads the
    topics, and others stand by; without one each writes down events of its own, and only who was the keeper when it
    started may go on with numbers that it finds in the database. There the keeper alone generates, too: ``other`` says
    who is it in place of one that ``generates``, until nobody is for ``VACANT_SECONDS``.
    """

    def __init__(
        self,
        base: pool.Database,
        taken: spooled_queue.RecorderQueue,
        source: topic_reader.RecordSource | None,
        moments: Clocks,
        keep: float | None,
        first: Callable[[writer.EventsTable, bool], Awaitable[None]],
        changed: Callable[[RecorderState], None],
        generates: bool = True,
    ) -> None:
        self._generates = generates
        self.other = ""
        self._vacant_since: float | None = None
        self._sessions: set[int] = set()
        self._base, self._taken, self._source = base, taken, source
        self._moments, self._first, self._changed = moments, first, changed
        self._retention = None if keep is None else schema.Retention(keep, moments.now, moments.tick)
        self._pauses = backoff.Backoff()
        self._is_first = True
        self._moved = asyncio.Event()
        self._following: topic_reader.TopicFollower | None = None
        self._most = spooled_queue.CHUNK
        self._connection: pool.Connection | None = None
        self._backend = 0
        self.tried = asyncio.Event()
        self.state = RecorderState("connecting")
        self.counts = RecorderCounts()

    @property
    def lag(self) -> int:
        """Messages of the topics that are not in the table, as far as is known."""
        return self._following.lag if self._following is not None else 0

    @property
    def source_reason(self) -> str:
        """Why the topics are not read, empty when they are."""
        return self._following.reason if self._following is not None else ""

    async def moved(self) -> None:
        """Return when something was written."""
        await self._moved.wait()

    def _tell(self, name: str, reason: str = "") -> None:
        state = RecorderState(name, reason)
        if state.name != self.state.name:
            level = logging.WARNING if name == "away" else logging.INFO
            _log.log(level, "database %s%s", name, f": {reason}" if reason else "")
            self._changed(state)
        self.state = state

    async def run(self) -> None:
        """Write until cancelled, whatever the database does."""
        try:
            while True:
                began = self._moments.tick()
                try:
                    await self._session()
                except Exception as error:
                    # Also what nobody thought of: the daemon goes on without the store, and not the other way round
                    answered = self.state.name in ("live", "standby")
                    self._taken.fall()
                    self._stumbled(error)
                    self.tried.set()
                    await asyncio.sleep(self._pauses.after_loss(self._moments.tick() - began, answered))
        finally:
            self._tell("closed")

    def _stumbled(self, error: Exception) -> None:
        reason = pool.fault(error).reason
        if not isinstance(error, (errors.StoreError, *pool.FAULTS)) and reason != self.state.reason:
            _log.error("the recorder failed, and begins anew: %s", reason, exc_info=error)
        self._tell("away", reason)

    async def _session(self) -> None:
        """Use one connection until it is lost, which is an error of any class."""
        self._connection = connection = await self._base.connect()
        try:
            self._backend = await pool.backend(connection)
            await self._use(connection)
        finally:
            self.cut()
            await connection.close()

    def cut(self) -> None:
        """Lose the connection, whatever is under way on it: who waits for a server that is frozen would not end."""
        connection, self._connection = self._connection, None
        if connection is not None:
            pool.cut(connection)

    async def _use(self, connection: pool.Connection) -> None:
        await schema.migrate(connection)
        days = schema.Partitions()
        one = writer.EventsTable(connection, days)
        async with pool.bounded(connection, WRITE_SECONDS):
            await days.find(connection)
        is_keeper = not self._waits and await self._lock(connection, LOCK_SECONDS if self._is_first else 0.0)
        self._sessions.add(self._backend)
        if not is_keeper:
            is_keeper = await self._look(connection)
        if self._is_first:
            async with pool.bounded(connection, WRITE_SECONDS):
                await self._first(one, is_keeper)
            self._is_first = False
        is_idle = self._source is not None and not is_keeper
        self._tell("standby" if is_idle else "live", "another daemon records into this database" if is_idle else "")
        self.tried.set()
        async with self._followed(one if is_keeper else None):
            await self._work(connection, one, is_keeper)

    @property
    def _waits(self) -> bool:
        """Whether another daemon is the keeper, or was lately; or this one generates nothing that it could keep."""
        return self._source is None and (not self._generates or self.other != "")

    async def _look(self, connection: pool.Connection) -> bool:
        """Become the keeper if that may be; else see who generates in place of this daemon."""
        if not self._waits and await self._lock(connection, 0.0):
            return True
        if self._source is not None or not self._generates:
            return False
        async with pool.bounded(connection, PING_SECONDS):
            found = await pool.fetch(connection, pool.named("lock_holder"), {"lock": LOCK})
        now = self._moments.tick()
        if found and found[0][2] in self._sessions:
            # The server has not seen yet that the session before this one is gone
            return False
        if found:
            name, address, process, since = found[0]
            start = "" if since is None else f" since {rfc3339(since.timestamp())}"
            name = name.removeprefix(pool.NAME).strip() or "of another user"
            who = f"daemon {name} (from {address}, process {process} of the server), which generates{start}"
            self.other = (
                f"another daemon generates into the database: {who}; this one only reads until that ends: {CURE}"
            )
            self._vacant_since = None
        elif self._vacant_since is None:
            # Also when the one that kept us from it has ended just now: it may be started again
            self.other, self._vacant_since = self.other or f"another daemon ended just now: {CURE}", now
        elif now - self._vacant_since >= VACANT_SECONDS:
            self.other = ""
        return False

    async def _lock(self, connection: pool.Connection, seconds: float) -> bool:
        """Become the keeper, if nobody else is, or ends to be within that time."""
        until = self._moments.tick() + seconds
        while True:
            async with pool.bounded(connection, WRITE_SECONDS):
                ((is_ours,),) = await pool.fetch(connection, pool.named("lock_session"), {"lock": LOCK})
            if is_ours:
                return True
            if self._moments.tick() >= until:
                return False
            # One that was killed is let go of when the database has seen that it is gone
            await asyncio.sleep(0.1)

    @contextlib.asynccontextmanager
    async def _followed(self, one: writer.EventsTable | None) -> AsyncIterator[None]:
        """Read the topics meanwhile, from where the table ends."""
        if self._source is None or one is None:
            yield
            return
        topics = topic_reader.TopicFollower(
            self._source, await one.offsets(), self._taken.filled, self._moments.tick, lambda: self._most
        )
        task = asyncio.create_task(topics.run(), name="store-log")
        self._following = topics
        try:
            yield
        finally:
            self._following = None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _work(self, connection: pool.Connection, one: writer.EventsTable, is_keeper: bool) -> None:
        days_at = look_at = 0.0
        while True:
            if not is_keeper and self._moments.tick() >= look_at:
                is_keeper = await self._look(connection)
                if is_keeper and self._source is not None:
                    # As the keeper from its beginning
                    return
                look_at = self._moments.tick() + IDLE_SECONDS
            if self._moments.tick() >= days_at:
                await self._see_to_days(connection, one)
                days_at = self._moments.tick() + DAYS_SECONDS
            chunk = self._taken.take(self._most)
            fetched = self._following.take() if self._following else None
            if chunk is None and fetched is None:
                await self._wait(connection)
                continue
            count = await self._in_time(connection, one, chunk, fetched)
            if count < self._most:
                # A transaction costs as much as many rows
                await asyncio.sleep(GATHER_SECONDS)

    async def _in_time(
        self,
        connection: pool.Connection,
        one: writer.EventsTable,
        chunk: spooled_queue.RecorderChunk | None,
        fetched: topic_reader.FetchedEvents | None,
    ) -> int:
        """Write, within ``WRITE_SECONDS``; a database that is too slow for so much is given less the next time."""
        began, most = self._moments.tick(), self._most
        # What is said of this chunk holds if it does not come to its end
        self._most = max(LEAST, most // 4)
        async with pool.bounded(connection, WRITE_SECONDS):
            count = await self._write(one, chunk, fetched)
        is_quick = self._moments.tick() - began < WRITE_SECONDS / 4
        self._most = min(spooled_queue.CHUNK, 2 * most) if is_quick else most
        return count

    async def _write(
        self,
        one: writer.EventsTable,
        chunk: spooled_queue.RecorderChunk | None,
        fetched: topic_reader.FetchedEvents | None,
    ) -> int:
        found = journal.sort(chunk.events if chunk is not None else [])
        records, offsets = (fetched.records, fetched.next) if fetched is not None else ([], {})
        events = [*found.events, *(record.event for record in records)]
        written = await one.write(writer.WriteBatch(events, found, offsets))
        if chunk is not None:
            self._taken.acknowledge(chunk.upto)
        if fetched is not None:
            self._mourn(fetched)
        _log.debug("%d events recorded, %d notes", written.events, found.notes)
        self.counts.add(written)
        self._moved.set()
        self._moved = asyncio.Event()
        return len(events)

    def _mourn(self, fetched: topic_reader.FetchedEvents) -> None:
        for (topic, partition), count in fetched.lost.items():
            _log.error("%d messages of %s, partition %d, went before they were recorded", count, topic, partition)
            self.counts.lost += count

    async def _wait(self, connection: pool.Connection) -> None:
        """Until there is something; who says nothing for long is asked whether it is there."""
        self._taken.filled.clear()
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                await self._taken.filled.wait()
        except TimeoutError:
            async with pool.bounded(connection, PING_SECONDS):
                if await pool.backend(connection) != self._backend:
                    # A pooler was set up in another way meanwhile
                    raise errors.StoreError(pool.POOLED) from None

    def _today(self) -> datetime.date:
        return datetime.datetime.fromtimestamp(self._moments.now(), datetime.UTC).date()

    async def _see_to_days(self, connection: pool.Connection, one: writer.EventsTable) -> None:
        async with pool.bounded(connection, WRITE_SECONDS):
            await one.days.make_ahead(connection, self._today())
        if self._retention is not None:
            async with pool.bounded(connection, RETENTION_SECONDS):
                await self._retention.enforce(connection, one.days)
