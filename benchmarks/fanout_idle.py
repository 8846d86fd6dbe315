"""What 5,000 clients cost that are connected, have subscribed, and get nothing."""

from __future__ import annotations

from benchmarks import crowd, fanout_rig, rig, table

CLIENTS = 5000
# These are connected before, so that what the first clients need is not counted
FIRST = 100


def measure(tiny: bool = False) -> list[table.Row]:
    """Resident memory of the process; what the kernel holds for a socket is not in it."""
    clients = 100 if tiny else CLIENTS
    most = crowd.many_files() - 500
    if clients > most:
        note = f"not measured: this machine lets a process hold {most} sockets, ulimit -Hn says so"
        return [table.Row(f"{CLIENTS:,} idle clients: memory each", 0, "kB", note=note)]
    with rig.daemon(ENABLE_STREAMING="false") as (child, port):
        rig.until_ready(child, port)
        figure = _each(child.pid, port, clients)
    with fanout_rig.server("send") as bare:
        floor = _each(bare.pid, bare.port, clients)
    note = f"{clients:,} clients of a daemon without streaming; the floor is the library's own WebSocket, kept open"
    return [table.Row(f"{CLIENTS:,} idle clients: memory each", figure, "kB", 100, 40, floor, note=note)]


def _each(pid: int, port: int, clients: int) -> float:
    with crowd.Crowd(port, FIRST, keep=0):
        before = rig.resident(pid)
        with crowd.Crowd(port, clients, keep=0) as people:
            people.rest()
            return (rig.resident(pid) - before) / clients * 1000
