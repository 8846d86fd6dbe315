"""What is wrong below the level of routes: malformed requests, sizes, methods."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from regstream.server import router, routes
from regstream.server.transports import sse
from tests.server.test_routes import is_problem

MALFORMED: list[tuple[bytes, int]] = [
    (b"garbage\r\n\r\n", 400),
    (b"\0" * 100 + b"\r\n\r\n", 400),
    (b"GET /health HTTP/9.9\r\n\r\n", 400),
    (b"GET /health HTTP/1.1\r\nno colon\r\n\r\n", 400),
    (b"GET /\xc3\xa9 HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    (b"CONNECT x:80 HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    (b"G\xffT /health HTTP/1.1\r\nhost: x\r\n\r\n", 405),
    (b"get /health HTTP/1.1\r\nhost: x\r\n\r\n", 405),
    (b"GET // HTTP/1.1\r\nhost: x\r\n\r\n", 404),
    (b"GET //health HTTP/1.1\r\nhost: x\r\n\r\n", 404),
    (b"GET /%00%ff HTTP/1.1\r\nhost: x\r\n\r\n", 404),
    (b"GET /health?%ff=%zz HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    (b"GET /api/streaming/streams/%zz HTTP/1.1\r\nhost: x\r\n\r\n", 404),
    (b"POST /api/streaming/streams//pause HTTP/1.1\r\nhost: x\r\n\r\n", 404),
    (b"GET /health HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 20_000 + b"\r\n\r\n", 413),
    (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 413),
    (b"GET /health HTTP/1.1\r\nhost: x\r\ncontent-length: abc\r\n\r\n", 400),
    (b"POST /api/streaming/stop HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", 400),
    (b"POST /api/streaming/stop HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400),
]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("request_bytes", "status"), MALFORMED)
async def test_malformed(shared: Any, caplog: pytest.LogCaptureFixture, request_bytes: bytes, status: int) -> None:
    head, body = await _send(shared, request_bytes)
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"content-type: application/problem+json" in head
    assert b'"status":%d' % status in body
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert (await shared.client.get("/health")).status_code == 200


async def _send(live: Any, data: bytes) -> tuple[bytes, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", live.server.port)
    try:
        async with asyncio.timeout(15):
            writer.write(data)
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
            return head, await reader.readexactly(int(length.partition(b":")[2]))
    finally:
        writer.close()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("method", "path", "status"), [("POST", "burst", 413), ("POST", "nope", 404), ("GET", "burst", 405)]
)
async def test_a_body_of_10_megabytes_is_answered(shared: Any, method: str, path: str, status: int) -> None:
    headers = {"content-type": "application/json"}
    content = b'{"streamType":"' + b"a" * 10_000_000 + b'"}'
    response = await shared.client.request(method, f"/api/streaming/{path}", content=content, headers=headers)
    is_problem(response, status)
    assert response.headers["connection"] == "close"
    assert (await shared.client.get("/health")).status_code == 200


async def test_a_chunked_body_without_end_is_cut_off(live: Any) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", live.server.port)
    head = (
        "POST /api/streaming/burst HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked"
    )
    chunk = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"
    writer.write(head.encode() + b"\r\n\r\n" + chunk * 40)
    async with asyncio.timeout(15):
        assert (await reader.readline()).startswith(b"HTTP/1.1 413")
    with pytest.raises(ConnectionError):
        async with asyncio.timeout(30):
            while True:
                writer.write(chunk)
                await writer.drain()
    writer.close()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("path", sorted({route.path for route in routes.TABLE}))
async def test_options_and_a_wrong_method_name_the_right_ones(shared: Any, path: str) -> None:
    allow = router.allowed(route for route in routes.TABLE if route.path == path)
    concrete = path.replace("{name}", "SYSTEM_METRICS").replace("{runId}", "x")
    options = await shared.client.options(concrete)
    assert (options.status_code, options.headers["allow"], options.content) == (204, allow, b"")
    refused = await shared.client.request("PUT", concrete)
    assert is_problem(refused, 405)
    assert refused.headers["allow"] == allow


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "path",
    # That of the stream of events does not end, see test_sse
    [one.path for one in routes.TABLE if one.method == "GET" and "{" not in one.path and one.media != sse.MEDIA],
)
async def test_head_is_get_without_content(shared: Any, path: str) -> None:
    got, head = await shared.client.get(path), await shared.client.head(path)
    # Some need a database or a parameter
    assert (head.status_code, head.content) == (got.status_code, b"") and head.status_code < 500
    assert head.headers["content-type"] == got.headers["content-type"]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_connection_is_kept_after_an_error(shared: Any) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", shared.server.port)
    async with asyncio.timeout(15):
        for path, status in ((b"/nope", b"404"), (b"/health/live", b"200")):
            writer.write(b"GET " + path + b" HTTP/1.1\r\nhost: x\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 " + status)
            length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length"))
            await reader.readexactly(int(length.partition(b":")[2]))
    writer.close()
