"""Who may do what, over real HTTP: each role against each route, the pace of control calls, and what is told of it."""

from __future__ import annotations

import asyncio
import logging
import pathlib
import re
from typing import Any

import httpx
import pytest

from regstream import credentials, settings
from regstream.server import routes
from regstream.server.router import Route
from regstream.server.security import admission, auth
from tests.server.conftest import PAIRS, TOKENS, Live, serving, write
from tests.support import ROOT

BEARERS = (None, "wrong", *TOKENS)
# What each operation is for; written down once more, because this is what must not change unseen
ROLES = {
    "live": None, "ready": None, "openapi": None, "docs": None, "dashboard": None,
    "health": "read", "status": "read", "runs": "read", "run": "read", "scenarios": "read", "streams": "read",
    "stream": "read", "events": "read", "analytics": "read", "replays": "read", "replay_run": "read", "follow": "read",
    "metrics": "read", "asyncapi": "read",
    "start": "control", "stop": "control", "burst": "control", "simulate": "control", "cancel": "control",
    "patch": "control", "pause": "control", "resume": "control", "replay_events": "control",
    "cancel_replay": "control", "pause_replay": "control", "resume_replay": "control",
    "reload": "admin", "config": "admin", "audit": "admin",
}  # fmt: skip


def headers(bearer: str | None) -> dict[str, str]:
    return {} if bearer is None else {"authorization": f"Bearer {TOKENS.get(bearer, bearer)}"}


async def ask(live: Live, route: Route, bearer: str | None) -> httpx.Response:
    """An answer to ``route``, or its head; nothing is changed, since no call here has what it would need to succeed."""
    path = re.sub(r"{\w+}", "NOTHING", route.path)
    body = b'{"unknown": 1}' if route.method in ("POST", "PATCH") else None
    kind = {"content-type": "application/json"} if body else {}
    # `follow` would never end
    query = "?channel=NOTHING" if route.name == "follow" else ""
    given: dict[str, Any] = {"content": body, "headers": {**headers(bearer), **kind}}
    return await live.client.request(route.method, path + query, **given)


def test_the_table_of_the_tests_is_that_of_the_daemon() -> None:
    assert {route.name: route.needs for route in routes.TABLE} == ROLES


def test_the_table_of_the_documentation_is_that_of_the_daemon() -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    written = {}
    for line in text.splitlines():
        cells = [one.strip() for one in line.strip("|").split("|")]
        if len(cells) == 5 and re.match(r"`(GET|POST|PATCH|DELETE) /", cells[0]):
            written[cells[0].strip("`")] = tuple(cells[1:])
    expected = {
        f"{route.method} {route.path}": tuple("yes" if may(route, bearer) else "no" for bearer in (None, *TOKENS))
        for route in routes.TABLE
    }
    assert written == expected


def may(route: Route, bearer: str | None) -> bool:
    role: credentials.Role | None = next((one for one in credentials.ROLES if one == bearer), None)
    return route.needs is None or (role is not None and credentials.may(role, route.needs))


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("bearer", BEARERS, ids=str)
@pytest.mark.parametrize("route", routes.TABLE, ids=lambda route: route.name)
async def test_each_bearer_at_each_route(guarded: Live, route: Route, bearer: str | None) -> None:
    answer = await ask(guarded, route, bearer)
    challenge = answer.headers.get("www-authenticate")
    if may(route, bearer):
        assert answer.status_code not in (401, 403, 500), answer.text
        assert challenge is None
    elif bearer in TOKENS:
        assert answer.status_code == 403
        assert challenge == f'Bearer realm="regstream", error="insufficient_scope", scope="{route.needs}"'
        assert answer.json()["detail"].startswith(f"a token with the role {bearer}")
    else:
        assert answer.status_code == 401
        assert challenge == 'Bearer realm="regstream"' + ("" if bearer is None else ', error="invalid_token"')
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "said",
    ["", "Bearer", "Basic YTpi", TOKENS["admin"], "Token " + TOKENS["admin"], f"Bearer {TOKENS['admin']}x",
     f"Bearer {TOKENS['admin'][:-1]}", f"Bearer {TOKENS['admin'].upper()}", f"Bearer {TOKENS['admin']} x",
     f'Bearer "{TOKENS["admin"]}"', f"Bearer read:{TOKENS['read']}"],
)  # fmt: skip
async def test_what_is_almost_a_token_is_none(guarded: Live, said: str) -> None:
    answer = await guarded.client.get("/health", headers={"authorization": said})
    assert answer.status_code == 401


@pytest.mark.asyncio(loop_scope="module")
async def test_the_schemes_name_may_be_written_in_any_case(guarded: Live) -> None:
    answer = await guarded.client.get("/health", headers={"authorization": f"bEARER  {TOKENS['read']}"})
    assert answer.status_code == 200


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("where", ["?token={}", "?access_token={}", "?authorization=Bearer%20{}"])
async def test_a_token_in_an_address_is_not_looked_at(guarded: Live, where: str) -> None:
    assert (await guarded.client.get("/health" + where.format(TOKENS["read"]))).status_code == 401


