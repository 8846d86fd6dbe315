"""Pages of other origins: who is answered, who is refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.test_routes import is_problem

STOP = "/api/streaming/stop"


@pytest.mark.parametrize("origin", ["http://localhost:5173", "http://127.0.0.1:8080", "http://localhost"])
async def test_an_allowed_origin_may_read_and_change(live: Any, origin: str) -> None:
    for response in (
        await live.client.get("/health", headers={"origin": origin}),
        await live.client.post(STOP, headers={"origin": origin}),
        await live.client.get("/nope", headers={"origin": origin}),
    ):
        assert response.headers["access-control-allow-origin"] == origin
        assert "Origin" in response.headers["vary"]
        assert response.status_code in (200, 404)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost.evil.example", "http://localhost:1@evil"]
)
async def test_another_origin_may_not_change_anything(shared: Any, origin: str) -> None:
    problem = is_problem(await shared.client.post(STOP, headers={"origin": origin}), 403)
    assert problem["type"] == "/docs#problem-foreign-origin"
    assert shared.services.engine.streaming
    for method, path in (("PATCH", "/api/streaming/streams/SYSTEM_METRICS"), ("DELETE", "/api/streaming/simulate/x")):
        is_problem(await shared.client.request(method, path, headers={"origin": origin}), 403)


@pytest.mark.asyncio(loop_scope="module")
async def test_another_origin_gets_no_cors_headers(shared: Any) -> None:
    response = await shared.client.get("/health", headers={"origin": "https://evil.example"})
    assert response.status_code == 200
    assert "access-control-allow-origin" not in response.headers
    assert response.headers["vary"] == "Origin"


async def test_the_page_itself_may_change_under_an_address(live: Any) -> None:
    for host in ("192.0.2.7:3001", "[::1]:3001"):
        headers = {"host": host, "origin": f"http://{host}"}
        assert (await live.client.post(STOP, headers=headers)).status_code == 200


async def test_a_name_that_anybody_may_point_here_has_to_be_allowed(live: Any) -> None:
    headers = {"host": "vps.example:3001", "origin": "http://vps.example:3001"}
    assert (await live.client.post(STOP, headers=headers)).status_code == 403


@pytest.mark.asyncio(loop_scope="module")
async def test_preflight(shared: Any) -> None:
    ask = {"access-control-request-method": "PATCH", "access-control-request-headers": "content-type"}
    path = "/api/streaming/streams/SYSTEM_METRICS"
    good = await shared.client.options(path, headers={"origin": "http://localhost:1", **ask})
    assert good.status_code == 204
    assert "PATCH" in good.headers["access-control-allow-methods"]
    assert "content-type" in good.headers["access-control-allow-headers"]
    assert good.headers["access-control-allow-origin"] == "http://localhost:1"
    bad = await shared.client.options(path, headers={"origin": "https://evil.example", **ask})
    assert not [name for name in bad.headers if name.startswith("access-control")]
    unknown = await shared.client.options("/nope", headers={"origin": "http://localhost:1", **ask})
    assert unknown.headers["access-control-allow-origin"] == "http://localhost:1"


async def test_without_origin_nothing_is_asked(live: Any) -> None:
    response = await live.client.post(STOP)
    assert response.status_code == 200
    assert "access-control-allow-origin" not in response.headers
