"""Deliveries a CPU second to 100 clients of Socket.IO, at 2,000 events a second."""

from __future__ import annotations

import contextlib
import statistics

from benchmarks import crowd, fanout_rig, table

CLIENTS, RATE = 100, 2000


def measure(tiny: bool = False) -> list[table.Row]:
    """As the row ``fanout-rates``, beside the library's emit to a room.

    A delivery is an event, which comes by two names. The library cannot keep up with the rate by far, so it is given
    fewer events, as fast as it takes them.
    """
    clients, events, least, rounds = (10, 100, 20, 1) if tiny else (CLIENTS, 4000, 200, 5)
    with contextlib.ExitStack() as stack:
        ours, bare = (
            stack.enter_context(fanout_rig.show(kind, clients, connect=crowd.joined)) for kind in ("ours", "socketio")
        )
        ours.round(events // 10, RATE)
        bare.round(least // 10, RATE)
        pairs = [
            (events * clients / ours.round(events, RATE), least * clients / bare.round(least, RATE))
            for _ in range(rounds)
        ]
    figure, floor = (statistics.median(found) for found in zip(*pairs, strict=True))
    shown = ", ".join(f"{one / other:.1f}" for one, other in pairs)
    note = f"{clients} clients, each event by two names on both sides; ratio of each round {shown}"
    name, unit = "Socket.IO fan-out at 2,000/s", "deliveries/CPU s"
    return [table.Row(name, figure, unit, 1, 4, floor, by_ratio=True, rising=True, note=note)]
