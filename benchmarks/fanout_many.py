"""How long it takes from the emission of an event until the last of 1,000 clients has it."""

from __future__ import annotations

from benchmarks import crowd, fanout_rig, rig, table

CLIENTS = 1000
RATE = 20


def measure(tiny: bool = False) -> list[table.Row]:
    """A whole daemon with 20 streams of a second; beside it a bare server that writes the ready frame to each."""
    clients, seconds = (20, 1.0) if tiny else (CLIENTS, 15.0)
    last, every = _ours(clients, seconds)
    floor = rig.percentile(_raw(clients, seconds), 0.99) * 1000
    p99 = rig.percentile(last, 0.99) * 1000
    spread = ", ".join(f"{name} {rig.percentile(last, part) * 1000:.1f}" for name, part in (("p50", 0.5), ("worst", 1)))
    anyone = rig.percentile(every, 0.99) * 1000
    note = f"ms: {spread}; p99 to any client {anyone:.1f}\n{len(last)} events, {clients} clients"
    return [table.Row(f"{CLIENTS:,} clients: to the last, p99", p99, "ms", 250, 100, floor, note=note)]


def _ours(clients: int, seconds: float) -> tuple[list[float], list[float]]:
    with fanout_rig.making(RATE, "1s") as (_, port), crowd.Crowd(port, clients, logs=True) as people:
        people.rest()
        people.forget()
        fanout_rig.command(port, "start")
        people.read(fanout_rig.after(seconds + 1), seconds + 5)
        fanout_rig.command(port, "stop")
        people.rest()
        events, ends = fanout_rig.made(people.readers[0])
        # The first second belongs to the start
        found = crowd.delays(people.readers, ends, [one.at for one in events])[RATE:]
    if any(len(one) != clients for one in found):
        raise RuntimeError("some events did not come to everybody")
    return [max(one) for one in found], [delay for one in found for delay in one]


def _raw(clients: int, seconds: float) -> list[float]:
    with fanout_rig.show("raw", clients, logs=True) as one:
        one.round(int(RATE * seconds), RATE)
        return [max(found) for found in one.delays(one.people.readers)]
