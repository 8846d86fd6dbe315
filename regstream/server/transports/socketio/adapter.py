"""``python-socketio``, with what is ours in place of its own: queues, tasks, the way to Sanic, and what is done."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import engineio
import socketio
from engineio import payload
from socketio import packet

from regstream.server import decoding, problems
from regstream.server.security import auth
from regstream.server.transports import websocket
from regstream.server.transports.socketio import polling

if TYPE_CHECKING:
    from regstream.server.transports.socketio import Sessions

NORMAL = 1000
PING_INTERVAL, PING_TIMEOUT = 25, 20

log = logging.getLogger("regstream.server.sio")


def make(sessions: Sessions) -> Any:
    """The server of ``python-socketio``, with what is ours in place of its own."""
    loggers = [logging.getLogger(f"regstream.sio.{name}") for name in ("engineio", "socketio")]
    for one in loggers:
        one.setLevel(logging.ERROR)
        one.addFilter(_is_fault)
    payload.Payload.max_decode_packets = polling.MAX_PACKETS
    library = _Server(
        sessions,
        async_mode="sanic",
        json=polling.Json,
        engineio_logger=loggers[0],
        logger=loggers[1],
        cors_allowed_origins=[],
        http_compression=False,
        max_http_buffer_size=websocket.MAX_MESSAGE,
        ping_interval=PING_INTERVAL,
        ping_timeout=PING_TIMEOUT,
    )
    library.eio.begin = sessions.begin
    library.eio._async = polling.driver(sessions.opened)
    return library


def _is_fault(record: logging.LogRecord) -> bool:
    """False for what a client did wrong, which is an error to the library and none of ours."""
    return record.exc_info is not None


class _Engine(engineio.AsyncServer):  # type: ignore[misc] # the library has no types
    """Engine.IO with queues and tasks of ours."""

    begin: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]

    def create_queue(self, *_: Any, **__: Any) -> polling.PollingQueue:
        return polling.PollingQueue()

    def start_background_task(self, target: Any, *args: Any, **named: Any) -> asyncio.Task[Any]:
        task = self.begin(target(*args, **named))
        # The library's own would wait for a ping long after the session is over
        if isinstance(queue := getattr(target.__self__, "queue", None), polling.PollingQueue):
            queue.ping = task
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
        request = environ["sanic.request"]
        token = auth.bearer(request.headers)
        self._sessions.welcome(self.eio.sockets[eio_sid], token, auth.address(request))

    async def _handle_eio_message(self, eio_sid: str, data: Any) -> None:
        client = self._sessions.client(eio_sid)
        if client is None or not client.is_open:
            return
        kind = data[:1] if isinstance(data, str) else ""
        if kind == "1":
            # There is one namespace only: who leaves it wants nothing more
            client.close(NORMAL, "")
        elif kind not in ("0", "2") or not await self._understands(eio_sid, data):
            client.close(websocket.BAD_MESSAGE, "not a packet")

    async def _understands(self, eio_sid: str, data: str) -> bool:
        try:
            await super()._handle_eio_message(eio_sid, data)
        except (ValueError, TypeError, LookupError, AttributeError):
            # What it makes of a packet that is none
            log.debug("a packet could not be read", exc_info=True)
            return False
        return True

    async def _handle_connect(self, eio_sid: str, namespace: str | None, data: Any) -> None:
        client = self._sessions.client(eio_sid)
        try:
            if client is not None:
                client.admit(data)
        except problems.Unauthorized as error:
            refusal = {"message": str(error), "data": {"code": "unauthorized"}}
            await self._send_packet(
                eio_sid, self.packet_class(packet.CONNECT_ERROR, data=refusal, namespace=namespace or "/")
            )
        else:
            await super()._handle_connect(eio_sid, namespace, data)

    async def _handle_event(self, eio_sid: str, namespace: str | None, id: int | None, data: Any) -> None:
        is_deep = isinstance(data, decoding.TooDeep)
        if not is_deep and (not isinstance(data, list) or not data or not isinstance(data[0], str)):
            raise ValueError("an event has a name")
        sid = self.manager.sid_from_eio_sid(eio_sid, namespace or "/")
        client = self._sessions.client(eio_sid)
        if client is None or not self.manager.is_connected(sid, namespace or "/"):
            return
        try:
            client.hear(id, data if isinstance(data, list) else [data])
        except Exception:
            log.exception("a message of a client could not be handled")
            client.close(websocket.INTERNAL_ERROR, "internal error")

    async def _handle_eio_disconnect(self, eio_sid: str, reason: str) -> None:
        await super()._handle_eio_disconnect(eio_sid, reason)
        self._sessions.forget(eio_sid)
