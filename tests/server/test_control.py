"""What the routes do: streams, bursts, scenarios, reload, health."""

from __future__ import annotations

from typing import Any

from tests.server import conftest
from tests.server.test_routes import BASE, is_problem

QUIET = f"{BASE}/streams/SYSTEM_METRICS"


async def test_start_and_stop_are_idempotent_and_answer_the_status(live: Any) -> None:
    for path, streaming in (("stop", False), ("stop", False), ("start", True), ("start", True)):
        status = (await live.client.post(f"{BASE}/{path}")).json()
        assert status["dataStreamer"]["isStreaming"] is streaming
    assert status["kafka"]["simulationMode"] is True
    assert status["kafka"]["isConnected"] is False


async def test_one_stream_is_stopped_and_started(live: Any) -> None:
    stopped = (await live.client.post(f"{BASE}/stop", json={"streams": ["TRANSACTION_STREAM"]})).json()
    states = {one["name"]: one["state"] for one in stopped["streams"]}
    assert (states["TRANSACTION_STREAM"], states["SYSTEM_METRICS"]) == ("stopped", "running")
    assert stopped["dataStreamer"]["isStreaming"] is True
    await live.client.post(f"{BASE}/start", json={"streams": ["TRANSACTION_STREAM"]})
    assert (await live.get("/streams/TRANSACTION_STREAM"))["state"] == "running"


async def test_a_burst_makes_exactly_the_events_that_it_names(live: Any) -> None:
    before = (await live.get("/streams/SYSTEM_METRICS"))["seq"]
    made = (await live.client.post(f"{BASE}/burst", json={"streamType": "SYSTEM_METRICS", "count": 25})).json()
    assert made == {
        "streamType": "SYSTEM_METRICS", "count": 25, "firstSeq": before + 1, "lastSeq": before + 25
    }  # fmt: skip
    await live.until(lambda: len(live.services.hub.events(["SYSTEM_METRICS"])) >= 25)
    page = await live.get("/events?stream=SYSTEM_METRICS&limit=25")
    assert [event["seq"] for event in page["events"]] == list(range(before + 1, before + 26))


async def test_patch_takes_effect_and_keeps_what_is_left_out(live: Any) -> None:
    before = await live.get("/streams/SYSTEM_METRICS")
    answer = await live.client.patch(QUIET, json={"interval": "250ms", "priority": "CRITICAL"})
    changed = answer.json()
    assert (changed["interval"], changed["priority"]) == (250, "CRITICAL")
    assert changed["batchSize"] == before["batchSize"]
    await live.until(lambda: live.services.engine.stream("SYSTEM_METRICS").seq > before["seq"])
    disabled = (await live.client.patch(QUIET, json={"enabled": False})).json()
    assert (disabled["enabled"], disabled["state"]) == (False, "stopped")


async def test_pause_and_resume_keep_the_position(live: Any) -> None:
    for path, state in (("pause", "paused"), ("pause", "paused"), ("resume", "running"), ("resume", "running")):
        answer = (await live.client.post(f"{BASE}/streams/SYSTEM_METRICS/{path}")).json()
        assert (answer["state"], answer["paused"]) == (state, state == "paused")
    assert answer["epoch"] == live.services.engine.stream("SYSTEM_METRICS").epoch


async def test_a_run_can_be_followed_and_cancelled(live: Any) -> None:
    started = await live.client.post(f"{BASE}/simulate", json={"scenario": "BUDGET_CRISIS"})
    run = started.json()
    assert (started.status_code, run["state"], run["scenario"]) == (202, "running", "BUDGET_CRISIS")
    where = started.headers["location"]
    assert (await live.client.get(where)).json()["runId"] == run["runId"]
    engine = live.services.engine
    await live.until(lambda: run["runId"] in engine.stream("TRANSACTION_STREAM").overlays)
    listed = {one["name"]: one for one in (await live.get("/scenarios"))["scenarios"]}
    assert listed["BUDGET_CRISIS"]["running"] == [run["runId"]]
    assert listed["BUDGET_CRISIS"]["streams"] == ["SYSTEM_METRICS", "TRANSACTION_STREAM"]
    for _ in range(2):
        assert (await live.client.delete(where)).json()["state"] == "cancelled"
    assert (await live.get("/streams/TRANSACTION_STREAM"))["overlays"] == []
    assert [one["state"] for one in (await live.get("/simulate"))["runs"]] == ["cancelled"]


