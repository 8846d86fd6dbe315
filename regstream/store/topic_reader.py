"""Topics, read on behalf of the recorder for as long as one connection to the database lasts."""

from __future__ import annotations

import asyncio
import collections
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, Protocol

from regstream import broker, errors
from regstream.broker import backoff
from regstream.store import writer

AHEAD = 2
FETCH_SECONDS = 1.0
_log = logging.getLogger("regstream.store")


class FetchedEvents(Protocol):
    """What was read from topics; see ``broker.kafka.log.Fetched``."""

    @property
    def records(self) -> list[broker.Record]:
        """In the order of each partition."""

    @property
    def next(self) -> Mapping[writer.Place, int]:
        """Where each partition that has moved is to be gone on with."""

    @property
    def lost(self) -> Mapping[writer.Place, int]:
        """How many messages are on a partition no more, although they were not read."""


class TopicLog(Protocol):
    """Topics, read from given offsets on; see ``broker.kafka.log.Log``."""

    @property
    def denied(self) -> Mapping[str, str]:
        """Topics that may not be read, and what to say of them."""

    @property
    def lag(self) -> int:
        """Messages that are not fetched yet."""

    async def start(self) -> None:
        """Connect. Raises BrokerError."""

    def follow(self, topics: Iterable[str]) -> None:
        """Read these topics too."""

    async def fetch(self, limit: int, seconds: float) -> FetchedEvents:
        """Some of what there is, once there is any. Raises BrokerError."""

    async def close(self) -> None:
        """Give everything up."""


class RecordSource(NamedTuple):
    """Where events come from when there is Kafka: ``topics`` are those that there are to be, ``open`` makes a log."""

    open: Callable[[Mapping[writer.Place, int]], TopicLog]
    topics: Callable[[], Iterable[str]]


class TopicFollower:
    """Reads from ``offsets`` on, ``AHEAD`` chunks ahead of who takes them; ``filled`` is set when there is one.

    ``reason`` says why nothing is read, empty when there is nothing to say. ``tick`` gives seconds of a steady clock,
    ``most`` how many messages a chunk may have at present.
    """

    def __init__(
        self,
        source: RecordSource,
        offsets: Mapping[writer.Place, int],
        filled: asyncio.Event,
        tick: Callable[[], float],
        most: Callable[[], int],
    ) -> None:
        self._source, self._next, self._filled, self._tick = source, dict(offsets), filled, tick
        self._most = most
        self._ready: collections.deque[FetchedEvents] = collections.deque()
        self._room = asyncio.Event()
        self._pauses = backoff.Backoff()
        self._log: TopicLog | None = None
        self.reason = ""

    @property
    def lag(self) -> int:
        """Messages that the table has not, as far as is known."""
        log = self._log
        return sum(len(one.records) for one in self._ready) + (0 if log is None else log.lag)

    def take(self) -> FetchedEvents | None:
        """The next chunk, if there is one; what is taken is not given again."""
        if not self._ready:
            return None
        self._room.set()
        return self._ready.popleft()

    async def run(self) -> None:
        """Read until cancelled, whatever the cluster does."""
        while True:
            began, log = self._tick(), self._source.open(dict(self._next))
            try:
                await log.start()
                self._log, self.reason = log, ""
                await self._read(log)
            except errors.LoginError as error:
                self.reason, pause = str(error), self._pauses.after_login()
            except errors.BrokerError as error:
                self.reason = str(error)
                pause = self._pauses.after_loss(self._tick() - began, self._log is not None)
            except Exception as error:
                # Nobody waits for this task: one that ended would read nothing more, without a word
                _log.exception("the topics cannot be read, and are tried again")
                self.reason = f"{type(error).__name__}: {error}"
                pause = self._pauses.after_loss(self._tick() - began, self._log is not None)
            finally:
                self._log = None
                await log.close()
            await asyncio.sleep(pause)

    async def _read(self, log: TopicLog) -> None:
        while True:
            log.follow(self._source.topics())
            fetched = await log.fetch(self._most(), FETCH_SECONDS)
            self.reason = "; ".join(log.denied.values())
            if not fetched.next:
                continue
            self._next.update(fetched.next)
            self._ready.append(fetched)
            self._filled.set()
            while len(self._ready) >= AHEAD:
                self._room.clear()
                await self._room.wait()
