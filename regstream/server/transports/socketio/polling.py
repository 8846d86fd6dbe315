"""Engine.IO on Sanic: what the library leaves to its driver, and what its own driver for Sanic does badly.

The library keeps the sessions, answers polls and watches the pings. Ours are the requests, the queue that it writes
its packets into, which for a session that polls also brings what waits in the hub's queue, and the WebSocket side with
the upgrade: the library's needs four tasks a client, hangs at one that never reads, and leaves a session that is
neither here nor there when an upgrade fails.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable
from typing import Any, Protocol

import orjson
from engineio import packet, payload
from sanic.request import Request
from sanic.response import HTTPResponse
from sanic.server.websockets.impl import WebsocketImplProtocol
from websockets.protocol import State

from regstream.server import decoding
from regstream.server.transports import websocket, writer
from regstream.server.transports.socketio import packets

# What the library has to say to one client: a handshake, pings, refusals
MAX_WAITING = 100


class Writer(Protocol):
    """A WebSocket, as far as the queue knows it."""

    @property
    def is_overrun(self) -> bool:
        """Whether much more waits than should."""

    def write_packet(self, item: Any) -> None:
        """Write a packet, or several that were ready for a poll."""


class Ready:
    """Packets that are encoded already, for one answer to a poll."""

    def __init__(self, text: str) -> None:
        self._text = text

    def encode(self, b64: bool = False) -> str:
        """All of them, as an answer has them."""
        return self._text


class PollingQueue:
    """The queue of a session, in the shape in which the library knows it: of ``asyncio.Queue``.

    Until the session is on WebSocket, packets wait for a poll; ``asked`` says that one waits for packets, and ``wake``
    is called when one comes and finds none. From then on they are written at once. ``overrun`` is called for a client
    that makes the library say more than it reads; ``ping`` is what the library waits with for the next one.
    """

    __slots__ = ("_ended", "_packets", "_poll", "_wire", "overrun", "ping", "wake")

    def __init__(self) -> None:
        self._packets: collections.deque[Any] = collections.deque()
        self._poll: asyncio.Future[None] | None = None
        self._wire: Writer | None = None
        self._ended = False
        self.wake: Callable[[], None] | None = None
        self.overrun: Callable[[], None] | None = None
        self.ping: asyncio.Task[Any] | None = None

    @property
    def asked(self) -> bool:
        """Whether a poll waits, and nothing was given to it yet."""
        return self._poll is not None and not self._poll.done()

    def qsize(self) -> int:
        """How many packets wait."""
        return len(self._packets)

    async def put(self, item: Any) -> None:
        """See ``put_nowait``."""
        self.put_nowait(item)

    def put_nowait(self, item: Any) -> None:
        """Take a packet; None, with which the library ends its own writer, means nothing here."""
        if item is None or self._ended:
            return
        if self._wire is not None:
            self._wire.write_packet(item)
        else:
            self._packets.append(item)
            self._answer()
        if self.overrun and (self.qsize() > MAX_WAITING or (self._wire and self._wire.is_overrun)):
            self.overrun()

    async def get(self) -> Any:
        """The next packet for a poll, when there is one. Raises TimeoutError for a second poll, as for one in vain."""
        if self._poll is not None:
            raise TimeoutError
        while not self._packets:
            self._poll = asyncio.get_running_loop().create_future()
            if self.wake:
                self.wake()
            try:
                await self._poll
            finally:
                self._poll = None
        return self._packets.popleft()

    def get_nowait(self) -> Any:
        """The next packet. Raises ``asyncio.QueueEmpty``."""
        if not self._packets:
            raise asyncio.QueueEmpty
        return self._packets.popleft()

    def task_done(self) -> None:
        """Nobody waits for that."""

    async def join(self) -> None:
        """Nobody has to wait for a client that may never ask."""

    def _answer(self) -> None:
        if self._poll is not None and not self._poll.done():
            self._poll.set_result(None)

    def release(self) -> None:
        """Answer the poll that waits, if there is one, with nothing."""
        if self.asked:
            self.put_nowait(packet.Packet(packet.NOOP))

    def end(self) -> None:
        """The session has ended: a poll that waits is told so, and nothing is taken any more."""
        if self.asked:
            self.put_nowait(packet.Packet(packet.CLOSE))
        self._ended = True
        # The library keeps a session for a while yet
        self.wake = self.overrun = None
        if self.ping is not None:
            self.ping.cancel()

    def leave_by(self, wire: Writer) -> None:
        """From now on, and with what waits, write to ``wire``."""
        self._wire = wire
        while self._packets:
            wire.write_packet(self._packets.popleft())


# With more than 16 in a request the library drops all of them and says OK; clients count bytes only
MAX_PACKETS = 1000
UPGRADE_SECONDS = 10.0
CLOSE_GRACE = 2.0
_FROM_CLIENTS = (packet.MESSAGE, packet.PONG, packet.CLOSE)
_OPEN, _PROBE, _UPGRADE = "open", "probe", "upgrade"


class Json:
    """The library's hook for JSON. Python's own takes what cannot be said back, like half of a surrogate pair."""

    @staticmethod
    def dumps(data: Any, **_: Any) -> str:
        """``data`` as text."""
        return orjson.dumps(data).decode()

    @staticmethod
    def loads(text: str) -> Any:
        """What ``text`` says; TooDeep is given back, so that it can be said to which message. Raises ValueError."""
        try:
            return decoding.loads(text)
        except decoding.TooDeep as error:
            return error


class Body:
    """The body of a request, to be read once."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def read(self, length: int) -> bytes:
        """At most ``length`` bytes of it."""
        return self._content[:length]


