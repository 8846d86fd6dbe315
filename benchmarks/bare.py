"""The least that can answer: two routes of the same library, under our own loop: ``python -m benchmarks.bare PORT``.

``/health/ready`` answers, ``/ws`` sends a text of about SIZE bytes every millisecond, with the time of its emission.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import sanic


async def serve(port: int, size: int) -> None:
    """Serve until killed."""
    app = sanic.Sanic("bare", configure_logging=False)
    app.config.update(AUTO_EXTEND=False, MOTD=False, ACCESS_LOG=False)
    app.ctx.padding = "." * size
    app.add_route(_answer, "/health/ready")
    app.add_websocket_route(_send, "/ws")
    server = await app.create_server("127.0.0.1", port, asyncio_server_kwargs={"start_serving": False})
    await server.startup()
    await server.before_start()
    await server.start_serving()
    await asyncio.Event().wait()


async def _answer(_: sanic.Request) -> sanic.HTTPResponse:
    return sanic.text("ready")


async def _send(request: sanic.Request, ws: sanic.Websocket) -> None:
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        due += 0.001
        await asyncio.sleep(due - loop.time())
        data = {"seq": 1, "data": {"made": time.time()}, "padding": request.app.ctx.padding}
        await ws.send(json.dumps({"data": data}))


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
