"""The longest stall of the loop while 1,000 streams are reloaded of which one has changed."""

from __future__ import annotations

import asyncio
import gc
import pathlib
import statistics
import sys
import tempfile
import time

from benchmarks import rig, table
from regstream import daemon


def measure(tiny: bool = False) -> list[table.Row]:
    """Several reloads through the door, from real files, while all streams tick; the median of their stalls."""
    count, rounds = (20, 1) if tiny else (1000, 7)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "streams.yaml")
        rig.write_streams(path, count, "1s")
        idle, stalls, took = asyncio.run(_reloads(path, count, rounds))
    note = f"worst {max(stalls):.1f} ms; a reload took {statistics.median(took):.2f} s; the floor is without a reload"
    return [table.Row("reload of 1,000: loop stall", statistics.median(stalls), "ms", 50, 10, idle, note=note)]


async def _reloads(path: pathlib.Path, count: int, rounds: int) -> tuple[float, list[float], list[float]]:
    bench = rig.Bench(path)
    stalls, took = [], []
    async with bench.running():
        bench.engine.start()
        # As the daemon does when it starts
        gc.collect()
        gc.freeze()
        sys.setswitchinterval(daemon.SWITCH_SECONDS)
        idle = []
        for number in range(1, rounds + 1):
            async with _Stall() as stall:
                await asyncio.sleep(0.5)
            idle.append(stall.longest)
            rig.write_streams(path, count, "1s", changed=number)
            began = time.perf_counter()
            async with _Stall() as stall:
                receipt = await bench.door.reload("bench")
            took.append(time.perf_counter() - began)
            stalls.append(stall.longest)
            assert receipt.changed == ("S0000",), receipt
    return statistics.median(idle), stalls, took


class _Stall:
    """Ticks every millisecond; ``longest`` is by how many milliseconds the loop was late at worst."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def __aenter__(self) -> _Stall:
        self._task = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        # One more turn, so that a stall at the very end is seen
        await asyncio.sleep(0.002)
        self._task.cancel()

    async def _tick(self) -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            self.longest = max(self.longest, (now - last - 0.001) * 1000)
            last = now
