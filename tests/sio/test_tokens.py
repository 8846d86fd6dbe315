"""Socket.IO of a daemon that has tokens, with the real client: `auth`, a header, and who has neither."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from regstream import credentials
from regstream.server.security import auth
from tests.sio import world
from tests.sio.test_wire import HANDSHAKE, Poller, http

TOKEN = "t-0123456789abcdef"
WAYS = pytest.mark.parametrize("way", [world.POLLING, world.WEBSOCKET, world.UPGRADE], ids=["poll", "websocket", "up"])
GIVEN = [{"auth": {"token": TOKEN}}, {"extraHeaders": {"Authorization": f"Bearer {TOKEN}"}}]


@pytest.fixture
async def guarded() -> AsyncIterator[world.Server]:
    async with world.serving(guard=auth.Authenticator(credentials.parse(f"read:{TOKEN}"))) as one:
        yield one


@WAYS
@pytest.mark.parametrize("given", GIVEN, ids=["auth", "header"])
async def test_who_has_a_token_is_let_in(
    guarded: world.Server, client: world.Node, way: dict[str, Any], given: dict[str, Any]
) -> None:
    await client.open(guarded.port, {**way, **given})
    await client.ask("join-streaming", "ONE")
    guarded.show("ONE", 3)
    await client.until("event", 6)
    assert client.seqs() == [("ONE", "E1", 1), ("ONE", "E1", 2), ("ONE", "E1", 3)]


@WAYS
@pytest.mark.parametrize(
    "given",
    [{}, {"auth": {}}, {"auth": {"token": 7}}, {"auth": {"token": "wrong"}},
     {"auth": {"token": TOKEN}, "extraHeaders": {"Authorization": "Bearer wrong"}}],
    ids=json.dumps,
)  # fmt: skip
async def test_who_has_none_is_told(
    guarded: world.Server, request: pytest.FixtureRequest, way: dict[str, Any], given: dict[str, Any]
) -> None:
    async with world.node(request.node.nodeid) as client:
        client.do("open", url=f"http://127.0.0.1:{guarded.port}", options={**way, **given})
        said = (await client.until("connect_error"))["message"]
        assert "token" in said
        client.tell("join-streaming", "ONE")
        guarded.show("ONE")
        await asyncio.sleep(0.3)
        assert client.all("connect") == client.all("event") == []
        assert guarded.hub.subscribers == 0
        assert guarded.sessions.keeper.refusals.counts["unauthorized"] >= 1


async def test_who_is_not_let_in_does_not_stay(guarded: world.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "GRACE", 0.3)
    async with http(guarded) as client:
        session = Poller(client, json.loads((await client.get(HANDSHAKE)).text[1:])["sid"])
        assert await session.post('40{"token": "wrong"}') == 200
        assert (await session.poll())[-1].startswith("44")
        await world.until(lambda: guarded.sessions.connections == 0)
