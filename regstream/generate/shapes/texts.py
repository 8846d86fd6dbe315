"""Texts: what stands in them when values are written one after the other, as a regular expression.

The expressions keep to what ECMA 262, Python and RE2 read alike.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from regstream.generate.shapes import numbers
from regstream.generate.shapes import shape as shapes
from regstream.generate.shapes.shape import ANY, TEXT, Number, Shape, Text, Time

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
        return shapes.NOTHING
    choices = [_few(one) for one in pieces]
    if all(one is not None for one in choices) and math.prod(len(one or ()) for one in choices) <= shapes.MOST:
        made = itertools.product(*(one for one in choices if one is not None))
        return shapes.constants("".join(map(str, one)) for one in made)
    return of(_row(map(_expression, pieces)))


def _row(expressions: Iterable[str | None]) -> str | None:
    every = list(expressions)
    return "".join(one or "" for one in every) if all(one is not None for one in every) else None


def _few(one: Shape) -> list[Any] | None:
    """All values of a shape that has few."""
    span = numbers.span(one, booleans=False) if one.parts else None
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


def _part(part: shapes.Part) -> str | None:
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
        pieces.append(shapes.constants([text[end : match.start()]]))
        end = match.end()
        pieces.append(shapes.constants(["%"]) if match[0] == "%%" else _placed(match, next(waiting, ANY)))
    pieces.append(shapes.constants([text[end:]]))
    return TEXT if "%" in _PLACE.sub("", text) else joined(pieces)


def _placed(match: re.Match[str], value: Shape) -> Shape:
    if match[0] == "%s":
        return value
    span, few = numbers.span(value), _few(value)
    if span is None or not span.whole or span.low < 0:
        return TEXT
    if few is not None:
        return shapes.constants([match[0] % one for one in few])
    width = int(match["width"] or 0)
    if math.isfinite(span.high) and len(str(int(span.high))) <= width:
        return of(f"[0-9]{{{width}}}")
    return of(f"[0-9]{{{width},}}") if width else value
