"""JSON Schema of the files, for editors: made of the declarations in ``model``, made exact where pydantic is not."""

from __future__ import annotations

import copy
from typing import Any, Literal

from regstream import spec

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_ONE_OF_EACH = [
    {"oneOf": [{"required": ["interval"]}, {"required": ["schedule"]}, {"required": ["rate"]}]},
    {"oneOf": [{"required": ["fields"]}, {"required": ["template"]}]},
]


def files_schema(kind: Literal["streams", "scenario"]) -> dict[str, Any]:
    """The schema of ``streams.yaml`` or of one scenario file: it accepts every file that loads."""
    declaration = spec.StreamsFile if kind == "streams" else spec.ScenarioSpec
    made = _exact(declaration.model_json_schema(by_alias=True, mode="validation"))
    if kind == "streams":
        made["$defs"]["StreamSpec"]["allOf"] = copy.deepcopy(_ONE_OF_EACH)
    title = "regstream streams" if kind == "streams" else "regstream scenario"
    return {"$schema": DIALECT, **made, "title": title}


def _exact(part: Any) -> Any:
    if isinstance(part, list):
        return [_exact(one) for one in part]
    if not isinstance(part, dict):
        return part
    part = {key: _exact(value) for key, value in part.items()}
    if isinstance(part.get("title"), str):
        del part["title"]
    if "$ref" in part and isinstance(part.get("default"), dict):
        del part["default"]
    return _with_both_spellings(_with_names(_without_null(part)))


def _without_null(part: dict[str, Any]) -> dict[str, Any]:
    """A key that may be left out may not be null: nothing after the colon is a slip."""
    if "default" in part and part["default"] is None:
        del part["default"]
    choices = part.get("anyOf")
    if isinstance(choices, list) and {"type": "null"} in choices:
        rest = [one for one in choices if one != {"type": "null"}]
        part = {key: value for key, value in part.items() if key != "anyOf"}
        part = {**rest[0], **part} if len(rest) == 1 else {"anyOf": rest, **part}
    return part


def _with_names(part: dict[str, Any]) -> dict[str, Any]:
    """``patternProperties`` alone would let every other name pass."""
    patterns = part.get("patternProperties")
    if isinstance(patterns, dict) and len(patterns) == 1 and part.get("type") == "object":
        ((pattern, value),) = patterns.items()
        part = {key: one for key, one in part.items() if key != "patternProperties"}
        part |= {"propertyNames": {"pattern": pattern}, "additionalProperties": value}
    return part


def _with_both_spellings(part: dict[str, Any]) -> dict[str, Any]:
    properties = part.get("properties")
    if isinstance(properties, dict) and "batch_size" in properties:
        properties["batchSize"] = {**properties["batch_size"], "description": "The same as ``batch_size``."}
        part["not"] = {"required": ["batch_size", "batchSize"]}
    if isinstance(properties, dict) and isinstance(properties.get("jitter"), dict):
        properties["jitter"]["default"] = "0%"
    return part
