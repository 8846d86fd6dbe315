"""Resident memory of the daemon after a minute of the shipped streams, beside a bare process of the same library."""

from __future__ import annotations

import time

from benchmarks import rig, table


def measure(tiny: bool = False) -> list[table.Row]:
    """Real processes; the bare one has only been started."""
    port = rig.free_port()
    with rig.process("-m", "benchmarks.bare", str(port)) as child:
        rig.until_ready(child, port)
        floor = rig.resident(child.pid)
    with rig.daemon() as (child, port):
        rig.until_ready(child, port)
        start = rig.resident(child.pid)
        time.sleep(1 if tiny else 60)
        figure = rig.resident(child.pid)
    return [table.Row("resident memory after 60 s", figure, "MB", 110, 75, floor, note=f"{start:.1f} MB when ready")]
