"""What the functions of the vocabulary give, by the shapes of their arguments."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from regstream.generate import fakes
from regstream.generate.shapes import numbers, texts
from regstream.generate.shapes import shape as shapes
from regstream.generate.shapes.shape import ANY, NUMBER, TEXT, WHOLE, Array, Number, Object, Shape, Text

_OF_TYPE = {str: TEXT, int: WHOLE, float: NUMBER, bool: shapes.BOOLEAN}


def elements(values: Shape) -> Shape:
    """What is one of the values of a list, or one of the characters of a text."""
    known = [shapes.constants(one) for one in values.values if isinstance(one, str | list | tuple)]
    return shapes.join([*known, *map(_elements_of, values.parts)])


def _elements_of(part: shapes.Part) -> Shape:
    if isinstance(part, Array):
        return part.items
    return TEXT if isinstance(part, Text | shapes.Time) else ANY


def _number_at(one: Shape) -> float | None:
    span = numbers.span(one)
    return span.low if span is not None and span.low == span.high and math.isfinite(span.low) else None


def _constant(one: Shape) -> Any:
    return one.values[0] if len(one.values) == 1 and not one.parts else None


def _weighted(weights: Shape) -> Shape:
    names = [key for one in weights.values if isinstance(one, dict) for key, weight in one.items() if weight != 0]
    known = [part for part in weights.parts if isinstance(part, Object) and not part.is_open]
    if len(known) < len(weights.parts):
        return ANY
    return shapes.constants([*names, *(name for part in known for name in part.fields)])


def _between(low: Shape, high: Shape) -> Shape:
    """Draws that are moved from ``low`` by a part of the way: what is rounded on it can go a last place too far."""
    least, most = _number_at(low), _number_at(high)
    if least is not None and most is not None:
        ends = (least, most, least + (most - least), most - (most - least))
        return numbers.shape(min(ends), max(ends))
    spans = [numbers.span(one) for one in (low, high)]
    return numbers.shape(0 if all(span and span.low >= 0 for span in spans) else -math.inf, math.inf)


def _randint(low: Shape, high: Shape) -> Shape:
    least, most = numbers.span(low), numbers.span(high)
    return numbers.shape(least.low if least else -math.inf, most.high if most else math.inf, whole=True)


def _triangular(low: Shape, high: Shape, mode: Shape) -> Shape:
    known = _number_at(low) is not None and _number_at(high) is not None
    return _between(low, high) if known else NUMBER


def _exponential(mean: Shape) -> Shape:
    span = numbers.span(mean)
    return numbers.shape(0 if span and span.low >= 0 else -math.inf, math.inf)


def _pareto(alpha: Shape, minimum: Shape) -> Shape:
    span = numbers.span(minimum)
    return numbers.shape(span.low if span and span.low >= 0 else -math.inf, math.inf)


def _zipf(n: Shape, s: Shape) -> Shape:
    span = numbers.span(n)
    return numbers.shape(1, span.high if span else math.inf, whole=True)


def _digits(n: Shape) -> Shape:
    count = _number_at(n)
    return TEXT if count is None else texts.of(f"[0-9]{{{int(count)}}}" if count else "")


def _pattern(text: Shape) -> Shape:
    known = _constant(text)
    return texts.drawn(known) if isinstance(known, str) else TEXT


def _sequence(start: Shape, step: Shape) -> Shape:
    first, further = numbers.span(start), numbers.span(step)
    rises = first is not None and further is not None and further.low >= 0
    return numbers.shape(first.low if first and rises else -math.inf, math.inf, whole=True)


def _date(offset: Shape, until: Shape, format: Shape) -> Shape:
    # Not so a thousand years back, where the year has three figures
    return texts.of(texts.DATE, "date") if _constant(format) == "%Y-%m-%d" else TEXT


def _fake(kind: Shape, locale: Shape) -> Shape:
    name, place = _constant(kind), _constant(locale)
    known = isinstance(name, str) and isinstance(place, str)
    return _OF_TYPE.get(fakes.gives(name, place) or object, ANY) if known else ANY


def _exponential_of_normal(mu: Shape, sigma: Shape) -> Shape:
    return numbers.shape(0, math.inf)


def _mixture(parts: Shape) -> Shape:
    return ANY if parts.parts else shapes.constants(one for every in parts.values for weight, one in every if weight)


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
    "chance": lambda p: shapes.BOOLEAN,
    "marginal": lambda z, name: ANY,
    "empirical": lambda file, column, weight, smooth: ANY,
    "uuid": lambda: texts.of(texts.UUID, "uuid"),
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
    "seasonal": lambda period, peak, amplitude, timezone: numbers.shape(0, 2),
}


def drawn(values: Sequence[Any], between: bool) -> Shape:
    """One of many values, all numbers or all texts, or with ``between`` a number from the least to the greatest."""
    kept = list({(type(one), one): one for one in values}.values())
    if between or (len(kept) > shapes.MOST and not isinstance(values[0], str)):
        return numbers.shape(min(kept), max(kept), whole=not between and all(isinstance(one, int) for one in kept))
    return TEXT if len(kept) > shapes.MOST else shapes.constants(kept)


def result(name: str, arguments: Mapping[str, Shape]) -> Shape:
    """What a function gives; ``arguments`` are those of its signature, by name, defaults included.

    ``pick`` and ``find`` are not among them: their rows are for the caller to know. So are the columns of ``empirical``
    and the distributions of ``marginal``.
    """
    return _RESULTS[name](**arguments)


def ranged(arguments: list[Shape]) -> Shape:
    """What ``range`` gives."""
    spans = [numbers.span(one) for one in arguments]
    rises = len(spans) < 3 and all(spans)
    low = spans[0].low if rises and len(spans) == 2 and spans[0] else 0
    high = spans[-1].high - 1 if rises and spans and spans[-1] else math.inf
    items = Number(low, high, whole=True) if rises and high >= low else Number(whole=True)
    return Shape(parts=(Array(Shape(parts=(items,))),))
