"""CSV files under ``templates/``, from whose columns ``empirical`` draws.

RFC 4180: commas, double quotes, a header. A column in which every cell that is not empty is a number as JSON writes it,
whole ones of at most 64 bits, gives numbers; any other gives texts. Empty cells are left out.
"""

from __future__ import annotations

import bisect
import csv
import functools
import io
import itertools
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from regstream import errors

SUFFIX = ".csv"
MAX_ROWS = 100_000
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?P<rest>(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)")
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_DIGITS = 20
_LEAST, _MOST = -(2**63), 2**64 - 1


def is_table(name: str) -> bool:
    """Whether a file under ``templates/`` is a table and no template."""
    return name.endswith(SUFFIX)


class TableError(ValueError):
    """A table that cannot be read, at a line of its file, or that has not what is asked of it; ``hint`` is the cure."""

    def __init__(self, message: str, hint: str = "", line: int = 1) -> None:
        super().__init__(f"{message}, {hint}" if hint else message)
        self.message, self.hint, self.line = message, hint, line


class BrokenTableError(TableError):
    """The file itself has a fault, which is reported there."""


class Drawn(NamedTuple):
    """What comes of a draw from a column: ``values``, of numbers the least first.

    ``bounds`` are the upper bounds in (0, 1) of all values but the last, none when all are equally likely. ``points``
    say, when the values between are drawn too, which part of all lies below each value: from 0 to 1.
    """

    values: tuple[Any, ...]
    bounds: tuple[float, ...] = ()
    points: tuple[float, ...] = ()

    def quantile(self, u: float) -> Any:
        """The value below which the part ``u`` in [0, 1) of all lies."""
        if self.points:
            return self.between(u)
        return self.values[bisect.bisect_right(self.bounds, u) if self.bounds else int(len(self.values) * u)]

    def between(self, u: float) -> float:
        """The same with ``points``, on straight lines between the values."""
        above = bisect.bisect_right(self.points, u)
        if above == len(self.points):
            return float(self.values[-1])
        low, high = self.values[above - 1], self.values[above]
        part = (u - self.points[above - 1]) / (self.points[above] - self.points[above - 1])
        return float(min(low + part * (high - low), high))

    @property
    def kind(self) -> str:
        """The type of the values: ``int float str``, or ``number`` when they are of both types of numbers."""
        kinds = {type(one).__name__ for one in self.values}
        return kinds.pop() if len(kinds) == 1 else "number"


class CsvTable:
    """A table that was read; what is made of its columns is kept."""

    def __init__(self, names: Sequence[str], rows: Sequence[tuple[int, list[str]]]) -> None:
        self.names = tuple(names)
        self._lines = [line for line, _ in rows]
        columns = zip(*(cells for _, cells in rows), strict=True) if rows else itertools.repeat(())
        self._columns = dict(zip(names, columns, strict=False))
        self._drawn: dict[tuple[str, str | None, bool], Drawn] = {}

    def drawn(self, column: str, weight: str | None = None, smooth: bool = False) -> Drawn:
        """What draws from a column give, with the weights of another one if it is named. Raises TableError."""
        key = column, weight, bool(smooth)
        if key not in self._drawn:
            self._drawn[key] = self._made(*key)
        return self._drawn[key]

    def _made(self, column: str, weight: str | None, smooth: bool) -> Drawn:
        kept = [number for number, cell in enumerate(self._cells(column)) if cell]
        values = _typed([self._columns[column][number] for number in kept])
        weights = None if weight is None else self._weights(weight, kept)
        if weights is not None:
            values = [value for value, one in zip(values, weights, strict=True) if one]
            weights = [one for one in weights if one]
        if not values:
            raise TableError(f"column {column!r} has no values" + (" with a weight above 0" if kept else ""))
        if isinstance(values[0], str):
            if smooth:
                raise TableError(f"column {column!r} has texts, there is nothing between them", "leave smooth out")
        else:
            order = sorted(range(len(values)), key=values.__getitem__)
            values = [values[number] for number in order]
            weights = weights and [weights[number] for number in order]
        if smooth:
            return _smooth(column, [float(one) for one in values], weights or [1] * len(values))
        return Drawn(tuple(values), _bounds(weights) if weights else ())

    def _cells(self, column: str) -> tuple[str, ...]:
        if column not in self._columns:
            hint = errors.did_you_mean(column, self.names) if isinstance(column, str) else ""
            raise TableError(f"there is no column {column!r}", hint or f"there are {', '.join(self.names)}")
        return self._columns[column]

    def _weights(self, column: str, kept: Sequence[int]) -> list[float]:
        found = []
        for number in kept:
            weight = _number(self._cells(column)[number])
            if weight is None or weight < 0:
                given = self._columns[column][number]
                where = f"line {self._lines[number]}"
                raise TableError(
                    f"column {column!r} must have numbers of 0 or more as weights, not {given!r} in {where}"
                )
            found.append(weight)
        return found


