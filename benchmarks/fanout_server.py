"""A process that shows ready events to whoever is connected: ``python -m benchmarks.fanout_server KIND PORT CONTROL``.

KIND ``ours`` is this project's hub, its server and everything between; ``send`` is a bare server of the same library
that does ``await ws.send`` to each client, ``raw`` one that writes the ready frame to each transport,
``socketio`` one that emits to a room with the library for Socket.IO. On port CONTROL
it does what it is told, a line each: ``prepare COUNT``, ``go RATE``, ``emitted``, ``state``.
"""

from __future__ import annotations

import abc
import asyncio
import gc
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import sanic
import socketio
from websockets.frames import Frame, Opcode

from benchmarks import rig
from regstream import daemon, hub, settings, spec
from regstream.event import Event, Head, Position
from regstream.server.transports.socketio import adapter

EPOCH = "01JD00000000000000000000"
STREAMS = ("NORTH", "SOUTH", "EAST", "WEST")
TYPE = "bench"
SIZE = 500
# All numbers have as many digits as this one, so that all frames are of one size
BEFORE = 1_000_000
# As the daemon's clock, which serves in one turn what is due so soon
QUANTUM = 0.002
SHOWN = 64


def event(number: int) -> Event:
    """The event of that number, SIZE bytes of it, in one of the streams in turn."""
    name, seq = STREAMS[number % len(STREAMS)], BEFORE + number // len(STREAMS) + 1
    head = Head(name, EPOCH, TYPE, "bench", spec.Priority.NORMAL, "2026-11-23T12:00:00.123Z", "LATAM")
    said = {
        "specversion": "1.0", "id": f"{name[:4]:_<5}/{EPOCH}/{seq}", "source": "/bench", "type": TYPE,
        "subject": f"{name:_<5}", "time": head.time, "epoch": EPOCH, "seq": seq, "priority": "NORMAL",
        "data": {"key": f"K{number % 100:02}", "note": ""},
    }  # fmt: skip
    said["data"] = {**said["data"], "note": "." * (SIZE - len(_encoded(said)))}  # type: ignore[dict-item]
    return Event(head, seq, f"K{number % 100:02}", _encoded(said))


def _encoded(said: Any) -> bytes:
    return json.dumps(said, separators=(",", ":")).encode()


class Kind(abc.ABC):
    """A server, and how it shows an event to everybody."""

    @abc.abstractmethod
    async def start(self, port: int) -> None:
        """Listen."""

    @abc.abstractmethod
    def state(self) -> tuple[int, int]:
        """How many clients there are, and how many were too slow."""

    @abc.abstractmethod
    def ready(self, event: Event) -> Any:
        """What can be made of an event before it is shown."""

    @abc.abstractmethod
    async def show(self, ready: Any) -> None:
        """To everybody."""


class Ours(Kind):
    """The daemon without its engine and broker: what they make is ready here."""

    async def start(self, port: int) -> None:
        # A ping among the bytes would make them other than those of the next client
        adapter.PING_INTERVAL = 3600
        parts = daemon.build(settings.load({"ENABLE_STREAMING": "false", **rig.UNBOUNDED}, port=port))
        parts.server._app.config.WEBSOCKET_PING_INTERVAL = 0
        self._hub: hub.Hub = parts.hub
        for name in STREAMS:
            self._hub.declare(name, TYPE, Position(EPOCH, BEFORE))
        await parts.server.start()

    def state(self) -> tuple[int, int]:
        return self._hub.subscribers, self._hub.counts.slow

    def ready(self, event: Event) -> Event:
        return event

    async def show(self, ready: Event) -> None:
        self._hub.broadcast(ready)


class Bare(Kind):
    """A server of the same library that knows its clients and nothing else."""

    def __init__(self) -> None:
        self.clients: dict[Any, None] = {}

    async def start(self, port: int) -> None:
        app = _app()
        app.add_websocket_route(self._serve, "/ws")
        await _start(app, port)

    async def _serve(self, _: sanic.Request, ws: Any) -> None:
        await ws.send('{"event":"subscribed","data":{}}')
        self.clients[ws] = None
        try:
            await ws.wait_for_connection_lost()
        finally:
            del self.clients[ws]

    def state(self) -> tuple[int, int]:
        return len(self.clients), 0

    def ready(self, event: Event) -> str:
        return f'{{"event":"{event.head.type}","data":{event.value.decode()}}}'

    async def show(self, ready: str) -> None:
        for ws in self.clients:
            await ws.send(ready)


