"""The application, and the life of its server under our own loop.

Sanic's ``create_server`` binds and accepts before the application is ready, and its own shutdown closes WebSockets with
the wrong code; ``Server`` puts the steps into the right order.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import sanic
from sanic.application.state import ApplicationServerInfo
from sanic.http import Http
from sanic.http.constants import HTTP

from regstream import errors, logs
from regstream.server import assets, problems, router, routes
from regstream.server.security import connections, origins
from regstream.server.services import Services

__all__ = ["Server", "Services", "build"]

BODY_LIMIT = 2**20
# Its clients ask with the slash unless they are told not to
SOCKET_IO = "/socket.io/"
_CLOSE_STEP = 0.02
_numbers = itertools.count(1)
_CURES = {
    errno.EADDRINUSE: "the port is in use; stop what listens there or choose another with --port",
    errno.EADDRNOTAVAIL: "the address is not one of this machine; choose another with --host",
    errno.EACCES: "ports below 1024 need a privilege; choose another with --port",
}


def build(services: Services) -> sanic.Sanic[Any, Any]:
    """The application with all routes; it connects nothing and listens nowhere."""
    _quiet()
    app: sanic.Sanic[Any, Any] = sanic.Sanic(
        f"regstream-{next(_numbers)}",
        configure_logging=False,
        env_prefix=None,
        strict_slashes=True,
        error_handler=problems.Handler(),
        request_class=router.Request,
        router=router.Router(routes.TABLE, slashed=(SOCKET_IO,)),
    )
    app.config.update(
        AUTO_EXTEND=False,
        MOTD=False,
        ACCESS_LOG=False,
        REQUEST_MAX_SIZE=BODY_LIMIT,
        REQUEST_TIMEOUT=15,
        RESPONSE_TIMEOUT=60,
        KEEP_ALIVE_TIMEOUT=75,
        PROXIES_COUNT=services.settings.proxies,
    )
    app.ctx.ready = False
    app.ctx.refusals = services.guard.refusals
    # By name, whatever leads to readers and knows how many there are
    app.ctx.ways = {"sse": services.readers}
    router.mount(app, services, routes.TABLE)
    assets.attach(app)
    origins.attach(app, services.settings.cors_origins)
    return app


def _quiet() -> None:
    for name in ("sanic.root", "sanic.server", "sanic.access", "sanic.error", "sanic.websockets"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("sanic.error").addFilter(_is_fault)
    # It tells of each connection that it has no descriptor left for, a hundred a second
    logs.limit_rate("asyncio")


def _is_fault(record: logging.LogRecord) -> bool:
    """False for what Sanic trips over when a connection is cut within the head of a request."""
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, AttributeError) and isinstance(error.__context__, asyncio.CancelledError))


class Server:
    """One listening socket of one application; used once: ``start``, then ``refuse``, ``drain`` and ``stop``.

    ``closing`` says goodbye to the WebSockets, in a bounded time. ``door`` bounds connections.
    """

    def __init__(
        self,
        app: sanic.Sanic[Any, Any],
        host: str,
        port: int,
        door: connections.ConnectionLimiter,
        closing: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._app = app
        self._door = door
        self._host = host
        self._asked = port
        self._closing = closing
        self._server: Any = None
        self._socket: socket.socket | None = None

    @property
    def port(self) -> int:
        """The port it listens on, the real one where 0 was asked for."""
        return int(self._socket.getsockname()[1]) if self._socket else self._asked

    @property
    def ready(self) -> bool:
        """What ``/health/ready`` says."""
        return bool(self._app.ctx.ready)

    @property
    def connections(self) -> int:
        """How many clients are connected, by whatever protocol."""
        return len(self._server.connections) if self._server else 0

    async def start(self) -> None:
        """Listen, and take requests; returns when ``/health/ready`` answers 200. Raises ``StartError``."""
        where = f"{self._host}:{self._asked}"
        try:
            self._socket = await _bind(self._host, self._asked)
            await self._serve()
        except (OSError, OverflowError) as error:
            await self.stop()
            raise errors.StartError(f"cannot listen on {where}", _cure(error)) from error
        self._app.ctx.ready = True

    async def _serve(self) -> None:
        # Sanic rewrites its own classes at the first start in a process, and would fail to do so again.
        self._app.config.TOUCHUP = not getattr(Http, "__touched__", False)
        self._app.state.server_info.append(ApplicationServerInfo({"version": HTTP.VERSION_1, "port": self.port}))
        self._server = await self._app.create_server(
            sock=self._socket,
            backlog=1024,
            protocol=connections.behind(self._door),
            asyncio_server_kwargs={"start_serving": False},
        )
        # Accepting must not begin before the application is ready: an early request would fail.
        await self._server.startup()
        await self._server.before_start()
        await self._server.start_serving()
        await self._server.after_start()
        self._app.set_serving(True)

    def refuse(self) -> None:
        """Be no longer ready, and take no new connection; those that there are go on."""
        self._app.ctx.ready = False
        if self._server is not None and self._server.server is not None:
            self._server.server.close()

    async def drain(self, grace: float = 5.0) -> None:
        """Refuse, say 1001 to WebSockets, and let requests under way finish, for about ``grace`` seconds in all.

        Whatever is still connected then is cut off.
        """
        self.refuse()
        if self._server is None or not self._app.state.is_started:
            return
        deadline = asyncio.get_running_loop().time() + grace
        if self._closing is not None:
            # First, because Sanic ends WebSockets in its own stop, with another code.
            await self._closing()
        await self._server.before_stop()
        await self._finish(deadline)

    async def _finish(self, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        connections: set[Any] = self._server.connections
        for one in tuple(connections):
            one.close_if_idle()
        while connections and loop.time() < deadline:
            await asyncio.sleep(_CLOSE_STEP)
            # A WebSocket would begin to close once more each time.
            for one in [one for one in connections if one.websocket is None]:
                one.close_if_idle()
        for one in tuple(connections):
            one.abort()

    async def stop(self) -> None:
        """End what ``drain`` left, and forget the application; also after a ``start`` that failed."""
        server, self._server = self._server, None
        if server is not None and self._app.state.is_started:
            for one in tuple(server.connections):
                one.abort()
            await server.after_stop()
            self._app.set_serving(False)
        if self._socket is not None:
            self._socket.close()
        sanic.Sanic.unregister_app(self._app)


async def _bind(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65_535:
        raise OverflowError
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = min(found, key=lambda one: one[0])
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def _cure(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return "the host name cannot be resolved; choose another with --host"
    if isinstance(error, OverflowError):
        return "a port is a number from 0 to 65535"
    code = error.errno if isinstance(error, OSError) else None
    return _CURES.get(code or 0, str(error))
