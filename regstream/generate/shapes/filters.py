"""What Jinja's filters and the methods of texts and times give, by the shape of what they are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from regstream.generate.shapes import functions, numbers
from regstream.generate.shapes import shape as shapes
from regstream.generate.shapes.shape import ANY, COUNT, LIST, NUMBER, TEXT, WHOLE, Array, Number, Shape, Text, Time

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
    "isoweekday": numbers.shape(1, 7, whole=True),
    "strftime": TEXT,
    "timestamp": NUMBER,
    "toordinal": numbers.shape(1, 3_652_059, whole=True),
    "weekday": numbers.shape(0, 6, whole=True),
}
_TIME_PARTS = {
    "year": (1, 9999), "month": (1, 12), "day": (1, 31), "hour": (0, 23), "minute": (0, 59), "second": (0, 59),
    "microsecond": (0, 999_999),
}  # fmt: skip


def time_part(name: str) -> Shape:
    """What an attribute of the present time is."""
    return numbers.shape(*_TIME_PARTS[name], whole=True) if name in _TIME_PARTS else ANY


def method(owner: Shape, name: str) -> Shape:
    """What a method of a value gives, whatever its arguments are."""
    if owner.only(Time):
        return _TIME_METHODS.get(name, ANY)
    return _TEXT_METHODS.get(name, ANY) if owner.only(Text) else ANY


def result(name: str, inner: Shape, arguments: Sequence[Shape], places: int | None) -> Shape:
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
        return numbers.rounded(numbers.span(inner) or Number(), places)
    return made(inner, arguments) if made else ANY


def _same_list(inner: Shape) -> Shape:
    return Shape(parts=(Array(functions.elements(inner)),)) if inner.only(Array) else ANY


def _default(inner: Shape, arguments: Sequence[Shape]) -> Shape:
    return shapes.join((inner, arguments[0] if arguments else shapes.constants([""])))


def _int(inner: Shape, arguments: Sequence[Shape]) -> Shape:
    span = numbers.span(inner)
    if span is not None and not arguments:
        return numbers.truncated(span)
    return shapes.join((WHOLE, *arguments))


def _float(inner: Shape, arguments: Sequence[Shape]) -> Shape:
    span = numbers.span(inner)
    if span is not None and not arguments:
        return numbers.shape(span.low, span.high)
    return shapes.join((NUMBER, *arguments))


def _abs(inner: Shape, arguments: Sequence[Shape]) -> Shape:
    span = numbers.span(inner)
    return numbers.absolute(span) if span else ANY


def _one(inner: Shape, arguments: Sequence[Shape]) -> Shape:
    return functions.elements(inner) if inner.only(Array, Text) else ANY


def _sum(inner: Shape, arguments: Sequence[Shape]) -> Shape:
    span = numbers.span(functions.elements(inner)) if inner.only(Array) and not arguments else None
    if span is None:
        return ANY
    return numbers.shape(0 if span.low >= 0 else -shapes.INFINITY, shapes.INFINITY, span.whole)


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
