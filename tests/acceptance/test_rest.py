"""Every route: what it answers, and what it says to those who ask wrongly."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from tests.acceptance.test_streams import SHIPPED
from tests.process import Daemon, eventually

API = "/api/streaming"
SCENARIOS = {"BUDGET_CRISIS", "PROJECT_DEADLINE", "COMPLIANCE_AUDIT", "MARKET_VOLATILITY", "SYSTEM_OUTAGE"}


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The problem that a request was answered with, which has the members of RFC 9457."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    said: dict[str, Any] = answer.json()
    assert said["status"] == status
    assert said["type"] and said["title"] and said["detail"]
    return said


def test_health(daemon: Daemon) -> None:
    health = daemon.get("/health")
    assert health["status"] == "ok"
    assert health["kafka"]["simulationMode"] is True
    assert health["streaming"]["isStreaming"] is True
    assert health["store"]
    assert health["system"]["memory"] > 10_000_000 and health["system"]["cpu"] >= 0
    assert health["config"]["error"] is None and health["config"]["generation"] >= 1
    assert daemon.get("/health/live")["status"] == daemon.get("/health/ready")["status"] == "ok"


def test_status(daemon: Daemon) -> None:
    eventually(lambda: daemon.get(f"{API}/status")["kafka"]["messagesProduced"])
    with daemon.reader("?channel=system") as reader:
        reader.until("subscribed")
        status = daemon.get(f"{API}/status")
    broker, streamer = status["kafka"], status["dataStreamer"]
    assert set(broker) >= {"isConnected", "messagesProduced", "messagesConsumed", "errors", "simulationMode"}
    assert broker["messagesProduced"] > 0 and broker["errors"] == 0
    assert streamer["isStreaming"] is True and streamer["activeStreams"] == 6
    assert streamer["totalMessagesSent"] > 0 and streamer["uptime"] > 0
    assert {one["name"] for one in status["streams"]} == set(SHIPPED)
    assert {one["name"] for one in status["scenarios"]} == SCENARIOS
    assert status["subscribers"] == 1
    assert set(status["config"]) >= {"generation", "loadedAt", "error"}


def test_streams(daemon: Daemon) -> None:
    assert {one["name"]: one["event"] for one in daemon.streams()} == SHIPPED
    one = daemon.stream("BUDGET_UPDATES")
    assert one["topic"] == "reginsight.budget" and one["priority"] == "HIGH" and one["batchSize"] == 5
    assert one["interval"] == 15_000, "five minutes, twenty times as fast"


def test_scenarios(daemon: Daemon) -> None:
    scenarios = daemon.get(f"{API}/scenarios")["scenarios"]
    assert {one["name"] for one in scenarios} == SCENARIOS
    assert all(one["description"] for one in scenarios)


def test_a_burst_is_numbered_and_arrives(daemon: Daemon) -> None:
    with daemon.reader() as reader:
        reader.subscribe("PROJECT_UPDATES")
        made = daemon.post("burst", {"streamType": "PROJECT_UPDATES", "count": 25})
        assert made["streamType"] == "PROJECT_UPDATES" and made["count"] == 25
        assert made["lastSeq"] - made["firstSeq"] == 24
        reader.event("PROJECT_UPDATES", made["lastSeq"])
        numbers = [event["seq"] for event in reader.events()]
    assert set(range(made["firstSeq"], made["lastSeq"] + 1)) <= set(numbers)
    assert numbers == sorted(set(numbers))


def test_events_page_by_page(daemon: Daemon) -> None:
    first, last = daemon.burst("RISK_EVENTS", 30)
    pages = f"{API}/events?stream=RISK_EVENTS"
    eventually(lambda: daemon.get(f"{pages}&limit=1")["events"][0]["seq"] >= last)
    newest = daemon.get(f"{pages}&limit=5")
    assert len(newest["events"]) == 5 and newest["cursor"]
    moment = next(event["time"] for event in daemon.get(f"{pages}&limit=1000")["events"] if event["seq"] == first)
    assert first in [event["seq"] for event in daemon.get(f"{pages}&since={moment}&limit=1000")["events"]]
    assert first not in [event["seq"] for event in daemon.get(f"{pages}&until={moment}&limit=1000")["events"]]
    made, end = daemon.burst("RISK_EVENTS", 12)
    found: list[int] = []
    cursor = newest["cursor"]
    deadline = time.monotonic() + 20
    while (not found or found[-1] < end) and time.monotonic() < deadline:
        page = daemon.get(f"{pages}&after={cursor}&limit=5")
        assert len(page["events"]) <= 5
        found += [event["seq"] for event in page["events"]]
        cursor = page["cursor"]
    assert found == list(range(newest["events"][-1]["seq"] + 1, found[-1] + 1))
    assert set(range(made, end + 1)) <= set(found)


def test_a_patch_is_in_force_at_once(daemon: Daemon) -> None:
    with daemon.reader() as reader:
        seq = reader.subscribe("PROJECT_UPDATES")["streams"]["PROJECT_UPDATES"]["seq"]
        answer = daemon.http.patch(
            f"{API}/streams/PROJECT_UPDATES", json={"interval": "200ms", "batchSize": 2, "priority": "LOW"}
        )
        assert answer.status_code == 200
        changed = answer.json()
        assert (changed["interval"], changed["batchSize"], changed["priority"]) == (200, 2, "LOW")
        event = reader.event("PROJECT_UPDATES", seq + 10, 15)
        assert event["priority"] == "LOW"
    daemon.http.patch(f"{API}/streams/PROJECT_UPDATES", json={"interval": "30s", "batchSize": 3, "priority": "NORMAL"})


def test_a_stream_can_be_stopped_and_started(daemon: Daemon) -> None:
    for _ in range(2):
        status = daemon.post("stop", {"streams": ["SYSTEM_METRICS", "RISK_EVENTS"]})
        states = {one["name"]: one["state"] for one in status["streams"]}
        assert states["SYSTEM_METRICS"] == states["RISK_EVENTS"] == "stopped"
        assert status["dataStreamer"]["activeStreams"] == 4
    assert daemon.http.patch(f"{API}/streams/RISK_EVENTS", json={"enabled": True}).json()["state"] == "running"
    for _ in range(2):
        status = daemon.post("start", {"streams": ["SYSTEM_METRICS"]})
        assert status["dataStreamer"]["activeStreams"] == 6


def test_streaming_can_be_stopped_and_started_and_goes_on_counting(daemon: Daemon) -> None:
    with daemon.reader() as reader:
        reader.subscribe("system", "TRANSACTION_STREAM")
        for _ in range(2):
            assert daemon.post("stop", {})["dataStreamer"]["isStreaming"] is False
        reader.system("streaming-stopped")
        problem(daemon.http.post(f"{API}/burst", json={"streamType": "RISK_EVENTS", "count": 1}), 409)
        problem(daemon.http.post(f"{API}/simulate", json={"scenario": "BUDGET_CRISIS"}), 409)
        for _ in range(2):
            assert daemon.post("start")["dataStreamer"]["isStreaming"] is True
        reader.system("streaming-started")
        before = len(reader.events())
        reader.until(lambda _: len(reader.events()) >= before + 10)
        numbers = [event["seq"] for event in reader.events()]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_a_paused_stream_is_silent_and_goes_on_where_it_was(daemon: Daemon) -> None:
    with daemon.reader() as reader:
        begin = reader.subscribe("TRANSACTION_STREAM")["streams"]["TRANSACTION_STREAM"]
        reader.until(lambda _: len(reader.events()) >= 5)
        for _ in range(2):
            assert daemon.post("streams/TRANSACTION_STREAM/pause")["state"] == "paused"
        seq = eventually(lambda: quiet(daemon, "TRANSACTION_STREAM"))
        assert quiet(daemon, "TRANSACTION_STREAM") == seq
        for _ in range(2):
            assert daemon.post("streams/TRANSACTION_STREAM/resume")["state"] == "running"
        assert reader.event("TRANSACTION_STREAM", seq + 5)["epoch"] == begin["epoch"]
        numbers = [event["seq"] for event in reader.events()]
        assert numbers == list(range(begin["seq"] + 1, begin["seq"] + 1 + len(numbers)))


def quiet(daemon: Daemon, name: str) -> int | None:
    """The number of the last event, when nothing came for longer than the stream's interval of 250 ms."""
    before: int = daemon.stream(name)["seq"]
    time.sleep(0.6)
    return before if daemon.stream(name)["seq"] == before else None


