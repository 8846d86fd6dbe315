"""``/ws``: frames straight to the transport, several in one write, and no wait for a client that does not read.

Replies and events go through the same queue, so their order is the order of what happened. A flush takes what was
queued in one turn of the loop and writes it at once: the system call is what a delivery costs, not the frame. While a
transport's buffer is full, events stay in the bounded queue; when that is full too, the client is closed with 4008.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

import sanic
from sanic import exceptions
from sanic.server.websockets.frame import WebsocketFrameAssembler
from sanic.server.websockets.impl import WebsocketImplProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State

from regstream import errors, hub, model
from regstream.server import messages, security

GOING_AWAY, INTERNAL_ERROR, TOO_SLOW, BAD_MESSAGE = 1001, 1011, 4008, 4009
MAX_MESSAGE = 64 * 1024
MAX_MISTAKES = 20
MAX_HELD = 100
WRITE_FRAMES, WRITE_BYTES = 256, 64 * 1024
BUFFER_BYTES = 256 * 1024
SEND_BUFFER_BYTES = 256 * 1024
LOOK_AGAIN = 0.02
CLOSE_GRACE = 2.0
POLL = 0.01

log = logging.getLogger("regstream.ws")

History = Callable[[str, model.Position, int], Awaitable[Sequence[model.Event] | None]]
"""Asked for the events of a stream behind a position, up to a number at least; see ``broker.Broker.history``."""


def attach(
    app: sanic.Sanic[Any, Any],
    source: hub.Hub,
    *,
    now: Callable[[], float],
    welcome: Mapping[str, Any],
    origins: Sequence[str] = (),
    max_connections: int = 10_000,
    subscriber_limits: Mapping[str, int] | None = None,
    history: History | None = None,
) -> Sockets:
    """Serve ``source`` on ``/ws`` of ``app``; call before the server is made.

    ``now`` gives epoch seconds, ``welcome`` is what the first frame says besides the channels, ``origins`` are the
    patterns that an ``Origin`` header must match when there is one. ``subscriber_limits`` are keywords of
    ``hub.Subscriber``. ``history`` is asked for what the rings do not hold any more.
    """
    sockets = Sockets(source, now, welcome, origins, max_connections, subscriber_limits or {}, history)
    app.config.WEBSOCKET_MAX_SIZE = MAX_MESSAGE
    app.config.WEBSOCKET_PING_INTERVAL = app.config.WEBSOCKET_PING_TIMEOUT = 20
    app.add_websocket_route(sockets.serve, "/ws", name="ws")
    app.register_middleware(sockets.guard, "request")
    return sockets


class Sockets:
    """All connections of ``/ws``, and the one flush that serves them."""

    def __init__(
        self,
        source: hub.Hub,
        now: Callable[[], float],
        welcome: Mapping[str, Any],
        origins: Sequence[str],
        max_connections: int,
        subscriber_limits: Mapping[str, int],
        history: History | None,
    ) -> None:
        self.hub, self.now, self.history = source, now, history
        self.subscriber_limits = subscriber_limits
        self._reading: set[asyncio.Task[None]] = set()
        self._welcome, self._origins, self._max = welcome, tuple(origins), max_connections
        self._connections: set[Connection] = set()
        self._ready: list[Connection] = []
        self._stalled: list[Connection] = []
        self._joined: tuple[list[hub.Entry], bytes] = ([], b"")
        self._draining = False

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Let a connection read what it has to wait for; a fault there is logged and harms no other."""
        task = asyncio.create_task(work, name="ws-history")
        self._reading.add(task)
        task.add_done_callback(self._read)

    def _read(self, task: asyncio.Task[None]) -> None:
        self._reading.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("history could not be read", exc_info=error)

    @property
    def connections(self) -> int:
        """How many clients are connected, those that are being closed included."""
        return len(self._connections)

    async def guard(self, request: sanic.Request) -> None:
        """Refuses before the upgrade what must not become a WebSocket; looks at requests for ``/ws`` only."""
        if request.route is None or request.route.path != "ws":
            return
        origin = request.headers.get("origin")
        if request.headers.get("upgrade", "").lower() != "websocket":
            raise exceptions.SanicException("this is a WebSocket", 426, headers={"Upgrade": "websocket"})
        if origin is not None and not security.trusted(origin, request.headers.get("host", ""), self._origins):
            raise exceptions.Forbidden(f"origin {origin[:200]!r} is not allowed")
        if self._draining or len(self._connections) >= self._max:
            reason = "the server is stopping" if self._draining else "too many connections"
            raise exceptions.ServiceUnavailable(reason, headers={"Retry-After": "5"})

    async def serve(self, request: sanic.Request, ws: WebsocketImplProtocol) -> None:
        """One connection, until its transport is gone."""
        connection = Connection(self, ws)
        self._connections.add(connection)
        try:
            connection.say("welcome", {**self._welcome, "channels": self.hub.channels})
            if request.args.getlist("channel"):
                connection.receive_query(request.args.getlist("channel"), request.args.get("rewind", ""))
            await ws.wait_for_connection_lost()
        finally:
            connection.dispose()
            self._connections.discard(connection)

    def wake(self, connection: Connection) -> None:
        """Let ``connection`` write in the next turn of the loop, with all others that are woken in this one."""
        if not self._ready:
            asyncio.get_running_loop().call_soon(self._flush)
        self._ready.append(connection)

    def look_again(self, connection: Connection) -> None:
        """Let ``connection`` write a little later, when its transport may have room."""
        if not self._stalled:
            asyncio.get_running_loop().call_later(LOOK_AGAIN, self._unstall)
        self._stalled.append(connection)

    def _unstall(self) -> None:
        stalled, self._stalled = self._stalled, []
        for connection in stalled:
            self.wake(connection)

    def _flush(self) -> None:
        ready, self._ready = self._ready, []
        for connection in ready:
            connection.write()
        self._joined = ([], b"")

    def join(self, entries: list[hub.Entry]) -> bytes:
        """The frames of ``entries``; made once when, as mostly, the next connection has the same to write."""
        if entries != self._joined[0]:
            pieces = [piece for entry in entries for piece in (entry.wire or _framed(entry), entry.text)]
            self._joined = (entries, b"".join(pieces))
        return self._joined[1]

    async def close_all(self, within: float, code: int = GOING_AWAY, reason: str = "going away") -> None:
        """Write out what is queued, close every connection with ``code``, refuse new ones.

        It takes ``within`` seconds at most, and a moment to cut off those that did not answer in time.
        """
        self._draining = True
        end = asyncio.get_running_loop().time() + within
        await self._until(lambda: not any(one.pending for one in self._connections), end - within / 2)
        for connection in tuple(self._connections):
            connection.close(code, reason)
        await self._until(lambda: not self._connections, end)
        for connection in tuple(self._connections):
            connection.abort()
        for task in tuple(self._reading):
            task.cancel()
        await self._until(lambda: not self._connections and not self._reading, end + 1)

    async def _until(self, condition: Callable[[], bool], end: float) -> None:
        # Polled: it happens once, at the end, and an event would have to be set on every path of every connection.
        while not condition() and asyncio.get_running_loop().time() < end:  # noqa: ASYNC110
            await asyncio.sleep(POLL)


