"""What may stand at a place of a file, found by walking the declarations of ``model``."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, NamedTuple

import pydantic

from regstream import errors, spec
from regstream.config import yaml

Spec = type[spec.Spec]

INTERNAL = frozenset({"name", "files"})
"""Fields of specs that the loader fills and no file holds, but for the name of a scenario."""


def keys(spec: Spec) -> list[str]:
    """The keys that a mapping of this kind may have in a file; the first spelling of each."""
    return [names[0] for names in spellings(spec).values()]


@functools.cache
def spellings(declaration: Spec) -> dict[str, list[str]]:
    """For each field that a file may give, the keys that give it."""
    hidden = frozenset[str]() if declaration is spec.ScenarioSpec else INTERNAL
    return {name: _aliases(name, field) for name, field in declaration.model_fields.items() if name not in hidden}


def _aliases(name: str, field: pydantic.fields.FieldInfo) -> list[str]:
    alias = field.validation_alias
    if isinstance(alias, pydantic.AliasChoices):
        return [str(choice) for choice in alias.choices]
    return [str(alias or name)]


def follow(declaration: Spec, loc: tuple[str | int, ...]) -> tuple[yaml.Where, Any]:
    """The place that a pydantic ``loc`` means, without the tags of unions, and the type of what stands there."""
    kind: Any = declaration
    where: list[str | int] = []
    for part in loc:
        kind = bare(kind)
        if _is_step(kind) and part in spec.STEP_KINDS:
            kind = spec.STEP_KINDS[str(part)]
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
    if isinstance(kind, type) and issubclass(kind, spec.Spec):
        return _declared(kind, part)
    inner = typing.get_args(kind)
    return (inner[1] if isinstance(part, str) else inner[0]) if len(inner) > 1 else None


@functools.lru_cache(1024)
def _declared(spec: Spec, key: str | int) -> Any:
    for name, names in spellings(spec).items():
        if key in names:
            field = spec.model_fields[name]
            return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    return None


def misspelt(spec: Spec, key: str, given: Iterable[str]) -> bool:
    """Whether one of the keys that are given, and unknown, is probably meant to be ``key``."""
    known = keys(spec)
    spelt = {one for names in spellings(spec).values() for one in names}
    return any(key in errors.near(one, known, 1) for one in given if one not in spelt)


def empty(kind: Any, data: Any) -> Iterator[yaml.Where]:
    """Where a key is given without a value."""
    return (one.where for one in _members(kind, data) if one.declared and one.value is None)


def durations(kind: Any, data: Any) -> Iterator[tuple[yaml.Where, int]]:
    """Where a duration is given as a whole number, and which."""
    return ((one.where, one.value) for one in _members(kind, data) if type(one.value) is int and _is_duration(one.kind))


def _is_duration(kind: Any) -> bool:
    """Whether values of an annotated type are read as durations."""
    if typing.get_origin(kind) is Annotated:
        inner, *more = typing.get_args(kind)
        return any(getattr(one, "func", None) is spec.milliseconds for one in more) or _is_duration(inner)
    return any(_is_duration(one) for one in typing.get_args(kind))


class _Member(NamedTuple):
    """A value within others: its place, the type of what may stand there, and whether its key is a declared one."""

    where: yaml.Where
    kind: Any
    declared: bool
    value: Any


def _members(kind: Any, data: Any) -> Iterator[_Member]:
    """Every value within ``data``, depth first."""
    kind = bare(kind)
    if _is_step(kind) and isinstance(data, dict):
        kind = next((spec.STEP_KINDS[key] for key in data if key in spec.STEP_KINDS), None)
    if not isinstance(data, dict | list) or kind in (None, Any):
        return
    declared = isinstance(kind, type) and issubclass(kind, spec.Spec)
    for part, value in data.items() if isinstance(data, dict) else enumerate(data):
        inner = _inner(kind, part)
        yield _Member((part,), inner, declared, value)
        for one in _members(inner, value):
            yield one._replace(where=(part, *one.where))
