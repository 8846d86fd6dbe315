"""How late ticks are, and what 1,000 streams at 1 s cost a core."""

from __future__ import annotations

import asyncio
import pathlib
import tempfile
import time

from benchmarks import rig, table
from regstream import spec
from regstream.generator import stream as streams

STREAMS = 1000


def measure(tiny: bool = False) -> list[table.Row]:
    """The whole path but the server; generation is measured apart and subtracted; beside it a bare loop of timers."""
    count, seconds = (20, 1.2) if tiny else (STREAMS, 30.0)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "streams.yaml")
        rig.write_streams(path, count, "1s")
        bare_late, bare_cpu = asyncio.run(_timers(count, seconds / 4))
        samples, cpu, making = asyncio.run(_engine(path, seconds))
    p99 = rig.percentile([late for _, late in samples], 0.99) * 1000
    floor = rig.percentile(bare_late, 0.99) * 1000
    return [
        table.Row("tick lateness, p99", p99, "ms", 15, 5, floor, note=f"{rig.spread(samples)}\n{len(samples):,} ticks"),
        table.Row(
            "CPU of clock and engine", cpu - making, "% of a core", 35, 12, bare_cpu,
            note=f"{cpu:.1f} % with the generation of the events, {making:.1f} % of which was measured apart",
        ),
    ]  # fmt: skip


async def _engine(path: pathlib.Path, seconds: float) -> tuple[list[tuple[float, float]], float, float]:
    late: list[tuple[float, float]] = []
    bench = rig.Bench(path, lambda _, seconds: late.append((time.time(), seconds)))
    async with bench.running():
        bench.engine.start()
        await asyncio.sleep(min(2.0, seconds))
        late.clear()
        cpu = await _share(seconds)
        bench.engine.stop()
        taken = tuple(late)
        making = _making(bench.engine.catalog) * len(taken) / seconds * 100
    return list(taken), cpu, making


def _making(declared: spec.Catalog) -> float:
    """CPU seconds that one event's batch takes when nothing else is done."""
    workshop = streams.GenerationContext(declared, 7, streams.Identity("/bench", "LATAM"))
    sources = [streams.Stream(spec, workshop, "0") for spec in declared.streams.values()]
    began = time.process_time()
    for number in range(3):
        for source in sources:
            source.next_batch(began + number, 1)
    return (time.process_time() - began) / (3 * len(sources))


async def _share(seconds: float) -> float:
    """Percent of a core that this process uses for so long."""
    cpu, began = time.process_time(), time.perf_counter()
    await asyncio.sleep(seconds)
    return (time.process_time() - cpu) / (time.perf_counter() - began) * 100


async def _timers(count: int, seconds: float) -> tuple[list[float], float]:
    """As many timers of the bare event loop, spread over the second, that do nothing but note how late they are."""
    loop, late = asyncio.get_running_loop(), []

    def fire(due: float) -> None:
        late.append(loop.time() - due)
        loop.call_at(due + 1, fire, due + 1)

    start = loop.time()
    for number in range(count):
        loop.call_at(start + number / count, fire, start + number / count)
    return late, await _share(seconds)
