"""Files → ``Catalog``, or all problems of all files, each with its place.

One problem never hides another: what is wrong is reported and mended, and reading goes on.
"""

from __future__ import annotations

import pathlib

from regstream import errors, model
from regstream.config import loading
from regstream.config import sheet as sheets
from regstream.config.schema import schema
from regstream.generate import shapes

__all__ = ["digest", "large_numbers", "load", "locate", "schema"]


def load(streams: pathlib.Path, scenarios: pathlib.Path, templates: pathlib.Path, env: str) -> model.Catalog:
    """The catalog that a streams file and two folders declare, with the profile of ``env``.

    A missing folder is an empty one, an environment without a profile has the default one. Raises errors.ConfigError
    with every problem of every file. May run in any thread; waits for nothing but the disk.
    """
    return loading.Loading(streams, scenarios, templates).catalog(env)


def large_numbers(streams: pathlib.Path, catalog: model.Catalog) -> tuple[errors.Problem, ...]:
    """Warnings of fields whose whole numbers are known to go beyond 2**53 - 1; it takes some milliseconds a stream."""
    sheet, known = sheets.Sheet(streams).parse(), shapes.Schemas(catalog)
    for name in catalog.streams:
        for path in known.unsafe(name):
            message = f"{'.'.join(path)}: whole numbers beyond 2^53 - 1 reach JavaScript as others"
            where = ("streams", name, "template" if catalog.streams[name].fields is None else "fields", *path)
            sheet.warn(where, message, "send them as texts: a constant in quotes, an expression as {{ (…) | string }}")
    return tuple(sheet.warnings)


def digest(streams: pathlib.Path, scenarios: pathlib.Path, templates: pathlib.Path) -> str:
    """``Catalog.digest`` of what the files hold now; they are read but not understood. May run in any thread."""
    return loading.Loading(streams, scenarios, templates).digest()


def locate(streams: pathlib.Path, where: tuple[str, ...], message: str) -> errors.Problem:
    """A fault that shows only when declarations are put to use, at its place in the streams file as it is now."""
    sheet = sheets.Sheet(streams).parse()
    sheet.report(where, f"{where[-1]}: {message}")
    return sheet.problems[-1]
