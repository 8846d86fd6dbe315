"""Arithmetic on shapes: which numbers an operation can give, by the bounds of what it is given.

Bounds are made by the operation itself; rounding keeps order, so they hold for what is rounded too. Where that is not
sure (whole numbers that a float cannot hold) there is no bound. Numbers are taken as finite: an event that carries
another is not made.
"""

from __future__ import annotations

import itertools
import math
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from regstream.schema import types
from regstream.schema.types import ANY, INFINITY, TEXT, Number, Shape, Text, Time

_EXACT = 2**53
_LONGEST_POWER = 1_024


def numeric_span(one: Shape, booleans: bool = True) -> Number | None:
    """The numbers that a shape has when it has nothing else; false and true count as 0 and 1, unless refused."""
    values = [int(value) if isinstance(value, bool) and booleans else value for value in one.values]
    found = [part for part in one.parts if isinstance(part, Number)]
    found += [Number(value, value, isinstance(value, int)) for value in values if _is_number(value)]
    if len(found) < len(values) + len(one.parts) or not found:
        return None
    whole = all(part.whole for part in found)
    return Number(min(part.low for part in found), max(part.high for part in found), whole)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def shape(low: float, high: float, whole: bool = False) -> Shape:
    """The shape of numbers between two bounds, of which those that are no sure ones are left out."""
    furthest = types.LARGEST if whole else _EXACT
    low, high = (low if abs(low) < furthest else -INFINITY), (high if abs(high) < furthest else INFINITY)
    if whole and math.isfinite(low):
        low = math.ceil(low)
    if whole and math.isfinite(high):
        high = math.floor(high)
    # Only a whole number has one text: 5.0 is the same number as 5
    return types.constants([low]) if whole and low == high else Shape(parts=(Number(low, high, whole),))


def _corners(left: Number, right: Number, apply: Callable[[float, float], float], whole: bool) -> Shape:
    try:
        made = [_defined(apply, *pair) for pair in itertools.product((left.low, left.high), (right.low, right.high))]
    except ArithmeticError:
        made = [-INFINITY, INFINITY]
    return shape(min(made), max(made), whole)


def _defined(apply: Callable[[float, float], float], one: float, other: float) -> float:
    made = apply(one, other)
    # An infinite bound stands for numbers of any size, and 0 times each of them is 0
    return 0 if math.isnan(made) else made


def add(left: Number, right: Number) -> Shape:
    """``left + right``."""
    whole = left.whole and right.whole
    try:
        return shape(left.low + right.low, left.high + right.high, whole)
    except OverflowError:
        return shape(-INFINITY, INFINITY, whole)


def subtract(left: Number, right: Number) -> Shape:
    """``left - right``."""
    return add(left, Number(-right.high, -right.low, right.whole))


def multiply(left: Number, right: Number) -> Shape:
    """``left * right``."""
    return _corners(left, right, operator.mul, left.whole and right.whole)


def divide(left: Number, right: Number) -> Shape:
    """``left / right``."""
    if right.low > 0:
        return _corners(left, right, operator.truediv, whole=False)
    return shape(0 if left.low >= 0 and right.low >= 0 else -INFINITY, INFINITY)


