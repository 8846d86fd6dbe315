"""Shapes written as JSON Schema (2020-12)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from regstream.generate.shapes import shape as shapes
from regstream.generate.shapes.shape import Anything, Array, Number, Object, Shape, Text, Time

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


def _typed(parts: Iterable[shapes.Part], further: list[str]) -> dict[str, Any]:
    """All parts at once: their keywords concern values of their own type only."""
    kinds: list[str] = []
    keywords: dict[str, Any] = {}
    for part in shapes.join(Shape(parts=(_shown(part),)) for part in parts).parts:
        kind, said = _WRITERS[type(part)](part)
        kinds.append(kind)
        keywords |= said
    return {"type": _types([*kinds, *further]), **keywords}


def _shown(part: shapes.Part) -> shapes.Part:
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