@pytest.mark.asyncio(loop_scope="module")
async def test_a_refused_call_changes_nothing(guarded: Live) -> None:
    stream = guarded.services.engine.stream
    before = stream("SYSTEM_METRICS")
    body = {"streamType": "SYSTEM_METRICS", "count": 3}
    for bearer in (None, "wrong", "read"):
        answer = await guarded.client.post("/api/streaming/burst", json=body, headers=headers(bearer))
        assert answer.status_code in (401, 403)
    assert stream("SYSTEM_METRICS").seq == before.seq
    answer = await guarded.client.post("/api/streaming/burst", json=body, headers=headers("control"))
    assert answer.json()["lastSeq"] == before.seq + 3


def test_bearers_are_told_apart_without_telling_their_tokens() -> None:
    entrance = auth.Authenticator(credentials.parse("control:first-0123456789 control:second-0123456789"))
    first, second = entrance.caller("first-0123456789"), entrance.caller("second-0123456789")
    assert first.role == second.role == "control" and first.name != second.name
    assert re.fullmatch(r"control:[0-9a-f]{8}", first.name)
    assert auth.Authenticator().caller(None) == auth.Authenticator().caller("anything") == auth.ANYBODY


async def test_control_calls_are_paced_by_client_and_nothing_else_is(tmp_path: pathlib.Path) -> None:
    write(tmp_path)
    entrance = auth.Authenticator(PAIRS, settings.RateLimit(3, 3600))
    async with serving(tmp_path, entrance=entrance) as live:

        async def pause(bearer: str) -> httpx.Response:
            return await live.client.post("/api/streaming/streams/SYSTEM_METRICS/pause", headers=headers(bearer))

        assert [(await pause("control")).status_code for _ in range(4)] == [200, 200, 200, 429]
        refused = await pause("control")
        assert 3590 <= int(refused.headers["retry-after"]) <= 3600
        assert refused.json()["type"] == "/docs#problem-too-often"
        # Who may not do it at all does not use up anybody's share; and another bearer has one of their own
        assert [(await pause("read")).status_code for _ in range(5)] == [403] * 5
        assert (await pause("admin")).status_code == 200
        looks = [await live.client.get("/api/streaming/status", headers=headers("control")) for _ in range(20)]
        assert {one.status_code for one in looks} == {200}


async def test_the_pace_is_given_back_with_time(tmp_path: pathlib.Path) -> None:
    write(tmp_path)
    async with serving(tmp_path, entrance=auth.Authenticator((), settings.RateLimit(2, 1))) as live:

        async def dry() -> int:
            return (await live.client.post("/api/streaming/reload?dryRun=true")).status_code

        codes = [await dry() for _ in range(10)]
        assert 429 in codes
        async with asyncio.timeout(20):
            while await dry() != 200:
                await asyncio.sleep(0.1)


async def test_behind_proxies_a_client_is_who_the_first_of_them_saw(tmp_path: pathlib.Path) -> None:
    write(tmp_path)
    for proxies, codes in ((1, [200, 429, 200]), (0, [200, 429, 429])):
        async with serving(tmp_path, entrance=auth.Authenticator((), settings.RateLimit(1, 3600))) as live:
            live.server._app.config.PROXIES_COUNT = proxies
            path = "/api/streaming/streams/SYSTEM_METRICS/pause"
            # What a client writes there itself stands in front of what the proxy adds
            said = ["192.0.2.1", "198.51.100.9, 192.0.2.1", "192.0.2.1, 192.0.2.2"]
            given = [await live.client.post(path, headers={"x-forwarded-for": one}) for one in said]
            assert [one.status_code for one in given] == codes


async def test_every_refusal_is_counted_and_told_once_a_minute(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path)
    counted = admission.RejectionCounter(every=0.5)
    entrance = auth.Authenticator(PAIRS, settings.RateLimit(1, 3600), counted)
    caplog.set_level(logging.WARNING, "regstream.server")
    async with serving(tmp_path, entrance=entrance) as live:
        began = asyncio.get_running_loop().time()
        for _ in range(30):
            await live.client.get("/health")
        for _ in range(2):
            await live.client.get("/api/streaming/config", headers=headers("read"))
        for _ in range(3):
            await live.client.post("/api/streaming/stop", json={"streams": []}, headers=headers("control"))
        foreign = {**headers("control"), "origin": "https://evil.example"}
        await live.client.post("/api/streaming/start", json={}, headers=foreign)
        await live.client.post("/api/streaming/start", content=b"x" * (2**20 + 1), headers=headers("control"))
        expected = {"unauthorized": 30, "forbidden": 2, "rate": 2, "origin": 1, "size": 1}
        assert {name: count for name, count in counted.counts.items() if count} == expected
        await live.until(lambda: _told(caplog) == sum(expected.values()))
        spans = (asyncio.get_running_loop().time() - began) / 0.5
    lines = [record for record in caplog.records if record.message.startswith("refused ")]
    assert len(lines) <= spans + 2
    assert lines[0].message == "refused 1 for unauthorized; the last to 127.0.0.1"
    assert lines[0].levelno == logging.WARNING


def _told(caplog: pytest.LogCaptureFixture) -> int:
    """How many refusals the lines speak of."""
    said = (record.message.partition(";")[0] for record in caplog.records if record.message.startswith("refused "))
    return sum(int(count) for line in said for count in re.findall(r"(\d+) for", line))
