"""Each route with good and with bad input, over real HTTP."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from regstream.server import problems, routes

BASE = "/api/streaming"
SHAPES = {(route.method, route.path): route.answer for route in routes.TABLE}
GOOD: list[tuple[str, str, Any, int]] = [
    ("GET", "/health", None, 200),
    ("GET", "/health/live", None, 200),
    ("GET", "/health/ready", None, 200),
    ("GET", f"{BASE}/status", None, 200),
    ("POST", f"{BASE}/start", None, 200),
    ("POST", f"{BASE}/start", {}, 200),
    ("POST", f"{BASE}/start", {"streams": ["NIGHTLY"]}, 200),
    ("POST", f"{BASE}/start", {"streams": []}, 200),
    ("POST", f"{BASE}/stop", {}, 200),
    ("POST", f"{BASE}/stop", {"streams": ["NIGHTLY", "NIGHTLY"]}, 200),
    ("POST", f"{BASE}/burst", {"streamType": "SYSTEM_METRICS", "count": 1}, 200),
    ("POST", f"{BASE}/burst", {"streamType": "SYSTEM_METRICS", "count": 2.0}, 200),
    ("POST", f"{BASE}/simulate", {"scenario": "QUICK"}, 202),
    ("GET", f"{BASE}/simulate", None, 200),
    ("GET", f"{BASE}/scenarios", None, 200),
    ("GET", f"{BASE}/streams", None, 200),
    ("GET", f"{BASE}/streams/NIGHTLY", None, 200),
    ("PATCH", f"{BASE}/streams/SYSTEM_METRICS", {"interval": "250ms"}, 200),
    ("PATCH", f"{BASE}/streams/SYSTEM_METRICS", {"interval": 1500}, 200),
    ("PATCH", f"{BASE}/streams/SYSTEM_METRICS", {}, 200),
    ("PATCH", f"{BASE}/streams/SYSTEM_METRICS", {"batchSize": 3, "priority": "LOW", "enabled": True}, 200),
    ("POST", f"{BASE}/streams/SYSTEM_METRICS/pause", None, 200),
    ("POST", f"{BASE}/streams/SYSTEM_METRICS/resume", {}, 200),
    ("POST", f"{BASE}/reload", None, 200),
    ("POST", f"{BASE}/reload?dryRun=true", None, 200),
    ("GET", f"{BASE}/config", None, 200),
    ("GET", f"{BASE}/events", None, 200),
    ("GET", f"{BASE}/events?stream=NIGHTLY&stream=SYSTEM_METRICS&limit=5&since=2026-01-01T00:00:00Z", None, 200),
    ("GET", f"{BASE}/events?until=1700000000000", None, 200),
]


@pytest.mark.parametrize(("method", "path", "body", "status"), GOOD)
async def test_good(live: Any, method: str, path: str, body: Any, status: int) -> None:
    response = (
        await live.client.request(method, path, json=body)
        if body is not None
        else await live.client.request(method, path)
    )
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    shape = next(one for (verb, where), one in SHAPES.items() if verb == method and _same(where, path))
    assert shape is not None
    shape.model_validate_json(response.content)


def _same(pattern: str, path: str) -> bool:
    parts = path.partition("?")[0].split("/")
    wanted = pattern.split("/")
    return len(parts) == len(wanted) and all(a == b or a[:1] == "{" for a, b in zip(wanted, parts, strict=True))


BURST = f"{BASE}/burst"
STREAM = f"{BASE}/streams/SYSTEM_METRICS"
BAD: list[tuple[str, str, Any, int, str]] = [
    ("GET", "/nope", None, 404, "not found"),
    ("GET", "/health/", None, 404, "not found"),
    ("GET", "/health?verbose=1", None, 400, "verbose: unknown name"),
    ("POST", "/health", {}, 405, "not allowed"),
    ("GET", BURST, None, 405, "not allowed"),
    ("DELETE", STREAM, None, 405, "not allowed"),
    ("POST", BURST, None, 400, "streamType: field required; count: field required"),
    ("POST", BURST, [], 400, "object"),
    ("POST", BURST, {"streamType": "SYSTEM_METRICS", "count": 0}, 400, "count"),
    ("POST", BURST, {"streamType": "SYSTEM_METRICS", "count": -1}, 400, "count"),
    ("POST", BURST, {"streamType": "SYSTEM_METRICS", "count": 10**9}, 400, "count"),
    ("POST", BURST, {"streamType": "SYSTEM_METRICS", "count": 10**30}, 400, "count"),
    ("POST", BURST, {"streamType": "SYSTEM_METRICS", "count": True}, 400, "count"),
    ("POST", BURST, {"streamType": "SYSTEM_METRICS", "count": "5"}, 400, "count"),
    ("POST", BURST, {"streamType": "SYSTEM_METRICS", "count": 1.5}, 400, "count"),
    ("POST", BURST, {"streamType": 5, "count": 1}, 400, "streamType"),
    ("POST", BURST, {"streamType": "SYSTEM_METRICS", "count": 1, "speed": 2}, 400, "speed: unknown name"),
    ("POST", BURST, {"streamType": "SYSTEM_METRIC", "count": 1}, 404, "did you mean SYSTEM_METRICS?"),
    ("POST", BURST, {"streamType": "\0", "count": 1}, 404, "unknown stream"),
    ("POST", f"{BASE}/start", {"streams": "NIGHTLY"}, 400, "streams"),
    ("POST", f"{BASE}/start", {"streams": None}, 400, "streams"),
    ("POST", f"{BASE}/start", {"streams": ["NIGHTY"]}, 404, "did you mean NIGHTLY?"),
    ("POST", f"{BASE}/stop", {"stream": ["NIGHTLY"]}, 400, "stream: unknown name"),
    ("POST", f"{BASE}/stop", {"streams": ["NIGHTLY", "X"]}, 404, "unknown stream"),
    ("POST", f"{BASE}/simulate", {"scenario": "BUDGET_CRISES"}, 404, "did you mean BUDGET_CRISIS?"),
    ("POST", f"{BASE}/simulate", {"scenario": None}, 400, "scenario"),
    ("GET", f"{BASE}/simulate/nope", None, 404, "unknown run"),
    ("DELETE", f"{BASE}/simulate/nope", None, 404, "unknown run"),
    ("GET", f"{BASE}/streams/%00", None, 404, "unknown stream"),
    ("GET", f"{BASE}/streams/%ff", None, 404, "unknown stream"),
    ("GET", f"{BASE}/streams/system_metrics", None, 404, "did you mean SYSTEM_METRICS?"),
    ("PATCH", f"{BASE}/streams/NOPE", {"batchSize": 1}, 404, "unknown stream"),
    ("PATCH", STREAM, {"interval": None}, 400, "interval: not a duration"),
    ("PATCH", STREAM, {"interval": "fast"}, 400, "interval: not a duration"),
    ("PATCH", STREAM, {"interval": "0s"}, 400, "interval"),
    ("PATCH", STREAM, {"interval": 0}, 400, "interval"),
    ("PATCH", STREAM, {"interval": "400d"}, 400, "interval"),
    ("PATCH", STREAM, {"batchSize": 0}, 400, "batchSize"),
    ("PATCH", STREAM, {"batch_size": 2}, 400, "batch_size"),
    ("PATCH", STREAM, {"priority": "high"}, 400, "priority"),
    ("PATCH", STREAM, {"enabled": 1}, 400, "enabled"),
    ("PATCH", STREAM, {"name": "X"}, 400, "name: unknown name"),
    ("POST", f"{BASE}/streams/NOPE/pause", None, 404, "unknown stream"),
    ("POST", f"{BASE}/streams/NOPE/resume", None, 404, "unknown stream"),
    ("POST", f"{STREAM}/pause", {"for": "5s"}, 400, "for: unknown name"),
    ("POST", f"{BASE}/reload", {"dryRun": True}, 400, "dryRun: unknown name"),
    ("POST", f"{BASE}/reload?dryrun=true", None, 400, "dryrun: unknown name"),
    ("POST", f"{BASE}/reload?dryRun=yes", None, 400, "dryRun: not true or false"),
    ("POST", f"{BASE}/reload?dryRun=true&dryRun=false", None, 400, "dryRun: given more than once"),
    ("GET", f"{BASE}/events?limit=0", None, 400, "limit"),
    ("GET", f"{BASE}/events?limit=10000001", None, 400, "limit"),
    ("GET", f"{BASE}/events?limit=", None, 400, "limit: not a whole number"),
    ("GET", f"{BASE}/events?limit=1&limit=2", None, 400, "limit: given more than once"),
    ("GET", f"{BASE}/events?since=yesterday", None, 400, "since: not a time"),
    ("GET", f"{BASE}/events?until=2026-02-30T00:00:00Z", None, 400, "until"),
    ("GET", f"{BASE}/events?after=x", None, 400, "after: not a cursor"),
    ("GET", f"{BASE}/events?after=1-1", None, 409, "before the daemon was started"),
    ("GET", f"{BASE}/events?stream=NOPE", None, 404, "unknown stream"),
    ("GET", f"{BASE}/events?{'&'.join(['stream=NIGHTLY'] * 300)}", None, 400, "too many"),
]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("method", "path", "body", "status", "detail"), BAD)
async def test_bad(shared: Any, method: str, path: str, body: Any, status: int, detail: str) -> None:
    before = await _state(shared)
    options = {} if body is None else {"json": body}
    response = await shared.client.request(method, path, **options)
    problem = is_problem(response, status)
    assert detail in problem["detail"]
    assert problem["instance"] == path.partition("?")[0]
    assert await _state(shared) == before


def is_problem(response: httpx.Response, status: int) -> dict[str, Any]:
    """Check that ``response`` is a problem document of ``status``, and give it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == problems.MEDIA_TYPE
    document: dict[str, Any] = response.json()
    assert document["status"] == status
    assert all(isinstance(document[key], str) and document[key] for key in ("type", "title", "detail", "instance"))
    if status == 400:
        assert document["errors"]
        assert all(set(one) == {"path", "message"} for one in document["errors"])
    return document


