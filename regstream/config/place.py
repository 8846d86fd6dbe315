"""What pydantic finds → our own sentences at the right place; and what may stand at a place."""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import pydantic
import pydantic_core

from regstream import errors, model
from regstream.config import sheet as sheets
from regstream.config import yaml

Spec = type[model.Spec]

NOTHING = "nothing is written here"
INTERNAL = frozenset({"name", "files"})
"""Fields of specs that the loader fills and no file holds, but for the name of a scenario."""

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
_PATTERNS = {
    r"^[A-Za-z][A-Za-z0-9_-]{0,63}$": "must begin with a letter and hold only letters, digits, _ and -, 64 at most",
    r"^[A-Za-z][A-Za-z0-9_]{0,63}$": _WORD,
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,248}$": "must hold only letters, digits, '.', _ and -, 249 at most",
    r"^[a-z0-9][a-z0-9._-]{0,63}$": "must hold only small letters, digits, '.', _ and -, 64 at most",
}
_TRUTH = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
_TRUTH |= {"true": "true", "false": "false", "1": "true", "0": "false"}


def keys(spec: Spec) -> list[str]:
    """The keys that a mapping of this kind may have in a file; the first spelling of each."""
    return [names[0] for names in spellings(spec).values()]


def spellings(spec: Spec) -> dict[str, list[str]]:
    """For each field that a file may give, the keys that give it."""
    hidden = frozenset[str]() if spec is model.ScenarioSpec else INTERNAL
    return {name: _aliases(name, field) for name, field in spec.model_fields.items() if name not in hidden}


def _aliases(name: str, field: pydantic.fields.FieldInfo) -> list[str]:
    alias = field.validation_alias
    if isinstance(alias, pydantic.AliasChoices):
        return [str(choice) for choice in alias.choices]
    return [str(alias or name)]


def follow(spec: Spec, loc: tuple[str | int, ...]) -> tuple[yaml.Where, Any]:
    """The place that a pydantic ``loc`` means, without the tags of unions, and the type of what stands there."""
    kind: Any = spec
    where: list[str | int] = []
    for part in loc:
        kind = bare(kind)
        if part == "[key]":
            break
        if _is_step(kind) and part in model.STEP_KINDS:
            kind = model.STEP_KINDS[str(part)]
            continue
        where.append(part)
        kind = _inner(kind, part)
    return tuple(where), bare(kind)


def bare(kind: Any) -> Any:
    """A type without what is wrapped around it: ``Annotated`` and ``| None``."""
    if typing.get_origin(kind) is Annotated and not isinstance(kind, type):
        return bare(typing.get_args(kind)[0])
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        rest = [one for one in typing.get_args(kind) if one is not type(None)]
        return bare(rest[0]) if len(rest) == 1 else kind
    return kind


def _is_step(kind: Any) -> bool:
    return typing.get_origin(kind) in (typing.Union, types.UnionType)


def _inner(kind: Any, part: str | int) -> Any:
    if isinstance(kind, type) and issubclass(kind, model.Spec):
        for name, names in spellings(kind).items():
            if part in names:
                return kind.model_fields[name].annotation
        return None
    inner = typing.get_args(kind)
    return (inner[1] if isinstance(part, str) else inner[0]) if len(inner) > 1 else None


class Finding(typing.NamedTuple):
    """One fault of a value: where (from the value on), what kind pydantic calls it."""

    where: yaml.Where
    type: str


def validate(
    sheet: sheets.Sheet, base: yaml.Where, spec: Spec, data: Any, ignore: frozenset[str] = frozenset()
) -> tuple[Any, list[Finding]]:
    """``data`` as a ``spec``, or None and what is wrong with it; all of that is reported, relative to ``base``.

    ``ignore`` names keys about which nothing is said.
    """
    try:
        for where in _empty(spec, data):
            sheet.report((*base, *where), f"{_label(where)}: {NOTHING}", "give a value or leave the key out")
        return spec.model_validate(data, by_alias=True, by_name=False), []
    except pydantic.ValidationError as error:
        return None, _report(sheet, base, spec, error, ignore)


def _report(
    sheet: sheets.Sheet, base: yaml.Where, spec: Spec, error: pydantic.ValidationError, ignore: frozenset[str]
) -> list[Finding]:
    findings = []
    for detail in error.errors(include_url=False):
        where, _ = follow(spec, detail["loc"])
        if (where and where[0] in ignore) or _is_echo(spec, detail):
            continue
        findings.append(Finding(where, detail["type"]))
        if detail["type"] == "step" or _beside_step(spec, detail):
            where = where if detail["type"] == "step" else where[:-1]
            _report_step(sheet, (*base, *where))
        else:
            message, hint, key = sentence(spec, detail)
            sheet.report((*base, *where), message, hint, key=key)
    return findings


