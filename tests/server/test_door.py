"""How many connections are let in, in all and from one address; who is not is told, and takes nobody's place."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import resource
from collections.abc import AsyncIterator

import httpx
import pytest

from regstream.server import process
from regstream.server.security import auth, connections
from tests.server.conftest import Live, serving, write

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]
REQUEST = b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n"


@contextlib.asynccontextmanager
async def bounded(
    folder: pathlib.Path, most: int, per_address: int | None
) -> AsyncIterator[tuple[Live, auth.Authenticator]]:
    write(folder)
    entrance = auth.Authenticator()
    door = connections.ConnectionLimiter(most, per_address, entrance.refusals)
    async with serving(folder, entrance=entrance, door=door) as live:
        yield live, entrance


async def connect(live: Live, source: str = "127.0.0.1") -> Pair:
    return await asyncio.open_connection("127.0.0.1", live.server.port, local_addr=(source, 0))


async def is_served(pair: Pair) -> bool:
    """Whether a connection is answered with 200; the other answer is 503, and the end."""
    reader, writer = pair
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionError):
            writer.write(REQUEST)
            await writer.drain()
        line = await reader.readline()
    assert line.split()[1] in (b"200", b"503"), line
    return line.split()[1] == b"200"


async def test_there_are_only_so_many_in_all(tmp_path: pathlib.Path) -> None:
    async with bounded(tmp_path, 3, None) as (live, entrance):
        pairs = [await connect(live) for _ in range(3)]
        assert [await is_served(one) for one in pairs] == [True] * 3
        assert not await is_served(await connect(live))
        assert entrance.refusals.counts["connections"] == 1
        pairs[0][1].close()
        await live.until(lambda: live.server.connections == 2)
        assert await is_served(await connect(live))


async def test_there_are_only_so_many_from_one_address(tmp_path: pathlib.Path) -> None:
    async with bounded(tmp_path, 100, 2) as (live, entrance):
        pairs = [await connect(live, source) for source in ("127.0.0.1",) * 3 + ("127.0.0.2",) * 3]
        served = [await is_served(one) for one in pairs]
        assert served == [True, True, False] * 2
        assert entrance.refusals.counts["connections"] == 2


async def test_who_is_not_let_in_is_told_when_to_come_back(tmp_path: pathlib.Path) -> None:
    async with bounded(tmp_path, 1, None) as (live, _):
        first = await connect(live)
        assert await is_served(first)
        reader, _ = await connect(live)
        head, body = (await asyncio.wait_for(reader.read(), 20)).split(b"\r\n\r\n")
        answer = httpx.Response(503, content=body)
        assert b"503 Service Unavailable" in head and b"retry-after: 5" in head and b"problem+json" in head
        assert answer.json()["detail"] == "too many connections"


async def test_a_crowd_that_comes_and_goes_leaves_no_place_taken(tmp_path: pathlib.Path) -> None:
    async with bounded(tmp_path, 20, 15) as (live, entrance):
        for _ in range(10):
            pairs = [await connect(live) for _ in range(40)]
            served = sum([await is_served(one) for one in pairs])
            assert served <= 15
            for _, writer in pairs:
                writer.transport.abort()
            await live.until(lambda: live.server.connections == 0)
        assert entrance.refusals.counts["connections"] >= 10 * 25
        assert await is_served(await connect(live))


def test_connections_are_bounded_by_the_files_that_the_system_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
        assert process.connections(300) == 300
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 512
        assert process.connections(700) == 700
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 900
        # As under a supervisor that forbids it
        monkeypatch.setattr(resource, "setrlimit", refused)
        assert process.connections(5000) == 700
    finally:
        monkeypatch.undo()
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