def _smooth(column: str, values: list[float], weights: Sequence[float]) -> Drawn:
    if not math.isfinite(values[-1] - values[0]):
        raise TableError(f"the values of column {column!r} are too far apart for smooth")
    total = _total(weights)
    # Each value stands in the middle of its weight, the first at 0 and the last at 1
    middles = [below - weight / total / 2 for below, weight in zip(_sums(weights, total), weights, strict=True)]
    first, length = middles[0], middles[-1] - middles[0]
    points = [(one - first) / length for one in middles[1:-1]] if length > 0 else []
    return Drawn(tuple(values), (), (0.0, *points, 1.0)[: len(values)])


def _total(weights: Sequence[float]) -> float:
    try:
        return math.fsum(weights)
    except OverflowError:
        raise TableError("the weights are too large") from None


def _sums(weights: Sequence[float], total: float) -> list[float]:
    return list(itertools.accumulate(weight / total for weight in weights))


def _bounds(weights: Sequence[float]) -> tuple[float, ...]:
    return tuple(_sums(weights, _total(weights))[:-1])


def _typed(cells: list[str]) -> list[Any]:
    numbers = [_number(cell) for cell in cells]
    return cells if None in numbers else numbers


def _number(cell: str) -> int | float | None:
    """The number that JSON would take the text for; None when it is none, or none that an event can carry."""
    match = _NUMBER.fullmatch(cell)
    if match is None:
        return None
    if match["rest"]:
        found = float(cell)
        return found if math.isfinite(found) else None
    whole = int(cell) if len(cell) <= _DIGITS else _MOST + 1
    return whole if _LEAST <= whole <= _MOST else None


def empirical(u: float, file: CsvTable, column: str, weight: str | None = None, smooth: bool = False) -> Any:
    """A value of a column, each row equally likely or by its weight; with ``smooth`` also those between two numbers."""
    return file.drawn(column, weight, smooth).quantile(u)


class Csv(str):
    """The text of a CSV file, read when its table is asked for the first time."""

    @functools.cached_property
    def _found(self) -> CsvTable | TableError:
        try:
            return _read(str(self))
        except TableError as error:
            return error

    @property
    def table(self) -> CsvTable:
        """The table. Raises TableError with the line at which the text cannot be one."""
        found = self._found
        if isinstance(found, TableError):
            raise TableError(found.message, found.hint, found.line)
        return found


def csv_of(text: str) -> Csv:
    """The text itself if it is one of a CSV file already, so that it is read once."""
    return text if isinstance(text, Csv) else Csv(text)


def _read(text: str) -> CsvTable:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line, rows = 1, []
    try:
        names = next(reader, [])
        _check_header(names)
        line = reader.line_num + 1
        for cells in reader:
            if cells:
                _check_row(names, cells, line)
                rows.append((line, cells))
            if len(rows) > MAX_ROWS:
                raise TableError(f"more than {MAX_ROWS:,} rows", "take a sample of them", line)
            line = reader.line_num + 1
    except csv.Error as error:
        raise TableError(
            f"not CSV: {error}", "put texts with commas, quotes or line ends between quotes", line
        ) from None
    return CsvTable(names, rows)


def _check_header(names: list[str]) -> None:
    if not names:
        raise TableError("no header", "write the names of the columns into the first line")
    if names[0].startswith("sep="):
        raise TableError(f"the first line is {names[0]!r}, which only some spreadsheets read", "remove it")
    for mark, name in _SEPARATORS.items() if len(names) == 1 else ():
        if mark in names[0]:
            raise TableError(
                f"the columns are separated by {name}",
                "save the file with commas between them, and with points in numbers",
            )
    for number, name in enumerate(names, 1):
        if not name.strip():
            raise TableError(f"column {number} has no name", "write the names of the columns into the first line")
        if name in names[: number - 1]:
            raise TableError(f"there are two columns {name!r}", "give one of them another name")


def _check_row(names: list[str], cells: list[str], line: int) -> None:
    if len(cells) != len(names):
        there = f"{len(cells)} cell{'s' if len(cells) > 1 else ''}"
        hint = "leave no cell out, and put texts with commas between quotes"
        raise TableError(f"the row has {there}, the header {len(names)}", hint, line)
