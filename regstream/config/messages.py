"""What pydantic finds, and what it does not, as our own sentences."""

from __future__ import annotations

import enum
from typing import Any

import pydantic_core

from regstream import errors, spec
from regstream.config import locate, yaml

NOTHING = "nothing is written here"

_KINDS = {
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
}
_BOUNDS = {
    "greater_than_equal": ("must be at least", "ge"),
    "greater_than": ("must be more than", "gt"),
    "less_than_equal": ("must be at most", "le"),
    "less_than": ("must be less than", "lt"),
}
_WORD = "must begin with a letter and hold only letters, digits and _, 64 at most"
PATTERNS = {
    r"^[A-Za-z][A-Za-z0-9_-]{0,63}$": "must begin with a letter and hold only letters, digits, _ and -, 64 at most",
    r"^[A-Za-z][A-Za-z0-9_]{0,63}$": _WORD,
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,248}$": "must hold only letters, digits, '.', _ and -, 249 at most",
    r"^[A-Za-z][A-Za-z0-9_]{0,63}\.[A-Za-z][A-Za-z0-9_]{0,63}$": "must be ENTITY.FIELD, like svp.spent",
    r"^[a-z0-9][a-z0-9._-]{0,63}$": "must hold only small letters, digits, '.', _ and -, 64 at most",
}
_TRUTH = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
_TRUTH |= {"true": "true", "false": "false", "1": "true", "0": "false"}


def located(detail: pydantic_core.ErrorDetails) -> tuple[tuple[str | int, ...], bool]:
    """The ``loc`` of a finding, and whether it means the name of an entry rather than the entry."""
    loc = detail["loc"]
    is_name = detail["type"] == "string_pattern_mismatch" and loc[-1:] == ("[key]",)
    return (loc[:-1], True) if is_name else (loc, False)


def sentence(declaration: locate.Spec, detail: pydantic_core.ErrorDetails) -> tuple[str, str, bool]:
    """Message, hint, and whether the key is meant rather than its value."""
    loc, is_name = located(detail)
    where, kind = locate.follow(declaration, loc)
    last = str(where[-1]) if where else ""
    if detail["type"] == "extra_forbidden":
        return *_unknown_key(locate.follow(declaration, detail["loc"][:-1])[1], last, detail), True
    if detail["type"] == "missing":
        return f"key '{last}' is missing", "", True
    if is_name or (last == "name" and declaration is not spec.ScenarioSpec):
        return f"name '{detail['input']}' {_reason(detail)}", "", True
    return f"{label(where)}: {_reason(detail)}", _hint(detail, kind), False


def _unknown_key(parent: Any, key: str, detail: pydantic_core.ErrorDetails) -> tuple[str, str]:
    if key == "batchSize":
        return "batch_size and batchSize are the same key, and both are given", "leave one out"
    return unknown_key(parent, key)


def unknown_key(spec: locate.Spec, key: str) -> tuple[str, str]:
    """Message and hint for a key that a mapping of this kind does not have."""
    known = locate.keys(spec)
    return f"unknown key '{key}'", errors.did_you_mean(key, known) or f"known here: {' '.join(known)}"


def _reason(detail: pydantic_core.ErrorDetails) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if detail["input"] is None:
        return NOTHING
    if kind in _KINDS:
        return f"{_KINDS[kind]}, not {shown(detail['input'])}"
    if kind in _BOUNDS:
        words, name = _BOUNDS[kind]
        text = _bound(context[name], detail["input"])
        return f"{words} {text}, not {shown(detail['input'])}"
    if kind == "value_error":
        return str(context["error"])
    if kind == "string_pattern_mismatch":
        return PATTERNS.get(context["pattern"], f"must match {context['pattern']}")
    return _rare(kind, context, detail)


def _bound(bound: float, given: Any) -> str:
    if isinstance(given, str) and "%" in given:
        return f"{bound:.0%}"
    return spec.duration_text(spec.MAX_DURATION) if bound == spec.MAX_DURATION else str(bound)


def _rare(kind: str, context: dict[str, Any], detail: pydantic_core.ErrorDetails) -> str:
    if kind in ("enum", "literal_error"):
        return f"must be {str(context['expected']).replace(chr(39), '')}, not {shown(detail['input'])}"
    if kind == "too_short":
        return "must not be empty"
    if kind == "too_long":
        return f"must have at most {context['max_length']} entries"
    return detail["msg"][:1].lower() + detail["msg"][1:]


def _hint(detail: pydantic_core.ErrorDetails, kind: Any) -> str:
    value = detail["input"]
    if detail["type"] == "enum" and isinstance(value, str) and isinstance(kind, enum.EnumMeta):
        return errors.did_you_mean(value, list(kind.__members__))
    if detail["type"] in ("bool_type", "bool_parsing") and str(value).lower() in _TRUTH:
        return f"write {_TRUTH[str(value).lower()]}"
    if detail["type"] == "greater_than_equal" and detail["ctx"]["ge"] == spec.LEAST_DWELL:
        # A text has its unit already
        return f"write {value}s" if type(value) is int and 0 < value < 100 else ""
    if detail["type"] == "string_type" and isinstance(value, int | float):
        return "put it in quotes"
    return ""


def wanted(what: str, value: Any) -> str:
    """That ``what`` must stand where ``value`` does."""
    return NOTHING if value is None else f"must be {what}, not {shown(value)}"


def shown(value: Any) -> str:
    """A value in a sentence: short ones as they are, others by their kind."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list | tuple):
        return "a mapping" if isinstance(value, dict) else "a list"
    if isinstance(value, str):
        return f"'{value}'" if len(value) <= 40 and value.isprintable() else "a text"
    return str(value)


def label(where: yaml.Where) -> str:
    """The last part of a place, as a message begins with it: ``interval``, ``steps[2]``."""
    if where and isinstance(where[-1], int):
        return f"{label(where[:-1])}[{where[-1]}]"
    return str(where[-1]) if where else "the file"
