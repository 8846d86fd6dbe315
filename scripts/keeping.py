"""What a day of bad luck does to what is kept: a daemon under load, its PostgreSQL and itself killed again and again.

    python -m scripts.keeping [--short] [--seed N] [--act NAME] [--out report.json]

Two acts at 1,000 events a second: in simulation, and with Kafka. Meanwhile PostgreSQL is killed with SIGKILL, frozen
with SIGSTOP, and the daemon is killed with SIGKILL. Afterwards the table is read with nothing of ours and compared, by
(stream, epoch, seq), with an independent reader: a WebSocket client that followed all of it and came back with where it
stood, and with Kafka the topics.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import json
import pathlib
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import psycopg

from scripts import kafka, postgres
from scripts.chaos import client, daemon, setting, topics

OUT = pathlib.Path(__file__).with_name("keeping.json")
REST = 90.0
ACTS = ("simulation", "kafka")


class Plan(NamedTuple):
    """How long the load is, and how often what is done; ``outage`` and ``absence`` bound how long who stays away."""

    seconds: float
    database_kills: int
    freezes: int
    daemon_kills: int
    outage: tuple[float, float]
    absence: tuple[float, float]


LONG = Plan(150.0, 10, 2, 5, (0.5, 8.0), (0.0, 2.0))
SHORT = Plan(20.0, 3, 0, 2, (0.2, 2.0), (0.0, 0.5))


class Kept(NamedTuple):
    """What the table has: numbers by stream and epoch, and the names of what is there more than once."""

    seen: dict[tuple[str, str], set[int]]
    twice: list[str]

    @property
    def rows(self) -> int:
        return sum(map(len, self.seen.values())) + len(self.twice)


def read(url: str) -> Kept:
    """Everything in the table."""
    found = Kept(collections.defaultdict(set), [])
    with psycopg.connect(url) as connection, connection.cursor("all") as cursor:
        for stream, epoch, seq in cursor.execute("SELECT stream, epoch, seq FROM regstream.events"):
            if seq in found.seen[stream, epoch]:
                found.twice.append(f"{stream}/{epoch}/{seq}")
            found.seen[stream, epoch].add(seq)
    return found


def judge(kept: Kept, wanted: dict[tuple[str, str], set[int]], gapless: bool) -> dict[str, list[str]]:
    """What is wrong: what was seen elsewhere and is not in the table, what is there twice, and holes in numberings."""
    missing = [f"{s}/{e}/{seq}" for (s, e), seqs in wanted.items() for seq in sorted(seqs - kept.seen[s, e])]
    holes = [
        f"{stream}/{epoch}: {len(seqs)} of {max(seqs)}"
        for (stream, epoch), seqs in kept.seen.items()
        if gapless and seqs and len(seqs) != max(seqs)
    ]
    return {"missing": missing, "twice": kept.twice, "holes": holes}


async def injure(plan: Plan, chance: random.Random, cluster: postgres.Cluster, victim: daemon.Daemon) -> None:
    """Do what the plan says, at random moments, one thing after the other."""
    todo: list[Callable[[], Awaitable[None]]] = []

    async def kill_database() -> None:
        await asyncio.to_thread(cluster.kill)
        await asyncio.sleep(chance.uniform(*plan.outage))
        await asyncio.to_thread(cluster.start)

    async def freeze_database() -> None:
        cluster.freeze()
        await asyncio.sleep(chance.uniform(*plan.outage) + 12)
        cluster.thaw()

    async def kill_daemon() -> None:
        await asyncio.to_thread(victim.kill)
        await asyncio.sleep(chance.uniform(*plan.absence))
        await victim.start()

    todo += [kill_database] * plan.database_kills + [freeze_database] * plan.freezes
    todo += [kill_daemon] * plan.daemon_kills
    chance.shuffle(todo)
    pause = plan.seconds / (len(todo) + 1)
    for number, harm in enumerate(todo, 1):
        _say(f"  {number} of {len(todo)}: {harm.__name__.replace('_', ' ')}")
        await harm()
        await asyncio.sleep(chance.uniform(0.3, 1.0) * pause)


async def play(name: str, plan: Plan, seed: int, folder: pathlib.Path) -> dict[str, Any]:
    """One act, to its report. Raises daemon.Failed."""
    chance = random.Random(f"{seed} {name}")
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(postgres.Cluster(folder / "postgres"))
        bootstrap = stack.enter_context(kafka.Cluster(folder / "kafka")).bootstrap if name == "kafka" else ""
        victim = daemon.Daemon(
            folder / "daemon", 1, bootstrap, DATABASE_URL=cluster.url(), REGSTREAM_STATE=str(folder / "state")
        )
        began = time.monotonic()
        follower = client.Client(victim.address, "follower", lambda: False)
        await victim.start()
        following = asyncio.create_task(follower.run())
        try:
            await injure(plan, chance, cluster, victim)
            await asyncio.sleep(max(0.0, began + plan.seconds - time.monotonic()))
            health = await _rest(victim, cluster.url())
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            with contextlib.suppress(AttributeError):
                await victim.stop()
        wanted = (await topics.read(bootstrap)).seen if bootstrap else follower.seen
        kept = read(cluster.url())
        faults = judge(kept, wanted, gapless=True)
        faults["not in the table, though shown"] = judge(kept, follower.seen, gapless=False)["missing"]
        faults["shown twice or with gaps"] = follower.twice + follower.gaps
    return {
        "act": name, "seconds": round(time.monotonic() - began, 1), "rows": kept.rows,
        "compared with": sum(map(len, wanted.values())), "shown": follower.frames,
        "database kills": plan.database_kills, "database freezes": plan.freezes, "daemon kills": plan.daemon_kills,
        "dropped": health["store"]["dropped"], "refused": health["store"]["refused"],
        "faults": {what: {"count": len(some), "first": some[:5]} for what, some in faults.items() if some},
    }  # fmt: skip


async def _rest(victim: daemon.Daemon, url: str) -> dict[str, Any]:
    """Stop streaming, and wait until everything is in the table; what ``/health`` says then."""
    await victim.until(lambda health: health["store"]["state"] == "live", REST, "the database is there again")
    await victim.ask("/api/streaming/stop", b"{}")
    await asyncio.sleep(1.0)
    rows = -1
    while True:
        # Twice the same number, with nothing waiting
        health: dict[str, Any] = await victim.until(
            lambda health: health["store"]["waiting"] == 0 and health["kafka"]["waiting"] == 0, REST, "all is written"
        )
        before, rows = rows, await asyncio.to_thread(lambda: read(url).rows)
        if rows == before and health["store"]["lag"] == 0:
            return health
        await asyncio.sleep(2.5)


def main() -> int:
    """0 when everything holds, 1 when something does not, 2 when it cannot be tried."""
    parser = argparse.ArgumentParser(prog="keeping", description="kill PostgreSQL and the daemon, see what is lost")
    parser.add_argument("--short", action="store_true", help="a minute instead of six")
    parser.add_argument("--seed", type=int, help="the same one makes the same plan of injuries")
    parser.add_argument("--act", choices=ACTS, help="only this one")
    parser.add_argument("--out", type=pathlib.Path, default=OUT, help="where the report goes, as JSON")
    chosen = parser.parse_args()
    wanted = [chosen.act] if chosen.act else list(ACTS)
    if reason := postgres.why_not() or (kafka.available() if "kafka" in wanted else None):
        print(f"it cannot be tried here: {reason}", file=sys.stderr)
        return 2
    seed = random.randrange(10_000) if chosen.seed is None else chosen.seed
    report: dict[str, Any] = {"seed": seed, "rate": setting.RATE, "short": chosen.short, "acts": []}
    plan = SHORT if chosen.short else LONG
    with tempfile.TemporaryDirectory(prefix="keeping-") as temporary:
        for name in wanted:
            _say(f"{name}: {plan.seconds:g} s at {setting.RATE:.0f} events a second")
            report["acts"].append(asyncio.run(play(name, plan, seed, pathlib.Path(temporary) / name)))
    report["holds"] = all(not act["faults"] for act in report["acts"])
    chosen.out.write_text(json.dumps(report, indent=1) + "\n")
    for act in report["acts"]:
        print("\n".join(f"{what:<24} {value}" for what, value in act.items()), end="\n\n")
    print("everything holds" if report["holds"] else "something does NOT hold")
    return 0 if report["holds"] else 1


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
