"""Sanic's protocol with a door: how many connections there may be, and what a WebSocket is said to speak."""

from __future__ import annotations

import asyncio
import collections
from typing import Any, cast

import orjson
from sanic.server.protocols.websocket_protocol import WebSocketProtocol

from regstream.server import guard
from regstream.server.refusals import Refusals

RETRY_SECONDS = 5
_FULL = orjson.dumps(
    {"type": "/docs#problem-crowded", "title": "Too many connections", "status": 503, "detail": "too many connections"}
)
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\ncontent-length: %d\r\n"
    b"retry-after: %d\r\nconnection: close\r\n\r\n%b"
) % (len(_FULL), RETRY_SECONDS, _FULL)


class Door:
    """Lets connections in until there are ``most``, or ``per_address`` from one address (None: no such bound)."""

    def __init__(self, most: int, per_address: int | None, refusals: Refusals) -> None:
        self._most, self._per_address, self._refusals = most, per_address, refusals
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

    def leave(self, address: str) -> None:
        """One that was let in is gone."""
        self._total -= 1
        self._inside[address] -= 1
        if not self._inside[address]:
            del self._inside[address]


def behind(door: Door) -> type[asyncio.Protocol]:
    """The protocol of a server whose connections come through ``door``."""

    class Guarded(WebSocketProtocol):
        """One connection."""

        __slots__ = ("_address", "_let_in")

        def connection_made(self, transport: Any) -> None:
            """Answer who is not let in before they have asked, and hear nothing of them."""
            peer = transport.get_extra_info("peername")
            self._address = str(peer[0]) if isinstance(peer, tuple) else ""
            self._let_in = door.enter(self._address)
            if self._let_in:
                super().connection_made(transport)  # type: ignore[no-untyped-call]
            else:
                transport.write(_REFUSAL)
                transport.close()

        def data_received(self, data: bytes) -> None:
            if self._let_in:
                super().data_received(data)  # type: ignore[no-untyped-call]

        def eof_received(self) -> bool | None:
            return super().eof_received() if self._let_in else False

        def connection_lost(self, exc: Exception | None) -> None:
            if self._let_in:
                door.leave(self._address)
                super().connection_lost(exc)  # type: ignore[no-untyped-call]

        async def websocket_handshake(self, request: Any, subprotocols: Any = None) -> Any:
            """Choose our subprotocol if it is offered; a client that offers none, or others, is to be served too."""
            offered = guard.protocols(request.headers)
            chosen = [guard.SUBPROTOCOL] if guard.SUBPROTOCOL in offered else subprotocols
            return await super().websocket_handshake(request, chosen)

    return cast(type[asyncio.Protocol], Guarded)
