"""All SQL, by name: it stands in ``sql/``, and nowhere in Python.

A file holds named statements, each under a line ``-- name: so_and_so``; comments above a statement say what it is for.
"""

from __future__ import annotations

import functools
import pathlib
import re
from collections.abc import Mapping
from typing import NamedTuple

from psycopg import sql

_FOLDER = pathlib.Path(__file__).parent / "sql"
_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


class Migration(NamedTuple):
    """One step of the schema: ``number`` counts from 1."""

    number: int
    name: str
    text: sql.SQL


@functools.cache
def _all() -> Mapping[str, sql.SQL]:
    found: dict[str, sql.SQL] = {}
    for path in sorted(_FOLDER.glob("*.sql")):
        _, *parts = _NAME.split(path.read_text(encoding="utf-8"))
        for name, text in zip(parts[::2], parts[1::2], strict=True):
            if name in found:
                raise ValueError(f"{path.name}: {name} is there twice")
            found[name] = _sql(text.strip().rstrip(";"))
    return found


def named(name: str) -> sql.SQL:
    """The statement of that name. Raises KeyError."""
    return _all()[name]


@functools.cache
def migrations() -> tuple[Migration, ...]:
    """The steps from an empty database to the schema that this version needs, in order."""
    found = []
    for number, path in enumerate(sorted((_FOLDER / "migrations").glob("*.sql")), 1):
        digits, _, name = path.stem.partition("_")
        if int(digits) != number:
            raise ValueError(f"{path.name}: the next number is {number:04d}")
        found.append(Migration(number, name, _sql(path.read_text(encoding="utf-8"))))
    return tuple(found)


def _sql(text: str) -> sql.SQL:
    # The files are a part of the program, as good as literals
    return sql.SQL(text)
