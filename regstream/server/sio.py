"""``/socket.io/``: Socket.IO for the JavaScript client that dashboards use, beside ``/ws`` and with the same positions.

The library knows the protocol: handshakes, polls, pings, the namespace. Events do not go through it: on a WebSocket
they are ready frames, straight to the transport and several in one write; to a client that polls they are given when
it asks. Either way they wait in the bounded queue of the hub's subscriber, and acknowledgements with them, so that the
order of what a client sees is the order of what happened.
"""

from __future__ import annotations

import asyncio
import collections
import functools
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import engineio
import orjson
import sanic
import socketio
from engineio import payload
from sanic import exceptions
from sanic.request import Request
from sanic.response import HTTPResponse

from regstream import errors, hub
from regstream.server import lookback, messages, outlet, problems, security, sio_transport, ws
from regstream.server.sio_transport import Outbox, Wire

PATH = "/socket.io"
JOIN, LEAVE = "join-streaming", "leave-streaming"
EVERY = "streaming-update"
NORMAL = 1000
PING_INTERVAL, PING_TIMEOUT = 25, 20
MAX_HELD = 100
POLL_FRAMES, POLL_BYTES = 2048, 512 * 1024
POLL = 0.01

log = logging.getLogger("regstream.sio")


def attach(
    app: sanic.Sanic[Any, Any],
    source: hub.Hub,
    *,
    origins: Sequence[str] = (),
    max_connections: int = 10_000,
    subscriber_limits: Mapping[str, int] | None = None,
    history: lookback.History | None = None,
    outlets: outlet.Outlets | None = None,
) -> Sessions:
    """Serve ``source`` on ``/socket.io/`` of ``app``; call before the server is made.

    ``origins`` are the patterns that an ``Origin`` header must match when there is one. ``subscriber_limits`` are
    keywords of ``hub.Subscriber``. ``history`` is asked for what the rings do not hold any more. ``outlets`` flushes
    what waits.
    """
    flushes = outlets or outlet.Outlets()
    sessions = Sessions(source, origins, max_connections, subscriber_limits or {}, history, flushes)
    app.config.WEBSOCKET_MAX_SIZE = ws.MAX_MESSAGE
    app.enable_websocket()

    async def serve(request: Request[Any, Any]) -> HTTPResponse | None:
        return await sessions.serve(request)

    # With that, no answer is missed when what was asked for was a WebSocket
    serve.is_websocket = True  # type: ignore[attr-defined]
    app.add_route(serve, PATH, {"GET", "POST", "OPTIONS"}, name="socketio", error_format="json")
    return sessions


