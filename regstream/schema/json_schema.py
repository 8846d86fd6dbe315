"""Shapes written as JSON Schema (2020-12)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from regstream import spec
from regstream.schema import infer, types
from regstream.schema.types import Anything, Array, Number, Object, Shape, Text, Time

_LARGEST = 2**53
SAFE = 2**53 - 1
"""The greatest whole number that JavaScript, and whatever else reads numbers as doubles, is sure to keep."""
_UNSAFE = (
    "May be beyond 2^53 - 1 (9007199254740991): a reader that takes numbers for doubles, such as JSON.parse in"
    " JavaScript, gets another one."
)


def schema(shape: Shape) -> dict[str, Any]:
    """What validates every value of a shape, as JSON has it; open where the shape is."""
    values = _distinct(map(_json, shape.values))
    if not (values or shape.parts) or any(isinstance(part, Anything) for part in shape.parts):
        return {}
    plain_types = [kind for kind, of_type in (("null", [None]), ("boolean", [False, True])) if _all_in(of_type, values)]
    rest = [one for one in values if _type(one) not in plain_types]
    if rest and not shape.parts:
        return _listed(values)
    typed = _typed(shape.parts, plain_types)
    if not rest:
        return typed
    return {"anyOf": [_listed(rest), typed]}


def _json(value: Any) -> Any:
    """A constant as JSON shows it."""
    if isinstance(value, list | tuple):
        return [_json(one) for one in value]
    return {key: _json(one) for key, one in value.items()} if isinstance(value, dict) else value


def _distinct(values: Iterable[Any]) -> list[Any]:
    """Values without doubles; what no JSON has, a mapping with keys that are no texts, cannot be in an event."""
    return list({repr(_as_number(one)): one for one in values if _can_be(one)}.values())


def _as_number(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _can_be(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and all(map(_can_be, value.values()))
    return all(map(_can_be, value)) if isinstance(value, list) else True


def _all_in(wanted: list[Any], values: list[Any]) -> bool:
    return all(any(one is value for value in values) for one in wanted)


def _type(value: Any) -> str:
    kinds = {"NoneType": "null", "bool": "boolean", "str": "string", "list": "array", "dict": "object"}
    return kinds.get(type(value).__name__) or ("integer" if isinstance(value, int) else "number")


def _types(kinds: Iterable[str]) -> str | list[str]:
    every = list(dict.fromkeys(kinds))
    if "number" in every:
        every = [one for one in every if one != "integer"]
    return every[0] if len(every) == 1 else every


def is_unsafe(low: float, high: float) -> bool:
    """Whether whole numbers from ``low`` to ``high`` are known to go beyond what a double is sure to keep."""
    return any(math.isfinite(bound) and abs(bound) > SAFE for bound in (low, high))


def _wide(low: float, high: float) -> dict[str, Any]:
    """What is said of whole numbers that not every reader can take."""
    if not is_unsafe(low, high):
        return {}
    return {"format": "uint64" if math.isfinite(high) and high >= 2**63 else "int64", "description": _UNSAFE}


def _whole_numbers(value: Any) -> Iterable[int]:
    if isinstance(value, list | dict):
        parts: Iterable[Any] = value.values() if isinstance(value, dict) else value
        for one in parts:
            yield from _whole_numbers(one)
    elif _type(value) == "integer":
        yield value


def unsafe(said: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterable[tuple[str, ...]]:
    """The paths of the properties in a schema whose whole numbers not every reader can take."""
    if said.get("description") == _UNSAFE:
        yield path
    for name, one in said.get("properties", {}).items():
        yield from unsafe(one, (*path, name))
    for one in (*([said["items"]] if "items" in said else ()), *said.get("anyOf", ())):
        yield from unsafe(one, path)


def _listed(values: list[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"type": _types(map(_type, values))}
    whole = [one for value in values for one in _whole_numbers(value)]
    if whole:
        found |= _wide(min(whole), max(whole))
    return {**found, "const": values[0]} if len(values) == 1 else {**found, "enum": values}


def _typed(parts: Iterable[types.Part], further: list[str]) -> dict[str, Any]:
    """All parts at once: their keywords concern values of their own type only."""
    kinds: list[str] = []
    keywords: dict[str, Any] = {}
    for part in types.join(Shape(parts=(_shown(part),)) for part in parts).parts:
        kind, said = _WRITERS[type(part)](part)
        kinds.append(kind)
        keywords |= said
    return {"type": _types([*kinds, *further]), **keywords}


def _shown(part: types.Part) -> types.Part:
    return Text(format="date-time") if isinstance(part, Time) else part


def _number(part: Number) -> tuple[str, dict[str, Any]]:
    bounds = {"minimum": part.low, "maximum": part.high}
    # A whole number is written as it is, a float of that size would be one of many
    kept = {
        key: bound
        for key, bound in bounds.items()
        if math.isfinite(bound) and (abs(bound) <= _LARGEST or (part.whole and isinstance(bound, int)))
    }
    if not part.whole:
        return "number", kept
    return "integer", {**kept, **_wide(part.low, part.high)}


def _text(part: Text) -> tuple[str, dict[str, Any]]:
    if part.format:
        return "string", {"format": part.format}
    return "string", {} if part.regex is None else {"pattern": f"^{part.regex}$"}


def _array(part: Array) -> tuple[str, dict[str, Any]]:
    items = schema(part.items)
    said: dict[str, Any] = {"items": items} if items else {}
    if part.least:
        said["minItems"] = part.least
    if part.most is not None:
        said["maxItems"] = part.most
    return "array", said


def _object(part: Object) -> tuple[str, dict[str, Any]]:
    said: dict[str, Any] = {}
    if part.fields:
        said["properties"] = {name: schema(one) for name, one in part.fields.items()}
    if part.required:
        said["required"] = [name for name in part.fields if name in part.required]
    if not part.is_open:
        said["additionalProperties"] = False
    return "object", said


_WRITERS: Mapping[type, Callable[[Any], tuple[str, dict[str, Any]]]] = {
    Number: _number,
    Text: _text,
    Array: _array,
    Object: _object,
}


DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TEXT = {"type": "string"}
_TEXT_OR_NULL = {"type": ["string", "null"]}
_ALERT = {
    "severity": {"type": "string", "enum": [str(one) for one in spec.Severity]},
    "message": {**_TEXT, "description": "What people read."},
    "stream": {**_TEXT_OR_NULL, "description": "The stream whose event raised it; null: a scenario did."},
    "causeSeq": {"type": ["integer", "null"], "minimum": 1, "description": "The number of that event."},
    "scenario": {**_TEXT_OR_NULL, "description": "The scenario that raised it, or whose run the event was of."},
    "runId": {**_TEXT_OR_NULL, "description": "The run of that scenario."},
}
_EPOCH = "[^/]+"
_OPTIONAL = ("recordedtime", "traceparent", "replay")


class Schemas:
    """The schemas of one catalog's streams and of ``ALERTS``; made when they are asked for, and then kept."""

    def __init__(self, catalog: spec.Catalog) -> None:
        self._catalog = catalog
        self._declared = infer.Declared(catalog)
        self._made: dict[str, dict[str, Any]] = {}

    @property
    def names(self) -> list[str]:
        """The streams in the order of the files, and ``ALERTS``."""
        return [*self._catalog.streams, spec.ALERTS]

    def data(self, name: str) -> dict[str, Any]:
        """The schema of a stream's ``data``, to stand in another document. Raises KeyError."""
        if name not in self._made:
            self._made[name] = self._data(name)
        return self._made[name]

    def _data(self, name: str) -> dict[str, Any]:
        if name == spec.ALERTS:
            closed = {"type": "object", "properties": _ALERT, "required": list(_ALERT), "additionalProperties": False}
            return {"title": f"data of {name}", "description": "Something that people see at once", **closed}
        said = self._catalog.streams[name].description
        described = {"description": said} if said else {}
        return {"title": f"data of {name}", **described, **schema(self._declared.data(name))}

    def unsafe(self, name: str) -> list[tuple[str, ...]]:
        """The fields of a stream's ``data`` whose whole numbers are known to go beyond 2**53 - 1. Raises KeyError."""
        return list(dict.fromkeys(unsafe(self.data(name))))

    def key(self, name: str) -> dict[str, Any] | None:
        """The schema of the keys of a stream's events, None where they have none. Raises KeyError."""
        if name == spec.ALERTS:
            return dict(_TEXT)
        found = self._declared.key(name) if self._catalog.streams[name].key else None
        return None if found is None else schema(found)

    def event(self, name: str, data: dict[str, Any] | None = None) -> dict[str, Any]:
        """The schema of a stream's CloudEvents; ``data`` stands for that of their data. Raises KeyError."""
        declaration = self._catalog.streams.get(name)
        kind = declaration.event if declaration is not None else spec.ALERT_TYPE
        held = self.data(name) if data is None else data
        replay = {"const": True, "description": "It was stored and is sent to dashboards again."}
        properties = {**_envelope(name, kind), "data": held, "replay": replay}
        required = [key for key in properties if key not in _OPTIONAL]
        closed = {"properties": properties, "required": required, "additionalProperties": False}
        return {"title": f"event of {name}", "type": "object", **closed}

    def document(self, name: str, whole: bool = False) -> dict[str, Any]:
        """A document of its own: of ``data``, or of the ``whole`` CloudEvent. Raises KeyError."""
        what = "event" if whole else "data"
        made = self.event(name) if whole else self.data(name)
        return {"$schema": DIALECT, "$id": f"urn:regstream:{name}:{what}", **made}


def _envelope(name: str, kind: str) -> dict[str, Any]:
    """The context attributes of CloudEvents 1.0.2 and the extensions, as ``stream.envelope`` writes them."""
    return {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "pattern": f"^{name}/{_EPOCH}/[1-9][0-9]*$"},
        "source": {"type": "string", "format": "uri-reference", "minLength": 1},
        "type": {"const": kind},
        "subject": {"const": name},
        "time": {"type": "string", "format": "date-time"},
        "recordedtime": {"type": "string", "format": "date-time"},
        "datacontenttype": {"const": "application/json"},
        "epoch": {"type": "string", "pattern": f"^{_EPOCH}$"},
        "seq": {"type": "integer", "minimum": 1},
        "priority": {"type": "string", "enum": [str(one) for one in spec.Priority]},
        "region": _TEXT,
        "traceparent": {"type": "string", "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"},
    }