async def _state(live: Any) -> Any:
    """What a request that is refused must not change."""
    engine = live.services.engine
    quiet = engine.stream("SYSTEM_METRICS")
    return (
        engine.streaming,
        quiet.seq,
        quiet.interval,
        quiet.batch_size,
        quiet.paused,
        quiet.enabled,
        len(engine.runs()),
    )


BODIES: list[tuple[bytes, dict[str, str], int, str]] = [
    (b"{", {}, 400, "JSON"),
    (b"\xff\xfe", {}, 400, "JSON"),
    (b"null", {}, 400, "object"),
    (b"[" * 200_000, {}, 400, "JSON"),
    (b'{"a":' * 100_000, {}, 400, "JSON"),
    (b'{"streamType":"SYSTEM_METRICS","count":NaN}', {}, 400, "count"),
    (b'{"streamType":"SYSTEM_METRICS","count":1e400}', {}, 400, "count"),
    (b'{"streamType":"\\ud800","count":1}', {}, 400, "JSON"),
    (b'{"streamType":"SYSTEM_METRICS","count":1}', {"content-type": "text/plain"}, 415, "text/plain"),
    (b'{"streamType":"SYSTEM_METRICS","count":1}', {"content-type": ""}, 415, "application/json"),
    (b'{"streamType":"SYSTEM_METRICS","count":1}', {"content-type": "application/json; charset=latin-1"}, 415, "latin"),
    (b"streamType=SYSTEM_METRICS&count=1", {"content-type": "application/x-www-form-urlencoded"}, 415, "urlencoded"),
]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("content", "headers", "status", "detail"), BODIES)
async def test_body(shared: Any, content: bytes, headers: dict[str, str], status: int, detail: str) -> None:
    response = await shared.client.post(BURST, content=content, headers={"content-type": "application/json", **headers})
    assert detail in is_problem(response, status)["detail"]


@pytest.mark.asyncio(loop_scope="module")
async def test_utf8_parameter_of_the_media_type_is_fine(shared: Any) -> None:
    content = json.dumps({"streamType": "SYSTEM_METRICS", "count": 1}).encode()
    response = await shared.client.post(
        BURST, content=content, headers={"content-type": "Application/JSON; charset=UTF-8"}
    )
    assert response.status_code == 200