class Sessions:
    """All clients on Socket.IO."""

    def __init__(
        self,
        source: hub.Hub,
        origins: Sequence[str],
        max_connections: int,
        subscriber_limits: Mapping[str, int],
        history: lookback.History | None,
        outlets: outlet.Outlets,
    ) -> None:
        self.hub, self.history, self.outlets = source, history, outlets
        self.subscriber_limits = subscriber_limits
        self._origins, self._max = tuple(origins), max_connections
        self.tasks: set[asyncio.Task[Any]] = set()
        self._clients: dict[str, Client] = {}
        self._joined: tuple[list[hub.Entry], bytes] = ([], b"")
        self._draining = False
        self._library = _library(self)

    @property
    def connections(self) -> int:
        """How many sessions there are, those that are being closed included."""
        return len(self._clients)

    def begin(self, work: Coroutine[Any, Any, Any], name: str = "sio") -> asyncio.Task[Any]:
        """Run ``work`` beside everything else, until the end at most; a fault there is logged and harms no other."""
        task = asyncio.create_task(work, name=name)
        self.tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=error)

    async def serve(self, request: Request[Any, Any]) -> HTTPResponse | None:
        """One request: a handshake, a poll, packets of a client that polls, or a whole WebSocket."""
        origin = request.headers.get("origin")
        if origin is not None and not security.trusted(origin, request.headers.get("host", ""), self._origins):
            raise problems.ForeignOrigin(origin[:200])
        if request.method == "OPTIONS":
            return HTTPResponse(status=204, headers={"allow": "GET, OPTIONS, POST"})
        if "j" in request.args:
            raise exceptions.BadRequest("there is no JSONP here")
        sid = request.args.get("sid")
        if sid is None:
            self._check_room()
        client = self._clients.get(sid)
        if client is not None and request.headers.get("upgrade", "").lower() == "websocket":
            return await self._upgrade(client, request)
        if client is not None and request.method == "POST" and not sio_transport.is_payload(request.body):
            client.abort()
            raise exceptions.BadRequest("the body holds no packets")
        return await self._answer(request)

    async def _upgrade(self, client: Client, request: Request[Any, Any]) -> HTTPResponse | None:
        if client.upgrading:
            raise exceptions.BadRequest("there is an upgrade already")
        client.upgrading = True
        try:
            return await self._answer(request)
        finally:
            client.upgrading = False

    async def _answer(self, request: Request[Any, Any]) -> HTTPResponse | None:
        answer: HTTPResponse | None = await self._library.eio.handle_request(request)
        return answer

    def _check_room(self) -> None:
        if self._draining or len(self._clients) >= self._max:
            reason = "the server is stopping" if self._draining else "too many connections"
            raise exceptions.ServiceUnavailable(reason, headers={"Retry-After": "5"})

    def welcome(self, session: Any) -> None:
        """A session begins."""
        self._clients[session.sid] = Client(self, session)

    def opened(self, session: Any, wire: Wire) -> None:
        """The session is on a WebSocket from now on."""
        client = self._clients.get(session.sid)
        if client is None:
            wire.abort()
        else:
            client.on_wire(wire)

    def client(self, sid: str) -> Client | None:
        """Whoever has this session, as long as it is one."""
        return self._clients.get(sid)

    def forget(self, sid: str) -> None:
        """The session is over."""
        client = self._clients.pop(sid, None)
        if client is not None:
            client.dispose()

    def join(self, entries: list[hub.Entry]) -> bytes:
        """The frames of ``entries``; made once when, as mostly, the next client has the same to write."""
        if entries != self._joined[0]:
            self._joined = (entries, _frames(entries))
        return self._joined[1]

    async def close_all(self, within: float) -> None:
        """Write out what is queued, end every session, refuse new ones.

        Clients see their transport close, and come back by themselves. It takes ``within`` seconds at most, and a
        moment to cut off those that did not answer in time.
        """
        self._draining = True
        end = asyncio.get_running_loop().time() + within
        await self._until(lambda: not any(one.pending for one in self._clients.values()), end - within / 2)
        for client in tuple(self._clients.values()):
            client.close(ws.GOING_AWAY, "going away")
        await self._until(lambda: not self._clients, end)
        for client in tuple(self._clients.values()):
            client.abort()
        await self._until(lambda: not self._clients, end + 0.5)
        for task in tuple(self.tasks):
            task.cancel()
        await self._until(lambda: not self.tasks, end + 1)

    async def _until(self, condition: Callable[[], bool], end: float) -> None:
        # Polled: it happens once, at the end, and an event would have to be set on every path of every client.
        while not condition() and asyncio.get_running_loop().time() < end:  # noqa: ASYNC110
            await asyncio.sleep(POLL)


