"""What a value can be, as far as it can be proved: finitely many constants, and at most one part of each type.

A shape may allow more than there is, never less. Undefined values have none: an event that would carry one is not
made.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

MOST = 64
"""More constants than this are summed up by their types."""

DEEPEST = 4
"""What grows is not looked into further than so many lists and mappings."""

LARGEST = 2**64
"""Whole numbers from here on are in no event."""

INFINITY = math.inf


@dataclasses.dataclass(frozen=True, slots=True)
class Number:
    """Numbers from ``low`` to ``high``, both included; ``whole`` if they are of Python's type ``int``."""

    low: float = -INFINITY
    high: float = INFINITY
    whole: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Text:
    """Texts that ``regex`` matches from end to end, any when it is None; ``format`` is a name of JSON Schema's."""

    regex: str | None = None
    format: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Time:
    """The present time, which is shown as a text."""


@dataclasses.dataclass(frozen=True, slots=True)
class Array:
    """Lists of ``least`` to ``most`` values; None: of any number."""

    items: Shape
    least: int = 0
    most: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Object:
    """Mappings with these keys, of which ``required`` are always there; ``is_open`` if there may be others.

    ``entity`` is the name of the entity whose row it is.
    """

    fields: Mapping[str, Shape]
    required: frozenset[str]
    is_open: bool = False
    entity: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Anything:
    """Nothing is known."""


Part = Number | Text | Time | Array | Object | Anything


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """A union of constants and parts."""

    values: tuple[Any, ...] = ()
    parts: tuple[Part, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is no such value: what would be undefined, or is not known yet."""
        return not self.values and not self.parts

    def only(self, *kinds: type) -> bool:
        """Whether every value is of these parts or, if it is a constant, would be."""
        kept = all(isinstance(part, kinds) for part in self.parts)
        return kept and all(isinstance(part_of(value), kinds) for value in self.values)


NOTHING = Shape()
ANY = Shape(parts=(Anything(),))
TEXT = Shape(parts=(Text(),))
TIME = Shape(parts=(Time(),))
NUMBER = Shape(parts=(Number(),))
WHOLE = Shape(parts=(Number(whole=True),))
COUNT = Shape(parts=(Number(0, whole=True),))
BOOLEAN = Shape((False, True))
LIST = Shape(parts=(Array(ANY),))
MAPPING = Shape(parts=(Object({}, frozenset(), is_open=True),))


def constants(values: Iterable[Any]) -> Shape:
    """The shape of values that are all known; they must be ``plain``."""
    return _tidy({repr(one): one for one in values}, {})


def mapping(fields: Mapping[str, Shape], optional: Iterable[str] = (), entity: str = "") -> Shape:
    """The shape of mappings with exactly these keys, but for those that are ``optional``."""
    return Shape(parts=(Object(dict(fields), frozenset(fields) - set(optional), entity=entity),))


def plain(value: Any) -> bool:
    """Whether a value can be a constant here: what an event can carry, and tuples, and mappings with other keys."""
    if type(value) in (list, tuple):
        return all(map(plain, value))
    if type(value) is dict:
        return all(plain(one) for pair in value.items() for one in pair)
    if type(value) is int:
        return abs(value) < LARGEST
    return type(value) in (str, bool, type(None)) or (type(value) is float and math.isfinite(value))


def join(shapes: Iterable[Shape]) -> Shape:
    """What is one of several shapes."""
    values: dict[str, Any] = {}
    parts: dict[type, Part] = {}
    for shape in shapes:
        values |= {repr(one): one for one in shape.values}
        for part in shape.parts:
            _add(parts, part)
    return _tidy(values, parts)


def _add(parts: dict[type, Part], part: Part) -> None:
    parts[type(part)] = _merged(parts[type(part)], part) if type(part) in parts else part


def _tidy(values: dict[str, Any], parts: dict[type, Part]) -> Shape:
    kept: list[Any] = []
    many = len(values) > MOST
    for value in values.values():
        part = part_of(value)
        if part is None or not (many or _has(parts, part, value)):
            kept.append(value)
        elif many or not isinstance(part, Text):
            _add(parts, part)
    return ANY if Anything in parts else Shape(tuple(kept), tuple(parts.values()))


def _has(parts: Mapping[type, Part], part: Part, value: Any) -> bool:
    """Whether a constant goes with a part of its type that there is; a text may be none of those that one has."""
    there = parts.get(type(part))
    if isinstance(there, Text) and there.regex is not None:
        return re.fullmatch(there.regex, value) is not None
    return there is not None


def part_of(value: Any) -> Part | None:
    """The part that a constant would be in; None for null, false and true."""
    if isinstance(value, str):
        return Text()
    if isinstance(value, list | tuple):
        return Array(constants(value), len(value), len(value))
    if isinstance(value, dict):
        named = all(isinstance(key, str) for key in value)
        fields = {key: constants([one]) for key, one in value.items()} if named else {}
        return Object(fields, frozenset(fields)) if named else Anything()
    return None if value is None or isinstance(value, bool) else Number(value, value, isinstance(value, int))


def _merged(one: Any, other: Any) -> Part:
    if isinstance(one, Number):
        return Number(min(one.low, other.low), max(one.high, other.high), one.whole and other.whole)
    if isinstance(one, Text):
        return Text(one.regex if one.regex == other.regex else None, one.format if one.format == other.format else "")
    if isinstance(one, Array):
        most = None if one.most is None or other.most is None else max(one.most, other.most)
        return Array(join((one.items, other.items)), min(one.least, other.least), most)
    return _merged_objects(one, other) if isinstance(one, Object) else one


def _merged_objects(one: Object, other: Object) -> Object:
    is_open = one.is_open or other.is_open
    # An open one may have any value under a name that it does not list
    names = [
        name for name in {**one.fields, **other.fields} if not is_open or (name in one.fields and name in other.fields)
    ]
    fields = {name: join(side.fields[name] for side in (one, other) if name in side.fields) for name in names}
    entity = one.entity if one.entity == other.entity else ""
    return Object(fields, one.required & other.required, is_open, entity)


def widened(shape: Shape, depth: int = DEEPEST) -> Shape:
    """The types of a shape without their bounds, to a depth, so that what grows with each event comes to an end."""
    if not depth:
        return ANY
    loose = [one for one in map(part_of, shape.values) if one is not None]
    kept = {repr(one): one for one in shape.values if part_of(one) is None}
    parts: dict[type, Part] = {}
    for part in (*shape.parts, *loose):
        _add(parts, _widened(part, depth - 1))
    return _tidy(kept, parts)


def _widened(part: Part, depth: int) -> Part:
    if isinstance(part, Number):
        return Number(0 if part.low >= 0 else -INFINITY, INFINITY, part.whole)
    if isinstance(part, Array):
        return Array(widened(part.items, depth))
    if isinstance(part, Object):
        fields = {name: widened(one, depth) for name, one in part.fields.items()}
        return Object(fields, part.required, part.is_open, part.entity)
    return Text() if isinstance(part, Text) else part
