"""The life of the server: listen, be ready, drain, stop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from typing import Any

import httpx
import pytest

from regstream import errors
from regstream.server import app
from regstream.server.security import connections


def another(live: Any, host: str, port: int) -> app.Server:
    return app.Server(
        app.build(live.services), host, port, connections.ConnectionLimiter(10, None, live.services.guard.refusals)
    )


async def test_the_real_port_is_known_when_any_was_asked_for(live: Any) -> None:
    assert live.server.port > 0
    response = await live.client.get("/health/ready")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


async def test_a_port_in_use_is_named_with_its_cure(live: Any) -> None:
    server = another(live, "127.0.0.1", live.server.port)
    with pytest.raises(errors.StartError) as caught:
        await server.start()
    assert f"127.0.0.1:{live.server.port}" in str(caught.value)
    assert "--port" in str(caught.value)
    assert (await live.client.get("/health/ready")).status_code == 200


@pytest.mark.parametrize(
    ("host", "port", "cure"),
    [("203.0.113.1", 0, "--host"), ("no.such.host.invalid", 0, "--host"), ("127.0.0.1", 70_000, "65535")],
)
async def test_an_address_that_cannot_be_used_is_named(live: Any, host: str, port: int, cure: str) -> None:
    with pytest.raises(errors.StartError) as caught:
        await another(live, host, port).start()
    assert host in str(caught.value)
    assert cure in str(caught.value)


async def test_two_servers_in_one_process(live: Any) -> None:
    server = another(live, "localhost", 0)
    await server.start()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        assert (await client.get("/health/live")).status_code == 200
        await server.drain(5)
        await server.stop()
        with pytest.raises(httpx.TransportError):
            await client.get("/health/live")
    assert (await live.client.get("/health/live")).status_code == 200


async def test_nothing_accepts_before_the_application_is_ready(live: Any) -> None:
    server = another(live, "127.0.0.1", 0)
    starting = asyncio.create_task(server.start())
    answers = []
    async with httpx.AsyncClient() as client:
        while not starting.done():
            with contextlib.suppress(httpx.TransportError):
                answers.append((await client.get(f"http://127.0.0.1:{server.port or 1}/health/live")).status_code)
            await asyncio.sleep(0)
    await starting
    assert set(answers) <= {200}
    await server.drain(5)
    await server.stop()


async def test_idle_connections_do_not_hold_up_the_drain(live: Any) -> None:
    connections = [await asyncio.open_connection("127.0.0.1", live.server.port) for _ in range(5)]
    await live.client.get("/health")
    begun = time.monotonic()
    await live.server.drain(30)
    assert time.monotonic() - begun < 15
    for reader, writer in connections:
        async with asyncio.timeout(15):
            assert await reader.read() == b""
        writer.close()


async def test_a_request_under_way_is_finished(live: Any) -> None:
    before = live.services.engine.stream("SYSTEM_METRICS").seq
    body = {"streamType": "SYSTEM_METRICS", "count": 10_000}
    burst = asyncio.create_task(live.client.post("/api/streaming/burst", json=body, timeout=60))
    await live.until(lambda: live.services.engine.stream("SYSTEM_METRICS").seq > before or burst.done())
    await live.server.drain(30)
    assert (await burst).status_code == 200
    assert (await burst).json()["lastSeq"] == before + 10_000


async def test_a_request_that_does_not_end_is_cut_off_in_time(live: Any) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", live.server.port)
    writer.write(b"POST /api/streaming/stop HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{")
    await live.until(lambda: live.server.connections)
    await live.client.get("/health")
    begun = time.monotonic()
    await live.server.drain(0.5)
    assert time.monotonic() - begun < 15
    async with asyncio.timeout(15):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()


async def test_not_ready_while_draining_but_alive(live: Any) -> None:
    asked = {b"ready": b"HTTP/1.1 503", b"live": b"HTTP/1.1 200"}
    clients = [await asyncio.open_connection("127.0.0.1", live.server.port) for _ in asked]
    for path, (_, writer) in zip(asked, clients, strict=True):
        # The end of the head comes when it drains
        writer.write(b"GET /health/%b HTTP/1.1\r\nhost: x\r\n" % path)
    await live.client.get("/health")
    draining = asyncio.create_task(live.server.drain(30))
    await live.until(lambda: not live.server.ready)
    for answer, (reader, writer) in zip(asked.values(), clients, strict=True):
        writer.write(b"\r\n")
        async with asyncio.timeout(15):
            assert (await reader.readline()).startswith(answer)
    await draining
    for _, writer in clients:
        writer.close()


async def test_stop_is_allowed_without_start_and_twice(live: Any) -> None:
    server = another(live, "127.0.0.1", 0)
    await server.drain(1)
    await server.stop()
    await server.stop()


async def test_a_free_port_is_taken_again_at_once(live: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    for _ in range(3):
        server = another(live, "127.0.0.1", port)
        await server.start()
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{port}/health/live")).status_code == 200
            await server.drain(5)
            await server.stop()
