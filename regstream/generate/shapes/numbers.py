"""Arithmetic on shapes: which numbers an operation can give, by the bounds of what it is given.

Bounds are made by the operation itself; rounding keeps order, so they hold for what is rounded too. Where that is not
sure (whole numbers that a float cannot hold) there is no bound. Numbers are taken as finite: an event that carries
another is not made.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterable

from regstream.generate.shapes import shape as shapes
from regstream.generate.shapes.shape import INFINITY, Number, Shape

_EXACT = 2**53
_LONGEST_POWER = 1_024


def span(one: Shape, booleans: bool = True) -> Number | None:
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
    furthest = shapes.LARGEST if whole else _EXACT
    low, high = (low if abs(low) < furthest else -INFINITY), (high if abs(high) < furthest else INFINITY)
    if whole and math.isfinite(low):
        low = math.ceil(low)
    if whole and math.isfinite(high):
        high = math.floor(high)
    # Only a whole number has one text: 5.0 is the same number as 5
    return shapes.constants([low]) if whole and low == high else Shape(parts=(Number(low, high, whole),))


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