def _is_echo(spec: Spec, detail: pydantic_core.ErrorDetails) -> bool:
    """A container that is too short because its members are wrong, a key that is missing because it is misspelt."""
    if detail["type"] == "too_short":
        return bool(len(detail["input"]) >= detail["ctx"]["min_length"])
    if detail["type"] == "missing" and isinstance(detail["input"], dict):
        parent = follow(spec, detail["loc"][:-1])[1]
        return misspelt(parent, str(detail["loc"][-1]), detail["input"])
    return False


def misspelt(spec: Spec, key: str, given: Iterable[str]) -> bool:
    """Whether one of the keys that are given, and unknown, is probably meant to be ``key``."""
    known = keys(spec)
    spelt = {one for names in spellings(spec).values() for one in names}
    return any(key in errors.near(one, known, 1) for one in given if one not in spelt)


def _beside_step(spec: Spec, detail: pydantic_core.ErrorDetails) -> bool:
    parent = follow(spec, detail["loc"][:-1])[1]
    return detail["type"] == "extra_forbidden" and parent in model.STEP_KINDS.values()


def _report_step(sheet: sheets.Sheet, where: yaml.Where) -> None:
    data = sheet.value(where)
    label = _label(where)
    kinds = " ".join(model.STEP_KINDS)
    if not isinstance(data, dict):
        sheet.report(where, f"{label}: {wanted('a mapping', data)}", f"a step has one key of {kinds}")
        return
    for key in [one for one in data if one not in model.STEP_KINDS]:
        hint = errors.did_you_mean(key, model.STEP_KINDS) or f"a step has one key of {kinds}"
        sheet.report((*where, key), f"unknown step '{key}'", hint, key=True)
    known = [one for one in data if one in model.STEP_KINDS]
    if len(known) > 1:
        sheet.report(
            where, f"{label}: a step has one key, not {len(known)}: {' '.join(known)}", "make it several steps"
        )
    if not data:
        sheet.report(where, f"{label}: a step without a key", f"a step has one key of {kinds}")


def sentence(spec: Spec, detail: pydantic_core.ErrorDetails) -> tuple[str, str, bool]:
    """Message, hint, and whether the key is meant rather than its value."""
    where, kind = follow(spec, detail["loc"])
    last = str(where[-1]) if where else ""
    if detail["type"] == "extra_forbidden":
        return *_unknown_key(follow(spec, detail["loc"][:-1])[1], last, detail), True
    if detail["type"] == "missing":
        return f"key '{last}' is missing", "", True
    name = detail["loc"][-1] == "[key]" if detail["loc"] else False
    if name or (last == "name" and spec is not model.ScenarioSpec):
        return f"name '{detail['input']}' {_reason(detail)}", "", True
    return f"{_label(where)}: {_reason(detail)}", _hint(detail, kind), False


def _unknown_key(parent: Any, key: str, detail: pydantic_core.ErrorDetails) -> tuple[str, str]:
    if key == "batchSize":
        return "batch_size and batchSize are the same key, and both are given", "leave one out"
    return unknown_key(parent, key)


def unknown_key(spec: Spec, key: str) -> tuple[str, str]:
    """Message and hint for a key that a mapping of this kind does not have."""
    known = keys(spec)
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
        return _PATTERNS.get(context["pattern"], f"must match {context['pattern']}")
    return _rare(kind, context, detail)


def _bound(bound: float, given: Any) -> str:
    if isinstance(given, str) and "%" in given:
        return f"{bound:.0%}"
    return model.duration_text(model.MAX_DURATION) if bound == model.MAX_DURATION else str(bound)


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
    if detail["type"] == "string_type" and isinstance(value, int | float):
        return "put it in quotes"
    return ""


def report_no_mapping(sheet: sheets.Sheet, data: Any) -> None:
    """A whole file that is something else."""
    sheet.report((), yaml.EMPTY if data is None else f"the file must be a mapping, not {shown(data)}")


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


def _label(where: yaml.Where) -> str:
    if where and isinstance(where[-1], int):
        return f"{_label(where[:-1])}[{where[-1]}]"
    return str(where[-1]) if where else "the file"


def _empty(kind: Any, data: Any) -> Iterator[yaml.Where]:
    """Where a key is given without a value."""
    kind = bare(kind)
    if _is_step(kind) and isinstance(data, dict):
        kind = next((model.STEP_KINDS[key] for key in data if key in model.STEP_KINDS), None)
    if not isinstance(data, dict | list) or kind in (None, Any):
        return
    declared = isinstance(kind, type) and issubclass(kind, model.Spec)
    for part, value in data.items() if isinstance(data, dict) else enumerate(data):
        if declared and value is None:
            yield (part,)
        for where in _empty(_inner(kind, part), value):
            yield (part, *where)
