"""`/ws` of a daemon that has tokens: how a token gets there, and what becomes of who has none."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import websockets

from regstream import client, errors
from regstream.server.security import auth
from tests.server.conftest import TOKENS, Live, serving, write

BOUND = 60.0
READ = TOKENS["read"]
pytestmark = pytest.mark.asyncio(loop_scope="module")


@contextlib.asynccontextmanager
async def connected(live: Live, query: str = "", **options: Any) -> AsyncIterator[websockets.ClientConnection]:
    address = f"ws://127.0.0.1:{live.server.port}/ws{query}"
    async with websockets.connect(address, compression=None, **options) as socket:
        yield socket


async def heard(socket: websockets.ClientConnection) -> dict[str, Any]:
    return dict(json.loads(await asyncio.wait_for(socket.recv(), BOUND)))


async def closed(socket: websockets.ClientConnection) -> tuple[int, str]:
    """The code and the reason with which it is closed, before anything else was said."""
    with pytest.raises(websockets.ConnectionClosed) as caught:
        await heard(socket)
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


def bearer(token: str) -> dict[str, Any]:
    return {"additional_headers": {"authorization": f"Bearer {token}"}}


def offered(token: str, *more: str) -> dict[str, Any]:
    text = base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
    return {"subprotocols": [*more, "regstream", f"regstream.token.{text}"]}


@pytest.mark.parametrize("role", TOKENS)
async def test_a_token_in_a_header(guarded: Live, role: str) -> None:
    async with connected(guarded, **bearer(TOKENS[role])) as socket:
        welcome = await heard(socket)
        assert (welcome["event"], welcome["data"]["role"], socket.subprotocol) == ("welcome", role, None)


@pytest.mark.parametrize("more", [(), ("graphql-ws",)])
async def test_a_token_as_a_subprotocol(guarded: Live, more: tuple[str, ...]) -> None:
    async with connected(guarded, **offered(READ, *more)) as socket:
        assert (await heard(socket))["event"] == "welcome"
        assert socket.subprotocol == "regstream"


async def test_a_token_in_the_first_message_and_what_the_address_asked_for(guarded: Live) -> None:
    async with connected(guarded, "?channel=SYSTEM_METRICS") as socket:
        await socket.send(json.dumps({"action": "auth", "token": READ}))
        assert [(await heard(socket))["event"] for _ in range(2)] == ["welcome", "subscribed"]


async def test_nothing_is_said_before_the_token(guarded: Live) -> None:
    async with connected(guarded, "?channel=dashboard-updates") as socket:
        guarded.services.hub.announce("noise", {})
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(socket.recv(), 0.5)
        assert guarded.services.hub.subscribers == 0


@pytest.mark.parametrize(
    "options",
    [bearer("wrong"), bearer(READ + "x"), offered("wrong"), {"subprotocols": ["regstream", "regstream.token.*"]},
     {"subprotocols": ["regstream", "regstream.token.A"]}, {**bearer("wrong"), **offered(READ)}],
)  # fmt: skip
async def test_a_wrong_token_closes_with_4001(guarded: Live, options: dict[str, Any]) -> None:
    before = guarded.services.guard.refusals.counts["unauthorized"]
    async with connected(guarded, **options) as socket:
        assert await closed(socket) == (4001, "the token is not known")
    assert guarded.services.guard.refusals.counts["unauthorized"] == before + 1


@pytest.mark.parametrize(
    "message",
    [{"action": "ping"}, {"action": "subscribe", "channels": ["system"]}, {"action": "auth"}, {"action": "xx"}, {},
     {"action": "auth", "token": "wrong"}, {"action": "auth", "token": 7}, {"action": "auth", "token": "x" * 600}],
    ids=json.dumps,
)  # fmt: skip
async def test_anything_else_first_closes_with_4001(guarded: Live, message: dict[str, Any]) -> None:
    async with connected(guarded) as socket:
        await socket.send(json.dumps(message))
        assert (await closed(socket))[0] == 4001


async def test_what_is_no_message_closes_with_4009(guarded: Live) -> None:
    async with connected(guarded) as socket:
        await socket.send("{")
        assert (await closed(socket))[0] == 4009


async def test_who_says_nothing_is_not_waited_for(guarded: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "GRACE", 0.2)
    async with connected(guarded) as socket:
        assert await closed(socket) == (4001, "no token came")


async def test_a_token_in_the_address_is_not_looked_at(guarded: Live) -> None:
    async with connected(guarded, f"?token={READ}&access_token={READ}") as socket:
        await socket.send(json.dumps({"action": "ping"}))
        assert (await closed(socket))[0] == 4001


async def test_who_is_known_may_say_so_again(guarded: Live) -> None:
    async with connected(guarded, **bearer(READ)) as socket:
        assert (await heard(socket))["data"]["role"] == "read"
        await socket.send(json.dumps({"action": "auth", "token": TOKENS["admin"]}))
        assert (await heard(socket))["data"]["role"] == "admin"


async def test_without_tokens_any_is_taken(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("open")
    write(folder)
    async with serving(folder) as live:
        for options in (bearer("any"), offered("any"), {"subprotocols": ["graphql-ws"]}, {}):
            async with connected(live, **options) as socket:
                assert (await heard(socket))["data"]["role"] == "admin"
                await socket.send(json.dumps({"action": "auth", "token": "any"}))
                assert (await heard(socket))["event"] == "welcome"


async def test_our_client_sends_it(guarded: Live) -> None:
    async with client.subscribe(guarded.url, ["TRANSACTION_STREAM"], token=READ) as events:
        assert (await asyncio.wait_for(anext(events), BOUND))["subject"] == "TRANSACTION_STREAM"
    for token in (None, "wrong"):
        with pytest.raises(errors.StartError, match="unauthorized"):
            async with client.subscribe(guarded.url, ["TRANSACTION_STREAM"], token=token):
                pass


async def test_server_sent_events_take_it_in_a_header(guarded: Live) -> None:
    path = "/api/streaming/stream?channel=TRANSACTION_STREAM"
    assert (await guarded.client.get(path)).status_code == 401
    headers = {"authorization": f"Bearer {READ}"}
    async with (
        httpx.AsyncClient(base_url=guarded.url, timeout=BOUND) as http,
        http.stream("GET", path, headers=headers) as answer,
    ):
        lines = answer.aiter_lines()
        assert answer.status_code == 200
        async for line in lines:
            if line.startswith("event: transaction-update"):
                break