class Client(outlet.Outlet):
    """One session: what it says, and what it is told."""

    __slots__ = ("_ended", "_held", "_session", "_sessions", "_wire", "outbox", "upgrading")

    def __init__(self, sessions: Sessions, session: Any) -> None:
        super().__init__(sessions.outlets, sessions.subscriber_limits)
        self._sessions, self._session = sessions, session
        self.outbox: Outbox = session.queue
        self.outbox.wake, self.outbox.overrun = self._wake, self.abort
        self._wire: Wire | None = None
        self._ended = self.upgrading = False
        self._held: collections.deque[tuple[int | None, list[Any]]] | None = None

    @property
    def is_open(self) -> bool:
        """Whether the session is not being closed."""
        return not self._ended and (self._wire is None or self._wire.is_open)

    @property
    def has_room(self) -> bool:
        """Whether a poll waits, or the transport's buffer is not full."""
        return self.outbox.asked if self._wire is None else self._wire.has_room

    def write(self, now: float) -> None:
        """See ``outlet.Outlet.write``; a client that polls comes by itself, and is not to be looked at again."""
        if self._wire is not None or self.outbox.asked or self.subscriber.slow:
            super().write(now)

    def send(self, entries: list[hub.Entry]) -> None:
        """Write ``entries``, all in one write or one answer, to which a poll gets more."""
        if self._wire is not None:
            self._wire.write(self._sessions.join(entries))
        else:
            now = asyncio.get_running_loop().time()
            entries += self.subscriber.take(POLL_FRAMES, POLL_BYTES, now)
            self.outbox.put_nowait(sio_transport.Ready(_payload(entries)))

    def too_slow(self) -> None:
        """Cut the transport, so that the client comes back by itself."""
        self.abort()

    def on_wire(self, wire: Wire) -> None:
        """From now on it is on a WebSocket."""
        if self._ended:
            wire.abort()
            return
        self._wire = wire
        self.outbox.leave_by(wire)
        if self.subscriber.pending:
            self._wake()

    def hear(self, ack: int | None, event: list[Any]) -> None:
        """An event of the client's; ``ack`` is the number under which it wants to hear of it."""
        if not self.is_open or self.subscriber.slow:
            return
        if self._held is None:
            self._act(ack, event)
        elif len(self._held) < MAX_HELD:
            self._held.append((ack, event))
        else:
            self.close(ws.BAD_MESSAGE, "too many messages before an answer")

    def _act(self, ack: int | None, event: list[Any]) -> None:
        name, *arguments = event
        channels = arguments[0] if arguments else None
        channels = [channels] if isinstance(channels, str) else channels
        try:
            if name == JOIN:
                self._join(ack, _subscription(channels, arguments))
            elif name == LEAVE:
                self._leave(ack, messages.unsubscription(channels))
            else:
                raise errors.UnknownName("event", name[:64], errors.near(name[:64], (JOIN, LEAVE)))
        except (errors.BadValue, errors.UnknownName) as error:
            self._refuse(ack, error)

    def _leave(self, ack: int | None, message: messages.Unsubscribe) -> None:
        self._sessions.hub.unsubscribe(self.subscriber, message.channels)
        self._acknowledge(ack, {"channels": message.channels})

    def _join(self, ack: int | None, message: messages.Subscribe) -> None:
        missing = self._sessions.hub.missing(self.subscriber, message.request)
        if missing and self._sessions.history is not None:
            self._held = collections.deque()
            self._sessions.begin(self._look_back(ack, message), "sio-history")
        else:
            self._sessions.hub.subscribe(self.subscriber, message.request, self._confirm(ack, message))

    def _confirm(self, ack: int | None, message: messages.Subscribe) -> Callable[[Mapping[str, hub.Subscribed]], None]:
        return lambda streams: self._acknowledge(ack, messages.subscribed(message.channels, streams))

    async def _look_back(self, ack: int | None, message: messages.Subscribe) -> None:
        """Subscribe with what a longer memory holds; what the client says meanwhile has to wait."""
        source, history = self._sessions.hub, self._sessions.history
        older = await lookback.read(history, source.missing(self.subscriber, message.request)) if history else {}
        held, self._held = self._held or (), None
        if not self.is_open:
            return
        try:
            source.subscribe(self.subscriber, message.request, self._confirm(ack, message), older)
        except (errors.BadValue, errors.UnknownName) as error:
            self._refuse(ack, error)
        for one in held:
            self.hear(*one)

    def _acknowledge(self, ack: int | None, data: Any) -> None:
        if ack is not None:
            self.subscriber.offer(Answer(ack, data))

    def _refuse(self, ack: int | None, error: errors.BadValue | errors.UnknownName) -> None:
        if ack is None:
            self.subscriber.offer(hub.reply("error", messages.error(error)))
        else:
            self._acknowledge(ack, {"error": messages.error(error)})

    def close(self, code: int, reason: str) -> None:
        """End the session behind what can still be written; cut the client off if it takes no part."""
        if not self.is_open:
            return
        self.write_out()
        if self._wire is not None:
            self._wire.close(code, reason)
            self._part()
        else:
            self.abort()

    def abort(self) -> None:
        """Cut the client off: the only thing that ends one that does not read."""
        self._part()
        if self._wire is not None:
            self._wire.abort()
        elif not self._session.closed:
            self._sessions.begin(sio_transport.end(self._session), "sio-end")

    def _part(self) -> None:
        self._ended = True
        self.forget_timer()
        self._sessions.hub.remove(self.subscriber)

    def dispose(self) -> None:
        """The library has ended the session."""
        self._part()
        self.outbox.end()
        if self._wire is not None:
            self._wire.abort()


class Answer(hub.Entry):
    """An acknowledgement. It waits like any event, so that neither overtakes the other."""

    __slots__ = ("begin",)

    def __init__(self, ack: int, data: Any) -> None:
        super().__init__("ack", b"", orjson.dumps(data))
        self.begin = b"43%d[" % ack


def _subscription(channels: object, arguments: list[Any]) -> messages.Subscribe:
    options = arguments[1] if len(arguments) > 1 else None
    if options is not None and not isinstance(options, dict):
        raise errors.BadValue("options", "must be an object")
    return messages.subscription(channels, options or {})


@functools.lru_cache(maxsize=1024)
def _begin(name: str) -> bytes:
    """What the packet of an event begins with: Engine.IO's message, Socket.IO's event, and the event's name."""
    return b"42[%b," % orjson.dumps(name)


