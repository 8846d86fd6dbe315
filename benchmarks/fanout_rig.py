"""What the rows of fan-out stand on: servers that show ready events on command, and daemons with a given rate."""

from __future__ import annotations

import contextlib
import json
import pathlib
import socket
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from benchmarks import crowd, rig

Condition = Callable[[], bool]
Connect = Callable[[int], tuple[socket.socket, bytes]]


class Server:
    """A process of ``fanout_server``, from outside."""

    def __init__(self, pid: int, port: int, control: int) -> None:
        self.pid, self.port = pid, port
        self._say = socket.create_connection(("127.0.0.1", control), 60)
        self._hear = self._say.makefile("rb")

    def tell(self, command: str) -> list[float]:
        """Have it do something; what it answers."""
        self._say.sendall(command.encode() + b"\n")
        answer: list[float] = json.loads(self._hear.readline())
        return answer


@contextlib.contextmanager
def server(kind: str) -> Iterator[Server]:
    """A server of that kind that is ready."""
    crowd.many_files()
    port, control = rig.free_port(), rig.free_port()
    with rig.process("-m", "benchmarks.fanout_server", kind, str(port), str(control)) as child:
        rig.until_ready(child, port)
        yield Server(child.pid, port, control)


class Show:
    """A server with its crowd, of whom ``size`` bytes are for each event."""

    def __init__(self, one: Server, people: crowd.Crowd) -> None:
        self.server, self.people = one, people
        one.tell("prepare 1")
        one.tell("go 1000")
        people.rest()
        self.size = people.readers[0].taken
        if not self.size or people.taken != self.size * len(people):
            raise RuntimeError("the first event did not come to everybody")

    def round(self, events: int, rate: float, within: float = 120) -> float:
        """Show so many events; the CPU seconds that the server took, until everybody who reads had them."""
        self.server.tell(f"prepare {events}")
        self.people.forget()
        before = rig.cpu(self.server.pid)
        self.server.tell(f"go {rate}")
        self.people.reach(events * self.size, within)
        return rig.cpu(self.server.pid) - before

    def delays(self, readers: Sequence[crowd.Reader]) -> list[list[float]]:
        """Of the last round, for each event the seconds until each of these clients had it."""
        emitted = self.server.tell("emitted")
        ends = [number * self.size for number in range(1, len(emitted) + 1)]
        return crowd.delays(readers, ends, emitted)


@contextlib.contextmanager
def show(kind: str, count: int, *, logs: bool = False, connect: Connect = crowd.subscribed) -> Iterator[Show]:
    """A server of that kind and ``count`` clients of it."""
    with server(kind) as one, crowd.Crowd(one.port, count, logs=logs, connect=connect) as people:
        yield Show(one, people)


@contextlib.contextmanager
def making(streams: int, interval: str) -> Iterator[tuple[int, int]]:
    """Process id and port of a whole daemon with so many streams, which are stopped."""
    crowd.many_files()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "streams.yaml")
        rig.write_streams(path, streams, interval)
        flags = ("--streams", str(path), "--scenarios", f"{folder}/none", "--templates", f"{folder}/none")
        with rig.daemon(*flags) as (child, port):
            rig.until_ready(child, port)
            command(port, "stop")
            yield child.pid, port


class Made(NamedTuple):
    """An event as a client read it: its place, its key and when it was emitted."""

    stream: str
    epoch: str
    seq: int
    key: str
    at: float


def made(one: crowd.Reader) -> tuple[list[Made], list[int]]:
    """The events that a client of a daemon kept, and where their frames end."""
    events, ends = [], []
    for frame in crowd.frames(bytes(one.kept or b"")):
        if frame.opcode == crowd.TEXT and b'"specversion"' in frame.payload:
            said = json.loads(frame.payload)["data"]
            fields = said["data"]
            events.append(Made(said["subject"], said["epoch"], said["seq"], fields["unit"], fields["made"]))
            ends.append(frame.end)
    return events, ends


def command(port: int, what: str) -> None:
    """Let a daemon's streaming ``start`` or ``stop``."""
    url = f"http://127.0.0.1:{port}/api/streaming/{what}"
    request = urllib.request.Request(url, b"{}", {"content-type": "application/json"})
    urllib.request.urlopen(request, timeout=20).close()


def after(seconds: float) -> Condition:
    """Becomes true when so much time has passed."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end
