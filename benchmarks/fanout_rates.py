"""Deliveries a CPU second to 100 WebSocket clients, at 2,000 events a second and at 20."""

from __future__ import annotations

import contextlib
import statistics

from benchmarks import crowd, fanout_rig, rig, table

CLIENTS = 100
UNIT = "deliveries/CPU s"


def measure(tiny: bool = False) -> list[table.Row]:
    """Server processes side by side, in rounds in turn; of each the CPU time while it shows events that are ready."""
    return [
        _row("fan-out at 2,000/s", "send", 2000, 2, 6, (100, 1) if tiny else (4000, 7), tiny),
        _row("fan-out at 20/s", "raw", 20, 0.6, 0.85, (4, 1) if tiny else (60, 7), tiny),
    ]


def _row(name: str, floor: str, rate: int, must: float, aim: float, size: tuple[int, int], tiny: bool) -> table.Row:
    events, rounds = size
    clients = 10 if tiny else CLIENTS
    with contextlib.ExitStack() as stack:
        ours, bare = (stack.enter_context(fanout_rig.show(kind, clients)) for kind in ("ours", floor))
        for one in (ours, bare):
            one.round(max(4, events // 10), rate)
        pairs = [[events * clients / one.round(events, rate) for one in (ours, bare)] for _ in range(rounds)]
    figure, least = (statistics.median(found) for found in zip(*pairs, strict=True))
    ratios = ", ".join(f"{one / other:.2f}" for one, other in pairs)
    whole = _whole(rate, clients, 0.5 if tiny else 8)
    note = f"{clients} clients; ratio of each round {ratios}\nthe whole daemon, generation included {whole:,.0f}"
    return table.Row(name, figure, UNIT, must, aim, least, by_ratio=True, rising=True, note=note)


def _whole(rate: int, clients: int, seconds: float) -> float:
    """Deliveries a CPU second of ``regstream run`` that makes so many events."""
    streams, interval = (100, "50ms") if rate == 2000 else (rate, "1s")
    with fanout_rig.making(streams, interval) as (pid, port), crowd.Crowd(port, clients) as people:
        fanout_rig.command(port, "start")
        people.read(fanout_rig.after(1), 5)
        taken, before = people.taken, rig.cpu(pid)
        people.read(fanout_rig.after(seconds), seconds + 5)
        taken, spent = people.taken - taken, rig.cpu(pid) - before
        kept = list(crowd.frames(bytes(people.readers[0].kept or b"")))
    return taken / (kept[-1].end / len(kept)) / spent
