"""Sanic's protocol with a door: how many connections there may be, how slowly a request may come, and what a WebSocket
is said to speak.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
from typing import Any, cast

import orjson
from sanic import exceptions
from sanic.http.constants import Stage
from sanic.server.protocols.websocket_protocol import WebSocketProtocol

from regstream.server.security import auth
from regstream.server.security.admission import RejectionCounter

RETRY_SECONDS = 5
_FULL = orjson.dumps(
    {"type": "/docs#problem-crowded", "title": "Too many connections", "status": 503, "detail": "too many connections"}
)
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\ncontent-length: %d\r\n"
    b"retry-after: %d\r\nconnection: close\r\n\r\n%b"
) % (len(_FULL), RETRY_SECONDS, _FULL)


@dataclasses.dataclass(frozen=True, slots=True)
class ReceiveLimits:
    """How slowly a request may come. Each bound is for a whole head or body, however its bytes are spread."""

    head_seconds: float = 10.0
    """From the first byte of a head to its end; on a new connection from when it was made."""
    body_seconds: float = 10.0
    """For any body. One that takes longer must have come at ``body_rate`` since."""
    body_rate: float = 4096.0
    """Bytes a second."""
    body_bytes: int = 2**20
    """A body that is larger is refused, and what still comes of it earns no more time."""


class TooSlow(exceptions.BadRequest):
    """A request does not come as fast as ``ReceiveLimits`` asks; Sanic closes the connection after the answer."""

    status_code = 408


class ConnectionLimiter:
    """Lets connections in until there are ``most``, or ``per_address`` from one address (None: no such bound)."""

    def __init__(
        self, most: int, per_address: int | None, refusals: RejectionCounter, limits: ReceiveLimits | None = None
    ) -> None:
        self._most, self._per_address, self._refusals = most, per_address, refusals
        self.limits = limits or ReceiveLimits()
        self._inside: collections.Counter[str] = collections.Counter()
        self._total = 0

    def enter(self, address: str) -> bool:
        """Whether one more from ``address`` is let in; it is counted until it leaves."""
        full = self._total >= self._most
        if full or (self._per_address is not None and self._inside[address] >= self._per_address):
            self._refusals.count("connections", address)
            return False
        self._total += 1
        self._inside[address] += 1
        return True

    def refuse_slow(self, address: str) -> None:
        """A request from ``address`` came too slowly."""
        self._refusals.count("slow", address)

    def leave(self, address: str) -> None:
        """One that was let in is gone."""
        self._total -= 1
        self._inside[address] -= 1
        if not self._inside[address]:
            del self._inside[address]


def behind(door: ConnectionLimiter) -> type[asyncio.Protocol]:
    """The protocol of a server whose connections come through ``door``."""

    class Guarded(WebSocketProtocol):
        """One connection."""

        # Where it is in a request: whether somebody waits for bytes, since when for this head or body, and how many of
        # a body have come
        __slots__ = ("_address", "_has_asked", "_in_body", "_let_in", "_received", "_since", "_waits")

        def connection_made(self, transport: Any) -> None:
            """Answer who is not let in before they have asked, and hear nothing of them."""
            peer = transport.get_extra_info("peername")
            self._address = str(peer[0]) if isinstance(peer, tuple) else ""
            self._let_in = door.enter(self._address)
            self._since: float | None = asyncio.get_running_loop().time()
            self._received, self._in_body, self._has_asked, self._waits = 0, False, False, False
            if self._let_in:
                super().connection_made(transport)  # type: ignore[no-untyped-call]
            else:
                transport.write(_REFUSAL)
                transport.close()

        def data_received(self, data: bytes) -> None:
            if not self._let_in:
                return
            before = self._time
            super().data_received(data)  # type: ignore[no-untyped-call]
            self._has_asked = True
            if self._waits:
                self._received += len(data)
            elif self.websocket is None:
                # The next request has begun. It must not prolong the time that Sanic gives to the answer under way
                self._since, self._time = None, before

        async def receive_more(self) -> None:
            """Wait for more of a request. Raises TooSlow when it has had its time."""
            in_body = self._http.request is not None
            is_idle = not in_body and self._http.stage is Stage.IDLE
            if is_idle and self._has_asked:
                # Between two requests it is Sanic that ends the wait
                await self._receive()
                self._begin(in_body)
                return
            if self._since is None or in_body != self._in_body:
                self._begin(in_body)
            try:
                await self._receive_in_time()
            except TimeoutError:
                if is_idle and self.transport is not None:
                    # Nothing was asked, so there is nothing to answer: a browser that connected ahead comes back
                    self.transport.abort()
                    await self._receive()
                # Nothing more is read: not by who waits here, and not by who would drop the rest of a body
                self._http.keep_alive, self._http.request_body = False, None
                door.refuse_slow(self._address)
                part = "body" if in_body else "head"
                raise TooSlow(f"the {part} of the request came too slowly, send it without pauses") from None

        def _begin(self, in_body: bool) -> None:
            self._since, self._received, self._in_body = self.loop.time(), 0, in_body

        def _deadline(self) -> float:
            limits, since = door.limits, self._since or 0.0
            if not self._in_body:
                return since + limits.head_seconds
            return since + limits.body_seconds + min(self._received, limits.body_bytes) / limits.body_rate

        async def _receive_in_time(self) -> None:
            async with asyncio.timeout_at(self._deadline()):
                await self._receive()

        async def _receive(self) -> None:
            self._waits = True
            try:
                await super().receive_more()  # type: ignore[no-untyped-call]
            finally:
                self._waits = False

        def eof_received(self) -> bool | None:
            return super().eof_received() if self._let_in else False

        def connection_lost(self, exc: Exception | None) -> None:
            if self._let_in:
                door.leave(self._address)
                super().connection_lost(exc)  # type: ignore[no-untyped-call]

        async def websocket_handshake(self, request: Any, subprotocols: Any = None) -> Any:
            """Choose our subprotocol if it is offered; a client that offers none, or others, is to be served too."""
            offered = auth.protocols(request.headers)
            chosen = [auth.SUBPROTOCOL] if auth.SUBPROTOCOL in offered else subprotocols
            return await super().websocket_handshake(request, chosen)

    return cast(type[asyncio.Protocol], Guarded)
