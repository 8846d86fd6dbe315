"""One act from its beginning to its report."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import random
import sys
import time
from typing import Any

from scripts import kafka
from scripts.chaos import client, daemon, harm, setting, topics, verdict

REST = 60.0


async def play(act: setting.Act, seed: int, folder: pathlib.Path) -> dict[str, Any]:
    """The report of an act. Raises KafkaError, and daemon.Failed when the daemon does not do what it has to."""
    chance = random.Random(f"{seed} {act.name}")
    cluster = kafka.Cluster(folder / "kafka", act.brokers)
    _say(f"{act.name}: starting Kafka")
    await asyncio.to_thread(cluster.start)
    try:
        victim = daemon.Daemon(folder / "daemon", act.brokers, cluster.bootstrap)
        return await _through(act, chance, cluster, victim)
    finally:
        for number in cluster.brokers:
            cluster.kill(number)


async def _through(
    act: setting.Act, chance: random.Random, cluster: kafka.Cluster, victim: daemon.Daemon
) -> dict[str, Any]:
    doer = harm.Harm(act, chance, cluster, victim)
    clients = [client.Client(victim.address, name, doer.away) for name in ("steady", "wandering")]
    begin = time.monotonic()
    await victim.start()
    work = [one.run() for one in clients] + [victim.listen(), _progress(act, doer, clients, begin)]
    work.append(clients[1].wander(chance, setting.moments(chance, act.leaves, act.seconds)))
    tasks = [asyncio.create_task(one) for one in work]
    try:
        await asyncio.gather(doer.run(), asyncio.sleep(act.seconds))
        final = await _end(victim, clients)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(AttributeError):
            victim.kill()
    _say(f"{act.name}: reading the topics")
    found = await topics.read(cluster.bootstrap)
    report = verdict.judge(found, clients, victim.heard, final, doer.injuries)
    return {"act": act.name, "seconds": round(time.monotonic() - begin, 1), "states": sorted(victim.states), **report}


async def _end(victim: daemon.Daemon, clients: list[client.Client]) -> dict[str, Any]:
    """Let everything come to rest, and stop the daemon; what it said last."""
    await victim.ask("/api/streaming/stop", b"{}")
    health = await victim.until(lambda health: health["kafka"]["state"] == "live", REST, "live again")
    end = time.monotonic() + REST / 2
    status: dict[str, Any] | None = None
    while time.monotonic() < end:
        status = await victim.note()
        if status and all(verdict.up_to_date(one, status) for one in clients):
            break
        await asyncio.sleep(0.2)
    if status is None:
        raise daemon.Failed(f"the daemon does not answer at the end: {victim.tail()}")
    return {"status": status, "health": health, "exit": await victim.stop()}


async def _progress(act: setting.Act, doer: harm.Harm, clients: list[client.Client], begin: float) -> None:
    while sys.stderr.isatty():
        shown = " ".join(f"{one.name} {one.frames} (+{len(one.twice)} -{len(one.gaps)})" for one in clients)
        away = [one.kind for one in doer.injuries if not one.until]
        line = (
            f"{act.name}: {time.monotonic() - begin:4.0f} of {act.seconds:g} s, {len(doer.injuries)} injuries, {shown}"
        )
        print(f"\r{line}{', away: ' + ' '.join(away) if away else ''}\x1b[K", end="", file=sys.stderr, flush=True)
        await asyncio.sleep(0.5)


def _say(text: str) -> None:
    print(f"\r\x1b[K{text}" if sys.stderr.isatty() else text, file=sys.stderr, flush=True)
