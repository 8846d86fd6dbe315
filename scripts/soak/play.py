"""The run: a daemon, clients who stay and clients who come and go, and what is known at the end."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import random
import sys
import time
from typing import Any

from scripts.chaos import daemon
from scripts.soak import judge, transports

STAYING, WANDERING = 1, 5
STAYS, AWAY, STALLS = (0.2, 15.0), (0.0, 5.0), (0.5, 4.0)
SAMPLES, MOMENTS = 200, 20
REST = 60.0


class Client:
    """One that stays, or that leaves at random when it is given the chance to."""

    def __init__(self, name: str, kind: type[transports.Transport], address: str) -> None:
        self.name, self.judge = name, judge.Judge()
        self._transport = kind(address, self.judge)
        self.leaves = 0
        self.settled = False

    async def stay(self) -> None:
        """Be connected until cancelled, and come back when the connection ends."""
        while True:
            with contextlib.suppress(*transports.GONE):
                await self._transport.run()
            await asyncio.sleep(0.05)

    async def wander(self, chance: random.Random) -> None:
        """Come and go until it is told to settle."""
        while not self.settled:
            visit = asyncio.create_task(self._visit())
            try:
                await self._stay_awhile(chance)
            finally:
                await self._leave(visit, chance)
            self.leaves += 1
            if chance.random() < 0.1:
                self.judge.forget()
            await asyncio.sleep(chance.uniform(*AWAY))
        await self.stay()

    async def _stay_awhile(self, chance: random.Random) -> None:
        await asyncio.sleep(chance.uniform(*STAYS))
        if chance.random() < 0.3:
            self._transport.stall(True)
            await asyncio.sleep(chance.uniform(*STALLS))

    async def _leave(self, visit: asyncio.Task[None], chance: random.Random) -> None:
        with contextlib.suppress(*transports.GONE):
            # One that reads nothing cannot wait for an answer to its goodbye
            await asyncio.wait_for(self._transport.leave(chance.random() < 0.5), 5)
        self._transport.stall(False)
        visit.cancel()
        await asyncio.gather(visit, return_exceptions=True)
        if not visit.cancelled() and (error := visit.exception()):
            raise error

    async def _visit(self) -> None:
        with contextlib.suppress(*transports.GONE):
            await self._transport.run()


async def play(seconds: float, seed: int, folder: pathlib.Path) -> dict[str, Any]:
    """The report. Raises daemon.Failed or transports.Failed when something does not do at all what it has to."""
    victim = daemon.Daemon(folder, 1, "")
    await victim.start()
    try:
        return await _through(victim, seconds, seed)
    finally:
        victim.kill()


async def _through(victim: daemon.Daemon, seconds: float, seed: int) -> dict[str, Any]:
    served = [name for name, kind in transports.ALL.items() if await asyncio.to_thread(kind.served, victim.address)]
    staying, wandering = (
        [Client(f"{name}, {what} {n}", transports.ALL[name], victim.address) for name in served for n in range(count)]
        for what, count in (("staying", STAYING), ("wandering", WANDERING))
    )
    memory: list[float] = []
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one.stay()) for one in staying]
        tasks += [group.create_task(one.wander(random.Random(f"{seed} {one.name}"))) for one in wandering]
        await _watch(victim, seconds, memory, [*staying, *wandering])
        for one in wandering:
            one.settled = True
        status = await _end(victim, [*staying, *wandering])
        for task in tasks:
            task.cancel()
    code = await victim.stop()
    report = _report(staying, wandering, memory, status)
    found = judge.faults({one.name: one.judge for one in (*staying, *wandering)}, status, memory, seconds)
    if code:
        found["exit"] = {"count": 1, "first": [f"the daemon ended with {code}"]}
    return {"transports": served, **report, "faults": found}


async def _watch(victim: daemon.Daemon, seconds: float, memory: list[float], clients: list[Client]) -> None:
    begin = time.monotonic()
    while (passed := time.monotonic() - begin) < seconds:
        memory.append(_resident(victim.pid))
        if sys.stderr.isatty():
            shown = sum(one.judge.shown for one in clients)
            line = f"{passed:4.0f} of {seconds:g} s, {shown:,} shown, {memory[-1]:.1f} MB"
            print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)
        await asyncio.sleep(seconds / SAMPLES)


async def _end(victim: daemon.Daemon, clients: list[Client]) -> dict[str, Any]:
    """Make nothing more, and let everybody read what there is; what the daemon says then."""
    await victim.ask("/api/streaming/stop", b"{}")
    end = time.monotonic() + REST
    status = None
    while time.monotonic() < end:
        status = await victim.ask("/api/streaming/status") or status
        if status and not any(one.judge.behind(status) for one in clients):
            break
        await asyncio.sleep(0.2)
    if status is None:
        raise daemon.Failed(f"the daemon does not answer at the end: {victim.tail()}")
    return dict(status)


def _resident(pid: int) -> float:
    """Resident memory of a process in MB (10**6 bytes)."""
    text = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(text.partition("VmRSS:")[2].split()[0]) * 1024 / 1e6


def _report(
    staying: list[Client], wandering: list[Client], memory: list[float], status: dict[str, Any]
) -> dict[str, Any]:
    judges = [one.judge for one in (*staying, *wandering)]
    return {
        "events": sum(one["events"] for one in status["streams"]),
        "clients": len(judges),
        "connections": sum(one.connections for one in judges),
        "leaves": sum(one.leaves for one in wandering),
        "shown": sum(one.shown for one in judges),
        "replayed": sum(one.replayed for one in judges),
        "lost": sum(one.lost.count for one in judges),
        "doubled": sum(one.twice.count for one in judges),
        "not recovered": sum(one.untold.count for one in judges),
        "memory, MB": [round(one) for one in memory[:: max(1, len(memory) // MOMENTS)]],
        "memory growth in the second half, %": round(judge.growth(memory) * 100, 1),
    }
