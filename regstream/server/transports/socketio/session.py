"""One client on Socket.IO: what it says, and the way to it."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from regstream import errors, hub
from regstream.server import decoding, problems, resume
from regstream.server.security import auth
from regstream.server.transports import messages, websocket, writer
from regstream.server.transports.socketio import packets, polling

if TYPE_CHECKING:
    from regstream.server.transports.socketio import Sessions

JOIN, LEAVE = "join-streaming", "leave-streaming"
MAX_HELD = 100
POLL_FRAMES, POLL_BYTES = 2048, 512 * 1024


class Session(writer.BufferedWriter):
    """One session: what it says, and what it is told."""

    __slots__ = (
        "_address",
        "_deadline",
        "_ended",
        "_held",
        "_session",
        "_sessions",
        "_token",
        "_wire",
        "outbox",
        "upgrading",
    )

    def __init__(self, sessions: Sessions, session: Any, token: str | None, address: str) -> None:
        super().__init__(sessions.outlets, sessions.subscriber_limits)
        self._sessions, self._session = sessions, session
        self.outbox: polling.PollingQueue = session.queue
        self.outbox.wake, self.outbox.overrun = self._wake, self.abort
        self._wire: polling.WebSocketTransport | None = None
        self._token, self._address = token, address
        self._deadline: asyncio.TimerHandle | None = None
        self._ended = self.upgrading = False
        self._held: collections.deque[tuple[int | None, list[Any]]] | None = None

    def expect(self) -> None:
        """Part with it unless it says within a while who it is; where nobody has to, wait for nothing."""
        if not self._sessions.keeper.is_open:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(auth.GRACE, self.close, websocket.UNAUTHORIZED, "no token came")

    def admit(self, said: Any) -> None:
        """Let it in with the token of its handshake, or else of what it ``said``. Raises Unauthorized."""
        token = said.get("token") if self._token is None and isinstance(said, dict) else self._token
        try:
            self._sessions.keeper.caller(token if isinstance(token, str) else None)
        except problems.Unauthorized:
            self._sessions.keeper.refusals.count("unauthorized", self._address)
            raise
        self._forget_deadline()

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    @property
    def is_open(self) -> bool:
        """Whether the session is not being closed."""
        return not self._ended and (self._wire is None or self._wire.is_open)

    @property
    def has_room(self) -> bool:
        """Whether a poll waits, or the transport's buffer is not full."""
        return self.outbox.asked if self._wire is None else self._wire.has_room

    @property
    def shares(self) -> bool:
        """An answer to a poll takes more than it is given."""
        return self._wire is not None

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
            self.outbox.put_nowait(polling.Ready(packets.payload(entries)))

    def too_slow(self) -> None:
        """Cut the transport, so that the client comes back by itself."""
        self.abort()

    def on_wire(self, wire: polling.WebSocketTransport) -> None:
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
            self.close(websocket.BAD_MESSAGE, "too many messages before an answer")

    def _act(self, ack: int | None, event: list[Any]) -> None:
        name, *arguments = event
        channels = arguments[0] if arguments else None
        channels = [channels] if isinstance(channels, str) else channels
        try:
            if isinstance(name, decoding.TooDeep):
                raise errors.BadValue("message", str(name))
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
        async with resume.older(source, history, self.subscriber, message.request) as older:
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
            self.subscriber.offer(packets.Answer(ack, data))

    def _refuse(self, ack: int | None, error: errors.BadValue | errors.UnknownName) -> None:
        if ack is None:
            self.subscriber.offer(hub.reply("error", messages.error(error)))
        else:
            self._acknowledge(ack, {"error": messages.error(error)})

    def close(self, code: int, reason: str) -> None:
        """End the session behind what can still be written; cut the client off if it takes no part."""
        if not self.is_open:
            return
        if code in websocket.REFUSED:
            self._sessions.keeper.refusals.count(websocket.REFUSED[code], self._address)
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
            self._sessions.begin(polling.end(self._session), "sio-end")

    def _part(self) -> None:
        self._ended = True
        self.forget_timer()
        self._forget_deadline()
        self._sessions.hub.remove(self.subscriber)

    def dispose(self) -> None:
        """The library has ended the session."""
        self._part()
        self.outbox.end()
        if self._wire is not None:
            self._wire.abort()


def _subscription(channels: object, arguments: list[Any]) -> messages.Subscribe:
    options = arguments[1] if len(arguments) > 1 else None
    if options is not None and not isinstance(options, dict):
        raise errors.BadValue("options", "must be an object")
    return messages.subscription(channels, options or {})
