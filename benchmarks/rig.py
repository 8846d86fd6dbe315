"""What the measurements stand on: files with many streams, an engine without a server, and real daemons."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

from regstream import broker, config, engine, hub, reloader, spec
from regstream.broker import simulated
from regstream.generator import stream as streams

ROOT = pathlib.Path(__file__).resolve().parent.parent
_STREAM = """\
  {name}:
    description: "One of many"{topic}
    interval: {interval}
    key: "{{{{ unit }}}}"
    fields:
      unit: "{{{{ choice(['north', 'south', 'east', 'west']) }}}}"
      amount: "{{{{ uniform(10, {most}) | round(2) }}}}"
      level: "{{{{ 'HIGH' if amount > 500 else 'LOW' }}}}"
      made: "{{{{ now.timestamp() }}}}"
      note: "{{{{ unit }}}}: {{{{ amount }}}}"
"""


def write_streams(path: pathlib.Path, count: int, interval: str, changed: int = 0, topics: int = 0) -> None:
    """A streams file of ``count`` streams, which share ``topics``; 0: each has its own.

    ``changed`` other than 0 gives the first another template.
    """
    parts = ["version: 1\nseed: 7\nstreams:\n"]
    for n in range(count):
        topic = f"\n    topic: bench.{n % topics}" if topics else ""
        most = 1000 + (changed if not n else 0)
        parts.append(_STREAM.format(name=f"S{n:04}", interval=interval, most=most, topic=topic))
    path.write_text("".join(parts), encoding="utf-8")


class Bench:
    """An engine with simulated broker and hub as the daemon joins them, and the door to its files; no server."""

    def __init__(self, path: pathlib.Path, observe: Callable[[str, float], None] | None = None) -> None:
        numbers = iter(range(10**9))
        origin = engine.Environment(
            time.time, lambda: f"E{next(numbers)}", lambda: f"R{next(numbers)}", 7, streams.Identity("/bench", "LATAM")
        )
        self.broker: broker.Broker = simulated.SimulatedBroker()
        self.hub = hub.Hub(time.time)
        self.engine = engine.Engine(origin, self.broker, self.hub, observe=observe)
        self.door = reloader.Reloader(lambda: self.load(path), self.engine, time.time, self.hub.announce)

    @staticmethod
    def load(path: pathlib.Path) -> spec.Catalog:
        """The catalog of one streams file."""
        return config.load(path, path.parent / "scenarios", path.parent / "templates", "development")

    async def pump(self) -> None:
        """Broker to hub, as in the daemon."""
        broadcast = self.hub.broadcast
        async for records in self.broker.consume():
            for record in records:
                broadcast(record.event)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Loaded, serving, and its streams not yet started."""
        await self.broker.start()
        await self.door.reload("start")
        tasks = [asyncio.create_task(self.engine.serve()), asyncio.create_task(self.pump())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def percentile(values: Sequence[float], part: float) -> float:
    """The value below which ``part`` of all lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def spread(samples: Sequence[tuple[float, float]]) -> str:
    """Seconds, each with the time it was seen at, as milliseconds from the middle to the worst.

    The p99 of the median second is what p99 would be if nothing else ran on the machine.
    """
    values = [value for _, value in samples]
    parts = {"p50": 0.5, "p90": 0.9, "p99.9": 0.999, "worst": 1.0}
    shown = [f"{name} {percentile(values, part) * 1000:.2f}" for name, part in parts.items()]
    return f"ms: {', '.join(shown)}; p99 of the median second {_calm(samples) * 1000:.2f}"


def _calm(samples: Sequence[tuple[float, float]]) -> float:
    seconds: dict[int, list[float]] = {}
    for at, value in samples:
        seconds.setdefault(int(at), []).append(value)
    return statistics.median(percentile(values, 0.99) for values in seconds.values())


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def process(*command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of this Python in the root of the repository, ended afterwards."""
    # An installed program has its bytecode on disk, whatever the one who develops it prefers
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    child = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env={**inherited, "PYTHONPATH": str(ROOT), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def output(*command: str) -> str:
    """What a process of this Python in the root of the repository prints until it ends by itself."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    ).stdout


def flags(folder: pathlib.Path) -> tuple[str, ...]:
    """Those of a daemon on the streams file in ``folder``, and nothing else."""
    none = str(folder / "none")
    return ("--streams", str(folder / "streams.yaml"), "--scenarios", none, "--templates", none)


# What is measured is not how well it refuses
UNBOUNDED = {"RATE_LIMIT": "100000/second", "STREAMING_MAX_PER_ADDRESS": "100000"}


@contextlib.contextmanager
def daemon(*flags: str, **environment: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """``regstream run`` on a free port, as soon as the process exists."""
    port = free_port()
    with process("-m", "regstream", "run", "--port", str(port), *flags, **UNBOUNDED, **environment) as child:
        yield child, port


def until_ready(child: subprocess.Popen[bytes], port: int, path: str = "/health/ready", within: float = 60) -> float:
    """When (perf_counter) the first 200 came, asked for every 5 ms. Raises RuntimeError when none comes."""
    end = time.perf_counter() + within
    while time.perf_counter() < end:
        if child.poll() is not None:
            raise RuntimeError(f"the process ended with {child.returncode}")
        if _answers(port, path):
            return time.perf_counter()
        time.sleep(0.005)
    raise RuntimeError("not ready in time")


def _answers(port: int, path: str) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as one:
            one.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            return one.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def resident(pid: int) -> float:
    """Resident memory of a process in MB (10**6 bytes)."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("no VmRSS")


def cpu(pid: int) -> float:
    """CPU seconds of all threads of a process."""
    times = (
        path.read_text(encoding="ascii").split()[0] for path in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat")
    )
    return sum(map(int, times)) / 1e9
