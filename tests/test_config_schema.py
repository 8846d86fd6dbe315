"""The JSON Schema of the files: valid itself, complete, and no laxer than the loader where it can help it."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from regstream import config

STREAM = {"interval": "5m", "fields": {"n": "{{ seq }}"}}


def validator(kind: Any) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(config.files_schema(kind))


@pytest.mark.parametrize("kind", ["streams", "scenario"])
def test_the_schema_is_one(kind: Any) -> None:
    schema = config.files_schema(kind)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"]
    assert schema["description"]


def test_it_is_made_anew_each_time() -> None:
    config.files_schema("streams")["properties"].clear()
    assert config.files_schema("streams")["properties"]


@pytest.mark.parametrize("kind", ["streams", "scenario"])
def test_every_key_is_described(kind: Any) -> None:
    schema = config.files_schema(kind)
    for part in (schema, *schema["$defs"].values()):
        for key, value in part.get("properties", {}).items():
            assert value.get("description") or "$ref" in value, key


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"batch_size": 5},
        {"batchSize": 5},
        {"interval": 250},
        {"interval": "1.5h"},
        {"jitter": "2.5%"},
        {"topic": "reginsight.budget", "event": "budget-update"},
        {"fields": {"a": None, "b": [1, {"c": 2.5}], "d": True}},
        {"alert": {"when": "{{ n > 5 }}", "message": "x"}},
        {"priority": "CRITICAL", "enabled": False, "key": "{{ n }}", "with": {"svp": "x"}, "update": {"svp.n": 1}},
    ],
)
def test_it_accepts_a_good_stream(extra: dict[str, Any]) -> None:
    assert validator("streams").is_valid({"streams": {"A": {**STREAM, **extra}}})


@pytest.mark.parametrize(
    "extra",
    [
        {"intervall": "5m"},
        {"name": "B"},
        {"files": []},
        {"with_": {}},
        {"interval": "5 minutes"},
        {"interval": 0},
        {"interval": None},
        {"schedule": "* * * * *"},
        {"template": "a.j2"},
        {"batch_size": 1, "batchSize": 1},
        {"batch_size": 10_001},
        {"priority": "high"},
        {"enabled": "yes"},
        {"jitter": 5},
        {"with": {"1a": "x"}},
        {"fields": {}},
        {"topic": "a b"},
        {"alert": {"when": "x"}},
    ],
)
def test_it_refuses_a_bad_stream(extra: dict[str, Any]) -> None:
    assert not validator("streams").is_valid({"streams": {"A": {**STREAM, **extra}}})


@pytest.mark.parametrize(
    "file",
    [
        {},
        {"streams": {}},
        {"streams": {"1A": STREAM}},
        {"streams": {"A": {"fields": {"n": 1}}}},
        {"streams": {"A": {"interval": 5}}},
        {"streams": {"A": STREAM}, "version": 2},
        {"streams": {"A": STREAM}, "seed": -1},
        {"streams": {"A": STREAM}, "profiles": {"a b": {}}},
        {"streams": {"A": STREAM}, "entities": {"svp": {"count": 1, "key": "id"}}},
    ],
)
def test_it_refuses_a_bad_file(file: dict[str, Any]) -> None:
    assert not validator("streams").is_valid(file)


@pytest.mark.parametrize(
    ("step", "good"),
    [
        ({"wait": "5s"}, True),
        ({"parallel": [[{"wait": 5}], [{"repeat": {"times": 2, "steps": [{"pause": "A"}]}}]]}, True),
        ({"set": {"stream": "A", "batchSize": 5, "for": "5s"}}, True),
        ({"alert": {"message": "x"}}, True),
        ({}, False),
        ({"wait": "5s", "pause": "A"}, False),
        ({"sleep": "5s"}, False),
        ({"burst": {"stream": "A", "count": 0}}, False),
        ({"set": {"stream": "A", "for_": "5s"}}, False),
        ({"parallel": [[{"wait": "never"}]]}, False),
        ("wait", False),
    ],
)
def test_it_knows_the_steps(step: Any, good: bool) -> None:
    assert validator("scenario").is_valid({"name": "X", "steps": [step]}) is good
