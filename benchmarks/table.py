"""Rows of the table, and how they are written."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

_HEAD = ("row", "figure", "floor", "ratio", "must", "aim", "met")
_LEFT = (0, 6)


@dataclasses.dataclass(frozen=True)
class Row:
    """One figure. ``must`` and ``aim`` bound the figure, or the ratio to the floor when there is no unit.

    A figure with ``must`` 0 is only told. ``rising`` says that more is better. ``note`` says what else was seen.
    """

    name: str
    figure: float
    unit: str
    must: float = 0.0
    aim: float = 0.0
    floor: float | None = None
    by_ratio: bool = False
    rising: bool = False
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """The figure over the floor."""
        return self.figure / self.floor if self.floor else None

    @property
    def met(self) -> str:
        """``aim``, ``must``, ``no``, or nothing when nothing is asked."""
        if not self.must:
            return ""
        value = self.ratio if self.by_ratio else self.figure
        for word, bound in (("aim", self.aim), ("must", self.must)):
            if value is not None and (value >= bound if self.rising else value <= bound):
                return word
        return "no"

    def as_json(self) -> dict[str, Any]:
        """All of it, for programs."""
        return {**dataclasses.asdict(self), "ratio": self.ratio, "met": self.met}


def text(rows: Sequence[Row]) -> str:
    """The table, a note below each row that has one."""
    lines = [_HEAD, *map(_cells, rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(_HEAD))]
    made = []
    for line, row in zip(lines, [None, *rows], strict=True):
        cells = (f"{c:<{w}}" if n in _LEFT else f"{c:>{w}}" for n, (c, w) in enumerate(zip(line, widths, strict=True)))
        made.append("  ".join(cells).rstrip())
        made += [f"    {one}" for one in (row.note if row else "").splitlines()]
    return "\n".join(made)


def _cells(row: Row) -> tuple[str, ...]:
    unit = "" if row.by_ratio else row.unit
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    floor = "" if row.floor is None else number(row.floor, row.unit)
    bounds = (number(row.must, unit), number(row.aim, unit)) if row.must else ("", "")
    return (row.name, number(row.figure, row.unit), floor, ratio, *bounds, row.met)


def number(value: float, unit: str) -> str:
    """A figure as people read it."""
    digits = 0 if value >= 1000 else 1 if value >= 20 else 2
    return f"{value:,.{digits}f} {unit}".rstrip()