def floor_divide(left: Number, right: Number) -> Shape:
    """``left // right``."""
    whole = left.whole and right.whole
    if whole and right.low == right.high > 0:
        low, high = (one if math.isinf(one) else one // right.low for one in (left.low, left.high))
        return shape(low, high, whole)
    return shape(0 if whole and left.low >= 0 and right.low >= 0 else -INFINITY, INFINITY, whole)


def modulo(left: Number, right: Number) -> Shape:
    """``left % right``."""
    whole = left.whole and right.whole
    if right.low < 0:
        return shape(-INFINITY, INFINITY, whole)
    high = right.high - 1 if whole else right.high
    return shape(0, min(high, left.high) if left.low >= 0 else high, whole)


def power(left: Number, right: Number) -> Shape:
    """``left ** right``."""
    exact = left.whole and right.whole and right.low >= 0
    if exact and left.low >= 1 and math.isfinite(left.high) and right.high * math.log2(left.high + 1) < _LONGEST_POWER:
        return shape(left.low**right.low, left.high**right.high, whole=True)
    return shape(0 if left.low >= 0 else -INFINITY, INFINITY, exact)


def negate(one: Number) -> Shape:
    """``-one``."""
    return shape(-one.high, -one.low, one.whole)


def absolute(one: Number) -> Shape:
    """``one | abs``."""
    ends = (abs(one.low), abs(one.high))
    return shape(0 if one.low <= 0 <= one.high else min(ends), max(ends), one.whole)


def rounded(one: Number, places: int | None) -> Shape:
    """``one | round(places)``; None: to a number of places, or in a way, that is not known."""
    if places is None:
        return shape(0 if one.low >= 0 else -INFINITY, INFINITY)
    try:
        low, high = (end if math.isinf(end) else round(end, places) for end in (one.low, one.high))
    except OverflowError:
        low, high = -INFINITY, INFINITY
    return shape(low, high, one.whole)


def truncated(one: Number) -> Shape:
    """``one | int``."""
    low, high = (end if math.isinf(end) else int(end) for end in (one.low, one.high))
    return shape(low, high, whole=True)


def extreme(name: str, ones: Iterable[Number]) -> Shape:
    """The least or greatest of numbers, by the name of the filter: ``min`` or ``max``."""
    every = list(ones)
    choose = min if name == "min" else max
    return shape(choose(one.low for one in every), choose(one.high for one in every), all(one.whole for one in every))


UUID = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
DATE = "[0-9]+-[0-9]{2}-[0-9]{2}"
_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z"
_LONGEST = 1_000
_FEW = 16
_SPECIAL = re.compile(r"[\^$\\.*+?()\[\]{}|]")
_CLASSES = {"#": "[0-9]", "?": "[A-Z]", "*": "[0-9A-Z]"}
_PLACE = re.compile(r"%(?P<width>0\d{1,2})?d|%s|%%")


def escaped(text: str) -> str:
    """The expression of exactly that text."""
    return _SPECIAL.sub(r"\\\g<0>", text)


def of(regex: str | None, format: str = "") -> Shape:
    """The shape of texts that match, of any text when the expression is None or too long to be read."""
    return Shape(parts=(Text(regex if regex is not None and len(regex) <= _LONGEST else None, format),))


def joined(pieces: Sequence[Shape]) -> Shape:
    """Values written as one text."""
    if any(one.is_empty for one in pieces):
        return types.NOTHING
    choices = [_few(one) for one in pieces]
    if all(one is not None for one in choices) and math.prod(len(one or ()) for one in choices) <= types.MOST:
        made = itertools.product(*(one for one in choices if one is not None))
        return types.constants("".join(map(str, one)) for one in made)
    return of(_row(map(_expression, pieces)))


def _row(expressions: Iterable[str | None]) -> str | None:
    every = list(expressions)
    return "".join(one or "" for one in every) if all(one is not None for one in every) else None


def _few(one: Shape) -> list[Any] | None:
    """All values of a shape that has few."""
    span = numeric_span(one, booleans=False) if one.parts else None
    if span is not None and span.whole and span.high - span.low < _FEW:
        return list(range(int(span.low), int(span.high) + 1))
    return None if one.parts else list(one.values)


def _expression(one: Shape) -> str | None:
    few = _few(one)
    if few is not None:
        return _choice([escaped(str(value)) for value in few])
    pieces = [escaped(str(value)) for value in one.values] + [_part(part) for part in one.parts]
    return None if None in pieces else _choice([piece for piece in pieces if piece is not None])


def _choice(pieces: list[str]) -> str:
    return pieces[0] if len(pieces) == 1 else f"({'|'.join(pieces)})"


def _part(part: types.Part) -> str | None:
    if isinstance(part, Text):
        return part.regex
    if isinstance(part, Time):
        return _TIME
    return _digits(part) if isinstance(part, Number) and part.whole else None


def _digits(number: Number) -> str:
    if number.low < 0:
        return "-?[0-9]+"
    least = len(str(int(number.low)))
    most = len(str(int(number.high))) if math.isfinite(number.high) else None
    return f"[0-9]{{{least}}}" if most == least else f"[0-9]{{{least},{most or ''}}}"


def drawn(pattern: str) -> Shape:
    """What the function ``pattern`` of the vocabulary gives."""
    made, characters = [], iter(pattern)
    for character in characters:
        plain = next(characters, "") if character == "\\" else character
        made.append(_CLASSES.get(character) or escaped(plain))
    return of("".join(made))


def formatted(text: str, arguments: Sequence[Shape]) -> Shape:
    """``text % arguments``."""
    pieces: list[Shape] = []
    waiting, end = iter(arguments), 0
    for match in _PLACE.finditer(text):
        pieces.append(types.constants([text[end : match.start()]]))
        end = match.end()
        pieces.append(types.constants(["%"]) if match[0] == "%%" else _placed(match, next(waiting, ANY)))
    pieces.append(types.constants([text[end:]]))
    return TEXT if "%" in _PLACE.sub("", text) else joined(pieces)


def _placed(match: re.Match[str], value: Shape) -> Shape:
    if match[0] == "%s":
        return value
    span, few = numeric_span(value), _few(value)
    if span is None or not span.whole or span.low < 0:
        return TEXT
    if few is not None:
        return types.constants([match[0] % one for one in few])
    width = int(match["width"] or 0)
    if math.isfinite(span.high) and len(str(int(span.high))) <= width:
        return of(f"[0-9]{{{width}}}")
    return of(f"[0-9]{{{width},}}") if width else value