class Connection:
    """One client: its queue in the hub, and what it says."""

    __slots__ = ("_closing", "_cut", "_held", "_mistakes", "_sockets", "_subscriber", "_transport", "_ws")

    def __init__(self, sockets: Sockets, ws: WebsocketImplProtocol) -> None:
        if ws.io_proto is None or ws.io_proto.transport is None:
            raise errors.Conflict("the connection is gone")
        self._sockets, self._ws, self._transport = sockets, ws, ws.io_proto.transport
        self._subscriber = hub.Subscriber(self._wake, **sockets.subscriber_limits)
        self._closing, self._mistakes = False, 0
        self._held: list[bytes] | None = None
        self._cut: asyncio.TimerHandle | None = None
        ws.assembler = _Inbox(ws, self)
        _tune(self._transport.get_extra_info("socket"))

    @property
    def pending(self) -> bool:
        """Whether something waits to be written that can be."""
        return self._subscriber.pending and self._open

    @property
    def _open(self) -> bool:
        return not self._closing and self._ws.ws_proto.state is State.OPEN and not self._transport.is_closing()

    def _wake(self) -> None:
        self._sockets.wake(self)

    def say(self, event: str, data: Any) -> None:
        """Queue a reply behind what is queued."""
        self._subscriber.offer(hub.Entry(hub.encode(event, data)))

    def receive(self, text: bytes) -> None:
        """Do what a message asks for; what is wrong with it is told, and closes the connection if it is hopeless."""
        if self._closing or self._subscriber.slow:
            return
        if self._held is not None:
            self._hold(text)
            return
        try:
            self._act(messages.parse(text))
        except messages.NotAMessage as error:
            self.close(BAD_MESSAGE, str(error))
        except (errors.BadValue, errors.UnknownName) as error:
            self._refuse(error)

    def _hold(self, text: bytes) -> None:
        if self._held is not None and len(self._held) < MAX_HELD:
            self._held.append(text)
        else:
            self.close(BAD_MESSAGE, "too many messages before an answer")

    def receive_query(self, channels: Sequence[str], rewind: str) -> None:
        """The subscription that came with the address."""
        try:
            self._act(messages.from_query(channels, rewind))
        except (errors.BadValue, errors.UnknownName) as error:
            self._refuse(error)

    def _act(self, message: messages.Action) -> None:
        if isinstance(message, messages.Subscribe):
            self._subscribe(message)
        elif isinstance(message, messages.Unsubscribe):
            self._sockets.hub.unsubscribe(self._subscriber, message.channels)
            self.say("unsubscribed", {"channels": message.channels})
        else:
            self.say("pong", {"time": hub.rfc3339(self._sockets.now())})

    def _subscribe(self, message: messages.Subscribe) -> None:
        missing = self._sockets.hub.missing(self._subscriber, message.channels, message.positions)
        if missing and self._sockets.history is not None:
            self._held = []
            self._sockets.begin(self._look_back(message, missing, self._sockets.history))
        else:
            self._join(message, {})

    def _join(self, message: messages.Subscribe, older: Mapping[str, Sequence[model.Event]]) -> None:
        def confirm(streams: Mapping[str, hub.Subscribed]) -> None:
            self._subscriber.offer(hub.Entry(messages.subscribed(message.channels, streams)))

        positions, rewind = message.positions, message.rewind
        self._sockets.hub.subscribe(self._subscriber, message.channels, positions, rewind, confirm, older)

    async def _look_back(
        self, message: messages.Subscribe, missing: Mapping[str, tuple[model.Position, int]], history: History
    ) -> None:
        """Subscribe with what a longer memory holds; what the client says meanwhile has to wait."""
        reading = [_read(history, stream, *asked) for stream, asked in missing.items()]
        found = zip(missing, await asyncio.gather(*reading), strict=True)
        older = {stream: events for stream, events in found if events is not None}
        held, self._held = self._held or [], None
        if self._closing:
            return
        try:
            self._join(message, older)
        except (errors.BadValue, errors.UnknownName) as error:
            self._refuse(error)
        for text in held:
            self.receive(text)

    def _refuse(self, error: errors.BadValue | errors.UnknownName) -> None:
        self._subscriber.offer(hub.Entry(messages.error(error)))
        self._mistakes += 1
        if self._mistakes >= MAX_MISTAKES:
            self.close(BAD_MESSAGE, "too many bad messages")

    def write(self) -> None:
        """Write a part of what is queued, unless the transport is full; then, or for the rest, come back."""
        if self._subscriber.slow:
            self.close(TOO_SLOW, "too slow")
        elif not self._subscriber.pending or not self._open:
            return
        elif self._transport.get_write_buffer_size() > BUFFER_BYTES:
            self._sockets.look_again(self)
        else:
            self._transport.write(self._sockets.join(self._subscriber.take(WRITE_FRAMES, WRITE_BYTES)))
            if self._subscriber.pending:
                self._wake()

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake behind what can still be written; cut the client off if it takes no part."""
        if self._closing:
            return
        while self.pending and self._transport.get_write_buffer_size() <= BUFFER_BYTES:
            self._transport.write(self._sockets.join(self._subscriber.take(WRITE_FRAMES, WRITE_BYTES)))
        if self._open:
            self._ws.ws_proto.send_close(code, reason)
            for data in self._ws.ws_proto.data_to_send():
                self._transport.write(data)
        self._closing = True
        self._sockets.hub.remove(self._subscriber)
        self._cut = asyncio.get_running_loop().call_later(CLOSE_GRACE, self.abort)

    def abort(self) -> None:
        """Cut the client off: the only thing that ends one that does not read."""
        self._transport.abort()

    def dispose(self) -> None:
        """The transport is gone, or the server gives the connection up."""
        self._closing = True
        self._sockets.hub.remove(self._subscriber)
        if self._cut:
            self._cut.cancel()


class _Inbox(WebsocketFrameAssembler):
    """Takes messages as they come.

    Sanic's own assembler needs two tasks a message, stops reading while nobody asks for one, and at a text frame that
    is not UTF-8 leaves an exception behind that nobody gets and a connection that hears nothing more.
    """

    def __init__(self, ws: WebsocketImplProtocol, connection: Connection) -> None:
        super().__init__(ws)
        self._connection = connection
        self._parts: list[bytes] = []

    async def put(self, frame: Frame) -> None:
        """A part of a message; the library has seen to their order and to the size of the whole."""
        if frame.opcode is Opcode.BINARY:
            self._connection.close(BAD_MESSAGE, str(messages.NotAMessage()))
        if frame.opcode not in (Opcode.TEXT, Opcode.CONT):
            # Pings come here too; the library has answered them
            return
        self._parts.append(bytes(frame.data))
        if frame.fin:
            parts, self._parts = self._parts, []
            self._deliver(b"".join(parts))

    def _deliver(self, text: bytes) -> None:
        try:
            self._connection.receive(text)
        except Exception:
            # Nobody awaits the task that runs this, and the client must not wait for an answer that never comes.
            log.exception("a message of a client could not be handled")
            self._connection.close(INTERNAL_ERROR, "internal error")


async def _read(history: History, stream: str, position: model.Position, before: int) -> Sequence[model.Event] | None:
    try:
        return await history(stream, position, before)
    except Exception:
        # Whoever waits for it must get an answer all the same: that it was not recovered
        log.exception("the history of %s could not be read", stream)
        return None


def _tune(sock: socket.socket) -> None:
    # Unset, the kernel lets it grow to some 4 MB for a client that never reads.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    # asyncio sets it, but not on what a listening socket accepts that was made without naming the protocol; each frame
    # then waits up to 40 ms for the acknowledgement of the last one.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _framed(entry: hub.Entry) -> bytes:
    """The frame's header, kept with the entry; the text is not kept twice."""
    frame = Frame(Opcode.TEXT, entry.text).serialize(mask=False, extensions=[])
    entry.wire = frame[: -entry.size]
    return entry.wire
