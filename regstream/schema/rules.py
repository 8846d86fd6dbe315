"""What Jinja's filters and the methods of texts and times give, by the shape of what they are given."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from regstream.functions import faker
from regstream.schema import types, values
from regstream.schema.types import ANY, COUNT, LIST, NUMBER, TEXT, WHOLE, Array, Number, Object, Shape, Text, Time

_TEXTS = frozenset({
    "capitalize", "center", "e", "escape", "filesizeformat", "forceescape", "format", "indent", "join", "lower",
    "pprint", "replace", "safe", "string", "striptags", "title", "tojson", "trim", "upper", "urlencode", "urlize",
    "wordwrap", "xmlattr",
})  # fmt: skip
_SAME_LIST = frozenset({"list", "reject", "rejectattr", "reverse", "select", "selectattr", "sort", "unique"})
_TEXT_METHODS = dict.fromkeys(
    ("capitalize", "center", "ljust", "lower", "lstrip", "replace", "rjust", "rstrip", "strip", "title", "upper"), TEXT
)
_TIME_METHODS = {
    "isoformat": TEXT,
    "isoweekday": values.shape(1, 7, whole=True),
    "strftime": TEXT,
    "timestamp": NUMBER,
    "toordinal": values.shape(1, 3_652_059, whole=True),
    "weekday": values.shape(0, 6, whole=True),
}
_TIME_PARTS = {
    "year": (1, 9999), "month": (1, 12), "day": (1, 31), "hour": (0, 23), "minute": (0, 59), "second": (0, 59),
    "microsecond": (0, 999_999),
}  # fmt: skip


def time_part(name: str) -> Shape:
    """What an attribute of the present time is."""
    return values.shape(*_TIME_PARTS[name], whole=True) if name in _TIME_PARTS else ANY


def method(owner: Shape, name: str) -> Shape:
    """What a method of a value gives, whatever its arguments are."""
    if owner.only(Time):
        return _TIME_METHODS.get(name, ANY)
    return _TEXT_METHODS.get(name, ANY) if owner.only(Text) else ANY


def filter_result(name: str, inner: Shape, arguments: Sequence[Shape], places: int | None) -> Shape:
    """What a filter gives.

    ``places`` is the first argument of ``round`` when it is a constant and all that it has; ``arguments`` are those
    that are given by their place, or one that may be anything.
    """
    if name in _TEXTS:
        return TEXT
    if name in _SAME_LIST:
        return _same_list(inner)
    made = _FILTERS.get(name)
    if name == "round":
        return values.rounded(values.numeric_span(inner) or Number(), places)
    return made(inner, arguments) if made else ANY


def _same_list(inner: Shape) -> Shape:
    return Shape(parts=(Array(elements(inner)),)) if inner.only(Array) else ANY


def _default(inner: Shape, arguments: Sequence[Shape]) -> Shape:
    return types.join((inner, arguments[0] if arguments else types.constants([""])))


def _int(inner: Shape, arguments: Sequence[Shape]) -> Shape:
    span = values.numeric_span(inner)
    if span is not None and not arguments:
        return values.truncated(span)
    return types.join((WHOLE, *arguments))


def _float(inner: Shape, arguments: Sequence[Shape]) -> Shape:
    span = values.numeric_span(inner)
    if span is not None and not arguments:
        return values.shape(span.low, span.high)
    return types.join((NUMBER, *arguments))


def _abs(inner: Shape, arguments: Sequence[Shape]) -> Shape:
    span = values.numeric_span(inner)
    return values.absolute(span) if span else ANY


def _one(inner: Shape, arguments: Sequence[Shape]) -> Shape:
    return elements(inner) if inner.only(Array, Text) else ANY


def _sum(inner: Shape, arguments: Sequence[Shape]) -> Shape:
    span = values.numeric_span(elements(inner)) if inner.only(Array) and not arguments else None
    if span is None:
        return ANY
    return values.shape(0 if span.low >= 0 else -types.INFINITY, types.INFINITY, span.whole)


def _list(inner: Shape, arguments: Sequence[Shape]) -> Shape:
    return LIST


_FILTERS: Mapping[str, Callable[[Shape, Sequence[Shape]], Shape]] = {
    "default": _default,
    "d": _default,
    "int": _int,
    "float": _float,
    "abs": _abs,
    "count": lambda inner, arguments: COUNT,
    "length": lambda inner, arguments: COUNT,
    "wordcount": lambda inner, arguments: COUNT,
    "first": _one,
    "last": _one,
    "min": _one,
    "max": _one,
    "sum": _sum,
    "batch": _list,
    "slice": _list,
}


_OF_TYPE = {str: TEXT, int: WHOLE, float: NUMBER, bool: types.BOOLEAN}


def elements(values: Shape) -> Shape:
    """What is one of the values of a list, or one of the characters of a text."""
    known = [types.constants(one) for one in values.values if isinstance(one, str | list | tuple)]
    return types.join([*known, *map(_elements_of, values.parts)])


def _elements_of(part: types.Part) -> Shape:
    if isinstance(part, Array):
        return part.items
    return TEXT if isinstance(part, Text | types.Time) else ANY


def _number_at(one: Shape) -> float | None:
    span = values.numeric_span(one)
    return span.low if span is not None and span.low == span.high and math.isfinite(span.low) else None


def _constant(one: Shape) -> Any:
    return one.values[0] if len(one.values) == 1 and not one.parts else None


def _weighted(weights: Shape) -> Shape:
    names = [key for one in weights.values if isinstance(one, dict) for key, weight in one.items() if weight != 0]
    known = [part for part in weights.parts if isinstance(part, Object) and not part.is_open]
    if len(known) < len(weights.parts):
        return ANY
    return types.constants([*names, *(name for part in known for name in part.fields)])


def _between(low: Shape, high: Shape) -> Shape:
    """Draws that are moved from ``low`` by a part of the way: what is rounded on it can go a last place too far."""
    least, most = _number_at(low), _number_at(high)
    if least is not None and most is not None:
        ends = (least, most, least + (most - least), most - (most - least))
        return values.shape(min(ends), max(ends))
    spans = [values.numeric_span(one) for one in (low, high)]
    return values.shape(0 if all(span and span.low >= 0 for span in spans) else -math.inf, math.inf)


def _randint(low: Shape, high: Shape) -> Shape:
    least, most = values.numeric_span(low), values.numeric_span(high)
    return values.shape(least.low if least else -math.inf, most.high if most else math.inf, whole=True)


def _triangular(low: Shape, high: Shape, mode: Shape) -> Shape:
    known = _number_at(low) is not None and _number_at(high) is not None
    return _between(low, high) if known else NUMBER


def _exponential(mean: Shape) -> Shape:
    span = values.numeric_span(mean)
    return values.shape(0 if span and span.low >= 0 else -math.inf, math.inf)


def _pareto(alpha: Shape, minimum: Shape) -> Shape:
    span = values.numeric_span(minimum)
    return values.shape(span.low if span and span.low >= 0 else -math.inf, math.inf)


def _zipf(n: Shape, s: Shape) -> Shape:
    span = values.numeric_span(n)
    return values.shape(1, span.high if span else math.inf, whole=True)


def _digits(n: Shape) -> Shape:
    count = _number_at(n)
    return TEXT if count is None else values.of(f"[0-9]{{{int(count)}}}" if count else "")


def _pattern(text: Shape) -> Shape:
    known = _constant(text)
    return values.drawn(known) if isinstance(known, str) else TEXT


def _sequence(start: Shape, step: Shape) -> Shape:
    first, further = values.numeric_span(start), values.numeric_span(step)
    rises = first is not None and further is not None and further.low >= 0
    return values.shape(first.low if first and rises else -math.inf, math.inf, whole=True)


def _date(offset: Shape, until: Shape, format: Shape) -> Shape:
    # Not so a thousand years back, where the year has three figures
    return values.of(values.DATE, "date") if _constant(format) == "%Y-%m-%d" else TEXT


def _fake(kind: Shape, locale: Shape) -> Shape:
    name, place = _constant(kind), _constant(locale)
    known = isinstance(name, str) and isinstance(place, str)
    return _OF_TYPE.get(faker.gives(name, place) or object, ANY) if known else ANY


def _exponential_of_normal(mu: Shape, sigma: Shape) -> Shape:
    return values.shape(0, math.inf)


def _mixture(parts: Shape) -> Shape:
    return ANY if parts.parts else types.constants(one for every in parts.values for weight, one in every if weight)


_RESULTS: Mapping[str, Callable[..., Shape]] = {
    "choice": elements,
    "weighted": _weighted,
    "uniform": _between,
    "randint": _randint,
    "normal": lambda mean, sd: NUMBER,
    "lognormal": _exponential_of_normal,
    "exponential": _exponential,
    "triangular": _triangular,
    "pareto": _pareto,
    "zipf": _zipf,
    "chance": lambda p: types.BOOLEAN,
    "marginal": lambda z, name: ANY,
    "empirical": lambda file, column, weight, smooth: ANY,
    "uuid": lambda: values.of(values.UUID, "uuid"),
    "digits": _digits,
    "pattern": _pattern,
    "sequence": _sequence,
    "date": _date,
    "fake": _fake,
    "mixture": _mixture,
    "correlated": lambda rho: Shape(parts=(Array(NUMBER, 2, 2),)),
    "walk": lambda value, step, low, high: NUMBER,
    "grow": lambda value, mean, sd: NUMBER,
    "revert": lambda value, mean, rate, sd: NUMBER,
    "seasonal": lambda period, peak, amplitude, timezone: values.shape(0, 2),
}


def drawn(column: Sequence[Any], between: bool) -> Shape:
    """One of many values, all numbers or all texts, or with ``between`` a number from the least to the greatest."""
    kept = list({(type(one), one): one for one in column}.values())
    if between or (len(kept) > types.MOST and not isinstance(column[0], str)):
        return values.shape(min(kept), max(kept), whole=not between and all(isinstance(one, int) for one in kept))
    return TEXT if len(kept) > types.MOST else types.constants(kept)


def function_result(name: str, arguments: Mapping[str, Shape]) -> Shape:
    """What a function gives; ``arguments`` are those of its signature, by name, defaults included.

    ``pick`` and ``find`` are not among them: their rows are for the caller to know. So are the columns of ``empirical``
    and the distributions of ``marginal``.
    """
    return _RESULTS[name](**arguments)


def ranged(arguments: list[Shape]) -> Shape:
    """What ``range`` gives."""
    spans = [values.numeric_span(one) for one in arguments]
    rises = len(spans) < 3 and all(spans)
    low = spans[0].low if rises and len(spans) == 2 and spans[0] else 0
    high = spans[-1].high - 1 if rises and spans and spans[-1] else math.inf
    items = Number(low, high, whole=True) if rises and high >= low else Number(whole=True)
    return Shape(parts=(Array(Shape(parts=(items,))),))
