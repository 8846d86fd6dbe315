"""``/socket.io/``: Socket.IO for the JavaScript client of dashboards, beside ``/ws`` and with the same positions."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import sanic
from sanic import exceptions
from sanic.request import Request
from sanic.response import HTTPResponse

from regstream.server import problems
from regstream.server.security import admission, origins
from regstream.server.transports import websocket, writer
from regstream.server.transports.socketio import adapter, packets, polling
from regstream.server.transports.socketio.session import Session
from regstream.server.transports.writer import TransportContext

PATH = "/socket.io"


def attach(app: sanic.Sanic[Any, Any], context: TransportContext) -> Sessions:
    """Serve the hub on ``/socket.io/`` of ``app``; call before the server is made."""
    sessions = Sessions(context)
    app.config.WEBSOCKET_MAX_SIZE = websocket.MAX_MESSAGE
    app.enable_websocket()

    async def serve(request: Request[Any, Any]) -> HTTPResponse | None:
        return await sessions.serve(request)

    # With that, no answer is missed when what was asked for was a WebSocket
    serve.is_websocket = True  # type: ignore[attr-defined]
    app.add_route(serve, PATH, {"GET", "POST", "OPTIONS"}, name="socketio", error_format="json")
    return sessions


class Sessions:
    """All clients on Socket.IO."""

    def __init__(self, context: TransportContext) -> None:
        self.hub, self.history, self.keeper = context.hub, context.history, context.guard
        self.subscriber_limits, self.outlets = context.subscriber_limits, context.outlets
        self._origins = tuple(context.origins)
        self.tasks = admission.Tasks()
        self._clients: dict[str, Session] = {}
        self._gate = admission.Admission(self._clients, context.max_connections)
        self.join = writer.EncodedCache(packets.frames)
        self._library = adapter.make(self)

    @property
    def connections(self) -> int:
        """How many sessions there are, those that are being closed included."""
        return len(self._clients)

    def begin(self, work: Coroutine[Any, Any, Any], name: str = "sio") -> asyncio.Task[Any]:
        """Run ``work`` beside everything else, until the end at most; a fault there is logged and harms no other."""
        return self.tasks.begin(work, name)

    async def serve(self, request: Request[Any, Any]) -> HTTPResponse | None:
        """One request: a handshake, a poll, packets of a client that polls, or a whole WebSocket."""
        origin = request.headers.get("origin")
        if origin is not None and not origins.trusted(origin, request.headers.get("host", ""), self._origins):
            raise problems.ForeignOrigin(origin[:200])
        if request.method == "OPTIONS":
            return HTTPResponse(status=204, headers={"allow": "GET, OPTIONS, POST"})
        if "j" in request.args:
            raise exceptions.BadRequest("there is no JSONP here")
        sid = request.args.get("sid")
        if sid is None:
            self._gate.check()
        client = self._clients.get(sid)
        if client is not None and request.headers.get("upgrade", "").lower() == "websocket":
            return await self._upgrade(client, request)
        if client is not None and request.method == "POST" and not polling.is_payload(request.body):
            client.abort()
            raise exceptions.BadRequest("the body holds no packets")
        return await self._answer(request)

    async def _upgrade(self, client: Session, request: Request[Any, Any]) -> HTTPResponse | None:
        if client.upgrading:
            raise exceptions.BadRequest("there is an upgrade already")
        client.upgrading = True
        try:
            return await self._answer(request)
        finally:
            client.upgrading = False

    async def _answer(self, request: Request[Any, Any]) -> HTTPResponse | None:
        sessions, sid = self._library.eio.sockets, request.args.get("sid")
        if sid in sessions and sessions[sid].closed:
            # The library would fail at a POST to it
            del sessions[sid]
        answer: HTTPResponse | None = await self._library.eio.handle_request(request)
        return answer

    def welcome(self, session: Any, token: str | None, address: str) -> None:
        """A session begins, from ``address``, whose handshake carried ``token``."""
        client = self._clients[session.sid] = Session(self, session, token, address)
        client.expect()

    def opened(self, session: Any, wire: polling.WebSocketTransport) -> None:
        """The session is on a WebSocket from now on."""
        client = self._clients.get(session.sid)
        if client is None:
            wire.abort()
        else:
            client.on_wire(wire)

    def client(self, sid: str) -> Session | None:
        """Whoever has this session, as long as it is one."""
        return self._clients.get(sid)

    def forget(self, sid: str) -> None:
        """The session is over."""
        # In a moment, because the library is in the middle of it; by itself it would keep it for 20 s
        asyncio.get_running_loop().call_soon(self._library.eio.sockets.pop, sid, None)
        client = self._clients.pop(sid, None)
        if client is not None:
            client.dispose()

    async def close_all(self, within: float) -> None:
        """Write out what is queued, end every session, refuse new ones.

        Clients see their transport close, and come back by themselves. It takes ``within`` seconds at most, and a
        moment to cut off those that did not answer in time.
        """
        self._gate.shut()
        end = asyncio.get_running_loop().time() + within
        await admission.until(lambda: not any(one.pending for one in self._clients.values()), end - within / 2)
        for client in tuple(self._clients.values()):
            client.close(websocket.GOING_AWAY, "going away")
        await admission.until(lambda: not self._clients, end)
        for client in tuple(self._clients.values()):
            client.abort()
        await admission.until(lambda: not self._clients, end + 0.5)
        self.tasks.cancel()
        await admission.until(lambda: not self.tasks, end + 1)
