"""Who does the harm, and when: every injury is written down with its time."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import time

from scripts import kafka
from scripts.chaos import daemon, setting


@dataclasses.dataclass
class Injury:
    """From when to when (epoch seconds) something was away; ``until`` is 0 while it is."""

    kind: str
    since: float
    until: float = 0.0


class Harm:
    """Does what ``act`` says to a cluster and a daemon."""

    def __init__(self, act: setting.Act, chance: random.Random, cluster: kafka.Cluster, victim: daemon.Daemon) -> None:
        self._act, self._cluster, self._victim = act, cluster, victim
        seeds = [chance.getrandbits(32) for _ in range(2)]
        self._brokers, self._daemons = (random.Random(seed) for seed in seeds)
        self.injuries: list[Injury] = []

    def away(self) -> bool:
        """Whether Kafka was away a moment ago."""
        return any(one.kind == "broker" and time.time() < (one.until or time.time()) + 8 for one in self.injuries)

    async def run(self) -> None:
        """Return when all is done and everything is back; raises KafkaError and daemon.Failed."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._harm_brokers())
            group.create_task(self._harm_daemon())

    async def _harm_brokers(self) -> None:
        begin = time.monotonic()
        moments = setting.moments(self._brokers, self._act.broker_kills, self._act.seconds)
        for count, moment in enumerate(moments):
            await asyncio.sleep(max(0.0, begin + moment - time.monotonic()))
            number = self._cluster.brokers[count % len(self._cluster.brokers)]
            # Of three, one goes in an orderly way and the next one does not
            orderly = len(self._cluster.brokers) > 1 and count % 2 == 0
            injury = self._note("broker")
            await asyncio.to_thread(self._cluster.stop if orderly else self._cluster.kill, number)
            await asyncio.sleep(self._brokers.uniform(*self._act.outage))
            await asyncio.to_thread(self._cluster.restart, number)
            injury.until = time.time()

    async def _harm_daemon(self) -> None:
        begin = time.monotonic()
        for moment in setting.moments(self._daemons, self._act.daemon_kills, self._act.seconds):
            await asyncio.sleep(max(0.0, begin + moment - time.monotonic()))
            injury = self._note("daemon")
            self._victim.kill()
            await asyncio.sleep(self._daemons.uniform(*self._act.absence))
            await self._victim.start()
            injury.until = time.time()

    def _note(self, kind: str) -> Injury:
        self.injuries.append(Injury(kind, time.time()))
        return self.injuries[-1]
