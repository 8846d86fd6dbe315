"""How long `regstream run` takes to the first 200, beside a bare server of the same library."""

from __future__ import annotations

import statistics
import time

from benchmarks import rig, table

_READY = "/health/ready"


def measure(tiny: bool = False) -> list[table.Row]:
    """Medians of several starts, one of each kind in turn."""
    ours: list[tuple[float, float]] = []
    bare: list[tuple[float, float]] = []
    # Once before, so that the bytecode is written
    _ours()
    for _ in range(1 if tiny else 7):
        ours.append(_ours())
        bare.append(_bare())
    (figure, cpu), (floor, least) = (map(statistics.median, zip(*found, strict=True)) for found in (ours, bare))
    walls = [wall for wall, _ in ours]
    note = f"{len(ours)} starts, {min(walls):.2f} to {max(walls):.2f} s; of CPU {cpu:.2f} s, the floor {least:.2f} s"
    return [table.Row("start to the first 200", figure, "s", 1.0, 0.5, floor, note=note)]


def _ours() -> tuple[float, float]:
    began = time.perf_counter()
    with rig.daemon() as (child, port):
        return rig.until_ready(child, port, _READY) - began, rig.cpu(child.pid)


def _bare() -> tuple[float, float]:
    began, port = time.perf_counter(), rig.free_port()
    with rig.process("-m", "benchmarks.bare", str(port)) as child:
        return rig.until_ready(child, port, _READY) - began, rig.cpu(child.pid)
