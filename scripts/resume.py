"""Readers that come back to a busy stream, again and again, for more than the rings remember.

    python -m scripts.resume [--short] [--act NAME] [--out report.json]

Two acts at 1,000 events a second with PostgreSQL: in simulation, and with Kafka. On each transport a client is cut off,
stays away until the stream has made more than its ring holds, and comes back with where it stood. Each time it must be
told that it was recovered, and be shown every number once and in order.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import pathlib
import random
import sys
import tempfile
import time
from typing import Any, NamedTuple

from scripts import kafka, postgres
from scripts.chaos import daemon
from scripts.soak import judge, transports

OUT = pathlib.Path(__file__).with_name("resume.json")
ACTS = ("simulation", "kafka")
BUSY = "BUSY"
QUIET = 38
"""So many other streams make the ring of each as short as it gets, 1,000 events."""
SECONDS = 120.0


class Plan(NamedTuple):
    """So many ``resumes`` on each transport, each after as many events as ``missed`` bounds, at ``rate`` a second."""

    resumes: int
    missed: tuple[int, int]
    rate: int


LONG = Plan(10, (1_500, 9_000), 1_000)
SHORT = Plan(3, (1_200, 2_500), 1_000)


def streams_yaml(rate: int) -> str:
    """The streams file of the load."""
    lines = ["version: 1", "seed: 7", "streams:"]
    for name, timing in (
        (BUSY, f"interval: 20, batch_size: {rate // 50}"),
        *((f"Q{n}", "interval: 1h") for n in range(QUIET)),
    ):
        fields = '{amount: "{{ lognormal(3, 1) | round(2) }}", note: "{{ digits(200) }}"}'
        topic = "resume.busy" if name == BUSY else "resume.quiet"
        lines.append(f"  {name}: {{topic: {topic}, {timing}, fields: {fields}}}")
    return "\n".join(lines) + "\n"


class Client:
    """One client of one transport; ``recovered`` of its ``resumes``, the longest of which took ``slowest`` seconds."""

    def __init__(self, name: str, victim: daemon.Daemon, chance: random.Random) -> None:
        self.judge = judge.Judge()
        self.resumes = self.recovered = 0
        self.slowest = 0.0
        self._name, self._daemon, self._chance = name, victim, chance
        self._transport = transports.ALL[name](victim.address, self.judge)

    async def run(self, plan: Plan) -> None:
        """Do what the plan says. Raises daemon.Failed."""
        await self._follow()
        for _ in range(plan.resumes):
            await self._made(self._chance.randint(*plan.missed))
            untold = self.judge.untold.count
            await self._follow()
            self.resumes += 1
            self.recovered += self.judge.untold.count == untold

    async def _follow(self) -> None:
        """Connect, and leave without a word when something live was shown."""
        session, told = asyncio.create_task(self._transport.run()), self.judge.connections
        try:
            began = time.monotonic()
            await self._until(session, lambda: self.judge.connections > told, "is answered")
            if told:
                self.slowest = max(self.slowest, time.monotonic() - began)
            made = await self._seq()
            await self._until(session, lambda: self._last > made, f"was shown {made}")
            await self._transport.leave(rudely=True)
        finally:
            session.cancel()
            await asyncio.gather(session, return_exceptions=True)

    async def _made(self, count: int) -> None:
        """Return when so many more events were made than it was shown."""
        goal, end = self._last + count, time.monotonic() + SECONDS
        while await self._seq() < goal:
            if time.monotonic() > end:
                raise daemon.Failed(f"{BUSY} makes too little: {self._daemon.tail()}")
            await asyncio.sleep(0.05)

    async def _until(self, session: asyncio.Task[None], holds: Any, what: str) -> None:
        end = time.monotonic() + SECONDS
        while not holds():
            if session.done() or time.monotonic() > end:
                reason = session.exception() if session.done() and not session.cancelled() else "not in time"
                raise daemon.Failed(f"{self._name}: {what}: {reason!r}; {self._daemon.tail()}")
            await asyncio.sleep(0.01)

    @property
    def _last(self) -> int:
        return self.judge.last.get(BUSY, ("", 0))[1]

    async def _seq(self) -> int:
        said = await self._daemon.ask(f"/api/streaming/streams/{BUSY}")
        return int(said["seq"]) if said else 0

    @property
    def row(self) -> dict[str, Any]:
        """What came of it."""
        return {
            "transport": self._name, "resumes": self.resumes, "recovered": self.recovered,
            "replayed": self.judge.replayed, "slowest answer": f"{self.slowest:.2f} s",
            "lost": self.judge.lost.count, "doubled": self.judge.twice.count,
            "first": (self.judge.untold.first + self.judge.lost.first + self.judge.twice.first)[:3],
        }  # fmt: skip

    @property
    def holds(self) -> bool:
        """Whether nothing was lost, doubled or given up."""
        return self.resumes == self.recovered > 0 and not self.judge.lost.count and not self.judge.twice.count


async def play(plan: Plan, folder: pathlib.Path, database: str, bootstrap: str, seed: int) -> list[Client]:
    """One act, with the clients of all transports at the same time. Raises daemon.Failed."""
    env = {"DATABASE_URL": database, "REGSTREAM_STATE": str(folder / "state")}
    victim = daemon.Daemon(folder, 1, bootstrap, **env)
    (folder / "streams.yaml").write_text(streams_yaml(plan.rate))
    await victim.start()
    try:
        chance = random.Random(seed)
        clients = [Client(name, victim, chance) for name in transports.ALL]
        async with asyncio.timeout(plan.resumes * 3 * SECONDS):
            await asyncio.gather(*(one.run(plan) for one in clients))
    finally:
        await victim.stop()
    return clients


def main() -> int:
    """0 when everything holds, 1 when something does not, 2 when it cannot be tried."""
    parser = argparse.ArgumentParser(prog="resume", description="cut readers of a busy stream off, see what they get")
    parser.add_argument("--short", action="store_true", help="three resumes instead of ten")
    parser.add_argument("--act", choices=ACTS, help="only this one")
    parser.add_argument("--seed", type=int, default=0, help="the same one makes the same plan")
    parser.add_argument("--out", type=pathlib.Path, default=OUT, help="where the report goes, as JSON")
    chosen = parser.parse_args()
    wanted = [chosen.act] if chosen.act else list(ACTS)
    if reason := postgres.why_not() or (kafka.available() if "kafka" in wanted else None):
        print(f"it cannot be tried here: {reason}", file=sys.stderr)
        return 2
    plan = SHORT if chosen.short else LONG
    report: dict[str, Any] = {"plan": plan._asdict(), "holds": True}
    for name in wanted:
        with tempfile.TemporaryDirectory(prefix="resume-") as temporary, contextlib.ExitStack() as stack:
            folder = pathlib.Path(temporary)
            database = stack.enter_context(postgres.Cluster(folder / "postgres")).url()
            bootstrap = stack.enter_context(kafka.Cluster(folder / "kafka")).bootstrap if name == "kafka" else ""
            clients = asyncio.run(play(plan, folder / "daemon", database, bootstrap, chosen.seed))
        report[name] = [one.row for one in clients]
        report["holds"] &= all(one.holds for one in clients)
        for row in report[name]:
            print(f"{name:<12}" + "".join(f"{what} {value}  " for what, value in row.items()), flush=True)
    chosen.out.write_text(json.dumps(report, indent=1) + "\n")
    print("everything holds" if report["holds"] else "something does NOT hold")
    return 0 if report["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
