"""Scenarios: what a run shows, changes and gives back."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from tests.process import Daemon, Reader

SHORT = """
name: SHORT
description: Two seconds of trouble
steps:
  - alert: {severity: WARNING, message: "It begins"}
  - set: {stream: RISK_EVENTS, interval: 100ms, batch_size: 1, fields: {category: MARKET}, for: 1s}
  - pause: SYSTEM_METRICS
  - parallel: [ [ {burst: {stream: COMPLIANCE_ALERTS, count: 3}} ], [ {wait: 500ms} ] ]
  - repeat: {times: 2, steps: [ {burst: {stream: BUDGET_UPDATES, count: 2}}, {wait: 500ms} ]}
  - resume: SYSTEM_METRICS
"""
LONG = """
name: LONG
description: Goes on until it is cancelled
steps:
  - set: {stream: RISK_EVENTS, interval: 200ms, batch_size: 3, priority: LOW, fields: {category: MARKET}}
  - pause: SYSTEM_METRICS
  - wait: 10m
"""


@pytest.fixture(scope="module", autouse=True)
def more_scenarios(daemon: Daemon) -> None:
    for text in (SHORT, LONG):
        name = text.split()[1]
        pathlib.Path(daemon.folder, "scenarios", f"{name.lower()}.yaml").write_text(text)
    daemon.post("reload")


def in_force(daemon: Daemon) -> dict[str, Any]:
    """What a run may change, of each stream."""
    keys = ("state", "enabled", "paused", "interval", "batchSize", "priority", "overlays")
    return {one["name"]: {key: one[key] for key in keys} for one in daemon.streams()}


def follow(reader: Reader, run_id: str, seconds: float = 60) -> dict[str, Any]:
    return reader.system("scenario-ended", seconds, runId=run_id)


def steps(reader: Reader, run_id: str) -> list[str]:
    """The kinds of the steps that a run has told of."""
    frames = (frame["data"] for frame in reader.frames if frame["event"] == "system")
    return [data["step"] for data in frames if data["kind"] == "scenario-step" and data["runId"] == run_id]


def test_a_budget_crisis_moves_three_streams_and_gives_them_back(daemon: Daemon) -> None:
    before = in_force(daemon)
    touched = ("BUDGET_UPDATES", "PROJECT_UPDATES", "COMPLIANCE_ALERTS")
    with daemon.reader() as reader:
        begin = reader.subscribe("dashboard-updates", "system")["streams"]
        answer = daemon.http.post("/api/streaming/simulate", json={"scenario": "BUDGET_CRISIS"})
        assert answer.status_code == 202
        run = answer.json()
        assert run["scenario"] == "BUDGET_CRISIS" and run["state"] == "running"
        assert daemon.get(answer.headers["location"])["runId"] == run["runId"]
        assert reader.system("scenario-started")["runId"] == run["runId"]
        assert run["runId"] in daemon.stream("BUDGET_UPDATES")["overlays"]
        assert daemon.stream("BUDGET_UPDATES")["interval"] == 1000
        end = follow(reader, run["runId"])
        assert end["state"] == "completed" and end["error"] is None and end["scenario"] == "BUDGET_CRISIS"
        # What it did last may still be under way
        reader.until(lambda frame: frame["data"].get("data", {}).get("severity") == "INFO")
        kinds = steps(reader, run["runId"])
        assert kinds[0] == "alert" and {"alert", "set", "wait", "burst", "parallel", "repeat"} <= set(kinds)
        alerts = [event for event in reader.events("ALERTS") if event["data"]["runId"] == run["runId"]]
        for name in touched:
            assert len(reader.events(name)) >= 5, name
            assert reader.events(name)[0]["seq"] == begin[name]["seq"] + 1
    raised = [event["data"] for event in alerts if event["data"]["stream"] is None]
    assert [alert["severity"] for alert in raised] == ["WARNING", "CRITICAL", "INFO"]
    assert all(alert["scenario"] == "BUDGET_CRISIS" and alert["message"] for alert in raised)
    assert any(event["data"]["stream"] == "BUDGET_UPDATES" and event["data"]["causeSeq"] for event in alerts)
    assert all(event["type"] == "immediate-alert" and event["priority"] == "CRITICAL" for event in alerts)
    assert in_force(daemon) == before
    assert daemon.get(f"/api/streaming/simulate/{run['runId']}")["state"] == "completed"


def test_every_kind_of_step_is_told_of_and_given_back(daemon: Daemon) -> None:
    before = in_force(daemon)
    with daemon.reader() as reader:
        reader.subscribe("dashboard-updates", "immediate-alert", "system")
        run = daemon.post("simulate", {"scenario": "SHORT"}, 202)
        assert daemon.stream("SYSTEM_METRICS")["state"] == "paused"
        assert follow(reader, run["runId"])["state"] == "completed"
        expected = {"alert", "set", "pause", "parallel", "burst", "wait", "repeat", "resume"}
        assert set(steps(reader, run["runId"])) == expected
        assert steps(reader, run["runId"]).count("burst") == 3
        shaped = [one for one in reader.events("RISK_EVENTS") if one["data"]["category"] == "MARKET"]
        assert len(shaped) >= 5
        assert any(one["data"]["message"] == "It begins" for one in reader.events("ALERTS"))
    assert in_force(daemon) == before


def test_a_run_is_cancelled_and_gives_back_what_it_had_changed(daemon: Daemon) -> None:
    before = in_force(daemon)
    with daemon.reader() as reader:
        reader.subscribe("system", "RISK_EVENTS")
        first = daemon.post("simulate", {"scenario": "LONG"}, 202)["runId"]
        second = daemon.post("simulate", {"scenario": "LONG"}, 202)["runId"]
        risk = daemon.stream("RISK_EVENTS")
        assert (risk["interval"], risk["batchSize"], risk["priority"]) == (200, 3, "LOW")
        assert set(risk["overlays"]) == {first, second}
        assert daemon.stream("SYSTEM_METRICS")["state"] == "paused"
        listed = {one["runId"]: one["state"] for one in daemon.get("/api/streaming/simulate")["runs"]}
        assert listed[first] == listed[second] == "running"
        assert "10m" in " ".join(daemon.get(f"/api/streaming/simulate/{first}")["current"])
        reader.until(lambda _: len(reader.events("RISK_EVENTS")) >= 6)
        cancelled = daemon.http.delete(f"/api/streaming/simulate/{first}").json()
        assert cancelled["state"] == "cancelled" and cancelled["ended"]
        assert follow(reader, first)["state"] == "cancelled"
        assert daemon.stream("RISK_EVENTS")["interval"] == 200, "the second run holds it still"
        assert daemon.http.delete(f"/api/streaming/simulate/{second}").json()["state"] == "cancelled"
        assert daemon.http.delete(f"/api/streaming/simulate/{second}").status_code == 200
        follow(reader, second)
    assert in_force(daemon) == before


def test_an_operator_outlasts_a_run(daemon: Daemon) -> None:
    run = daemon.post("simulate", {"scenario": "LONG"}, 202)["runId"]
    address = "/api/streaming/streams/RISK_EVENTS"
    assert daemon.http.patch(address, json={"interval": "7s"}).json()["interval"] == 7000
    daemon.http.delete(f"/api/streaming/simulate/{run}")
    assert daemon.stream("RISK_EVENTS")["interval"] == 7000
    assert daemon.stream("RISK_EVENTS")["batchSize"] == 2
    daemon.http.patch(address, json={"interval": "9s"})


def test_stopping_the_streaming_ends_runs(daemon: Daemon) -> None:
    run = daemon.post("simulate", {"scenario": "LONG"}, 202)["runId"]
    daemon.post("stop", {})
    daemon.post("start", {})
    assert daemon.get(f"/api/streaming/simulate/{run}")["state"] == "cancelled"
    assert daemon.stream("SYSTEM_METRICS")["state"] == "running"
