"""A server with nothing but Socket.IO, the real JavaScript client, and a wire between them that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import pathlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import sanic

from regstream import hub, spec
from regstream.event import Event, Head, Position
from regstream.server import app, problems, router
from regstream.server.security import connections, origins
from regstream.server.transports import socketio, writer
from tests import node_packages
from tests.relay import Relay, relaying

BOUND = 60.0
UPGRADE_LINE = b"\r\nUpgrade: websocket"
SCRIPT = pathlib.Path(__file__).parent.parent / "node" / "client.js"
ORIGINS = ("http://localhost:*",)
NAMES = itertools.count()
TYPES = {"ONE": "one-type", "TWO": "two-type", "ALERTS": "immediate-alert"}
POLLING: dict[str, Any] = {"transports": ["polling"]}
WEBSOCKET: dict[str, Any] = {"transports": ["websocket"]}
UPGRADE: dict[str, Any] = {"transports": ["polling", "websocket"]}


async def until(condition: Callable[[], Any], seconds: float = BOUND) -> Any:
    """The first true value of ``condition``."""
    async with asyncio.timeout(seconds):
        while not (value := condition()):
            await asyncio.sleep(0.005)
    return value


class Server:
    """Sanic with `/socket.io/` on a hub of its own."""

    def __init__(self, port: int = 0, epoch: str = "E1", **options: Any) -> None:
        ring = {name: options.pop(name) for name in ("ring_events", "ring_bytes") if name in options}
        self.epoch, self.hub = epoch, hub.Hub(now=lambda: 1795348800.0, **ring)
        self.seq = dict.fromkeys(TYPES, 0)
        for stream, type_ in TYPES.items():
            self.hub.declare(stream, type_, Position(epoch, 0))
        site: sanic.Sanic[Any, Any] = sanic.Sanic(
            f"test-sio-{next(NAMES)}",
            configure_logging=False,
            strict_slashes=True,
            error_handler=problems.Handler(),
            request_class=router.Request,
            router=router.Router((), slashed=(app.SOCKET_IO,)),
        )
        site.config.AUTO_EXTEND = site.config.ACCESS_LOG = site.config.MOTD = False
        site.ctx.ready = False
        origins.attach(site, ORIGINS)
        shared = writer.TransportContext(hub=self.hub, origins=ORIGINS, **{"max_connections": 1000, **options})
        self.sessions = socketio.attach(site, shared)
        door = connections.ConnectionLimiter(10_000, None, shared.guard.refusals)
        self.server = app.Server(site, "127.0.0.1", port, door, closing=lambda: self.sessions.close_all(1.0))

    @property
    def port(self) -> int:
        return self.server.port

    def show(self, stream: str, count: int = 1, size: int = 0, key: str | None = None) -> None:
        head = Head(stream, self.epoch, TYPES[stream], "t", spec.Priority.LOW, "2026", "LATAM")
        for _ in range(count):
            self.seq[stream] += 1
            value = b'{"subject":"%b","epoch":"%b","seq":%d,"pad":"%b"}'
            made = value % (stream.encode(), self.epoch.encode(), self.seq[stream], b"x" * size)
            self.hub.broadcast(Event(head, self.seq[stream], key, made))

    def again(self, stream: str, seq: int) -> None:
        """Send a stored event once more."""
        head = Head(stream, self.epoch, TYPES[stream], "", spec.Priority.LOW, "2026", "LATAM")
        value = b'{"subject":"%b","epoch":"%b","seq":%d,"pad":""}' % (stream.encode(), self.epoch.encode(), seq)
        self.hub.replay(Event(head, seq, None, value))

    async def stop(self) -> None:
        await self.server.drain(2.0)
        await self.server.stop()
        await until(lambda: self.left() == [])
        assert self.sessions.connections == self.hub.subscribers == 0

    @staticmethod
    def left() -> list[str]:
        """The tasks that clients left behind."""
        names = [f"{one.get_name()} {one.get_coro()}" for one in asyncio.all_tasks()]
        marks = ("sio ", "sio-", "HttpProtocol", "Websocket", "AsyncSocket", "AsyncServer")
        return [one for one in names if one.startswith(marks) or any(mark in one for mark in marks[2:])]


@contextlib.asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Server]:
    one = Server(**options)
    await one.server.start()
    try:
        yield one
    finally:
        await one.stop()


class Node:
    """A process with the real client; ``said`` is everything that happened in it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.said: list[dict[str, Any]] = []
        self._acks = itertools.count(1)
        self._reading = asyncio.create_task(self._read(), name="node")

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.said.append(json.loads(line))

    def do(self, what: str, **more: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": what, **more}).encode() + b"\n")

    async def open(self, port: int, options: dict[str, Any], **more: Any) -> None:
        """Connect, and wait for it."""
        self.do("open", url=f"http://127.0.0.1:{port}", options=options, **more)
        await self.until("connect")

    def all(self, on: str) -> list[dict[str, Any]]:
        return [one for one in self.said if one["on"] == on]

    async def until(self, on: str, count: int = 1, seconds: float = BOUND) -> dict[str, Any]:
        """What happened there, when it has happened so often."""
        try:
            await until(lambda: len(self.all(on)) >= count, seconds)
        except TimeoutError:
            raise AssertionError(f"no {on} {count}, but {self.said[-5:]}") from None
        return self.all(on)[count - 1]

    async def ask(self, event: str, *arguments: Any) -> Any:
        """Emit, and give what the acknowledgement carries."""
        number = next(self._acks)
        self.do("emit", event=event, arguments=arguments, ack=number)
        found = await until(lambda: [one for one in self.all("ack") if one["ack"] == number])
        assert len(found[0]["answer"]) == 1
        return found[0]["answer"][0]

    def tell(self, event: str, *arguments: Any) -> None:
        self.do("emit", event=event, arguments=arguments)

    def names(self) -> list[str]:
        return [one["event"] for one in self.all("event")]

    def seqs(self, event: str = "streaming-update") -> list[tuple[str, str, int]]:
        """Stream, epoch and number of the events that came under that name."""
        found = [one["data"] for one in self.all("event") if one["event"] == event]
        return [(one["subject"], one["epoch"], one["seq"]) for one in found]

    async def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), BOUND)
        finally:
            if self._process.returncode is None:
                self._process.kill()
            await self._process.wait()
            await self._reading


@contextlib.asynccontextmanager
async def node(test: str) -> AsyncIterator[Node]:
    """The client, where there is one; ``test`` is who needs it."""
    await asyncio.to_thread(node_packages.need, test)
    process = await asyncio.create_subprocess_exec(
        "node", str(SCRIPT), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**26
    )
    client = Node(process)
    try:
        yield client
    finally:
        await client.end()


class Proxy(Relay):
    """A relay that holds WebSockets up, until ``websockets`` is set, or spoils them."""

    def __init__(self, target: int) -> None:
        super().__init__(target)
        self.websockets = asyncio.Event()
        self.websockets.set()
        self.held = 0
        self._upgrade = UPGRADE_LINE

    async def through(self, data: bytes) -> bytes:
        if UPGRADE_LINE not in data:
            return data
        self.held += 1
        await self.websockets.wait()
        return data.replace(UPGRADE_LINE, self._upgrade)

    def spoil(self) -> None:
        """Let WebSockets fail from now on, as a proxy does that does not know them."""
        self._upgrade = b""


@contextlib.asynccontextmanager
async def proxied(target: int) -> AsyncIterator[Proxy]:
    proxy = Proxy(target)
    async with relaying(proxy):
        yield proxy