async def test_reload_says_what_changed(live: Any) -> None:
    file = live.folder / "streams.yaml"
    file.write_text(conftest.STREAMS.replace("0 3 29", "0 4 29"))
    dry = (await live.client.post(f"{BASE}/reload?dryRun=true")).json()
    assert (dry["dryRun"], dry["changed"]) == (True, ["SYSTEM_METRICS"])
    assert (await live.get("/streams/SYSTEM_METRICS"))["schedule"] == "0 3 29 2 *"
    done = (await live.client.post(f"{BASE}/reload")).json()
    assert done["changed"] == ["SYSTEM_METRICS"]
    assert sorted(done["unchanged"]) == ["NIGHTLY", "TRANSACTION_STREAM"]
    assert done["generation"] == (await live.get("/config"))["generation"] > 1
    assert (await live.get("/streams/SYSTEM_METRICS"))["schedule"] == "0 4 29 2 *"


async def test_a_reload_gives_the_warnings_of_the_files(live: Any) -> None:
    file = live.folder / "streams.yaml"
    assert (await live.client.post(f"{BASE}/reload?dryRun=true")).json()["warnings"] == []
    file.write_text(conftest.STREAMS.replace("50ms", "50"))
    for path in ("reload?dryRun=true", "reload"):
        (warning,) = (await live.client.post(f"{BASE}/{path}")).json()["warnings"]
        assert warning.pop("file") == str(file)
        assert warning == {
            "line": 1 + conftest.STREAMS.splitlines().index("    interval: 50ms"),
            "column": 15,
            "path": "streams.TRANSACTION_STREAM.interval",
            "message": "interval: 50 is 50 ms",
            "hint": "write 50s if seconds are meant, 50ms if not",
        }


async def test_a_refused_reload_changes_nothing_but_the_report(live: Any) -> None:
    before = await live.get("/config")
    (live.folder / "streams.yaml").write_text(conftest.STREAMS.replace("50ms", "fast").replace("schedule", "shedule"))
    for path in ("reload?dryRun=true", "reload"):
        problem = is_problem(await live.client.post(f"{BASE}/{path}"), 422)
        places = {(one["file"].rpartition("/")[2], one["line"]) for one in problem["problems"]}
        lines = conftest.STREAMS.splitlines()
        assert ("streams.yaml", 1 + lines.index("    interval: 50ms")) in places
        assert all(set(one) == {"file", "line", "column", "path", "message", "hint"} for one in problem["problems"])
    assert await live.get("/config") == before
    health = (await live.client.get("/health")).json()
    assert health["status"] == "degraded"
    assert health["config"]["problems"] == problem["problems"]
    (live.folder / "streams.yaml").write_text(conftest.STREAMS)
    await live.client.post(f"{BASE}/reload")
    health = (await live.client.get("/health")).json()
    assert (health["status"], health["config"]["error"], health["config"]["problems"]) == ("ok", None, [])


async def test_health_shows_a_failing_stream(live: Any) -> None:
    # Not among its first events, or the reload would be refused
    late = "{{ 1 / (0 if seq > 1500 else 1) }}"
    broken = f'  BROKEN:\n    interval: 20ms\n    batch_size: 500\n    fields: {{x: "{late}"}}\n'
    (live.folder / "streams.yaml").write_text(conftest.STREAMS + broken)
    assert (await live.client.post(f"{BASE}/reload")).status_code == 200
    await live.until(lambda: live.services.engine.stream("BROKEN").state == "failing")
    health = (await live.client.get("/health")).json()
    assert (health["status"], health["streaming"]["failing"]) == ("degraded", ["BROKEN"])
    problem = is_problem(await live.client.post(f"{BASE}/burst", json={"streamType": "BROKEN", "count": 1}), 409)
    assert (problem["stream"], problem["field"]) == ("BROKEN", "fields.x")


async def test_health_tells_of_the_process(live: Any) -> None:
    health = (await live.client.get("/health")).json()
    assert health["status"] == "ok"
    assert health["kafka"] == {**health["kafka"], "state": "live", "connected": False, "simulationMode": True}
    assert (health["store"]["state"], health["store"]["recorded"]) == ("none", 0)
    assert 10 * 2**20 < health["system"]["memory"] < 2**30
    assert health["system"]["cpu"] >= 0
    assert health["system"]["version"] == live.services.version


async def test_the_configuration_in_force_has_every_default(live: Any) -> None:
    config = await live.get("/config")
    stream = config["streams"]["TRANSACTION_STREAM"]
    assert (stream["interval"], stream["topic"]) == (50, "reginsight.transaction_stream")
    assert (stream["timezone"], stream["priority"]) == ("UTC", "NORMAL")
    assert stream["with"] == {"svp": "{{ pick('svp') }}"}
    assert config["entities"]["svp"]["count"] == 3
    assert config["seed"] == 7
    assert set(config["scenarios"]) == {"BUDGET_CRISIS", "QUICK"}
