"""The description of the channels is valid, whole and true."""

from __future__ import annotations

import functools
import gzip
import json
from typing import Any

import jsonschema
import pytest
import websockets

from regstream import config, spec
from regstream.server import asyncapi
from tests import support
from tests.server import conftest

SITE = asyncapi.ApiSite("1.2.3", "here:3001", brokers=("k1:9092", "k2:9092"), encrypted=True, mechanism="SCRAM-SHA-512")


@functools.cache
def shipped() -> spec.Catalog:
    return config.load(
        support.ROOT / "streams.yaml", support.ROOT / "scenarios", support.ROOT / "templates", "production"
    )


def document(site: asyncapi.ApiSite = SITE) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(asyncapi.Formats().document(shipped(), site))
    return made


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    return document()


def found(whole: Any, reference: str) -> Any:
    for part in reference.removeprefix("#/").split("/"):
        whole = whole[part]
    return whole


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [one for part in value.values() for one in references(part)]
    return [one for part in value for one in references(part)] if isinstance(value, list) else []


def test_it_is_valid_by_the_schema_of_asyncapi_itself(described: dict[str, Any]) -> None:
    official = json.loads(gzip.decompress((support.ROOT / "tests/testdata/asyncapi/3.0.0.json.gz").read_bytes()))
    checker = jsonschema.Draft7Validator(official)
    for one in (described, document(asyncapi.ApiSite("1.2.3", "here", is_open=False))):
        assert [f"{list(error.path)}: {error.message}" for error in checker.iter_errors(one)] == []


def test_every_reference_leads_somewhere_and_every_component_is_used(described: dict[str, Any]) -> None:
    used = set(references(described))
    for one in used:
        assert found(described, one)
    for kind, parts in described["components"].items():
        assert {f"#/components/{kind}/{name}" for name in parts} <= used


def test_it_has_every_channel_and_every_topic(described: dict[str, Any]) -> None:
    streams = shipped().streams.values()
    names = {
        "dashboard-updates",
        "immediate-alert",
        "system",
        *(name for one in streams for name in (one.name, one.event)),
    }
    topics = {f"kafka:{topic}" for topic in (*(one.topic for one in streams), "reginsight.alerts")}
    assert set(described["channels"]) == names | topics | {"ws:control", "socketio:control"}
    every = described["channels"]["dashboard-updates"]["messages"]
    assert set(every) == {*shipped().streams, "ALERTS"}
    assert described["channels"]["BUDGET_UPDATES"]["bindings"]["ws"]["query"]["properties"] == {
        "channel": {"type": "string", "const": "BUDGET_UPDATES"}
    }


def test_topics_are_as_the_profile_has_them_made(described: dict[str, Any]) -> None:
    topic = described["channels"]["kafka:reginsight.budget"]
    assert topic["bindings"]["kafka"] == {
        "topic": "reginsight.budget", "partitions": 6, "replicas": 3, "bindingVersion": "0.5.0",
    }  # fmt: skip
    assert topic["servers"] == [{"$ref": "#/servers/kafka"}, {"$ref": "#/servers/kafka1"}]
    assert described["servers"]["kafka"] == {
        "host": "k1:9092", "protocol": "kafka-secure", "security": [{"type": "scramSha512"}],
    }  # fmt: skip
    key = described["components"]["messages"]["SYSTEM_METRICS"]["bindings"]["kafka"]["key"]
    assert key["type"] == "string" and "ingest-1" in key["enum"]


def test_without_kafka_there_are_no_topics() -> None:
    made = document(asyncapi.ApiSite("1.2.3", "here", secure=True, is_open=False))
    assert set(made["servers"]) == {"ws", "socketio"}
    assert made["servers"]["ws"]["protocol"] == "wss" and made["servers"]["ws"]["security"][0]["scheme"] == "bearer"
    assert not any("kafka:" in one for one in (*made["channels"], *made["operations"]))


async def test_frames_are_as_they_are_described_and_a_reload_is_followed(live: conftest.Live) -> None:
    made = (await live.client.get("/asyncapi.json")).json()
    assert made["servers"]["ws"]["host"] == f"127.0.0.1:{live.server.port}"
    frame = {**made["components"]["messages"]["TRANSACTION_STREAM.frame"]["payload"], "components": made["components"]}
    async with websockets.connect(f"{live.url.replace('http', 'ws')}/ws?channel=TRANSACTION_STREAM") as socket:
        seen: list[dict[str, Any]] = []
        while len(seen) < 5:
            seen += [one for one in [json.loads(await socket.recv())] if one["event"] == "transaction-update"]
    for one in seen:
        jsonschema.Draft202012Validator(frame).validate(one)
    path = live.folder / "streams.yaml"
    path.write_text(path.read_text().replace("uniform(1, 9)", "uniform(1, 7)"))
    assert (await live.client.post("/api/streaming/reload")).status_code == 200
    again = (await live.client.get("/asyncapi.json")).json()
    amounts = [one["components"]["schemas"]["TRANSACTION_STREAM.data"]["properties"]["amount"] for one in (made, again)]
    assert [one["maximum"] for one in amounts] == [9, 7]
