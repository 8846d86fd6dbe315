"""A connection that is made again whenever it breaks, as an asynchronous iterator of events."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import json
import random
import urllib.request
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any

import websockets.asyncio.client

from regstream import errors
from regstream.client import wire
from regstream.client.wire import Event, address
from regstream.event import Position

__all__ = ["Event", "Notice", "Subscription", "Timing", "address", "subscribe"]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """None: the answer is an error like any other."""


_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)


def request(asked: urllib.request.Request, seconds: float) -> Any:
    """The answer to a request, as ``urllib.request.urlopen`` gives it, and with its errors."""
    return _opener.open(asked, timeout=seconds)


class connect(websockets.asyncio.client.connect):
    """``websockets.asyncio.client.connect``."""

    def __init__(self, address: str, **options: Any) -> None:
        super().__init__(address, proxy=None, **options)

    def process_redirect(self, exc: Exception) -> Exception | str:
        """The answer as an error."""
        return exc


MAX_QUEUED = 256
MAX_FRAME = 16 * 2**20
CLOSE_SECONDS = 1.0
CURE = "is the daemon running? start it: regstream run"

Notice = Callable[[str, dict[str, Any]], None]
"""Called with the name and the data of a frame that is no event of a stream."""


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def _chance() -> Callable[[], float]:
    return random.Random().random  # noqa: S311


@dataclasses.dataclass(frozen=True)
class Timing:
    """How long a subscription waits, in seconds, and by what it measures and draws.

    The pause before an attempt is ``shortest`` at first and doubles up to ``longest``; ``chance`` (0 to 1) takes up to
    half of it away, so that many clients do not come back as one. ``open`` bounds the making of a connection,
    ``answer`` the wait for an answer to the subscription; ``ping`` is the time between two pings, and that for an
    answer to one.
    """

    shortest: float = 0.25
    longest: float = 10.0
    open: float = 10.0
    answer: float = 30.0
    ping: float = 20.0
    chance: Callable[[], float] = dataclasses.field(default_factory=_chance)
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = _loop_time

    def pause(self, failures: int) -> float:
        """How long to wait before the next attempt after so many failures in a row."""
        return min(self.longest, self.shortest * 2.0 ** min(failures - 1, 60)) * (1 - self.chance() / 2)


class Subscription:
    """An asynchronous iterator of events, made by ``subscribe``; one task may read it at a time.

    The first connection failing raises StartError, a subscription that is refused BadValue or UnknownName; so does
    one that is refused when it comes back, unless some of its channels are still there. Closing codes 4001 (StartError)
    and 4009 (BadValue) end it. Any other end of a connection is taken up again, however often.

    ``async with`` connects and subscribes before its body begins, and closes at its end; within it a cancelled wait
    keeps the connection, so that waiting with a time limit is cheap. Without it a cancelled wait cuts the connection,
    and the next wait makes another. What is being made is cut in any case: a limit should leave time for it.
    """

    _socket: websockets.asyncio.client.ClientConnection | None = None

    def __init__(
        self,
        address: str,
        followed: wire.Following,
        notice: Notice | None,
        timing: Timing,
        token: str | None = None,
    ) -> None:
        self._address, self._following, self._notice, self._timing = address, followed, notice, timing
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._closed = self._entered = self._reading = self._gave = False
        self._failures = 0
        self._opened: float | None = None
        self._due = 0.0
        self._untold: collections.deque[tuple[str, dict[str, Any]]] = collections.deque()
        self._limit: asyncio.Timeout | None = None

    @property
    def positions(self) -> dict[str, Position]:
        """Where it stands in each stream, to be handed in as ``after``: behind the event that was given out last.

        In a stream of which none was given out yet, that is where following it began.
        """
        return self._following.positions

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> wire.Event:
        event = await self._alone(self._step)
        if event is None:
            raise StopAsyncIteration
        return event

    async def __aenter__(self) -> Subscription:
        self._entered = True
        await self._alone(self._begin)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        socket = self._socket
        if socket is not None:
            # Left without a word; the library's task for pings would keep the connection for ever.
            with contextlib.suppress(RuntimeError):
                socket.loop.call_soon_threadsafe(socket.transport.abort)

    async def aclose(self) -> None:
        """End it; whoever waits for an event sees the iteration end. May be called twice."""
        self._closed = True
        if self._limit is not None:
            self._limit.reschedule(_loop_time())
        socket, self._socket = self._socket, None
        if socket is not None:
            try:
                await socket.close()
            finally:
                socket.transport.abort()

    async def ping(self) -> None:
        """Ask the daemon for a ``pong``, which comes to ``notice``; without a connection nothing is asked."""
        if self._socket is not None:
            with contextlib.suppress(*wire.LOST):
                await self._socket.send(json.dumps({"action": "ping"}))

    async def _alone(self, work: Callable[[], Awaitable[wire.Event | None]]) -> wire.Event | None:
        if self._reading:
            raise errors.Conflict("the subscription is being read already")
        self._reading = True
        try:
            return await work()
        except BaseException as error:
            self._closed = self._closed or isinstance(error, errors.RegstreamError)
            if not self._entered:
                self._cut()
            raise
        finally:
            self._reading = False
            if self._closed:
                self._cut()

    async def _begin(self) -> None:
        try:
            await self._connect()
        except wire.LOST as error:
            self._lose(error)
        self._tell()

    async def _step(self) -> wire.Event | None:
        """The next event, None at the end. From the place being moved to the return nothing awaits."""
        event = None
        while event is None and not self._closed:
            # Out here: what it raises is not a lost connection. And before an event is taken, which would go with it.
            self._tell()
            try:
                if self._socket is None:
                    await self._connect()
                else:
                    event = self._take(await self._socket.recv())
            except wire.LOST as error:
                self._lose(error)
        return event

    def _take(self, text: str | bytes) -> wire.Event | None:
        event, data = wire.frame(text)
        if not wire.is_event(data):
            self._hear(event, data)
        elif data.get("replay") is True or self._following.advance(data):
            # One that is sent again says nothing of where the stream is
            self._gave = True
            return data
        return None

    def _hear(self, event: str, data: dict[str, Any]) -> None:
        if event == "error" and self._following.unanswered:
            refusal = wire.refusal(data)
            if isinstance(refusal, errors.UnknownName) and self._following.begun:
                # It went after `welcome` was said; the next one does not have it.
                raise wire.ConnectionBroken(str(refusal))
            raise refusal
        self._untold.append((event, self._following.answer(data) if event == "subscribed" else data))

    def _tell(self) -> None:
        while self._untold:
            event, data = self._untold.popleft()
            if self._notice is not None:
                self._notice(event, data)

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(None) as self._limit:
                if self._failures and (rest := self._due - self._timing.clock()) > 0:
                    await self._timing.sleep(rest)
                self._socket = await self._open()
                if self._closed:
                    raise TimeoutError
                self._limit.reschedule(_loop_time() + self._timing.answer)
                await self._subscribe(self._socket)
        except BaseException:
            self._cut()
            raise
        finally:
            self._limit = None

    async def _open(self) -> websockets.asyncio.client.ClientConnection:
        timing = self._timing
        socket = await connect(
            self._address,
            additional_headers=self._headers,
            open_timeout=timing.open,
            ping_interval=timing.ping,
            ping_timeout=timing.ping,
            close_timeout=CLOSE_SECONDS,
            max_size=MAX_FRAME,
            max_queue=MAX_QUEUED,
            compression=None,
        )
        self._opened = timing.clock()
        return socket

    async def _subscribe(self, socket: websockets.asyncio.client.ClientConnection) -> None:
        self._following.unanswered = 0
        known = wire.channels(await self._until(socket, "welcome"))
        for name in self._following.gone(known):
            text = str(errors.UnknownName("channel", name))
            self._untold.append(("error", {"code": "unknown_channel", "message": text}))
        for request in self._following.requests(known):
            await socket.send(json.dumps(request))
        await self._until(socket, "subscribed")

    async def _until(self, socket: websockets.asyncio.client.ClientConnection, wanted: str) -> dict[str, Any]:
        """The data of the first frame of that name; no event may come before it."""
        while True:
            event, data = wire.frame(await socket.recv())
            if wire.is_event(data):
                raise wire.ConnectionBroken("an event came before the answer to the subscription")
            self._hear(event, data)
            if event == wanted:
                return data

    def _lose(self, error: Exception) -> None:
        """The connection is no more: for good, which raises, or until the next step."""
        self._cut()
        if self._closed:
            return
        if (final := wire.final(self._address, error)) is not None:
            raise final from error
        reason = str(error) or f"no answer within {self._timing.answer:g} s"
        if not self._following.begun:
            raise errors.StartError(wire.shown(self._address), f"{reason}; {CURE}") from error
        now = self._timing.clock()
        lasted = self._opened is not None and now - self._opened >= self._timing.longest
        self._failures = 1 if lasted or self._gave else self._failures + 1
        self._due = now + self._timing.pause(self._failures)
        self._opened, self._gave = None, False
        self._untold.append(("lost", {"reason": reason}))

    def _cut(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.transport.abort()


def subscribe(
    url: str,
    channels: Iterable[str],
    *,
    after: Mapping[str, Position] | None = None,
    rewind: int = 0,
    snapshot: bool = False,
    policy: str | None = None,
    max_rate: float | None = None,
    token: str | None = None,
    notice: Notice | None = None,
    timing: Timing | None = None,
) -> Subscription:
    """The events of ``channels`` of the daemon at ``url``, which may be ``http(s)`` or ``ws(s)``, with ``/ws`` or not.

    ``after`` names, by stream, the position to continue from, as ``Subscription.positions`` gives it; ``rewind`` is
    for the other streams. These, ``snapshot``, ``policy`` and ``max_rate`` mean what they mean on the WebSocket.

    ``token`` is one of the daemon's, with any role; it goes in a header.

    ``notice`` is called with every frame that is no event of a stream (``welcome``, ``subscribed``, ``lagging``,
    ``system`` …), with ``("lost", {"reason": …})`` when a connection broke, and with an ``error`` of code
    ``unknown_channel`` for a channel that is no longer there when it comes back; the others are followed on. What
    ``notice`` raises comes out of the iteration.

    Raises BadValue for an address that is none. Nothing is connected yet.
    """
    names = (channels,) if isinstance(channels, str) else tuple(dict.fromkeys(channels))
    options = {"snapshot": snapshot or None, "policy": policy, "maxRate": max_rate}
    asked = {key: value for key, value in options.items() if value is not None}
    followed = wire.Following(names, after or {}, rewind, asked)
    return Subscription(wire.address(url), followed, notice, timing or Timing(), token)
