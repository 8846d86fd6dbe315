"""What 50 clients that do not read cost the 50 that do, at 2,000 events a second."""

from __future__ import annotations

import contextlib
import select
import socket
import sys
import time

from benchmarks import crowd, fanout_rig, rig, table

GOOD = STALLED = 50
RATE = 2000
# So little is taken by the kernel for one that does not read
BUFFER = 4096


def measure(tiny: bool = False) -> list[table.Row]:
    """Rounds in turn of one server: everybody reads, half of them do not.

    The stalled ones live in a process of their own, which puts another in the place of each that was cut off.
    """
    # Long enough for the queue of a stalled client to become full, so that cutting it off is in the figure
    calm, stalled, rounds = (200, 200, 1) if tiny else (7 * RATE, 14 * RATE, 5)
    with fanout_rig.show("ours", GOOD, logs=True) as one:
        one.round(200, RATE)
        pairs = [(_beside(one, "stalls", stalled), _beside(one, "reads", calm)) for _ in range(rounds)]
        slow = one.server.tell("state")[1]
    # The round of the middle ratio: its two halves were measured one after the other
    figure, floor = sorted(pairs, key=lambda pair: pair[0] / pair[1])[rounds // 2]
    shown = ", ".join(f"{one / other:.2f}" for one, other in pairs)
    note = f"ratio of each round {shown}; {slow:.0f} stalled clients were cut off"
    figure, floor = figure * 1000, floor * 1000
    return [table.Row("50 of 100 stalled: p99 of the others", figure, "ms", 1.5, 1.1, floor, by_ratio=True, note=note)]


def _beside(one: fanout_rig.Show, what: str, events: int) -> float:
    """p99 of the good clients while the others do ``what``."""
    with rig.process("-m", "benchmarks.fanout_stalled", str(one.server.port), str(STALLED), what):
        _until(one.server, GOOD + STALLED)
        one.round(events, RATE)
        delays = one.delays(one.people.readers)
    _until(one.server, GOOD)
    return rig.percentile([delay for found in delays for delay in found], 0.99)


def _until(server: fanout_rig.Server, subscribers: int) -> None:
    end = time.monotonic() + 30
    while (state := server.tell("state"))[0] != subscribers:
        if time.monotonic() > end:
            raise RuntimeError(f"{state[0]} subscribers and not {subscribers}")
        time.sleep(0.05)


def others(port: int, count: int, stalls: bool) -> None:
    """Be so many clients until killed."""
    if not stalls:
        with crowd.Crowd(port, count, keep=0) as people:
            people.read(lambda: False, 600)
        return
    poll, clients = select.epoll(), {}
    for _ in range(count):
        _join(poll, clients, port)
    while True:
        for number, _ in poll.poll(1):
            poll.unregister(number)
            clients.pop(number).close()
            _join(poll, clients, port)


def _join(poll: select.epoll, clients: dict[int, socket.socket], port: int) -> None:
    sock, _ = crowd.subscribed(port, buffer=BUFFER)
    clients[sock.fileno()] = sock
    # Told of an error or of the end, and not of what could be read
    poll.register(sock.fileno(), 0)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        others(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "stalls")
