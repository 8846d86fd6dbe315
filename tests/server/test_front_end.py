"""A daemon that generates nothing says so to whoever asks it to, and changes nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from regstream.server import routes
from tests.server.conftest import Live

# What a front end can do as well as any other: read files, cancel a run that it does not have, and send stored events
CAN = {"reload", "cancel", "replay_events", "cancel_replay", "pause_replay", "resume_replay"}
BODIES: dict[str, Any] = {
    "start": {}, "stop": {}, "burst": {"streamType": "SYSTEM_METRICS", "count": 2}, "simulate": {"scenario": "QUICK"},
    "patch": {"interval": 100},
}  # fmt: skip
CHANGES = [one for one in routes.TABLE if one.method not in ("GET", "HEAD") and one.name not in CAN]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("route", CHANGES, ids=lambda route: route.name)
async def test_what_it_cannot_carry_out_is_refused_with_who_can(
    shared: Live, monkeypatch: pytest.MonkeyPatch, route: Any
) -> None:
    engine = shared.services.engine
    monkeypatch.setattr(engine, "allowed", False)
    keys = ("enabled", "paused", "interval", "batch_size", "priority", "state")
    before = [[getattr(one, key) for key in keys] for one in engine.streams()]
    path = route.path.replace("{name}", "TRANSACTION_STREAM")
    content = json.dumps(BODIES[route.name]) if route.name in BODIES else None
    headers = {"content-type": "application/json"} if content else {}
    answer = await shared.client.request(route.method, path, content=content, headers=headers)
    assert answer.status_code == 409, answer.text
    problem = answer.json()
    assert problem["type"] == "/docs#problem-conflict"
    assert "ENABLE_STREAMING is false" in problem["detail"] and "ask the one with" in problem["detail"]
    assert [[getattr(one, key) for key in keys] for one in engine.streams()] == before
    assert engine.streaming and not engine.runs()


@pytest.mark.asyncio(loop_scope="module")
async def test_after_a_stop_nothing_is_said_to_run(shared: Live) -> None:
    stopped = (await shared.client.post("/api/streaming/stop", json={})).json()
    try:
        assert (stopped["dataStreamer"]["isStreaming"], stopped["dataStreamer"]["activeStreams"]) == (False, 0)
        assert {one["state"] for one in stopped["streams"]} == {"stopped"}
        health = (await shared.client.get("/health")).json()
        assert health["streaming"] == {"isStreaming": False, "activeStreams": 0, "failing": []}
        assert {one["state"] for one in (await shared.get("/streams"))["streams"]} == {"stopped"}
    finally:
        started = (await shared.client.post("/api/streaming/start", json={})).json()
    assert started["dataStreamer"]["activeStreams"] == 2