class Raw(Bare):
    """The least for a frame to each: it is made before, and goes straight to the transport."""

    def ready(self, event: Event) -> Any:
        return Frame(Opcode.TEXT, super().ready(event).encode()).serialize(mask=False, extensions=[])

    async def show(self, ready: Any) -> None:
        for ws in self.clients:
            ws.io_proto.transport.write(ready)


class SocketIO(Kind):
    """The library for Socket.IO with its own rooms: each event is emitted twice, as the contract says."""

    async def start(self, port: int) -> None:
        self._clients = 0
        self._sio = socketio.AsyncServer(async_mode="sanic", ping_interval=3600, ping_timeout=3600)
        self._sio.on("join-streaming", self._join)
        app = _app()
        self._sio.attach(app)
        await _start(app, port)

    async def _join(self, sid: str, channel: str) -> dict[str, str]:
        await self._sio.enter_room(sid, channel)
        self._clients += 1
        return {}

    def state(self) -> tuple[int, int]:
        return self._clients, 0

    def ready(self, event: Event) -> Any:
        return json.loads(event.value)

    async def show(self, ready: Any) -> None:
        for name in ("streaming-update", TYPE):
            await self._sio.emit(name, ready, room=spec.ALL_CHANNEL)


def _app() -> sanic.Sanic[Any, Any]:
    app: sanic.Sanic[Any, Any] = sanic.Sanic("bare", configure_logging=False)
    app.config.update(AUTO_EXTEND=False, MOTD=False, ACCESS_LOG=False, WEBSOCKET_PING_INTERVAL=0)
    app.add_route(_answer, "/health/ready")
    return app


async def _start(app: sanic.Sanic[Any, Any], port: int) -> None:
    server = await app.create_server("127.0.0.1", port, asyncio_server_kwargs={"start_serving": False})
    await server.startup()
    await server.before_start()
    await server.start_serving()


async def _answer(_: sanic.Request) -> sanic.HTTPResponse:
    return sanic.text("ready")


KINDS: dict[str, Callable[[], Kind]] = {"ours": Ours, "send": Bare, "raw": Raw, "socketio": SocketIO}


class Load:
    """Shows events at a rate, and notes when each was given to the server."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._made = 0
        self._waiting: list[Any] = []
        self._emitted: list[float] = []
        self._work: asyncio.Task[None] | None = None

    def do(self, command: str, value: float) -> Any:
        """What one line asks for, and the answer to it."""
        if command == "prepare":
            events = range(self._made, self._made + int(value))
            self._waiting, self._emitted = [self._kind.ready(event(number)) for number in events], []
            self._made += int(value)
            gc.collect()
            gc.freeze()
        elif command == "go":
            self._work = asyncio.create_task(self._show(value))
        elif command == "emitted":
            return self._emitted
        return self._kind.state()

    async def _show(self, rate: float) -> None:
        clock, show, note = time.monotonic, self._kind.show, self._emitted.append
        begin = clock()
        for number, ready in enumerate(self._waiting):
            wait = begin + number / rate - clock()
            if wait > 0:
                await asyncio.sleep(max(wait, QUANTUM))
            elif number % SHOWN == 0:
                await asyncio.sleep(0)
            note(time.time())
            await show(ready)

    async def listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One who says what to do."""
        while line := await reader.readline():
            command, _, value = line.decode().strip().partition(" ")
            writer.write(json.dumps(self.do(command, float(value or 0))).encode() + b"\n")
            await writer.drain()


async def serve(kind: str, port: int, control: int) -> None:
    """Serve until killed."""
    one = KINDS[kind]()
    await asyncio.start_server(Load(one).listen, "127.0.0.1", control, limit=2**24)
    await one.start(port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
