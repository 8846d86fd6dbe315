"""The claim of this daemon to generate, kept on a small topic of the cluster; ``broker.claim`` has the rule."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import pathlib
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import aiokafka
import aiokafka.admin
import aiokafka.errors

from regstream import errors
from regstream.broker import leader
from regstream.broker.kafka import connection
from regstream.broker.kafka import errors as kafka_errors
from regstream.event import Position

TOPIC = "regstream.generators"
BEAT_SECONDS = 2.0
SETTLE_SECONDS = 8.0
TAIL = 1_000
AGAIN_SECONDS = 2.0
_CONFIG = {"cleanup.policy": "delete", "retention.ms": "86400000", "message.timestamp.type": "LogAppendTime"}
_PLACE = aiokafka.TopicPartition(TOPIC, 0)
_DENIED = (aiokafka.errors.TopicAuthorizationFailedError, aiokafka.errors.ClusterAuthorizationFailedError)
_PASSING = (kafka_errors.ErrorAction.RETRY, kafka_errors.ErrorAction.MAKE_AGAIN)
_log = logging.getLogger("regstream.broker")


class LeaderClaims:
    """``start``, ``close``; in between ``other`` says why this daemon may not generate, empty while it may.

    While the cluster cannot be asked the last answer holds, and before the first one it may. ``unclean``: it may
    because another one was not heard of any more, which may have events on disk that nobody has seen. The file at
    ``path`` has the name by which others know this daemon, also after a restart. The cluster is asked only while it is
    ``reachable``, so that refused credentials are shown to it by one client alone.
    """

    def __init__(
        self, reach: connection.Connection, path: pathlib.Path, server: str, since: str, reachable: Callable[[], bool]
    ) -> None:
        self._connection = reach
        self._reachable = reachable
        self._path = path
        self._mine = leader.Claim("", server, since, frozenset())
        self._ledger = leader.ClaimLog()
        self._offset = 0
        self._clock = 0.0
        self._retry = 0.0
        self._settled = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._producer: Any = None
        self._consumer: Any = None
        self._told = ""
        self._closing = False
        self.other = ""
        self.unclean = False

    async def start(self, topics: Iterable[str]) -> None:
        """Claim these topics; returns when it is known whether that holds, or cannot be known now."""
        self.follow(topics)
        self._mine = dataclasses.replace(self._mine, instance=instance(self._path))
        self._task = asyncio.create_task(self._run(), name="broker-claim")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS):
                await self._settled.wait()

    def follow(self, topics: Iterable[str]) -> None:
        """The topics that are claimed from the next time on."""
        self._mine = dataclasses.replace(self._mine, topics=frozenset(topics))

    def behind(self, known: Mapping[str, Position]) -> bool:
        """Whether a daemon that ended while this one started got further than is ``known``."""
        return self._ledger.behind(self._mine, known)

    async def close(self, positions: Mapping[str, Position] | None = None) -> None:
        """Claim nothing more; with ``positions``, where all streams stand, others need not wait. Bounded in time."""
        task, self._task = self._task, None
        if task is None:
            return
        # What is appended after the release would hold again
        self._closing, producer = True, self._producer
        if positions is not None and producer is not None and self._ledger.holds(self._mine):
            last = dataclasses.replace(self._mine, released=True, positions=positions)
            with contextlib.suppress(*kafka_errors.FAULTS):
                async with asyncio.timeout(connection.STOP_SECONDS):
                    await producer.send_and_wait(TOPIC, last.pack(), partition=0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                if self._reachable():
                    await self._session()
            except Exception as error:
                # Whatever it is, streams go on
                self._failed(error)
            finally:
                producer, consumer = self._producer, self._consumer
                self._producer = self._consumer = None
                await asyncio.gather(connection.discard(producer), connection.stop(consumer))
            self._settled.set()
            await asyncio.sleep(AGAIN_SECONDS)

    def _failed(self, error: Exception) -> None:
        reason = kafka_errors.why(error, self._connection.servers)
        passing = isinstance(error, kafka_errors.FAULTS) and not isinstance(error, _DENIED)
        _log.debug("the claim to generate could not be renewed: %s", reason)
        if reason != self._told and not passing and not (isinstance(error, errors.BrokerError) and not error.final):
            self._told = reason
            _log.warning("a second daemon that generates onto the same topics is not noticed: %s", reason)

    async def _session(self) -> None:
        through = await kafka_errors.probe(self._connection, connection.ANSWER_SECONDS)
        options = through.options()
        await self._make(options)
        self._consumer = aiokafka.AIOKafkaConsumer(**options, group_id=None, enable_auto_commit=False)
        self._producer = aiokafka.AIOKafkaProducer(**options, acks="all")
        await self._consumer.start()
        await self._producer.start()
        self._consumer.assign([_PLACE])
        first = (await self._consumer.beginning_offsets([_PLACE]))[_PLACE]
        end = (await self._consumer.end_offsets([_PLACE]))[_PLACE]
        if not first <= self._offset <= end or not self._offset:
            # Those that hold are repeated again and again
            self._ledger, self._offset = leader.ClaimLog(), max(first, end - TAIL)
        self._consumer.seek(_PLACE, self._offset)
        async with asyncio.timeout(connection.ANSWER_SECONDS):
            await self._read(end)
        # How old what was read is, the timestamp of the next claim decides
        self._wait(0.0)
        while True:
            if not self._closing and (not self.other or asyncio.get_running_loop().time() >= self._retry):
                await self._claim()
                self._settled.set()
            await self._read(self._offset, BEAT_SECONDS if not self.other else BEAT_SECONDS / 4)

    async def _make(self, options: Mapping[str, Any]) -> None:
        """Make the topic if it is missing. Raises BrokerError, ``final`` when the cluster refuses it."""
        admin = aiokafka.admin.AIOKafkaAdminClient(**options)
        try:
            await admin.start()
            # Of all topics: a cluster may make one that is asked for by its name, with other settings
            if TOPIC in await admin.list_topics():
                return
            copies = max(1, min(3, len((await admin._client.fetch_all_metadata()).brokers())))
            answer = await admin.create_topics([aiokafka.admin.NewTopic(TOPIC, 1, copies, topic_configs=_CONFIG)])
            for _, number, *_text in answer.topic_errors:
                code = kafka_errors.of(number)
                if code.action not in (kafka_errors.ErrorAction.ACKNOWLEDGED, kafka_errors.ErrorAction.EXISTS):
                    reason = f"topic {TOPIC} cannot be created: {code}"
                    raise errors.BrokerError(reason, final=code.action not in _PASSING)
        finally:
            await connection.stop(admin)

    async def _claim(self) -> None:
        """Append the claim, and read what was decided."""
        mine = self._mine
        async with asyncio.timeout(connection.ANSWER_SECONDS):
            sent = await self._producer.send_and_wait(TOPIC, mine.pack(), partition=0)
            await self._read(sent.offset + 1)
        rivals = self._ledger.rivals(mine, self._clock)
        self.other = leader.overlap(mine, rivals)
        if rivals:
            self._wait(max(rivals.values()) - self._clock)

    def _wait(self, seconds: float) -> None:
        self._retry = asyncio.get_running_loop().time() + seconds

    async def _read(self, upto: int, seconds: float = 0.0) -> None:
        """Read up to an offset, and for so long whatever comes after it."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while (left := until - loop.time()) > 0 or self._offset < upto:
            found = await self._consumer.getmany(timeout_ms=int(1000 * min(0.5, max(0.1, left))))
            for one in found.get(_PLACE, ()):
                self._offset = one.offset + 1
                self._take(leader.Claim.unpack(one.value), one.timestamp / 1000)

    def _take(self, one: leader.Claim | None, at: float) -> None:
        self._clock = max(self._clock, at)
        if one is None:
            return
        took = self._ledger.take(one, at)
        if one.instance == self._mine.instance or not one.topics & self._mine.topics:
            return
        if took:
            self.unclean = not one.released
            self._wait(0.0 if one.released else leader.LEASE_SECONDS)
        if took and not one.released:
            # It may have taken over from this one, which learns of it here
            self.other = leader.overlap(self._mine, [one])


def instance(path: pathlib.Path) -> str:
    """What this daemon is known by: written down at its first start. Raises StartError when that cannot be done."""
    try:
        if path.exists() and (known := path.read_text(encoding="utf-8").strip()):
            return known
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{secrets.token_hex(8)}\n", encoding="utf-8")
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise errors.StartError(f"{path} cannot be used", error.strerror or str(error)) from error
