"""Events to real Kafka until they are acknowledged, a CPU second of this process, beside the client library's loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import statistics
import time
from collections.abc import Awaitable, Callable

from benchmarks import kafka_rig, table
from regstream.broker import failover, kafka
from regstream.event import Event

Work = Callable[[], Awaitable[None]]
_MANY = 6


def measure(tiny: bool = False) -> list[table.Row]:
    """Medians of the rounds' ratios; each round does everything once, so that a busy neighbour disturbs all alike."""
    count, rounds = (1_000, 1) if tiny else (20_000, 7)
    with kafka_rig.cluster() as cluster:
        rates = asyncio.run(_measure(cluster.bootstrap, count, rounds))
    middle = {name: statistics.median(found) for name, found in rates.items()}

    def ratio(name: str, floor: str = "bare") -> float:
        return statistics.median(ours / other for ours, other in zip(rates[name], rates[floor], strict=True))

    def row(title: str, name: str, must: float, aim: float, note: str) -> table.Row:
        floor = middle[name] / ratio(name)
        return table.Row(title, middle[name], "events/CPU s", must, aim, floor, True, True, note)

    spread = (
        f"{_MANY} partitions {ratio('outliving many', 'bare many'):.2f} of a loop that lets the library hash the keys\n"
        f"over a bare loop without compression {ratio('outliving', 'bare plain'):.2f}"
    )
    back = f"{middle['made, read back']:,.0f} with each event read back and put in order for dashboards as well"
    return [
        row("publish with spool / bare send", "outliving", 0.8, 2, spread),
        row("publish without spool / bare send", "direct", 0.8, 2, ""),
        row("generate, publish / bare send", "made", 0.35, 0.7, back),
    ]


async def _measure(servers: str, count: int, rounds: int) -> dict[str, list[float]]:
    async with contextlib.AsyncExitStack() as stack:
        works = await _works(stack, servers, count)
        for work in works.values():
            await work()
        # As the daemon does: what is there before the work begins is not looked at again by collections
        gc.collect()
        gc.freeze()
        rates: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(rounds):
            for name, work in works.items():
                began = time.process_time()
                await work()
                rates[name].append(count / (time.process_time() - began))
        return rates


async def _works(stack: contextlib.AsyncExitStack, servers: str, count: int) -> dict[str, Work]:
    """What is measured; each has topics of its own, and those that only publish are given the same events."""
    enter = stack.enter_async_context
    plain, packed = await enter(kafka_rig.bare(servers, None)), await enter(kafka_rig.bare(servers))
    made = await enter(kafka_rig.direct(servers, "bare", 1))
    await made.declare({"bare.many": _MANY})
    read = await enter(kafka_rig.outliving(servers, "read", 1, kafka.KafkaBroker))
    reading = asyncio.create_task(_drop(read))
    stack.callback(reading.cancel)
    events = _batches("bare", count)
    flat = [event for batch in events for event in batch]
    return {
        "bare": lambda: kafka_rig.send(packed, "bare", flat),
        "bare plain": lambda: kafka_rig.send(plain, "bare", flat),
        "bare many": lambda: kafka_rig.send(packed, "bare.many", flat, None),
        "direct": _direct(await enter(kafka_rig.direct(servers, "direct", 1)), _batches("direct", count)),
        "outliving": _outliving(await enter(kafka_rig.outliving(servers, "one", 1)), _batches("one", count)),
        "outliving many": _outliving(await enter(kafka_rig.outliving(servers, "many", _MANY)), _batches("many", count)),
        "made": _made(await enter(kafka_rig.outliving(servers, "made", 1)), "made", count),
        "made, read back": _made(read, "read", count, back=True),
    }


def _batches(topic: str, count: int) -> list[list[Event]]:
    make = kafka_rig.reference(topic)
    return [make() for _ in range(count // kafka_rig.BATCH)]


def _direct(one: kafka.KafkaBroker, batches: list[list[Event]]) -> Work:
    # As many at once as the daemon hands over when it has that many
    parts = [list(itertools.chain(*batches[at : at + 20])) for at in range(0, len(batches), 20)]

    async def work() -> None:
        for part in parts:
            await one.publish(part)

    return work


def _outliving(one: failover.FailoverBroker, batches: list[list[Event]]) -> Work:
    async def work() -> None:
        for batch in batches:
            await one.publish(batch)
        await kafka_rig.emptied(one)

    return work


def _made(one: failover.FailoverBroker, topic: str, count: int, back: bool = False) -> Work:
    make = kafka_rig.reference(topic)

    async def work() -> None:
        for _ in range(count // kafka_rig.BATCH):
            await one.publish(make())
        await kafka_rig.emptied(one)
        while back and one.status.consumed < one.status.produced:
            await asyncio.sleep(0.005)

    return work


async def _drop(one: failover.FailoverBroker) -> None:
    async for _ in one.consume():
        pass
