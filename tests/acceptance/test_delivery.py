"""Delivery as declared in `streams.yaml`, brought into force by a reload, on every way to a reader."""

from __future__ import annotations

import json

from tests.process import SECONDS, Daemon
from tests.support import ROOT


def declare(daemon: Daemon, text: str) -> None:
    shipped = (ROOT / "streams.yaml").read_text()
    (daemon.folder / "streams.yaml").write_text(shipped.replace("\nstreams:", f"\n{text}\nstreams:", 1))


def test_a_channel_is_conflated_from_the_reload_on(daemon: Daemon) -> None:
    daemon.post("streams/BUDGET_UPDATES/pause")
    with daemon.reader() as reader, daemon.reader() as other:
        reader.subscribe("BUDGET_UPDATES", "system")
        other.subscribe("BUDGET_UPDATES", policy="disconnect", maxRate=10000)
        first, last = daemon.burst("BUDGET_UPDATES", 300)
        reader.event("BUDGET_UPDATES", last)
        assert [one["seq"] for one in reader.events("BUDGET_UPDATES")] == list(range(first, last + 1))
        declare(daemon, "channels: {BUDGET_UPDATES: {policy: conflate, max_rate: 0.5}}")
        daemon.post("reload")
        begin, end = daemon.burst("BUDGET_UPDATES", 1000)
        keys = len({one["data"]["svpId"] for one in reader.events("BUDGET_UPDATES")})
        reader.event("BUDGET_UPDATES", end)
        conflated = [one["seq"] for one in reader.events("BUDGET_UPDATES") if one["seq"] >= begin]
        assert conflated == sorted(conflated)
        assert len(conflated) <= 3 * keys
        other.event("BUDGET_UPDATES", end)
        assert [one["seq"] for one in other.events("BUDGET_UPDATES")] == list(range(first, end + 1))


def test_a_channel_that_does_not_exist_is_a_problem(daemon: Daemon) -> None:
    declare(daemon, "channels: {budget-updates: {policy: conflate}}")
    answer = daemon.post("reload", status=422)
    (problem,) = answer["problems"]
    assert problem["message"] == "unknown channel 'budget-updates'"
    assert "budget-update" in problem["hint"]


def test_a_snapshot_fills_a_page_on_the_websocket_and_as_server_sent_events(daemon: Daemon) -> None:
    daemon.post("stop", {})
    rows = {}
    with daemon.reader() as reader:
        streams = reader.subscribe("dashboard-updates", snapshot=True)["streams"]
        expected = sum(one["snapshot"] for one in streams.values())
        assert expected > 0
        while len(reader.events()) < expected:
            reader.next()
        rows = {one["id"] for one in reader.events()}
    assert len(rows) == expected
    url = "/api/streaming/stream?channel=dashboard-updates&snapshot=true"
    with daemon.http.stream("GET", url, timeout=SECONDS) as answer:
        seen = set()
        for line in answer.iter_lines():
            if line.startswith("data: {") and '"specversion"' in line:
                seen.add(json.loads(line.removeprefix("data: "))["id"])
                if len(seen) == expected:
                    break
    assert seen == rows
