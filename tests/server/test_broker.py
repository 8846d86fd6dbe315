"""What the pages say of a broker that comes and goes, and of streams that another daemon makes."""

from __future__ import annotations

import jsonschema
import pytest

from regstream import broker, spec
from regstream.event import Event, Head
from tests.server.conftest import Live

AWAY = broker.BrokerStatus(
    "kafka", "fallback", True, 70, 60, 3, "k:9092 cannot be reached", 12, 4, 5, 6, {"A": 7, "SYSTEM_METRICS": 1}, 8_192
)
SAID = {
    "state": "fallback", "simulationMode": True, "reason": "k:9092 cannot be reached", "waiting": 12, "lag": 4,
    "dropped": {"A": 7, "SYSTEM_METRICS": 1}, "foreign": 5, "skipped": 6,
}  # fmt: skip


def become(live: Live, monkeypatch: pytest.MonkeyPatch, status: broker.BrokerStatus) -> None:
    monkeypatch.setattr(type(live.services.broker), "status", property(lambda _: status))


async def schema(live: Live, name: str) -> dict[str, object]:
    document = (await live.client.get("/openapi.json")).json()
    return {"$ref": f"#/components/schemas/{name}", "components": document["components"]}


async def test_a_broker_that_is_away(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    become(live, monkeypatch, AWAY)
    health = (await live.client.get("/health")).json()
    assert (health["status"], health["kafka"]) == ("degraded", {**SAID, "connected": False})
    jsonschema.validate(health, await schema(live, "Health"))
    status = await live.get("/status")
    counts = {"messagesProduced": 70, "messagesConsumed": 60, "errors": 3}
    assert status["kafka"] == {**SAID, **counts, "isConnected": False}
    jsonschema.validate(status, await schema(live, "Status"))


@pytest.mark.parametrize(
    ("state", "connected", "overall"),
    [("live", True, "ok"), ("draining", True, "degraded"), ("connecting", False, "degraded")],
)
async def test_connected(
    live: Live, monkeypatch: pytest.MonkeyPatch, state: str, connected: bool, overall: str
) -> None:
    become(live, monkeypatch, AWAY._replace(state=state, simulation=not connected, reason=""))
    health = (await live.client.get("/health")).json()
    assert (health["kafka"]["connected"], health["status"]) == (connected, overall)
    # Supervisors do not restart a daemon because its Kafka is away
    assert (await live.client.get("/health/ready")).status_code == 200


async def test_one_that_refuses_a_topic_is_degraded_though_it_is_live(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(live, monkeypatch, AWAY._replace(state="live", simulation=False, reason="topic t may not be written to"))
    health = (await live.client.get("/health")).json()
    assert (health["status"], health["kafka"]["state"]) == ("degraded", "live")
    assert health["kafka"]["reason"] == "topic t may not be written to"


async def test_metrics(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    become(live, monkeypatch, AWAY)
    lines = (await live.client.get("/metrics")).text.splitlines()
    for line in (
        'regstream_broker_state{kind="kafka",state="fallback"} 1.0',
        "regstream_broker_waiting_events 12.0",
        "regstream_broker_waiting_bytes 8192.0",
        "regstream_broker_lag 4.0",
        "regstream_broker_simulation 1.0",
        "regstream_broker_foreign_total 5.0",
        "regstream_broker_skipped_total 6.0",
        'regstream_broker_dropped_total{stream="A"} 7.0',
    ):
        assert line in lines


async def test_a_stream_that_is_made_elsewhere_stands_where_it_was_shown(live: Live) -> None:
    services = live.services
    head = Head("NIGHTLY", "Z9", "nightly", "t", spec.Priority.NORMAL, "2026-11-23T12:00:00.000Z", "LATAM")
    services.hub.broadcast(Event(head, 41, None, b"{}"))
    assert (await live.get("/streams/NIGHTLY"))["seq"] == 0
    services.engine.allowed = False
    shown = await live.get("/streams/NIGHTLY")
    assert (shown["epoch"], shown["seq"]) == ("Z9", 41)
    assert services.hub.position("NIGHTLY") == ("Z9", 41) and services.hub.position("NOBODY") is None
