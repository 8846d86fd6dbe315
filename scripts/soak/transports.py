"""The ways to a daemon's events: WebSocket, Socket.IO and Server-Sent Events, each as one loop that feeds a judge."""

from __future__ import annotations

import abc
import asyncio
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import orjson
import websockets.asyncio.client
import websockets.exceptions

from scripts.soak.judge import Judge

CHANNEL = "dashboard-updates"
GONE = (OSError, EOFError, TimeoutError, websockets.exceptions.WebSocketException)
_LARGEST = 2**26


class Failed(Exception):
    """The server said something that it must not say."""


class Transport(abc.ABC):
    """One client, of one connection after the other; ``address`` is HOST:PORT."""

    path = ""

    def __init__(self, address: str, judge: Judge) -> None:
        self._address, self._judge = address, judge
        self._held = asyncio.Event()
        self._held.set()

    @classmethod
    def served(cls, address: str) -> bool:
        """Whether the daemon has this transport."""
        try:
            urllib.request.urlopen(f"http://{address}{cls.path}", timeout=10).close()
        except urllib.error.HTTPError as error:
            # What exists and wants something else of who asks
            return error.code in (400, 426)
        return True

    def stall(self, stalled: bool) -> None:
        """Read nothing, or go on."""
        (self._held.clear if stalled else self._held.set)()

    async def run(self) -> None:
        """Connect, come back with what the judge has, and read until the connection ends or this is cancelled."""
        await self._session(self._judge.ask())

    @abc.abstractmethod
    async def _session(self, after: dict[str, Any]) -> None: ...

    @abc.abstractmethod
    async def leave(self, rudely: bool) -> None:
        """End the connection, with a goodbye or without."""

    def _frame(self, event: str, data: Any) -> None:
        """A frame by its name, as every transport has it."""
        if event == "subscribed":
            self._judge.told(data["streams"])
        elif event == "error":
            raise Failed(f"told {data}")
        elif "specversion" in data:
            self._judge.event(data)


class WebSocket(Transport):
    """``/ws``."""

    path = "/ws"
    _socket: Any = None

    async def _session(self, after: dict[str, Any]) -> None:
        uri = f"ws://{self._address}{self.path}"
        async with websockets.asyncio.client.connect(uri, compression=None, max_size=_LARGEST) as self._socket:
            await self._begin(after)
            async for text in self._socket:
                await self._held.wait()
                await self._take(text)

    async def _begin(self, after: dict[str, Any]) -> None:
        message = {"action": "subscribe", "channels": [CHANNEL], "after": after}
        await self._socket.send(orjson.dumps(message).decode())

    async def _take(self, text: str) -> None:
        frame = orjson.loads(text)
        self._frame(frame["event"], frame["data"])

    async def leave(self, rudely: bool) -> None:
        if self._socket is not None and rudely:
            self._socket.transport.abort()
        elif self._socket is not None:
            await self._socket.close()


class SocketIO(WebSocket):
    """``/socket.io/``, the packets of Engine.IO 4 and Socket.IO 5 on a WebSocket; each event comes by two names."""

    path = "/socket.io/?EIO=4&transport=websocket"

    def __init__(self, address: str, judge: Judge) -> None:
        super().__init__(address, judge)
        self._updates: list[Any] = []

    @classmethod
    def served(cls, address: str) -> bool:
        """Whether a handshake is answered."""
        try:
            urllib.request.urlopen(f"http://{address}/socket.io/?EIO=4&transport=polling", timeout=10).close()
        except urllib.error.HTTPError:
            return False
        return True

    async def _begin(self, after: dict[str, Any]) -> None:
        self._updates = []
        await self._socket.recv()
        await self._socket.send("40")
        await self._socket.recv()
        await self._socket.send("421" + orjson.dumps(["join-streaming", CHANNEL, {"after": after}]).decode())

    async def _take(self, text: str) -> None:
        if text == "2":
            await self._socket.send("3")
        elif text.startswith("431"):
            answer = orjson.loads(text[3:])[0]
            self._frame("error" if "error" in answer else "subscribed", answer)
        elif text.startswith("42"):
            event, data = orjson.loads(text[2:])
            self._named(event, data)

    def _named(self, event: str, data: Any) -> None:
        place = [data.get("subject"), data.get("epoch"), data.get("seq")]
        if event == "streaming-update":
            self._updates.append(place)
            self._frame(event, data)
        elif "specversion" in data:
            if not self._updates or self._updates.pop(0) != place:
                raise Failed(f"{event} {place} without a streaming-update before it")
        else:
            self._frame(event, data)


class Events(Transport):
    """``GET /api/streaming/stream``; comes back with ``Last-Event-ID``."""

    path = f"/api/streaming/stream?channel={CHANNEL}"
    _writer: asyncio.StreamWriter | None = None
    _id = ""

    @classmethod
    def served(cls, address: str) -> bool:
        """Whether it is refused for want of a channel, and not for want of a route."""
        try:
            urllib.request.urlopen(f"http://{address}/api/streaming/stream", timeout=10).close()
        except urllib.error.HTTPError as error:
            return error.code == 400
        return True

    async def _session(self, after: dict[str, Any]) -> None:
        reader, self._writer = await asyncio.open_connection(*self._address.split(":"), limit=_LARGEST)
        try:
            self._writer.write(self._asking(after).encode())
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise Failed(f"answered {head.splitlines()[0]!r}")
            await self._read(reader)
        finally:
            self._writer.close()

    def _asking(self, after: dict[str, Any]) -> str:
        self._id = self._id if after else ""
        last = f"Last-Event-ID: {self._id}\r\n" if self._id else ""
        target = f"{self.path}&after={urllib.parse.quote(orjson.dumps(after))}"
        return f"GET {target} HTTP/1.1\r\nHost: {self._address}\r\n{last}\r\n"

    async def _read(self, reader: asyncio.StreamReader) -> None:
        text = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            text += (await reader.readexactly(size + 2))[:-2]
            await self._held.wait()
            *whole, text = text.split(b"\n\n")
            for one in whole:
                self._message(one.decode())

    def _message(self, text: str) -> None:
        fields = dict(line.split(": ", 1) for line in text.split("\n") if ": " in line and line[0] != ":")
        if "data" in fields:
            self._frame(fields.get("event", "message"), orjson.loads(fields["data"]))
            # Only what was shown whole is where one stands
            self._id = fields.get("id", self._id)

    async def leave(self, rudely: bool) -> None:
        if self._writer is not None and rudely:
            self._writer.transport.abort()
        elif self._writer is not None:
            self._writer.close()


ALL: dict[str, type[Transport]] = {"WebSocket": WebSocket, "Socket.IO": SocketIO, "SSE": Events}
