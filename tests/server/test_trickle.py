"""Requests that come a byte now and then end in time, wherever they dawdle; what is merely long is served."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import pathlib
from collections.abc import AsyncIterator, Iterable

import pytest
import websockets

from regstream.server.security import auth, connections
from tests.server.conftest import PAIRS, Live, serving, write

HEAD_SECONDS = BODY_SECONDS = 0.3
LIMITS = connections.ReceiveLimits(HEAD_SECONDS, BODY_SECONDS, body_rate=1000, body_bytes=2**20)
GET = b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n"
POST = b"POST /api/streaming/stop HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"
ENDLESS = itertools.repeat(b"x")


@pytest.fixture
async def daemon(tmp_path: pathlib.Path) -> AsyncIterator[Live]:
    write(tmp_path)
    entrance = auth.Authenticator()
    door = connections.ConnectionLimiter(100, None, entrance.refusals, LIMITS)
    async with serving(tmp_path, entrance=entrance, door=door) as live:
        yield live


def refused(live: Live) -> int:
    return live.services.guard.refusals.counts["slow"]


async def trickle(live: Live, first: bytes, rest: Iterable[bytes] = ENDLESS) -> tuple[bytes, float]:
    """What comes back until the end, when ``rest`` follows ``first`` bit by bit, and how long that took."""
    loop, answer = asyncio.get_running_loop(), bytearray()
    reader, writer = await asyncio.open_connection("127.0.0.1", live.server.port)
    begin = loop.time()

    async def read() -> None:
        # What is written after the end resets the connection
        with contextlib.suppress(ConnectionError):
            while more := await reader.read(4096):
                answer.extend(more)

    reading = asyncio.create_task(read())
    writer.write(first)
    async with asyncio.timeout(30):
        for one in rest:
            if one:
                writer.write(one)
            await asyncio.wait([reading], timeout=0.02)
            if reading.done():
                break
        await reading
    writer.transport.abort()
    return bytes(answer), loop.time() - begin


@pytest.mark.parametrize(
    ("first", "rest"),
    [
        (b"", ENDLESS),
        (b"GET / HTTP/1.1\r\n", itertools.cycle([b"a", b":", b"b", b"\r\n"])),
        (b"GET /ws HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\nx: ", ENDLESS),
        (POST + b"content-length: 100000\r\n\r\n", ENDLESS),
        (POST + b"upgrade: websocket\r\ncontent-length: 100000\r\n\r\n", ENDLESS),
        (CHUNKED, itertools.cycle([b"1", b"\r\n", b"x", b"\r\n"])),
        (CHUNKED, itertools.chain(b"1;", itertools.repeat(b""))),
        (CHUNKED + b"0\r\n", itertools.repeat(b"")),
        (b"GET /health/live HTTP/1.1\r\nhost: x\r\ncontent-length: 5000\r\n\r\n", ENDLESS),
        (b"POST /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nhost: x\r\ncontent-length: 9999\r\n\r\n", ENDLESS),
    ],
    ids=[
        "first-line",
        "header",
        "handshake",
        "body",
        "upgrade",
        "chunk",
        "chunk-head",
        "trailer",
        "needless",
        "engine.io",
    ],
)
async def test_a_request_that_trickles_is_ended_as_a_whole(daemon: Live, first: bytes, rest: Iterable[bytes]) -> None:
    given = (bytes([one]) if isinstance(one, int) else one for one in rest)
    answer, took = await trickle(daemon, first, given)
    assert answer.startswith(b"HTTP/1.1 408 ") and b"came too slowly" in answer
    assert took >= HEAD_SECONDS * 0.9
    assert refused(daemon) == 1
    assert b"connection: close" in answer


@pytest.mark.parametrize("kind", [b"content-length: 5000000\r\n\r\n", b"transfer-encoding: chunked\r\n\r\n200001\r\n"])
async def test_what_is_refused_already_earns_no_more_time(daemon: Live, kind: bytes) -> None:
    answer, _ = await trickle(daemon, POST + kind)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert refused(daemon) == 1


@pytest.mark.parametrize("before", [GET, GET + b"GET /"], ids=["kept-alive", "pipelined"])
async def test_every_request_of_a_connection_is_bounded(daemon: Live, before: bytes) -> None:
    answer, _ = await trickle(daemon, before)
    assert answer.startswith(b"HTTP/1.1 200 ") and b"HTTP/1.1 408 " in answer
    assert refused(daemon) == 1


async def test_a_connection_that_asks_nothing_is_closed_and_is_no_refusal(daemon: Live) -> None:
    answer, took = await trickle(daemon, b"", itertools.repeat(b""))
    assert answer == b"" and took >= HEAD_SECONDS * 0.9
    assert refused(daemon) == 0


async def test_between_two_requests_there_is_time(daemon: Live) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", daemon.server.port)
    for pause in (0, 2.5 * HEAD_SECONDS):
        await asyncio.sleep(pause)
        writer.write(GET)
        assert (await asyncio.wait_for(reader.readline(), 20)).startswith(b"HTTP/1.1 200 ")
        await asyncio.wait_for(reader.readuntil(b"}"), 20)
    writer.close()
    assert refused(daemon) == 0


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_keeps_the_rate_may_take_long(daemon: Live, chunked: bool) -> None:
    piece, count = b"9" * 4000, 15
    coded = b"fa0\r\n%b\r\n" % piece if chunked else piece
    head = CHUNKED if chunked else POST + b"content-length: %d\r\n\r\n" % (len(piece) * count)
    reader, writer = await asyncio.open_connection("127.0.0.1", daemon.server.port)
    writer.write(head)
    for _ in range(count):
        writer.write(coded)
        await asyncio.sleep(3 * BODY_SECONDS / count)
    writer.write(b"0\r\n\r\n" if chunked else b"")
    line = await asyncio.wait_for(reader.readline(), 20)
    # It has come whole, and is no JSON that the route takes
    assert line.startswith(b"HTTP/1.1 400 "), line
    writer.close()
    assert refused(daemon) == 0


async def test_a_crowd_that_trickles_holds_no_place(daemon: Live) -> None:
    firsts = [b"G", POST, CHUNKED, POST + b"content-length: 5\r\n\r\n{"] * 15
    answers = await asyncio.gather(*(trickle(daemon, one, itertools.repeat(b"")) for one in firsts))
    assert [answer[:12] for answer, _ in answers] == [b"HTTP/1.1 408"] * 60
    await daemon.until(lambda: daemon.server.connections <= 1)
    assert refused(daemon) == 60


@pytest.mark.parametrize("path", ["/ws", "/socket.io/?EIO=4&transport=websocket"])
async def test_who_never_says_who_they_are_is_ended_though_they_talk(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(auth, "GRACE", 0.3)
    write(tmp_path)
    entrance = auth.Authenticator(PAIRS)
    async with serving(tmp_path, entrance=entrance) as live:
        async with websockets.connect(f"{live.url.replace('http', 'ws')}{path}") as client:
            with contextlib.suppress(websockets.ConnectionClosed):
                async with asyncio.timeout(20):
                    while True:
                        await client.ping()
                        await asyncio.sleep(0.02)
            assert client.close_code == 4001
        assert entrance.refusals.counts["unauthorized"] == 1