def _begins(entry: hub.Entry) -> tuple[bytes, ...]:
    if isinstance(entry, Answer):
        return (entry.begin,)
    own = _begin(entry.name)
    return (own,) if entry.head is None else (_begin(EVERY), own)


def _frames(entries: list[hub.Entry]) -> bytes:
    pieces: list[bytes] = []
    for entry in entries:
        value = entry.value
        for begin in _begins(entry):
            pieces += (sio_transport.header(len(begin) + len(value) + 1), begin, value, b"]")
    return b"".join(pieces)


def _payload(entries: list[hub.Entry]) -> str:
    packets = [b"%b%b]" % (begin, entry.value) for entry in entries for begin in _begins(entry)]
    return sio_transport.BETWEEN.encode().join(packets).decode()


def _library(sessions: Sessions) -> Any:
    """The server of ``python-socketio``, with what is ours in place of its own."""
    loggers = [logging.getLogger(f"regstream.sio.{name}") for name in ("engineio", "socketio")]
    for one in loggers:
        one.setLevel(logging.ERROR)
        one.addFilter(_is_fault)
    payload.Payload.max_decode_packets = sio_transport.MAX_PACKETS
    library = _Server(
        sessions,
        async_mode="sanic",
        json=sio_transport.Json,
        engineio_logger=loggers[0],
        logger=loggers[1],
        cors_allowed_origins=[],
        http_compression=False,
        max_http_buffer_size=ws.MAX_MESSAGE,
        ping_interval=PING_INTERVAL,
        ping_timeout=PING_TIMEOUT,
    )
    library.eio.begin = sessions.begin
    library.eio._async = sio_transport.driver(sessions.opened)
    return library


def _is_fault(record: logging.LogRecord) -> bool:
    """False for what a client did wrong, which is an error to the library and none of ours."""
    return record.exc_info is not None


class _Engine(engineio.AsyncServer):  # type: ignore[misc] # the library has no types
    """Engine.IO with queues and tasks of ours."""

    begin: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]

    def create_queue(self, *_: Any, **__: Any) -> Outbox:
        return Outbox()

    def start_background_task(self, target: Any, *args: Any, **named: Any) -> asyncio.Task[Any]:
        task = self.begin(target(*args, **named))
        # The library's own would wait for a ping long after the session is over
        if isinstance(outbox := getattr(target.__self__, "queue", None), Outbox):
            outbox.ping = task
        return task


class _Server(socketio.AsyncServer):  # type: ignore[misc] # the library has no types
    """Socket.IO whose events go to our clients, with the number under which they want an answer."""

    def __init__(self, sessions: Sessions, **options: Any) -> None:
        super().__init__(**options)
        self._sessions = sessions

    def _engineio_server_class(self) -> type[_Engine]:
        return _Engine

    async def _handle_eio_connect(self, eio_sid: str, environ: dict[str, Any]) -> None:
        # It would keep the request as long as the session
        await super()._handle_eio_connect(eio_sid, {})
        self._sessions.welcome(self.eio.sockets[eio_sid])

    async def _handle_eio_message(self, eio_sid: str, data: Any) -> None:
        client = self._sessions.client(eio_sid)
        if client is None or not client.is_open:
            return
        kind = data[:1] if isinstance(data, str) else ""
        if kind == "1":
            # There is one namespace only: who leaves it wants nothing more
            client.close(NORMAL, "")
        elif kind not in ("0", "2") or not await self._understands(eio_sid, data):
            client.close(ws.BAD_MESSAGE, "not a packet")

    async def _understands(self, eio_sid: str, data: str) -> bool:
        try:
            await super()._handle_eio_message(eio_sid, data)
        except (ValueError, TypeError, LookupError, AttributeError):
            # What it makes of a packet that is none
            log.debug("a packet could not be read", exc_info=True)
            return False
        return True

    async def _handle_event(self, eio_sid: str, namespace: str | None, id: int | None, data: Any) -> None:
        if not isinstance(data, list) or not data or not isinstance(data[0], str):
            raise ValueError("an event has a name")
        sid = self.manager.sid_from_eio_sid(eio_sid, namespace or "/")
        client = self._sessions.client(eio_sid)
        if client is None or not self.manager.is_connected(sid, namespace or "/"):
            return
        try:
            client.hear(id, data)
        except Exception:
            log.exception("a message of a client could not be handled")
            client.close(ws.INTERNAL_ERROR, "internal error")

    async def _handle_eio_disconnect(self, eio_sid: str, reason: str) -> None:
        await super()._handle_eio_disconnect(eio_sid, reason)
        self._sessions.forget(eio_sid)