def test_the_configuration_in_force(daemon: Daemon) -> None:
    config = daemon.get(f"{API}/config")
    assert config["generation"] >= 1 and config["seed"] == 42 and config["profile"]["speed"] == 20
    assert set(config["streams"]) == set(SHIPPED) and set(config["scenarios"]) == SCENARIOS
    assert config["streams"]["BUDGET_UPDATES"]["interval"] == 300_000


def test_the_pages(daemon: Daemon) -> None:
    metrics = daemon.http.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    assert "# TYPE regstream_" in metrics.text and 'stream="RISK_EVENTS"' in metrics.text
    document = daemon.get("/openapi.json")
    assert document["openapi"].startswith("3.")
    assert {f"{API}/burst", f"{API}/streams/{{name}}", "/health"} <= set(document["paths"])
    for path in ("/", "/docs"):
        page = daemon.http.get(path)
        assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/nothing", None, 404),
        ("GET", f"{API}/streams/NOTHING", None, 404),
        ("PATCH", f"{API}/streams/NOTHING", {"enabled": True}, 404),
        ("POST", f"{API}/streams/NOTHING/pause", None, 404),
        ("POST", f"{API}/streams/NOTHING/resume", None, 404),
        ("GET", f"{API}/simulate/NOTHING", None, 404),
        ("DELETE", f"{API}/simulate/NOTHING", None, 404),
        ("POST", f"{API}/start", {"streams": ["NOTHING"]}, 404),
        ("POST", f"{API}/stop", {"streams": ["RISK_EVENTS", "NOTHING"]}, 404),
        ("POST", f"{API}/stop", {"streams": "RISK_EVENTS"}, 400),
        ("POST", f"{API}/stop", {"stream": ["RISK_EVENTS"]}, 400),
        ("POST", f"{API}/burst", {"streamType": "NOTHING", "count": 1}, 404),
        ("POST", f"{API}/burst", {"streamType": "RISK_EVENTS", "count": 0}, 400),
        ("POST", f"{API}/burst", {"streamType": "RISK_EVENTS", "count": 10**9}, 400),
        ("POST", f"{API}/burst", {"streamType": "RISK_EVENTS", "count": "5"}, 400),
        ("POST", f"{API}/burst", {"streamType": "RISK_EVENTS"}, 400),
        ("POST", f"{API}/burst", {"streamType": "RISK_EVENTS", "count": 1, "extra": 1}, 400),
        ("POST", f"{API}/burst", [1], 400),
        ("POST", f"{API}/simulate", {"scenario": "NOTHING"}, 404),
        ("POST", f"{API}/simulate", {}, 400),
        ("PATCH", f"{API}/streams/RISK_EVENTS", {"interval": "soon"}, 400),
        ("PATCH", f"{API}/streams/RISK_EVENTS", {"interval": 0}, 400),
        ("PATCH", f"{API}/streams/RISK_EVENTS", {"batchSize": 0}, 400),
        ("PATCH", f"{API}/streams/RISK_EVENTS", {"priority": "URGENT"}, 400),
        ("PATCH", f"{API}/streams/RISK_EVENTS", {"enabled": "yes"}, 400),
        ("POST", f"{API}/reload?dryRun=maybe", None, 400),
        ("GET", f"{API}/events?stream=NOTHING", None, 404),
        ("GET", f"{API}/events?limit=0", None, 400),
        ("GET", f"{API}/events?since=yesterday", None, 400),
        ("GET", f"{API}/events?after=nonsense", None, 400),
        ("DELETE", f"{API}/status", None, 405),
        ("GET", f"{API}/burst", None, 405),
    ],
)
def test_wrong_input_is_refused(daemon: Daemon, method: str, path: str, body: Any, status: int) -> None:
    before = {one["name"]: (one["interval"], one["batchSize"], one["state"]) for one in daemon.streams()}
    answer = daemon.http.request(method, path, json=body)
    said = problem(answer, status)
    if status == 400:
        assert said["errors"][0]["message"]
    if status == 405:
        assert answer.headers["allow"]
    assert {one["name"]: (one["interval"], one["batchSize"], one["state"]) for one in daemon.streams()} == before


