"""Values that templates make, as JSON that gives them back as they were: with their type, their order, each character.

What JSON and PostgreSQL's ``jsonb`` hold exactly stands there as it is. Anything else is an object with one member,
whose name begins with ``$`` and says what it is. ``jsonb`` holds no character 0, no half of a surrogate pair, no
``-0.0``, no order of an object's members but its own, and writes ``1e22`` as a whole number.
"""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import jinja2.filters

from regstream.generate import vocabulary

DEPTH = 240
"""How many levels of JSON a value may take: the encoder allows 254, with those around it."""
_LEAST, _MOST = -(2**63), 2**64 - 1
_TINY, _LARGE = 1e-15, 1e15
_MARK = "$"
_Markup = type(jinja2.filters.do_mark_safe(""))


def plain(text: str) -> bool:
    """Whether a database can hold the text as it is."""
    if "\0" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def encode(value: Any, depth: int = 0) -> Any:
    """The value as JSON that ``decode`` takes. Raises ValueError for what cannot be kept, with the cause."""
    kind = type(value)
    if kind is float:
        size = abs(value)
        if _TINY <= size < _LARGE or (size == 0.0 and math.copysign(1.0, value) > 0):
            return value
    elif kind is int:
        if _LEAST <= value <= _MOST:
            return value
    elif kind is str:
        if plain(value):
            return value
    elif value is None or kind is bool:
        return value
    if depth >= DEPTH:
        raise ValueError(f"a value of more than {DEPTH} levels as JSON cannot be kept")
    if kind is list:
        return [encode(one, depth + 1) for one in value]
    if isinstance(value, dict) and kind is not dict:
        # A row of an entity
        value, kind = dict(value), dict
    if kind is dict and _ordered(value):
        return {key: encode(one, depth + 1) for key, one in value.items()}
    if kind not in _CODES:
        raise ValueError(f"a {kind.__name__} cannot be kept")
    name, parts, _ = _CODES[kind]
    return {name: encode(parts(value), depth + 1) if kind in _NESTED else parts(value)}


def encode_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Each value encoded; most are numbers and short texts, of which no more is asked than whether they are plain."""
    found = {}
    for name, value in fields.items():
        kind = type(value)
        if (
            (kind is float and _TINY <= value < _LARGE)
            or (kind is str and value.isascii() and "\0" not in value)
            or (kind is int and _LEAST <= value <= _MOST)
            or kind is bool
        ):
            found[name] = value
        else:
            found[name] = encode(value)
    return found


def decode(value: Any) -> Any:
    """The value that was encoded so. Raises ValueError for what nothing was."""
    kind = type(value)
    if kind is list:
        return [decode(one) for one in value]
    if kind is not dict:
        return value
    if len(value) == 1:
        ((name, inner),) = value.items()
        if name in _MAKERS:
            try:
                return _MAKERS[name](decode(inner))
            except (TypeError, LookupError, AttributeError, OverflowError) as error:
                raise ValueError(f"not a value of {name}: {error}") from error
    return {key: decode(one) for key, one in value.items()}


def _ordered(value: Mapping[Any, Any]) -> bool:
    """Whether its members have names that are plain, in the order that ``jsonb`` gives them: by length, then bytes."""
    before = (-1, b"")
    for key in value:
        if type(key) is not str or key.startswith(_MARK) or not plain(key):
            return False
        text = key.encode()
        here = (len(text), text)
        if here <= before:
            return False
        before = here
    return True


def escaped(text: str) -> str:
    """The text in characters of ASCII that every database can hold; ``unescaped`` takes it back."""
    return text.encode("unicode_escape").decode()


def unescaped(text: str) -> str:
    """The text that was escaped so. Raises ValueError for what nothing was."""
    return text.encode("ascii").decode("unicode_escape")


def _pairs(value: Mapping[Any, Any]) -> list[list[Any]]:
    return [[key, one] for key, one in value.items()]


_Code = tuple[str, Callable[[Any], Any], Callable[[Any], Any]]
_CODES: dict[type, _Code] = {
    str: ("$text", escaped, unescaped),
    int: ("$int", hex, lambda text: int(text, 16)),
    float: ("$float", float.hex, float.fromhex),
    dict: ("$dict", _pairs, dict),
    tuple: ("$tuple", list, tuple),
    range: ("$range", lambda one: [one.start, one.stop, one.step], lambda ends: range(*ends)),
    type({}.keys()): ("$keys", list, lambda keys: dict.fromkeys(keys).keys()),
    type({}.values()): ("$values", list, lambda values: dict(enumerate(values)).values()),
    type({}.items()): ("$items", lambda items: _pairs(dict(items)), lambda pairs: dict(pairs).items()),
    _Markup: ("$markup", str.__str__, jinja2.filters.do_mark_safe),
    vocabulary.Instant: ("$instant", datetime.datetime.isoformat, vocabulary.Instant.fromisoformat),
    datetime.datetime: ("$datetime", datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    datetime.date: ("$date", datetime.date.isoformat, datetime.date.fromisoformat),
    datetime.time: ("$time", datetime.time.isoformat, datetime.time.fromisoformat),
    datetime.timedelta: (
        "$duration",
        lambda one: [one.days, one.seconds, one.microseconds],
        lambda parts: datetime.timedelta(*parts),
    ),
    datetime.timezone: (
        "$zone",
        lambda one: one.utcoffset(None),
        datetime.timezone,
    ),
    time.struct_time: ("$fields", list, time.struct_time),
}
# Those of which the parts are values of any kind themselves
_NESTED = {kind for kind in _CODES if kind not in (str, int, float)}
_MAKERS = {name: make for name, _, make in _CODES.values()}
