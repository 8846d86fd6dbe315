"""``/ws``: frames straight to the transport, several in one write, and no wait for a client that does not read.

Replies and events go through the same queue, so their order is the order of what happened. While a transport's buffer
is full, events stay in the bounded queue; when that is full too, the client is closed with 4008.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import sanic
from sanic import exceptions
from sanic.server.websockets.frame import WebsocketFrameAssembler
from sanic.server.websockets.impl import WebsocketImplProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State

from regstream import errors, hub
from regstream.event import Event, rfc3339
from regstream.server import problems, resume
from regstream.server.security import admission, auth, origins
from regstream.server.transports import messages, writer
from regstream.server.transports.writer import TransportContext

GOING_AWAY, INTERNAL_ERROR, UNAUTHORIZED, TOO_SLOW, BAD_MESSAGE = 1001, 1011, 4001, 4008, 4009
MAX_MESSAGE = 64 * 1024
MAX_MISTAKES = 20
MAX_HELD = 100
CLOSE_GRACE = 2.0

REFUSED = {UNAUTHORIZED: "unauthorized", BAD_MESSAGE: "message"}
_FIRST = 'a token is needed first: {"action": "auth", "token": ...}'

log = logging.getLogger("regstream.server.ws")


def attach(
    app: sanic.Sanic[Any, Any], context: TransportContext, *, now: Callable[[], float], welcome: Mapping[str, Any]
) -> WebSockets:
    """Serve the hub on ``/ws`` of ``app``; call before the server is made.

    ``now`` gives epoch seconds, ``welcome`` is what the first frame says besides the channels.
    """
    sockets = WebSockets(context, now, welcome)
    app.config.WEBSOCKET_MAX_SIZE = MAX_MESSAGE
    app.config.WEBSOCKET_PING_INTERVAL = app.config.WEBSOCKET_PING_TIMEOUT = 20
    app.add_websocket_route(sockets.serve, "/ws", name="ws")
    app.register_middleware(sockets.check, "request")
    return sockets


class WebSockets:
    """All connections of ``/ws``."""

    def __init__(self, context: TransportContext, now: Callable[[], float], welcome: Mapping[str, Any]) -> None:
        self.hub, self.now, self.history = context.hub, now, context.history
        self.subscriber_limits, self.outlets = context.subscriber_limits, context.outlets
        self.tasks, self.keeper = admission.Tasks(), context.guard
        self._welcome, self._origins = welcome, tuple(context.origins)
        self._connections: set[WebSocket] = set()
        self._gate = admission.Admission(self._connections, context.max_connections)
        self.join = writer.EncodedCache(_frames)

    @property
    def connections(self) -> int:
        """How many clients are connected, those that are being closed included."""
        return len(self._connections)

    async def check(self, request: sanic.Request) -> None:
        """Refuses before the upgrade what must not become a WebSocket; looks at requests for ``/ws`` only."""
        if request.route is None or request.route.path != "ws":
            return
        origin = request.headers.get("origin")
        if request.headers.get("upgrade", "").lower() != "websocket":
            raise exceptions.SanicException("this is a WebSocket", 426, headers={"Upgrade": "websocket"})
        if origin is not None and not origins.trusted(origin, request.headers.get("host", ""), self._origins):
            raise problems.ForeignOrigin(origin[:200])
        self._gate.check()

    async def serve(self, request: sanic.Request, ws: WebsocketImplProtocol) -> None:
        """One connection, until its transport is gone."""
        connection = WebSocket(self, ws, auth.address(request))
        self._connections.add(connection)
        try:
            query = dict(request.args) if request.args.getlist("channel") else None
            connection.enter(auth.of_handshake(request.headers), query)
            await ws.wait_for_connection_lost()
        finally:
            connection.dispose()
            self._connections.discard(connection)

    def welcome(self, caller: auth.Caller) -> dict[str, Any]:
        """What the first frame says."""
        return {**self._welcome, "role": caller.role, "channels": self.hub.channels}

    async def close_all(self, within: float, code: int = GOING_AWAY, reason: str = "going away") -> None:
        """Write out what is queued, close every connection with ``code``, refuse new ones.

        It takes ``within`` seconds at most, and a moment to cut off those that did not answer in time.
        """
        self._gate.shut()
        end = asyncio.get_running_loop().time() + within
        await admission.until(lambda: not any(one.pending for one in self._connections), end - within / 2)
        for connection in tuple(self._connections):
            connection.close(code, reason)
        await admission.until(lambda: not self._connections, end)
        for connection in tuple(self._connections):
            connection.abort()
        self.tasks.cancel()
        await admission.until(lambda: not self._connections and not self.tasks, end + 1)


class WebSocket(writer.BufferedWriter):
    """One client, and what it says."""

    __slots__ = (
        "_address",
        "_closing",
        "_held",
        "_known",
        "_mistakes",
        "_protocol",
        "_query",
        "_sockets",
        "_timer",
        "_transport",
        "_ws",
    )

    def __init__(self, sockets: WebSockets, ws: WebsocketImplProtocol, address: str) -> None:
        if ws.io_proto is None or ws.io_proto.transport is None:
            raise errors.Conflict("the connection is gone")
        super().__init__(sockets.outlets, sockets.subscriber_limits)
        self._sockets, self._ws, self._transport = sockets, ws, ws.io_proto.transport
        self._protocol = ws.ws_proto
        self._address, self._known, self._closing, self._mistakes = address, False, False, 0
        self._query: Mapping[str, Sequence[str]] | None = None
        self._held: list[bytes] | None = None
        # Until it has said who it is, the time for that; while it is being closed, the time until it is cut off
        self._timer: asyncio.TimerHandle | None = None
        ws.assembler = Inbox(self.receive, self.close)
        writer.tune(self._transport.get_extra_info("socket"))

    @property
    def is_open(self) -> bool:
        """Whether the handshake of closing has not begun."""
        return not self._closing and self._protocol.state is State.OPEN and not self._transport.is_closing()

    @property
    def has_room(self) -> bool:
        """Whether the transport's buffer is not full."""
        return bool(self._transport.get_write_buffer_size() <= writer.BUFFER_BYTES)

    def send(self, entries: list[hub.Entry]) -> None:
        """Write ``entries`` as frames, all in one write."""
        self._transport.write(self._sockets.join(entries))

    def too_slow(self) -> None:
        """Close with 4008."""
        self.close(TOO_SLOW, "too slow")

    def enter(self, token: str | None, query: Mapping[str, Sequence[str]] | None) -> None:
        """Begin with what the handshake carried; without a token, wait for the message that has it."""
        self._query = query
        if token is None and not self._sockets.keeper.is_open:
            late = asyncio.get_running_loop().call_later(auth.GRACE, self._unauthorized, "no token came")
            self._timer = late
        else:
            self._authorize(token)

    def _authorize(self, token: str | None) -> None:
        try:
            caller = self._sockets.keeper.caller(token)
        except problems.Unauthorized as error:
            self._unauthorized(str(error))
            return
        self._forget_deadline()
        self._known = True
        self.say("welcome", self._sockets.welcome(caller))
        query, self._query = self._query, None
        if query is not None:
            self._receive_query(query)

    def _unauthorized(self, reason: str) -> None:
        self.close(UNAUTHORIZED, reason)

    def _forget_deadline(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def say(self, event: str, data: Any) -> None:
        """Queue a reply behind what is queued."""
        self.subscriber.offer(hub.reply(event, data))

    def receive(self, text: bytes) -> None:
        """Do what a message asks for; what is wrong with it is told, and closes the connection if it is hopeless."""
        if self._closing or self.subscriber.slow:
            return
        if self._held is not None:
            self._hold(text)
            return
        try:
            self._act(messages.parse(text))
        except messages.NotAMessage as error:
            self.close(BAD_MESSAGE, str(error))
        except (errors.BadValue, errors.UnknownName) as error:
            if self._known:
                self._refuse(error)
            else:
                self._unauthorized(_FIRST)

    def _hold(self, text: bytes) -> None:
        if self._held is not None and len(self._held) < MAX_HELD:
            self._held.append(text)
        else:
            self.close(BAD_MESSAGE, "too many messages before an answer")

    def _receive_query(self, query: Mapping[str, Sequence[str]]) -> None:
        """The subscription that came with the address."""
        try:
            self._act(messages.from_query(query))
        except (errors.BadValue, errors.UnknownName) as error:
            self._refuse(error)

    def _act(self, message: messages.Action) -> None:
        if isinstance(message, messages.Auth):
            self._authorize(message.token)
        elif not self._known:
            self._unauthorized(_FIRST)
        elif isinstance(message, messages.Subscribe):
            self._subscribe(message)
        elif isinstance(message, messages.Unsubscribe):
            self._sockets.hub.unsubscribe(self.subscriber, message.channels)
            self.say("unsubscribed", {"channels": message.channels})
        else:
            self.say("pong", {"time": rfc3339(self._sockets.now())})

    def _subscribe(self, message: messages.Subscribe) -> None:
        missing = self._sockets.hub.missing(self.subscriber, message.request)
        if missing and self._sockets.history is not None:
            self._held = []
            self._sockets.tasks.begin(self._look_back(message), "ws-history")
        else:
            self._join(message, {})

    def _join(self, message: messages.Subscribe, older: Mapping[str, Sequence[Event]]) -> None:
        def confirm(streams: Mapping[str, hub.Subscribed]) -> None:
            self.say("subscribed", messages.subscribed(message.channels, streams))

        self._sockets.hub.subscribe(self.subscriber, message.request, confirm, older)

    async def _look_back(self, message: messages.Subscribe) -> None:
        """Subscribe with what a longer memory holds; what the client says meanwhile has to wait."""
        sockets = self._sockets
        async with resume.older(sockets.hub, sockets.history, self.subscriber, message.request) as older:
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
        self.say("error", messages.error(error))
        self._mistakes += 1
        if self._mistakes >= MAX_MISTAKES:
            self.close(BAD_MESSAGE, "too many bad messages")

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake behind what can still be written; cut the client off if it takes no part."""
        if self._closing:
            return
        if code in REFUSED:
            self._sockets.keeper.refusals.count(REFUSED[code], self._address)
        self.write_out()
        if self.is_open:
            self._ws.ws_proto.send_close(code, reason)
            for data in self._ws.ws_proto.data_to_send():
                self._transport.write(data)
        self._closing = True
        self.forget_timer()
        self._forget_deadline()
        self._sockets.hub.remove(self.subscriber)
        self._timer = asyncio.get_running_loop().call_later(CLOSE_GRACE, self.abort)

    def abort(self) -> None:
        """Cut the client off: the only thing that ends one that does not read."""
        self._transport.abort()

    def dispose(self) -> None:
        """The transport is gone, or the server gives the connection up."""
        self._closing = True
        self.forget_timer()
        self._sockets.hub.remove(self.subscriber)
        self._forget_deadline()


class Inbox(WebsocketFrameAssembler):
    """Takes messages as they come, and gives them to ``receive``; ``close`` is called for a binary one and for a fault.

    Sanic's own assembler needs two tasks a message, stops reading while nobody asks for one, and at a text frame that
    is not UTF-8 leaves an exception behind that nobody gets and a connection that hears nothing more.
    """

    def __init__(
        self,
        receive: Callable[[bytes], Awaitable[None] | None],
        close: Callable[[int, str], None],
    ) -> None:
        # Not the library's: of its locks, events and queues, four kilobytes for a connection, nothing is used here
        self._receive, self._close = receive, close
        self._parts: list[bytes] = []

    async def put(self, frame: Frame) -> None:
        """A part of a message; the library has seen to their order and to the size of the whole."""
        if frame.opcode is Opcode.BINARY:
            self._close(BAD_MESSAGE, str(messages.NotAMessage()))
        if frame.opcode not in (Opcode.TEXT, Opcode.CONT):
            # Pings come here too; the library has answered them
            return
        self._parts.append(bytes(frame.data))
        if frame.fin:
            parts, self._parts = self._parts, []
            await self._deliver(b"".join(parts))

    async def _deliver(self, text: bytes) -> None:
        try:
            work = self._receive(text)
            if work is not None:
                await work
        except Exception:
            # Nobody awaits the task that runs this, and the client must not wait for an answer that never comes.
            log.exception("a message of a client could not be handled")
            self._close(INTERNAL_ERROR, "internal error")


def _frames(entries: list[hub.Entry]) -> bytes:
    pieces = [piece for entry in entries for piece in (entry.wire or _framed(entry), entry.text)]
    return b"".join(pieces)


def _framed(entry: hub.Entry) -> bytes:
    """The frame's header, kept with the entry; the text is not kept twice."""
    frame = Frame(Opcode.TEXT, entry.text).serialize(mask=False, extensions=[])
    entry.wire = frame[: -entry.size]
    return entry.wire