def test_an_unknown_name_is_answered_with_what_may_have_been_meant(daemon: Daemon) -> None:
    said = problem(daemon.http.get(f"{API}/streams/RISK_EVENT"), 404)
    assert said["near"][0] == "RISK_EVENTS"
    said = problem(daemon.http.post(f"{API}/simulate", json={"scenario": "BUDGET_CRISES"}), 404)
    assert said["near"][0] == "BUDGET_CRISIS"


@pytest.mark.parametrize(
    ("content", "type_", "status"),
    [
        (b"{", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"streamType": "RISK_EVENTS", "count": 1}', "text/plain", 415),
        (b" " * 3_000_000, "application/json", 413),
    ],
)
def test_a_body_that_is_no_good_json_is_refused(daemon: Daemon, content: bytes, type_: str, status: int) -> None:
    problem(daemon.http.post(f"{API}/burst", content=content, headers={"content-type": type_}), status)
    assert daemon.get("/health")["status"] == "ok"


def test_a_foreign_page_may_change_nothing(daemon: Daemon) -> None:
    foreign = {"origin": "https://evil.example"}
    problem(daemon.http.post(f"{API}/stop", json={}, headers=foreign), 403)
    own = daemon.http.get("/health", headers={"origin": "http://localhost:5173"})
    assert own.headers["access-control-allow-origin"] == "http://localhost:5173"