class WebSocketTransport:
    """One WebSocket of a session: of one that begins on it, or of one that polls and wants to change over.

    ``opened`` is called with the wire when the session is on it; the session then ends with it.
    """

    def __init__(
        self, session: Any, socket: WebsocketImplProtocol, opened: Callable[[WebSocketTransport], None]
    ) -> None:
        self._session, self._ws, self._opened = session, socket, opened
        transport = socket.io_proto.transport if socket.io_proto else None
        if transport is None:
            raise ConnectionResetError("the connection is gone")
        self._transport: Any = transport
        self._state = _PROBE if session.connected else _OPEN
        self._cut: asyncio.TimerHandle | None = None
        socket.assembler = websocket.Inbox(self._receive, self.close)
        writer.tune(transport.get_extra_info("socket"))

    @property
    def is_open(self) -> bool:
        """Whether anything can still be written."""
        return self._ws.ws_proto.state is State.OPEN and not self._transport.is_closing()

    @property
    def has_room(self) -> bool:
        """Whether the transport's buffer is not full."""
        return bool(self._transport.get_write_buffer_size() <= writer.BUFFER_BYTES)

    @property
    def is_overrun(self) -> bool:
        """Whether much more than a full buffer waits, which only what does not look at ``has_room`` can bring about."""
        return bool(self._transport.get_write_buffer_size() > 4 * writer.BUFFER_BYTES)

    def write(self, frames: bytes) -> None:
        """Write ready frames."""
        self._transport.write(frames)

    def write_packet(self, item: Any) -> None:
        """Write a packet of the library's, or several that were ready for a poll."""
        if self.is_open:
            texts = [text.encode() for text in item.encode().split(packets.BETWEEN)]
            self._transport.write(b"".join(packets.header(len(text)) + text for text in texts))

    async def serve(self) -> None:
        """Everything until the transport is gone; then the session ends, if it was on this wire."""
        if self._state is _OPEN:
            self._session.connected = self._session.upgraded = True
            self._opened(self)
        else:
            self._cut = asyncio.get_running_loop().call_later(UPGRADE_SECONDS, self.abort)
        try:
            await self._ws.wait_for_connection_lost()
        finally:
            self._forget_cut()
            if self._state is _OPEN:
                await end(self._session)
            else:
                # It goes on polling
                self._session.upgrading = False

    async def _receive(self, text: bytes) -> None:
        if not self.is_open or self._session.closed:
            return
        if self._state is _OPEN:
            await self._hear(text)
        elif self._state is _PROBE and text == b"2probe":
            # Polls are answered with nothing from now on, and what is to be sent waits
            self._session.upgrading, self._state = True, _UPGRADE
            self.write_packet(packet.Packet(packet.PONG, "probe"))
            self._session.queue.release()
        elif self._state is _UPGRADE and text == b"5":
            self._change_over()
        else:
            self.close(websocket.BAD_MESSAGE, "not an upgrade")

    def _change_over(self) -> None:
        # The client has read the answers to all its polls before it said so: nothing is overtaken
        self._forget_cut()
        self._state = _OPEN
        self._session.upgraded, self._session.upgrading = True, False
        self._opened(self)

    async def _hear(self, text: bytes) -> None:
        try:
            item = packet.Packet(encoded_packet=text.decode())
        except ValueError:
            item = packet.Packet(packet.NOOP)
        if item.packet_type in _FROM_CLIENTS:
            await self._session.receive(item)
        else:
            self.close(websocket.BAD_MESSAGE, "not a packet")

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake; cut the client off if it takes no part."""
        if not self.is_open:
            return
        self._ws.ws_proto.send_close(code, reason)
        for data in self._ws.ws_proto.data_to_send():
            self._transport.write(data)
        self._forget_cut()
        self._cut = asyncio.get_running_loop().call_later(CLOSE_GRACE, self.abort)

    def abort(self) -> None:
        """Cut the client off."""
        self._transport.abort()

    def _forget_cut(self) -> None:
        if self._cut:
            self._cut.cancel()


async def end(session: Any, reason: str = "transport close") -> None:
    """Let the library end a session, whose transport is gone or will never be asked for again."""
    await session.close(wait=False, abort=True, reason=reason)


def driver(opened: Callable[[Any, WebSocketTransport], None]) -> dict[str, Any]:
    """What the library asks of a web server, in its own words; ``opened`` is called with a session and its wire."""

    class WebSocket:
        def __init__(self, handler: Any, _: Any) -> None:
            # The session is known by nothing but its method
            self._session = handler.__self__

        async def __call__(self, environ: dict[str, Any]) -> Any:
            await _serve(self._session, environ["sanic.request"], lambda wire: opened(self._session, wire))

    return {
        "asyncio": True,
        "translate_request": _translated,
        "make_response": _response,
        "websocket": WebSocket,
    }


async def _serve(session: Any, request: Request[Any, Any], opened: Callable[[WebSocketTransport], None]) -> None:
    try:
        protocol: Any = request.transport.get_protocol()
        # Engine.IO has its own pings
        protocol.websocket_ping_interval = None
        wire = WebSocketTransport(session, await protocol.websocket_handshake(request), opened)
    except BaseException:
        if not session.connected:
            await end(session)
        raise
    await wire.serve()


def _translated(request: Request[Any, Any]) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": request.method,
        "QUERY_STRING": request.query_string,
        "CONTENT_LENGTH": str(len(request.body)),
        "HTTP_CONNECTION": request.headers.get("connection", ""),
        "HTTP_UPGRADE": request.headers.get("upgrade", ""),
        "wsgi.input": Body(request.body),
        "sanic.request": request,
    }


def _response(status: str, headers: list[tuple[str, str]], content: bytes, _: dict[str, Any]) -> HTTPResponse:
    named = {name.lower(): value for name, value in headers}
    media = named.pop("content-type", None)
    return HTTPResponse(content, int(status.split()[0]), {"cache-control": "no-store", **named}, content_type=media)


def is_payload(body: bytes) -> bool:
    """Whether ``body`` holds packets as a client sends them; of what it does not understand the library says OK."""
    try:
        text = body.decode()
        found = [] if text.startswith("d=") else payload.Payload(encoded_payload=text).packets
    except ValueError:
        return False
    return bool(found) and all(one.packet_type in _FROM_CLIENTS for one in found)
